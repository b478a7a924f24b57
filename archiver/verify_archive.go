package archiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// verifying is the verification of one archive.
type verifying struct {
	*VerifiedArchive
	opts     VerifyOptions
	entry    Entry
	progress *tracker

	m       *Manifest
	all     []seen        // every listed object, and those that the manifest names
	records []RecordEntry // of all kinds
}

// verifyEntry verifies one archive. replaced are those who say that its manifest was
// another one.
func verifyEntry(ctx context.Context, e Entry, opts VerifyOptions, replaced []Problem) *VerifiedArchive {
	v := &verifying{
		VerifiedArchive: &VerifiedArchive{
			ID: e.ID, Label: e.Label, Policy: e.Policy, Key: e.Key, Time: e.Time, VerifyFacts: VerifyFacts{Mode: ModeFull},
		},
		opts: opts, entry: e, progress: newTracker(opts.Progress),
	}
	if opts.Quick {
		v.Mode = ModeQuick
	}
	v.problems(replaced...)
	v.run(ctx)
	switch {
	case len(v.Problems) > 0:
		v.Result = ResultFailed
	case v.err != nil:
		v.Result = ResultUndecided
	default:
		v.Result = ResultPassed
	}
	if ctx.Err() == nil {
		v.record(ctx)
	}
	v.Error = oneLine(v.err)
	return v.VerifiedArchive
}

// run goes on behind what it finds, as far as that can be relied on.
func (v *verifying) run(ctx context.Context) {
	v.progress.phase(PhasePreflight)
	v.later()
	if err := v.readManifest(ctx); err != nil {
		v.finding(ManifestName, err)
	}
	if err := v.askStore(ctx); err != nil {
		v.finding(DumpName, err)
		return
	}
	if v.m == nil {
		return
	}
	v.compareStored()
	v.comparePromise()
	if v.Mode == ModeQuick || v.err != nil {
		return
	}
	v.readBack(ctx)
}

// later tells what lies over the objects. It hides them from plain readers alone.
func (v *verifying) later() {
	if v.entry.Hidden {
		v.warn(v.opts.Log, "delete markers or later versions hide objects of it from plain readers; `pgstow undelete` removes the markers")
	} else if len(v.entry.Later) > 0 {
		v.warn(v.opts.Log, "there are later versions of its objects, which change nothing for pgstow; `pgstow show` lists them")
	}
}

func (v *verifying) readManifest(ctx context.Context) error {
	key := v.entry.dir().Key(ManifestName)
	raw, err := readSmall(ctx, v.opts.Bucket, key, v.entry.version(ManifestName), maxManifest)
	if err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	v.ManifestSHA256 = hexSum(raw)
	v.Bytes += int64(len(raw))
	if v.Signature, err = readSignature(ctx, v.opts.Bucket, v.entry, ManifestName, raw, v.opts.Trust); err != nil {
		v.finding(SignatureName, err)
	} else {
		v.judge()
	}
	if v.m, err = decodeManifest(raw, v.entry.dir()); err != nil {
		v.m = nil
	}
	return err
}

// judge says what the manifest's signature is worth.
func (v *verifying) judge() {
	s, t := v.Signature, v.opts.Trust
	object := SignatureName
	if s.State == SignatureUnsigned {
		object = ManifestName
	}
	switch err := t.check(s, "the manifest"); {
	case err != nil:
		v.problems(Problem{Object: object, What: s.text()})
	case t.Signers != nil && s.State != SignatureValid, s.State == SignatureInvalid:
		v.warn(v.opts.Log, "the manifest: "+s.text())
	}
}

