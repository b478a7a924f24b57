package archiver

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
)

// stockPage is docs/without-pgstow.md, by the names of its blocks.
type stockPage map[string]string

var stockBlock = regexp.MustCompile(`<!-- run: ([a-z-]+) -->\n((?:    .*\n|\n)+)`)

func readStockPage(t testing.TB) stockPage {
	t.Helper()
	raw := string(read(t, testenv.Root(t), "docs/without-pgstow.md"))
	page := stockPage{}
	for _, m := range stockBlock.FindAllStringSubmatch(raw, -1) {
		page[m[1]] = m[2]
	}
	// Whatever looks like a command has its name: nothing stands there untested.
	rest := stockBlock.ReplaceAllString(raw, "")
	if strings.Contains(rest, "\n    ") || len(page) != strings.Count(raw, "<!-- run: ") {
		t.Fatalf("the page has commands that no test runs, among %d blocks", len(page))
	}
	return page
}

// stockArchive is one archive and a person with nothing but stock tools.
type stockArchive struct {
	t       *testing.T
	page    stockPage
	pg      *testenv.Cluster
	s3      *testenv.S3
	url     string // of the archive
	key     string // that signed it
	allowed string // file
	keys    *keys  // whom it is encrypted to; nil for nobody
	m       *Manifest
}

// steps are the checks of the page in its order, behind the fetching.
func (a *stockArchive) steps() []string {
	steps := []string{"signature", "hashes", "decrypt", "content", "restore", "objects"}
	if a.keys == nil {
		return slices.Delete(steps, 2, 3)
	}
	return steps
}

// run runs blocks of the page in dir, one after another in one shell.
func (a *stockArchive) run(dir string, blocks ...string) (string, error) {
	a.t.Helper()
	var script strings.Builder
	script.WriteString("set -eu\n")
	fmt.Fprintf(&script, "aws() { command aws --endpoint-url '%s' \"$@\"; }\n", a.s3.Endpoint)
	// What the reader has to fill in, and the tools' own words.
	fmt.Fprintf(&script, "%s\narchive='%s' allowed_signers='%s' signer=alice\n", a.page["variables"], a.url, a.allowed)
	if a.keys != nil {
		fmt.Fprintf(&script, "identity='%s'\n", a.keys.identity)
	}
	script.WriteString(a.page["words"])
	for _, b := range blocks {
		if a.page[b] == "" {
			a.t.Fatalf("the page has no block %q", b)
		}
		script.WriteString(a.page[b] + "\n")
	}
	cmd := exec.CommandContext(a.t.Context(), "sh", "-c", script.String())
	cmd.Dir = dir
	home := a.t.TempDir()
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "AWS_") || strings.HasPrefix(v, "PG") }),
		slices.DeleteFunc(a.s3.Env(), func(v string) bool { return v == "AWS_PROFILE=" })...)
	host, port, _ := strings.Cut(a.pg.Addr(), ":")
	cmd.Env = append(cmd.Env, "HOME="+home, "PATH="+filepath.Dir(testenv.Tool(a.t, "pg_restore"))+":"+os.Getenv("PATH"),
		"PGHOST="+host, "PGPORT="+port, "PGUSER="+a.pg.User, "PGPASSWORD="+a.pg.Password)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// copyDir is a copy of a directory, to be tampered with.
