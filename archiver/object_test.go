package archiver

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/dumper/pgarchive"
	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/internal/testenv/sample"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// stockDump is what a stock pg_dump writes into a pipe, or into a file, where it sets the
// offsets.
func stockDump(t testing.TB, pg *testenv.Cluster, db string, toFile bool, args ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stock.dump")
	if toFile {
		args = append(args, "-f", path)
	}
	cmd := exec.Command(testenv.Tool(t, "pg_dump"), append(args, "-Fc", "-d", pg.URL(db))...)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		t.Fatalf("pg_dump %q: %v\n%s", args, err, complaints.String())
	}
	if !toFile {
		return out.Bytes()
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// goldens are the archives of all versions, with their names.
func goldens(t testing.TB) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for _, pattern := range []string{"*.dump", "*.file"} {
		files, err := filepath.Glob(filepath.Join(goldenDir, pattern))
		if err != nil || len(files) < 4 {
			t.Fatal(files, err)
		}
		for _, file := range files {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all[filepath.Base(file)] = raw
		}
	}
	return all
}

const foreignKey = "nightly/orders.dump"

func foreignBucket(t testing.TB, raw []byte) *storagetest.Memory {
	return bucketOf(t, map[string][]byte{foreignKey: raw})
}

// raised rewrites the head of an archive as one of another version, which differs in nothing else.
func raised(t testing.TB, raw []byte, minor byte) []byte {
	t.Helper()
	head, err := pgarchive.ParseHead(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	was, err := head.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	head.Version.Minor = minor
	if minor >= 15 {
		head.Compression.Level = 0
	}
	for i := range head.Entries {
		e := &head.Entries[i]
		if minor < 14 {
			e.TableAM = pgarchive.Str{Null: true}
		}
		if e.HadDumper {
			e.OffsetFlag, e.Offset = 1, 0
		}
	}
	out, err := head.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return append(out, raw[len(was):]...)
}

// What stock programs have put there comes back equal, whatever pg_dump was asked for, by every
// way that a restore takes.
func TestForeignRestore(t *testing.T) {
	pg := testenv.Postgres(t)
	source := pg.CreateDatabase(t)
	if err := sample.Load(t.Context(), pg.URL(source), sample.Options{NoPgbench: true}); err != nil {
		t.Fatal(err)
	}
	piped := stockDump(t, pg, source, false)
	// INSERTs lose the sign of a zero: what they come to is for pg_restore to say.
	inserts, byStock := stockDump(t, pg, source, false, "--inserts"), pg.CreateDatabase(t)
	cmd := exec.Command(testenv.Tool(t, "pg_restore"), "-d", pg.URL(byStock))
	cmd.Stdin = bytes.NewReader(inserts)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, c := range []struct {
		name    string
		raw     []byte
		jobs    int
		options dumper.RestoreOptions
		want    int // jobs
	}{
		{"piped", piped, 2, dumper.RestoreOptions{}, 2},
		{"one job", piped, 1, dumper.RestoreOptions{}, 1},
		{"with offsets", stockDump(t, pg, source, true), 2, dumper.RestoreOptions{}, 2},
		{"uncompressed", stockDump(t, pg, source, false, "-Z0"), 2, dumper.RestoreOptions{}, 2},
		{"inserts", inserts, 2, dumper.RestoreOptions{}, 2},
		{"clean", piped, 2, dumper.RestoreOptions{Clean: true, IfExists: true}, 0},
		{"single transaction", piped, 2, dumper.RestoreOptions{Args: []string{"-1"}}, 0},
		{"version 1.12", raised(t, piped, 12), 2, dumper.RestoreOptions{}, 2},
		{"version 1.13", raised(t, piped, 13), 2, dumper.RestoreOptions{}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := pg.CreateDatabase(t)
			res, err := Restore(t.Context(), RestoreOptions{
				Bucket: foreignBucket(t, c.raw), Object: foreignKey, Conn: connTo(t, pg, db), Jobs: c.jobs, Restore: c.options})
			if err != nil {
				t.Fatal(err)
			}
			o := res.Object
			if res.Jobs != c.want || res.Manifest != nil || o == nil || o.Structure != StructureComplete || o.Evidence != EvidenceNone ||
				o.SHA256 != hexSum(c.raw) || o.Source.Database != source || !strings.Contains(strings.Join(res.Warnings, "\n"), NoManifest) {
				t.Errorf("%+v, object %+v", res, o)
			}
			if c.name == "inserts" {
				sameDatabase(t, pg, byStock, db, false)
			} else {
				sameDatabase(t, pg, source, db, false)
			}
		})
	}
}

