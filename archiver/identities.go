package archiver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
	"filippo.io/age/plugin"
	"golang.org/x/crypto/ssh"
)

// Identities open encrypted archives: private keys and what stands for some.
type Identities struct {
	list []age.Identity
	ask  *asking
}

// IsZero reports whether there are none.
func (i Identities) IsZero() bool { return len(i.list) == 0 }

// KeyPrompt asks a person for what keys want when they are used: the passphrase
// of a file, or the PIN of a device that a plugin speaks to.
type KeyPrompt interface {
	// Secret asks for something that is not shown as it is typed.
	Secret(prompt string) ([]byte, error)
	// Line asks for something that is.
	Line(prompt string) (string, error)
	// Tell shows a message, such as that a device wants to be touched.
	Tell(text string)
}

// SetPrompt says who is asked. Without a prompt, keys that want one are refused
// when they are used, and not before: another one may do.
func (i Identities) SetPrompt(p KeyPrompt) {
	if i.ask != nil {
		i.ask.mu.Lock()
		i.ask.prompt = p
		i.ask.mu.Unlock()
	}
}

// ReadIdentities reads files of identities, each of them
//
//   - an age identity file, with AGE-SECRET-KEY-… or AGE-PLUGIN-… lines;
//   - one of these encrypted with a passphrase by `age -p`;
//   - an SSH private key, with or without a passphrase.
//
// The error is ErrUsage and names file and line, never a key.
func ReadIdentities(paths []string) (Identities, error) {
	ids := Identities{ask: new(asking)}
	for _, path := range paths {
		list, err := ids.read(path)
		if err != nil {
			return Identities{}, fmt.Errorf("%w: identity: %w", ErrUsage, err)
		}
		ids.list = append(ids.list, list...)
	}
	// Nobody is asked for anything that another one can do without.
	slices.SortStableFunc(ids.list, func(a, b age.Identity) int {
		switch {
		case asks(a) == asks(b):
			return 0
		case asks(a):
			return 1
		}
		return -1
	})
	return ids, nil
}

func (i Identities) read(path string) ([]age.Identity, error) {
	if path == "" {
		return nil, errors.New("an empty path")
	}
	if isPrivateKey(path) {
		return nil, errors.New("a private key where the path of a file is wanted: write it into a file that only you can read, and make a new key, because this one may be in a shell's history")
	}
	raw, err := readKeyFile(path)
	if err != nil {
		return nil, err
	}
	trimmed := bytes.TrimSpace(raw)
	switch {
	case bytes.HasPrefix(raw, []byte("age-encryption.org/")), bytes.HasPrefix(trimmed, []byte(armor.Header)):
		return []age.Identity{&lockedIdentities{path: path, sealed: raw, ask: i.ask}}, nil
	case bytes.HasPrefix(trimmed, []byte("-----BEGIN")):
		id, err := i.sshIdentity(path, raw)
		if err != nil {
			return nil, err
		}
		return []age.Identity{id}, nil
	}
	return i.parse(path, raw)
}

// parse reads the lines of an age identity file.
func (i Identities) parse(path string, raw []byte) ([]age.Identity, error) {
	var list []age.Identity
	for n, line := range lines(raw) {
		if line == "" || line[0] == '#' {
			continue
		}
		id, err := i.parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		list = append(list, id)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s: no identity in it", path)
	}
	return list, nil
}

func (i Identities) parseLine(line string) (id age.Identity, err error) {
	switch {
	case strings.HasPrefix(line, "AGE-PLUGIN-"):
		id, err = plugin.NewIdentity(line, i.ask.ui())
	case strings.HasPrefix(line, "AGE-SECRET-KEY-PQ-1"):
		id, err = age.ParseHybridIdentity(line)
	case strings.HasPrefix(line, "AGE-SECRET-KEY-1"):
		id, err = age.ParseX25519Identity(line)
	case strings.HasPrefix(line, "age1"), strings.HasPrefix(line, "ssh-"):
		return nil, errors.New("a public key, which opens nothing; the private one is wanted")
	default:
		return nil, errors.New("no identity; a line begins with AGE-SECRET-KEY- or AGE-PLUGIN-, and an SSH private key is a file of its own")
	}
	if err != nil { // its text may have a part of the key
		return nil, errors.New("a damaged identity: a character is wrong or missing")
	}
	return id, nil
}

