package pgarchive

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrUnknownVersion is an archive version outside 1.12 to 1.16, in practice a newer one.
	// A Scanner still passes the stream through.
	ErrUnknownVersion = errors.New("unknown archive version")

	// ErrIncomplete means that the stream was cut, a promised block is missing, or bytes trail.
	ErrIncomplete = errors.New("archive is incomplete")

	// ErrFormat is not a custom archive, or one whose bytes contradict themselves.
	ErrFormat = errors.New("malformed archive")

	// ErrMismatch means that the bytes are not those whose lengths and hashes were recorded.
	ErrMismatch = errors.New("archive does not match its index")
)

// FormatError says what is wrong with an archive, and where. It unwraps to ErrFormat or
// ErrIncomplete.
type FormatError struct {
	Offset int64  // of the field or block at fault, from the start of the archive
	Entry  int    // number of the TOC entry, counted from 1; 0 outside the TOC
	Field  string // name of the field; "" outside the head
	Detail string
	Err    error
}

func (e *FormatError) Error() string {
	var b strings.Builder
	b.WriteString(e.Err.Error())
	b.WriteString(": ")
	if e.Entry > 0 {
		fmt.Fprintf(&b, "TOC entry %d, ", e.Entry)
	}
	if e.Field != "" {
		fmt.Fprintf(&b, "%s: ", e.Field)
	}
	fmt.Fprintf(&b, "%s (at byte %d)", e.Detail, e.Offset)
	return b.String()
}

func (e *FormatError) Unwrap() error { return e.Err }

// MismatchError names the part of an archive whose bytes are not the recorded ones. It
// unwraps to ErrMismatch.
type MismatchError struct {
	Part   string // the block's table, or "head"
	Offset int64  // where that part begins
	Detail string
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%v: %s: %s (part begins at byte %d)", ErrMismatch, e.Part, e.Detail, e.Offset)
}

func (e *MismatchError) Unwrap() error { return ErrMismatch }
