package archiver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.uber.org/goleak"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/internal/testenv/sample"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// Archive and restore of a database that is not a toy, on a store that takes
// the head last and on one that does not, by pgstow and by stock pg_restore.
func TestRoundTrip(t *testing.T) {
	pg := testenv.Postgres(t)
	source := pg.CreateDatabase(t)
	if err := sample.Load(t.Context(), pg.URL(source), sample.Options{NoPgbench: true}); err != nil {
		t.Fatal(err)
	}
	memory := func() *storagetest.Memory { return storagetest.NewMemory(storagetest.MemoryOptions{}) }
	for name, b := range map[string]storage.Bucket{
		"deferred head": memory(),
		"sequential":    sequential{memory()},
		"versioned":     storagetest.NewMemory(storagetest.MemoryOptions{Versions: true}),
		"prefixed":      storage.Prefixed(memory(), "some/where/"),
	} {
		t.Run(name, func(t *testing.T) {
			res := archived(t, pg, source, b)
			checkResult(t, res, b, source)
			checkByHand(t, res.Manifest, content(t, b))

			shown, err := Show(t.Context(), ShowOptions{Bucket: b, Ref: res.Manifest.ID})
			if err != nil {
				t.Fatal(err)
			}
			if shown.ManifestSHA256 != res.ManifestSHA256 || len(shown.Index.Blocks) != res.Manifest.Totals.Blocks {
				t.Errorf("shown: %s and %d blocks, archived: %s and %d", shown.ManifestSHA256, len(shown.Index.Blocks),
					res.ManifestSHA256, res.Manifest.Totals.Blocks)
			}

			target := pg.CreateDatabase(t)
			back, err := Restore(t.Context(), RestoreOptions{Bucket: b, Ref: Latest, Conn: connTo(t, pg, target)})
			if err != nil {
				t.Fatal(err)
			}
			if back.Bytes != res.Manifest.Objects.Dump.Size || len(back.Errors) > 0 {
				t.Errorf("restored %d of %d bytes, errors %q", back.Bytes, res.Manifest.Objects.Dump.Size, back.Errors)
			}
			equal(t, pg, source, target)

			stock := pg.CreateDatabase(t)
			stockRestore(t, pg, stock, b, res.Manifest)
			equal(t, pg, source, stock)
		})
	}
}

// checkResult looks at what Archive says, and at what lies in the bucket.
func checkResult(t *testing.T, res *ArchiveResult, b storage.Bucket, source string) {
	t.Helper()
	m := res.Manifest
	if m.Format != Format || m.Label != "127.0.0.1."+source || m.Source.Database != source || m.Source.Host != "127.0.0.1" ||
		m.Source.SystemIdentifier == "" || m.Tools.PgDump == "" || m.Structure != StructureComplete ||
		m.Evidence != EvidenceContent || m.Globals != GlobalsIncluded || m.ReadBack != ReadBackDone ||
		res.ReadBack != ReadBackDone || m.Finished.Before(m.Started) {
		t.Errorf("manifest is %+v", m)
	}
	if m.Totals.LargeObjects != sample.LargeObjects || m.Totals.Tables < 5 || m.Totals.Blocks <= m.Totals.Tables ||
		m.Totals.RawBytes <= m.Totals.Bytes || m.Totals.Rows == nil || *m.Totals.Rows < 1000 {
		t.Errorf("totals are %+v", m.Totals)
	}
	all := content(t, b)
	want := []string{keyOf(m, DumpName), keyOf(m, GlobalsName), keyOf(m, IndexName), m.Key}
	if len(all) != len(want) {
		t.Errorf("the bucket holds %d objects, want %q", len(all), want)
	}
	if hexSum(all[m.Key]) != res.ManifestSHA256 {
		t.Error("the manifest's hash is not that of the stored manifest")
	}
	validate(t, all[m.Key])
	if strings.Contains(string(bytes.Join([][]byte{all[m.Key], all[keyOf(m, GlobalsName)]}, nil)), "SCRAM") {
		t.Error("a password hash is in the archive")
	}
}

