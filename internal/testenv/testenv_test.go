package testenv_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/jackc/pgx/v5"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/internal/testenv/server"
)

func TestMain(m *testing.M) {
	if os.Getenv("TESTENV_ORPHAN") != "" {
		orphan()
	}
	testenv.Main(m)
}

func TestPostgres(t *testing.T) {
	pg := testenv.Postgres(t)
	db := pg.CreateDatabase(t)
	pg.Exec(t, db, "CREATE TABLE a (x int); INSERT INTO a SELECT generate_series(1, 10)")
	var n int
	if err := pg.Connect(t, db).QueryRow(t.Context(), "SELECT count(*) FROM a").Scan(&n); err != nil || n != 10 {
		t.Fatalf("count = %d, %v", n, err)
	}
	if again := testenv.Postgres(t); again.Port != pg.Port {
		t.Errorf("a second cluster on port %d", again.Port)
	}
	t.Run("password", func(t *testing.T) {
		url := strings.Replace(pg.URL(db), pg.Password, "wrong", 1)
		conn, err := pgx.Connect(t.Context(), url)
		if err == nil {
			_ = conn.Close(t.Context())
			t.Fatal("signed in with a wrong password")
		}
		if !strings.Contains(err.Error(), "28P01") {
			t.Errorf("error = %v, want 28P01", err)
		}
	})
}

func TestPostgresPrivate(t *testing.T) {
	pg := testenv.NewPostgres(t, testenv.PostgresOptions{Config: map[string]string{"max_connections": "17"}})
	port := pg.Port
	db := pg.CreateDatabase(t)
	pg.Exec(t, db, "CREATE TABLE a AS SELECT current_setting('max_connections')::int AS n")
	pg.StopImmediate(t)
	if err := pg.Postgres.Exec(t.Context(), db, "SELECT 1"); err == nil {
		t.Fatal("a stopped cluster answers")
	}
	pg.Start(t)
	pg.Restart(t)
	if pg.Port != port {
		t.Errorf("port %d after a restart, %d before", pg.Port, port)
	}
	var n int
	if err := pg.Connect(t, db).QueryRow(t.Context(), "SELECT n FROM a").Scan(&n); err != nil || n != 17 {
		t.Fatalf("max_connections = %d, %v", n, err)
	}
}

func TestS3(t *testing.T) {
	starts := map[string]func(testing.TB, testenv.S3Options) *testenv.S3{
		"versitygw": testenv.NewVersityGW, "minio": testenv.NewMinIO,
	}
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			s := start(t, testenv.S3Options{})
			bucket := s.NewBucket(t, testenv.BucketOptions{ObjectLock: true})
			put := &s3.PutObjectInput{Bucket: aws.String(bucket), Key: aws.String("a/b"), Body: strings.NewReader("x")}
			if _, err := s.Client().PutObject(t.Context(), put); err != nil {
				t.Fatal(err)
			}
			lock, err := s.Client().GetObjectLockConfiguration(t.Context(),
				&s3.GetObjectLockConfigurationInput{Bucket: aws.String(bucket)})
			if err != nil || lock.ObjectLockConfiguration.ObjectLockEnabled != "Enabled" {
				t.Errorf("object lock: %+v, %v", lock, err)
			}
			endpoint := s.Endpoint
			s.Kill(t)
			get := &s3.GetObjectInput{Bucket: aws.String(bucket), Key: aws.String("a/b")}
			if _, err := s.Client().GetObject(t.Context(), get); err == nil {
				t.Fatal("a killed server answers")
			}
			s.Start(t)
			if s.Endpoint != endpoint {
				t.Errorf("endpoint %s after a restart, %s before", s.Endpoint, endpoint)
			}
			out, err := s.Client().GetObject(t.Context(), get)
			if err != nil {
				t.Fatal(err)
			}
			defer out.Body.Close()
			if data, err := io.ReadAll(out.Body); err != nil || string(data) != "x" {
				t.Errorf("read %q, %v", data, err)
			}
		})
	}
}

func TestS3Shared(t *testing.T) {
	for _, s := range []*testenv.S3{testenv.VersityGW(t), testenv.MinIO(t)} {
		a, b := s.NewBucket(t, testenv.BucketOptions{Versioning: true}), s.NewBucket(t, testenv.BucketOptions{})
		for bucket, want := range map[string]string{a: "Enabled", b: ""} {
			out, err := s.Client().GetBucketVersioning(t.Context(), &s3.GetBucketVersioningInput{Bucket: aws.String(bucket)})
			if err != nil || string(out.Status) != want {
				t.Errorf("%s: versioning of %s = %v, %v, want %q", s.Name, bucket, out, err, want)
			}
		}
		if url := s.BucketURL(a, "p/"); !strings.HasPrefix(url, "s3://"+a+"/p/?endpoint=http%3A%2F%2F127.0.0.1%3A") {
			t.Errorf("bucket URL %s", url)
		}
	}
}

