package archiver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/pgstow/pgstow/storage"
)

// RecordFormat is the "format" of the records this version writes, and the
// newest it reads.
const (
	RecordFormat = "pgstow-record/1"
	recordName   = "pgstow-record/"
	recordMajor  = 1
	maxRecord    = 2 * maxManifest // one of RecordExpire has a manifest in base64
)

// Kinds of records.
const (
	RecordHold   = "hold"   // results: HoldSet, HoldReleased
	RecordVerify = "verify" // results: ResultPassed, ResultFailed
	RecordDrill  = "drill"  // as RecordVerify
	RecordRekey  = "rekey"  // result: ResultAdded
	// RecordExpire is written before the first object of an expired archive is
	// deleted, and deleted with the last: with it an interrupted run is finished
	// by the next. It carries the manifest.
	RecordExpire = "expire"
)

// Results of records.
const (
	HoldSet      = "set"
	HoldReleased = "released"
	ResultPassed = "passed"
	ResultFailed = "failed"
	ResultBegun  = "begun" // of RecordExpire
)

// Record is a later fact about an archive: the JSON of records/*.json, see
// docs/archive-layout.md and docs/record.schema.json.
type Record struct {
	Format  string    `json:"format"`
	Kind    string    `json:"kind"`
	Archive string    `json:"archive"` // its id
	Key     string    `json:"key"`     // the record's own, compared on reading
	Time    time.Time `json:"time"`    // when it was written
	// ManifestSHA256 ties the fact to what the archive was then.
	ManifestSHA256 string `json:"manifest_sha256"`
	By             string `json:"by"` // who, as they said themselves
	Reason         string `json:"reason,omitempty"`
	Result         string `json:"result"`
	Pgstow         string `json:"pgstow"`
	// Drill is what a drill did and found.
	Drill *RecordedDrill `json:"drill,omitempty"`
	// Verify is, with RecordVerify, what was looked at and found.
	Verify *VerifyFacts `json:"verify,omitempty"`
	// Manifest is, with RecordExpire, the bytes of the manifest.
	Manifest []byte `json:"manifest,omitempty"`
	// Recipients are, with RecordRekey, whom Headers open the archive to.
	Recipients []string        `json:"recipients,omitempty"`
	Headers    []RekeyedHeader `json:"headers,omitempty"`
}

// RecordEntry is a record as it was found; one that cannot be read has its
// reason.
type RecordEntry struct {
	Name    string  `json:"name"` // below the archive's key
	Version string  `json:"version,omitempty"`
	Record  *Record `json:"record,omitempty"`
	Error   string  `json:"error,omitempty"`
	// Signature is that of the record; nil where nothing of it could be read.
	Signature *Signature `json:"signature,omitempty"`
}

// unsigned tells a record that only lacks the signature it would need to count.
func (r *RecordEntry) unsigned() bool {
	return r.Error != "" && r.Signature != nil && r.Signature.State == SignatureUnsigned
}

// newRecordName makes names that sort by time; the id keeps two of one second
// apart.
func newRecordName(kind string, now time.Time) string {
	return RecordsDir + now.UTC().Format(keyTime) + "-" + newID() + "-" + kind + ".json"
}

// recordKind is the kind that the name of a record ends in, "" for other names:
// the signature of one, or what a later version writes.
func recordKind(name string) string {
	rest, ok := strings.CutPrefix(name, RecordsDir)
	if !ok {
		return ""
	}
	rest, ok = strings.CutSuffix(rest, ".json")
	if i := strings.LastIndexByte(rest, '-'); ok && i > 0 {
		return rest[i+1:]
	}
	return ""
}

// checkWords refuses what would make a record, or its line in a terminal,
// illegible.
func checkWords(what, text string, limit int) error {
	switch {
	case strings.TrimSpace(text) == "":
		return fmt.Errorf("%w: %s is empty; say it in a few words", ErrUsage, what)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl):
		return fmt.Errorf("%w: %s has line breaks or control characters; give one line of text", ErrUsage, what)
	case utf8.RuneCountInString(text) > limit:
		return fmt.Errorf("%w: %s has %d characters; %d are enough", ErrUsage, what, utf8.RuneCountInString(text), limit)
	}
	return nil
}

// Limits of what people write into records.
const (
	maxReason = 1000
	maxBy     = 200
)

// storedRecord is a record that was written, and its signature; nil without one.
type storedRecord struct {
	EntryObject
	signature *EntryObject
}

// putRecord adds a fact to an archive, signed if there is a key. all is what
// look saw of the archive: the record lasts as long as the rest and is held with
// it. kept is the archive's own. The signature goes first: the record is what
// makes both exist.
func putRecord(ctx context.Context, b storage.Bucket, e Entry, r Record, signer Signer, all []seen, kept *Kept, now time.Time) (storedRecord, error) {
	dir := e.dir()
	name := newRecordName(r.Kind, now)
	r.Format, r.Archive, r.Key, r.Time = RecordFormat, e.ID, dir.Key(name), now.UTC().Truncate(time.Second)
	var body bytes.Buffer
	j := json.NewEncoder(&body)
	j.SetEscapeHTML(false)
	j.SetIndent("", "  ")
	if err := j.Encode(r); err != nil {
		return storedRecord{}, fmt.Errorf("encode record: %w", err)
	}
	var stored storedRecord
	put := func(name string, data []byte, contentType string) (EntryObject, error) {
		opts := recordOptions(b, e, name, all, kept, now)
		opts.ContentType = contentType
		o, err := storage.PutBytes(ctx, b, dir.Key(name), data, opts)
		return EntryObject{Name: name, Version: o.Version, Size: int64(len(data)), Created: o.Created}, err
	}
	if signer != nil {
		armored, err := signer.Sign(body.Bytes())
		if err != nil {
			return storedRecord{}, fmt.Errorf("sign record: %w", err)
		}
		o, err := put(name+SuffixSignature, armored, "text/plain")
		if err != nil {
			return storedRecord{}, fmt.Errorf("store the record's signature: %w", err)
		}
		stored.signature = &o
	}
	var err error
	if stored.EntryObject, err = put(name, body.Bytes(), "application/json"); err != nil {
		return storedRecord{}, fmt.Errorf("store record: %w", err)
	}
	return stored, nil
}