// validate holds a manifest against the published schema.
func validate(t *testing.T, raw []byte) {
	t.Helper()
	schema, err := jsonschema.NewCompiler().Compile(filepath.Join(testenv.Root(t), "docs", "manifest.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(doc); err != nil {
		t.Errorf("%v in\n%s", err, raw)
	}
}

// checkByHand follows docs/archive-layout.md: it compares the stored bytes
// with the manifest's and the index's hashes without the code that made them.
func checkByHand(t *testing.T, m *Manifest, all map[string][]byte) {
	t.Helper()
	same := func(what string, b []byte, want string) {
		t.Helper()
		if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != want {
			t.Errorf("%s: SHA-256 is %x, the manifest says %s", what, sum, want)
		}
	}
	dump := all[m.Objects.Dump.Key]
	o := m.Objects.Dump
	if int64(len(dump)) != o.Size || o.Head == nil || (o.Body == nil) == (o.SHA256 == "") {
		t.Fatalf("a dump of %d bytes is described by %+v", len(dump), o)
	}
	same("head", dump[:o.Head.Length], o.Head.SHA256)
	if o.Body != nil {
		same("body", dump[o.Head.Length:], o.Body.SHA256)
	} else {
		same("dump", dump, o.SHA256)
	}
	same("index", all[m.Objects.Index.Key], m.Objects.Index.SHA256)
	same("globals", all[m.Objects.Globals.Key], m.Objects.Globals.SHA256)
	ix, err := decodeIndex(all[m.Objects.Index.Key])
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range ix.Blocks {
		same(b.label(), dump[b.Offset:b.Offset+b.Length], b.SHA256)
	}
}

// stockRestore restores the plain archive with pg_restore alone. Its list of
// contents must be readable too.
func stockRestore(t *testing.T, pg *testenv.Cluster, db string, b storage.Bucket, m *Manifest) {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "plain.dump"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	res, err := Restore(t.Context(), RestoreOptions{Bucket: b, Ref: m.ID[:6], Output: file})
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file.Name())
	if err != nil || !bytes.Equal(got, content(t, b)[m.Objects.Dump.Key]) || res.Bytes != int64(len(got)) {
		t.Fatalf("the plain archive of %d bytes is not the stored one (%v)", len(got), err)
	}
	for _, args := range [][]string{{"-l"}, {"-e", "-j", "2", "-d", pg.URL(db)}} {
		// A URL with a password on the command line: a throwaway cluster.
		cmd := exec.CommandContext(t.Context(), testenv.Tool(t, "pg_restore"), append(args, file.Name())...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("pg_restore %s: %v\n%s", args[0], err, out)
		}
	}
}

func equal(t *testing.T, pg *testenv.Cluster, source, dest string) {
	t.Helper()
	diffs, err := sample.Compare(t.Context(), pg.URL(source), pg.URL(dest))
	if err != nil {
		t.Fatal(err)
	}
	if len(diffs) < 5 {
		t.Errorf("only %d things were compared", len(diffs))
	}
	for _, d := range diffs {
		if !d.Equal() {
			t.Errorf("differs: %+v", d)
		}
	}
}

// Whole or absent: whichever operation of the store fails, and however, either
// the archive is there and Archive says so, or nothing of it is, but for what
// the error names.
func TestWholeOrAbsent(t *testing.T) {
	pg := testenv.Postgres(t)
	db := smallSource(t, pg)
	conn := connTo(t, pg, db)
	signer := openKey(t, sshKey(t, "ed25519"))
	for _, mode := range []string{refused, lost, unsure, gone, lostGone} {
		t.Run(mode, func(t *testing.T) {
			at := 1
			for ; ; at++ {
				b := &faultyBucket{Memory: storagetest.NewMemory(storagetest.MemoryOptions{}), mode: mode, at: at}
				res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: conn, Pgstow: "test", Signer: signer})
				if b.last == "" {
					break // all operations have had their turn
				}
				t.Logf("%d: %s: %v", at, b.last, err)
				wholeOrAbsent(t, b.Memory, res, err)
				if t.Failed() {
					return
				}
				archived(t, pg, db, b.Memory) // and the next run is none the worse
			}
			if at < 11 { // put dump, put and stat globals, stat dump, put and stat index, list, put and stat signature, put and open manifest
				t.Errorf("only %d operations were seen", at-1)
			}
		})
	}
	if n := dumpSessions(t, pg, db); n > 0 {
		t.Errorf("%d sessions are left", n)
	}
}

