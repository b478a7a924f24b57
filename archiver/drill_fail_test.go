package archiver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// archivedSQL is an archive of a database that sql makes.
func archivedSQL(t *testing.T, pg *testenv.Cluster, sql string) (*storagetest.Memory, *Manifest) {
	t.Helper()
	db := pg.CreateDatabase(t)
	pg.Exec(t, db, sql)
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	return b, archived(t, pg, db, b).Manifest
}

// records counts those of drills.
func drillRecords(t *testing.T, b storage.Bucket) (n int) {
	t.Helper()
	for _, key := range objects(t, b) {
		if strings.HasSuffix(key, "-drill.json") {
			n++
		}
	}
	return n
}

// edited is b with the manifest changed.
func edited(t *testing.T, b *storagetest.Memory, m *Manifest, old, new string) *storagetest.Memory {
	t.Helper()
	all := content(t, b)
	raw := bytes.Replace(all[m.Key], []byte(old), []byte(new), 1)
	if bytes.Equal(raw, all[m.Key]) || !json.Valid(raw) {
		t.Fatalf("%q is not in %s", old, all[m.Key])
	}
	all[m.Key] = raw
	return bucketOf(t, all)
}

// What is wrong with the scratch server says nothing of the archive: it is an error of the
// database, nothing is recorded, and nothing is left.
func TestDrillServerFaults(t *testing.T) {
	pg := testenv.Postgres(t)
	const plain = `CREATE TABLE a AS SELECT generate_series(1, 100) AS id`
	b, m := archivedSQL(t, pg, plain)
	check := func(t *testing.T, b storage.Bucket, id string, change func(*DrillOptions), kind error, words ...string) {
		t.Helper()
		res, err := drilled(t, pg, b, id, change)
		if res != nil || !errors.Is(err, kind) || errors.Is(err, ErrIntegrity) {
			t.Fatalf("%v, %+v", err, res)
		}
		text := err.Error()
		if lacks := (*LacksError)(nil); errors.As(err, &lacks) {
			text += strings.Join(lacks.Lines(), "\n")
		}
		for _, w := range words {
			if !strings.Contains(text, w) {
				t.Errorf("%q does not say %q", text, w)
			}
		}
		if n := drillRecords(t, b); n > 0 {
			t.Errorf("%d records", n)
		}
	}
	t.Run("an extension is missing", func(t *testing.T) {
		db := pg.CreateDatabase(t)
		// What a database looks like whose extension only its server had.
		pg.Exec(t, db, `CREATE EXTENSION hstore; CREATE TABLE a (h hstore);
			UPDATE pg_extension SET extname = 'no_such_extension' WHERE extname = 'hstore'`)
		b := storagetest.NewMemory(storagetest.MemoryOptions{})
		res := archived(t, pg, db, b)
		check(t, b, res.Manifest.ID, nil, dumper.ErrPreflight, "no_such_extension", "nothing was changed")
	})
	t.Run("an older server", func(t *testing.T) {
		old := edited(t, b, m, `"server_version": "15.`, `"server_version": "99.`)
		check(t, old, m.ID, nil, dumper.ErrPreflight, "version 99", "an older one cannot take")
	})
	t.Run("a role of a policy", func(t *testing.T) {
		pg.Exec(t, "postgres", `CREATE ROLE drill_gone`)
		b, m := archivedSQL(t, pg, `CREATE TABLE a (id int); ALTER TABLE a ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON a TO drill_gone USING (true)`)
		pg.Exec(t, text(t, pg, "postgres", `SELECT datname FROM pg_database WHERE datname = '`+m.Source.Database+`'`), `DROP OWNED BY drill_gone`)
		pg.Exec(t, "postgres", `DROP ROLE drill_gone`)
		check(t, b, m.ID, nil, dumper.ErrPreflight, "drill_gone", "CREATE ROLE", "NOLOGIN")
	})
	t.Run("the name is taken", func(t *testing.T) {
		taken := pg.CreateDatabase(t)
		pg.Exec(t, taken, `CREATE TABLE precious ()`)
		check(t, b, m.ID, func(o *DrillOptions) { o.database = taken }, dumper.ErrScratch, "is there already", "not touched")
		if count(t, pg, taken, "precious") != 0 {
			t.Error("the database that was there was changed")
		}
	})
	t.Run("no right to create databases", func(t *testing.T) {
		pg.Exec(t, "postgres", `CREATE ROLE drill_poor LOGIN PASSWORD 'poor'`)
		t.Cleanup(func() { pg.Exec(t, "postgres", `DROP ROLE drill_poor`) })
		poor, err := dumper.ParseConn("postgres://drill_poor:poor@" + pg.Addr() + "/postgres")
		if err != nil {
			t.Fatal(err)
		}
		check(t, b, m.ID, func(o *DrillOptions) { o.Server = poor }, dumper.ErrScratch, "CREATEDB")
	})
	t.Run("the server goes away", func(t *testing.T) {
		check(t, b, m.ID, func(o *DrillOptions) {
			o.restored = func(ctx context.Context, c dumper.Conn) error {
				conn, err := connTo(t, pg, "postgres").Connect(ctx)
				if err != nil {
					return err
				}
				defer conn.Close(ctx)
				_, err = conn.Exec(ctx, `ALTER DATABASE "`+c.Database()+`" CONNECTION LIMIT 0`)
				if err == nil {
					_, err = conn.Exec(ctx, `ALTER DATABASE "`+c.Database()+`" ALLOW_CONNECTIONS false`)
				}
				return err
			}
		}, dumper.ErrDump, "not currently accepting connections")
	})
}

