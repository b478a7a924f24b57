package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/pgstow/pgstow/archiver"
	"github.com/pgstow/pgstow/storage"
)

const (
	flagPrintPolicy = "print-policy"
	flagBucketLock  = "bucket-lock"
	flagFor         = "for"
	doctorWidth     = 49 // beside status and name
)

func doctorCommand(rt *runtime) *command {
	return &command{
		manual: manual{
			usage: []string{
				"doctor [--db URL] [--to BUCKET] [--for PROFILE] [--no-write] [--json]",
				"doctor DATABASE --config FILE [--for PROFILE] [--no-write] [--json]",
				"doctor [--encrypt-to RECIPIENT] [--identity FILE] [--sign-key FILE]",
				"doctor --print-policy PROFILE --to BUCKET [--policy NAME | --keep ...]",
			},
			text: `
Checks what an archive would need: client programs, connection, pooler, rights in the database, keys, and the bucket. With the keys of the policy, or those given, a message is encrypted and signed, and where an identity is given decrypted again. In the bucket it does what pgstow does, in a folder of its own (pgstow-doctor/): uploads are begun and given up, one tiny object is written, read, locked as the policy locks but for minutes, refused to be deleted, and removed where nothing locks it. What is not given is not checked. DATABASE is a name in the configuration, and brings its store and policy with it.

Each line is ok, denied (with the right that is missing), unsupported or failed. Only what an archive cannot do without makes the exit code other than 0: credentials that may do nothing but add are good for a vault. The last line says for which profile they are enough. With --for a right that the profile lacks is a failure; --for auditor reads what is there and writes nothing.

--print-policy prints the least rights for a profile: "vault" adds archives and nothing else, "archive" also reads back, lists, shows, verifies, drills and restores, "full" also retains, holds, expires, cleans up and sets lifecycle rules. "auditor" lists, shows, verifies and audits archives of any policy, and changes nothing. For S3 it is an IAM policy, for GCS a custom role. Locks, holds, tags and a key are granted as far as the policy asks for them. Nothing is asked of the store: a default lock of the bucket's own, which archives get where it is the stronger, is named with --bucket-lock.`,
			examples: []example{
				{"Before the first archive:",
					"export PGSTOW_DB=service=orders\npgstow doctor --to 's3://acme-archives/pg/?region=eu-central-1'"},
				{"Whether these credentials can keep archives so:",
					"pgstow doctor --to s3://acme-vault/pg/ --keep 7y --lock compliance"},
				{"Rights for a job that only adds such archives, on S3 and on GCS:",
					"pgstow doctor --print-policy vault --to s3://acme-vault/pg/ \\\n    --keep 7y --lock compliance > vault.json\n" +
						"aws iam create-policy --policy-name pgstow-vault \\\n    --policy-document file://vault.json\n" +
						"pgstow doctor --print-policy vault --to gs://acme-vault/pg/ \\\n    --keep 7y --lock compliance > vault.yaml\n" +
						"gcloud iam roles create pgstow_vault --project=acme --file=vault.yaml"},
				{"Whether an auditor's credentials are enough:", "pgstow doctor --for auditor --to s3://acme-vault/pg/"},
			},
			exits: []int{exitDatabase, exitStorage, exitNotFound, exitRefused, exitIntegrity},
		},
		Command: &cli.Command{
			Name:  "doctor",
			Usage: "check tools, database and bucket before they matter",
			Flags: slices.Concat([]cli.Flag{
				dbFlag("`URL` or keyword string of the database to dump"),
				bucketFlag("to"),
			}, policyFlags(), []cli.Flag{
				&cli.BoolFlag{Name: "no-write", Usage: "write nothing to the bucket: its rights to write are not tried then"},
				&cli.StringFlag{Name: flagPrintPolicy, Usage: "print the least rights for `PROFILE` (vault, archive, full or auditor) and check nothing"},
				&cli.StringFlag{Name: flagFor, Usage: "want the credentials to be enough for `PROFILE`"},
				&cli.StringFlag{Name: flagBucketLock, Usage: "with --print-policy: the bucket's own default lock, `MODE:PERIOD`, such as governance:1y"},
				encryptToFlag("encrypt a message to this `RECIPIENT`, as archives are to be"), identityFlag(),
				signFlag("a message"), allowedSignersFlag("say whether"),
				pgBinFlag(), poolerFlag(), jsonFlag(),
			}),
			Action: func(c *cli.Context) error {
				if c.IsSet(flagPrintPolicy) {
					if c.IsSet(flagFor) {
						return usagef("--for and --print-policy exclude each other: one checks, the other prints")
					}
					return printPolicy(c, rt)
				}
				if c.IsSet(flagBucketLock) {
					return usagef("--bucket-lock goes with --print-policy; without it the bucket is asked")
				}
				d, err := newDoctor(c, rt)
				if err != nil {
					return err
				}
				return d.run(c.Context, rt)
			},
		},
	}
}

// doctor is one parsed "pgstow doctor".
type doctor struct {
	opts archiver.DoctorOptions
	json bool
}

