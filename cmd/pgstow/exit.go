package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"syscall"

	"github.com/pgstow/pgstow/archiver"
	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/dumper/pgarchive"
	"github.com/pgstow/pgstow/storage"
)

// Exit codes. They are an interface: a code never changes its meaning.
const (
	exitOK        = 0
	exitOther     = 1
	exitUsage     = 2
	exitDatabase  = 10
	exitStorage   = 11
	exitNotFound  = 12
	exitRefused   = 13
	exitIntegrity = 14
	// exitViolations: the audit was done, and found some.
	exitViolations = 15
	exitChanges    = 16
	exitSignal     = 128 // plus the signal's number
)

// exitCodes is what help tells of them; always marks those of every command.
var exitCodes = []struct {
	code    int
	always  bool
	meaning string
}{
	{exitOK, true, "done, and committed where something was to be stored"},
	{exitOther, true, "failed for a reason that has no code of its own"},
	{exitUsage, true, "usage or configuration: nothing was done"},
	{exitDatabase, false, "source or target database: connection, version, pooler, pg_dump, pg_restore"},
	{exitStorage, false, "storage unreachable, denied or too cold to be read, or the outcome is unknown"},
	{exitNotFound, false, "no such archive or bucket"},
	{exitRefused, false, "refused by retention, a hold, an existing object or somebody's rule"},
	{exitIntegrity, false, "integrity: checksum, truncation, missing object, a drill's copy that differs"},
	{exitViolations, false, "audit: violations were found"},
	{exitChanges, false, "lifecycle plan --exit-code: there are changes"},
	{exitSignal + int(syscall.SIGINT), true, "interrupted (SIGINT) and cleanly aborted"},
	{exitSignal + int(syscall.SIGTERM), true, "terminated (SIGTERM) and cleanly aborted"},
}

// usageError is a mistake in the command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// interrupt is the cause of a context that a signal ended.
type interrupt struct{ signal syscall.Signal }

func (i interrupt) Error() string {
	switch i.signal {
	case syscall.SIGINT:
		return "interrupted"
	case syscall.SIGTERM:
		return "terminated"
	}
	return "ended by signal " + i.signal.String()
}

// Is makes an interrupt a cancellation, which it is to every library.
func (interrupt) Is(target error) bool { return target == context.Canceled }

// exitCode is the one place where errors become exit codes.
func exitCode(ctx context.Context, err error) int {
	var (
		signal    interrupt
		usage     usageError
		leftover  *archiver.LeftoverError
		committed *archiver.CommittedError
		store     *storage.Error
	)
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	switch {
	case err == nil:
		return exitOK
	case errors.As(context.Cause(ctx), &signal):
		if errors.As(err, &leftover) || errors.As(err, &committed) || is(storage.ErrUnknownOutcome, storage.ErrUploadRemains) {
			return exitStorage // not a clean abort
		}
		return exitSignal + int(signal.signal)
	case errors.As(err, &usage), is(archiver.ErrUsage, archiver.ErrAmbiguous, archiver.ErrFormat,
		dumper.ErrConnInfo, dumper.ErrUsage, errors.ErrUnsupported, storage.ErrInvalidBucket):
		return exitUsage
	case is(archiver.ErrIntegrity, storage.ErrIntegrity):
		return exitIntegrity
	case is(archiver.ErrNoArchive, storage.ErrBucketNotExist):
		return exitNotFound
	case is(archiver.ErrRefused, storage.ErrLocked, storage.ErrExist, storage.ErrChanged):
		return exitRefused
	case is(errLifecycleChanges):
		return exitChanges
	case is(storage.ErrUnavailable, storage.ErrPermission, storage.ErrCredentials,
		storage.ErrUnknownOutcome, storage.ErrStalled, storage.ErrCold, storage.ErrThawTier):
		return exitStorage
	case is(dumper.ErrConnect, dumper.ErrPooler, dumper.ErrVersion, dumper.ErrDump, dumper.ErrRestore,
		dumper.ErrPreflight, dumper.ErrTargetInUse, dumper.ErrScratch):
		return exitDatabase
	case is(pgarchive.ErrIncomplete, pgarchive.ErrFormat):
		return exitIntegrity
	case errors.As(err, &store):
		return exitStorage
	case is(errViolations):
		return exitViolations
	}
	return exitOther
}