func copyDir(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// name is that of an object, as it is stored.
func (a *stockArchive) name(object string) string {
	if a.keys != nil {
		return object + EncryptedSuffix
	}
	return object
}

// forge changes what is in an object and makes the manifest fit, signed with the
// good key: only a look at the content itself can find it.
func (a *stockArchive) forge(dir, object string, change func([]byte) []byte) {
	a.t.Helper()
	name, plain := a.name(object), read(a.t, dir, a.name(object))
	manifest := string(read(a.t, dir, ManifestName))
	swap := func(before, after []byte) { manifest = strings.ReplaceAll(manifest, hexSum(before), hexSum(after)) }
	if a.keys == nil {
		changed := change(bytes.Clone(plain))
		if head := a.m.Objects.Dump.Head; object == DumpName && a.m.Objects.Dump.Body != nil {
			swap(plain[:head.Length], changed[:head.Length])
			swap(plain[head.Length:], changed[head.Length:])
		}
		swap(plain, changed)
		write(a.t, dir, name, changed)
	} else {
		stored := plain
		plain = a.tool("age", "-d", "-i", a.keys.identity, filepath.Join(dir, name))
		changed := change(bytes.Clone(plain))
		write(a.t, dir, "changed", changed)
		a.tool("age", "-r", a.keys.recipient, "-o", filepath.Join(dir, name), filepath.Join(dir, "changed"))
		swap(stored, read(a.t, dir, name))
		swap(plain, changed)
		if err := os.Remove(filepath.Join(dir, "changed")); err != nil {
			a.t.Fatal(err)
		}
	}
	a.sign(dir, manifest)
}

// sign makes the manifest another one that the good key has signed.
func (a *stockArchive) sign(dir, manifest string) {
	a.t.Helper()
	if manifest == string(read(a.t, dir, ManifestName)) {
		a.t.Fatal("the manifest is the same")
	}
	write(a.t, dir, ManifestName, []byte(manifest))
	if err := os.Remove(filepath.Join(dir, SignatureName)); err != nil {
		a.t.Fatal(err)
	}
	a.tool("ssh-keygen", "-q", "-Y", "sign", "-f", a.key, "-n", SignatureNamespace, filepath.Join(dir, ManifestName))
}

func (a *stockArchive) tool(name string, args ...string) []byte {
	a.t.Helper()
	cmd := exec.CommandContext(a.t.Context(), name, args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		a.t.Fatalf("%s %q: %v\n%s", name, args, err, errs.String())
	}
	return out
}

func regzip(t testing.TB, change func(string) string) func([]byte) []byte {
	return func(raw []byte) []byte {
		t.Helper()
		zr, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(zr)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		zw := gzip.NewWriter(&out)
		if _, err := io.WriteString(zw, change(string(text))); err != nil {
			t.Fatal(err)
		}
		if err := zw.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
}

// The page as it stands, with stock tools alone: from a real store to a restored
// database, for plain and for encrypted archives; and of whatever was tampered
// with, the check that it names fails, and none before it.
func TestWithoutPgstow(t *testing.T) {
	pg := testenv.Postgres(t)
	page := readStockPage(t)
	db := smallSource(t, pg)
	pg.Exec(t, db, `CREATE TABLE "Odd, Näme" (x text); INSERT INTO "Odd, Näme" VALUES (E'tab\tand\nline'), (NULL), (''), ('COPY x'), (E'\\.')`)
	alice, mallory := sshKey(t, "ed25519"), sshKey(t, "ed25519")
	allowedFile := writeTemp(t, "allowed_signers", `alice namespaces="pgstow" `+publicText(t, alice)+"\n")
	sealKeys := newKeys(t, "age")
	for name, c := range map[string]struct {
		s3   *testenv.S3
		keys *keys
	}{"plain": {testenv.VersityGW(t), nil}, "encrypted": {testenv.MinIO(t), &sealKeys}} {
		t.Run(name, func(t *testing.T) {
			bucket := c.s3.NewBucket(t, testenv.BucketOptions{ObjectLock: true})
			b := openS3On(t, c.s3, bucket)
			t.Cleanup(func() { b.Close() })
			opts := ArchiveOptions{Bucket: b, Conn: connTo(t, pg, db), Name: "orders", Pgstow: "test", Signer: openKey(t, alice)}
			if c.keys != nil {
				opts.Recipients = recipients(t, c.keys.recipient)
			}
			archive := func() *Manifest {
				res, err := Archive(t.Context(), opts)
				if err != nil {
					t.Fatal(err)
				}
				return res.Manifest
			}
			m := archive()
			if (m.Objects.Dump.Body != nil) != (c.keys == nil) {
				t.Fatal("both ways of storing a head are to be tried")
			}
			a := &stockArchive{t: t, page: page, pg: pg, s3: c.s3, key: alice, allowed: allowedFile, keys: c.keys, m: m,
				url: "s3://" + bucket + "/" + strings.TrimSuffix(m.Key, "/"+ManifestName)}

			dir := t.TempDir()
			if out, err := a.run(dir, "fetch-aws"); err != nil {
				t.Fatalf("fetch: %v\n%s", err, out)
			}
			out, err := a.run(dir, a.steps()...)
			defer pg.Exec(t, "postgres", "DROP DATABASE IF EXISTS restored")
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range []string{
				`Good "pgstow" signature for alice`, "the manifest belongs here", "globals.sql", "rows of public second: as promised",
				"text of public first: as promised", "rows of all tables: as promised", "large object ",
			} {
				if !strings.Contains(out, want) {
					t.Errorf("it does not say %q:\n%s", want, out)
				}
			}
			equal(t, pg, db, "restored")
			a.tampered(dir, mallory, archive)
			a.covered(b)
		})
	}
}

// tampered has somebody change a good copy in every way.
func (a *stockArchive) tampered(good, mallory string, another func() *Manifest) {
	t := a.t
	for _, name := range []string{"archive.dump", "index.json.gz", "globals.sql"} { // what was made of the stored files
		if a.keys != nil {
			_ = os.Remove(filepath.Join(good, name))
		}
	}
	for _, name := range []string{"contents.txt", "index.json", "table.txt", "table.sql", "rows.txt"} {
		_ = os.Remove(filepath.Join(good, name))
	}
	edit := func(name string, change func([]byte) []byte) func(string) {
		return func(dir string) { write(t, dir, name, change(read(t, dir, name))) }
	}
	flipAt := func(i int) func([]byte) []byte { return func(b []byte) []byte { return flip(b, i) } }
	cut := func(b []byte) []byte { return b[:len(b)-1] }
	other := another()
	body := int(a.m.Objects.Dump.Head.Length) + 200
	cases := map[string]struct {
		change func(dir string)
		fails  string
	}{
		"a manifest changed": {edit(ManifestName, func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"pgstow": "test"`), []byte(`"pgstow": "evil"`), 1)
		}), "signature"},
		"somebody else's signature": {func(dir string) {
			_ = os.Remove(filepath.Join(dir, SignatureName))
			a.tool("ssh-keygen", "-q", "-Y", "sign", "-f", mallory, "-n", SignatureNamespace, filepath.Join(dir, ManifestName))
		}, "signature"},
		"a signature for something else": {func(dir string) {
			_ = os.Remove(filepath.Join(dir, SignatureName))
			a.tool("ssh-keygen", "-q", "-Y", "sign", "-f", a.key, "-n", "git", filepath.Join(dir, ManifestName))
		}, "signature"},
		"no signature": {func(dir string) { _ = os.Remove(filepath.Join(dir, SignatureName)) }, "signature"},
		"another archive's manifest": {func(dir string) {
			elsewhere := *a
			elsewhere.url = strings.Replace(a.url, strings.TrimSuffix(a.m.Key, "/"+ManifestName), strings.TrimSuffix(other.Key, "/"+ManifestName), 1)
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if out, err := elsewhere.run(dir, "fetch-aws"); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		}, "signature"},
		"a head":             {edit(a.name(DumpName), flipAt(40)), "hashes"},
		"a body":             {edit(a.name(DumpName), flipAt(-100)), "hashes"},
		"a dump that is cut": {edit(a.name(DumpName), cut), "hashes"},
		"an index":           {edit(a.name(IndexName), flipAt(-10)), "hashes"},
		"globals":            {edit(a.name(GlobalsName), flipAt(-10)), "hashes"},
		"globals gone":       {func(dir string) { _ = os.Remove(filepath.Join(dir, a.name(GlobalsName))) }, "hashes"},
		"index and globals exchanged": {func(dir string) {
			index, globals := read(t, dir, a.name(IndexName)), read(t, dir, a.name(GlobalsName))
			write(t, dir, a.name(IndexName), globals)
			write(t, dir, a.name(GlobalsName), index)
		}, "hashes"},
		"rows of the index": {func(dir string) {
			a.forge(dir, IndexName, regzip(t, func(s string) string { return strings.Replace(s, `"rows":20000,`, `"rows":20001,`, 1) }))
		}, "content"},
		"a hash of the index": {func(dir string) {
			a.forge(dir, IndexName, regzip(t, func(s string) string {
				return regexp.MustCompile(`("rows":20000,"sha256":")[0-9a-f]{8}`).ReplaceAllString(s, "${1}00000000")
			}))
		}, "content"},
		"a table that the index forgets": {func(dir string) {
			a.forge(dir, IndexName, regzip(t, func(s string) string {
				return regexp.MustCompile(`(?m)^.*"name":"first".*\n`).ReplaceAllString(s, "")
			}))
		}, "content"},
		"a block of the dump": {func(dir string) { a.forge(dir, DumpName, flipAt(body)) }, "content"},
	}
	if a.keys != nil {
		cases["other bytes for the same recipient"] = struct {
			change func(dir string)
			fails  string
		}{func(dir string) {
			stored := read(t, dir, a.name(GlobalsName))
			write(t, dir, "mine", []byte("CREATE ROLE mallory SUPERUSER;\n"))
			a.tool("age", "-r", a.keys.recipient, "-o", filepath.Join(dir, a.name(GlobalsName)), filepath.Join(dir, "mine"))
			a.sign(dir, strings.ReplaceAll(string(read(t, dir, ManifestName)), hexSum(stored), hexSum(read(t, dir, a.name(GlobalsName)))))
		}, "decrypt"}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := copyDir(t, good)
			c.change(dir)
			steps := a.steps()
			for _, step := range steps[:slices.Index(steps, "restore")] {
				out, err := a.run(dir, step)
				if (err != nil) != (step == c.fails) {
					t.Errorf("%s: %v\n%s", step, err, out)
				}
				if err != nil {
					return
				}
			}
			t.Error("it is taken for good")
		})
	}
	t.Run("restored all the same", func(t *testing.T) {
		dir := copyDir(t, good)
		a.forge(dir, DumpName, flipAt(body))
		if a.keys != nil {
			if out, err := a.run(dir, "decrypt"); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		}
		a.pg.Exec(t, "postgres", "DROP DATABASE IF EXISTS restored")
		if out, err := a.run(dir, "restore"); err == nil || !strings.Contains(out, "pg_restore: error") {
			t.Errorf("a damaged dump is restored: %v\n%s", err, out)
		}
		if n := count(t, a.pg, "restored", "second"); n != -1 {
			t.Errorf("%d rows are there", n)
		}
	})
}

