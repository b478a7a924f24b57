package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgstow/pgstow/internal/testenv"
)

// TestKilledAnywhere kills pgstow with SIGKILL at random points of an archive.
// What is listed afterwards is whole, nothing survives that pgstow started,
// cleanup finds every part, and the next archive works.
func TestKilledAnywhere(t *testing.T) {
	const points, most = 30, 120
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	w := newWorld(t, testenv.Postgres(t), testenv.VersityGW(t), 20)
	binary(t) // built before the clock runs
	args := []string{"archive", "--name", "killed", "--to", w.direct}
	began := time.Now()
	run(t, w.env, 0, args...)
	whole := time.Since(began)

	killed, runs, started := 0, 0, []int{}
	for ; killed < points && runs < most; runs++ {
		// A third of the points lies in the last tenth, where it is committed.
		at := time.Duration(random.Float64() * float64(whole))
		if runs%3 == 0 {
			at = whole - time.Duration(random.Float64()*float64(whole)/10)
		}
		began := time.Now()
		p := start(t, w.env, args...)
		select {
		case <-p.done:
			whole = min(whole, time.Since(began)) // the machine was busier before
		case <-time.After(at):
		}
		started = append(started, children(p.cmd.Process.Pid)...)
		_ = p.cmd.Process.Signal(syscall.SIGKILL) // it may have ended by itself
		if p.wait(patience) == -1 {
			killed++
		}
	}
	t.Logf("killed %d of %d runs of about %s", killed, runs, whole.Round(time.Millisecond))
	if killed < points {
		t.Errorf("only %d runs were killed: too few", killed)
	}

	for _, pid := range started {
		for _, name := range []string{"pg_dump", "pg_dumpall", "pg_restore"} {
			eventually(t, fmt.Sprintf("%s (%d) has ended", name, pid), func() bool { return !alive(pid, name) })
		}
	}
	w.noSessions()

	left := w.uploads()
	t.Logf("%d uploads are left", len(left))
	if len(left) == 0 {
		t.Error("no upload was cut off: nothing to clean up was tested")
	}
	run(t, w.env, 0, "cleanup", "--older-than", "0s", "--bucket", w.direct)
	w.noUploads()
	// Killed runs may have come to their end before: what is listed is whole.
	for i, a := range list(t, w.env, w.direct) {
		if !a.Complete {
			t.Errorf("%s is listed and incomplete", a.ID)
		}
		out := filepath.Join(t.TempDir(), strconv.Itoa(i))
		run(t, w.env, 0, "restore", a.ID, "--from", w.direct, "--output", out)
	}
	w.restores(archive(t, w.env, w.direct, "--name", "killed"))
}

// TestRestoreKilled ends a restore in the middle: the target's session ends,
// and a second attempt works.
func TestRestoreKilled(t *testing.T) {
	w := newWorld(t, testenv.Postgres(t), testenv.VersityGW(t), 32)
	id := archive(t, w.env, w.direct)
	for name, end := range map[string]struct {
		signal syscall.Signal
		code   int
	}{"SIGINT": {syscall.SIGINT, 130}, "SIGKILL": {syscall.SIGKILL, -1}} {
		t.Run(name, func(t *testing.T) {
			target := *w
			target.t, target.db = t, w.pg.CreateDatabase(t)
			env := w.env.with("PGSTOW_DB=" + w.pg.URL(target.db))
			// The store crawls: the restore is in the middle until it is ended.
			w.s3Line.Add(t, testenv.Toxic{Name: "slow", Type: "bandwidth", Attributes: map[string]any{"rate": 500}})
			p := start(t, env, "restore", id, "--from", w.bucketURL)
			restore := p.child("pg_restore")
			eventually(t, "pg_restore works in the target", func() bool { return len(target.sessions()) > 0 })
			p.signal(end.signal)
			if code := p.wait(10 * time.Second); code != end.code {
				t.Errorf("exit code %d, want %d\n%s", code, end.code, p.stderr.String())
			}
			if said := p.stderr.String(); end.code == 130 && !(strings.Contains(said, target.db) && strings.Contains(said, "partly restored (") && strings.Contains(said, "--clean --if-exists")) {
				t.Errorf("does not say what is in the target, and how to start over:\n%s", said)
			}
			eventually(t, "pg_restore has ended", func() bool { return !alive(restore, "pg_restore") })
			target.noSessions()
			w.s3Line.Remove(t, "slow")
			run(t, env, 0, "restore", id, "--from", w.direct, "--clean", "--if-exists")
			sameContents(t, w.pg, w.db, target.db)
		})
	}
}