// hints say what to do now; the first that fits is used. An error that names
// its own cure does so behind a semicolon, and gets none here.
var hints = []struct {
	err  error
	hint string
}{
	{syscall.ENOSPC, "free some space there, then run it again"},
	{syscall.EDQUOT, "free some space there, then run it again"},
	{storage.ErrCredentials, "sign in with the store's own means: AWS_PROFILE or a role for s3://, `gcloud auth application-default login` for gs://"},
	{storage.ErrPermission, "`pgstow doctor --to BUCKET` shows what these credentials may do"},
	{storage.ErrBucketNotExist, "pgstow creates no buckets: check name, region and endpoint"},
	{storage.ErrUnknownOutcome, "`pgstow list` shows whether it was committed"},
	{storage.ErrStalled, "pg_dump was ended so that no snapshot stays open: check the store, then run it again"},
	{storage.ErrUnavailable, "check the network and the endpoint, then run it again"},
	{archiver.ErrNoArchive, "`pgstow list` shows what there is"},
	{archiver.ErrFormat, "read it with that version or a later one"},
	{archiver.ErrIntegrity, "do not rely on this archive: make another one, and keep this one for an inquiry"},
	{dumper.ErrPooler, "connect to the database directly, or give --allow-pooler if you know better"},
	{dumper.ErrVersion, "install the client programs of the server's major version, or name them with --pg-bin"},
	{dumper.ErrTargetInUse, "restore into an empty database, or choose --clean --if-exists or --into-nonempty"},
	{dumper.ErrConnect, "check host, port, user and password"},
}

// hasCure tells texts that say themselves what to do.
func hasCure(text string) bool {
	for _, mark := range []string{"; ", "(check ", "(is the server "} {
		if strings.Contains(text, mark) {
			return true
		}
	}
	return false
}

// advice completes the one line that text is.
func (rt *runtime) advice(err error, text string) string {
	var usage usageError
	var wrong *configError
	switch {
	case errors.As(err, &wrong): // each mistake says what is wanted
		return ""
	case hasCure(text), rt.line.command == "doctor": // whose table holds the advice
		return ""
	case errors.As(err, &usage) && rt.line.command != "":
		return "; see `pgstow " + rt.line.command + " --help`"
	case errors.As(err, &usage):
		return "; see `pgstow --help`"
	}
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return "; " + h.hint
		}
	}
	return ""
}

// reportError writes the one line that ends a failed run.
func (rt *runtime) reportError(ctx context.Context, err error, code int) {
	text := oneLine(err.Error())
	var signal interrupt
	var store *storage.Error
	if code == exitDatabase && errors.As(err, &store) && store.Kind == nil && store.Err != nil {
		// It only passes on what its source said.
		text = oneLine(strings.Replace(err.Error(), store.Error(), store.Err.Error(), 1))
	}
	if code > exitSignal && errors.As(context.Cause(ctx), &signal) {
		text = signal.Error() + aftermath(rt.line.command, err)
	} else {
		text += rt.advice(err, text)
	}
	if rt.logJSON {
		rt.log.LogAttrs(context.WithoutCancel(ctx), slog.LevelError, text, slog.Int("exit_code", code))
		return
	}
	fmt.Fprintf(rt.err, "pgstow: %s\n", printable(text)) // names come from databases and buckets
}

// oneLine folds an error's text: joined errors come on lines of their own,
// SDKs dump requests over several.
func oneLine(text string) string {
	var parts []string
	for line := range strings.Lines(text) {
		line = strings.Join(strings.Fields(line), " ")
		if line != "" && (len(parts) == 0 || parts[len(parts)-1] != line) {
			parts = append(parts, line)
		}
	}
	return strings.Join(parts, "; ")
}

// aftermath says what an interrupted command leaves behind.
func aftermath(command string, err error) string {
	var partial *archiver.PartialError
	var begun *archiver.BegunError
	switch {
	case command == "archive":
		return ": aborted cleanly, nothing was stored"
	case command == "drill" && errors.As(err, new(*archiver.LeftDatabaseError)):
		return ": " + oneLine(err.Error())
	case command == "drill":
		return ": aborted cleanly, no scratch database is left and nothing was recorded"
	case errors.As(err, &partial):
		return ": aborted cleanly; " + oneLine(partial.State())
	case command == "restore", command == "clone":
		return ": aborted cleanly, no database was changed"
	case command == "verify":
		return ": the archive that was being read has no result, and none was recorded"
	case command == "rekey":
		return ": the record may be written; `pgstow show` tells"
	case command == "retain", command == "hold", command == "undelete":
		return ": some of it may be done; run it again to complete it"
	case command == "thaw":
		return ": what was asked for goes on at the store; run it again to see how far it is"
	case command == "expire" && errors.As(err, &begun) && begun.Journal:
		return fmt.Sprintf(": archive %s is partly deleted; the next run finishes it", begun.ID)
	case command == "expire" && errors.As(err, &begun):
		return fmt.Sprintf(": archive %s is partly deleted, and there is no record by which the next run could finish it; see `pgstow list --incomplete`", begun.ID)
	case command == "expire":
		return ": no archive is left half deleted"
	}
	return ""
}
