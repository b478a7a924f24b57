// Command demo shows pgstow at work: it starts a throwaway PostgreSQL cluster
// and an S3 server, loads a sample, archives it, restores it into another
// database, compares the two, verifies, drills and audits. Nothing of it is left,
// however it ends, but the audit's page where one is asked for.
//
//	make demo
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	opts := options{}
	flag.StringVar(&opts.pgstow, "pgstow", "bin/pgstow", "the `program` to show")
	flag.IntVar(&opts.scale, "scale", 10, "size of the sample; 1 is about 100,000 rows")
	flag.BoolVar(&opts.keep, "keep", false, "leave the servers running until Ctrl-C")
	flag.StringVar(&opts.page, "page", "", "leave the page of the audit in this `file`")
	flag.Parse()
	ctx, stop := untilSignal(context.Background())
	err := run(ctx, opts, newScreen(os.Stdout))
	var s signalled
	switch {
	case errors.As(context.Cause(ctx), &s):
		fmt.Fprintln(os.Stderr, "\ndemo: "+s.Error()+"; everything is removed")
		if err != nil && !errors.Is(err, context.Canceled) && !errors.As(err, &s) {
			fmt.Fprintln(os.Stderr, "demo:", err)
		}
		stop()
		os.Exit(128 + int(s.signal))
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	stop()
}

// signalled is the cause of a context that a signal has ended.
type signalled struct{ signal syscall.Signal }

func (s signalled) Error() string { return s.signal.String() }

// untilSignal ends the context at the first signal. Later ones do nothing: the
// clean-up is under way, and bounded.
func untilSignal(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		select {
		case s := <-signals:
			cancel(signalled{s.(syscall.Signal)})
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil); signal.Stop(signals) }
}
