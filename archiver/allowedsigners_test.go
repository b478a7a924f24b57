package archiver

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func timeOf(t testing.TB, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// A line means to pgstow what it means to ssh-keygen, at every side of every
// boundary.
func TestAllowedSignersAsSSHKeygen(t *testing.T) {
	message := []byte("manifest")
	key, other := sshKey(t, "ed25519"), sshKey(t, "ed25519")
	sig, err := openKey(t, key).Sign(message)
	if err != nil {
		t.Fatal(err)
	}
	sigFile := writeTemp(t, "sig", string(sig))
	public := publicText(t, key)
	inside, late, early := "2026-06-15T12:00:00Z", "2027-01-01T00:00:01Z", "2025-12-31T23:59:59Z"
	for _, c := range []struct {
		line  string
		at    string
		valid bool
	}{
		{"alice " + public, inside, true},
		{"alice\t" + public, inside, true},
		{`"alice" ` + public, inside, true},
		{"alice,bob " + public, inside, true},
		{"alice " + publicText(t, other), inside, false},
		{`alice namespaces="pgstow" ` + public, inside, true},
		{`alice namespaces="file,pgstow" ` + public, inside, true},
		{`alice namespaces="pg*" ` + public, inside, true},
		{`alice namespaces="pgs?ow" ` + public, inside, true},
		{`alice namespaces="file" ` + public, inside, false},
		{`alice namespaces="*,!pgstow" ` + public, inside, false},
		{`alice namespaces="pgsto" ` + public, inside, false},
		{`alice NAMESPACES="pgstow" ` + public, inside, true},
		{`alice valid-after="20260101Z",valid-before="20270101Z" ` + public, inside, true},
		{`alice valid-after="20260101Z",valid-before="20270101Z" ` + public, late, false},
		{`alice valid-after="20260101Z",valid-before="20270101Z" ` + public, early, false},
		{`alice valid-after="20260101Z" ` + public, "2026-01-01T00:00:00Z", true},
		{`alice valid-before="20270101Z" ` + public, "2027-01-01T00:00:00Z", true},
		{`alice valid-before="202701010000Z" ` + public, late, false},
		{`alice valid-before="20270101000001Z" ` + public, late, true},
		{`alice valid-before="20270101000002Z" ` + public, late, true},
		{"# a comment\n\nalice " + public + " with a comment", inside, true},
		{`alice valid-before="20260101Z" ` + public + "\nalice valid-after=\"20260101Z\" " + public, inside, true},
	} {
		at := timeOf(t, c.at)
		got := Trust{Signers: allowed(t, c.line)}.judge(message, sig, at)
		if (got.State == SignatureValid) != c.valid || !c.valid && got.Reason == "" {
			t.Errorf("%s at %s: %+v", c.line, c.at, got)
		}
		out, err := sshKeygen(t, message, "-Y", "verify", "-f", writeTemp(t, "allowed", c.line+"\n"), "-I", "alice", "-n", SignatureNamespace,
			"-s", sigFile, "-O", "verify-time="+at.Format("20060102150405")+"Z")
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if (err == nil) != c.valid {
			t.Errorf("ssh-keygen, %s at %s: %v\n%s", c.line, c.at, err, out)
		}
	}
}

// Times without a Z are local, as ssh-keygen takes them.
func TestAllowedSignersTimes(t *testing.T) {
	zone := time.FixedZone("east", 2*60*60)
	for text, want := range map[string]string{
		"20260115": "2026-01-15T00:00:00+02:00", "20260115Z": "2026-01-15T00:00:00Z", "20260115z": "2026-01-15T00:00:00Z",
		"20260115UTC": "2026-01-15T00:00:00Z", "202601151230": "2026-01-15T12:30:00+02:00",
		"20260115123045": "2026-01-15T12:30:45+02:00", "20260115123045Z": "2026-01-15T12:30:45Z",
	} {
		if got, err := parseSignerTime(text, zone); err != nil || !got.Equal(timeOf(t, want)) {
			t.Errorf("%s is %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "Z", "2026", "2026-01-15", "20261315", "20260132", "202601152460", "2026011512304", "+2601151230", "20260115 "} {
		if got, err := parseSignerTime(text, zone); err == nil {
			t.Errorf("%q is %s", text, got)
		}
	}
}

// Of what the store gives no time, nobody knows that a key was still good.
func TestAllowedSignersWithoutATime(t *testing.T) {
	path := sshKey(t, "ed25519")
	message := []byte("a manifest\n")
	sig, err := openKey(t, path).Sign(message)
	if err != nil {
		t.Fatal(err)
	}
	for options, want := range map[string]string{
		"": SignatureValid, `valid-before="20990101Z" `: SignatureUntrusted, `valid-after="20200101Z" `: SignatureUntrusted,
	} {
		got := Trust{Signers: allowed(t, "alice "+options+publicText(t, path))}.judge(message, sig, time.Time{})
		if got.State != want {
			t.Errorf("%q: %+v", options, got)
		}
	}
}

// A line that cannot be kept to is no line to pass over.
func TestAllowedSignersRefuses(t *testing.T) {
	key := sshKey(t, "ed25519")
	public := publicText(t, key)
	kind, rest, _ := strings.Cut(public, " ")
	for line, says := range map[string]string{
		"":                               "names nobody",
		"# nothing\n":                    "names nobody",
		public[:20]:                      ":1: its key cannot be read",
		"alice":                          ":1: want PRINCIPALS",
		`"alice ` + public:               "a quote is not closed",
		"alice " + kind + " AAAA":        "cannot be read",
		"alice ssh-nothing " + rest:      "cannot be read",
		"ok " + public + "\nbob x":       ":2: ",
		"alice cert-authority " + public: "certificates are not supported",
		`alice CERT-AUTHORITY,namespaces="pgstow" ` + public:               "certificates are not supported",
		"alice no-touch-required " + public:                                "cannot be read",
		"alice namespaces " + public:                                       "cannot be read",
		`alice unknown="x" ` + public:                                      "is no option with a value",
		"alice namespaces=pgstow " + public:                                "in double quotes",
		`alice namespaces="pgstow ` + public:                               "a quote is not closed",
		`alice namespaces="" ` + public:                                    "is empty",
		`alice namespaces="a",namespaces="b" ` + public:                    "given twice",
		`alice namespaces="a", valid-after="20260101Z" ` + public:          "commas between",
		`alice valid-after="yesterday" ` + public:                          "is no time",
		`alice valid-after="20270101Z",valid-before="20260101Z" ` + public: "not later",
	} {
		_, err := parseAllowedSigners("f", []byte(line), time.UTC)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v; want %q", line, err, says)
		}
	}
	if _, err := ReadAllowedSigners("/nonexistent"); !errors.Is(err, ErrUsage) {
		t.Errorf("missing: %v", err)
	}
}

// Whatever is in the file, reading it ends, and what is taken can be shown.
func FuzzAllowedSigners(f *testing.F) {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGq2BpRgTnlKcYk2kUe3Z2x4rkZ1kTwR7f8nqkq5o1o5"
	for _, line := range []string{
		"alice " + key, `"a b" namespaces="x\"y,pg*",valid-after="20260101Z" ` + key, "cert-authority", `x namespaces="`, "x \x00",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := parseAllowedSigners("f", []byte(text), time.UTC)
		if (a == nil) == (err == nil) {
			t.Fatalf("%v, %v", a, err)
		}
		if a != nil {
			for _, s := range a.lines {
				_ = fmt.Sprint(a.find(s.key, time.Unix(0, 0)))
			}
		}
	})
}

// Whatever is stored as a signature, judging it ends.
func FuzzSignature(f *testing.F) {
	sig, err := openKey(f, sshKey(f, "ed25519")).Sign([]byte("m"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sig)
	f.Add([]byte(sshsigBegin + "\nU1NIU0lH\n" + sshsigEnd))
	f.Fuzz(func(t *testing.T, sig []byte) {
		if s := (Trust{}).judge([]byte("another message"), sig, time.Now()); s.State == SignatureValid || s.State == SignatureUnjudged {
			t.Fatalf("%+v", s)
		}
	})
}