// asRoot runs a program with the rights that the tests need anyway to install what they use.
func asRoot(t *testing.T, args ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		args = append([]string{"sudo", "-n"}, args...)
	}
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v: %s", args, err, out)
	}
}

// A scratch server whose disk is full fails a drill, and says so; its archive is not to blame.
func TestDrillDiskFull(t *testing.T) {
	pg := testenv.Postgres(t)
	b, m := archivedSQL(t, pg, `CREATE TABLE large (body text); ALTER TABLE large ALTER body SET STORAGE PLAIN;
		INSERT INTO large SELECT repeat('x', 7900) FROM generate_series(1, 6000)`)
	small := testenv.NewPostgres(t, testenv.PostgresOptions{})
	if err := small.Stop(); err != nil {
		t.Fatal(err)
	}
	// The databases move to a disk that has no room for another 48 MB.
	base := filepath.Join(small.Dir, "base")
	if err := os.Rename(base, base+".whole"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(base, 0o700); err != nil {
		t.Fatal(err)
	}
	whole, err := os.Stat(base + ".whole")
	if err != nil {
		t.Fatal(err)
	}
	owner := whole.Sys().(*syscall.Stat_t)
	asRoot(t, "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=60m,mode=700,uid=%d,gid=%d", owner.Uid, owner.Gid), "none", base)
	t.Cleanup(func() {
		_ = small.Stop()
		asRoot(t, "umount", base)
	})
	if out, err := exec.Command("cp", "-a", base+".whole/.", base).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	small.Start(t)
	res, err := drilled(t, small, b, m.ID, nil)
	if res != nil || !errors.Is(err, dumper.ErrRestore) || errors.Is(err, ErrIntegrity) || !strings.Contains(err.Error(), "says nothing of the archive") {
		t.Errorf("%v, %+v", err, res)
	}
	if n := drillRecords(t, b); n > 0 {
		t.Errorf("%d records", n)
	}
}

// An archive that does not restore has failed its drill, and the record says so.
func TestDrillOfWhatDoesNotRestore(t *testing.T) {
	pg := testenv.Postgres(t)
	b, m := archivedSQL(t, pg, `CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (a int REFERENCES a);
		SET session_replication_role = replica; INSERT INTO b VALUES (1)`)
	res, err := drilled(t, pg, b, m.ID, nil)
	if !errors.Is(err, ErrIntegrity) || res == nil || res.Result != ResultFailed || res.Differences[0].Kind != DiffRestore || !strings.Contains(err.Error(), "b_a_fkey") {
		t.Errorf("%v, %+v", err, res)
	}
	if n := drillRecords(t, b); n != 1 {
		t.Errorf("%d records", n)
	}
	// Damage in the store is found on the way, and belongs to the record as well.
	ok, m := archivedSQL(t, pg, `CREATE TABLE a AS SELECT generate_series(1, 1000) AS id`)
	all := content(t, ok)
	all[m.Objects.Dump.Key] = flip(all[m.Objects.Dump.Key], -20)
	damaged := bucketOf(t, all)
	res, err = drilled(t, pg, damaged, m.ID, nil)
	if !errors.Is(err, ErrIntegrity) || res == nil || res.Result != ResultFailed || drillRecords(t, damaged) != 1 {
		t.Errorf("%v, %+v", err, res)
	}
}

