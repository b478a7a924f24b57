package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"github.com/pgstow/pgstow/archiver"
	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/dumper/pgarchive"
	"github.com/pgstow/pgstow/storage"
)

func TestExitCode(t *testing.T) {
	put := func(kind error) error {
		return fmt.Errorf("archive: %w", &storage.Error{Op: "put", Key: "k", Kind: kind, Err: errors.New("cause")})
	}
	tests := []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("anything"), 1},
		{fs.ErrNotExist, 1}, // a local file is no archive
		{usagef("no"), 2},
		{fmt.Errorf("%w: x", dumper.ErrConnInfo), 2},
		{fmt.Errorf("%w: -F", dumper.ErrUsage), 2},
		{fmt.Errorf("%w: label", archiver.ErrUsage), 2},
		{&archiver.AmbiguousError{Ref: "k"}, 2},
		{fmt.Errorf("%w: pgstow/2", archiver.ErrFormat), 2},
		{put(errors.ErrUnsupported), 2},
		{put(storage.ErrInvalidBucket), 2},
		{dumper.ErrConnect, 10},
		{dumper.ErrPooler, 10},
		{dumper.ErrVersion, 10},
		{fmt.Errorf("archive: %w", dumper.ErrDump), 10},
		{dumper.ErrRestore, 10},
		{&archiver.LacksError{}, 10},
		{dumper.ErrTargetInUse, 10},
		{put(storage.ErrUnavailable), 11},
		{put(storage.ErrPermission), 11},
		{put(storage.ErrCredentials), 11},
		{put(storage.ErrUnknownOutcome), 11},
		{put(nil), 11},
		{&storage.Error{Op: "put", Key: "k", Err: fmt.Errorf("read the source: %w", dumper.ErrDump)}, 10},
		{&storage.Error{Op: "put", Key: "k", Kind: storage.ErrStalled, Err: dumper.ErrDump}, 11},
		{fmt.Errorf("store dump: %w", pgarchive.ErrIncomplete), 14},
		{fmt.Errorf("%w for 5m0s", storage.ErrStalled), 11},
		{put(storage.ErrBucketNotExist), 12},
		{fmt.Errorf("%w: k", archiver.ErrNoArchive), 12},
		{put(storage.ErrLocked), 13},
		{put(storage.ErrExist), 13},
		{put(storage.ErrIntegrity), 14},
		// What an archive's manifest promises and the bucket lacks is damage.
		{fmt.Errorf("%w: %w", archiver.ErrIntegrity, put(storage.ErrNotExist)), 14},
		{&archiver.LeftoverError{Err: dumper.ErrDump, Removal: put(storage.ErrPermission)}, 10},
	}
	for _, tt := range tests {
		if got := exitCode(t.Context(), tt.err); got != tt.want {
			t.Errorf("%v: exit code %d, want %d", tt.err, got, tt.want)
		}
	}
}

func TestExitCodeOfAnInterruption(t *testing.T) {
	for signal, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(interrupt{signal})
		tests := []struct {
			err  error
			want int
		}{
			{nil, 0}, // it was committed before the signal was noticed
			{context.Cause(ctx), want},
			{&storage.Error{Op: "put", Err: context.Cause(ctx)}, want},
			{fmt.Errorf("%w: terminated", dumper.ErrDump), want},
			{&archiver.LeftoverError{Err: context.Cause(ctx), Removal: errors.New("denied")}, exitStorage},
			{&archiver.LeftoverError{Err: context.Cause(ctx), Keys: []string{"k"}}, exitStorage},
			{&archiver.CommittedError{ID: "k", Err: context.Cause(ctx)}, exitStorage}, // there is an archive
			{fmt.Errorf("%w: %w", context.Cause(ctx), storage.ErrUnknownOutcome), exitStorage},
			{fmt.Errorf("%w: %w", context.Cause(ctx), &storage.UploadRemainsError{Key: "k", Err: errors.New("dead")}), exitStorage},
		}
		for _, tt := range tests {
			if got := exitCode(ctx, tt.err); got != tt.want {
				t.Errorf("%v, %v: exit code %d, want %d", signal, tt.err, got, tt.want)
			}
		}
	}
	if !errors.Is(interrupt{syscall.SIGINT}, context.Canceled) {
		t.Error("an interrupt is no cancellation")
	}
}