// Archives of every version are understood, with rows and raw sizes; what this machine's
// pg_restore cannot read is refused before anything happens.
func TestForeignGoldens(t *testing.T) {
	pg := testenv.Postgres(t)
	for name, raw := range goldens(t) {
		t.Run(name, func(t *testing.T) {
			b := foreignBucket(t, raw)
			res, err := ShowObject(t.Context(), ShowObjectOptions{Bucket: b, Key: foreignKey})
			if err != nil {
				t.Fatal(err)
			}
			o, blocks := res.Object, res.Index.Blocks
			if o.Structure != StructureComplete || o.SHA256 != hexSum(raw) || o.Totals.Blocks != len(blocks) ||
				int(res.Index.Dump.Head.Length) > len(raw) || len(res.Index.LargeObjects) != o.Totals.LargeObjects {
				t.Errorf("%+v", o)
			}
			at := res.Index.Dump.Head.Length
			for _, b := range blocks {
				if b.Offset != at || b.SHA256 != hexSum(raw[at:at+b.Length]) || b.Kind == KindTable && b.RawBytes <= 0 {
					t.Fatalf("block %+v at %d", b, at)
				}
				at += b.Length
				if b.Kind == KindTable && b.Name == "digest" {
					// The whole table is known to have 300 rows.
					if strings.Contains(name, "inserts") != (b.Content == nil) || b.Content != nil && b.Content.Rows != 300 {
						t.Errorf("digest has %+v", b.Content)
					}
				}
			}
			if at != int64(len(raw)) {
				t.Errorf("blocks end at %d of %d", at, len(raw))
			}
			toc, err := ShowObject(t.Context(), ShowObjectOptions{Bucket: b, Key: foreignKey, HeadOnly: true})
			if err != nil || len(toc.TOC) != res.Index.Entries || toc.Object.Structure != StructureUnchecked || toc.Index != nil {
				t.Errorf("%+v, %v", toc, err)
			}

			db := pg.CreateDatabase(t)
			_, err = Restore(t.Context(), RestoreOptions{Bucket: b, Object: foreignKey, Conn: connTo(t, pg, db),
				Restore: dumper.RestoreOptions{NoOwner: true, NoPrivileges: true}})
			if res.Head.Version.Minor > 14 {
				if !errors.Is(err, dumper.ErrVersion) || !strings.Contains(err.Error(), "needs pg_restore 17") {
					t.Errorf("restored by pg_restore 15: %v", err)
				}
				return
			}
			if strings.Contains(name, "-data") {
				if err == nil {
					t.Error("data without definitions went into an empty database")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := "300"
			if strings.Contains(name, "schema") || strings.Contains(name, "predata") {
				want = "0"
			}
			if got := text(t, pg, db, `SELECT count(*) FROM digest`); got != want {
				t.Errorf("digest has %s rows, want %s", got, want)
			}
		})
	}
}

// damages are archives that are none, by what must be said of them.
func damages(t testing.TB, raw []byte) map[string]struct {
	raw  []byte
	want string
} {
	res, err := ShowObject(t.Context(), ShowObjectOptions{Bucket: foreignBucket(t, raw), Key: foreignKey})
	if err != nil {
		t.Fatal(err)
	}
	head, first, last := res.Index.Dump.Head.Length, res.Index.Blocks[0], res.Index.Blocks[len(res.Index.Blocks)-1]
	block := func(b IndexBlock) []byte { return raw[b.Offset : b.Offset+b.Length] }
	lying := bytes.Clone(raw[:head])
	// The name of the database is the first string of the head, behind 7 integers.
	at := 8 + 3 + 5 + 7*5
	lying[at] = 0
	binary.LittleEndian.PutUint32(lying[at+1:], 1<<31-1)
	type damage = struct {
		raw  []byte
		want string
	}
	return map[string]damage{
		"cut in the head":     {raw[:head/2], "ends in the head"},
		"cut behind the head": {raw[:head], "before the block of"},
		"cut in a block":      {raw[:first.Offset+first.Length/2], "inside the block of"},
		"cut between blocks":  {raw[:last.Offset], "before the block of"},
		"last byte missing":   {raw[:len(raw)-1], "inside the block of"},
		"a byte more":         {append(bytes.Clone(raw), 0), "bytes follow the last block"},
		"twice itself":        {append(bytes.Clone(raw), raw...), "bytes follow the last block"},
		"a block twice":       {slices.Concat(raw[:first.Offset+first.Length], block(first), raw[first.Offset+first.Length:]), "second block of"},
		"a block left out":    {slices.Concat(raw[:first.Offset], raw[first.Offset+first.Length:]), "should stand here"},
		"flipped bit":         {flip(raw, int(last.Offset+last.Length/2)), last.Name},
		"a string of 2 GiB":   {lying, "database: the stream ends in the head"},
		"empty":               {nil, "seems to be empty; whatever wrote it failed"},
		"plain SQL":           {[]byte("--\n-- PostgreSQL database dump\n--\n\nSET x = 1;\n"), "seems to be plain SQL (pg_dump without -Fc); feed it to psql"},
		"tar format":          {append([]byte("toc.dat"), make([]byte, 2000)...), "pg_dump -Ft"},
		"directory's toc.dat": {append(bytes.Clone(raw[:10]), append([]byte{3}, raw[11:head]...)...), "pg_dump -Fd"},
		"age":                 {[]byte("age-encryption.org/v1\n-> X25519 xyz\n"), "encrypted with age; decrypt it first"},
		"anything":            {[]byte("lorem ipsum"), "seems to be no archive"},
	}
}

// What is not whole is refused before pg_restore gets a byte, and what is no archive is told
// by what it seems to be.
func TestForeignDamaged(t *testing.T) {
	pg := testenv.Postgres(t)
	raw := stockDump(t, pg, smallSource(t, pg), false)
	db := pg.CreateDatabase(t)
	for name, c := range damages(t, raw) {
		t.Run(name, func(t *testing.T) {
			b := foreignBucket(t, c.raw)
			var out bytes.Buffer
			for what, err := range map[string]error{
				"restore": second(Restore(t.Context(), RestoreOptions{Bucket: b, Object: foreignKey, Conn: connTo(t, pg, db)})),
				"table": second(Restore(t.Context(), RestoreOptions{Bucket: b, Object: foreignKey, Conn: connTo(t, pg, db),
					Restore: dumper.RestoreOptions{Tables: []string{"first"}}})),
				"clean": second(Restore(t.Context(), RestoreOptions{Bucket: b, Object: foreignKey, Conn: connTo(t, pg, db),
					Restore: dumper.RestoreOptions{Clean: true, IfExists: true}})),
				"show":   second(ShowObject(t.Context(), ShowObjectOptions{Bucket: b, Key: foreignKey})),
				"output": second(Restore(t.Context(), RestoreOptions{Bucket: b, Object: foreignKey, Output: &out})),
			} {
				oneLiner(t, err)
				if !errors.Is(err, ErrIntegrity) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), foreignKey) {
					t.Errorf("%s: %v, want %q", what, err, c.want)
				}
			}
			if n := count(t, pg, db, "first"); n >= 0 {
				t.Error("the target was touched")
			}
		})
	}
}

