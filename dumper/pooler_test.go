package dumper

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgstow/pgstow/internal/testenv"
)

func TestPoolerByName(t *testing.T) {
	clearPGEnv(t)
	for in, says := range map[string]string{
		"postgres://u@ep-cool-name-123456-pooler.us-east-2.aws.neon.tech/d":               "use the direct host ep-cool-name-123456.us-east-2.aws.neon.tech",
		"postgres://u@h,ep-x-pooler.eu-central-1.aws.neon.tech/d":                         "ep-x.eu-central-1.aws.neon.tech",
		"postgres://u@db-pooler.example.com/d":                                            "direct host",
		"postgres://postgres.abcdef@aws-0-eu-central-1.pooler.supabase.com:6543/postgres": "session port 5432, or the direct host db.abcdef.supabase.co",
		"postgres://postgres@db.abcdef.supabase.co:6543/postgres":                         "direct port 5432",
	} {
		c := mustParse(t, in)
		// Nothing is dialled: these hosts would not answer.
		_, err := InspectSource(t.Context(), c, SourceOptions{})
		wantError(t, err, ErrPooler, says, "--allow-pooler")
		_, _, err = connectTarget(t.Context(), c, RestoreOptions{})
		wantError(t, err, ErrPooler, says)
	}
	for _, in := range []string{
		"postgres://u@ep-cool-name-123456.us-east-2.aws.neon.tech/d", "postgres://postgres.abc@aws-0-x.pooler.supabase.com:5432/postgres",
		"postgres://u@pooler.example.com/d", "host=/run/-pooler.d", "",
	} {
		if err := checkPoolerName(mustParse(t, in)); err != nil {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func inspectAt(t *testing.T, pg *testenv.Cluster, addr, db string, opts SourceOptions) error {
	t.Helper()
	src, err := InspectSource(t.Context(), mustParse(t, pg.URLAt(addr, db)), opts)
	if err == nil {
		err = src.Release(t.Context())
	}
	return err
}

func TestPgBouncer(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	db := pg.CreateDatabase(t)
	for _, tt := range []struct {
		name    string
		mode    testenv.PoolMode
		load    bool
		refused bool
	}{
		{"transaction mode, idle", testenv.PoolTransaction, false, true},
		{"transaction mode, busy", testenv.PoolTransaction, true, true},
		{"session mode, idle", testenv.PoolSession, false, false},
		{"session mode, busy", testenv.PoolSession, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr := testenv.PgBouncer(t, pg, tt.mode)
			if tt.load {
				load(t, pg.URLAt(addr, db))
			}
			err := inspectAt(t, pg, addr, db, SourceOptions{})
			if !tt.refused {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantError(t, err, ErrPooler, "--allow-pooler")
			if err := inspectAt(t, pg, addr, db, SourceOptions{AllowPooler: true}); err != nil {
				t.Errorf("--allow-pooler: %v", err)
			}
			head := headOf(t, dumpAll(t, mustParse(t, pg.URL(db))))
			_, err = InspectTarget(t.Context(), mustParse(t, pg.URLAt(addr, db)), head, RestoreOptions{})
			wantError(t, err, ErrPooler)
		})
	}
}

// load keeps four sessions busy until the test ends.
func load(t *testing.T, url string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var ready sync.WaitGroup
	for range 4 {
		wg.Add(1)
		ready.Add(1)
		go func() {
			defer wg.Done()
			cfg, err := pgx.ParseConfig(url)
			if err != nil {
				panic(err)
			}
			cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
			conn, err := pgx.ConnectConfig(ctx, cfg)
			ready.Done()
			if err != nil {
				t.Errorf("load: %v", err)
				return
			}
			defer conn.Close(context.WithoutCancel(ctx))
			for ctx.Err() == nil {
				_, _ = conn.Exec(ctx, "SELECT pg_sleep(0.001)")
			}
		}()
	}
	ready.Wait()
	t.Cleanup(func() { cancel(); wg.Wait() })
}

// rekeyingProxy is a proxy like Neon's: the key in BackendKeyData is its own.
func rekeyingProxy(t *testing.T, target string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				server, err := net.Dial("tcp", target)
				if err != nil {
					return
				}
				defer server.Close()
				go func() { _, _ = io.Copy(server, client); _ = server.(*net.TCPConn).CloseWrite() }()
				_ = rekey(client, server)
			}()
		}
	}()
	return l.Addr().String()
}

// rekey forwards the server's messages, BackendKeyData ('K') with another process id.
func rekey(client io.Writer, server io.Reader) error {
	for {
		header := make([]byte, 5)
		if _, err := io.ReadFull(server, header[:1]); err != nil {
			return err
		}
		if _, err := io.ReadFull(server, header[1:]); err != nil {
			return err
		}
		body := make([]byte, binary.BigEndian.Uint32(header[1:])-4)
		if _, err := io.ReadFull(server, body); err != nil {
			return err
		}
		if header[0] == 'K' {
			binary.BigEndian.PutUint32(body, 1099568136)
		}
		if _, err := client.Write(append(header, body...)); err != nil {
			return err
		}
	}
}

