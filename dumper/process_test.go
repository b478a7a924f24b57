package dumper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/pgstow/pgstow/internal/testenv"
)

func startPlayed(t *testing.T, scene string) *Dump {
	t.Helper()
	clearPGEnv(t)
	d, err := StartDump(t.Context(), mustParse(t, "host=nowhere.invalid password=S3cr3t"), playing(t, scene, 15), DumpOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// TestDumpEOFIsAPromise: io.EOF comes after exit code 0 and after nothing else.
func TestDumpEOFIsAPromise(t *testing.T) {
	for _, tt := range []struct {
		scene, data string
		says        []string // nil: clean end
	}{
		{"exit0", "archive", nil},
		{"closes stdout", "arch", nil}, // cut, but exit 0: the archive's own completeness check finds it
		{"exit1", "archive", []string{"pg_dump: connection to server was lost (it went away)", "exit code 1"}},
		{"sigkill", "archive", []string{"killed by SIGKILL"}},
		{"closes stdout, fails", "arch", []string{"could not write"}},
		{"flood", "", []string{"the decisive line"}},
		{"one endless line", "", []string{"exit code 3"}},
	} {
		t.Run(tt.scene, func(t *testing.T) {
			d := startPlayed(t, tt.scene)
			data, err := io.ReadAll(d)
			if string(data) != tt.data {
				t.Errorf("read %q, want %q", clip(string(data), 50), tt.data)
			}
			if tt.says == nil {
				if err != nil {
					t.Fatal(err)
				}
			} else {
				wantError(t, err, ErrDump, tt.says...)
				if len(err.Error()) > 4<<10 {
					t.Errorf("an error of %d bytes", len(err.Error()))
				}
			}
			// It stays so.
			_, again := d.Read(make([]byte, 1))
			if tt.says == nil && again != io.EOF || tt.says != nil && again != err {
				t.Errorf("the second end is %v, the first was %v", again, err)
			}
			for range 2 {
				if err := d.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}
		})
	}
}

func TestDumpThatDoesNotStart(t *testing.T) {
	clearPGEnv(t)
	_, err := StartDump(t.Context(), Conn{}, Tools{Dir: "/nonexistent"}, DumpOptions{})
	wantError(t, err, ErrDump, "/nonexistent/pg_dump")
}

func gone(pid int) bool {
	if err := syscall.Kill(pid, 0); err != nil {
		return true
	}
	// An orphan without a reaper stays a zombie.
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func TestCloseKillsWhoIgnoresSIGTERM(t *testing.T) {
	d := startPlayed(t, "ignores SIGTERM")
	if _, err := io.ReadFull(d, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	pid := d.proc.cmd.Process.Pid
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if !gone(pid) {
		t.Error("it still runs")
	}
	if _, err := d.Read(make([]byte, 1)); err == io.EOF || !errors.Is(err, ErrDump) {
		t.Errorf("after Close Read says %v", err)
	}
}

func TestGrandchildrenEndToo(t *testing.T) {
	d := startPlayed(t, "grandchild")
	data, err := io.ReadAll(d)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the grandchild is gone", func() bool { return gone(pid) })
}

// A process that left the group and holds stdout cannot make the dump hang, nor
// pass for a clean end: it could still write.
func TestEscapedGrandchildDoesNotHangTheDump(t *testing.T) {
	d := startPlayed(t, "grandchild in its own session")
	data, err := io.ReadAll(d)
	pid, perr := strconv.Atoi(strings.TrimSpace(string(data)))
	if perr != nil {
		t.Fatal(perr)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	wantError(t, err, ErrDump, "keeps its output open")
}

func TestCancelEndsTheDump(t *testing.T) {
	clearPGEnv(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	d, err := StartDump(ctx, mustParse(t, "host=nowhere.invalid"), playing(t, "ignores SIGTERM", 15), DumpOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := io.ReadFull(d, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	stall := errors.New("the store stalled")
	cancel(stall)
	_, err = io.ReadAll(d)
	wantError(t, err, ErrDump, "the store stalled")
	if !errors.Is(err, stall) {
		t.Errorf("%v does not carry the cause", err)
	}
}

const activity = `SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgstow-test' AND datname = $1`

// bigDatabase is one whose dump does not fit into the pipe.
func bigDatabase(t *testing.T, pg *testenv.Cluster) (db string, c Conn) {
	t.Helper()
	db = pg.CreateDatabase(t)
	pg.Exec(t, db, `CREATE TABLE big AS SELECT g, md5(random()::text) || md5(random()::text) AS r FROM generate_series(1, 300000) g;
		CREATE TABLE small AS SELECT 1.5::float8 AS f; CREATE INDEX ON big (g)`)
	return db, mustParse(t, pg.URL(db)).with("application_name", "pgstow-test")
}

func backends(t *testing.T, pg *testenv.Cluster, db string) int {
	t.Helper()
	conn := pg.Connect(t, "postgres")
	var n int
	if err := conn.QueryRow(t.Context(), activity, db).Scan(&n); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(t.Context())
	return n
}

// TestCancelEndsTheServerProcess: nothing of a cancelled dump stays on the server.
func TestCancelEndsTheServerProcess(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	db, c := bigDatabase(t, pg)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	d, err := StartDump(ctx, c, realTools(t), DumpOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := io.ReadFull(d, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if n := backends(t, pg, db); n != 1 {
		t.Fatalf("%d server processes during the dump, want 1", n)
	}
	cancel()
	_, err = io.ReadAll(d)
	wantError(t, err, ErrDump)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v is no context.Canceled", err)
	}
	eventually(t, "the server process is gone", func() bool { return backends(t, pg, db) == 0 })
}

func TestKilledDumpIsAnError(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	_, c := bigDatabase(t, pg)
	d, err := StartDump(t.Context(), c, realTools(t), DumpOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := io.ReadFull(d, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(d.proc.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadAll(d)
	wantError(t, err, ErrDump, "SIGKILL")
}

func TestServerThatStopsInMidDump(t *testing.T) {
	pg := testenv.NewPostgres(t, testenv.PostgresOptions{})
	clearPGEnv(t)
	_, c := bigDatabase(t, pg)
	d, err := StartDump(t.Context(), c, realTools(t), DumpOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := io.ReadFull(d, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	pg.StopImmediate(t)
	_, err = io.ReadAll(d)
	wantError(t, err, ErrDump, "pg_dump: ", "exit code 1")
}

// TestNoSecretInTheProcessTable: neither arguments nor environment of pg_dump hold the password.
func TestNoSecretInTheProcessTable(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	_, c := bigDatabase(t, pg)
	t.Setenv("PGSTOW_DB", "postgres://u:"+pg.Password+"@h/d")
	d, err := StartDump(t.Context(), c, realTools(t), DumpOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := io.ReadFull(d, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"cmdline", "environ"} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", d.proc.cmd.Process.Pid, file))
		if err != nil {
			t.Fatal(err)
		}
		if len(data) == 0 || strings.Contains(string(data), pg.Password) {
			t.Errorf("%s holds the password, or nothing: %d bytes", file, len(data))
		}
	}
}

func TestDumpOfTheExportedSnapshot(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	db := pg.CreateDatabase(t)
	pg.Exec(t, db, "CREATE TABLE t AS SELECT 'before' AS word")
	c := mustParse(t, pg.URL(db))
	src, err := InspectSource(t.Context(), c, SourceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Release(context.Background())
	pg.Exec(t, db, "UPDATE t SET word = 'after'")
	d, err := StartDump(t.Context(), src.Conn(), realTools(t), DumpOptions{Snapshot: src.Snapshot})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	archive, err := io.ReadAll(d)
	if err != nil {
		t.Fatal(err)
	}
	copyDB := pg.CreateDatabase(t)
	if _, err := Restore(t.Context(), mustParse(t, pg.URL(copyDB)), realTools(t), strings.NewReader(string(archive)), RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := queryString(t, pg, copyDB, "SELECT word FROM t"); got != "before" {
		t.Errorf("the dump holds %q, the snapshot was taken before", got)
	}
}

// A parameter that the program's libpq does not know is named, not "line 4".
func TestUnknownParameterIsNamed(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	tools := realTools(t)
	if tools.Major >= 18 {
		t.Fatal("choose a newer parameter for this test")
	}
	c := mustParse(t, pg.URL("postgres")).with("sslkeylogfile", "/dev/null")
	d, err := StartDump(t.Context(), c, tools, DumpOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	_, err = io.ReadAll(d)
	wantError(t, err, ErrDump, "does not know the connection parameter sslkeylogfile")
}

// TestKilledParent: a SIGKILL of ours leaves no pg_dump, no server process and no file.
func TestKilledParent(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	db, _ := bigDatabase(t, pg)
	tmp := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), playEnv+"=parent", "DUMPER_TEST_DB="+pg.URL(db)+"&application_name=pgstow-test", "TMPDIR="+tmp)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var child int
	if _, err := fmt.Fscan(out, &child); err != nil {
		t.Fatal(err)
	}
	if gone(child) || backends(t, pg, db) != 1 {
		t.Fatal("pg_dump does not run")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	eventually(t, "pg_dump is gone", func() bool { return gone(child) })
	eventually(t, "the server process is gone", func() bool { return backends(t, pg, db) == 0 })
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
