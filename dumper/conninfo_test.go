package dumper

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgstow/pgstow/internal/testenv"
)

// clearPGEnv takes the developer's own libpq settings away.
func clearPGEnv(t *testing.T) {
	t.Helper()
	for _, kv := range os.Environ() {
		if k, _, _ := strings.Cut(kv, "="); strings.HasPrefix(k, "PG") {
			t.Setenv(k, "")
			os.Unsetenv(k)
		}
	}
}

func TestParseConn(t *testing.T) {
	clearPGEnv(t)
	for _, tt := range []struct {
		in   string
		want map[string]string
	}{
		{"", map[string]string{}},
		{"orders", map[string]string{"dbname": "orders"}},
		{"postgres://u:p@h:5433/d", map[string]string{"user": "u", "password": "p", "host": "h", "port": "5433", "dbname": "d"}},
		{"postgresql://u@/d\n", map[string]string{"user": "u", "dbname": "d"}},
		{"postgres://u:p%20%22%27%5C%40%3A%2F%3F%23%25%26%3D%24%60%C3%A4@h/d", map[string]string{"user": "u", "password": "p \"'\\@:/?#%&=$`ä", "host": "h", "dbname": "d"}},
		{"postgres://u:p?q#r&s=t@h/d", map[string]string{"user": "u", "password": "p?q#r&s=t", "host": "h", "dbname": "d"}},
		{"postgres://h1:1,h2:2,[::1]:3/d?target_session_attrs=read-write&load_balance_hosts=random", map[string]string{"host": "h1,h2,::1", "port": "1,2,3", "dbname": "d", "target_session_attrs": "read-write", "load_balance_hosts": "random"}},
		{"postgres://u:p%40ss@%40abstract/d%40b?options=a@b", map[string]string{"user": "u", "password": "p@ss", "host": "@abstract", "dbname": "d@b", "options": "a@b"}},
		{"postgres://%2Fvar%2Frun%2Fpg/d", map[string]string{"host": "/var/run/pg", "dbname": "d"}},
		{"postgres://u@ep-x.neon.tech/d?sslmode=require&channel_binding=require&options=endpoint%3Dep-x", map[string]string{"user": "u", "host": "ep-x.neon.tech", "dbname": "d", "sslmode": "require", "channel_binding": "require", "options": "endpoint=ep-x"}},
		{"postgres://h/d?ssl=true&sslrootcert=system", map[string]string{"host": "h", "dbname": "d", "sslmode": "require", "sslrootcert": "system"}},
		{`host=h user = 'u u' password='a\'b\\c' dbname=d`, map[string]string{"host": "h", "user": "u u", "password": `a'b\c`, "dbname": "d"}},
		{`password=a\ b\'c`, map[string]string{"password": "a b'c"}},
		{`password=x\ `, map[string]string{"password": "x "}},
		{"hostaddr=127.0.0.1 gssencmode=disable keepalives_idle=5 tcp_user_timeout=100", map[string]string{"hostaddr": "127.0.0.1", "gssencmode": "disable", "keepalives_idle": "5", "tcp_user_timeout": "100"}},
	} {
		c, err := ParseConn(tt.in)
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
		} else if !maps.Equal(c.params, tt.want) {
			t.Errorf("%s:\n got %v\nwant %v", tt.in, c.params, tt.want)
		}
	}
}

