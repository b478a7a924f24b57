package dumper

import (
	"errors"
	"strings"
)

// Sentinels; every error of this package that comes from source or target wraps one.
var (
	ErrConnInfo    = errors.New("connection string")              // usage: exit 2
	ErrUsage       = errors.New("refused option")                 // usage: exit 2
	ErrSelection   = errors.New("nothing selected")               // usage: exit 2; comes together with ErrUsage
	ErrConnect     = errors.New("cannot connect")                 // exit 10
	ErrPooler      = errors.New("pooled endpoint")                // exit 10
	ErrVersion     = errors.New("client and server versions")     // exit 10
	ErrDump        = errors.New("pg_dump failed")                 // exit 10
	ErrGlobals     = errors.New("globals not readable")           // comes together with ErrDump; a dump goes on without them
	ErrRestore     = errors.New("pg_restore failed")              // exit 10
	ErrPreflight   = errors.New("target cannot take the archive") // exit 10
	ErrTargetInUse = errors.New("target database is not empty")   // exit 10
	ErrScratch     = errors.New("scratch database")               // exit 10
)

// failure is an error that reads as one sentence of its own and still answers
// errors.Is for its sentinels and its cause: the sentinels' texts would only
// stand in the sentence's way.
type failure struct {
	kinds []error
	msg   string
	cause error // answers errors.Is/As; its text is part of msg already, where it helps
}

func (e *failure) Error() string { return e.msg }

func (e *failure) Unwrap() []error {
	if e.cause == nil {
		return e.kinds
	}
	return append(append(make([]error, 0, len(e.kinds)+1), e.kinds...), e.cause)
}

func fail(kind error, msg string) error {
	return &failure{kinds: []error{kind}, msg: msg}
}

func failCause(kind error, msg string, cause error) error {
	return &failure{kinds: []error{kind}, msg: msg, cause: cause}
}

// oneLine folds a message of several lines into one.
func oneLine(s string) string {
	return strings.Join(strings.Fields(s), " ")
}

// clip shortens s to at most n bytes at a character boundary.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n] + "…"
}

// firstFew lists the first names of a possibly long list.
func firstFew(names []string, n int) string {
	if len(names) <= n {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:n], ", ") + ", …"
}
