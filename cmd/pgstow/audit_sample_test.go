package main

import (
	"fmt"
	"time"

	"github.com/pgstow/pgstow/archiver"
	"github.com/pgstow/pgstow/storage"
)

// sampleNow is the time of the sample audit.
var sampleNow = time.Date(2026, 11, 26, 6, 0, 0, 0, time.UTC)

// hostile is what may stand in a text that somebody else has chosen.
const hostile = `</style><script>alert("x")</script><img src=x onerror=alert(1)>"'&amp;{{.}}`

func sampleID(prefix byte, i int) string { return fmt.Sprintf("%c%07d", prefix, i) }

// sampleDatabase is a label with n archives, one every night, kept so many days.
func sampleDatabase(label string, n, keepDays int, mode storage.LockMode) archiver.AuditedDatabase {
	d := archiver.AuditedDatabase{Label: label, EverySeconds: 86400, Archives: []archiver.AuditedArchive{}}
	for i := range n {
		at := sampleNow.Add(-4*time.Hour).AddDate(0, 0, i+1-n)
		until := at.AddDate(0, 0, keepDays)
		rows := int64(1000 * i)
		a := archiver.AuditedArchive{
			ID: sampleID(label[0], i), Policy: "sox-7y", Key: "sox-7y/" + label + "/x/", Time: at, Finished: at.Add(20 * time.Minute),
			Size: int64(1<<30) + int64(i)*37<<20 + int64(i*i%7)*91<<20, ManifestSHA256: fmt.Sprintf("%064d", i), Database: label, ServerVersion: "17.2", Rows: &rows,
			KeepUntil: until, StorageClass: "STANDARD_IA",
			Checks: []archiver.AuditCheck{
				{Check: "manifest", Result: "ok", Detail: fmt.Sprintf("its own key, id, label and policy; SHA-256 %064d", i)},
				{Check: "objects", Result: "ok", Detail: "5 objects, 3 of them named by the manifest: there, with its sizes, versions and the store's checksums"},
				{Check: "lock", Result: "ok", Detail: "5 objects " + string(mode) + " until " + until.Format(time.RFC3339) + " or longer, as promised"},
				{Check: "verify", Result: "none", Detail: "no verification of it is recorded"},
			},
		}
		if mode != storage.LockNone {
			a.Promised = archiver.AuditedLock{Mode: mode, Until: until}
			a.Lock = a.Promised
		}
		if i%7 == 3 {
			a.Verified = []archiver.AuditedFact{{Time: at.Add(9 * time.Hour), Passed: true}}
			d.Verified = &archiver.AuditedProof{Archive: a.ID, Time: at.Add(9 * time.Hour)}
		}
		if i%20 == 11 {
			a.Drilled = []archiver.AuditedFact{{Time: at.Add(12 * time.Hour), Passed: true}}
			d.Drilled = &archiver.AuditedProof{Archive: a.ID, Time: at.Add(12 * time.Hour)}
		}
		d.Archives = append(d.Archives, a)
		d.Bytes += a.Size
	}
	if n > 0 {
		d.Oldest, d.Newest = d.Archives[0].Time, d.Archives[n-1].Time
	}
	return d
}