func TestParseConnRefuses(t *testing.T) {
	clearPGEnv(t)
	const secret = "S3cr3t"
	for in, says := range map[string]string{
		"postgres://u:" + secret + "/x@h/d":            "percent-encode",
		"postgres://u:p@" + secret + "@h/d":            `"@"`,
		"postgres://u:p@" + secret + "/x@h/d":          "percent-encode : / ? # @",
		"postgres://u:5432/" + secret + "@h/d":         "%40",
		"postgres://u:p@h1,u:" + secret + "@h2/d":      "percent-encode",
		"postgres://u:" + secret + "%zz@h/d":           "hex digits",
		"postgres://u:" + secret + "@h:99999/d":        "port",
		"postgres://u:" + secret + "@[::1/d":           "IPv6",
		"postgres://u:p@h/d?" + secret + "=1":          "unknown parameter",
		"postgres://u:p@h/d?ssmode=" + secret:          "did you mean sslmode",
		"postgres://u:p@h/d?pgbouncer=true":            "pgbouncer is not one of libpq's",
		"postgres://u:p@h/d?password" + secret:         `lacks "="`,
		"password=my " + secret + " word host=h":       `without "="`,
		"password='" + secret + " host=h":              "does not end",
		"host=h password=a " + secret + "=b":           "unknown parameter",
		"mysql://u:" + secret + "@h/d":                 "neither a URI",
		"host=a,b port=1,2,3 password=" + secret:       "3 ports for 2 hosts",
		"host=a,b hostaddr=127.0.0.1 user=" + secret:   "hostaddr",
		"hostaddr=" + secret:                           "not an IP address",
		"service=" + "nosuch" + " password=" + secret:  `service "nosuch"`,
		"host=h replication=true password=" + secret:   "replication",
		"postgres://u:" + secret + "%00@h/d":           "%00",
		"host=h requiressl=1 password=" + secret:       "obsolete",
		"postgres://u:" + secret + "@h/d?ssl=false":    "sslmode",
		"host=h sslmode=perhaps password=" + secret:    "",
		"host=h connect_timeout=x password=" + secret:  "",
		"host=h keepalives_idle=x password=" + secret:  "keepalives_idle",
		"host=h sslrootcert=/nope password=" + secret:  "/nope",
		"host=h require_auth=magic password=" + secret: "",
	} {
		c, err := ParseConn(in)
		if err == nil {
			_, err = c.pgxConfig() // values are pgx's to judge
		}
		wantError(t, err, ErrConnInfo, says)
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error gives the password away: %v", in, err)
		}
	}
}

func FuzzParseConn(f *testing.F) {
	for _, s := range []string{"postgres://u:%s@h/d", "password=%s host=h", "password='%s' host=h", "postgres://h/d?password=%s"} {
		f.Add(s, "p@:/?# %=&'\"\\x")
	}
	f.Fuzz(func(t *testing.T, form, noise string) {
		const secret = "Zx9Kq7Wv"
		in := strings.Replace(form, "%s", noise+secret+noise, 1)
		c, err := ParseConn(in)
		text := fmt.Sprint(err)
		if err == nil {
			if c.params["password"] == "" || strings.Contains(c.User()+c.Database()+strings.Join(c.list("host"), ","), secret) {
				return // it was not the password
			}
			text = fmt.Sprintf("%v %+v %#v %s %q", c, c, c, c, c)
		}
		if strings.Contains(text, secret) {
			t.Errorf("%q leaks: %s", in, text)
		}
	})
}

func TestConnPrintsWithoutSecrets(t *testing.T) {
	clearPGEnv(t)
	c := mustParse(t, "postgres://u:S3cr3t@h:5433/d?sslpassword=S3cr3t&options=-c%20a%3DS3cr3t")
	var log strings.Builder
	l := slog.New(slog.NewTextHandler(&log, nil))
	l.Info("x", "conn", c, "ptr", &c, "opts", struct{ C Conn }{c})
	out := fmt.Sprintf("%v %+v %#v %s %q %v", c, c, c, c, c, struct{ C Conn }{c}) + log.String()
	if strings.Contains(out, "S3cr3t") {
		t.Errorf("leaks: %s", out)
	}
	if got := c.String(); got != "postgres://u@h:5433/d" {
		t.Errorf("String() = %s", got)
	}
	if !c.PasswordTyped() {
		t.Error("the password was typed")
	}
}

