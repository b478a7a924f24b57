package archiver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/pgstow/pgstow/storage"
)

// States of a Signature.
const (
	SignatureValid     = "valid"     // of these bytes, by a key that was allowed then
	SignatureUnsigned  = "unsigned"  // there is none
	SignatureUntrusted = "untrusted" // by a key that is not allowed, or was not then, or for another purpose
	SignatureInvalid   = "invalid"   // it is none, or not of these bytes
	SignatureUnjudged  = "unjudged"  // of these bytes; nobody said whose signatures count
)

// Signature is what is known of the signature of a manifest or record.
type Signature struct {
	State       string `json:"state"`
	Signer      string `json:"signer,omitempty"`      // as the allowed signers name them
	Fingerprint string `json:"fingerprint,omitempty"` // of the key, as `ssh-keygen -l` prints it
	Reason      string `json:"reason,omitempty"`      // why it is not valid
}

// Trust says whose signatures count on reading. The zero Trust judges nothing:
// it only finds what fits no key at all.
type Trust struct {
	Signers *AllowedSigners
	// Require refuses what none of the signers has signed.
	Require bool
	// Ignore lets everything pass.
	Ignore bool
}

// unknownSigner is the reason why a key counts for nothing that could be cured
// by a line for it; others, such as a time that is over, were meant.
const unknownSigner = "its key is not among the allowed signers"

// SuffixSignature follows the name of what is signed.
const SuffixSignature = ".sig"

// judge tells what a signature of message is worth. at is when the store
// created the signed object: a key's validity is judged then, not now, and not
// at a time that the object itself claims.
func (t Trust) judge(message, sig []byte, at time.Time) Signature {
	if len(sig) == 0 {
		return Signature{State: SignatureUnsigned}
	}
	s, err := parseSSHSIG(sig)
	if err != nil {
		return Signature{State: SignatureInvalid, Reason: oneLine(err)}
	}
	j := Signature{Fingerprint: ssh.FingerprintSHA256(s.key)}
	if why := unsupportedKey(s.key); why != "" {
		j.State, j.Reason = SignatureUntrusted, why
		return j
	}
	if err := s.verify(message); err != nil {
		j.State, j.Reason = SignatureInvalid, "it is not of these bytes: "+oneLine(err)
		return j
	}
	if s.namespace != SignatureNamespace {
		j.State, j.Reason = SignatureUntrusted, fmt.Sprintf("it was made for %q, not for %s", s.namespace, SignatureNamespace)
		return j
	}
	if t.Signers == nil {
		j.State = SignatureUnjudged
		return j
	}
	if j.Signer, j.Reason = t.Signers.find(s.key, at); j.Reason != "" {
		j.State = SignatureUntrusted
		return j
	}
	j.State = SignatureValid
	return j
}

// text says in words who signed.
func (s Signature) text() string {
	by := " with the key " + s.Fingerprint
	if s.Fingerprint == "" {
		by = ""
	}
	switch s.State {
	case SignatureValid:
		return "it is signed by " + s.Signer + by
	case SignatureUnsigned:
		return "nobody has signed it"
	case SignatureUnjudged:
		return "it is signed" + by + ", and nobody said whose signatures count"
	case SignatureInvalid:
		return "its signature" + by + " is wrong: " + s.Reason
	}
	return "it is signed" + by + ", which does not count: " + s.Reason
}

// check refuses what must not be relied on: a signature that is wrong in any
// case, and with Require everything that is not signed by somebody allowed.
func (t Trust) check(s Signature, what string) error {
	switch {
	case t.Ignore, s.State == SignatureValid, s.State != SignatureInvalid && !t.Require:
		return nil
	}
	cure := "do not rely on it; --ignore-signature takes it all the same"
	switch {
	case s.State == SignatureUnjudged:
		cure = "name the allowed signers with --allowed-signers FILE, or take it with --ignore-signature"
	case s.Reason == unknownSigner:
		cure = "if the key is a good one add it to the allowed signers, or take it with --ignore-signature"
	}
	return integrity("%s: %s; %s", what, s.text(), cure)
}

// beside is whose signatures count for the records of an archive that is signed
// like s: where somebody allowed has signed it, nobody else speaks for it.
func (t Trust) beside(s Signature) Trust {
	t.Require = t.Require || s.State == SignatureValid
	return t
}

// doubt is what to say of an archive that is used all the same; "" for nothing.
// Where nobody said whose signatures count, there is none.
func (t Trust) doubt(s Signature) string {
	switch {
	case s.State == SignatureValid, t.Signers == nil && s.State != SignatureInvalid && s.Reason == "":
		return ""
	}
	return "the archive is used all the same: " + s.text()
}

// readSignature reads and judges the signature of the archive's object name,
// whose bytes are message. One that is not listed is SignatureUnsigned; one that
// cannot be read is an error.
func readSignature(ctx context.Context, b storage.Bucket, e Entry, name string, message []byte, t Trust) (Signature, error) {
	signed, signature := e.object(name), e.object(name+SuffixSignature)
	if signature == nil {
		return Signature{State: SignatureUnsigned}, nil
	}
	key := e.dir().Key(signature.Name)
	raw, err := readSmall(ctx, b, key, signature.Version, maxSignature)
	switch {
	case errors.Is(err, ErrIntegrity):
		return Signature{State: SignatureInvalid, Reason: oneLine(err)}, nil
	case err != nil:
		return Signature{}, fmt.Errorf("read signature %s: %w", key, err)
	case len(raw) == 0:
		return Signature{State: SignatureInvalid, Reason: key + " is empty"}, nil
	}
	var at time.Time
	if signed != nil {
		at = signed.Created
	}
	return t.judge(message, raw, at), nil
}

// trusted reads the signature of an object that was read and refuses what must
// not be relied on.
func (t Trust) trusted(ctx context.Context, b storage.Bucket, e Entry, name string, message []byte) (Signature, error) {
	s, err := readSignature(ctx, b, e, name, message, t)
	if err != nil {
		if t.Ignore && ctx.Err() == nil {
			return Signature{State: SignatureUnjudged, Reason: oneLine(err)}, nil
		}
		return s, err
	}
	return s, t.check(s, e.dir().Key(name))
}

// object is the oldest version of the archive's object, nil when it was not
// listed.
func (e *Entry) object(name string) *EntryObject {
	for i := range e.Objects {
		if e.Objects[i].Name == name {
			return &e.Objects[i]
		}
	}
	return nil
}