func (i Identities) sshIdentity(path string, raw []byte) (age.Identity, error) {
	id, err := agessh.ParseIdentity(raw)
	var locked *ssh.PassphraseMissingError
	if !errors.As(err, &locked) {
		if err != nil {
			return nil, fmt.Errorf("%s: no SSH private key that can decrypt; ssh-ed25519 and ssh-rsa can", path)
		}
		return id, nil
	}
	public := locked.PublicKey
	if public == nil { // the old format does not tell
		pub, err := os.ReadFile(path + ".pub")
		if err == nil {
			public, _, _, _, err = ssh.ParseAuthorizedKey(pub)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: an SSH private key of the old format needs its %s.pub beside it; `ssh-keygen -p -f %s` writes the new format", path, path, path)
		}
	}
	id, err = agessh.NewEncryptedSSHIdentity(public, raw, func() ([]byte, error) { return i.ask.passphrase(path) })
	if err != nil {
		return nil, fmt.Errorf("%s: no SSH private key that can decrypt; ssh-ed25519 and ssh-rsa can", path)
	}
	return id, nil
}

// lockedIdentities is an identity file behind a passphrase. It is asked for when
// the first file is to be opened.
type lockedIdentities struct {
	path   string
	sealed []byte
	ask    *asking

	mu   sync.Mutex
	list []age.Identity
}

// Unwrap tries all identities of the file.
func (l *lockedIdentities) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if err := l.open(); err != nil {
		return nil, err
	}
	for _, id := range l.list {
		key, err := id.Unwrap(stanzas)
		if !errors.Is(err, age.ErrIncorrectIdentity) {
			return key, err
		}
	}
	return nil, age.ErrIncorrectIdentity
}

func (l *lockedIdentities) open() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.list != nil {
		return nil
	}
	var sealed io.Reader = bytes.NewReader(l.sealed)
	if !bytes.HasPrefix(l.sealed, []byte("age-encryption.org/")) {
		sealed = armor.NewReader(bytes.NewReader(bytes.TrimSpace(l.sealed)))
	}
	plain, err := age.Decrypt(sealed, &passphraseIdentity{ask: l.ask, path: l.path})
	var raw []byte
	if err == nil {
		raw, err = io.ReadAll(io.LimitReader(plain, maxKeysFile))
	}
	if err != nil {
		return fmt.Errorf("identity %s: %w", l.path, err)
	}
	l.list, err = Identities{ask: l.ask}.parse(l.path, raw)
	return err
}

// passphraseIdentity asks when it is known that a passphrase is what is wanted.
type passphraseIdentity struct {
	ask  *asking
	path string
}

func (p *passphraseIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if len(stanzas) != 1 || stanzas[0].Type != "scrypt" {
		return nil, errors.New("it is encrypted to somebody, not with a passphrase; decrypt it first")
	}
	pass, err := p.ask.passphrase(p.path)
	if err != nil {
		return nil, err
	}
	id, err := age.NewScryptIdentity(string(pass))
	if err != nil {
		return nil, err
	}
	key, err := id.Unwrap(stanzas)
	if errors.Is(err, age.ErrIncorrectIdentity) {
		return nil, errors.New("wrong passphrase")
	}
	return key, err
}

// asking is shared by all identities of a run: whoever is asked is set later, and
// asked one thing at a time.
type asking struct {
	opening sync.Mutex // held while an identity is used

	mu     sync.Mutex
	prompt KeyPrompt
}

var errNoPrompt = errors.New("it wants to ask for something, and there is no terminal to ask on")

func (a *asking) passphrase(path string) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.prompt == nil {
		return nil, fmt.Errorf("%s has a passphrase, and there is no terminal to ask for it; use an identity without one here", path)
	}
	return a.prompt.Secret("Passphrase of " + path + ": ")
}

// ui is how plugins ask.
func (a *asking) ui() *plugin.ClientUI {
	with := func(do func(p KeyPrompt) error) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.prompt == nil {
			return errNoPrompt
		}
		return do(a.prompt)
	}
	return &plugin.ClientUI{
		DisplayMessage: func(name, message string) error {
			_ = with(func(p KeyPrompt) error { p.Tell("age-plugin-" + name + ": " + message); return nil })
			return nil // a message that nobody sees stops nothing
		},
		RequestValue: func(name, prompt string, secret bool) (value string, err error) {
			err = with(func(p KeyPrompt) error {
				prompt := "age-plugin-" + name + ": " + prompt + ": "
				if !secret {
					value, err = p.Line(prompt)
					return err
				}
				raw, err := p.Secret(prompt)
				value = string(raw)
				return err
			})
			return value, err
		},
		Confirm: func(name, prompt, yes, no string) (chosen bool, err error) {
			err = with(func(p KeyPrompt) error {
				if no == "" {
					_, err := p.Line(fmt.Sprintf("age-plugin-%s: %s (enter for %q): ", name, prompt, yes))
					chosen = err == nil
					return err
				}
				answer, err := p.Line(fmt.Sprintf("age-plugin-%s: %s (1 for %q, 2 for %q): ", name, prompt, yes, no))
				chosen = strings.TrimSpace(answer) == "1"
				return err
			})
			return chosen, err
		},
		WaitTimer: func(name string) {
			_ = with(func(p KeyPrompt) error { p.Tell("waiting for age-plugin-" + name); return nil })
		},
	}
}
