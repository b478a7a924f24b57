package e2e_test

import (
	"os/exec"
	"testing"

	"github.com/pgstow/pgstow/internal/testenv"
)

// TestForeignObjects restores what other people's programs have stored: pg_dump -Fc piped into a
// bucket by aws and by rclone, in several parts.
func TestForeignObjects(t *testing.T) {
	pg := testenv.Postgres(t)
	db := pg.CreateDatabase(t)
	load(t, pg, db, 20)
	for name, server := range map[string]*testenv.S3{"versitygw": testenv.VersityGW(t), "minio": testenv.MinIO(t)} {
		vars, bucket, url, fetchers := s3Store(t, server)
		for _, w := range fetchers {
			t.Run(name+" "+w.name, func(t *testing.T) {
				key := "nightly/" + w.name + ".dump"
				args := map[string][]string{
					"aws":    {"aws", "--endpoint-url", server.Endpoint, "s3", "cp", "--only-show-errors", "-", "s3://" + bucket + "/" + prefix + key},
					"rclone": {"rclone", "--config", "/dev/null", "rcat", "w:" + bucket + "/" + prefix + key},
				}[w.name]
				dump := exec.Command(testenv.Tool(t, "pg_dump"), "-Fc", "-d", pg.URL(db))
				store := exec.Command(testenv.Tool(t, args[0]), args[1:]...)
				store.Env = append([]string{"PATH=/usr/bin:/bin", "HOME=" + t.TempDir()}, w.env...)
				var err error
				if store.Stdin, err = dump.StdoutPipe(); err != nil {
					t.Fatal(err)
				}
				if err := dump.Start(); err != nil {
					t.Fatal(err)
				}
				if out, err := store.CombinedOutput(); err != nil {
					t.Fatalf("%s: %v\n%s", w.name, err, out)
				}
				if err := dump.Wait(); err != nil {
					t.Fatal(err)
				}
				target := pg.CreateDatabase(t)
				env := newEnvironment(t).with(vars...).with("PGSTOW_DB=" + pg.URL(target)).hiding(pg.Password)
				run(t, env, 0, "show", "--object", key, "--from", url)
				run(t, env, 0, "restore", "--object", key, "--from", url, "--jobs", "2")
				sameContents(t, pg, db, target)
			})
		}
	}
}
