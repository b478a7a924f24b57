package e2e_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/pgstow/pgstow/internal/testenv"
)

// A signal in mid-dump ends everything within ten seconds: no upload, no
// object, no pg_dump, no session.
func TestSignal(t *testing.T) {
	for _, tt := range []struct {
		name   string
		signal syscall.Signal
		code   int
	}{
		{"SIGINT", syscall.SIGINT, 130},
		{"SIGTERM", syscall.SIGTERM, 143},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, testenv.Postgres(t), testenv.VersityGW(t), 64)
			p := w.inMidDump()
			dump := p.child("pg_dump")
			p.signal(tt.signal)
			if code := p.wait(10 * time.Second); code != tt.code {
				t.Fatalf("exit code %d, want %d\n%s", code, tt.code, p.stderr.String())
			}
			p.says("aborted cleanly")
			if alive(dump, "pg_dump") {
				t.Error("pg_dump still runs")
			}
			w.noSessions()
			w.noUploads()
			w.nothingListed()
			if keys := w.objects(); len(keys) > 0 {
				t.Errorf("objects are left: %v", keys)
			}
		})
	}
}

// A signal while the store is dead ends everything within ten seconds too, and
// what stays is told: it is no clean abort.
func TestSignalWithoutStore(t *testing.T) {
	for name, die := range map[string]func(*testenv.S3, *testing.T) (back func()){
		"killed": func(s *testenv.S3, t *testing.T) func() {
			s.Kill(t)
			return func() { s.Start(t) }
		},
		"stopped": func(s *testenv.S3, t *testing.T) func() { return s.Freeze(t) },
	} {
		t.Run(name, func(t *testing.T) {
			store := testenv.NewVersityGW(t, testenv.S3Options{})
			w := newWorld(t, testenv.Postgres(t), store, 64)
			p := w.inMidDump()
			back := die(store, t)
			p.signal(syscall.SIGINT)
			if code := p.wait(10 * time.Second); code != 11 {
				t.Errorf("exit code %d, want 11", code)
			}
			t.Logf("%s", p.stderr.String())
			p.says("interrupted")
			p.says("pgstow cleanup")
			p.says("list --incomplete")
			w.noSessions()
			back()
			w.nothingListed()
			// A stopped store does what it had been sent when it goes on.
			if name == "killed" && len(w.uploads()) == 0 {
				t.Error("nothing stays: the text is wrong")
			}
			run(t, w.env, 0, "cleanup", "--older-than", "0s", "--bucket", w.direct)
			w.noUploads()
		})
	}
}

// The second signal does not wait for a clean abort.
func TestSecondSignalKills(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.Postgres(t), testenv.VersityGW(t), 64)
	p := w.inMidDump()
	dump := p.child("pg_dump")
	w.s3Line.Disable(t) // so that aborting takes its time
	p.signal(syscall.SIGINT)
	eventually(t, "the second signal has killed", func() bool {
		if p.running() {
			_ = p.cmd.Process.Signal(syscall.SIGINT) // it may just have ended
		}
		return !p.running()
	})
	eventually(t, "pg_dump is gone", func() bool { return !alive(dump, "pg_dump") })
	w.noSessions()
	w.nothingListed()
}

// A pg_dump that dies leaves nothing that looks like an archive.
func TestDumpKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.Postgres(t), testenv.VersityGW(t), 64)
	p := w.inMidDump()
	if err := syscall.Kill(p.child("pg_dump"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.want(10).says("pg_dump")
	w.noSessions()
	w.noUploads()
	w.nothingListed()
}

// The same for a server that goes away.
func TestServerStopped(t *testing.T) {
	t.Parallel()
	pg := testenv.NewPostgres(t, testenv.PostgresOptions{})
	w := newWorld(t, pg, testenv.VersityGW(t), 64)
	p := w.inMidDump()
	pg.StopImmediate(t)
	w.fast() // what the proxy still holds is delivered
	p.want(10)
	w.noUploads()
	w.nothingListed()
}

// A store that goes away for good ends the dump within --stall-timeout: no
// snapshot stays open.
func TestStoreGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.Postgres(t), testenv.VersityGW(t), 64)
	p := w.inMidDump("--stall-timeout", "3s")
	w.s3Line.Disable(t)
	w.fast() // there is something to send: a source without data is no stall
	eventually(t, "the dump's server process has ended", func() bool { return len(w.sessions()) == 0 })
	p.want(11).says("store accepts no data")
	w.nothingListed()

	// It comes back, and cleanup removes what could not be aborted.
	w.s3Line.Enable(t)
	run(t, w.env, 0, "cleanup", "--older-than", "0s", "--bucket", w.direct)
	w.noUploads()
}

// A store that hangs without refusing connections is the same to a user.
func TestStoreHangs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.Postgres(t), testenv.VersityGW(t), 64)
	p := w.inMidDump("--stall-timeout", "3s")
	w.s3Line.Add(t, testenv.Toxic{Name: "hole", Type: "timeout", Stream: "upstream", Attributes: map[string]any{"timeout": 0}})
	w.fast()
	eventually(t, "the dump's server process has ended", func() bool { return len(w.sessions()) == 0 })
	p.want(11).says("store accepts no data")
	w.nothingListed()
}

// A store that comes back within the stall timeout costs time and nothing else.
func TestStoreComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.Postgres(t), testenv.VersityGW(t), 64)
	p := w.inMidDump("--json")
	w.fast()
	w.s3Line.Disable(t)
	// The fault's own length, not a wait for something.
	select {
	case <-time.After(20 * time.Second):
	case <-p.done:
	}
	w.s3Line.Enable(t)
	p.want(0)
	w.noUploads()
	w.restores(idOf(t, p.stdout.String()))
}

// Credentials that may not write are found before the source feels anything.
func TestStoreRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.Postgres(t), testenv.VersityGW(t), 1)
	tests := []struct {
		name string
		env  environment
		url  string
		code int
		says string
	}{
		{"wrong secret", w.env.with("AWS_SECRET_ACCESS_KEY=wrong"), w.direct, 11, "SignatureDoesNotMatch"},
		{"unknown key", w.env.with("AWS_ACCESS_KEY_ID=AKIAUNKNOWN"), w.direct, 11, "InvalidAccessKeyId"},
		{"none", w.env.with("AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY="), w.direct, 11, "AWS_PROFILE"},
		{"no such bucket", w.env, w.s3.BucketURL("no-such-bucket", ""), 12, "no such bucket"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			start(t, tt.env, "archive", "--to", tt.url).want(tt.code).says(tt.says)
		})
	}
	w.nothingListed()
	w.noUploads()
}
