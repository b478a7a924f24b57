package archiver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// rekeyed adds recipients to the archive in b.
func rekeyed(t testing.TB, b storage.Bucket, id, identity string, to ...string) *RekeyResult {
	t.Helper()
	res, err := Rekey(t.Context(), RekeyOptions{
		Bucket: b, Ref: id, Recipients: recipients(t, to...), Identities: identities(t, identity), By: "somebody", Reason: "an audit", Pgstow: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// byHand puts a header of a record before the payload, as docs/archive-layout.md
// says it.
func byHand(t testing.TB, record, object []byte, name string) []byte {
	t.Helper()
	var r Record
	if err := json.Unmarshal(record, &r); err != nil {
		t.Fatal(err)
	}
	for _, h := range r.Headers {
		if h.Object == name {
			return append([]byte(h.Header), object[h.Replaces:]...)
		}
	}
	t.Fatalf("no header of %s in\n%s", name, record)
	return nil
}

// Who is added reads the archive, with pgstow and with stock age; nothing that
// was stored is touched, and nobody loses anything.
func TestRekey(t *testing.T) {
	pg := testenv.Postgres(t)
	source := smallSource(t, pg)
	first, second, third, pq := newKeys(t, "age"), newKeys(t, "ssh"), newKeys(t, "ssh-rsa"), newKeys(t, "pq")
	b := lockable()
	res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, source), Pgstow: "test", Recipients: recipients(t, first.recipient),
		Policy: Policy{Name: "sox", Keep: Period{Days: 30}, Lock: storage.Compliance}})
	if err != nil {
		t.Fatal(err)
	}
	m, before := res.Manifest, content(t, b)

	added := rekeyed(t, b, m.ID, first.identity, second.recipient, third.recipient)
	if len(added.Added) != 2 || len(added.Recipients) != 1 || added.ReadBack != ReadBackDone {
		t.Errorf("result is %+v", added)
	}
	// By one who was added, for another: post-quantum beside the others.
	rekeyed(t, b, m.ID, second.identity, pq.recipient)

	after := content(t, b)
	for key, raw := range before {
		if !bytes.Equal(after[key], raw) {
			t.Errorf("%s was changed", key)
		}
	}
	record := after[keyOf(m, added.Record)]
	validateRecord(t, record)
	o, err := b.Stat(t.Context(), keyOf(m, added.Record), "")
	if err != nil || o.Retention.Mode != storage.Compliance || !o.Retention.Until.After(time.Now().Add(29*24*time.Hour)) {
		t.Errorf("the record is kept as %+v, %v", o.Retention, err)
	}
	for _, k := range []keys{second, third} {
		for _, o := range allObjects(m) {
			name := strings.TrimPrefix(o.Key, strings.TrimSuffix(m.Key, ManifestName))
			plain, err := ageDecrypt(t, "age", k.identity, byHand(t, record, after[o.Key], name))
			if err != nil || hexSum(plain) != o.Plain.SHA256 {
				t.Errorf("%s by stock age: %d bytes, %v", name, len(plain), err)
			}
		}
	}
	for _, k := range []keys{first, second, third, pq} {
		db := pg.CreateDatabase(t)
		if _, err := Restore(t.Context(), RestoreOptions{Bucket: b, Ref: m.ID, Conn: connTo(t, pg, db), Globals: true, Identities: identities(t, k.identity)}); err != nil {
			t.Error(err)
			continue
		}
		if got := count(t, pg, db, "second"); got != 20000 {
			t.Errorf("second has %d rows", got)
		}
	}
	_, err = Restore(t.Context(), RestoreOptions{Bucket: b, Ref: m.ID, Output: io.Discard, Identities: identities(t, newKeys(t, "age").identity)})
	oneLiner(t, err)
	if !errors.Is(err, ErrIdentity) || !strings.Contains(err.Error(), "SHA256:") || !strings.Contains(err.Error(), first.recipient) {
		t.Errorf("somebody else: %v", err)
	}
}

// One who cannot be asked for a passphrase does not stand in the way of who was
// added, and is told of when nobody else is there.
func TestRekeyWithPassphrase(t *testing.T) {
	k, locked, other := newKeys(t, "age"), newKeys(t, "ssh-passphrase"), newKeys(t, "age")
	s, _ := sealedStore(t, k)
	b := bucketOf(t, s.all)
	rekeyed(t, b, s.m.ID, k.identity, locked.recipient)
	opts := RestoreOptions{Bucket: b, Ref: s.m.ID, Output: io.Discard, Identities: identities(t, locked.identity)}
	_, err := Restore(t.Context(), opts)
	oneLiner(t, err)
	if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), "no terminal") {
		t.Errorf("alone: %v", err)
	}
	p := &prompts{answer: "open sesame"}
	opts.Identities.SetPrompt(p)
	if _, err := Restore(t.Context(), opts); err != nil || len(p.asked) != 1 {
		t.Errorf("asked %q: %v", p.asked, err)
	}
	rekeyed(t, b, s.m.ID, k.identity, other.recipient)
	opts.Identities = identities(t, locked.identity, other.identity)
	if _, err := Restore(t.Context(), opts); err != nil {
		t.Errorf("beside another: %v", err)
	}
}

