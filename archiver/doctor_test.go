package archiver

import (
	"context"
	"errors"
	"testing"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// outcomes are the checks by name; several of one name must agree.
func outcomes(t *testing.T, checks []Check) map[string]string {
	t.Helper()
	got := map[string]string{}
	for _, c := range checks {
		if c.Detail == "" || (c.Status == CheckFail) != (c.Err != nil) {
			t.Errorf("check %+v", c)
		}
		got[c.Name] = c.Status
	}
	return got
}

func wantOutcomes(t *testing.T, checks []Check, want map[string]string) {
	t.Helper()
	got := outcomes(t, checks)
	for name, status := range want {
		if got[name] != status {
			t.Errorf("%s is %q, want %q; all: %+v", name, got[name], status, checks)
		}
	}
	if len(got) != len(want) {
		t.Errorf("checks are %v, want %v", got, want)
	}
}

func opening(b storage.Bucket, err error) func(context.Context) (storage.Bucket, error) {
	return func(context.Context) (storage.Bucket, error) { return b, err }
}

func TestDoctor(t *testing.T) {
	pg := testenv.Postgres(t)
	conn := connTo(t, pg, smallSource(t, pg))
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	wantOutcomes(t, Doctor(t.Context(), DoctorOptions{Conn: &conn, OpenBucket: opening(b, nil)}), map[string]string{
		"client programs": CheckOK, "connection": CheckOK, "pooler": CheckOK, "versions": CheckOK, "rights": CheckOK,
		"bucket": CheckOK, "write": CheckOK, "read back": CheckOK, "delete": CheckOK, "capabilities": CheckOK,
		"unfinished uploads": CheckOK,
	})
	if left := objects(t, b); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	nowhere := conn.WithDatabase("not_there")
	down := &storage.Error{Op: "open", Kind: storage.ErrBucketNotExist}
	checks := Doctor(t.Context(), DoctorOptions{Conn: &nowhere, OpenBucket: opening(nil, down), PGBin: t.TempDir()})
	wantOutcomes(t, checks, map[string]string{"client programs": CheckFail, "connection": CheckFail, "bucket": CheckFail})
	for _, c := range checks {
		if c.Advice == "" {
			t.Errorf("no advice: %+v", c)
		}
		if c.Name == "bucket" && !errors.Is(c.Err, storage.ErrBucketNotExist) {
			t.Errorf("error is %v", c.Err)
		}
		if c.Name == "connection" && !errors.Is(c.Err, dumper.ErrConnect) {
			t.Errorf("error is %v", c.Err)
		}
	}
}

// What the credentials may not do is told apart.
func TestDoctorRights(t *testing.T) {
	memory := func() *storagetest.Memory { return storagetest.NewMemory(storagetest.MemoryOptions{}) }
	healthy := map[string]string{
		"client programs": CheckOK, "bucket": CheckOK, "write": CheckOK, "read back": CheckOK, "delete": CheckOK,
		"capabilities": CheckOK, "unfinished uploads": CheckOK,
	}
	with := func(changes map[string]string) map[string]string {
		want := map[string]string{}
		for k, v := range healthy {
			want[k] = v
		}
		for k, v := range changes {
			if v == "" {
				delete(want, k)
			} else {
				want[k] = v
			}
		}
		return want
	}
	for name, c := range map[string]struct {
		bucket storage.Bucket
		want   map[string]string
	}{
		"no reading": {&faultyBucket{Memory: memory(), mode: denied}, with(map[string]string{"read back": CheckWarn})},
		"no listing": {&faultyBucket{Memory: memory(), mode: refused, at: 1}, with(map[string]string{"bucket": CheckFail})},
		"no writing": {&faultyBucket{Memory: memory(), mode: refused, at: 2},
			with(map[string]string{"write": CheckFail, "read back": "", "delete": ""})},
		"no deleting":             {&faultyBucket{Memory: memory(), mode: refused, at: 4}, with(map[string]string{"delete": CheckWarn})},
		"a store without uploads": {plainBucket{memory()}, with(map[string]string{"unfinished uploads": ""})},
	} {
		t.Run(name, func(t *testing.T) {
			wantOutcomes(t, Doctor(t.Context(), DoctorOptions{OpenBucket: opening(c.bucket, nil)}), c.want)
		})
	}
}
