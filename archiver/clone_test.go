package archiver

import (
	"errors"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/internal/testenv/sample"
)

func TestClone(t *testing.T) {
	pg := testenv.Postgres(t)
	source := pg.CreateDatabase(t)
	if err := sample.Load(t.Context(), pg.URL(source), sample.Options{NoPgbench: true}); err != nil {
		t.Fatal(err)
	}
	target := pg.CreateDatabase(t)
	opts := CloneOptions{From: connTo(t, pg, source), To: connTo(t, pg, target), Globals: true}
	res, err := Clone(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, pg, source, target)
	if res.Totals.LargeObjects != sample.LargeObjects || res.Bytes == 0 || res.Source.Database != source || res.Globals == nil {
		t.Errorf("result is %+v", res)
	}
	if _, err := Clone(t.Context(), opts); !errors.Is(err, dumper.ErrTargetInUse) {
		t.Errorf("a second time: %v", err)
	}
	opts.Restore = dumper.RestoreOptions{SchemaOnly: true}
	opts.To = connTo(t, pg, pg.CreateDatabase(t))
	if res, err = Clone(t.Context(), opts); err != nil || res.Totals.Blocks != 0 {
		t.Errorf("schema only: %+v, %v", res, err)
	}
	for name, refuse := range map[string]func(*CloneOptions){
		"itself":       func(o *CloneOptions) { o.To = o.From; o.Restore = dumper.RestoreOptions{Clean: true} },
		"with create":  func(o *CloneOptions) { o.Restore = dumper.RestoreOptions{Create: true, Clean: true} },
		"dump args":    func(o *CloneOptions) { o.DumpArgs = []string{"-Fp"} },
		"restore args": func(o *CloneOptions) { o.Restore.Args = []string{"-l"} },
	} {
		o := opts
		refuse(&o)
		if _, err := Clone(t.Context(), o); !errors.Is(err, ErrUsage) && !errors.Is(err, dumper.ErrUsage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := dumpSessions(t, pg, source); n > 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// A dump that dies in the middle fails the restore, and the table it died in
// stays empty.
func TestCloneSourceDies(t *testing.T) {
	pg := testenv.Postgres(t)
	db, target := longSource(t, pg), pg.CreateDatabase(t)
	killer := pg.Connect(t, "postgres")
	killed := 0
	_, err := Clone(t.Context(), CloneOptions{
		From: connTo(t, pg, db), To: connTo(t, pg, target),
		Progress: func(p Progress) {
			if p.Phase != PhaseData || killed > 0 {
				return
			}
			const q = `SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE datname = $1) AS x`
			if err := killer.QueryRow(t.Context(), q, db).Scan(&killed); err != nil {
				t.Error(err)
			}
		},
	})
	if killed == 0 || !errors.Is(err, dumper.ErrDump) || !strings.Contains(err.Error(), "partly restored") {
		t.Errorf("%d backends ended, error is %v", killed, err)
	}
	oneLiner(t, err)
	if got := count(t, pg, target, "long"); got > 0 {
		t.Errorf("table long has %d rows", got)
	}
	if n := dumpSessions(t, pg, target); n > 0 {
		t.Errorf("%d sessions are left in the target", n)
	}
}
