package dumper

import (
	"context"
	"net"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// hostPasswords gives each host of a connection string its own entry of the
// password file, as libpq does. pgx uses the first host's for all.
type hostPasswords struct {
	byEndpoint map[pgxEndpoint]string
	byAddress  map[string]string
}

type pgxEndpoint struct {
	host string
	port uint16
}

// passwordsPerHost is nil where one password serves all hosts. ask is the
// password that pgx finds for a host and port.
func passwordsPerHost(cfg *pgx.ConnConfig, ask func(pgxEndpoint) (string, error)) (*hostPasswords, error) {
	p := &hostPasswords{byEndpoint: map[pgxEndpoint]string{}, byAddress: map[string]string{}}
	differ := false
	for _, e := range pgxEndpoints(cfg) {
		if _, asked := p.byEndpoint[e]; asked {
			continue
		}
		password, err := ask(e)
		if err != nil {
			return nil, err
		}
		p.byEndpoint[e] = password
		differ = differ || password != cfg.Password
	}
	if !differ {
		return nil, nil
	}
	return p, nil
}

func pgxEndpoints(cfg *pgx.ConnConfig) []pgxEndpoint {
	out := []pgxEndpoint{{cfg.Host, cfg.Port}}
	for _, f := range cfg.Fallbacks {
		out = append(out, pgxEndpoint{f.Host, f.Port})
	}
	return out
}

// use makes cfg authenticate with the password of the address just dialled:
// pgx tries one address after the other, and reads the password after dialling.
func (p *hostPasswords) use(cfg *pgx.ConnConfig) {
	for e, password := range p.byEndpoint {
		if network, address := pgconn.NetworkAddress(e.host, e.port); network == "unix" {
			p.byAddress[address] = password
		}
	}
	lookup, dial := cfg.LookupFunc, cfg.DialFunc
	cfg.LookupFunc = func(ctx context.Context, host string) ([]string, error) {
		addrs, err := lookup(ctx, host)
		for e, password := range p.byEndpoint {
			if e.host == host && password != "" {
				p.learn(addrs, e.port, password)
			}
		}
		return addrs, err
	}
	var dialled string
	cfg.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled = address
		return dial(ctx, network, address)
	}
	cfg.AfterNetConnect = func(_ context.Context, c *pgconn.Config, conn net.Conn) (net.Conn, error) {
		c.Password = p.byAddress[dialled]
		return conn, nil
	}
}

func (p *hostPasswords) learn(addrs []string, port uint16, password string) {
	for _, a := range addrs {
		_, address := pgconn.NetworkAddress(a, port)
		p.byAddress[address] = password
	}
}
