package s3

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pgstow/pgstow/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// watchedLog tells when a request has failed and is tried again.
type watchedLog struct {
	failures atomic.Int32
	broken   func()
}

func (l *watchedLog) logger() *slog.Logger { return slog.New(l) }

func (l *watchedLog) Enabled(context.Context, slog.Level) bool { return true }
func (l *watchedLog) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *watchedLog) WithGroup(string) slog.Handler            { return l }

func (l *watchedLog) Handle(_ context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "request failed") {
		l.failures.Add(1)
		l.broken()
	}
	return nil
}