// askStore looks at every object that was listed or that the manifest names, and
// reads the records.
func (v *verifying) askStore(ctx context.Context) (err error) {
	objects := append([]EntryObject(nil), v.entry.Objects...)
	if v.m != nil {
		for _, o := range v.m.Objects.all() {
			name := nameOf(o.Key)
			if !slices.ContainsFunc(objects, func(o EntryObject) bool { return o.Name == name }) {
				objects = append(objects, EntryObject{Name: name, Version: o.Version})
			}
		}
	}
	if v.all, err = look(ctx, v.opts.Bucket, v.entry.dir(), objects); err != nil {
		return err
	}
	v.Objects = len(v.all)
	v.Protection = shown(v.all)
	v.Denied = v.Protection.Denied
	if len(v.Denied) > 0 {
		v.warn(v.opts.Log, "the store does not show these credentials its "+joined(v.Denied)+": whether they are as promised is not known")
	}
	if v.records, err = readRecords(ctx, v.opts.Bucket, v.entry, "", v.opts.Trust.beside(v.Signature)); err != nil {
		return err
	}
	for _, r := range v.records {
		switch {
		case r.unsigned():
			v.warn(v.opts.Log, r.Name+" is not signed and does not count: sign records with --sign-key FILE")
		case r.Error != "":
			v.warn(v.opts.Log, r.Name+" cannot be relied on: "+r.Error)
		}
	}
	return nil
}

// all are those that there are.
func (o *Objects) all() []*StoredObject {
	list := []*StoredObject{&o.Dump}
	for _, other := range []*StoredObject{o.Index, o.Globals} {
		if other != nil {
			list = append(list, other)
		}
	}
	return list
}

// nameOf is the name of an object below its archive.
func nameOf(key string) string {
	_, name, _ := ParseKey(key)
	return name
}

// compareStored holds size, version and checksum of each object against the
// manifest.
func (v *verifying) compareStored() {
	for _, o := range v.m.Objects.all() {
		name := nameOf(o.Key)
		for _, s := range v.all {
			if s.Name == name {
				if what := o.differs(s); what != "" {
					v.problems(Problem{Object: name, What: what})
				}
			}
		}
	}
}

// differs says in what the store's object is not the one of the manifest.
func (o *StoredObject) differs(s seen) string {
	c := checksumOf(s.o)
	switch {
	case s.gone:
		return "it is missing from the bucket"
	case o.Version != "" && s.Version != "" && o.Version != s.Version:
		return fmt.Sprintf("its oldest version is %s, the manifest names %s", s.Version, o.Version)
	case s.o.Key == "": // nothing of it may be seen
		return ""
	case s.o.Size != o.Size:
		return fmt.Sprintf("it has %d bytes, the manifest says %d", s.o.Size, o.Size)
	case o.Checksum != nil && c != nil && c.Algorithm == o.Checksum.Algorithm && c.Value != o.Checksum.Value:
		return fmt.Sprintf("the store's %s of it is %s, the manifest says %s", c.Algorithm, c.Value, o.Checksum.Value)
	}
	return ""
}

// comparePromise holds lock, hold, class, tags and encryption of each object
// against what the manifest promises.
func (v *verifying) comparePromise() {
	kept := v.m.Kept
	if kept == nil {
		return
	}
	k := keeperOf(v.opts.Bucket, kept.Policy)
	if v.entry.Policy != DefaultPolicy {
		k.policy.Name = v.entry.Policy
	}
	k.policy.LegalHold = v.held(kept.LegalHold)
	lock := storage.Retention{Mode: kept.Lock, Until: kept.RetainUntil}
	if !lock.Until.After(v.opts.storeTime()) {
		lock = storage.Retention{}
	}
	for _, s := range v.all {
		if roleOf(s.Name) == roleRecord || s.gone || s.o.Key == "" {
			continue
		}
		k.created[s.key] = creation{name: s.Name, version: s.Version, retention: lock}
		s.o.Created = time.Time{} // that the lock was long enough was compared when it was set
		if err := k.compare(s.key, s.o); err != nil {
			v.finding(s.Name, err)
		}
	}
}

