package archiver

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/plugin"
	"filippo.io/age/tag"
	"golang.org/x/crypto/ssh"
)

// Recipients are whom an archive is encrypted to. Each of them can read it; the
// zero value encrypts nothing.
type Recipients struct {
	list  []age.Recipient
	texts []string // how a manifest names them
	// Skipped are lines of recipients files with SSH keys of a type that nothing
	// can be encrypted to, one line of text each: whoever has such a key can read
	// only by another one.
	Skipped []string
}

// IsZero reports whether nothing is encrypted.
func (r Recipients) IsZero() bool { return len(r.list) == 0 }

// Texts are the recipients as manifests name them.
func (r Recipients) Texts() []string { return slices.Clone(r.texts) }

// Limits of files with keys.
const (
	maxKeysFile = 1 << 20
	maxKeyLine  = 8 << 10 // as sshd has it
)

// ParseRecipients reads recipients, each one of
//
//   - an age recipient: age1… (X25519), age1pq1… (post-quantum), age1tag1… and
//     age1tagpq1… (hardware), age1NAME1… (of the program age-plugin-NAME);
//   - an SSH public key, ssh-ed25519 or ssh-rsa;
//   - the path of a file with these, one a line; empty lines and those that begin
//     with # are comments.
//
// Private keys are refused and never printed. The error is ErrUsage.
func ParseRecipients(list []string) (Recipients, error) {
	var r Recipients
	for _, text := range list {
		if err := r.parse(strings.TrimSpace(text)); err != nil {
			return Recipients{}, fmt.Errorf("%w: %w", ErrUsage, err)
		}
	}
	return r, nil
}

func (r *Recipients) parse(text string) error {
	switch {
	case text == "":
		return errors.New("an empty recipient")
	case isPrivateKey(text):
		return errors.New("a recipient that is a private key; give the public one, which `age-keygen -y FILE` or the .pub file has, and make a new key: this one may be in a shell's history")
	case strings.HasPrefix(text, "age1"), strings.HasPrefix(text, "ssh-"), strings.HasPrefix(text, "ecdsa-sha2-"), strings.HasPrefix(text, "sk-"):
		one, shown, err := parseRecipient(text)
		if err != nil {
			return fmt.Errorf("recipient %s: %w", BriefRecipient(text), err)
		}
		r.add(one, shown)
		return nil
	}
	return r.file(text)
}

func (r *Recipients) add(one age.Recipient, text string) {
	if !slices.Contains(r.texts, text) {
		r.list, r.texts = append(r.list, one), append(r.texts, text)
	}
}

// parseRecipient gives the recipient and its text without a comment.
func parseRecipient(text string) (one age.Recipient, shown string, err error) {
	switch {
	case strings.HasPrefix(text, "age1tag1"), strings.HasPrefix(text, "age1tagpq1"):
		one, err = tag.ParseRecipient(text)
	case strings.HasPrefix(text, "age1pq1"):
		one, err = age.ParseHybridRecipient(text)
	case strings.HasPrefix(text, "age1") && strings.Count(text, "1") > 1:
		one, err = plugin.NewRecipient(text, new(plugin.ClientUI))
	case strings.HasPrefix(text, "age1"):
		one, err = age.ParseX25519Recipient(text)
	default:
		return parseSSHRecipient(text)
	}
	if err != nil {
		// The library's text repeats the whole of it.
		return nil, "", errors.New("it is no age recipient: a character is wrong or missing")
	}
	return one, text, nil
}

// errKeyType is an SSH key that nothing can be encrypted to.
var errKeyType = errors.New("nothing can be encrypted to an SSH key of this type; ssh-ed25519 and ssh-rsa of 2048 bits or more will do")

func parseSSHRecipient(text string) (age.Recipient, string, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil {
		return nil, "", errors.New("it is neither an age recipient nor an SSH public key")
	}
	shown := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	var one age.Recipient
	switch key.Type() {
	case ssh.KeyAlgoED25519:
		one, err = agessh.NewEd25519Recipient(key)
	case ssh.KeyAlgoRSA:
		one, err = agessh.NewRSARecipient(key)
	default:
		err = errKeyType
	}
	if err != nil {
		return nil, "", errKeyType
	}
	return one, shown, nil
}