func TestProxyWithItsOwnBackendKeys(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	db := pg.CreateDatabase(t)
	addr := rekeyingProxy(t, pg.Addr())
	// The one-byte answer to SSLRequest is no message.
	c := mustParse(t, pg.URLAt(addr, db)).with("sslmode", "disable")
	var log strings.Builder
	src, err := InspectSource(t.Context(), c, SourceOptions{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Release(context.Background())
	if !strings.Contains(log.String(), "proxy stands in between") {
		t.Errorf("no hint in the log: %s", log.String())
	}
}

// sleepingServer refuses connections until it is woken.
func sleepingServer(t *testing.T, target string) (addr string, wake func()) {
	t.Helper()
	port := testenv.FreePort(t)
	addr = fmt.Sprintf("127.0.0.1:%d", port)
	return addr, func() {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				client, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer client.Close()
					server, err := net.Dial("tcp", target)
					if err != nil {
						return
					}
					defer server.Close()
					go func() { _, _ = io.Copy(server, client); _ = server.(*net.TCPConn).CloseWrite() }()
					_, _ = io.Copy(client, server)
				}()
			}
		}()
	}
}

// signalHandler calls f at the first record.
type signalHandler struct {
	slog.Handler
	once *sync.Once
	f    func()
}

func (h signalHandler) Handle(ctx context.Context, r slog.Record) error {
	h.once.Do(h.f)
	return h.Handler.Handle(ctx, r)
}

func TestSleepingDatabase(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	db := pg.CreateDatabase(t)
	addr, wake := sleepingServer(t, pg.Addr())
	var log strings.Builder
	// Woken by the first "waiting": so it was refused at least once.
	h := signalHandler{slog.NewTextHandler(&log, nil), new(sync.Once), wake}
	if err := inspectAt(t, pg, addr, db, SourceOptions{Log: slog.New(h)}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "connection refused") {
		t.Errorf("the log does not say why it waited: %s", log.String())
	}
}

func TestServerThatStartsUp(t *testing.T) {
	clearPGEnv(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // says 57P03 to everybody, as PostgreSQL does while it recovers
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 1024))
			fields := "SFATAL\x00VFATAL\x00C57P03\x00Mthe database system is starting up\x00\x00"
			msg := append([]byte{'E'}, binary.BigEndian.AppendUint32(nil, uint32(len(fields)+4))...)
			_, _ = conn.Write(append(msg, fields...))
			_ = conn.Close()
		}
	}()
	_, err = InspectSource(t.Context(), mustParse(t, "postgres://u@"+l.Addr().String()+"/d?sslmode=disable"), SourceOptions{Wait: time.Second})
	wantError(t, err, ErrConnect, "starting up", "tried for")
}

// What is wrong for good is said at once: the budget of a minute is not touched.
func TestConnectFailsAtOnce(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	for name, tt := range map[string]struct {
		url  string
		says []string
	}{
		"wrong password": {strings.Replace(pg.URL("postgres"), pg.Password, "wr0ng-pw", 1), []string{"password authentication failed", "PGPASSWORD"}},
		"unknown host":   {"postgres://u:wr0ng-pw@no-such-host.invalid/d", []string{"unknown host no-such-host.invalid"}},
		"no database":    {pg.URL("no_such_db"), []string{`database "no_such_db" does not exist`}},
		"no socket":      {"postgres://u:wr0ng-pw@%2Fnonexistent/d", []string{"no such socket"}},
	} {
		var log strings.Builder
		_, err := InspectSource(t.Context(), mustParse(t, tt.url), SourceOptions{Log: slog.New(slog.NewTextHandler(&log, nil))})
		wantError(t, err, ErrConnect, tt.says...)
		if log.Len() > 0 {
			t.Errorf("%s: it waited: %s", name, log.String())
		}
		if err != nil && (strings.Contains(err.Error(), "wr0ng-pw") || strings.Contains(err.Error(), pg.Password)) {
			t.Errorf("%s: leaks the password: %v", name, err)
		}
	}
}

func TestSeveralHostsArePinned(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	db := pg.CreateDatabase(t)
	dead := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	url := strings.Replace(pg.URL(db), "@"+pg.Addr(), "@"+dead+","+strings.Replace(pg.Addr(), "127.0.0.1", "localhost", 1), 1)
	src, err := InspectSource(t.Context(), mustParse(t, url), SourceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Release(context.Background())
	p := src.Conn()
	if p.params["host"] != "localhost" || p.params["hostaddr"] != "127.0.0.1" || p.params["port"] != fmt.Sprint(pg.Port) {
		t.Errorf("pinned to host %q, hostaddr %q, port %q", p.params["host"], p.params["hostaddr"], p.params["port"])
	}
	dumpAll(t, p, "--schema-only")
}
