package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// The data set at full size: 1.4 GB of COPY text in pgbench's tables, which
// compress 35 times, documents and events, which compress 3 times.
const (
	fullScale  = 60
	fullDocs   = 520_000
	fullEvents = 3_000_000
	smallRows  = 11_600 // 1 MB
	smallPart  = 20     // a small data set is this part of it, but for the table of 1 MB
)

const definitions = `
CREATE TABLE docs (id bigint, title text, body text, meta jsonb, at timestamptz);
CREATE TABLE events (id bigint, device int, kind text, at timestamptz, value double precision, note text);
CREATE TABLE small (id int, body text);`

const indexes = `
ALTER TABLE docs ADD PRIMARY KEY (id);
CREATE INDEX ON docs (at);
ALTER TABLE events ADD PRIMARY KEY (id);
CREATE INDEX ON events (device, at);
ALTER TABLE small ADD PRIMARY KEY (id);
ANALYZE;`

func (b *bench) load(ctx context.Context) error {
	part := 1
	if b.small {
		part = smallPart
	}
	fmt.Fprintln(os.Stderr, "making the data set")
	if err := b.pg.Exec(ctx, "postgres", "CREATE DATABASE "+database); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, b.tools["pgbench"], "-i", "-q", "-I", "dtGp", "-s", strconv.Itoa(max(1, fullScale/part)))
	cmd.Env = b.env()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pgbench: %w: %s", err, out)
	}
	conn, err := pgx.Connect(ctx, b.pg.URL(database))
	if err != nil {
		return err
	}
	err = b.fill(ctx, conn, part)
	return errors.Join(err, conn.Close(ctx))
}

func (b *bench) fill(ctx context.Context, conn *pgx.Conn, part int) error {
	if _, err := conn.Exec(ctx, definitions); err != nil {
		return err
	}
	// Fixed seeds: every run has the same data.
	for i, t := range []struct {
		table string
		rows  int
		row   func(*bufio.Writer, *rand.Rand, int)
	}{
		{"docs", fullDocs / part, document},
		{"events", fullEvents / part, event},
		{"small", smallRows, smallRow},
	} {
		random := rand.New(rand.NewPCG(20261122, uint64(i)))
		r, w := io.Pipe()
		go func() {
			out := bufio.NewWriterSize(w, 1<<16)
			for n := range t.rows {
				t.row(out, random, n)
			}
			_ = w.CloseWithError(out.Flush())
		}()
		_, err := conn.PgConn().CopyFrom(ctx, r, "COPY "+t.table+" FROM STDIN")
		_ = r.Close()
		if err != nil {
			return fmt.Errorf("load %s: %w", t.table, err)
		}
	}
	if _, err := conn.Exec(ctx, indexes); err != nil {
		return err
	}
	return nil
}

// words makes text of a vocabulary in which few words are frequent.
func words(w *bufio.Writer, random *rand.Rand, n int) {
	for i := range n {
		if i > 0 {
			_ = w.WriteByte(' ')
		}
		rank := random.Float64()
		_, _ = w.WriteString(vocabulary[int(rank*rank*rank*float64(len(vocabulary)))])
	}
}

var vocabulary = func() []string {
	random := rand.New(rand.NewPCG(7, 7))
	list := make([]string, 20_000)
	for i := range list {
		word := make([]byte, 2+random.IntN(9))
		for j := range word {
			word[j] = "etaoinshrdlucmfwypvbgkjqxz"[int(random.Float64()*random.Float64()*26)]
		}
		list[i] = string(word)
	}
	return list
}()

func document(w *bufio.Writer, random *rand.Rand, n int) {
	fmt.Fprintf(w, "%d\t", n)
	words(w, random, 4)
	_ = w.WriteByte('\t')
	words(w, random, 60+random.IntN(180))
	fmt.Fprintf(w, "\t{\"author\": \"user%d\", \"tags\": [\"", random.IntN(5000))
	words(w, random, 1)
	fmt.Fprintf(w, "\"], \"score\": %d, \"ref\": \"%016x\"}\t2026-%02d-%02d %02d:%02d:%02d+00\n",
		random.IntN(100), random.Uint64(), 1+n%12, 1+random.IntN(28), random.IntN(24), random.IntN(60), random.IntN(60))
}

var kinds = []string{"open", "close", "heartbeat", "alarm", "measure"}

func event(w *bufio.Writer, random *rand.Rand, n int) {
	fmt.Fprintf(w, "%d\t%d\t%s\t2026-01-%02d %02d:%02d:%02d.%06d+00\t%.6g\t", n, random.IntN(20_000), kinds[random.IntN(len(kinds))],
		1+n%28, random.IntN(24), random.IntN(60), random.IntN(60), random.IntN(1_000_000), random.NormFloat64()*100)
	if n%3 == 0 {
		words(w, random, 3)
	} else {
		_, _ = w.WriteString(`\N`)
	}
	_ = w.WriteByte('\n')
}

func smallRow(w *bufio.Writer, random *rand.Rand, n int) {
	fmt.Fprintf(w, "%d\t", n)
	words(w, random, 12)
	_ = w.WriteByte('\n')
}
