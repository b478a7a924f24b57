package dumper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// pgxParams are the parameters pgx knows how to use. Whatever else pgx meets it
// sends to the server, which refuses it as an unknown setting.
var pgxParams = map[string]bool{
	"application_name": true, "channel_binding": true, "connect_timeout": true, "dbname": true,
	"host": true, "krbsrvname": true, "max_protocol_version": true, "min_protocol_version": true,
	"options": true, "passfile": true, "password": true, "port": true, "require_auth": true,
	"sslcert": true, "sslcertmode": true, "sslkey": true, "sslmode": true, "sslnegotiation": true,
	"sslpassword": true, "sslrootcert": true, "sslsni": true, "target_session_attrs": true, "user": true,
}

// serverSettings are the only names that go to the server as settings.
var serverSettings = map[string]bool{"application_name": true, "client_encoding": true, "options": true, "timezone": true}

// Connect opens one connection, without retrying. The caller closes it.
func (c Conn) Connect(ctx context.Context) (*pgx.Conn, error) {
	cfg, passwords, err := c.pgxConfigs()
	if err != nil {
		return nil, err
	}
	hosts := map[string][]string{}
	cfg.LookupFunc = func(ctx context.Context, host string) ([]string, error) {
		addrs, err := c.lookup(ctx, host)
		hosts[host] = addrs
		return addrs, err
	}
	if passwords != nil {
		passwords.use(cfg)
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, c.connectError(ctx, err)
	}
	conn.PgConn().CustomData()[lookedUp] = hosts
	return conn, nil
}

// lookedUp is where a connection keeps its map of host names to addresses.
const lookedUp = "pgstow.lookedUp"

// pgxConfig normalises c for pgx.
func (c Conn) pgxConfig() (*pgx.ConnConfig, error) {
	cfg, _, err := c.pgxConfigs()
	return cfg, err
}

// pgxConfigs is pgxConfig with the passwords of several hosts, nil where one serves all.
func (c Conn) pgxConfigs() (*pgx.ConnConfig, *hostPasswords, error) {
	params := map[string]string{}
	for k, v := range c.params {
		if pgxParams[k] && v != "" {
			params[k] = v
		}
	}
	c.usePinnedAddress(params)
	if os.Getenv("PGSERVICE") != "" {
		// The service is resolved already, and libpq's way. pgx would read it once
		// more, and only from the user's own file: show it an empty one.
		file, cleanup, err := emptyServiceFile()
		if err != nil {
			return nil, nil, fmt.Errorf("empty service file: %w", err)
		}
		defer cleanup()
		params["service"], params["servicefile"] = serviceName, file
	}
	cfg, err := parsePgx(params)
	if err != nil {
		return nil, nil, err
	}
	passwords, err := passwordsPerHost(cfg, func(e pgxEndpoint) (string, error) {
		params["host"], params["port"] = e.host, strconv.Itoa(int(e.port))
		one, err := parsePgx(params)
		if err != nil {
			return "", err
		}
		return one.Password, nil
	})
	if err != nil {
		return nil, nil, err
	}
	maps.DeleteFunc(cfg.RuntimeParams, func(k, _ string) bool { return !serverSettings[k] })
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "pgstow"
		if name := c.get("fallback_application_name"); name != "" {
			cfg.RuntimeParams["application_name"] = name
		}
	}
	// Names must come as UTF-8 whatever the database's encoding.
	cfg.RuntimeParams["client_encoding"] = "UTF8"
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec // no prepared statements: they do not survive poolers
	cfg.StatementCacheCapacity, cfg.DescriptionCacheCapacity = 0, 0
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 20 * time.Second
	}
	dialer, err := c.dialer(cfg.ConnectTimeout)
	if err != nil {
		return nil, nil, err
	}
	cfg.DialFunc = dialer.DialContext
	return cfg, passwords, nil
}

