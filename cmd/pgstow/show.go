package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/pgstow/pgstow/archiver"
)

func showCommand(rt *runtime) *command {
	return &command{
		manual: manual{
			usage: []string{"show --from BUCKET ARCHIVE [--name LABEL] [--toc] [--json]"},
			text: `
Reads the manifest and checks the index against it. ARCHIVE is an id, the start of one, "latest" (with --name), or a time such as 2026-11-22.`,
			examples: []example{
				{"The newest archive of a label:", "pgstow show --from gs://acme-archives/pg/ latest --name orders"},
				{"Its tables, where they lie in the dump and how large they are:",
					"pgstow show --from gs://acme-archives/pg/ k7m2q9xd --toc"},
			},
			exits: []int{exitStorage, exitNotFound, exitIntegrity},
		},
		Command: &cli.Command{
			Name:  "show",
			Usage: "show an archive's manifest and contents",
			Flags: []cli.Flag{
				bucketFlag("from"),
				nameFlag("`LABEL` under which latest or a time is looked up"),
				&cli.BoolFlag{Name: "toc", Usage: "list the data in the dump, too"},
				jsonFlag(),
			},
			Action: func(c *cli.Context) error {
				ref, err := archiveArgument(c)
				if err != nil {
					return err
				}
				bucket, err := bucketOf(c)
				if err != nil {
					return err
				}
				s := show{bucket: bucket, ref: ref, name: c.String(flagName), toc: c.Bool("toc"), json: c.Bool(flagJSON)}
				return s.run(c.Context, rt)
			},
		},
	}
}

// show is one parsed "pgstow show".
type show struct {
	bucket    bucketURL
	ref, name string
	toc, json bool
}

func (s show) run(ctx context.Context, rt *runtime) error {
	bucket, err := s.bucket.open(ctx, rt.log)
	if err != nil {
		return err
	}
	defer bucket.Close()
	result, err := archiver.Show(ctx, bucket, s.ref, s.name)
	if err != nil {
		return fmt.Errorf("show %s in %s: %w", s.ref, s.bucket, err)
	}
	if s.json {
		if !s.toc {
			result.Index = nil
		}
		return printJSON(rt.out, result)
	}
	if err := s.print(rt, result); err != nil {
		return err
	}
	if !s.toc {
		return nil
	}
	return printContents(rt, result.Index)
}

func (s show) print(rt *runtime, r *archiver.ShowResult) error {
	m := r.Manifest
	t := newTable(rt.out)
	t.row("id", m.ID)
	t.row("label", m.Label)
	t.row("policy", m.Policy)
	t.row("started", utc(m.Started))
	t.row("finished", fmt.Sprintf("%s (%s)", utc(m.Finished), m.Finished.Sub(m.Started).Round(time.Second/10)))
	t.row("database", m.Source.Database)
	t.row("host", hostText(m.Source.Host))
	t.row("server", m.Source.ServerVersion)
	optional(t, "encoding", m.Source.Encoding)
	optional(t, "system identifier", m.Source.SystemIdentifier)
	if m.Source.InRecovery {
		t.row("in recovery", "yes, the source was a standby")
	}
	t.row("pg_dump", m.Tools.PgDump)
	t.row("pgstow", m.Pgstow)
	t.row("format", strings.Join(nonEmpty(m.Format, "custom "+m.Archive.Version, m.Archive.Compression), ", "))
	t.row("structure", m.Structure)
	t.row("evidence", withReason(m.Evidence, m.EvidenceReason))
	t.row("globals", withReason(m.Globals, m.GlobalsReason))
	t.row("read back", m.ReadBack)
	t.row("contents", contents(m.Totals))
	objectRow(t, s.bucket, "dump", &m.Objects.Dump)
	objectRow(t, s.bucket, "index", m.Objects.Index)
	objectRow(t, s.bucket, "globals object", m.Objects.Globals)
	t.row("manifest", s.bucket.key(m.Key))
	t.row("manifest sha256", r.ManifestSHA256)
	for _, w := range m.Warnings {
		t.row("warning", oneLine(w))
	}
	return t.flush()
}

func objectRow(t table, b bucketURL, name string, o *archiver.StoredObject) {
	if o == nil {
		return
	}
	t.row(name, b.key(o.Key))
	t.row("", fmt.Sprintf("%s (%d bytes)", size(o.Size), o.Size))
	if o.SHA256 != "" {
		t.row("", "sha256 "+o.SHA256)
	}
	if o.Head != nil {
		t.row("", fmt.Sprintf("sha256 of the first %d bytes %s", o.Head.Length, o.Head.SHA256))
	}
	if o.Body != nil {
		t.row("", fmt.Sprintf("sha256 of the last %d bytes %s", o.Body.Length, o.Body.SHA256))
	}
	if o.Checksum != nil {
		t.row("", fmt.Sprintf("%s %s, as the store computed it", o.Checksum.Algorithm, o.Checksum.Value))
	}
	if o.Version != "" {
		t.row("", "version "+o.Version)
	}
}

func printContents(rt *runtime, index *archiver.Index) error {
	if index == nil {
		fmt.Fprintln(rt.err, "pgstow: this archive has no index: its format was newer than the pgstow that stored it")
		return nil
	}
	fmt.Fprintln(rt.out)
	t := newTable(rt.out)
	t.row("DUMP ID", "KIND", "NAME", "SIZE", "OFFSET", "SHA256")
	for _, b := range index.Blocks {
		name := b.Name
		if b.Schema != "" {
			name = b.Schema + "." + b.Name
		}
		if b.LargeObjects > 0 {
			name = strings.TrimSpace(name + " (" + counted(b.LargeObjects, "large object") + ")")
		}
		t.row(fmt.Sprint(b.DumpID), b.Kind, name, size(b.Length), fmt.Sprint(b.Offset), b.SHA256)
	}
	return t.flush()
}

func optional(t table, name, value string) {
	if value != "" {
		t.row(name, value)
	}
}

func hostText(host string) string {
	if host == "" {
		return "local socket"
	}
	return host
}

func withReason(value, reason string) string {
	if reason == "" {
		return value
	}
	return fmt.Sprintf("%s (%s)", value, oneLine(reason))
}

func nonEmpty(list ...string) []string {
	var out []string
	for _, s := range list {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}
