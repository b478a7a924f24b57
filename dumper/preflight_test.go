package dumper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgstow/pgstow/dumper/pgarchive"
	"github.com/pgstow/pgstow/internal/testenv"
)

func TestInspectSource(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	db := pg.CreateDatabase(t)
	pg.Exec(t, db, `CREATE TABLE t AS SELECT g, repeat(md5(g::text), 10) AS r FROM generate_series(1, 5000) g; CREATE INDEX ON t (r); SELECT lo_from_bytea(0, 'x')`)
	src, err := InspectSource(t.Context(), mustParse(t, pg.URL(db)), SourceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Release(context.Background())
	if src.Database != db || src.Encoding != "UTF8" || src.InRecovery || src.Snapshot == "" || src.SystemIdentifier == "" ||
		!strings.HasPrefix(src.ServerVersion, fmt.Sprint(src.ServerMajor)) || len(src.Warnings) > 0 {
		t.Errorf("%+v", src)
	}
	if src.TableBytes < 5000*320 || src.TableBytes > 5000*320*2 {
		t.Errorf("estimate %d bytes", src.TableBytes)
	}
	// A table under ACCESS EXCLUSIVE holds up neither the preflight nor, with it, the message.
	lock := pg.Connect(t, db)
	if _, err := lock.Exec(t.Context(), "ANALYZE t; BEGIN; LOCK TABLE t"); err != nil {
		t.Fatal(err)
	}
	locked, err := InspectSource(t.Context(), mustParse(t, pg.URL(db)), SourceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if locked.TableBytes < 5000*320 || locked.TableBytes > 5000*320*2 {
		t.Errorf("estimate from pages: %d bytes", locked.TableBytes)
	}
	if err := errors.Join(locked.Release(t.Context()), locked.Release(t.Context())); err != nil {
		t.Error(err)
	}
}

// asRole is a connection string of a new login role without rights.
func asRole(t *testing.T, pg *testenv.Cluster, db, role, attributes string) Conn {
	t.Helper()
	pg.Exec(t, "postgres", fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD 'pw' %s", role, attributes))
	t.Cleanup(func() {
		conn := pg.Connect(t, db)
		for _, s := range []string{"DROP OWNED BY " + role, "DROP ROLE " + role} {
			if _, err := conn.Exec(context.Background(), s); err != nil {
				t.Error(err)
			}
		}
	})
	return mustParse(t, pg.URL(db)).with("user", role).with("password", "pw")
}

func TestMissingRights(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	db := pg.CreateDatabase(t)
	pg.Exec(t, db, `CREATE SCHEMA priv; CREATE TABLE priv.secret (a int); CREATE TABLE open (a int); CREATE TABLE rls (a int); ALTER TABLE rls ENABLE ROW LEVEL SECURITY`)
	c := asRole(t, pg, db, "rights_reader", "")
	pg.Exec(t, db, "GRANT SELECT ON open, rls TO rights_reader")
	inspect := func(args ...string) (*Source, error) {
		src, err := InspectSource(t.Context(), c, SourceOptions{DumpArgs: args})
		if err == nil {
			err = src.Release(t.Context())
		}
		return src, err
	}
	_, err := inspect()
	wantError(t, err, ErrDump, "rights_reader cannot read 1", "priv.secret")
	src, err := inspect("-T", "priv.secret", "-T", "rls")
	if err != nil || len(src.Warnings) > 0 {
		t.Errorf("the selection leaves it out: %+v, %v", src, err)
	}
	pg.Exec(t, db, "GRANT USAGE ON SCHEMA priv TO rights_reader; GRANT SELECT ON priv.secret TO rights_reader")
	_, err = inspect()
	wantError(t, err, ErrDump, "row security would hide rows of 1 table from", "public.rls", "BYPASSRLS")
	src, err = inspect("--enable-row-security")
	if err != nil || len(src.Warnings) != 1 {
		t.Errorf("%+v, %v", src, err)
	}
	pg.Exec(t, db, "ALTER ROLE rights_reader BYPASSRLS")
	if src, err = inspect(); err != nil || len(src.Warnings) > 0 {
		t.Errorf("%+v, %v", src, err)
	}
	dumpAll(t, c) // the preflight and pg_dump agree
	_, err = inspect("--role=postgres")
	wantError(t, err, ErrDump, "--role=postgres")
}

func kinds(target *Target) string {
	var out []string
	for _, l := range target.Lacks {
		out = append(out, l.Kind+":"+l.Name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestInspectTarget(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	db := pg.CreateDatabase(t)
	pg.Exec(t, "postgres", `CREATE ROLE lk_owner; CREATE ROLE "lk Grantee"; CREATE ROLE lk_default; CREATE ROLE lk_policy`)
	pg.Exec(t, db, `CREATE TABLE t (a text COLLATE "C"); ALTER TABLE t OWNER TO lk_owner; CREATE TABLE other (a int);
		GRANT SELECT ON other TO "lk Grantee"; GRANT SELECT (a) ON other TO PUBLIC;
		ALTER DEFAULT PRIVILEGES FOR ROLE lk_default GRANT SELECT ON TABLES TO "lk Grantee";
		CREATE POLICY p ON other TO lk_policy USING (true)`)
	archive := dumpAll(t, mustParse(t, pg.URL(db)))
	head := headOf(t, archive)
	// What this machine has not: as another machine's archive would name it.
	for i := range head.Entries {
		if e := &head.Entries[i]; e.Desc.S == "TABLE" && e.Tag.S == "other" {
			e.Tablespace = pgarchive.Str{S: "fast_ssd"}
			e.Defn.S = strings.Replace(e.Defn.S, "a integer", `a text COLLATE pg_catalog."xx_XX.utf8"`, 1)
		}
	}
	head.Entries = append(head.Entries, pgarchive.Entry{DumpID: 9999, Desc: pgarchive.Str{S: "EXTENSION"}, Tag: pgarchive.Str{S: "no_such_ext"}, Section: pgarchive.SectionPreData, Namespace: pgarchive.Str{Null: true}})

	empty := pg.CreateDatabase(t)
	c := mustParse(t, pg.URL(empty))
	inspect := func(c Conn, opts RestoreOptions) *Target {
		t.Helper()
		target, err := InspectTarget(t.Context(), c, head, opts)
		if err != nil {
			t.Fatal(err)
		}
		return target
	}
	foreign := "collation:xx_XX.utf8 extension:no_such_ext"
	if got := kinds(inspect(c, RestoreOptions{})); got != foreign+" tablespace:fast_ssd" {
		t.Errorf("as superuser with all roles: %s", got)
	}
	for _, stmt := range []string{`DROP OWNED BY lk_owner, "lk Grantee", lk_default, lk_policy CASCADE`} {
		pg.Exec(t, db, stmt)
	}
	pg.Exec(t, "postgres", `DROP ROLE lk_owner, "lk Grantee", lk_default, lk_policy`)

	all := foreign + " grantee:lk Grantee grantee:lk_default grantee:lk_policy owner:lk_owner tablespace:fast_ssd"
	all = strings.Join(sorted(strings.Split(strings.ReplaceAll(all, "lk Grantee", "lk~Grantee"), " ")), " ")
	for _, tt := range []struct {
		opts RestoreOptions
		want string
	}{
		{RestoreOptions{}, all},
		{RestoreOptions{NoOwner: true, NoPrivileges: true}, foreign + " grantee:lk_policy tablespace:fast_ssd"},
		{RestoreOptions{Args: []string{"-Ox", "--no-tablespaces"}}, foreign + " grantee:lk_policy"},
		{RestoreOptions{DataOnly: true}, ""},
		{RestoreOptions{Args: []string{"-N", "public"}}, "extension:no_such_ext grantee:lk_default grantee:lk~Grantee"},
		{RestoreOptions{Args: []string{"-I", "some_index"}}, ""},
		{RestoreOptions{Tables: []string{"t"}}, "owner:lk_owner"},
		{RestoreOptions{Tables: []string{"other"}, NoPrivileges: true, Args: []string{"--no-tablespaces"}}, "collation:xx_XX.utf8"},
		{RestoreOptions{Tables: []string{"other"}}, "collation:xx_XX.utf8 grantee:lk~Grantee tablespace:fast_ssd"},
		{RestoreOptions{NoOwner: true, NoPrivileges: true, Args: []string{"--section=post-data"}}, "grantee:lk_policy"},
		{RestoreOptions{Tables: []string{"t"}, NoOwner: true, Role: "nobody_here"}, "owner:nobody_here"},
	} {
		got := strings.Join(sorted(strings.Fields(strings.ReplaceAll(kinds(inspect(c, tt.opts)), "lk Grantee", "lk~Grantee"))), " ")
		if got != tt.want {
			t.Errorf("%+v:\n got %s\nwant %s", tt.opts, got, tt.want)
		}
	}
	for _, l := range inspect(c, RestoreOptions{}).Lacks {
		if wrong, cure, ok := strings.Cut(l.Cure, ": "); !ok || wrong == "" || cure == "" || strings.Contains(wrong, "--") {
			t.Errorf("%s %q: %s: must say what is wrong, then what to do", l.Kind, l.Name, l.Cure)
		}
	}
	if _, err := Restore(t.Context(), c, realTools(t), bytes.NewReader(archive), RestoreOptions{NoOwner: true, NoPrivileges: true, Tables: []string{"t"}}); err != nil {
		t.Fatal(err)
	}
	target := inspect(c, RestoreOptions{})
	if target.UserTables != 1 || !slices.Equal(target.UserTableNames, []string{"public.t"}) {
		t.Errorf("user tables: %d %v", target.UserTables, target.UserTableNames)
	}
}

func sorted(s []string) []string { slices.Sort(s); return s }

// A role that exists is of no use if objects cannot be given to it.
func TestOwnerThatCannotBeGivenTo(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	db := pg.CreateDatabase(t)
	// The entry of schema public names its owner, and is none that is given away.
	pg.Exec(t, db, "CREATE TABLE t (a int); GRANT CREATE ON SCHEMA public TO pg_read_all_data") // owned by postgres
	archive := dumpAll(t, mustParse(t, pg.URL(db)))
	head := headOf(t, archive)
	empty := pg.CreateDatabase(t)
	c := asRole(t, pg, empty, "plain_restorer", "")
	pg.Exec(t, empty, "GRANT CREATE ON SCHEMA public TO plain_restorer")
	target, err := InspectTarget(t.Context(), c, head, RestoreOptions{})
	if err != nil || kinds(target) != "owner:postgres" || !strings.Contains(target.Lacks[0].Cure, "is no member of this role and cannot give objects to it: pass --no-owner") {
		t.Fatalf("%+v, %v", target, err)
	}
	// The preflight is right: pg_restore would fail.
	_, err = Restore(t.Context(), c, realTools(t), bytes.NewReader(archive), RestoreOptions{})
	wantError(t, err, ErrRestore, "ALTER TABLE")
	pg.Exec(t, empty, "DROP TABLE t")
	if target, err = InspectTarget(t.Context(), c, head, RestoreOptions{NoOwner: true}); err != nil || len(target.Lacks) > 0 {
		t.Fatalf("%+v, %v", target, err)
	}
	if _, err = Restore(t.Context(), c, realTools(t), bytes.NewReader(archive), RestoreOptions{NoOwner: true}); err != nil {
		t.Fatal(err)
	}
}

func TestEncodings(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	head := func(encoding string) *pgarchive.Head {
		return &pgarchive.Head{Entries: []pgarchive.Entry{{DumpID: 1, Desc: pgarchive.Str{S: "ENCODING"}, Section: pgarchive.SectionPreData, Defn: pgarchive.Str{S: "SET client_encoding = '" + encoding + "';\n"}}}}
	}
	pg.Exec(t, "postgres", "CREATE DATABASE enc_latin1 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
	t.Cleanup(func() { pg.Exec(t, "postgres", "DROP DATABASE enc_latin1") })
	utf := pg.CreateDatabase(t)
	for _, tt := range []struct{ from, db, want string }{
		{"UTF8", "enc_latin1", "encoding:UTF8"}, {"LATIN1", "enc_latin1", ""}, {"LATIN1", utf, ""}, {"UTF8", utf, ""}, {"SQL_ASCII", utf, ""},
	} {
		target, err := InspectTarget(t.Context(), mustParse(t, pg.URL(tt.db)), head(tt.from), RestoreOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := kinds(target); got != tt.want {
			t.Errorf("%s into %s: %q, want %q", tt.from, tt.db, got, tt.want)
		}
		if (tt.from == "SQL_ASCII") != (len(target.Warnings) == 1) {
			t.Errorf("%s: warnings %q", tt.from, target.Warnings)
		}
	}
	db := head("UTF8")
	for defn, want := range map[string]string{
		`CREATE DATABASE nw WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = libc LOCALE = 'xx_XX.UTF-8';`:        "collation:xx_XX.UTF-8",
		`CREATE DATABASE nw WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = libc LOCALE = 'C.UTF-8';`:            "",
		`CREATE DATABASE nw WITH TEMPLATE = template0 ENCODING = 'KLINGON' LOCALE_PROVIDER = libc LOCALE = 'C';`:               "encoding:KLINGON",
		`CREATE DATABASE nw WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = builtin BUILTIN_LOCALE = 'C.UTF-8';`: "collation:provider builtin",
		`CREATE DATABASE nw WITH TEMPLATE = template0 TABLESPACE = fast;`:                                                      "tablespace:fast",
	} {
		h := *db
		h.Entries = append(slices.Clone(db.Entries), pgarchive.Entry{DumpID: 2, Desc: pgarchive.Str{S: "DATABASE"}, Tag: pgarchive.Str{S: "nw"}, Section: pgarchive.SectionPreData, Defn: pgarchive.Str{S: defn}})
		target, err := InspectTarget(t.Context(), mustParse(t, pg.URL(utf)), &h, RestoreOptions{Create: true})
		if err != nil {
			t.Fatal(err)
		}
		if got := kinds(target); got != want {
			t.Errorf("%s: %q, want %q", defn, got, want)
		}
	}
}

func TestGlobals(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	c := mustParse(t, pg.URL("postgres"))
	pg.Exec(t, "postgres", `CREATE ROLE gl_app LOGIN PASSWORD 'gl_secret' CREATEDB; CREATE ROLE "gl Group"; GRANT "gl Group" TO gl_app;
		ALTER ROLE gl_app SET search_path = 'a;b'; COMMENT ON ROLE gl_app IS E'it''s \\ ; a comment'; CREATE ROLE cloud_admin`)
	sql, err := DumpGlobals(t.Context(), c, realTools(t), GlobalsOptions{})
	pg.Exec(t, "postgres", `DROP ROLE gl_app, "gl Group", cloud_admin`)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(sql, []byte("CREATE ROLE gl_app")) || bytes.Contains(sql, []byte("SCRAM-SHA-256")) || bytes.Contains(sql, []byte("gl_secret")) {
		t.Fatalf("globals:\n%s", sql)
	}
	t.Cleanup(func() { pg.Exec(t, "postgres", `DROP ROLE IF EXISTS gl_app; DROP ROLE IF EXISTS "gl Group"`) })
	if !bytes.Contains(sql, []byte("\\restrict ")) { // pg_dumpall of before August 2025
		sql = slices.Concat([]byte("\\restrict k3y\n"), sql, []byte("\n\\unrestrict k3y\n"))
	}
	res, err := RunGlobals(t.Context(), c, bytes.NewReader(sql))
	if err != nil {
		t.Fatal(err)
	}
	skipped := strings.Join(res.Skipped, "\n")
	if res.Executed < 5 || !strings.Contains(skipped, "role postgres exists") || !strings.Contains(skipped, "role cloud_admin belongs to the provider") {
		t.Errorf("%+v", res)
	}
	got := queryString(t, pg, "postgres", `SELECT r.rolcreatedb || ' ' || r.rolcanlogin || ' ' || pg_has_role('gl_app', 'gl Group', 'MEMBER') || ' ' || array_to_string(rolconfig, ',') || ' ' ||
		shobj_description(r.oid, 'pg_authid') || (SELECT ' ' || rolsuper FROM pg_roles WHERE rolname = 'postgres') FROM pg_roles r WHERE rolname = 'gl_app'`)
	if got != `true true true search_path="a;b" it's \ ; a comment true` {
		t.Errorf("replayed: %s", got)
	}
	// Once more: everything exists, nothing changes.
	pg.Exec(t, "postgres", "ALTER ROLE gl_app NOLOGIN")
	if res, err = RunGlobals(t.Context(), c, bytes.NewReader(sql)); err != nil || !strings.Contains(strings.Join(res.Skipped, "\n"), "role gl_app exists") {
		t.Errorf("%+v, %v", res, err)
	}
	if got := queryString(t, pg, "postgres", "SELECT rolcanlogin::text FROM pg_roles WHERE rolname = 'gl_app'"); got != "false" {
		t.Error("an existing role was altered")
	}
}

func TestGlobalsRefused(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	c := mustParse(t, pg.URL("postgres"))
	for _, script := range []string{"CREATE ROLE gr_one;\n\\! touch /tmp/x\n", "CREATE ROLE gr_one;\nCREATE ROLE 'open", "CREATE ROLE gr_one;\nALTER ROLE nobody_at_all SET a.b = 1;\n"} {
		_, err := RunGlobals(t.Context(), c, strings.NewReader(script))
		wantError(t, err, ErrRestore, "globals")
		if got := queryString(t, pg, "postgres", "SELECT count(*)::text FROM pg_roles WHERE rolname = 'gr_one'"); got != "0" {
			t.Errorf("%q ran in part", script)
		}
	}
}

// A role without superuser rights, as managed services give out, replays globals too.
func TestGlobalsWithoutSuperuser(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	c := asRole(t, pg, "postgres", "gl_admin", "CREATEROLE CREATEDB")
	t.Cleanup(func() { pg.Exec(t, "postgres", "DROP ROLE IF EXISTS gw_app") })
	script := "CREATE ROLE gw_app;\nALTER ROLE gw_app WITH NOSUPERUSER INHERIT NOCREATEROLE CREATEDB LOGIN NOREPLICATION NOBYPASSRLS;\nGRANT gw_app TO gl_admin GRANTED BY cloud_admin;\n"
	res, err := RunGlobals(t.Context(), c, strings.NewReader(script))
	if err != nil || res.Executed != 3 {
		t.Errorf("%+v, %v", res, err)
	}
	sql, err := DumpGlobals(t.Context(), c, realTools(t), GlobalsOptions{})
	if err != nil || !bytes.Contains(sql, []byte("CREATE ROLE gw_app")) {
		t.Errorf("a plain role reads globals without hashes: %v", err)
	}
	pg.Exec(t, "postgres", "REVOKE SELECT ON pg_roles FROM PUBLIC")
	t.Cleanup(func() { pg.Exec(t, "postgres", "GRANT SELECT ON pg_roles TO PUBLIC") })
	_, err = DumpGlobals(t.Context(), c, realTools(t), GlobalsOptions{})
	wantError(t, err, ErrGlobals, "permission denied")
	wantError(t, err, ErrDump)
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		t.Error("pg_dumpall's failure is no server error of ours")
	}
}

func TestGlobalsThatFail(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	c := mustParse(t, pg.URL("postgres"))
	_, err := DumpGlobals(t.Context(), c, playing(t, "exit1", 15), GlobalsOptions{})
	wantError(t, err, ErrDump)
	if errors.Is(err, ErrGlobals) {
		t.Errorf("%v passes for a lack of rights", err)
	}
	_, err = DumpGlobals(t.Context(), c, playing(t, "sigkill", 15), GlobalsOptions{})
	wantError(t, err, ErrDump, "SIGKILL")
}

// A tablespace cannot be created in a transaction; what stands around it can.
func TestGlobalsTablespace(t *testing.T) {
	pg := testenv.NewPostgres(t, testenv.PostgresOptions{})
	clearPGEnv(t)
	c := mustParse(t, pg.URL("postgres"))
	script := "CREATE ROLE ts_owner;\nCREATE TABLESPACE ts OWNER ts_owner LOCATION '/nonexistent/dir';\n"
	_, err := RunGlobals(t.Context(), c, strings.NewReader(script))
	wantError(t, err, ErrRestore, "/nonexistent/dir")
	script = "CREATE TABLESPACE pg_default LOCATION '/x';\nGRANT ALL ON TABLESPACE pg_default TO PUBLIC;\n"
	res, err := RunGlobals(t.Context(), c, strings.NewReader(script))
	if err != nil || res.Executed != 0 || len(res.Skipped) != 1 {
		t.Errorf("%+v, %v", res, err)
	}
}

// The snapshot outlives the timeouts that databases set against idle and long sessions.
func TestSnapshotSurvivesTimeouts(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	db := pg.CreateDatabase(t)
	pg.Exec(t, db, fmt.Sprintf(`CREATE TABLE t (a int); ALTER DATABASE %q SET idle_in_transaction_session_timeout = '50ms'; ALTER DATABASE %[1]q SET statement_timeout = '1s'`, db))
	src, err := InspectSource(t.Context(), mustParse(t, pg.URL(db)), SourceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Release(context.Background())
	// The server's own clock says when the limit is long past.
	pg.Exec(t, "postgres", "SELECT pg_sleep(0.5)")
	d, err := StartDump(t.Context(), src.Conn(), realTools(t), DumpOptions{Snapshot: src.Snapshot})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := io.ReadAll(d); err != nil {
		t.Fatal(err)
	}
}

func TestStandbyWarning(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	s := &Source{InRecovery: true, conn: mustParse(t, pg.URL("postgres")), holder: pg.Connect(t, "postgres")}
	if err := s.readOnly(t.Context(), nil, s.recovery); err != nil {
		t.Fatal(err)
	}
	if len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "hot_standby_feedback = on") || !strings.Contains(s.Warnings[0], "30s") {
		t.Errorf("%q", s.Warnings)
	}
}

// The preflight must agree with pg_dump on what a selection takes, since it refuses
// what would fail and keeps silent about what is left out.
func TestRightsFollowTheSelection(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	db := pg.CreateDatabase(t)
	pg.Exec(t, db, `CREATE SCHEMA s; CREATE SCHEMA "Odd.S"; CREATE TABLE open (a int);
		CREATE TABLE s.rls (a serial, b int GENERATED ALWAYS AS IDENTITY); ALTER TABLE s.rls ENABLE ROW LEVEL SECURITY;
		CREATE TABLE "Odd.S"."T$1" (a int); CREATE TABLE "Odd.S".parent (a int) PARTITION BY LIST (a);
		CREATE TABLE "Odd.S".child PARTITION OF "Odd.S".parent DEFAULT`)
	c := asRole(t, pg, db, "choice_reader", "")
	pg.Exec(t, db, `GRANT SELECT ON open, s.rls, s.rls_a_seq, s.rls_b_seq TO choice_reader; GRANT USAGE ON SCHEMA s TO choice_reader`)
	odd := []string{"-N", `"Odd.S"`}
	for _, tt := range []struct {
		args  []string
		fails string // what stands in the way, "" if the dump goes through
	}{
		{nil, "Odd.S"},
		{odd, "s.rls"},
		{append([]string{"--exclude-table=s.rls"}, odd...), ""},
		{append([]string{"-T", "S.R?S"}, odd...), ""},
		{append([]string{"-T", "rls"}, odd...), "s.rls"}, // not visible without its schema
		{append([]string{"-T", "*.rls"}, odd...), ""},
		{append([]string{"-T", `s."r?s"`}, odd...), "s.rls"},
		{append([]string{"--exclude-table-data=s.rls"}, odd...), ""},
		{append([]string{"--schema-only"}, odd...), ""},
		{[]string{"-N", "s", "-N", "odd*"}, "Odd.S"},
		{[]string{"-N", "s", "-N", `"Odd"*`}, ""},
		{[]string{"-N", "s|other", "-T", `"Odd.S".*`}, ""},
		{[]string{"-N", "s", "-T", `"Odd.S"."T$1"`}, "child"},
		{[]string{"-n", "public"}, ""},
		{[]string{"-n", "s"}, "s.rls"},
		{[]string{"-t", "open"}, ""},
		{[]string{"-t", "s.rls"}, "s.rls"},
		{[]string{"-t", "s.rls", "-N", "s"}, "s.rls"}, // -N is of no account then
		{[]string{"-t", "public.*", "-t", "s.*", "-T", "s.*"}, ""},
	} {
		src, err := InspectSource(t.Context(), c, SourceOptions{DumpArgs: tt.args})
		if err == nil {
			if len(src.Warnings) > 0 {
				t.Errorf("%q: %q", tt.args, src.Warnings)
			}
			err = src.Release(t.Context())
		}
		if tt.fails == "" && err != nil {
			t.Errorf("%q: %v", tt.args, err)
		} else if tt.fails != "" {
			wantError(t, err, ErrDump, tt.fails)
		}
		d, err := StartDump(t.Context(), c, realTools(t), DumpOptions{Args: tt.args})
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, d)
		_ = d.Close()
		if (err != nil) != (tt.fails != "") {
			t.Errorf("%q: pg_dump itself says %v", tt.args, err)
		}
	}
	src, err := InspectSource(t.Context(), c, SourceOptions{DumpArgs: []string{"--filter=/some/file"}})
	if err != nil || len(src.Warnings) != 1 || !strings.Contains(src.Warnings[0], "unless --filter leaves them out") {
		t.Fatalf("%+v, %v", src, err)
	}
	if err := src.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

// pg_dump fails on the first large object that the role may not read, after all tables.
func TestUnreadableLargeObjects(t *testing.T) {
	pg := testenv.Postgres(t)
	clearPGEnv(t)
	db := pg.CreateDatabase(t)
	pg.Exec(t, db, "SELECT lo_from_bytea(4711, 'x'); SELECT lo_from_bytea(4712, 'x')")
	c := asRole(t, pg, db, "lo_reader", "IN ROLE pg_read_all_data")
	for _, tt := range []struct {
		setup string
		args  []string
		fails string
	}{
		{"", nil, "2 large objects"},
		{"", []string{"-B"}, ""},
		{"", []string{"--schema-only"}, ""},
		{"", []string{"-n", "public"}, ""},
		{"", []string{"-n", "public", "-b"}, "2 large objects"},
		{"GRANT SELECT ON LARGE OBJECT 4711 TO PUBLIC", nil, "1 large object"},
		{"GRANT SELECT ON LARGE OBJECT 4712 TO lo_reader", nil, ""},
	} {
		if tt.setup != "" {
			pg.Exec(t, db, tt.setup)
		}
		src, err := InspectSource(t.Context(), c, SourceOptions{DumpArgs: tt.args})
		if err == nil {
			err = src.Release(t.Context())
		}
		if tt.fails == "" && err != nil {
			t.Errorf("%s, %q: %v", tt.setup, tt.args, err)
		} else if tt.fails != "" {
			wantError(t, err, ErrDump, tt.fails, "lo_reader")
		}
		d, err := StartDump(t.Context(), c, realTools(t), DumpOptions{Args: tt.args})
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, d)
		_ = d.Close()
		if (err != nil) != (tt.fails != "") {
			t.Errorf("%q: pg_dump itself says %v", tt.args, err)
		}
	}
}
