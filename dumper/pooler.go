package dumper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A transaction pooler hands each transaction to whatever server session is
// idle. pg_dump's session settings then land on other sessions than its COPYs:
// 12 of 25 dumps through a busy one exited 0 with wrong floats.

// checkPoolerName refuses endpoints whose name says that they are pooled.
func checkPoolerName(c Conn) error {
	for _, e := range c.endpoints() {
		if isSocketDir(e.host) {
			continue
		}
		host := strings.ToLower(strings.TrimSuffix(e.host, "."))
		const cure = "; --allow-pooler overrides"
		switch {
		case strings.Contains(host, "-pooler.") && isNeon(host):
			return fail(ErrPooler, fmt.Sprintf("%s is a pooled endpoint, which corrupts dumps: use the direct host %s%s", e.host, strings.Replace(host, "-pooler.", ".", 1), cure))
		case strings.Contains(host, "-pooler."):
			return fail(ErrPooler, fmt.Sprintf("%s is a pooled endpoint, which corrupts dumps: use the server's direct host%s", e.host, cure))
		case e.port == "6543" && strings.HasSuffix(host, ".pooler.supabase.com"):
			direct := ""
			if _, ref, ok := strings.Cut(c.User(), "."); ok {
				direct = fmt.Sprintf(", or the direct host db.%s.supabase.co", ref)
			}
			return fail(ErrPooler, fmt.Sprintf("%s:6543 is Supabase's transaction pooler, which corrupts dumps: use its session port 5432%s%s", e.host, direct, cure))
		case e.port == "6543" && strings.HasPrefix(host, "db.") && strings.HasSuffix(host, ".supabase.co"):
			return fail(ErrPooler, fmt.Sprintf("%s:6543 is Supabase's transaction pooler, which corrupts dumps: use the direct port 5432%s", e.host, cure))
		}
	}
	return nil
}

func isNeon(host string) bool {
	return strings.HasSuffix(host, ".neon.tech") || strings.HasSuffix(host, ".neon.build")
}

// backendID names a server session for good: pids alone repeat between the
// servers behind a load balancer.
const backendID = `SELECT pg_catalog.pg_backend_pid(), pg_catalog.pg_backend_pid()::text || '@' ||
	coalesce((SELECT s.backend_start::text FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) AS s), '')`

// turns is the order in which the two sessions ask. It repeats nothing: a pooler that
// hands out its servers in a circle would look like two sessions to A B A B.
const turns = "ABAABBBABAAABBAB"

// provePooler takes turns with two sessions in short transactions: one backend
// for both, or a backend that changes, proves a pooler. That the key of
// BackendKeyData differs from the pid proves nothing: Neon's proxy hands out a
// random one on direct endpoints.
func provePooler(ctx context.Context, c Conn, a *pgx.Conn, log *slog.Logger) (warning string, err error) {
	b, err := c.Connect(ctx)
	sessions := map[rune]*pgx.Conn{'A': a, 'B': b}
	if err != nil {
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || pgErr.Code != "53300" {
			return "", err
		}
		delete(sessions, 'B')
		warning = "only one more connection was to be had: whether a pooler stands in between was checked with one session"
	} else {
		defer func() { _ = b.Close(context.WithoutCancel(ctx)) }()
	}
	seen := map[rune]string{}
	for _, turn := range turns {
		conn := sessions[turn]
		if conn == nil {
			continue
		}
		var pid uint32
		var id string
		if err := conn.QueryRow(ctx, backendID).Scan(&pid, &id); err != nil {
			return "", failCause(ErrConnect, fmt.Sprintf("check %s for a pooler: %s", c, oneLine(err.Error())), err)
		}
		if before, asked := seen[turn]; asked && before != id {
			return "", pooled(c, "the server process behind one session changed")
		}
		if other := seen['A'+'B'-turn]; other == id {
			return "", pooled(c, "two open sessions share one server process")
		}
		if _, asked := seen[turn]; !asked && conn.PgConn().PID() != pid {
			log.Debug("the connection's backend key is not the server process's id: a proxy stands in between", "key", conn.PgConn().PID(), "pid", pid)
		}
		seen[turn] = id
	}
	return warning, nil
}

func pooled(c Conn, proof string) error {
	return fail(ErrPooler, fmt.Sprintf("%s is a pooled endpoint, which corrupts dumps and restores (%s): connect to the server directly or to a session pool; --allow-pooler overrides", c, proof))
}
