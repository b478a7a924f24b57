package e2e_test

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgstow/pgstow/internal/testenv"
)

// TestDrillEnded ends a drill in the middle of its restore, as Ctrl-C and a service manager
// do: no database is left. One that was killed outright leaves a database that says what it is.
func TestDrillEnded(t *testing.T) {
	w := newWorld(t, testenv.Postgres(t), testenv.VersityGW(t), 32)
	id := archive(t, w.env, w.direct)
	args := []string{"drill", id, "--server", w.pg.URL("postgres"), "--from", w.bucketURL}
	for name, end := range map[string]struct {
		signal syscall.Signal
		code   int
	}{"SIGINT": {syscall.SIGINT, 130}, "SIGTERM": {syscall.SIGTERM, 143}, "SIGKILL": {syscall.SIGKILL, -1}} {
		t.Run(name, func(t *testing.T) {
			w.s3Line.Add(t, testenv.Toxic{Name: "slow", Type: "bandwidth", Attributes: map[string]any{"rate": 500}})
			p := start(t, w.env, args...)
			restore := p.child("pg_restore")
			p.signal(end.signal)
			if code := p.wait(20 * time.Second); code != end.code {
				t.Errorf("exit code %d, want %d\n%s", code, end.code, p.stderr.String())
			}
			w.s3Line.Remove(t, "slow")
			if said := p.stderr.String(); end.code > 0 && !strings.Contains(said, "no scratch database is left and nothing was recorded") {
				t.Errorf("it says:\n%s", said)
			}
			eventually(t, "pg_restore has ended", func() bool { return !alive(restore, "pg_restore") })
			left := scratchComments(t, w.pg, id)
			switch {
			case end.code > 0 && len(left) > 0:
				t.Errorf("left: %q", left)
			case end.code < 0 && (len(left) != 1 || !strings.HasPrefix(left[0], "pgstow scratch database: drill of archive "+id)):
				t.Errorf("what was left says %q", left)
			}
		})
	}
	run(t, w.env, 0, "drill", id, "--server", w.pg.URL("postgres"), "--from", w.direct)
}

// scratchComments are the comments of the scratch databases of an archive.
func scratchComments(t *testing.T, pg *testenv.Cluster, id string) (all []string) {
	t.Helper()
	conn := pg.Connect(t, "postgres")
	rows, err := conn.Query(context.Background(), `SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname LIKE 'pgstow\_drill\_`+id+`\_%'`)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var comment string
		if err := rows.Scan(&comment); err != nil {
			t.Fatal(err)
		}
		all = append(all, comment)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}