func TestFakeGCS(t *testing.T) {
	g := testenv.FakeGCS(t)
	if a, b := g.NewBucket(t, false), g.NewBucket(t, true); a == b {
		t.Errorf("the same bucket twice: %s", a)
	}
}

func TestToxiproxy(t *testing.T) {
	pg := testenv.Postgres(t)
	proxy := testenv.Toxiproxy(t, pg.Addr())
	connect := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		conn, err := pgx.Connect(ctx, pg.URLAt(proxy.Addr, "postgres"))
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	}
	if err := connect(); err != nil {
		t.Fatal(err)
	}
	proxy.Disable(t)
	if err := connect(); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("disabled: %v, want connection refused", err)
	}
	proxy.Enable(t)
	if err := connect(); err != nil {
		t.Errorf("enabled again: %v", err)
	}
	proxy.Add(t, testenv.Toxic{Name: "cut", Type: "limit_data", Attributes: map[string]any{"bytes": 10}})
	if err := connect(); err == nil {
		t.Error("connected although the proxy cuts after 10 bytes")
	}
	proxy.Remove(t, "cut")
	if err := connect(); err != nil {
		t.Errorf("fault removed: %v", err)
	}
}

func TestPgBouncer(t *testing.T) {
	pg := testenv.Postgres(t)
	for mode, sameBackend := range map[testenv.PoolMode]bool{testenv.PoolSession: false, testenv.PoolTransaction: true} {
		url := pg.URLAt(testenv.PgBouncer(t, pg, mode), "postgres")
		var pids [2]int
		for i := range pids {
			conn, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.Background())
			// Not closed before the other has asked: only a pooler in
			// transaction mode gives both the same backend.
			err = conn.QueryRow(t.Context(), "SELECT pg_backend_pid()", pgx.QueryExecModeSimpleProtocol).Scan(&pids[i])
			if err != nil {
				t.Fatal(err)
			}
		}
		if (pids[0] == pids[1]) != sameBackend {
			t.Errorf("%s mode: backends %v", mode, pids)
		}
	}
}

func TestTool(t *testing.T) {
	for _, name := range []string{"pg_dump", "pg_restore", "versitygw", "aws", "rclone", "age", "ssh-keygen", "mc"} {
		if out, err := exec.Command("test", "-x", testenv.Tool(t, name)).CombinedOutput(); err != nil {
			t.Errorf("%s is not executable: %v %s", name, err, out)
		}
	}
}

// TestNothingIsLeft kills a process that has servers, and one that forgets to
// stop them; both leave neither a process nor a directory.
func TestNothingIsLeft(t *testing.T) {
	for _, how := range []string{"killed", "forgetful"} {
		t.Run(how, func(t *testing.T) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "TESTENV_ORPHAN="+how)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var dir string
			ports := make([]int, 2)
			_, err = fmt.Fscanln(bufio.NewReader(out), &dir, &ports[0], &ports[1])
			if err != nil {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				t.Fatalf("%v\n%s", err, stderr.String())
			}
			if how == "killed" {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			_ = cmd.Wait() // killed, or code 0
			eventually(t, "the directory "+dir+" is removed", func() bool {
				_, err := os.Stat(dir)
				return errors.Is(err, fs.ErrNotExist)
			})
			for _, port := range ports {
				eventually(t, fmt.Sprintf("port %d is closed", port), func() bool {
					conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
					if err == nil {
						_ = conn.Close()
					}
					return err != nil
				})
			}
			eventually(t, "no process mentions "+dir, func() bool { return len(mentioning(t, dir)) == 0 })
		})
	}
}

// orphan starts servers, says where, and ends without stopping them.
func orphan() {
	h, err := server.Open()
	if err != nil {
		panic(err)
	}
	pg, err := h.StartPostgres(context.Background(), server.PostgresOptions{})
	if err != nil {
		panic(err)
	}
	gw, err := h.StartVersityGW(context.Background(), server.S3Options{})
	if err != nil {
		panic(err)
	}
	fmt.Println(h.Dir(), pg.Port, strings.TrimPrefix(gw.Addr(), "127.0.0.1:"))
	if os.Getenv("TESTENV_ORPHAN") == "killed" {
		select {}
	}
	os.Exit(0)
}

// mentioning lists the processes whose command line holds text.
func mentioning(t *testing.T, text string) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, e := range entries {
		if cmdline, err := os.ReadFile("/proc/" + e.Name() + "/cmdline"); err == nil && bytes.Contains(cmdline, []byte(text)) {
			found = append(found, e.Name())
		}
	}
	return found
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}