// The commands of the documentation, run as they stand there.
func TestRekeyCommands(t *testing.T) {
	k, other := newKeys(t, "age"), newKeys(t, "ssh")
	s, _ := sealedStore(t, k)
	b := bucketOf(t, s.all)
	res := rekeyed(t, b, s.m.ID, k.identity, other.recipient)
	dir := t.TempDir()
	for key, raw := range content(t, b) {
		write(t, dir, strings.TrimPrefix(key, strings.TrimSuffix(s.m.Key, ManifestName)), raw)
	}
	script := rekeyCommands(t)
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), "record="+res.Record, "identity="+other.identity)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, script, out)
	}
	if got := hexSum(read(t, dir, "archive.dump")); got != s.m.Objects.Dump.Plain.SHA256 {
		t.Errorf("archive.dump is %s", got)
	}
}

// What cannot be, or would help nobody, is refused, and nothing is written.
func TestRekeyRefusals(t *testing.T) {
	pg := testenv.Postgres(t)
	k, pq := newKeys(t, "age"), newKeys(t, "pq")
	s, _ := sealedStore(t, k)
	plain, quantum := storagetest.NewMemory(storagetest.MemoryOptions{}), storagetest.NewMemory(storagetest.MemoryOptions{})
	source := smallSource(t, pg)
	archived(t, pg, source, plain)
	sealed(t, pg, source, quantum, pq.recipient)
	cold := storagetest.NewMemory(storagetest.MemoryOptions{})
	if _, err := Archive(t.Context(), ArchiveOptions{Bucket: cold, Conn: connTo(t, pg, source), Recipients: recipients(t, k.recipient),
		Policy: Policy{Name: "cold", StorageClass: "DEEP_ARCHIVE"}}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		b          storage.Bucket
		to         Recipients
		ids        Identities
		kind       error
		want       string
		notWritten bool
	}{
		"not encrypted":   {plain, recipients(t, k.recipient), identities(t, k.identity), ErrUsage, "not encrypted", true},
		"to nobody":       {bucketOf(t, s.all), Recipients{}, identities(t, k.identity), ErrUsage, "--encrypt-to", true},
		"without a key":   {bucketOf(t, s.all), recipients(t, k.recipient), Identities{}, ErrUsage, "--identity", true},
		"by a stranger":   {bucketOf(t, s.all), recipients(t, k.recipient), identities(t, newKeys(t, "age").identity), ErrIdentity, "none of the identities", true},
		"too cold":        {cold, recipients(t, k.recipient), identities(t, k.identity), storage.ErrCold, "pgstow thaw", true},
		"weakening":       {quantum, recipients(t, k.recipient), identities(t, pq.identity), ErrUsage, "post-quantum", true},
		"to more of them": {quantum, recipients(t, newKeys(t, "pq").recipient), identities(t, pq.identity), nil, "", false},
	} {
		before := len(objects(t, c.b))
		_, err := Rekey(t.Context(), RekeyOptions{Bucket: c.b, Ref: Latest, Recipients: c.to, Identities: c.ids, By: "test", Pgstow: "test"})
		oneLiner(t, err)
		if !errors.Is(err, c.kind) || c.kind != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if (len(objects(t, c.b)) == before) != c.notWritten {
			t.Errorf("%s: %d objects before, now %q", name, before, objects(t, c.b))
		}
	}
}

