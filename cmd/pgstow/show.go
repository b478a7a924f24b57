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
			usage: []string{
				"show --from BUCKET ARCHIVE [--name LABEL] [--toc] [--json]",
				"show --from BUCKET --object KEY [--toc] [--json]",
			},
			text: `
Reads the manifest, checks the index against it, and prints both: what the archive is, and per table its rows and its size before and after compression (of large objects, how many there are). How it is kept stands there twice: as its policy promised when it was made, and as the store shows it now, which is the weakest of all its objects. ARCHIVE is an id, the start of one, "latest" (with --name), or a time such as 2026-11-22. Of an encrypted archive the manifest alone is shown, unless --identity opens it.

With --object any object that pg_dump -Fc has written is read through and shown: that it is complete and decodes, and per table rows and sizes. With --toc only its head is read. Where it came from, and whether it is what was written there once, nobody can tell without a manifest.`,
			examples: []example{
				{"The newest archive of a label:", "pgstow show --from gs://acme-archives/pg/ latest --name orders"},
				{"Everything in the dump, as pg_restore -l lists it:",
					"pgstow show --from gs://acme-archives/pg/ k7m2q9xd --toc"},
				{"Whether a dump of somebody else's is whole, and what is in it:",
					"pgstow show --from s3://acme-dumps/ --object nightly/orders.dump"},
				{"Row counts and content hashes, for a script:",
					"pgstow show --from gs://acme-archives/pg/ k7m2q9xd --json | \\\n    jq .index.blocks"},
			},
			exits: []int{exitStorage, exitNotFound, exitIntegrity},
		},
		Command: &cli.Command{
			Name:  "show",
			Usage: "show an archive's manifest and contents",
			Flags: []cli.Flag{
				bucketFlag("from"),
				nameFlag("`LABEL` under which latest or a time is looked up"),
				objectFlag(), identityFlag(), allowedSignersFlag("take only what"), ignoreFlag(),
				&cli.BoolFlag{Name: "toc", Usage: "list the dump's table of contents instead, as pg_restore -l does"},
				jsonFlag(),
			},
			Action: func(c *cli.Context) error {
				ref, object, err := subject(c)
				if err != nil {
					return err
				}
				bucket, err := rt.bucketOf(c, c.String(flagName))
				if err != nil {
					return err
				}
				trust, err := rt.trust(c)
				if err != nil {
					return err
				}
				ids, err := rt.identities(c)
				if err != nil {
					return err
				}
				s := show{bucket: bucket, trust: trust, ref: ref, object: object, name: c.String(flagName), ids: ids, toc: c.Bool("toc"), json: c.Bool(flagJSON)}
				return s.run(c.Context, rt)
			},
		},
	}
}

// show is one parsed "pgstow show".
type show struct {
	bucket    bucketURL
	ref, name string
	object    string // instead of ref
	trust     archiver.Trust
	ids       archiver.Identities
	toc, json bool
}

func (s show) run(ctx context.Context, rt *runtime) error {
	bucket, err := s.bucket.open(ctx, rt.log)
	if err != nil {
		return err
	}
	defer bucket.Close()
	if s.object != "" {
		return s.showObject(ctx, rt, bucket)
	}
	result, err := archiver.Show(ctx, archiver.ShowOptions{Bucket: bucket, Ref: s.ref, Name: s.name, Trust: s.trust, Identities: s.ids})
	if err != nil {
		return fmt.Errorf("show %s in %s: %w", s.ref, s.bucket, err)
	}
	if s.toc {
		if err := result.LoadTOC(ctx); err != nil {
			return fmt.Errorf("show %s in %s: %w", s.ref, s.bucket, err)
		}
	}
	switch {
	case s.json:
		return printJSON(rt.out, result)
	case s.toc:
		return printTOC(rt.out, result.Head)
	}
	if err := s.print(rt, result); err != nil {
		return err
	}
	if result.Index == nil && len(result.Manifest.Recipients) > 0 {
		fmt.Fprintln(rt.err, "pgstow: its tables stand in the index, which is encrypted: give --identity FILE to see them")
		return nil
	}
	return printContents(rt, result.Index)
}

