package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/pgstow/pgstow/archiver"
)

func rekeyCommand(rt *runtime) *command {
	return &command{
		manual: manual{
			usage: []string{
				"rekey ARCHIVE --bucket BUCKET --encrypt-to RECIPIENT --identity FILE [--reason TEXT] [--by WHO] [--name LABEL] [--json]",
			},
			text: `
Lets more people read an encrypted archive. Its objects stay as they are, locked or not: a small record beside them carries a header for the new recipients, by which they open the same files, with pgstow or with age alone (docs/evidence.md has the commands). It takes --identity of somebody who can read the archive now.

It removes nobody, and nothing can: who could read the archive still can, and may have a copy. To keep somebody out, encrypt the archives to come to others. An archive that is not encrypted cannot be encrypted later. One that is encrypted to post-quantum recipients takes only more of these.`,
			examples: []example{
				{"A new colleague:",
					"pgstow rekey k7m2q9xd --bucket gs://acme-archives/pg/ \\\n    --encrypt-to 'ssh-ed25519 AAAA...' --identity ~/.ssh/id_ed25519"},
				{"The auditors, with the reason on record:",
					"pgstow rekey latest --name orders --bucket gs://acme-archives/pg/ \\\n    --encrypt-to auditors.txt --identity /etc/pgstow/identity \\\n    --reason 'audit 2026'"},
			},
			exits: []int{exitStorage, exitNotFound, exitIntegrity},
		},
		Command: &cli.Command{
			Name:  "rekey",
			Usage: "let more people read an encrypted archive",
			Flags: []cli.Flag{
				bucketFlag(flagBucket),
				nameFlag("`LABEL` under which latest or a time is looked up"),
				encryptToFlag("let this `RECIPIENT` read it, too: an age recipient, an SSH public key, or a file with these"),
				identityFlag(), signFlag("the record"), allowedSignersFlag("take only what"), ignoreFlag(),
				&cli.StringFlag{Name: "reason", Usage: "`TEXT` that says why, recorded; one line"},
				byFlag(),
				jsonFlag(),
			},
			Action: func(c *cli.Context) error {
				r, err := parseRekey(c, rt)
				if err != nil {
					return err
				}
				r.opts.Log = rt.log
				return r.run(c.Context, rt)
			},
		},
	}
}

// rekey is one parsed "pgstow rekey".
type rekey struct {
	bucket bucketURL
	opts   archiver.RekeyOptions
	json   bool
}

func parseRekey(c *cli.Context, rt *runtime) (r rekey, err error) {
	ref, err := archiveArgument(c)
	if err != nil {
		return r, err
	}
	if r.bucket, err = rt.bucketOf(c, c.String(flagName)); err != nil {
		return r, err
	}
	recipients, err := rt.recipients(c)
	if err != nil {
		return r, err
	}
	identities, err := rt.identities(c)
	if err != nil {
		return r, err
	}
	switch {
	case recipients.IsZero():
		return r, usagef("rekey: to whom? Give --encrypt-to")
	case identities.IsZero():
		return r, usagef("rekey: only who can read the archive can let others read it; give --identity")
	}
	signer, err := rt.signer(c, nil)
	if err != nil {
		return r, err
	}
	trust, err := rt.trust(c)
	if err != nil {
		return r, err
	}
	r.json = c.Bool(flagJSON)
	r.opts = archiver.RekeyOptions{
		Ref: ref, Name: c.String(flagName), Recipients: recipients, Identities: identities, Signer: signer, Trust: trust,
		Reason: c.String("reason"), By: by(c), Pgstow: buildInfo().Version,
	}
	return r, nil
}

func (r rekey) run(ctx context.Context, rt *runtime) error {
	bucket, err := r.bucket.open(ctx, rt.log)
	if err != nil {
		return err
	}
	defer bucket.Close()
	r.opts.Bucket = bucket
	result, err := archiver.Rekey(ctx, r.opts)
	if err != nil {
		return fmt.Errorf("rekey %s in %s: %w", r.opts.Ref, r.bucket, err)
	}
	if r.json {
		return printJSON(rt.out, result)
	}
	t := newTable(rt.out)
	t.row("id", result.ID)
	t.row("label", result.Label)
	recipientRows(t, "added", result.Added)
	recipientRows(t, "still read it", result.Recipients)
	t.row("record", result.Record)
	t.row("read back", result.ReadBack)
	return t.flush()
}

// recipientRows lists recipients, one a row.
func recipientRows(t table, name string, texts []string) {
	for _, to := range texts {
		t.row(name, archiver.BriefRecipient(to))
		name = ""
	}
}