func wholeOrAbsent(t *testing.T, b storage.Bucket, res *ArchiveResult, err error) {
	t.Helper()
	oneLiner(t, err)
	if err == nil {
		all := listed(t, b)
		if len(all) != 1 || all[0].ID != res.Manifest.ID {
			t.Errorf("archived as %s, listed are %v", res.Manifest.ID, ids(all))
		}
		checkByHand(t, res.Manifest, content(t, b))
		signedByHand(t, res.Manifest, content(t, b))
		return
	}
	if !errors.Is(err, errInjected) {
		t.Errorf("the cause is lost: %v", err)
	}
	var unknown *commitUnknownError
	if errors.As(err, &unknown) {
		if !errors.Is(err, storage.ErrUnknownOutcome) || !strings.Contains(err.Error(), "pgstow show "+unknown.id) {
			t.Errorf("does not say what to do: %v", err)
		}
		if all := listed(t, b); len(all) == 1 { // then it must be whole
			if shown, err := Show(t.Context(), ShowOptions{Bucket: b, Ref: unknown.id}); err != nil {
				t.Error(err)
			} else {
				checkByHand(t, shown.Manifest, content(t, b))
				signedByHand(t, shown.Manifest, content(t, b))
			}
		}
		return
	}
	var left *LeftoverError
	if errors.As(err, &left) {
		nothingLeft(t, b, left.Keys...)
		return
	}
	nothingLeft(t, b)
}

// With credentials that may only write, the store's replies have to do, and
// the result says so.
func TestArchiveWithoutReading(t *testing.T) {
	pg := testenv.Postgres(t)
	b := &faultyBucket{Memory: storagetest.NewMemory(storagetest.MemoryOptions{}), mode: denied}
	res := archived(t, pg, smallSource(t, pg), b)
	if res.ReadBack != ReadBackDenied || res.Manifest.ReadBack != ReadBackDenied {
		t.Errorf("read back: %q, in the manifest %q", res.ReadBack, res.Manifest.ReadBack)
	}
	validate(t, content(t, b.Memory)[res.Manifest.Key])
}

// A store that confirms one thing and holds another.
func TestArchiveNoticesALyingStore(t *testing.T) {
	pg := testenv.Postgres(t)
	conn := connTo(t, pg, smallSource(t, pg))
	for _, name := range []string{DumpName, GlobalsName, IndexName, ManifestName} {
		t.Run(name, func(t *testing.T) {
			b := &lyingBucket{Memory: storagetest.NewMemory(storagetest.MemoryOptions{}), about: name}
			_, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: conn})
			if !errors.Is(err, ErrIntegrity) {
				t.Errorf("error is %v", err)
			}
			oneLiner(t, err)
			nothingLeft(t, b.Memory)
		})
	}
}

// lyingBucket loses the last byte of an object and does not say so.
type lyingBucket struct {
	*storagetest.Memory
	about string
}

func (l *lyingBucket) Put(ctx context.Context, key string, r io.Reader, opts storage.PutOptions) (storage.Object, error) {
	o, err := l.Memory.Put(ctx, key, r, opts)
	if err != nil || !strings.HasSuffix(key, "/"+l.about) {
		return o, err
	}
	body, err := l.Open(ctx, key, storage.OpenOptions{Length: o.Size - 1})
	if err != nil {
		return o, err
	}
	defer body.Close()
	if err := l.Delete(ctx, key, ""); err != nil {
		return o, err
	}
	_, err = l.Memory.Put(ctx, key, body, storage.PutOptions{})
	return o, err
}

