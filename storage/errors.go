package storage

import (
	"errors"
	"io/fs"
	"strconv"
	"strings"
	"unicode"
)

// Sentinels that callers decide on. Options a store cannot honour are
// errors.ErrUnsupported.
var (
	ErrNotExist       = kindOf("no such object", fs.ErrNotExist)
	ErrBucketNotExist = kindOf("no such bucket", fs.ErrNotExist)
	ErrExist          = kindOf("object exists", fs.ErrExist)
	ErrPermission     = kindOf("permission denied", fs.ErrPermission)
	ErrCredentials    = errors.New("credentials missing or refused")
	ErrInvalidBucket  = kindOf("invalid bucket name", fs.ErrInvalid)
	ErrLocked         = errors.New("protected by retention or hold")
	ErrRange          = errors.New("offset beyond the end of the object")
	ErrIntegrity      = errors.New("content differs from its checksum")
	ErrUnavailable    = errors.New("store unavailable")
	ErrUnknownOutcome = errors.New("outcome unknown")
	ErrStalled        = errors.New("store accepts no data")
	ErrInvalidKey     = kindOf("invalid key", fs.ErrInvalid)
	// ErrCold: the object lies in a class that has to be thawed first.
	ErrCold = errors.New("in a cold class, to be thawed before it can be read")
	// ErrThawTier: the object's class does not have this tier, or not now.
	ErrThawTier = errors.New("this tier is not to be had")
	// ErrChanged: somebody else changed it between reading and writing.
	ErrChanged = errors.New("changed meanwhile by somebody else")
	// ErrUploadRemains: a failed Put could not remove what it had sent. The key
	// is in an *UploadRemainsError.
	ErrUploadRemains = errors.New("an unfinished upload stays")
)

// kind is a sentinel that is also one of package fs, without printing both.
type kind struct {
	text string
	is   error
}

func kindOf(text string, is error) error { return &kind{text, is} }
func (k *kind) Error() string            { return k.text }
func (k *kind) Unwrap() error            { return k.is }

// Error is a failed operation on a bucket.
type Error struct {
	Op   string // the method in lower case: "put", "open", ...
	Key  string // "" when the bucket itself is meant
	Kind error  // one of the sentinels, nil when none fits
	Err  error  // the SDK's or system's own error
}

func (e *Error) Error() string {
	s := e.Op
	if e.Key != "" {
		s += " " + legible(e.Key)
	}
	switch {
	case e.Kind == nil:
		return s + ": " + e.Err.Error()
	case e.Err == nil || errors.Is(e.Err, e.Kind):
		return s + ": " + e.Kind.Error()
	}
	return s + ": " + e.Kind.Error() + ": " + e.Err.Error()
}

// legible quotes keys that would break a line or move a cursor: those of other
// programs' objects.
func legible(key string) string {
	if strings.ContainsFunc(key, unicode.IsControl) {
		return strconv.Quote(key)
	}
	return key
}

// Unwrap gives both the sentinel and the cause.
func (e *Error) Unwrap() []error {
	var all []error
	for _, err := range []error{e.Kind, e.Err} {
		if err != nil {
			all = append(all, err)
		}
	}
	return all
}

// UploadRemainsError is what a Put has left in the store besides objects. It
// goes with the error that made the Put fail.
type UploadRemainsError struct {
	Key    string // as the store knows it, with any prefix
	Remedy string // what ends it: "`pgstow cleanup` removes it"
	Err    error  // why it could not be removed
}

func (e *UploadRemainsError) Error() string {
	return "the unfinished upload of " + e.Key + " may stay, as removing it failed (" + e.Err.Error() + "); " + e.Remedy
}

// Unwrap gives the sentinel alone: why a clean-up failed must not change the
// class of the failure before it.
func (e *UploadRemainsError) Unwrap() error { return ErrUploadRemains }
