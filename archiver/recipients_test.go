package archiver

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
)

// keys are those of one person.
type keys struct{ recipient, identity string } // identity is a file

// newKeys runs the program that makes a key; the file's path comes last.
func newKeys(t testing.TB, kind string) keys {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	read := func(path string) string {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(raw))
	}
	switch kind {
	case "age":
		run("age-keygen", "-o", path)
		return keys{run("age-keygen", "-y", path), path}
	case "pq":
		id, err := age.GenerateHybridIdentity()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("# post-quantum\n"+id.String()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return keys{id.Recipient().String(), path}
	case "ssh-rsa":
		run("ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-C", "somebody@somewhere", "-f", path)
	case "ssh-ecdsa":
		run("ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", path)
	case "ssh-passphrase":
		run("ssh-keygen", "-q", "-t", "ed25519", "-N", "open sesame", "-f", path)
	default:
		run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "somebody@somewhere", "-f", path)
	}
	return keys{read(path + ".pub"), path}
}

func recipients(t testing.TB, list ...string) Recipients {
	t.Helper()
	r, err := ParseRecipients(list)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func identities(t testing.TB, paths ...string) Identities {
	t.Helper()
	ids, err := ReadIdentities(paths)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestParseRecipients(t *testing.T) {
	native, pq, ed, rsa, ecdsa := newKeys(t, "age"), newKeys(t, "pq"), newKeys(t, "ssh"), newKeys(t, "ssh-rsa"), newKeys(t, "ssh-ecdsa")
	bare := func(key string) string { return strings.Join(strings.Fields(key)[:2], " ") }
	dir := t.TempDir()
	file := func(name string, lines ...string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret, err := os.ReadFile(native.identity)
	if err != nil {
		t.Fatal(err)
	}
	secretLine := strings.Split(strings.TrimSpace(string(secret)), "\n")[2]
	team := file("team", "# the team", "", "  "+native.recipient+"\r", ed.recipient, "# "+rsa.recipient, native.recipient)
	github := file("somebody.keys", bare(rsa.recipient), bare(ecdsa.recipient), bare(ed.recipient))

	for name, c := range map[string]struct {
		list, want []string
		skipped    int
	}{
		"none":           {nil, nil, 0},
		"age":            {[]string{" " + native.recipient + " "}, []string{native.recipient}, 0},
		"post-quantum":   {[]string{pq.recipient}, []string{pq.recipient}, 0},
		"ssh":            {[]string{ed.recipient, rsa.recipient}, []string{bare(ed.recipient), bare(rsa.recipient)}, 0},
		"a file":         {[]string{team}, []string{native.recipient, bare(ed.recipient)}, 0},
		"twice the same": {[]string{native.recipient, team, native.recipient}, []string{native.recipient, bare(ed.recipient)}, 0},
		"keys of GitHub": {[]string{github}, []string{bare(rsa.recipient), bare(ed.recipient)}, 1},
	} {
		r, err := ParseRecipients(c.list)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := r.Texts(); strings.Join(got, "|") != strings.Join(c.want, "|") || len(r.Skipped) != c.skipped || r.IsZero() != (c.want == nil) {
			t.Errorf("%s: recipients are %q, want %q; skipped: %q", name, got, c.want, r.Skipped)
		}
	}
	if r := recipients(t, github); !strings.Contains(r.Skipped[0], github+":2:") {
		t.Errorf("skipped: %q", r.Skipped)
	}

	for name, c := range map[string]struct{ arg, want string }{
		"empty":                   {"", "empty"},
		"a private key":           {secretLine, "private key"},
		"a private key, lower":    {strings.ToLower(secretLine), "private key"},
		"a file of private keys":  {native.identity, native.identity + ":3: a private key"},
		"an SSH private key":      {ed.identity, ed.identity + ":1: a private key"},
		"a damaged recipient":     {native.recipient[:len(native.recipient)-1] + "b", "wrong or missing"},
		"a damaged one in a file": {file("damaged", "# x", native.recipient+"x"), filepath.Join(dir, "damaged") + ":2: "},
		"no such file":            {filepath.Join(dir, "nobody"), "nobody"},
		"a file of nothing":       {file("nothing", "# nobody"), "no recipient"},
		"only keys of other kind": {file("ecdsa", bare(ecdsa.recipient)), "no recipient"},
		"an SSH key of its kind":  {ecdsa.recipient, "recipient ecdsa"},
		"another file":            {file("passwd", "root:x:0:0:secret"), filepath.Join(dir, "passwd") + ":1: "},
	} {
		_, err := ParseRecipients([]string{c.arg})
		if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is %v, want one with %q", name, err, c.want)
			continue
		}
		oneLiner(t, err)
		if text := strings.ToUpper(err.Error()); strings.Contains(text, strings.ToUpper(secretLine[20:])) || strings.Contains(text, "SECRET") && name == "another file" {
			t.Errorf("%s: the error shows what it must not: %v", name, err)
		}
	}
}

// What cannot be mixed is refused before anything else is done.
func TestRecipientsThatCannotBeMixed(t *testing.T) {
	native, pq := newKeys(t, "age"), newKeys(t, "pq")
	err := recipients(t, native.recipient, pq.recipient).check()
	if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), "post-quantum") {
		t.Errorf("error is %v", err)
	}
	oneLiner(t, err)
	for _, r := range []Recipients{recipients(t, pq.recipient), recipients(t, native.recipient, newKeys(t, "ssh").recipient)} {
		if err := r.check(); err != nil {
			t.Error(err)
		}
	}
}