// A record that was tampered with opens nothing, and says so.
func TestTamperedRekey(t *testing.T) {
	first, second := newKeys(t, "age"), newKeys(t, "age")
	s, _ := sealedStore(t, first)
	b := bucketOf(t, s.all)
	res := rekeyed(t, b, s.m.ID, first.identity, second.recipient)
	all := content(t, b)
	name := keyOf(s.m, res.Record)
	var record Record
	if err := json.Unmarshal(all[name], &record); err != nil {
		t.Fatal(err)
	}
	// A header of another file for the same person: it opens, and is the wrong one.
	foreign, err := seal([]byte("another file"), recipients(t, second.recipient))
	if err != nil {
		t.Fatal(err)
	}
	header, err := age.ExtractHeader(bytes.NewReader(foreign))
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		edit func(r *Record)
		kind error
		want string
	}{
		"as it was":                     {func(*Record) {}, nil, ""},
		"another file's header":         {func(r *Record) { r.Headers[1].Header = string(header) }, ErrIntegrity, "is not the one of its own header"},
		"headers exchanged":             {func(r *Record) { r.Headers[0].Header, r.Headers[1].Header = r.Headers[1].Header, r.Headers[0].Header }, ErrIntegrity, "is not the one of its own header"},
		"another length":                {func(r *Record) { r.Headers[1].Replaces++ }, ErrIntegrity, "is not the one of its own header"},
		"a changed MAC":                 {func(r *Record) { r.Headers[1].Header = strings.Replace(r.Headers[1].Header, "--- ", "--- A", 1) }, ErrIntegrity, res.Record},
		"no age header":                 {func(r *Record) { r.Headers[1].Header = "garbage" }, ErrIntegrity, res.Record},
		"without the index":             {func(r *Record) { r.Headers = r.Headers[:1] }, ErrIdentity, "none of the identities"},
		"of another archive, by itself": {func(r *Record) { r.Archive = "a0000001" }, ErrIntegrity, "cannot be read"},
	} {
		r := record
		r.Headers = append([]RekeyedHeader(nil), record.Headers...)
		c.edit(&r)
		raw, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		changed := map[string][]byte{}
		for key, b := range all {
			changed[key] = b
		}
		changed[name] = raw
		var out bytes.Buffer
		_, err = Restore(t.Context(), RestoreOptions{Bucket: bucketOf(t, changed), Ref: s.m.ID, Output: &out, Identities: identities(t, second.identity)})
		oneLiner(t, err)
		if !errors.Is(err, c.kind) || c.kind != nil && (!strings.Contains(err.Error(), c.want) || out.Len() > 0) {
			t.Errorf("%s: %v, %d bytes came out", what, err, out.Len())
		}
		// Who needs no record is not bothered by it.
		if _, err := Restore(t.Context(), RestoreOptions{Bucket: bucketOf(t, changed), Ref: s.m.ID, Output: io.Discard, Identities: identities(t, first.identity)}); err != nil {
			t.Errorf("%s: the first recipient: %v", what, err)
		}
	}
}

// Whoever may write can put a record with wrong headers before a good one: it opens
// nothing, and keeps nobody out.
func TestForgedRekeyKeepsNobodyOut(t *testing.T) {
	first, second := newKeys(t, "age"), newKeys(t, "age")
	s, _ := sealedStore(t, first)
	b := bucketOf(t, s.all)
	rekeyed(t, b, s.m.ID, first.identity, second.recipient)
	foreign, err := seal([]byte("another file"), recipients(t, second.recipient))
	if err != nil {
		t.Fatal(err)
	}
	header, err := age.ExtractHeader(bytes.NewReader(foreign))
	if err != nil {
		t.Fatal(err)
	}
	all := content(t, b)
	for i, text := range []string{string(header), "garbage"} {
		r := Record{Format: RecordFormat, Kind: RecordRekey, Archive: s.m.ID, Result: ResultAdded}
		r.Key = keyOf(s.m, fmt.Sprintf("%s20200101T00000%dZ-a0000001-rekey.json", RecordsDir, i))
		for _, o := range allObjects(s.m) {
			r.Headers = append(r.Headers, RekeyedHeader{Object: strings.TrimPrefix(o.Key, strings.TrimSuffix(s.m.Key, ManifestName)), Replaces: int64(len(header)), Header: text})
		}
		all[r.Key] = encoded(t, r)
	}
	var out bytes.Buffer
	_, err = Restore(t.Context(), RestoreOptions{Bucket: bucketOf(t, all), Ref: s.m.ID, Output: &out, Identities: identities(t, second.identity)})
	if err != nil || hexSum(out.Bytes()) != s.m.Objects.Dump.Plain.SHA256 {
		t.Errorf("%d bytes came out, %v", out.Len(), err)
	}
}

// rekeyCommands are those of docs/evidence.md.
func rekeyCommands(t testing.TB) string {
	t.Helper()
	page := string(read(t, testenv.Root(t), "docs/evidence.md"))
	_, rest, ok := strings.Cut(page, "<!-- run by a test -->\n")
	if !ok {
		t.Fatal("the page has no commands that a test runs")
	}
	commands, _, _ := strings.Cut(rest, "\n\n")
	return commands
}

func read(t testing.TB, dir, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func write(t testing.TB, dir, name string, raw []byte) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, raw, 0o600)); err != nil {
		t.Fatal(err)
	}
}
