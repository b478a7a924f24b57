package e2e_test

import (
	"syscall"
	"testing"

	"github.com/pgstow/pgstow/internal/testenv"
)

// TestMemory has the kernel measure the largest resident set of an archive and
// of a restore, the client programs they run included. The limit is the
// guarantee's, for dumps of any size up to 100 GiB; this one has more parts
// than are ever in flight.
func TestMemory(t *testing.T) {
	const limit = 200 << 10 // KiB
	w := newWorld(t, testenv.Postgres(t), testenv.VersityGW(t), 192)
	p := start(t, w.env, "archive", "--json", "--to", w.direct).want(0)
	if peak := p.peak(); peak > limit {
		t.Errorf("archive: %d KiB resident, limit %d", peak, limit)
	} else {
		t.Logf("archive: %d KiB resident", peak)
	}
	id := idOf(t, p.stdout.String())
	target := w.pg.CreateDatabase(t)
	p = start(t, w.env.with("PGSTOW_DB="+w.pg.URL(target)), "restore", id, "--from", w.direct).want(0)
	if peak := p.peak(); peak > limit {
		t.Errorf("restore: %d KiB resident, limit %d", peak, limit)
	} else {
		t.Logf("restore: %d KiB resident", peak)
	}
	sameContents(t, w.pg, w.db, target)
}

// peak is the largest resident set in KiB of pgstow and of each of its children.
func (p *process) peak() int64 {
	return p.cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
}