func parsePgx(params map[string]string) (*pgx.ConnConfig, error) {
	var dsn strings.Builder
	for _, k := range slices.Sorted(maps.Keys(params)) {
		dsn.WriteString(k + "='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(params[k]) + "' ")
	}
	cfg, err := pgx.ParseConfig(dsn.String())
	if err != nil {
		return nil, parseError(err)
	}
	return cfg, nil
}

// usePinnedAddress lets pgx dial hostaddr where no name goes with it; lookup
// does it for hosts that have one.
func (c Conn) usePinnedAddress(params map[string]string) {
	addrs := c.get("hostaddr")
	if addrs == "" {
		return
	}
	hosts := c.list("host")
	if len(hosts) == 0 || slices.ContainsFunc(hosts, isSocketDir) {
		params["host"] = addrs
	}
}

func (c Conn) lookup(ctx context.Context, host string) ([]string, error) {
	hosts, addrs := c.list("host"), c.list("hostaddr")
	var pinned []string
	for i, h := range hosts {
		if h == host && i < len(addrs) && addrs[i] != "" {
			pinned = append(pinned, addrs[i])
		}
	}
	if len(pinned) > 0 {
		return pinned, nil
	}
	return net.DefaultResolver.LookupHost(ctx, host)
}

func (c Conn) dialer(timeout time.Duration) (*net.Dialer, error) {
	d := &net.Dialer{Timeout: timeout, KeepAliveConfig: net.KeepAliveConfig{Enable: true}}
	seconds := func(key string) (int, error) {
		v := c.get(key)
		if v == "" {
			return 0, nil
		}
		n, err := strconv.Atoi(v)
		if err != nil {
			return 0, fail(ErrConnInfo, "connection string: "+key+" is not a number")
		}
		return max(n, 0), nil
	}
	var idle, interval, count, userTimeout int
	for key, dst := range map[string]*int{
		"keepalives_idle": &idle, "keepalives_interval": &interval, "keepalives_count": &count, "tcp_user_timeout": &userTimeout,
	} {
		n, err := seconds(key)
		if err != nil {
			return nil, err
		}
		*dst = n
	}
	d.KeepAliveConfig.Idle = time.Duration(idle) * time.Second
	d.KeepAliveConfig.Interval = time.Duration(interval) * time.Second
	d.KeepAliveConfig.Count = count
	if c.get("keepalives") == "0" {
		d.KeepAliveConfig = net.KeepAliveConfig{}
		d.KeepAlive = -1
	}
	if userTimeout > 0 {
		d.Control = tcpUserTimeout(time.Duration(userTimeout) * time.Millisecond)
	}
	return d, nil
}

func emptyServiceFile() (path string, cleanup func(), err error) {
	f, err := os.CreateTemp("", "pgstow-empty-service-*")
	if err != nil {
		return "", nil, err
	}
	cleanup = func() { _ = os.Remove(f.Name()) }
	_, err = io.WriteString(f, "["+serviceName+"]\n")
	if err = errors.Join(err, f.Close()); err != nil {
		cleanup()
		return "", nil, err
	}
	return f.Name(), cleanup, nil
}

// parseError keeps pgx's reason without the string it quotes.
func parseError(err error) error {
	cause := errors.Unwrap(err)
	if cause == nil {
		// The message stands behind the quoted string; what pgx still refuses after
		// our own parser are bad values of its enumerations.
		return fail(ErrConnInfo, "connection string: a parameter has a value that is not one of its choices (sslmode, channel_binding, require_auth, target_session_attrs, min/max_protocol_version)")
	}
	return failCause(ErrConnInfo, "connection string: "+oneLine(cause.Error()), cause)
}

// connectError turns pgx's tree of attempts into one line about the telling one.
func (c Conn) connectError(ctx context.Context, err error) error {
	if ctxErr := context.Cause(ctx); ctxErr != nil {
		return failCause(ErrConnect, fmt.Sprintf("cannot connect to %s: %v", c, ctxErr), ctxErr)
	}
	leaves := flatten(err)
	for _, l := range leaves {
		var pgErr *pgconn.PgError
		if errors.As(l, &pgErr) {
			return failCause(ErrConnect, fmt.Sprintf("cannot connect to %s: %s%s", c, oneLine(pgErr.Message), connectHint(pgErr)), err)
		}
	}
	var reasons []string
	for _, l := range leaves {
		if len(leaves) > 1 && c.triedWithoutTLS(l) {
			continue
		}
		if r := c.networkReason(l); !slices.Contains(reasons, r) {
			reasons = append(reasons, r)
		}
	}
	return failCause(ErrConnect, fmt.Sprintf("cannot connect to %s: %s", c, strings.Join(reasons, "; ")), err)
}

// connectHint says what to do about the refusals users meet most.
func connectHint(e *pgconn.PgError) string {
	switch e.Code {
	case "28P01":
		return " (check the password: in the connection string, PGPASSWORD or the passfile)"
	case "28000":
		return " (check user, sslmode and the server's pg_hba.conf)"
	case "3D000":
		return " (check the database name)"
	case "53300":
		return " (the server's connections are used up)"
	}
	return ""
}

func (c Conn) networkReason(err error) string {
	var dns *net.DNSError
	switch {
	case unfit(err):
		return c.unfitReason(err)
	case errors.As(err, &dns) && dns.IsNotFound:
		return "unknown host " + dns.Name
	case errors.As(err, &dns):
		return "looking up " + dns.Name + " failed: " + dns.Err
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused (is the server running and listening there?)"
	case errors.Is(err, syscall.ENOENT):
		return "no such socket (is the server running?)"
	case isTimeout(err):
		return "timed out"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the server closed the connection"
	}
	return oneLine(err.Error())
}

// triedWithoutTLS: a server without TLS is no finding where the attempt without follows.
func (c Conn) triedWithoutTLS(err error) bool {
	mode := c.get("sslmode")
	return (mode == "" || mode == "prefer" || mode == "allow") && strings.Contains(err.Error(), "server refused TLS connection")
}

// unfit: the server answered, but is not of the kind that target_session_attrs asks for.
func unfit(err error) bool {
	return errors.Is(err, pgconn.ErrReadOnlyConnection) || errors.Is(err, pgconn.ErrReadWriteConnection) ||
		errors.Is(err, pgconn.ErrPrimaryConnection) || errors.Is(err, pgconn.ErrStandbyConnection)
}

func (c Conn) unfitReason(err error) string {
	is := "is a primary"
	switch {
	case errors.Is(err, pgconn.ErrReadOnlyConnection):
		is = "is read-only"
	case errors.Is(err, pgconn.ErrReadWriteConnection):
		is = "accepts writes"
	case errors.Is(err, pgconn.ErrStandbyConnection):
		is = "is a standby"
	}
	return "the server that answers " + is + ", which target_session_attrs=" + c.get("target_session_attrs") + " rules out"
}

func isTimeout(err error) bool {
	var netErr net.Error
	return pgconn.Timeout(err) || errors.Is(err, context.DeadlineExceeded) || (errors.As(err, &netErr) && netErr.Timeout())
}

// flatten lists the leaves of joined errors.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range joined.Unwrap() {
			out = append(out, flatten(e)...)
		}
		return out
	}
	var pgErr *pgconn.PgError
	var connectErr *pgconn.ConnectError
	if errors.As(err, &connectErr) && err == error(connectErr) {
		return flatten(connectErr.Unwrap())
	}
	if errors.As(err, &pgErr) {
		return []error{err}
	}
	if inner := errors.Unwrap(err); inner != nil {
		if _, ok := inner.(interface{ Unwrap() []error }); ok {
			return flatten(inner)
		}
	}
	return []error{err}
}

