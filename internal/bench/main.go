// Bench measures pgstow against the tools that people use today, on throwaway
// servers of this machine: PostgreSQL and MinIO on the loopback. All measures
// take turns, so that a machine that slows down slows all of them; ratios are
// of medians of one run. The result is a table and a JSON file that names
// machine, versions and load. Nothing here fails on a slow machine.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"filippo.io/age"
)

func main() {
	b := &bench{}
	flag.IntVar(&b.rounds, "n", 5, "rounds")
	flag.BoolVar(&b.small, "small", false, "a small data set: shows that everything works, not how fast")
	only := flag.String("only", "", "only measures that match this regular expression")
	flag.StringVar(&b.newClients, "new-clients", "", "directory of PostgreSQL 16 or later client programs, for the measures with zstd")
	flag.StringVar(&b.pgstow, "pgstow", "bin/pgstow", "the program to measure")
	flag.StringVar(&b.bare, "bare", "", "pgstow built with -tags nohashes, for the measure of what hashing costs")
	archives := flag.Int("audit", 0, "instead: audit so many synthetic archives in a local store, once")
	out := flag.String("out", "bench/results", "directory of the results")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	measure := func() error { return run(ctx, b, *only, *out) }
	if *archives > 0 {
		measure = func() error { return auditMany(ctx, b.pgstow, *archives) }
	}
	if err := measure(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1) //nolint:gocritic // the servers are closed in run
	}
}

func run(ctx context.Context, b *bench, only, out string) (err error) {
	pattern, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	if b.rounds < 1 {
		return errors.New("-n: want at least 1")
	}
	if b.pgstow, err = filepath.Abs(b.pgstow); err != nil {
		return err
	}
	if b.bare != "" {
		if b.bare, err = filepath.Abs(b.bare); err != nil {
			return err
		}
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	b.recipient = identity.Recipient().String()
	if err := b.start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.home.Close()) }()
	var measures []measure
	for _, m := range b.measures() {
		if pattern.MatchString(m.name) || m.name == sourceLimit {
			measures = append(measures, m)
		}
	}
	result, err := b.measure(ctx, measures)
	if err != nil {
		return err
	}
	result.print(os.Stdout)
	return write(out, result)
}

// write keeps one file per run.
func write(dir string, r *result) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	name := filepath.Join(dir, r.Started.Format("20060102T150405Z")+".json")
	if err := os.WriteFile(name, append(raw, '\n'), 0o644); err != nil {
		return err
	}
	fmt.Println("\n" + name)
	return nil
}

// measure takes every measure once a round, each round beginning with another
// one. The first, which is not counted, fills the caches.
func (b *bench) measure(ctx context.Context, measures []measure) (*result, error) {
	r := &result{Started: time.Now().UTC(), Machine: describeMachine(), Versions: b.versions(ctx), Rounds: b.rounds, Small: b.small,
		RawBytes: b.restored.Manifest.Totals.RawBytes, Missing: b.missing}
	runs := make(map[string][]sample)
	fmt.Fprintln(os.Stderr, "warming up")
	if _, err := measures[0].run(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", measures[0].name, err)
	}
	for round := range b.rounds {
		for i := range measures {
			m := measures[(i+round)%len(measures)]
			load := loadAverage()
			s, err := m.run(ctx)
			if err == nil {
				err = b.clear(ctx)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", m.name, err)
			}
			s.Load = load
			runs[m.name] = append(runs[m.name], s)
			fmt.Fprintf(os.Stderr, "%d/%d  %-26s %7.2f s  %6.2f CPU s  %4d MiB\n", round+1, b.rounds, m.name, s.Wall, s.CPU, s.Peak>>20)
		}
	}
	for _, m := range measures {
		r.Measures = append(r.Measures, summarise(m, runs[m.name]))
	}
	r.Ratios = ratios(r.Measures, b.restored)
	r.Finished = time.Now().UTC()
	return r, nil
}
