package e2e_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgstow/pgstow/internal/testenv"
)

// witness is a program that is not ours and fetches an object.
type witness struct {
	name string
	env  []string
	args func(bucket, key, file string) []string
}

// TestWitnesses fetches what pgstow stored with other people's programs and
// reads it with a stock pg_restore: the day pgstow is gone, that is enough.
func TestWitnesses(t *testing.T) {
	pg := testenv.Postgres(t)
	db := pg.CreateDatabase(t)
	load(t, pg, db, 20) // more than one part
	stores := map[string]func(*testing.T) (env []string, bucket, url string, all []witness){
		"versitygw": func(t *testing.T) ([]string, string, string, []witness) { return s3Store(t, testenv.VersityGW(t)) },
		"minio":     func(t *testing.T) ([]string, string, string, []witness) { return s3Store(t, testenv.MinIO(t)) },
		"gcs":       gcsStore,
		"file":      fileStore,
	}
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			vars, bucket, url, all := open(t)
			env := newEnvironment(t).with(vars...).with("PGSTOW_DB=" + pg.URL(db)).hiding(pg.Password)
			id := archive(t, env, url, "--name", "witness")
			m := manifestOf(t, env, url, id)
			for _, w := range all {
				t.Run(w.name, func(t *testing.T) {
					file := filepath.Join(t.TempDir(), "fetched.dump")
					w.fetch(t, bucket, prefixOf(name)+m.Objects.Dump.Key, file)
					m.check(t, file)
					restoreStock(t, pg, db, file)
				})
			}
		})
	}
}

func prefixOf(store string) string {
	if store == "file" {
		return ""
	}
	return prefix
}

func s3Store(t *testing.T, s *testenv.S3) ([]string, string, string, []witness) {
	bucket := s.NewBucket(t, testenv.BucketOptions{})
	remote := []string{
		"RCLONE_CONFIG_W_TYPE=s3", "RCLONE_CONFIG_W_PROVIDER=Other", "RCLONE_CONFIG_W_ENV_AUTH=true",
		"RCLONE_CONFIG_W_ENDPOINT=" + s.Endpoint, "RCLONE_CONFIG_W_REGION=" + s.Region,
	}
	// To aws an empty profile is one that it does not find.
	plain := slices.DeleteFunc(s.Env(), func(v string) bool { return v == "AWS_PROFILE=" })
	return s.Env(), bucket, s.BucketURL(bucket, prefix), []witness{
		{"aws", plain, func(bucket, key, file string) []string {
			return []string{"aws", "--endpoint-url", s.Endpoint, "s3", "cp", "--only-show-errors", "s3://" + bucket + "/" + key, file}
		}},
		{"rclone", append(remote, s.Env()...), rcloneArgs},
	}
}

func gcsStore(t *testing.T) ([]string, string, string, []witness) {
	g := testenv.FakeGCS(t)
	bucket := g.NewBucket(t, false)
	return g.Env(), bucket, g.BucketURL(bucket, prefix), []witness{{"rclone", []string{
		"RCLONE_CONFIG_W_TYPE=google cloud storage", "RCLONE_CONFIG_W_ANONYMOUS=true", "RCLONE_CONFIG_W_ENDPOINT=" + g.Endpoint,
	}, rcloneArgs}}
}

func fileStore(t *testing.T) ([]string, string, string, []witness) {
	dir := t.TempDir()
	return nil, dir, "file://" + dir, []witness{{"cp", nil, func(bucket, key, file string) []string {
		return []string{"cp", bucket + "/" + key, file}
	}}}
}

func rcloneArgs(bucket, key, file string) []string {
	return []string{"rclone", "--config", "/dev/null", "copyto", "w:" + bucket + "/" + key, file}
}

func (w witness) fetch(t *testing.T, bucket, key, file string) {
	t.Helper()
	args := w.args(bucket, key, file)
	cmd := exec.Command(testenv.Tool(t, args[0]), args[1:]...)
	cmd.Env = append([]string{"PATH=/usr/bin:/bin", "HOME=" + t.TempDir()}, w.env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

type dumpRange struct {
	Length int64
	SHA256 string
}

// manifest is what show --json prints, read by somebody who knows the layout
// from its documentation only.
type manifest struct {
	Objects struct {
		Dump struct {
			Key        string
			Size       int64
			SHA256     string
			Head, Body *dumpRange
		}
	}
}

func manifestOf(t *testing.T, env environment, bucket, id string) manifest {
	t.Helper()
	var shown struct{ Manifest manifest }
	out := run(t, env, 0, "show", "--json", id, "--from", bucket)
	if err := json.Unmarshal([]byte(out), &shown); err != nil {
		t.Fatal(err)
	}
	return shown.Manifest
}

// check compares a fetched dump with the hashes in the manifest.
func (m manifest) check(t *testing.T, file string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dump := m.Objects.Dump
	info, err := f.Stat()
	if err != nil || info.Size() != dump.Size {
		t.Fatalf("size %v, %v, want %d", info, err, dump.Size)
	}
	checked := 0
	for what, want := range map[string]struct {
		r      *dumpRange
		offset int64
	}{
		"whole": {&dumpRange{dump.Size, dump.SHA256}, 0}, "head": {dump.Head, 0}, "body": {dump.Body, -1},
	} {
		if want.r == nil || want.r.SHA256 == "" {
			continue
		}
		checked++
		offset := want.offset
		if offset < 0 {
			offset = dump.Size - want.r.Length
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, io.NewSectionReader(f, offset, want.r.Length)); err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != want.r.SHA256 {
			t.Errorf("SHA-256 of the %s is %s, want %s", what, got, want.r.SHA256)
		}
	}
	if checked == 0 {
		t.Error("the manifest has no hash of the dump")
	}
}

// restoreStock restores a file with pg_restore alone and compares.
func restoreStock(t *testing.T, pg *testenv.Cluster, db, file string) {
	t.Helper()
	target := pg.CreateDatabase(t)
	cmd := exec.Command(testenv.Tool(t, "pg_restore"), "--exit-on-error", "--dbname="+target, file)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "PGHOST=" + pg.Host, "PGPORT=" + portOf(pg.Addr()), "PGUSER=" + pg.User, "PGPASSWORD=" + pg.Password}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pg_restore: %v\n%s", err, out)
	}
	sameContents(t, pg, db, target)
}

func portOf(addr string) string {
	_, port, _ := strings.Cut(addr, ":")
	return port
}