// held is whether the archive is to be on hold: as its policy wants it, or as the
// newest record of a hold has it.
func (v *verifying) held(byPolicy bool) bool {
	held := byPolicy
	for _, r := range v.records {
		if r.Record != nil && r.Record.Kind == RecordHold && r.Record.ManifestSHA256 == v.ManifestSHA256 {
			held = r.Record.Result == HoldSet
		}
	}
	return held
}

// readBack reads index, globals and dump.
func (v *verifying) readBack(ctx context.Context) {
	v.Structure, v.Evidence = v.m.Structure, v.m.Evidence
	var index *Index
	if o := v.m.Objects.Index; o != nil && !v.gone(o) {
		index = v.readIndex(ctx, o)
	}
	if o := v.m.Objects.Globals; o != nil && !v.gone(o) {
		v.readSmall(ctx, o)
	}
	o := v.m.Objects.Dump
	if v.err != nil || v.gone(&o) {
		return
	}
	if err := v.warm(ctx); err != nil {
		v.finding(nameOf(o.Key), err)
		return
	}
	v.readDump(ctx, o, index)
}

// readSmall reads a small object and compares it; nil where that is impossible, which
// is noted, or where it cannot be opened.
func (v *verifying) readSmall(ctx context.Context, o *StoredObject) []byte {
	var plain []byte
	err := v.unlocked(func(ids Identities) (err error) {
		plain, err = readPlain(ctx, v.opts.Bucket, v.entry, o, ids)
		return err
	}, func() error {
		_, err := readStored(ctx, v.opts.Bucket, o)
		return err
	})
	v.finding(nameOf(o.Key), err)
	v.Bytes += o.Size
	return plain
}

// unlocked does what needs the content, or, where no identity opens it, what can be
// done without.
func (v *verifying) unlocked(open func(Identities) error, sealed func() error) error {
	if v.Mode != ModeSealed {
		err := open(v.opts.Identities)
		if !errors.Is(err, ErrIdentity) {
			return err
		}
		v.Mode = ModeSealed
		why := "give --identity"
		if !v.opts.Identities.IsZero() {
			why = "none of the identities opens it"
		}
		v.warn(v.opts.Log, "it is encrypted and its content was not looked at: "+why)
	}
	return sealed()
}

// readIndex reads the index and compares it with the manifest; nil when it cannot be
// relied on.
func (v *verifying) readIndex(ctx context.Context, o *StoredObject) *Index {
	raw := v.readSmall(ctx, o)
	if raw == nil {
		return nil
	}
	ix, err := decodeIndex(raw)
	if err == nil {
		err = ix.check(v.m)
	}
	if err != nil {
		v.finding(nameOf(o.Key), err)
		return nil
	}
	found := ix.totals()
	found.Bytes = v.m.Objects.Dump.Size // as it is stored, the index knows the plain one
	if !found.equal(v.m.Totals) {
		v.problems(Problem{Object: ManifestName, What: "its totals are not those of the index"})
	}
	if evidence, _ := ix.evidence(); evidence != v.m.Evidence {
		v.problems(Problem{Object: ManifestName, What: fmt.Sprintf("it says evidence %s, the index has evidence %s", v.m.Evidence, evidence)})
	}
	return ix
}

func (t Totals) equal(o Totals) bool {
	rows := t.Rows == o.Rows || t.Rows != nil && o.Rows != nil && *t.Rows == *o.Rows
	t.Rows, o.Rows = nil, nil
	return rows && t == o
}