// worthWaiting: the server may be about to come up. A refusal that names what is
// wrong (password, database, host name) is not, and once a server has answered that
// target_session_attrs rules out, only another one that says it is starting up is.
func worthWaiting(err error) bool {
	leaves := flatten(err)
	answered := slices.ContainsFunc(leaves, unfit)
	for _, l := range leaves {
		var pgErr *pgconn.PgError
		if errors.As(l, &pgErr) && pgErr.Code == "57P03" && answered {
			return true
		}
	}
	if answered {
		return false
	}
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code == "57P03" || pgErr.Code == "57P01" || strings.HasPrefix(pgErr.Code, "08")
	}
	for _, l := range leaves {
		var dns *net.DNSError
		if errors.As(l, &dns) {
			return !dns.IsNotFound
		}
		if errors.Is(l, syscall.ECONNREFUSED) || errors.Is(l, syscall.ECONNRESET) || errors.Is(l, syscall.EPIPE) ||
			errors.Is(l, io.EOF) || errors.Is(l, io.ErrUnexpectedEOF) || isTimeout(l) {
			return true
		}
	}
	return false
}

const defaultConnectWait = time.Minute

// connectWaiting connects, and goes on trying for up to wait while the server
// looks like a serverless database that is waking up.
func (c Conn) connectWaiting(ctx context.Context, wait time.Duration, log *slog.Logger) (*pgx.Conn, error) {
	if wait == 0 {
		wait = defaultConnectWait
	}
	start := time.Now()
	pause := 250 * time.Millisecond
	var told []string // each reason once
	for {
		conn, err := c.Connect(ctx)
		if err == nil || ctx.Err() != nil || !errors.Is(err, ErrConnect) || !worthWaiting(err) {
			return conn, err
		}
		if time.Since(start)+pause > wait {
			return nil, failCause(ErrConnect, fmt.Sprintf("%v (tried for %s)", err, time.Since(start).Round(time.Second)), err)
		}
		if reason := clip(strings.TrimPrefix(err.Error(), fmt.Sprintf("cannot connect to %s: ", c)), 200); !slices.Contains(told, reason) {
			told = append(told, reason)
			log.Info("waiting for the database to come up", "database", c.String(), "reason", reason, "up_to", wait)
		}
		select {
		case <-ctx.Done():
			return nil, c.connectError(ctx, err)
		case <-time.After(pause):
		}
		pause = min(2*pause, 5*time.Second)
	}
}

func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}
