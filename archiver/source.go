package archiver

import (
	"context"
	"log/slog"
	"time"

	"github.com/pgstow/pgstow/dumper"
)

// sourceOptions are what archive and clone share of their preflight.
type sourceOptions struct {
	conn        dumper.Conn
	pgBin       string
	allowPooler bool
	args        []string
	log         *slog.Logger
}

// inspectSource is the preflight of a dump. The caller releases the snapshot.
func inspectSource(ctx context.Context, o sourceOptions) (*dumper.Source, dumper.Tools, error) {
	if err := dumper.CheckDumpArgs(o.args); err != nil {
		return nil, dumper.Tools{}, err
	}
	found, err := dumper.FindTools(ctx, o.pgBin)
	if err != nil {
		return nil, dumper.Tools{}, err
	}
	src, err := dumper.InspectSource(ctx, o.conn, dumper.SourceOptions{AllowPooler: o.allowPooler, DumpArgs: o.args, Log: o.log})
	if err != nil {
		return nil, dumper.Tools{}, err
	}
	tools, err := dumper.ChooseTools(found, src.ServerMajor)
	if err != nil {
		releaseSnapshot(ctx, src, o.log)
		return nil, dumper.Tools{}, err
	}
	for _, w := range src.Warnings {
		o.log.Warn(w)
	}
	return src, tools, nil
}

// releaseSnapshot ends the session that exports the snapshot, also when ctx
// has ended: an open snapshot keeps the server from vacuuming.
func releaseSnapshot(ctx context.Context, src *dumper.Source, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := src.Release(ctx); err != nil {
		log.Warn("snapshot session could not be closed in order", "error", err)
	}
}