func second[T any](_ T, err error) error { return err }

// Cut anywhere, an archive is no archive; flipped anywhere, it is found out or holds the same.
func TestForeignCutAndFlippedAnywhere(t *testing.T) {
	for _, name := range []string{"15-gzip.dump", "15-none.dump", "17-lz4.dump", "17-zstd.dump", "18-gzip.dump"} {
		t.Run(name, func(t *testing.T) {
			raw := goldens(t)[name]
			whole, err := ShowObject(t.Context(), ShowObjectOptions{Bucket: foreignBucket(t, raw), Key: foreignKey})
			if err != nil {
				t.Fatal(err)
			}
			head := int(whole.Index.Dump.Head.Length)
			step := 1 + (len(raw)-head)/400
			for n := 0; n < len(raw); n++ {
				switch {
				case n > head:
					n = min(n+step-1, len(raw)-1)
				case n%97 > 0 && name != "15-gzip.dump" && name != "18-gzip.dump":
					continue // the layout of these two is that of all
				}
				_, err := ShowObject(t.Context(), ShowObjectOptions{Bucket: foreignBucket(t, raw[:n]), Key: foreignKey})
				if !errors.Is(err, ErrIntegrity) {
					t.Fatalf("cut at %d of %d: %v", n, len(raw), err)
				}
			}
			compressed := whole.Object.Dump.Compression != "none"
			for i := head; i < len(raw); i += step {
				res, err := ShowObject(t.Context(), ShowObjectOptions{Bucket: foreignBucket(t, flip(raw, i)), Key: foreignKey})
				switch {
				case err != nil && !errors.Is(err, ErrIntegrity):
					t.Fatalf("flipped at %d: %v", i, err)
				case err == nil && res.Object.SHA256 == whole.Object.SHA256:
					t.Fatalf("flipped at %d: not seen", i)
				case err == nil && compressed && name != "17-zstd.dump" && name != "17-lz4.dump":
					// zlib has a checksum; pg_dump's zstd and LZ4 frames have none.
					for k, b := range res.Index.Blocks {
						if was := whole.Index.Blocks[k]; b.RawBytes != was.RawBytes || b.Content != nil && *b.Content != *was.Content {
							t.Fatalf("flipped at %d: other content of %s", i, b.Name)
						}
					}
				}
			}
		})
	}
}