// Whenever it is interrupted, the database goes, and nothing is recorded.
func TestDrillInterrupted(t *testing.T) {
	pg := testenv.Postgres(t)
	b, m := archivedSQL(t, pg, `CREATE TABLE a AS SELECT generate_series(1, 50000) AS id; CREATE TABLE b AS TABLE a`)
	stop := errors.New("Ctrl-C")
	for _, phase := range []Phase{PhasePreflight, PhaseDefinitions, PhaseData, PhaseFinish, PhaseSchema, PhaseCompare, PhaseDrop} {
		t.Run(string(phase), func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			res, err := Drill(ctx, DrillOptions{
				Bucket: b, Ref: m.ID, Server: connTo(t, pg, "postgres"), By: "tester", Pgstow: "test", KeepDatabase: true,
				Progress: func(p Progress) {
					if p.Phase == phase {
						cancel(stop)
					}
				},
			})
			if res != nil || !errors.Is(err, stop) {
				t.Errorf("%v, %+v", err, res)
			}
			if left := scratchDatabases(t, pg, m.ID); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
	if n := drillRecords(t, b); n > 0 {
		t.Errorf("%d records", n)
	}
}

// A database that cannot be dropped is named, with what drops it; the verdict stands.
func TestDrillLeavesWhatItCannotDrop(t *testing.T) {
	pg := testenv.Postgres(t)
	b, m := archivedSQL(t, pg, `CREATE TABLE a AS SELECT generate_series(1, 10) AS id`)
	for _, tamper := range []string{"", "DELETE FROM a"} {
		var left string
		res, err := Drill(t.Context(), DrillOptions{
			Bucket: b, Ref: m.ID, Server: connTo(t, pg, "postgres"), By: "tester", Pgstow: "test",
			restored: func(ctx context.Context, c dumper.Conn) error {
				left = c.Database()
				pg.Exec(t, left, tamper)
				// Somebody took it over: it is not ours to drop any more.
				pg.Exec(t, "postgres", `ALTER DATABASE "`+left+`" OWNER TO pg_monitor`)
				return nil
			},
		})
		oneLiner(t, err)
		var stays *LeftDatabaseError
		if !errors.As(err, &stays) || res == nil || res.Database != left || !strings.Contains(err.Error(), stays.Command) || !strings.Contains(stays.Command, left) {
			t.Fatalf("%v, %+v", err, res)
		}
		if failed := tamper != ""; errors.Is(err, ErrIntegrity) != failed || errors.Is(err, dumper.ErrScratch) == failed || (res.Result == ResultFailed) != failed || res.Record == "" {
			t.Errorf("%v, %+v", err, res)
		}
		pg.Exec(t, "postgres", stays.Command)
	}
}

// A cold archive is not drilled before it can be read; thawed and waited for, it is.
func TestDrillOfColdArchive(t *testing.T) {
	pg := testenv.Postgres(t)
	m := storagetest.NewMemory(storagetest.MemoryOptions{})
	id := coldArchive(t, m, "DEEP_ARCHIVE").Manifest.ID
	var cold *ColdError
	if res, err := drilled(t, pg, m, id, nil); res != nil || !errors.As(err, &cold) {
		t.Errorf("%v, %+v", err, res)
	}
	if n := drillRecords(t, m); n > 0 {
		t.Errorf("%d records", n)
	}
	res, err := drilled(t, pg, m, id, func(o *DrillOptions) {
		o.Thaw = ThawOptions{Tier: storage.ThawBulk, Wait: true, Sleep: func(context.Context, time.Duration) error { m.Thawed(); return nil }}
	})
	if err != nil || res.Result != ResultPassed || drillRecords(t, m) != 1 {
		t.Errorf("%v, %+v", err, res)
	}
}