// covered puts later versions and a delete marker over the archive: what is
// fetched by its versions is the archive all the same.
func (a *stockArchive) covered(b storage.Bucket) {
	t := a.t
	t.Run("covered by later versions", func(t *testing.T) {
		for _, name := range []string{ManifestName, SignatureName, a.name(DumpName), a.name(IndexName)} {
			key := keyOf(a.m, name)
			if err := b.Delete(context.WithoutCancel(t.Context()), key, ""); err != nil {
				t.Fatal(err)
			}
			if name == SignatureName {
				continue // it stays hidden by its marker
			}
			bucket, _, _ := strings.Cut(strings.TrimPrefix(a.url, "s3://"), "/")
			put := stockArchive{t: t, s3: a.s3, pg: a.pg, page: stockPage{"put": "aws s3api put-object --bucket '" + bucket + "' --key '" + key + "' --body evil"}}
			dir := t.TempDir()
			write(t, dir, "evil", []byte("evil"))
			if out, err := put.run(dir, "put"); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		}
		dir := t.TempDir()
		if out, err := a.run(dir, "fetch-aws", "signature"); err == nil {
			t.Fatalf("what lies over it is taken for good:\n%s", out)
		}
		dir = t.TempDir()
		steps := a.steps()
		if out, err := a.run(dir, append([]string{"fetch-oldest"}, steps[:slices.Index(steps, "restore")]...)...); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// gcloud is no Debian package, so that tests cannot count on it: of its command the
// form is checked, and that what it copies lies where the rest of the page looks.
func TestWithoutPgstowForm(t *testing.T) {
	page := readStockPage(t)
	for name, block := range page {
		if out, err := exec.CommandContext(t.Context(), "sh", "-n", "-c", block).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	from, to := t.TempDir(), t.TempDir()
	write(t, from, "default/orders/x/manifest.json", []byte("{}"))
	write(t, from, "default/orders/x/records/r.json", []byte("{}"))
	script := "set -eu\nroot='" + from + "' archive=gs://bucket/default/orders/x\n" +
		`gcloud() { [ "$1 $2 $3 $#" = "storage cp --recursive 5" ] && cp -r $root/${4#gs://bucket/} "$5"; }` + "\n" + page["fetch-gcloud"]
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
	cmd.Dir = to
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"manifest.json", "records/r.json"} {
		if _, err := os.Stat(filepath.Join(to, name)); err != nil {
			t.Error(err)
		}
	}
}
