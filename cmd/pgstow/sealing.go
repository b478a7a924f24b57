package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/pgstow/pgstow/archiver"
)

const (
	flagEncryptTo     = "encrypt-to"
	flagIdentity      = "identity"
	flagRolePasswords = "role-passwords"

	envIdentity = "PGSTOW_IDENTITY" // a list, as PATH is
)

// encryptToFlag names whom an archive is encrypted to.
func encryptToFlag(usage string) cli.Flag {
	return &cli.StringSliceFlag{Name: flagEncryptTo, Usage: usage}
}

// identityFlag names what opens encrypted archives.
func identityFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: flagIdentity, EnvVars: []string{envIdentity},
		Usage: "open an encrypted archive with the private keys in `FILE`, an age identity file or an SSH private key; in the environment a list with : between"}
}

// recipients are those of --encrypt-to.
func (rt *runtime) recipients(c *cli.Context) (archiver.Recipients, error) {
	return rt.parseRecipients(c.StringSlice(flagEncryptTo), "--"+flagEncryptTo)
}

func (rt *runtime) parseRecipients(list []string, from string) (archiver.Recipients, error) {
	r, err := archiver.ParseRecipients(list)
	if err != nil {
		return r, usagef("%s: %s", from, refusal(err))
	}
	for _, line := range r.Skipped {
		rt.log.Warn(line)
	}
	return r, nil
}

// archiveRecipients are whom an archive is encrypted to: those of --encrypt-to,
// or the policy's, or those of the configuration's keys. p may be nil; a policy
// that asks for encryption does not run without any.
func (rt *runtime) archiveRecipients(c *cli.Context, p *policy) (r archiver.Recipients, err error) {
	cfg, err := rt.config()
	if err != nil {
		return r, err
	}
	switch {
	case rt.line.typed[flagEncryptTo]:
		r, err = rt.recipients(c)
	case p != nil && p.evidence.encrypt == wordNone:
	case p != nil && len(p.evidence.encryptTo) > 0:
		r, err = rt.parseRecipients(p.evidence.encryptTo, cfg.file+": policy "+p.Name+": encrypt-to")
	default:
		r, err = rt.parseRecipients(cfg.keys.encryptTo, cfg.file+": keys: encrypt-to")
	}
	if err == nil && r.IsZero() && p != nil && p.evidence.encrypt == wordRequired {
		err = usagef("policy %s asks for encryption and there are no recipients: give --%s, or keys: {encrypt-to: [...]} in the configuration", p.Name, flagEncryptTo)
	}
	return r, err
}

// identities are those of --identity, or of the configuration's keys, or of the
// environment. Their passphrases are asked for on a terminal, and nowhere else,
// when they are needed.
func (rt *runtime) identities(c *cli.Context) (ids archiver.Identities, err error) {
	cfg, err := rt.config()
	if err != nil {
		return ids, err
	}
	paths, from := c.StringSlice(flagIdentity), "--"+flagIdentity
	switch {
	case rt.line.typed[flagIdentity]:
	case len(cfg.keys.identities) > 0:
		paths, from = cfg.keys.identities, cfg.file+": keys: identities"
	default:
		paths, from = nonEmpty(filepath.SplitList(os.Getenv(envIdentity))...), envIdentity
	}
	if ids, err = archiver.ReadIdentities(paths); err != nil {
		return ids, usagef("%s: %s", from, strings.TrimPrefix(refusal(err), "identity: "))
	}
	for _, path := range paths {
		rt.warnReadable(path, "key")
	}
	if tty, err := openTerminal(); err == nil {
		_ = tty.Close() // opened to see whether there is one
		ids.SetPrompt(terminalPrompt{status: rt.status})
	}
	return ids, nil
}

// openTerminal opens the terminal that the process belongs to: stdin and stdout
// may be redirected.
func openTerminal() (*os.File, error) { return os.OpenFile("/dev/tty", os.O_RDWR, 0) }

// terminalPrompt asks on the terminal.
type terminalPrompt struct{ status *statusLine }

// Secret implements archiver.KeyPrompt.
func (t terminalPrompt) Secret(prompt string) (secret []byte, err error) {
	err = t.ask(func(tty *term.Terminal) error {
		line, err := tty.ReadPassword(oneLine(prompt) + " ")
		secret = []byte(line)
		return err
	})
	return secret, err
}

// Line implements archiver.KeyPrompt.
func (t terminalPrompt) Line(prompt string) (line string, err error) {
	err = t.ask(func(tty *term.Terminal) error {
		tty.SetPrompt(oneLine(prompt) + " ")
		line, err = tty.ReadLine()
		return err
	})
	return line, err
}

// Tell implements archiver.KeyPrompt.
func (t terminalPrompt) Tell(text string) {
	tty, err := openTerminal()
	if err != nil {
		return // nobody to tell
	}
	defer tty.Close()
	defer t.status.pause()()
	fmt.Fprintln(tty, oneLine(text))
}

// ask lets do ask with the terminal in raw mode, where Ctrl-C is a key that ends
// the question and leaves the terminal as it was.
func (t terminalPrompt) ask(do func(*term.Terminal) error) error {
	tty, err := openTerminal()
	if err != nil {
		return err
	}
	defer tty.Close()
	defer t.status.pause()()
	state, err := term.MakeRaw(int(tty.Fd()))
	if err != nil {
		return err
	}
	err = do(term.NewTerminal(tty, ""))
	if errors.Is(err, io.EOF) {
		err = errors.New("nothing was typed")
	}
	return errors.Join(err, term.Restore(int(tty.Fd()), state))
}
