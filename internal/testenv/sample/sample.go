// Package sample loads a database that is not a toy, and compares two
// databases by their content.
package sample

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgstow/pgstow/internal/testenv/server"
)

//go:embed sample.sql
var sql string

// Options size the sample.
type Options struct {
	// Scale multiplies the rows, pgbench's 100,000 included. 0 stands for 1.
	Scale int
	// NoPgbench leaves pgbench's four tables out: the small tables remain.
	NoPgbench bool
}

// LargeObjects is how many large objects the sample has.
const LargeObjects = 50

// Load fills an empty database, named by a connection URL of a superuser.
func Load(ctx context.Context, url string, opts Options) error {
	scale := max(opts.Scale, 1)
	text := strings.NewReplacer(":scale", strconv.Itoa(scale), ":objects", strconv.Itoa(LargeObjects)).Replace(sql)
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("load the sample: %w", err)
	}
	_, err = conn.PgConn().Exec(ctx, text).ReadAll()
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return fmt.Errorf("load the sample: %w", err)
	}
	if opts.NoPgbench {
		return nil
	}
	return pgbench(ctx, url, scale)
}

// pgbench creates pgbench's tables: accounts, branches, tellers, history.
func pgbench(ctx context.Context, url string, scale int) error {
	path, err := server.Find("pgbench")
	if err != nil {
		return err
	}
	c, err := pgx.ParseConfig(url)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, "--initialize", "--quiet", "--scale", strconv.Itoa(scale))
	cmd.Env = append(os.Environ(), "PGHOST="+c.Host, "PGPORT="+strconv.Itoa(int(c.Port)), "PGUSER="+c.User,
		"PGPASSWORD="+c.Password, "PGDATABASE="+c.Database)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := server.Start(cmd); err != nil {
		return fmt.Errorf("start pgbench: %w", err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("pgbench: %w\n%s", err, out.String())
	}
	return nil
}
