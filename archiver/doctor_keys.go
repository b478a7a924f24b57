package archiver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"filippo.io/age"
)

// DoctorKeys open the keys that archives would be encrypted and signed with, and
// those that would open and judge them. A nil one is left out; what cannot be
// opened, or is missing and asked for, is the error of one check.
type DoctorKeys struct {
	Recipients func() (Recipients, error)
	Identities func() (Identities, error)
	Signer     func() (Signer, error)
	Trust      func() (Trust, error)
}

const keysText = "written by `pgstow doctor`, to see whether keys work\n"

// keys encrypts and signs a message, and undoes both.
func (d *doctor) keys() {
	d.encryption()
	d.signing()
}

func (d *doctor) encryption() {
	const name, back = "encryption", "decryption"
	if d.opts.Keys.Recipients == nil {
		return
	}
	to, err := d.opts.Keys.Recipients()
	if err != nil {
		d.fail(name, err, "")
		return
	}
	if to.IsZero() {
		return // nothing asks for it
	}
	var sealed []byte
	if err = to.check(); err == nil {
		sealed, err = seal([]byte(keysText), to)
	}
	if err != nil {
		d.fail(name, err, "")
		return
	}
	d.ok(name, "a message was encrypted to %s", briefly(shortened(to.Texts())))
	var ids Identities
	if d.opts.Keys.Identities != nil {
		ids, err = d.opts.Keys.Identities()
	}
	switch {
	case err != nil:
		d.fail(back, err, "")
		return
	case ids.IsZero():
		d.add(Check{Name: back, Status: CheckSkipped, Detail: "no private key was given, so that nothing was decrypted again",
			Advice: "where the private keys are, run this with --identity FILE: nobody else can read the archives"})
		return
	}
	switch err := opens(sealed, ids); {
	case errors.Is(err, ErrIdentity):
		d.fail(back, integrity("what is encrypted to these recipients is for none of the identities given"), "give the private key of one of the recipients")
	case err != nil:
		d.fail(back, err, "")
	default:
		d.ok(back, "and decrypted again with an identity that was given")
	}
}

// shortened cuts recipients to what stands beside a check: age's have no spaces.
func shortened(texts []string) []string {
	const most, head, tail = 49, 20, 8
	for i, t := range texts {
		if len(t) > most && !strings.Contains(t, " ") {
			texts[i] = t[:head] + "…" + t[len(t)-tail:]
		}
	}
	return texts
}

// opens decrypts what Doctor has encrypted.
func opens(sealed []byte, ids Identities) error {
	header, err := age.ExtractHeader(bytes.NewReader(sealed))
	if err != nil {
		return integrity("%w", err)
	}
	key, err := ids.open(header)
	if err != nil {
		return err
	}
	plain, err := age.Decrypt(bytes.NewReader(sealed), age.NewInjectedFileKeyIdentity(key))
	if err != nil {
		return integrity("%w", err)
	}
	got, err := io.ReadAll(plain)
	switch {
	case err != nil:
		return integrity("%w", err)
	case string(got) != keysText:
		return integrity("other bytes came back than were encrypted")
	}
	return nil
}

func (d *doctor) signing() {
	const name, back = "signing", "signature"
	if d.opts.Keys.Signer == nil {
		return
	}
	key, err := d.opts.Keys.Signer()
	if err != nil {
		d.fail(name, err, "")
		return
	}
	var trust Trust
	if d.opts.Keys.Trust != nil {
		if trust, err = d.opts.Keys.Trust(); err != nil {
			d.fail(back, err, "")
			return
		}
	}
	if key == nil {
		return // nothing asks for it
	}
	signature, err := key.Sign([]byte(keysText))
	if err != nil {
		d.fail(name, fmt.Errorf("%w: %w", ErrUsage, err), "")
		return
	}
	d.ok(name, "a message was signed with the key %s", key.Fingerprint())
	s := trust.judge([]byte(keysText), signature, d.opts.Now().UTC().Truncate(time.Second))
	switch s.State {
	case SignatureValid:
		d.ok(back, "it verifies, and is that of %s", s.Signer)
	case SignatureUnjudged:
		d.warn(back, "it verifies; whose signatures count nobody said", "write its public key into a file of allowed signers and name that: --allowed-signers FILE, or keys: {allowed-signers: FILE}")
	default:
		const advice = "add the public key to the allowed signers, or sign with a key that is there"
		if err := trust.check(s, "what is signed with this key"); err != nil {
			d.fail(back, err, advice)
			return
		}
		d.warn(back, s.text(), advice)
	}
}