func (s show) print(rt *runtime, r *archiver.ShowResult) error {
	m, withheld := r.Manifest, r.Told()
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
	optional(t, "system id", m.Source.SystemIdentifier)
	if m.Source.InRecovery {
		t.row("recovery", "the source was a standby")
	}
	t.row("pg_dump", m.Tools.PgDump)
	t.row("pgstow", m.Pgstow)
	t.row("format", strings.Join(nonEmpty(m.Format, "custom "+m.Archive.Version, compressionText(m.Archive)), ", "))
	t.row("structure", m.Structure)
	wrapped(t, "evidence", withReason(m.Evidence, withheld.EvidenceReason))
	wrapped(t, "globals", withReason(m.Globals, m.GlobalsReason))
	t.row("read back", m.ReadBack)
	t.row("contents", contents(m.Totals))
	if m.Totals.RawBytes > 0 {
		t.row("", fmt.Sprintf("%s, %s uncompressed", size(m.Totals.Bytes), size(m.Totals.RawBytes)))
	}
	recipientRows(t, "encrypted to", m.Recipients)
	for _, rec := range r.Records {
		if rec.Record != nil {
			recipientRows(t, "by rekey to", rec.Record.Recipients)
		}
	}
	objectRow(t, s.bucket, "dump", &m.Objects.Dump)
	objectRow(t, s.bucket, "index", m.Objects.Index)
	objectRow(t, s.bucket, "globals", m.Objects.Globals)
	t.row("manifest", s.bucket.key(m.Key))
	t.row("", "sha256 of it:")
	t.row("", r.ManifestSHA256)
	signatureRow(t, r.Signature)
	previousRow(t, m.Previous)
	keptRows(t, m)
	protectionRows(t, r, time.Now())
	if r.Thaw != nil {
		wrapped(t, "thaw", coldText(r.Thaw, time.Now()))
	}
	for _, w := range withheld.Warnings {
		wrapped(t, "warning", oneLine(w))
	}
	return t.flush()
}

// coldText says whether a dump in a cold class can be read.
func coldText(s *archiver.ThawState, now time.Time) string {
	switch {
	case s.Until.After(now):
		return fmt.Sprintf("in %s, a copy is readable until %s", s.Class, utc(s.Until))
	case s.Ongoing:
		return fmt.Sprintf("in %s, being thawed (%s)", s.Class, s.Tiers)
	}
	return fmt.Sprintf("in %s, to be thawed before it can be restored (%s)", s.Class, s.Tiers)
}

func objectRow(t table, b bucketURL, name string, o *archiver.StoredObject) {
	if o == nil {
		return
	}
	t.row(name, b.key(o.Key))
	t.row("", fmt.Sprintf("%s (%d bytes)", size(o.Size), o.Size))
	hash := func(of, sum string) {
		t.row("", "sha256 of "+of+":")
		t.row("", sum)
	}
	if o.SHA256 != "" {
		hash("it", o.SHA256)
	}
	decrypted := ""
	if o.Plain != nil {
		decrypted = ", decrypted"
		hash(fmt.Sprintf("what is in it, %d bytes", o.Plain.Size), o.Plain.SHA256)
	}
	if o.Head != nil {
		hash(fmt.Sprintf("its first %d bytes%s", o.Head.Length, decrypted), o.Head.SHA256)
	}
	if o.Body != nil {
		hash(fmt.Sprintf("its last %d bytes", o.Body.Length), o.Body.SHA256)
	}
	if o.Checksum != nil {
		t.row("", fmt.Sprintf("%s %s, as the store computed it", o.Checksum.Algorithm, o.Checksum.Value))
	}
	if o.Version != "" {
		t.row("", "version "+o.Version)
	}
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
