package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/pgstow/pgstow/archiver"
	"github.com/pgstow/pgstow/storage"
)

// showObject shows an archive that has no manifest.
func (s show) showObject(ctx context.Context, rt *runtime, bucket storage.Bucket) error {
	meter := rt.startMeter("show")
	defer meter.stop()
	result, err := archiver.ShowObject(ctx, archiver.ShowObjectOptions{
		Bucket: bucket, Key: s.object, HeadOnly: s.toc, Log: rt.log, Progress: meter.report,
	})
	meter.stop()
	if err != nil {
		return fmt.Errorf("show %s in %s: %w", s.object, s.bucket, err)
	}
	switch {
	case s.json:
		return printJSON(rt.out, result)
	case s.toc:
		return printTOC(rt.out, result.Head)
	}
	o := result.Object
	t := newTable(rt.out)
	objectRows(t, s.bucket, o)
	t.row("contents", contents(o.Totals))
	t.row("", fmt.Sprintf("%s (%d bytes), %s uncompressed", size(o.Size), o.Size, size(o.Totals.RawBytes)))
	if err := t.flush(); err != nil {
		return err
	}
	return printContents(rt, result.Index)
}

// objectRows print what is known of an object without a manifest, and what is not.
func objectRows(t table, b bucketURL, o *archiver.ObjectInfo) {
	t.row("object", b.key(o.Key))
	optional(t, "version", o.Version)
	t.row("stored", utc(o.Stored))
	optional(t, "class", o.StorageClass)
	if o.SHA256 != "" {
		t.row("sha256", o.SHA256)
	}
	optional(t, "database", o.Source.Database)
	optional(t, "server", o.Source.ServerVersion)
	optional(t, "pg_dump", o.Tools.PgDump)
	if o.Made != "" {
		t.row("made", o.Made+", local time of its host, whose zone is not known")
	}
	t.row("format", strings.Join(nonEmpty("custom "+o.Dump.Version, compressionText(o.Dump)), ", "))
	t.row("structure", o.Structure)
	wrapped(t, "evidence", withReason(o.Evidence, o.EvidenceReason))
}