// readDump reads the dump; without an index, or without a key, its hash is all that is
// compared.
func (v *verifying) readDump(ctx context.Context, o StoredObject, index *Index) {
	name := nameOf(o.Key)
	if o.Version == "" {
		o.Version = v.entry.version(name)
	}
	v.progress.total(o.Size, false)
	v.progress.phase(PhaseReadBack)
	pass := dumpPass{object: o, index: index, progress: v.progress}
	if o.Encrypted() {
		err := v.unlocked(func(ids Identities) error {
			opened, err := openDump(ctx, v.opts.Bucket, v.entry, v.m, ids)
			pass.unsealed, _ = opened.(*sealedDump)
			return err
		}, func() error { return nil })
		if err != nil {
			pass.unsealed = nil
			v.finding(name, err)
		}
		if pass.unsealed == nil {
			pass.index = nil
		}
		if v.err != nil {
			return
		}
	}
	problems, err := pass.read(ctx, storedDump{bucket: v.opts.Bucket, key: o.Key, version: o.Version})
	v.Bytes += pass.n.Load()
	v.problems(problems...)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, storage.ErrRange) {
		err = integrity("it ends before the %d bytes that the manifest says", o.Size)
	}
	v.finding(name, causeOf(ctx, err))
	if err != nil || pass.head == nil {
		return
	}
	t := index.totals()
	v.Blocks, v.Tables, v.LargeObjects, v.Rows = t.Blocks, t.Tables, t.LargeObjects, t.Rows
}

func (v *verifying) seen(name string) (seen, bool) {
	for _, s := range v.all {
		if s.Name == name {
			return s, true
		}
	}
	return seen{}, false
}

// gone says that an object is missing, which was said already.
func (v *verifying) gone(o *StoredObject) bool {
	s, ok := v.seen(nameOf(o.Key))
	return ok && s.gone
}

// warm sees to it that the dump can be read, or says that it cannot and what to do.
func (v *verifying) warm(ctx context.Context) error {
	s, ok := v.seen(nameOf(v.m.Objects.Dump.Key))
	if !ok || !s.o.Thaw.Cold || s.o.Thaw.Readable(v.opts.storeTime()) {
		return nil
	}
	if v.opts.Thaw.Tier == "" {
		return &ColdError{ID: v.ID, Class: s.o.StorageClass, Ongoing: s.o.Thaw.Ongoing}
	}
	opts := v.opts.Thaw
	opts.Bucket, opts.Log = v.opts.Bucket, v.opts.Log
	res, err := thawEntry(ctx, v.entry, opts)
	switch {
	case err != nil:
		return err
	case !res.readable():
		return &ColdError{ID: v.ID, Class: s.o.StorageClass, Ongoing: true, Takes: res.Takes}
	}
	return nil
}

// record leaves what was found beside the archive. What is denied is a warning.
func (v *verifying) record(ctx context.Context) {
	switch {
	case v.opts.NoRecord, v.ManifestSHA256 == "", v.Result == ResultUndecided:
		return
	case v.Mode == ModeQuick && v.Result == ResultPassed:
		return // of what is asked every night, nothing needs to stay as long as the archive
	}
	facts := v.VerifyFacts
	if v.m == nil || len(v.m.Recipients) > 0 {
		facts.Problems = discreet(facts.Problems)
	}
	r := Record{Kind: RecordVerify, ManifestSHA256: v.ManifestSHA256, By: v.opts.By, Result: v.Result, Pgstow: v.opts.Pgstow, Verify: &facts}
	there := make([]seen, 0, len(v.all))
	for _, s := range v.all {
		if !s.gone {
			there = append(there, s)
		}
	}
	var kept *Kept
	if v.m != nil {
		kept = v.m.Kept
	}
	o, err := putRecord(ctx, v.opts.Bucket, v.entry, r, v.opts.Signer, there, kept, v.opts.Now())
	switch {
	case err == nil:
		v.Record = o.Name
	case errors.Is(err, storage.ErrPermission), errors.Is(err, storage.ErrCredentials):
		v.warn(v.opts.Log, "these credentials may not store the record of it: "+oneLine(err))
	case v.err == nil:
		v.err = fmt.Errorf("it is verified (%s), and that could not be recorded: %w", v.Result, err)
	}
}

// discreet tells problems without what is in encrypted objects: a record can be read by
// those who have no key.
func discreet(problems []Problem) []Problem {
	var list []Problem
	for _, p := range problems {
		if p.inside {
			p = Problem{Object: p.Object, What: "what is in it is not what was archived"}
		}
		if !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list
}
