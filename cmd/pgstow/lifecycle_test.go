package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/internal/testenv/gcsserver"
)

// TestLifecycleScript runs testdata/lifecycle. Each script has fresh, versioned
// buckets with nothing in them:
//
//	$S3      on MinIO, $S3NAME is its name
//	$GCS     on the strict GCS server
//	$NORULES on versitygw, which has no lifecycle rules
//	$FOLDER  a folder
//
// Beside TestScript's commands there are narrow, which checks that stdout fits
// into 80 columns, and mc: MinIO's own client, to which $S3NAME is m/$S3NAME.
func TestLifecycleScript(t *testing.T) {
	bin := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, "pgstow")); err != nil {
		t.Fatal(err)
	}
	minio, versity := testenv.MinIO(t), testenv.VersityGW(t)
	cloud := gcsserver.Start(t, gcsserver.Options{})
	testscript.Run(t, testscript.Params{
		Dir: "testdata/lifecycle",
		Setup: func(env *testscript.Env) error {
			name := minio.NewBucket(t, testenv.BucketOptions{Versioning: true})
			if err := cloud.CreateBucket(name, map[string]any{"versioning": map[string]any{"enabled": true}}); err != nil {
				return err
			}
			folder := filepath.Join(env.WorkDir, "bucket")
			for _, dir := range []string{folder, filepath.Join(env.WorkDir, "mc")} {
				if err := os.Mkdir(dir, 0o700); err != nil {
					return err
				}
			}
			for _, pair := range minio.Env() {
				name, value, _ := strings.Cut(pair, "=")
				env.Setenv(name, value)
			}
			env.Setenv("PATH", bin+string(filepath.ListSeparator)+env.Getenv("PATH"))
			env.Setenv("S3NAME", name)
			env.Setenv("S3", minio.BucketURL(name, "pg/"))
			env.Setenv("TEAM", minio.BucketURL(name, "team/"))
			env.Setenv("GCS", "gs://"+name+"/pg/?endpoint="+cloud.URL)
			env.Setenv("NORULES", versity.BucketURL(versity.NewBucket(t, testenv.BucketOptions{}), "pg/"))
			env.Setenv("FOLDER", "file://"+folder)
			env.Setenv("VGW_KEY", versity.AccessKey)
			env.Setenv("VGW_SECRET", versity.SecretKey)
			env.Setenv("SECRETS", minio.SecretKey)
			env.Setenv("MC", testenv.Tool(t, "mc"))
			env.Setenv("MC_CONFIG_DIR", filepath.Join(env.WorkDir, "mc"))
			env.Setenv("MC_HOST_m", strings.Replace(minio.Endpoint, "http://", "http://"+minio.AccessKey+":"+minio.SecretKey+"@", 1))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"pgstow": runPgstow, "code": cmdCode, "json": cmdJSON, "narrow": cmdNarrow,
		},
		RequireUniqueNames: true,
	})
}

// cmdNarrow checks that the last stdout fits into 80 columns.
func cmdNarrow(ts *testscript.TestScript, _ bool, _ []string) {
	out := ts.ReadFile("stdout")
	for line := range strings.Lines(out) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
			ts.Fatalf("%s columns: %s", strconv.Itoa(n), line)
		}
	}
	if out == "" {
		ts.Fatalf("nothing was printed")
	}
}