func TestReadIdentities(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	native := newKeys(t, "age")
	raw, err := os.ReadFile(native.identity)
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.Split(strings.TrimSpace(string(raw)), "\n")[2]
	for name, c := range map[string]struct{ path, want string }{
		"a public key":       {file("pub", native.recipient), "pub:1: a public key"},
		"a damaged identity": {file("bad", "# x\n"+secret[:len(secret)-2]), "bad:2: a damaged identity"},
		"the key itself":     {secret, "private key where"},
		"nothing":            {file("none", "# x"), "no identity"},
		"another file":       {file("other", "hunter2"), "other:1: no identity"},
		"no file":            {filepath.Join(dir, "gone"), "gone"},
		"an ECDSA key":       {newKeys(t, "ssh-ecdsa").identity, "ssh-ed25519 and ssh-rsa can"},
		"an SSH public key":  {newKeys(t, "ssh").identity + ".pub", "a public key"},
	} {
		_, err := ReadIdentities([]string{c.path})
		if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is %v, want one with %q", name, err, c.want)
			continue
		}
		oneLiner(t, err)
		if strings.Contains(err.Error(), secret[20:40]) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error shows what it must not: %v", name, err)
		}
	}
}

// prompts answers with one passphrase, and counts.
type prompts struct {
	answer string
	asked  []string
}

func (p *prompts) Secret(prompt string) ([]byte, error) {
	p.asked = append(p.asked, prompt)
	return []byte(p.answer), nil
}
func (p *prompts) Line(string) (string, error) { return "", errors.New("nobody there") }
func (p *prompts) Tell(string)                 {}

// Passphrases are asked for when they are needed, once, and only of somebody.
func TestIdentitiesWithPassphrase(t *testing.T) {
	native := newKeys(t, "age")
	raw, err := os.ReadFile(native.identity)
	if err != nil {
		t.Fatal(err)
	}
	locked := filepath.Join(t.TempDir(), "locked.age")
	scrypt, err := age.NewScryptRecipient("open sesame")
	if err != nil {
		t.Fatal(err)
	}
	scrypt.SetWorkFactor(10)
	f, err := os.Create(locked)
	if err != nil {
		t.Fatal(err)
	}
	w, err := age.Encrypt(f, scrypt)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	ssh := newKeys(t, "ssh-passphrase")
	for name, k := range map[string]keys{"age": {native.recipient, locked}, "ssh": ssh} {
		t.Run(name, func(t *testing.T) {
			open := func(ids Identities) error {
				sealed, err := seal([]byte("plain"), recipients(t, k.recipient))
				if err != nil {
					t.Fatal(err)
				}
				_, err = ids.open(sealed)
				return err
			}
			ids := identities(t, k.identity)
			if err := open(ids); !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), "no terminal") || !strings.Contains(err.Error(), k.identity) {
				t.Errorf("nobody to ask: %v", err)
			}
			if err := open(identities(t, k.identity, native.identity, newKeys(t, "age").identity)); name == "age" && err != nil {
				t.Errorf("another identity opens it: %v", err)
			}
			p := &prompts{answer: "wrong"}
			ids.SetPrompt(p)
			if err := open(ids); !errors.Is(err, ErrUsage) {
				t.Errorf("a wrong passphrase: %v", err)
			}
			p.answer = "open sesame"
			if err := errors.Join(open(ids), open(ids)); err != nil || len(p.asked) != 2 {
				t.Errorf("%v, asked %q", err, p.asked)
			}
			other, err := seal(nil, recipients(t, newKeys(t, "ssh").recipient))
			if err != nil {
				t.Fatal(err)
			}
			fresh := identities(t, ssh.identity)
			q := &prompts{answer: "open sesame"}
			fresh.SetPrompt(q)
			if _, err := fresh.open(other); !errors.Is(err, ErrIdentity) || len(q.asked) > 0 {
				t.Errorf("somebody else's: %v, asked %q", err, q.asked)
			}
		})
	}
}