// What an interrupted expiry leaves depends on how far it was.
func TestAftermathOfExpire(t *testing.T) {
	stopped := errors.New("interrupted")
	for want, err := range map[string]error{
		"no archive is left half deleted":   stopped,
		"a0000001 is partly deleted; the n": fmt.Errorf("expire: %w", &archiver.BegunError{ID: "a0000001", Journal: true, Err: stopped}),
		"no record by which the next run":   fmt.Errorf("expire: %w", &archiver.BegunError{ID: "a0000001", Err: stopped}),
	} {
		if got := aftermath("expire", err); !strings.Contains(got, want) {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}

func TestReportError(t *testing.T) {
	tests := []struct {
		name, want string
		err        error
	}{
		{"joined errors become one line", "pgstow: a; b\n", errors.Join(errors.New("a"), errors.New("b"))},
		{"an SDK's dump becomes one line", "pgstow: put: a b; c\n", errors.New("put: a\t b\n\n   c\n")},
		{"what to do", "pgstow: no such archive: k; `pgstow list` shows what there is\n", fmt.Errorf("%w: k", archiver.ErrNoArchive)},
		{"one cure is enough", "pgstow: no such archive: k; look there\n", fmt.Errorf("%w: k; look there", archiver.ErrNoArchive)},
		{"a store that passes on what its source said", "pgstow: store dump: read the source: pg_dump failed\n",
			fmt.Errorf("store dump: %w", &storage.Error{Op: "put", Key: "k", Err: fmt.Errorf("read the source: %w", dumper.ErrDump)})},
		{"a hint in brackets is one", "pgstow: cannot connect to x: no (check the password)\n",
			fmt.Errorf("%w to x: no (check the password)", dumper.ErrConnect)},
		{"an ambiguous id", "pgstow: ambiguous archive reference \"k\": give more of one: a (l, 0001-01-01T00:00:00Z)\n",
			&archiver.AmbiguousError{Ref: "k", Reason: "give more of one", Matches: []archiver.Entry{{ID: "a", Label: "l"}}}},
		{"names move no cursor", "pgstow: table a?[2Jb?c\n", errors.New("table a\x1b[2Jb\u202ec")},
		{"usage", "pgstow: no; see `pgstow --help`\n", usagef("no")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			rt := &runtime{console: console{err: &out}}
			rt.reportError(t.Context(), tt.err, exitCode(t.Context(), tt.err))
			if out.String() != tt.want {
				t.Errorf("got  %swant %s", out.String(), tt.want)
			}
		})
	}
	t.Run("json", func(t *testing.T) {
		var out bytes.Buffer
		rt := &runtime{console: console{err: &out}, logJSON: true, log: slog.New(slog.NewJSONHandler(&out, nil))}
		rt.reportError(t.Context(), dumper.ErrVersion, 10)
		var record struct {
			Level, Msg string
			Code       int `json:"exit_code"`
		}
		if err := json.Unmarshal(out.Bytes(), &record); err != nil {
			t.Fatal(err)
		}
		if record.Level != "ERROR" || record.Code != 10 || !strings.HasPrefix(record.Msg, dumper.ErrVersion.Error()) {
			t.Errorf("record %+v", record)
		}
	})
}

// What a signal has ended says what it leaves, and how to start over.
func TestReportInterruption(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(interrupt{syscall.SIGINT})
	cause := context.Cause(ctx)
	touched := &archiver.PartialError{Err: cause, Database: "orders", Holds: "the definitions and the data of 2 of 3 tables"}
	for _, tt := range []struct {
		command, want string
		err           error
	}{
		{"archive", "interrupted: aborted cleanly, nothing was stored", cause},
		{"restore", "interrupted: aborted cleanly, no database was changed", cause},
		{"restore", `interrupted: aborted cleanly; database "orders" may be partly restored (the definitions and the data of 2 of 3 tables): ` +
			"drop and create it again, or repeat with --clean --if-exists", fmt.Errorf("restore x: %w", touched)},
		{"clone", `interrupted: aborted cleanly; database "target" may be partly restored: drop and create it again, or repeat with --clean --if-exists`,
			&archiver.PartialError{Err: cause, Database: "target"}},
		{"verify", "interrupted: the archive that was being read has no result, and none was recorded", cause},
		{"list", "interrupted", cause},
	} {
		var out bytes.Buffer
		rt := &runtime{console: console{err: &out}}
		rt.line.command = tt.command
		rt.reportError(ctx, tt.err, exitCode(ctx, tt.err))
		if got := strings.TrimSpace(out.String()); got != "pgstow: "+tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

func TestEveryExitCodeIsDocumented(t *testing.T) {
	documented := map[int]bool{}
	for _, e := range exitCodes {
		documented[e.code] = true
	}
	for _, code := range []int{exitOK, exitOther, exitUsage, exitDatabase, exitStorage, exitNotFound, exitRefused, exitIntegrity, exitChanges, 130, 143} {
		if !documented[code] {
			t.Errorf("%d is not", code)
		}
	}
	for _, c := range testProgram().commands {
		for _, code := range c.manual.exits {
			if !documented[code] {
				t.Errorf("%s: %d is not", c.Name, code)
			}
		}
		if len(c.manual.examples) == 0 || len(c.manual.usage) == 0 {
			t.Errorf("%s has no examples or no usage", c.Name)
		}
	}
}
