package testenv

import (
	"context"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// User is a user of a MinIO server's, with one policy of its own.
type User struct {
	Name, Secret string

	srv *S3
	dir string // of mc's configuration
}

// NewUser makes a user who may do what an IAM policy, as JSON, allows. Only
// MinIO has users.
func (s *S3) NewUser(t testing.TB, policy string) *User {
	t.Helper()
	u := &User{Name: strings.ToLower(rand.Text()[:12]), Secret: rand.Text(), srv: s, dir: t.TempDir()}
	u.mc(t, "user", "add", "m", u.Name, u.Secret)
	u.Allow(t, policy)
	u.mc(t, "policy", "attach", "m", u.Name, "--user", u.Name)
	return u
}

// Allow replaces the user's policy, at once.
func (u *User) Allow(t testing.TB, policy string) {
	t.Helper()
	file := filepath.Join(u.dir, "policy.json")
	must(t, os.WriteFile(file, []byte(policy), 0o600))
	u.mc(t, "policy", "create", "m", u.Name, file)
}

// Env is the server's Env with the user's credentials.
func (u *User) Env() []string {
	own := *u.srv.S3
	own.AccessKey, own.SecretKey = u.Name, u.Secret
	return own.Env()
}

// mc runs "mc admin" as the server's root, whose secret goes by the environment.
func (u *User) mc(t testing.TB, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, Tool(t, "mc"), append([]string{"--config-dir", u.dir, "--quiet", "admin"}, args...)...)
	host := strings.Replace(u.srv.Endpoint, "http://", "http://"+u.srv.AccessKey+":"+u.srv.SecretKey+"@", 1)
	cmd.Env = append(os.Environ(), "MC_HOST_m="+host)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("testenv: mc admin %s %s: %v: %s", args[0], args[1], err, out)
	}
}