// recordOptions give a record what the archive has now: the longest lock of its
// objects, the hold if one of them has it, and the custom time.
func recordOptions(b storage.Bucket, e Entry, name string, all []seen, kept *Kept, now time.Time) storage.PutOptions {
	var opts storage.PutOptions
	hidden := false
	for _, s := range all {
		if !strings.HasPrefix(s.Name, RecordsDir) {
			opts.Retention = longest(opts.Retention, s.retention())
		}
		opts.LegalHold = opts.LegalHold || s.o.LegalHold
		if s.o.CustomTime.After(opts.CustomTime) {
			opts.CustomTime = s.o.CustomTime
		}
		hidden = hidden || s.hides(storage.AttributeRetention)
	}
	if kept != nil {
		k := keeper{bucket: b, policy: kept.Policy}
		if e.Policy != DefaultPolicy {
			k.policy.Name = e.Policy
		}
		opts.Encryption = storage.Encryption(kept.Encryption)
		if b.Capabilities().Tags {
			opts.Tags = k.tags(name)
		}
		if hidden { // what was promised is the best that is known
			opts.Retention = longest(opts.Retention, storage.Retention{Mode: kept.Lock, Until: kept.RetainUntil})
		}
	}
	if !opts.Retention.Until.After(now) {
		opts.Retention = storage.Retention{}
	}
	return opts
}

// longest keeps the firmer mode and the later time of both.
func longest(a, b storage.Retention) storage.Retention {
	if b.IsZero() {
		return a
	}
	if !a.Covers(storage.Retention{Mode: b.Mode}) {
		a.Mode = b.Mode
	}
	if b.Until.After(a.Until) {
		a.Until = b.Until
	}
	return a
}

// readRecords reads the records of an archive, of one kind or ("") of all,
// oldest first. One that cannot be read, or that must not be relied on, is told
// of in its entry and has no Record.
func readRecords(ctx context.Context, b storage.Bucket, e Entry, kind string, t Trust) ([]RecordEntry, error) {
	var found []RecordEntry
	for _, o := range e.Objects {
		if k := recordKind(o.Name); k != "" && (kind == "" || k == kind) {
			found = append(found, RecordEntry{Name: o.Name, Version: o.Version})
		}
	}
	var g errgroup.Group
	g.SetLimit(manifestReaders)
	for i := range found {
		g.Go(func() error {
			err := found[i].read(ctx, b, e, t)
			found[i].Error = oneLine(err)
			return nil
		})
	}
	_ = g.Wait()
	return found, context.Cause(ctx)
}

// read fills in the record, its signature judged first.
func (r *RecordEntry) read(ctx context.Context, b storage.Bucket, e Entry, t Trust) error {
	raw, err := readSmall(ctx, b, e.dir().Key(r.Name), r.Version, maxRecord)
	if err != nil {
		return fmt.Errorf("read record: %w", err)
	}
	s, err := t.trusted(ctx, b, e, r.Name, raw)
	if s.State != "" {
		r.Signature = &s
	}
	if err != nil {
		return err
	}
	r.Record, err = decodeRecord(raw, e.dir(), r.Name)
	return err
}

func decodeRecord(raw []byte, dir Dir, name string) (*Record, error) {
	key := dir.Key(name)
	if err := checkFormat(raw, recordName, recordMajor); err != nil {
		return nil, fmt.Errorf("record %s: %w", key, err)
	}
	r := new(Record)
	if err := json.Unmarshal(raw, r); err != nil {
		return nil, integrity("record %s: a field has the wrong type: %w", key, err)
	}
	switch {
	case r.Key != key || r.Archive != dir.ID:
		return nil, integrity("record %s: it belongs to %q: it was copied or moved here", key, r.Key)
	case r.Kind != recordKind(name):
		return nil, integrity("record %s: its kind is %q", key, r.Kind)
	}
	return r, nil
}

// verified reports whether the newest verification of the archive with this
// manifest has passed. One that did not read everything proves nothing, but what
// it found wrong counts. A record that cannot be read or relied on is none.
func verified(ctx context.Context, b storage.Bucket, e Entry, manifestSHA256 string, t Trust) (bool, error) {
	records, err := readRecords(ctx, b, e, RecordVerify, t)
	passed := false
	for _, r := range records {
		if r.Record != nil && r.Record.ManifestSHA256 == manifestSHA256 {
			full := r.Record.Verify != nil && r.Record.Verify.Mode == ModeFull
			passed = r.Record.Result == ResultPassed && (full || passed)
		}
	}
	return passed, err
}