// A stalled store ends pg_dump and its backend, wherever it stalls.
func TestArchiveStalls(t *testing.T) {
	pg := testenv.Postgres(t)
	db := longSource(t, pg)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for _, when := range []Phase{PhaseOpening, PhaseData} {
		t.Run(string(when), func(t *testing.T) {
			b := storagetest.NewMemory(storagetest.MemoryOptions{})
			var phases []Phase
			_, err := Archive(t.Context(), ArchiveOptions{
				Bucket: b, Conn: connTo(t, pg, db), NoGlobals: true, StallTimeout: 300 * time.Millisecond,
				Progress: func(p Progress) {
					if p.Phase == when && !slices.Contains(phases, when) {
						t.Cleanup(b.Freeze())
					}
					phases = append(phases, p.Phase)
				},
			})
			if !errors.Is(err, storage.ErrStalled) {
				t.Errorf("error is %v", err)
			}
			oneLiner(t, err)
			if started := slices.Contains(phases, PhaseCatalogue); started != (when == PhaseData) {
				t.Errorf("pg_dump started: %v", started)
			}
			nothingLeft(t, b)
			if n := dumpSessions(t, pg, db); n > 0 {
				t.Errorf("%d sessions are left", n)
			}
		})
	}
}

// An interrupt at any moment is a clean abort, and its reason comes back.
func TestArchiveInterrupted(t *testing.T) {
	pg := testenv.Postgres(t)
	db := longSource(t, pg)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	interrupt := errors.New("interrupted by the user")
	for _, when := range []Phase{PhasePreflight, PhaseOpening, PhaseGlobals, PhaseCatalogue, PhaseData, PhaseComplete, PhaseCommit} {
		t.Run(string(when), func(t *testing.T) {
			b := storagetest.NewMemory(storagetest.MemoryOptions{})
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			reached := false
			_, err := Archive(ctx, ArchiveOptions{Bucket: b, Conn: connTo(t, pg, db), Progress: func(p Progress) {
				if p.Phase == when {
					reached = true
					cancel(interrupt)
				}
			}})
			if !reached || !errors.Is(err, interrupt) {
				t.Errorf("reached: %v, error is %v", reached, err)
			}
			oneLiner(t, err)
			nothingLeft(t, b)
			if n := dumpSessions(t, pg, db); n > 0 {
				t.Errorf("%d sessions are left", n)
			}
		})
	}
}

// What happens to the source in mid-dump leaves nothing in the bucket.
func TestArchiveSourceDies(t *testing.T) {
	pg := testenv.Postgres(t)
	db := longSource(t, pg)
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	killer := pg.Connect(t, "postgres")
	killed := 0
	_, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, db), Progress: func(p Progress) {
		if p.Phase != PhaseData || killed > 0 {
			return
		}
		const q = `SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = $1) AS x`
		if err := killer.QueryRow(t.Context(), q, db).Scan(&killed); err != nil {
			t.Error(err)
		}
	}})
	if killed == 0 || !errors.Is(err, dumper.ErrDump) {
		t.Errorf("%d backends ended, error is %v", killed, err)
	}
	oneLiner(t, err)
	nothingLeft(t, b)
}

func TestArchiveRefusesBeforeItStarts(t *testing.T) {
	pg := testenv.Postgres(t)
	db := smallSource(t, pg)
	conn := connTo(t, pg, db)
	for name, c := range map[string]struct {
		opts ArchiveOptions
		want error
	}{
		"a label":           {ArchiveOptions{Conn: conn, Name: "a/b"}, ErrUsage},
		"a policy":          {ArchiveOptions{Conn: conn, Policy: Policy{Name: ".."}}, ErrUsage},
		"a pg_dump option":  {ArchiveOptions{Conn: conn, DumpArgs: []string{"--format=plain"}}, dumper.ErrUsage},
		"another database":  {ArchiveOptions{Conn: conn.WithDatabase("not_there")}, dumper.ErrConnect},
		"a missing program": {ArchiveOptions{Conn: conn, PGBin: t.TempDir()}, dumper.ErrVersion},
	} {
		t.Run(name, func(t *testing.T) {
			b := &faultyBucket{Memory: storagetest.NewMemory(storagetest.MemoryOptions{}), mode: gone, at: 1}
			c.opts.Bucket = b
			_, err := Archive(t.Context(), c.opts)
			if !errors.Is(err, c.want) {
				t.Errorf("error is %v, want %v", err, c.want)
			}
			oneLiner(t, err)
			if b.calls > 0 {
				t.Errorf("the store was asked: %s", b.last)
			}
		})
	}
}

