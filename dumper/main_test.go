package dumper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgstow/pgstow/dumper/pgarchive"
	"github.com/pgstow/pgstow/internal/testenv"
)

// playEnv makes this test binary play a client program.
const playEnv = "DUMPER_TEST_PLAY"

func TestMain(m *testing.M) {
	if scene := os.Getenv(playEnv); scene != "" {
		play(scene)
		return
	}
	testenv.Main(m)
}

// play is a client program that does what the real ones do only in trouble.
func play(scene string) {
	name := filepath.Base(os.Args[0])
	say := func(format string, args ...any) { fmt.Fprintf(os.Stderr, name+": "+format+"\n", args...) }
	switch scene {
	case "exit0":
		fmt.Print("archive")
	case "exit1":
		fmt.Print("archive")
		say("error: connection to server was lost")
		say("detail: it went away")
		os.Exit(1)
	case "sigkill":
		fmt.Print("archive")
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "closes stdout":
		fmt.Print("arch")
		_ = os.Stdout.Close()
	case "closes stdout, fails":
		fmt.Print("arch")
		_ = os.Stdout.Close()
		say("error: could not write")
		os.Exit(1)
	case "flood":
		line := strings.Repeat("x", 1000)
		for range 5000 {
			say("warning: %s", line)
		}
		say("error: the decisive line")
		os.Exit(1)
	case "one endless line":
		_, _ = os.Stderr.Write(bytes.Repeat([]byte("y"), 4<<20))
		os.Exit(3)
	case "ignores SIGTERM":
		signal.Ignore(syscall.SIGTERM)
		fmt.Print("ready")
		time.Sleep(time.Hour)
	case "parent":
		playParent()
	case "grandchild":
		playGrandchild(false)
	case "grandchild in its own session":
		playGrandchild(true)
	case "early death":
		_, _ = io.CopyN(io.Discard, os.Stdin, 1000)
		say(`error: could not execute query: ERROR:  disk full`)
		say(`warning: errors ignored on restore: 1`)
		os.Exit(1)
	case "takes little":
		_, _ = io.CopyN(io.Discard, os.Stdin, 1000)
	case "reads all":
		_, _ = io.Copy(io.Discard, os.Stdin)
	case "old server", "old server, other error", "old server, dies", "old server, all errors":
		playOldServer(scene, say)
	default:
		fmt.Fprintln(os.Stderr, "no such scene:", scene)
		os.Exit(99)
	}
}

// playParent runs a real pg_dump until it is killed, and says its process id.
func playParent() {
	c, err := ParseConn(os.Getenv("DUMPER_TEST_DB"))
	if err != nil {
		panic(err)
	}
	found, err := FindTools(context.Background(), "")
	if err != nil {
		panic(err)
	}
	d, err := StartDump(context.Background(), c, found[len(found)-1], DumpOptions{})
	if err != nil {
		panic(err)
	}
	if _, err := io.ReadFull(d, make([]byte, 1<<20)); err != nil {
		panic(err)
	}
	fmt.Println(d.proc.cmd.Process.Pid)
	select {}
}

// playGrandchild leaves a process behind that holds stdout and stderr open.
func playGrandchild(escape bool) {
	cmd := exec.Command("sleep", "3600")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if escape {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	}
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	fmt.Print(cmd.Process.Pid, "\n")
}

// playOldServer says what pg_restore 17 says to a server that does not know transaction_timeout.
func playOldServer(scene string, say func(string, ...any)) {
	for _, arg := range os.Args[1:] {
		if arg == "-e" || arg == "--exit-on-error" {
			say("error: could not execute query: ERROR:  unrecognized configuration parameter \"transaction_timeout\"")
			os.Exit(1)
		}
	}
	say("while INITIALIZING:")
	say("error: could not execute query: ERROR:  unrecognized configuration parameter \"transaction_timeout\"\nCommand was: SET transaction_timeout = 0;\n")
	ignored := 1
	switch scene {
	case "old server, dies":
		say("error: could not read from input file: end of file")
		os.Exit(1)
	case "old server, other error":
		say("while PROCESSING TOC:")
		say("from TOC entry 216; 1259 16394 TABLE t postgres")
		say("error: could not execute query: ERROR:  relation \"t\" already exists\nCommand was: CREATE TABLE public.t (\n    a integer\n);\n\n")
		time.Sleep(time.Hour) // the next statement: only being stopped ends it
	case "old server, all errors":
		say("from TOC entry 216; 1259 16394 TABLE t postgres")
		say("error: could not execute query: ERROR:  relation \"t\" already exists\nCommand was: CREATE TABLE public.t (\n    a integer\n);\n\n")
		ignored++
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	say("warning: errors ignored on restore: %d", ignored)
	os.Exit(1)
}

// playing is a set of programs that play a scene.
func playing(t *testing.T, scene string, major int) Tools {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"pg_dump", "pg_restore", "pg_dumpall"} {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv(playEnv, scene)
	return Tools{Dir: dir, Major: major, Version: fmt.Sprintf("%d.0", major)}
}

// realTools are the installed client programs.
func realTools(t *testing.T) Tools {
	t.Helper()
	found, err := FindTools(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	tools, err := ChooseTools(found, 15)
	if err != nil {
		t.Fatal(err)
	}
	return tools
}

func mustParse(t *testing.T, s string) Conn {
	t.Helper()
	c, err := ParseConn(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// dumpAll is a whole archive of a database.
func dumpAll(t *testing.T, c Conn, args ...string) []byte {
	t.Helper()
	d, err := StartDump(t.Context(), c, realTools(t), DumpOptions{Args: args})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	data, err := io.ReadAll(d)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func headOf(t *testing.T, archive []byte) *pgarchive.Head {
	t.Helper()
	head, err := pgarchive.ParseHead(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	return head
}

func queryString(t *testing.T, pg *testenv.Cluster, db, sql string) string {
	t.Helper()
	var s string
	if err := pg.Connect(t, db).QueryRow(t.Context(), sql).Scan(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

// eventually waits for a condition of another process; the test's own deadline bounds it.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never came true: " + what)
		}
	}
}

func wantError(t *testing.T, err error, kind error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one that is %q", kind)
	}
	if !errors.Is(err, kind) {
		t.Errorf("error %q is not %q", err, kind)
	}
	if strings.ContainsAny(err.Error(), "\r\n") {
		t.Errorf("error of more than one line: %q", err)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q does not say %q", err, p)
		}
	}
}
