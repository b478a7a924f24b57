package s3

import (
	"crypto/rand"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/pgstow/pgstow/internal/testenv"
)

// minioUser makes a user of MinIO's that may do nothing but actions, on the
// bucket and its objects.
func minioUser(t testing.TB, srv *testenv.S3, bucket string, actions ...string) aws.CredentialsProvider {
	t.Helper()
	arn := "arn:aws:s3:::" + bucket
	policy, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": []any{map[string]any{
		"Effect": "Allow", "Action": actions, "Resource": []string{arn, arn + "/*"}}}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "policy.json")
	if err := os.WriteFile(file, policy, 0o600); err != nil {
		t.Fatal(err)
	}
	mc := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), testenv.Tool(t, "mc"), append([]string{"--config-dir", dir}, args...)...)
		cmd.Env = append(os.Environ(), "MC_HOST_m="+strings.Replace(srv.Endpoint, "http://", "http://"+srv.AccessKey+":"+srv.SecretKey+"@", 1))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("mc %s: %v: %s", args[1], err, out)
		}
	}
	user, secret := strings.ToLower(rand.Text()[:12]), rand.Text()
	mc("admin", "user", "add", "m", user, secret)
	mc("admin", "policy", "create", "m", user, file)
	mc("admin", "policy", "attach", "m", user, "--user", user)
	return credentials.NewStaticCredentialsProvider(user, secret, "")
}