func newDoctor(c *cli.Context, rt *runtime) (*doctor, error) {
	source, err := rt.databaseArgument(c)
	if err != nil {
		return nil, err
	}
	d := &doctor{json: c.Bool(flagJSON), opts: archiver.DoctorOptions{
		PGBin: c.String(flagPGBin), AllowPooler: c.Bool(flagPooler), Log: rt.log,
	}}
	if source != nil || c.String(flagDB) != "" || libpqEnvironment() {
		conn, err := rt.sourceConn(c, source)
		if err != nil {
			return nil, err
		}
		d.opts.Conn = &conn
	}
	if d.opts.Keys, err = rt.doctorKeys(c, source); err != nil {
		return nil, err
	}
	switch bucket, found, err := rt.findBucket(c, source.label()); {
	case err != nil:
		return nil, err
	case found:
		d.opts.Place, d.opts.NoWrite = bucket.rights, c.Bool("no-write")
		if c.IsSet(flagFor) {
			if d.opts.For, err = archiver.ParseProfile(c.String(flagFor)); err != nil {
				return nil, err
			}
		}
		d.opts.Announce = func(text string) { fmt.Fprintf(rt.err, "pgstow: %s\n", text) }
		if d.opts.Policy, d.opts.MaxKeep, err = rt.keeping(c, source, bucket); err != nil {
			return nil, err
		}
		d.opts.OpenBucket = func(ctx context.Context) (storage.Bucket, error) { return bucket.open(ctx, rt.log) }
	}
	if c.IsSet(flagFor) && d.opts.OpenBucket == nil {
		return nil, usagef("--for: of which bucket? Name it with --to")
	}
	return d, nil
}

// doctorKeys open what an archive would be encrypted and signed with when they
// are looked at: what is wrong with them is what the doctor is asked for.
func (rt *runtime) doctorKeys(c *cli.Context, source *database) (k archiver.DoctorKeys, err error) {
	p, err := rt.namedPolicy(c, source)
	if err != nil {
		return k, err
	}
	return archiver.DoctorKeys{
		Recipients: func() (archiver.Recipients, error) { return rt.archiveRecipients(c, p) },
		Identities: func() (archiver.Identities, error) { return rt.identities(c) },
		Signer:     func() (archiver.Signer, error) { return rt.signer(c, p) },
		Trust:      func() (archiver.Trust, error) { return rt.trust(c) },
	}, nil
}

// printPolicy is "pgstow doctor --print-policy".
func printPolicy(c *cli.Context, rt *runtime) error {
	source, err := rt.databaseArgument(c)
	if err != nil {
		return err
	}
	profile, err := archiver.ParseProfile(c.String(flagPrintPolicy))
	if err != nil {
		return err
	}
	bucket, err := rt.bucketOf(c, source.label())
	if err != nil {
		return err
	}
	policy, maxKeep, err := rt.keeping(c, source, bucket)
	if err != nil {
		return err
	}
	lock, err := bucketLock(c.String(flagBucketLock), bucket)
	if err != nil {
		return err
	}
	text, err := archiver.LeastRights(archiver.RightsOptions{
		Profile: profile, Place: bucket.rights, Policy: policy, BucketLock: lock, MaxKeep: maxKeep, JSON: c.Bool(flagJSON),
	})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprint(rt.out, text); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// bucketLock reads --bucket-lock.
func bucketLock(text string, b bucketURL) (d storage.DefaultRetention, err error) {
	if text == "" {
		return d, nil
	}
	mode, rest, _ := strings.Cut(text, ":")
	period, err := archiver.ParsePeriod(rest)
	d = storage.DefaultRetention{Mode: storage.LockMode(mode), Years: period.Years, Days: period.Days}
	switch {
	case d.Mode != storage.Governance && d.Mode != storage.Compliance, err != nil, period.Months != 0:
		return d, usagef("--bucket-lock %q: want governance or compliance, a colon and years or days, such as governance:1y", text)
	case b.scheme != "s3":
		return d, usagef("--bucket-lock: only S3 buckets have a default that counts for rights; %s has none", b)
	}
	return d, nil
}

func (d *doctor) run(ctx context.Context, rt *runtime) error {
	checks := archiver.Doctor(ctx, d.opts)
	if err := d.print(rt, checks); err != nil {
		return err
	}
	var failed []string
	var first error
	for _, check := range checks {
		if check.Err == nil {
			continue
		}
		failed = append(failed, check.Name)
		if first == nil {
			first = check.Err
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return fmt.Errorf("doctor: %s of %d failed, the first is %s: %w", counted(len(failed), "check"), len(checks), failed[0], first)
}

func (d *doctor) print(rt *runtime, checks []archiver.Check) error {
	if d.json {
		if checks == nil {
			checks = []archiver.Check{}
		}
		return printJSON(rt.out, checks)
	}
	t := newTable(rt.out)
	for _, check := range checks {
		status, name := check.Status, check.Name
		for _, line := range lines(check.Detail, doctorWidth) {
			t.row(status, name, line)
			status, name = "", ""
		}
		if check.Advice == "" {
			continue
		}
		for _, line := range lines(check.Advice, doctorWidth) {
			t.row("", "", line)
		}
	}
	return t.flush()
}