// file reads a recipients file. Its lines never stand in errors: it may have
// been another file.
func (r *Recipients) file(path string) error {
	raw, err := readKeyFile(path)
	if err != nil {
		return fmt.Errorf("recipients: %w; a recipient begins with age1 or ssh-, anything else is the path of a file with some", err)
	}
	found := 0
	for n, line := range lines(raw) {
		at := fmt.Sprintf("%s:%d", path, n)
		switch {
		case line == "" || line[0] == '#':
			continue
		case isPrivateKey(line):
			return fmt.Errorf("%s: a private key; recipients are public keys, which `age-keygen -y FILE` or the .pub file has", at)
		case len(line) > maxKeyLine || !utf8.ValidString(line):
			return fmt.Errorf("%s: no recipient", at)
		}
		one, shown, err := parseRecipient(line)
		if errors.Is(err, errKeyType) {
			r.Skipped = append(r.Skipped, fmt.Sprintf("%s: left out: %s", at, err))
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		r.add(one, shown)
		found++
	}
	if found == 0 {
		return fmt.Errorf("%s: there is no recipient in it", path)
	}
	return nil
}

// readKeyFile reads a whole file of keys.
func readKeyFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxKeysFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(raw) > maxKeysFile:
		return nil, fmt.Errorf("%s is larger than any file of keys", path)
	}
	return raw, nil
}

// lines are those of a file, trimmed, by their numbers.
func lines(raw []byte) func(func(int, string) bool) {
	return func(yield func(int, string) bool) {
		s := bufio.NewScanner(bytes.NewReader(raw))
		s.Buffer(nil, maxKeysFile+1)
		for n := 1; s.Scan(); n++ {
			if !yield(n, strings.TrimSpace(s.Text())) {
				return
			}
		}
	}
}

// isPrivateKey recognises what must not be shown.
func isPrivateKey(text string) bool {
	upper := strings.ToUpper(text)
	return strings.HasPrefix(upper, "AGE-SECRET-KEY-") || strings.HasPrefix(upper, "AGE-PLUGIN-") || strings.Contains(upper, "PRIVATE KEY")
}

// BriefRecipient shortens the text of a recipient for people: a post-quantum one
// has 2000 characters, and an SSH key is known by its fingerprint.
func BriefRecipient(text string) string {
	const most, head, tail = 72, 20, 8
	kind, rest, ok := strings.Cut(text, " ")
	if ok {
		rest, _, _ = strings.Cut(rest, " ")
		if raw, err := base64.StdEncoding.DecodeString(rest); err == nil {
			if key, err := ssh.ParsePublicKey(raw); err == nil {
				return kind + " " + ssh.FingerprintSHA256(key)
			}
		}
	}
	if len(text) <= most {
		return text
	}
	return text[:head] + "…" + text[len(text)-tail:]
}

// briefly lists recipients for messages.
func briefly(texts []string) string {
	const most = 5
	var list []string
	for i, t := range texts {
		if i == most {
			list = append(list, fmt.Sprintf("and %d more", len(texts)-most))
			break
		}
		list = append(list, BriefRecipient(t))
	}
	return strings.Join(list, ", ")
}

// check encrypts nothing to the recipients: what they refuse, and programs that
// are not there, show before anything else was done.
func (r Recipients) check() error {
	if _, err := age.EncryptReader(bytes.NewReader(nil), r.list...); err != nil {
		return refusedRecipients(err)
	}
	return nil
}

func refusedRecipients(err error) error {
	var missing *plugin.NotFoundError
	switch text := err.Error(); {
	case errors.As(err, &missing):
		return fmt.Errorf("%w: recipient: there is no age-plugin-%s in the PATH; install it", ErrUsage, missing.Name)
	case strings.Contains(text, "post-quantum"):
		return fmt.Errorf("%w: recipients: post-quantum ones (age1pq1…) and others cannot be mixed, or the archive would be as weak as the others; give only the one kind", ErrUsage)
	default:
		return fmt.Errorf("%w: recipients: %s", ErrUsage, strings.TrimPrefix(text, "incompatible recipients: "))
	}
}