// A dump without tables, and one without anything that has data.
func TestArchiveOfNothing(t *testing.T) {
	pg := testenv.Postgres(t)
	db := pg.CreateDatabase(t)
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	for _, args := range [][]string{nil, {"--schema-only"}} {
		res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: connTo(t, pg, db), DumpArgs: args, Name: "nothing"})
		if err != nil {
			t.Fatal(err)
		}
		validate(t, content(t, b)[res.Manifest.Key])
		if !slices.Equal(res.Manifest.Tools.PgDumpArgs, args) {
			t.Errorf("pg_dump's options are recorded as %q", res.Manifest.Tools.PgDumpArgs)
		}
		if res.Manifest.Totals.Blocks != 0 || res.Manifest.Objects.Dump.Size != res.Manifest.Objects.Dump.Head.Length {
			t.Errorf("manifest is %+v", res.Manifest)
		}
		checkByHand(t, res.Manifest, content(t, b))
		target := pg.CreateDatabase(t)
		if _, err := Restore(t.Context(), RestoreOptions{Bucket: b, Ref: res.Manifest.ID, Conn: connTo(t, pg, target)}); err != nil {
			t.Error(err)
		}
	}
}

// The password reaches neither the bucket nor an error.
func TestArchiveKeepsSecrets(t *testing.T) {
	pg := testenv.Postgres(t)
	db := smallSource(t, pg)
	const password = `p@ss:w/o?r%d#'"\ &=`
	pg.Exec(t, "postgres", fmt.Sprintf(`CREATE ROLE keeper LOGIN SUPERUSER PASSWORD '%s'`, strings.ReplaceAll(password, "'", "''")))
	t.Cleanup(func() { pg.Exec(t, "postgres", `DROP ROLE keeper`) })
	quoted := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(password)
	conn, err := dumper.ParseConn(fmt.Sprintf("host=127.0.0.1 port=%d user=keeper dbname=%s password='%s'", pg.Port, db, quoted))
	if err != nil {
		t.Fatal(err)
	}
	b := storagetest.NewMemory(storagetest.MemoryOptions{})
	res, err := Archive(t.Context(), ArchiveOptions{Bucket: b, Conn: conn})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(res)
	if err != nil {
		t.Fatal(err)
	}
	for key, raw := range content(t, b) {
		if bytes.Contains(raw, []byte(password)) {
			t.Errorf("the password stands in %s", key)
		}
	}
	if strings.Contains(string(text), "w/o?r%d") {
		t.Error("the password stands in the result")
	}
}

// A driver must not take a fault of the source for one of its own upload: one
// whose outcome seems unknown it would not even abort.
func TestDriverDoesNotSeeTheSourcesCause(t *testing.T) {
	cause := &storage.Error{Op: "put", Key: "globals", Kind: storage.ErrUnknownOutcome, Err: errInjected}
	stream := newDumpStream(true, newTracker(nil), func() (dumpSource, func() error, error) { return nil, nil, cause })
	_, seen := uploadReader{Reader: stream, stream: stream}.Read(make([]byte, 1))
	if seen == nil || errors.Is(seen, storage.ErrUnknownOutcome) || errors.Is(seen, errInjected) || seen.Error() != cause.Error() {
		t.Errorf("the driver sees %v", seen)
	}
	back := stream.blame(&storage.Error{Op: "put", Key: "dump", Err: fmt.Errorf("read the source: %w; the upload stays", seen)})
	if !errors.Is(back, storage.ErrUnknownOutcome) || back.Error() != cause.Error()+"; the upload stays" {
		t.Errorf("the caller sees %v", back)
	}
	if own := stream.blame(&storage.Error{Op: "put", Key: "dump", Kind: storage.ErrUnavailable}); !errors.Is(own, storage.ErrUnavailable) ||
		errors.Is(own, errInjected) {
		t.Errorf("the store's own failure is %v", own)
	}
}