func TestConnDefaults(t *testing.T) {
	clearPGEnv(t)
	t.Setenv("PGHOST", "envhost")
	t.Setenv("PGUSER", "envuser")
	t.Setenv("PGPORT", "7777")
	c := mustParse(t, "user=me")
	if c.Host() != "envhost" || c.User() != "me" || c.Database() != "me" || c.PasswordTyped() {
		t.Errorf("host %q, user %q, database %q, typed %v", c.Host(), c.User(), c.Database(), c.PasswordTyped())
	}
	if got := c.String(); got != "postgres://me@envhost:7777/me" {
		t.Errorf("String() = %s", got)
	}
	if d := c.WithDatabase("other"); d.Database() != "other" || c.Database() != "me" {
		t.Error("WithDatabase must change its copy alone")
	}
	if h := (Conn{params: map[string]string{"host": "/run/pg"}}).Host(); h != "" {
		t.Errorf("host of a socket is %q", h)
	}
}

func TestService(t *testing.T) {
	clearPGEnv(t)
	file := filepath.Join(t.TempDir(), "services")
	err := os.WriteFile(file, []byte("# comment\n[other]\nhost=wrong\n\n[mine]\nhost=svc\nport=1\nport=2\npassword=a = b\ndbname=x\n[mine]\nuser=late\n"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PGSERVICEFILE", file)
	want := map[string]string{"host": "svc", "port": "1", "password": "a = b", "dbname": "mydb"}
	if c := mustParse(t, "service=mine dbname=mydb"); !maps.Equal(c.params, want) || c.PasswordTyped() {
		t.Errorf("got %v, typed %v", c.params, c.PasswordTyped())
	}
	t.Setenv("PGSERVICE", "mine")
	if c := mustParse(t, "postgres:///mydb"); !maps.Equal(c.params, want) {
		t.Errorf("got %v", c.params)
	}
	if err := os.WriteFile(file, []byte("[mine]\nldap://dir\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = ParseConn("")
	wantError(t, err, ErrConnInfo, "line 2")
}

func TestPgxConfig(t *testing.T) {
	clearPGEnv(t)
	c := mustParse(t, "postgres://u:p@h1,h2/d?gssencmode=disable&keepalives=1&keepalives_idle=7&hostaddr=10.0.0.1,10.0.0.2"+
		"&load_balance_hosts=disable&fallback_application_name=fall&tcp_user_timeout=9&sslcrl=x&requirepeer=y&options=endpoint%3Dep&client_encoding=LATIN1&oauth_scope=z")
	cfg, err := c.pgxConfig()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"application_name": "fall", "client_encoding": "UTF8", "options": "endpoint=ep"}
	if !maps.Equal(cfg.RuntimeParams, want) {
		t.Errorf("sent to the server: %v, want %v", cfg.RuntimeParams, want)
	}
	addrs, err := c.lookup(t.Context(), "h2")
	if err != nil || len(addrs) != 1 || addrs[0] != "10.0.0.2" {
		t.Errorf("hostaddr is not dialled: %v, %v", addrs, err)
	}
}

// A libpq of another machine must accept what we hand it: psql stands for pg_dump here.
func TestChildConnSeesEveryParameter(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	db := pg.CreateDatabase(t)
	base := pg.URL(db)
	for _, tt := range []struct{ suffix, sql, want string }{
		{"&fallback_application_name=fall", "SHOW application_name", "fall"},
		{"", "SHOW application_name", "pgstow"},
		{"", "SHOW timezone", "UTC"},
		{"&application_name=a%20b'%5C", "SHOW application_name", `a b'\`},
		{"&options=-c%20work_mem%3D77MB%20", "SHOW work_mem", "77MB"}, // ends in a space: no service file holds it
		{"&gssencmode=disable&keepalives=1&keepalives_idle=5&tcp_user_timeout=60000&target_session_attrs=any&channel_binding=prefer&sslmode=prefer", "SELECT 1", "1"},
	} {
		uri := base + tt.suffix
		if !strings.Contains(uri, "?") {
			uri = strings.Replace(uri, "&", "?", 1)
		}
		c := mustParse(t, uri)
		for name, open := range map[string]func() (*os.File, error){
			"memory file":     openMemFile,
			"no memory files": func() (*os.File, error) { return nil, nil },
		} {
			cc, err := buildChildConn(c, os.Environ(), open)
			if err != nil {
				t.Fatal(err)
			}
			defer cc.Close()
			cmd := exec.Command(filepath.Join(realTools(t).Dir, "psql"), "-XAtqw", "-c", tt.sql)
			cmd.Env, cmd.ExtraFiles = cc.env, cc.files
			out, err := cmd.CombinedOutput()
			if got := strings.TrimSpace(string(out)); err != nil || got != tt.want {
				t.Errorf("%s, %s: %s gave %q, %v; want %q", name, tt.suffix, tt.sql, got, err, tt.want)
			}
		}
	}
}

// TestPasswords: every special character, both spellings, both clients.
func TestPasswords(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	db := pg.CreateDatabase(t)
	pg.Exec(t, db, "CREATE TABLE t (a int)")
	pg.Exec(t, "postgres", "DROP ROLE IF EXISTS special; CREATE ROLE special LOGIN IN ROLE pg_read_all_data")
	t.Cleanup(func() { pg.Exec(t, "postgres", "DROP ROLE special") })
	host, port, _ := strings.Cut(pg.Addr(), ":")
	for _, pw := range []string{
		`all'\"@:/?#%&= $` + "`" + `äß漢字;!*()[]{}<>|~^,.+-_`,
		" both ends ", "'", `\`, `"`, "trailing space ", "tab\tinside", "%41", "a=b c=d", "#comment", "[section]", strings.Repeat("long", 100),
	} {
		pg.Exec(t, "postgres", "ALTER ROLE special PASSWORD '"+strings.ReplaceAll(pw, "'", "''")+"'")
		for form, s := range map[string]string{
			"URI":     fmt.Sprintf("postgres://special:%s@%s/%s", percentEncode(pw), pg.Addr(), db),
			"keyword": fmt.Sprintf("host=%s port=%s dbname=%s user=special password='%s'", host, port, db, strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(pw)),
		} {
			c := mustParse(t, s)
			conn, err := c.Connect(t.Context())
			if err != nil {
				t.Errorf("%s, pgx, password %q: %v", form, pw, err)
				continue
			}
			_ = conn.Close(t.Context())
			if data := dumpAll(t, c); !strings.HasPrefix(string(data), "PGDMP") {
				t.Errorf("%s: no archive", form)
			}
			if strings.Contains(c.String(), pw) && len(pw) > 1 {
				t.Errorf("%s: String() shows the password", form)
			}
		}
	}
}

func TestPassfileAndEnvironment(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	db := pg.CreateDatabase(t)
	host, port, _ := strings.Cut(pg.Addr(), ":")
	t.Setenv("PGHOST", host)
	t.Setenv("PGPORT", port)
	t.Setenv("PGUSER", "postgres")
	t.Setenv("PGDATABASE", db)
	passfile := filepath.Join(t.TempDir(), "pass")
	if err := os.WriteFile(passfile, []byte("*:*:*:postgres:"+pg.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PGPASSFILE", passfile)
	for _, s := range []string{"", "dbname=" + db, "postgres:///" + db} {
		c := mustParse(t, s)
		conn, err := c.Connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close(t.Context())
		dumpAll(t, c)
	}
}

// libpq looks each host's password up on its own, and so must the preflight.
func TestPassfilePerHost(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	db := pg.CreateDatabase(t)
	host, port, _ := strings.Cut(pg.Addr(), ":")
	for name, lines := range map[string]string{
		"the second host alone": fmt.Sprintf("%s:%s:*:postgres:%s\n", host, port, pg.Password),
		"one password each":     fmt.Sprintf("%s:1:*:*:other\n%s:%s:*:postgres:%s\n", host, host, port, pg.Password),
	} {
		passfile := filepath.Join(t.TempDir(), "pass")
		if err := os.WriteFile(passfile, []byte(lines), 0o600); err != nil {
			t.Fatal(err)
		}
		c := mustParse(t, fmt.Sprintf("postgres://postgres@%s:1,%s/%s?passfile=%s", host, pg.Addr(), db, percentEncode(passfile)))
		src, err := InspectSource(t.Context(), c, SourceOptions{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := src.Conn().endpoints(); len(got) != 1 || got[0] != (endpoint{host, port}) {
			t.Errorf("%s: pg_dump is sent to %v", name, got)
		}
		dumpAll(t, src.Conn())
		if err := src.Release(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// A server that answers is awake: that it is not of the kind asked for passes with no waiting.
func TestUnfitServerIsNotWaitedFor(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	host, _, _ := strings.Cut(pg.Addr(), ":")
	for attrs, says := range map[string]string{"read-only": "accepts writes", "standby": "is a primary"} {
		for _, hosts := range []string{pg.Addr(), pg.Addr() + "," + host + ":1", host + ":1," + pg.Addr()} {
			c := mustParse(t, fmt.Sprintf("postgres://postgres:%s@%s/postgres?target_session_attrs=%s", pg.Password, hosts, attrs))
			var log strings.Builder
			_, err := c.connectWaiting(t.Context(), time.Hour, slog.New(slog.NewTextHandler(&log, nil)))
			wantError(t, err, ErrConnect, "target_session_attrs="+attrs, says)
			if log.Len() > 0 {
				t.Errorf("%s, %s: waited: %s", hosts, attrs, log.String())
			}
			if err != nil && len(err.Error()) > 250 {
				t.Errorf("a line of %d characters: %v", len(err.Error()), err)
			}
		}
	}
	// A second host that is starting up may yet be what was asked for.
	starting := &pgconn.PgError{Code: "57P03"}
	if err := errors.Join(pgconn.ErrReadWriteConnection, starting); !worthWaiting(err) {
		t.Error("does not wait for a server that is starting up")
	}
}

func TestWaitingIsLoggedOncePerReason(t *testing.T) {
	clearPGEnv(t)
	var log strings.Builder
	c := mustParse(t, "postgres://u:p@127.0.0.1:1/d")
	_, err := c.connectWaiting(t.Context(), 2*time.Second, slog.New(slog.NewTextHandler(&log, nil)))
	wantError(t, err, ErrConnect, "refused", "tried for")
	if n := strings.Count(log.String(), "waiting for the database"); n != 1 {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
	if strings.Contains(log.String(), "cannot connect") {
		t.Errorf("the reason repeats the database: %s", log.String())
	}
}

// CheckConn finds what ParseConn would, but leaves services to who uses them.
func TestCheckConn(t *testing.T) {
	t.Setenv("PGSERVICEFILE", filepath.Join(t.TempDir(), "missing"))
	t.Setenv("PGSYSCONFDIR", t.TempDir())
	for _, s := range []string{"", "orders", "service=nowhere", "service=nowhere port=1,2", "postgres://u@h:5433/d?service=nowhere", "host=h user=u"} {
		if err := CheckConn(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	if _, err := ParseConn("service=nowhere"); !errors.Is(err, ErrConnInfo) {
		t.Errorf("ParseConn finds a service that is nowhere: %v", err)
	}
	for _, s := range []string{"host=h hunter2=1", "postgres://u:hunter2@h:x/d", "host=h,i port=1,2,3", "hunter2 hunter2"} {
		err := CheckConn(s)
		if !errors.Is(err, ErrConnInfo) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", s, err)
		}
	}
}