// samplePage is an audit with something of everything.
func samplePage() *auditReport {
	r := &archiver.AuditResult{Bucket: "s3://acme-archives/pg/", Time: sampleNow, Since: sampleNow.AddDate(0, 0, -30), Rules: archiver.RulesJudged}
	find := func(severity, check, label, id string, at time.Time, text, do string) {
		r.Findings = append(r.Findings, archiver.AuditFinding{Severity: severity, Check: check, Label: label, Archive: id, Time: at, Text: text, Do: do})
	}
	orders := sampleDatabase("orders", 42, 2557, storage.Compliance)
	orders.DrillEvery, orders.VerifyEvery = archiver.Period{Days: 90}, archiver.Period{Days: 30}
	orders.Archives = append(orders.Archives[:20], orders.Archives[22:]...)
	from, to := orders.Archives[19].Time, orders.Archives[20].Time
	orders.Gaps = []archiver.AuditGap{{From: from, To: to, Missed: 2, Violation: true}}
	weak := &orders.Archives[30]
	weak.Lock.Until = weak.Time.AddDate(0, 6, 0)
	weak.Violations = 1
	weak.Checks[2] = archiver.AuditCheck{Check: "lock", Result: "violation", Detail: "locked less than promised: archive.dump compliance until " + weak.Lock.Until.Format(time.RFC3339)}
	failed := &orders.Archives[35]
	failed.Verified = []archiver.AuditedFact{{Time: failed.Time.Add(30 * time.Hour)}}
	failed.Violations = 1
	find("violation", "lock", "orders", weak.ID, weak.Time, "locked less than promised (compliance until 2033-11-15T02:00:00Z): archive.dump compliance until 2027-05-15T02:00:00Z, index.json.gz compliance until 2027-05-15T02:00:00Z", "find out who could weaken it, then lock it again: `pgstow retain "+weak.ID+" --until 2033-11-15`")
	find("violation", "verify", "orders", failed.ID, failed.Time, "its verification of 2026-11-21T08:00:00Z failed, and none has passed since", "`pgstow verify "+failed.ID+"` says what is damaged; archive the database again")
	find("violation", "every", "orders", "", from.Add(24*time.Hour), "missed 2 archives between "+from.Format(time.RFC3339)+" and "+to.Format(time.RFC3339)+"; one is due every 24h", "look into the log of the runs in between, and write down why they failed")
	orders.Violations = 3
	billing := sampleDatabase("billing.eu-central", 3, 30, storage.LockNone)
	billing.EverySeconds = 0
	billing.Archives[1].Notices = 1
	billing.Notices = 1
	find("notice", "versions", billing.Label, billing.Archives[1].ID, billing.Archives[1].Time, "2 delete markers hide its objects from plain readers; pgstow reads below them", "find out who did it; `pgstow undelete "+billing.Archives[1].ID+"` makes them plain to see again")
	long := sampleDatabase("warehouse", 400, 365, storage.Governance)
	long.Archives[100].Violations, long.Violations = 1, 1
	find("violation", "objects", "warehouse", long.Archives[100].ID, long.Archives[100].Time, hostile, hostile)
	none := archiver.AuditedDatabase{Label: "lab", EverySeconds: 86400, Violations: 1, Archives: []archiver.AuditedArchive{}}
	find("violation", "every", "lab", "", sampleNow, "there is no archive of this database", "archive it: `pgstow archive lab`")
	r.Databases = []archiver.AuditedDatabase{billing, none, orders, long}
	r.Violations, r.Notices, r.Archives, r.Bytes = 5, 1, len(orders.Archives)+3+400, orders.Bytes+billing.Bytes+long.Bytes
	report := &auditReport{Format: auditFormat, Pgstow: "v1.2.3", Time: sampleNow, Checkpoint: &auditCheckpoint{File: "heads.json", Last: sampleNow.AddDate(0, 0, -1)}}
	report.add(r)
	report.judge()
	return report
}

// compliantPage is one of the other kind.
func compliantPage() *auditReport {
	r := &archiver.AuditResult{Bucket: "gs://acme/pg/", Time: sampleNow, Since: sampleNow.AddDate(0, 0, -30), Compliant: true, Findings: []archiver.AuditFinding{}}
	d := sampleDatabase("orders", 14, 2557, storage.Compliance)
	r.Databases, r.Archives, r.Bytes = []archiver.AuditedDatabase{d}, 14, d.Bytes
	report := &auditReport{Format: auditFormat, Pgstow: "v1.2.3", Time: sampleNow}
	report.add(r)
	report.judge()
	return report
}

// manyPage is an audit of more than ten thousand archives.
func manyPage() *auditReport {
	r := &archiver.AuditResult{Bucket: "s3://acme-archives/pg/", Time: sampleNow, Since: sampleNow.AddDate(0, 0, -30)}
	for i := range 28 {
		d := sampleDatabase(fmt.Sprintf("database-%02d", i), 365, 2557, storage.Compliance)
		d.Archives[17*i%365].Violations = 1
		d.Violations = 1
		r.Findings = append(r.Findings, archiver.AuditFinding{Severity: "violation", Check: "objects", Label: d.Label, Archive: d.Archives[17*i%365].ID, Text: "x", Do: "y"})
		r.Databases, r.Archives, r.Bytes = append(r.Databases, d), r.Archives+365, r.Bytes+d.Bytes
		r.Violations++
	}
	report := &auditReport{Format: auditFormat, Pgstow: "v1.2.3", Time: sampleNow}
	report.add(r)
	report.judge()
	return report
}
