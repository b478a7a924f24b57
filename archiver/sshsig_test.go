package archiver

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// sshKeygen runs the real one.
func sshKeygen(t testing.TB, stdin []byte, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("ssh-keygen", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// sshKey makes a key with ssh-keygen and gives the path of its private file.
func sshKey(t testing.TB, kind string, more ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key-"+kind)
	args := append([]string{"-q", "-t", kind, "-f", path, "-C", kind + "@test"}, more...)
	if len(more) == 0 || more[0] != "-N" {
		args = append(args, "-N", "")
	}
	if out, err := sshKeygen(t, nil, args...); err != nil {
		t.Fatalf("ssh-keygen %v: %v\n%s", args, err, out)
	}
	return path
}

func publicText(t testing.TB, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(raw))
}

func openKey(t testing.TB, path string) Signer {
	t.Helper()
	s, err := OpenSigner(path, "")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// writeTemp writes a file of its own.
func writeTemp(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// allowed is the file with these lines, read.
func allowed(t testing.TB, lines ...string) *AllowedSigners {
	t.Helper()
	a, err := ReadAllowedSigners(writeTemp(t, "allowed_signers", strings.Join(lines, "\n")+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

var keyKinds = [][]string{{"ed25519"}, {"ecdsa", "-b", "256"}, {"ecdsa", "-b", "384"}, {"ecdsa", "-b", "521"}, {"rsa", "-b", "2048"}}

// What pgstow signs ssh-keygen verifies, and the other way round, with every
// kind of key, and neither takes it for other bytes.
func TestSignatureAndSSHKeygen(t *testing.T) {
	message := []byte("{\n  \"format\": \"pgstow/1\"\n}\n")
	for _, kind := range keyKinds {
		t.Run(strings.Join(kind, ""), func(t *testing.T) {
			key := sshKey(t, kind[0], kind[1:]...)
			list := writeTemp(t, "allowed_signers", `alice@example.com namespaces="pgstow" `+publicText(t, key)+"\n")
			signers, err := ReadAllowedSigners(list)
			if err != nil {
				t.Fatal(err)
			}
			trust := Trust{Signers: signers, Require: true}

			ours, err := openKey(t, key).Sign(message)
			if err != nil {
				t.Fatal(err)
			}
			verify := []string{"-Y", "verify", "-f", list, "-I", "alice@example.com", "-n", SignatureNamespace, "-s", writeTemp(t, "sig", string(ours))}
			if out, err := sshKeygen(t, message, verify...); err != nil {
				t.Errorf("ssh-keygen refuses our signature: %v\n%s", err, out)
			}
			if out, err := sshKeygen(t, flip(message, 3), verify...); err == nil {
				t.Errorf("ssh-keygen takes it for other bytes: %s", out)
			}

			input := writeTemp(t, "manifest.json", string(message))
			if out, err := sshKeygen(t, nil, "-q", "-Y", "sign", "-f", key, "-n", SignatureNamespace, input); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			theirs, err := os.ReadFile(input + ".sig")
			if err != nil {
				t.Fatal(err)
			}
			out, err := sshKeygen(t, nil, "-l", "-f", key+".pub")
			if err != nil {
				t.Fatal(err)
			}
			for who, sig := range map[string][]byte{"ours": ours, "theirs": theirs} {
				s := trust.judge(message, sig, time.Now())
				if s.State != SignatureValid || s.Signer != "alice@example.com" || !strings.Contains(out, s.Fingerprint) {
					t.Errorf("%s: %+v; ssh-keygen -l: %s", who, s, out)
				}
				if s := trust.judge(flip(message, 3), sig, time.Now()); s.State != SignatureInvalid {
					t.Errorf("%s, of other bytes: %+v", who, s)
				}
				if s := (Trust{}).judge(message, sig, time.Now()); s.State != SignatureUnjudged {
					t.Errorf("%s, unjudged: %+v", who, s)
				}
			}
			if kind[0] == "ed25519" && !bytes.Equal(ours, theirs) { // the same key makes the same signature
				t.Errorf("ours is\n%stheirs\n%s", ours, theirs)
			}
		})
	}
}

// Each byte of a signature counts: with any one changed, in the text or below it, nobody is
// taken for its signer, and nothing falls over.
func TestSignatureFlippedAnywhere(t *testing.T) {
	message := []byte("manifest")
	key := sshKey(t, "ed25519")
	trust := Trust{Signers: allowed(t, "alice "+publicText(t, key)), Require: true}
	sig, err := openKey(t, key).Sign(message)
	if err != nil {
		t.Fatal(err)
	}
	for i := range sig {
		for _, bit := range []byte{1, 0x10, 0x80} {
			changed := bytes.Clone(sig)
			changed[i] ^= bit
			s := trust.judge(message, changed, time.Now())
			if s.State == SignatureValid && !sameText(changed, sig) {
				t.Errorf("byte %d, bit %#x: %+v", i, bit, s)
			}
		}
		if s := trust.judge(message, sig[:i], time.Now()); s.State == SignatureValid && !sameText(sig[:i], sig) {
			t.Errorf("cut at %d: %+v", i, s)
		}
	}
}

// sameText tells texts that differ in white space alone.
func sameText(a, b []byte) bool {
	return bytes.Equal(bytes.Join(bytes.Fields(a), nil), bytes.Join(bytes.Fields(b), nil))
}

// A signature made for something else with the same key, with a hash that is no
// more secure, by a certificate, or by RSA with SHA-1, is none for pgstow.
func TestSignatureOfAnotherKind(t *testing.T) {
	message := []byte("manifest")
	key := sshKey(t, "ed25519")
	trust := Trust{Signers: allowed(t, "alice "+publicText(t, key)), Require: true}
	input := writeTemp(t, "m", string(message))
	for _, args := range [][]string{{"-n", "file"}, {"-n", "pgstow2"}, {"-n", "PGSTOW"}} {
		_ = os.Remove(input + ".sig")
		if out, err := sshKeygen(t, nil, append(append([]string{"-q", "-Y", "sign", "-f", key}, args...), input)...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		sig, err := os.ReadFile(input + ".sig")
		if err != nil {
			t.Fatal(err)
		}
		if s := trust.judge(message, sig, time.Now()); s.State != SignatureUntrusted || !strings.Contains(s.Reason, "it was made for") {
			t.Errorf("%v: %+v", args, s)
		}
	}
	_ = os.Remove(input + ".sig")
	if out, err := sshKeygen(t, nil, "-q", "-Y", "sign", "-f", key, "-O", "hashalg=sha256", "-n", SignatureNamespace, input); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	weaker, err := os.ReadFile(input + ".sig")
	if err != nil {
		t.Fatal(err)
	}
	if s := trust.judge(message, weaker, time.Now()); s.State != SignatureValid {
		t.Errorf("sha256: %+v", s)
	}

	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	old, err := ssh.NewSignerFromKey(rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := sshsigInput(SignatureNamespace, "", sshsigHash, message)
	if err != nil {
		t.Fatal(err)
	}
	sha1, err := old.(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, signed, ssh.KeyAlgoRSA)
	if err != nil {
		t.Fatal(err)
	}
	trust = Trust{Signers: allowed(t, "alice "+string(ssh.MarshalAuthorizedKey(old.PublicKey()))), Require: true}
	if s := trust.judge(message, armorSSHSIG(old.PublicKey(), sha1), time.Now()); s.State != SignatureInvalid {
		t.Errorf("SHA-1: %+v", s)
	}

	if out, err := sshKeygen(t, nil, "-q", "-s", key, "-I", "id", "-n", "alice", key+".pub"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := OpenSigner(key+"-cert.pub", "nowhere"); err == nil || !strings.Contains(err.Error(), "certificates are not supported") {
		t.Errorf("a certificate: %v", err)
	}
}

// The agent signs, with the key that a public key file names or the only one.
func TestSignatureByAgent(t *testing.T) {
	message := []byte("manifest")
	one, two := sshKey(t, "ed25519"), sshKey(t, "rsa", "-b", "2048")
	socket := sshAgent(t)
	add := func(key string) {
		t.Helper()
		cmd := exec.Command("ssh-add", "-q", key)
		cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if _, err := OpenSigner(AgentKey, socket); !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), "holds no key") {
		t.Errorf("an empty agent: %v", err)
	}
	add(two)
	if _, err := OpenSigner(one+".pub", socket); !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), "does not hold SHA256:") {
		t.Errorf("a key it has not: %v", err)
	}
	only, err := OpenSigner(AgentKey, socket)
	if err != nil {
		t.Fatal(err)
	}
	add(one)
	if _, err := OpenSigner(AgentKey, socket); !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), "holds 2 keys") {
		t.Errorf("two keys: %v", err)
	}
	named, err := OpenSigner(one+".pub", socket)
	if err != nil {
		t.Fatal(err)
	}
	trust := Trust{Signers: allowed(t, "one "+publicText(t, one), "two "+publicText(t, two)), Require: true}
	for name, s := range map[string]Signer{"one": named, "two": only} {
		sig, err := s.Sign(message)
		if err != nil {
			t.Fatal(err)
		}
		if j := trust.judge(message, sig, time.Now()); j.State != SignatureValid || j.Signer != name || j.Fingerprint != s.Fingerprint() {
			t.Errorf("%s: %+v", name, j)
		}
	}
}

// sshAgent starts an agent of its own.
func sshAgent(t testing.TB) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") // short: a socket's path is limited
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	cmd := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			return socket
		}
		if time.Now().After(end) {
			t.Fatal("the agent does not come up")
		}
	}
}

// What cannot sign is refused before anything is done, in words that say what to
// do, and no word of a key is told.
func TestOpenSignerRefuses(t *testing.T) {
	locked := sshKey(t, "ed25519", "-N", "a passphrase")
	key := sshKey(t, "ed25519")
	for name, c := range map[string]struct{ path, socket, says string }{
		"missing":        {filepath.Join(t.TempDir(), "none"), "", "no such file"},
		"passphrase":     {locked, "", "has a passphrase"},
		"no key":         {writeTemp(t, "text", "hello\n"), "", "neither a private key"},
		"empty":          {writeTemp(t, "empty", ""), "", "neither a private key"},
		"no agent":       {key + ".pub", "", "SSH_AUTH_SOCK is not set"},
		"only":           {AgentKey, "", "SSH_AUTH_SOCK is not set"},
		"nobody answers": {AgentKey, filepath.Join(t.TempDir(), "none"), "names no agent that answers"},
	} {
		_, err := OpenSigner(c.path, c.socket)
		if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		oneLiner(t, err)
	}
}

// signedByHand wants ssh-keygen to find a good signature over the manifest.
func signedByHand(t testing.TB, m *Manifest, all map[string][]byte) {
	t.Helper()
	sig := writeTemp(t, "sig", string(all[keyOf(m, SignatureName)]))
	out, err := sshKeygen(t, all[m.Key], "-Y", "check-novalidate", "-n", SignatureNamespace, "-s", sig)
	if err != nil {
		t.Errorf("ssh-keygen refuses the signature of %s: %v\n%s", m.Key, err, out)
	}
}

// A signature of a key on hardware verifies, here as with ssh-keygen, if the key
// was touched. The device is played: what it signs is in OpenSSH's PROTOCOL.u2f.
func TestSignatureOfASecurityKey(t *testing.T) {
	message := []byte("manifest")
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const application = "ssh:"
	key, err := ssh.ParsePublicKey(ssh.Marshal(struct{ Type, Key, Application string }{ssh.KeyAlgoSKED25519, string(public), application}))
	if err != nil {
		t.Fatal(err)
	}
	sign := func(flags byte) []byte {
		input, err := sshsigInput(SignatureNamespace, "", sshsigHash, message)
		if err != nil {
			t.Fatal(err)
		}
		app, digest := sha256.Sum256([]byte(application)), sha256.Sum256(input)
		const counter = 7
		signed := slices.Concat(app[:], []byte{flags, 0, 0, 0, counter}, digest[:])
		return armorSSHSIG(key, &ssh.Signature{
			Format: ssh.KeyAlgoSKED25519, Blob: ed25519.Sign(private, signed), Rest: []byte{flags, 0, 0, 0, counter},
		})
	}
	line := "alice " + string(ssh.MarshalAuthorizedKey(key))
	trust := Trust{Signers: allowed(t, strings.TrimSpace(line)), Require: true}
	sig := sign(1)
	if s := trust.judge(message, sig, time.Now()); s.State != SignatureValid {
		t.Errorf("%+v", s)
	}
	if out, err := sshKeygen(t, message, "-Y", "verify", "-f", writeTemp(t, "allowed", line), "-I", "alice", "-n", SignatureNamespace,
		"-s", writeTemp(t, "sig", string(sig))); err != nil {
		t.Errorf("ssh-keygen: %v\n%s", err, out)
	}
	if s := trust.judge([]byte("another"), sig, time.Now()); s.State != SignatureInvalid {
		t.Errorf("of other bytes: %+v", s)
	}
	if s := trust.judge(message, sign(0), time.Now()); s.State != SignatureInvalid || !strings.Contains(s.Reason, "user presence") {
		t.Errorf("untouched: %+v", s)
	}
}
