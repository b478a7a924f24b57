package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Home holds the data and the processes of a set of servers.
type Home struct {
	dir  string
	cred *syscall.Credential // of the servers; nil means our own

	alive   *os.File // the sweeper reads the other end
	sweeper *exec.Cmd

	mu     sync.Mutex
	procs  []*process
	names  map[string]int
	closed bool
}

// sweep waits until standard input is closed, which the kernel does when the
// owner has gone for whatever reason, and removes the directory. The servers
// are dying at that moment and may still write, so it looks twice.
const sweep = `read -r _
n=0
while [ $n -lt 60 ]; do
  rm -rf -- "$1" 2>/dev/null
  sleep 0.2
  [ -e "$1" ] || exit 0
  n=$((n+1))
done`

// Open creates a Home. The caller closes it; if it never does, the directory
// and the processes end with the caller.
func Open() (*Home, error) {
	h := &Home{names: map[string]int{}}
	if os.Geteuid() == 0 {
		cred, err := unprivileged()
		if err != nil {
			return nil, err
		}
		h.cred = cred
	}
	dir, err := os.MkdirTemp("", "pgstow-")
	if err != nil {
		return nil, fmt.Errorf("create a directory for the servers: %w", err)
	}
	h.dir = dir
	if h.cred != nil && !reachable(dir) {
		return nil, errors.Join(fmt.Errorf("the servers' user cannot enter %s; set TMPDIR to a directory of mode 0711", filepath.Dir(dir)),
			os.RemoveAll(dir))
	}
	// The servers' user has to pass through; each server's own directory is
	// private to it.
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // see above
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	// A session of its own: Ctrl-C at a terminal must not stop the clean-up.
	h.sweeper = exec.Command("/bin/sh", "-c", sweep, "sweep", dir)
	h.sweeper.Stdin = r
	h.sweeper.Dir = "/"
	h.sweeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = h.sweeper.Start()
	_ = r.Close()
	if err != nil {
		_ = w.Close()
		return nil, errors.Join(fmt.Errorf("start the sweeper: %w", err), os.RemoveAll(dir))
	}
	h.alive = w
	return h, nil
}

// Dir is the directory that holds everything; it is gone after Close.
func (h *Home) Dir() string { return h.dir }

// Close ends every server and removes the directory. It may be called twice.
func (h *Home) Close() error {
	h.mu.Lock()
	procs, closed := h.procs, h.closed
	h.procs, h.closed = nil, true
	h.mu.Unlock()
	if closed {
		return nil
	}
	var errs []error
	for i := len(procs) - 1; i >= 0; i-- { // clients before the servers they use
		errs = append(errs, procs[i].stop())
	}
	errs = append(errs, removeAll(h.dir), h.alive.Close())
	if err := h.sweeper.Wait(); err != nil {
		errs = append(errs, fmt.Errorf("remove %s: %w", h.dir, err))
	}
	return errors.Join(errs...)
}

// removeAll tries again for a moment, as PostgreSQL's children may end a little
// after the process that was waited for.
func removeAll(dir string) error {
	var err error
	for range 50 {
		if err = os.RemoveAll(dir); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

// mkdir creates a fresh directory for one server, owned by the servers' user.
func (h *Home) mkdir(name string) (string, error) {
	h.mu.Lock()
	h.names[name]++
	if n := h.names[name]; n > 1 {
		name += "-" + strconv.Itoa(n)
	}
	h.mu.Unlock()
	dir := filepath.Join(h.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	return dir, h.chown(dir)
}

func (h *Home) chown(path string) error {
	if h.cred == nil {
		return nil
	}
	return os.Chown(path, int(h.cred.Uid), int(h.cred.Gid))
}

// writeFile writes a file that only the servers' user reads.
func (h *Home) writeFile(path, text string) error {
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	return h.chown(path)
}

// unprivileged is PostgreSQL's own user, or nobody.
func unprivileged() (*syscall.Credential, error) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("user %s: %w", name, err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("running as root, and there is neither a user postgres nor nobody to run servers as")
}

// executable returns a path of the program that the servers' user can reach:
// a tool in a home directory of mode 0700 is linked (or copied) into the Home.
func (h *Home) executable(name string) (string, error) {
	path, err := Find(name)
	if err != nil {
		return "", err
	}
	if h.cred == nil {
		return path, nil
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	if reachable(real) {
		return real, nil
	}
	bin := filepath.Join(h.dir, "bin")
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := os.MkdirAll(bin, 0o755); err != nil { //nolint:gosec // the servers' user executes from it
		return "", err
	}
	dst := filepath.Join(bin, filepath.Base(path))
	if _, err := os.Stat(dst); err == nil {
		return dst, nil
	}
	if err := os.Link(real, dst); err == nil {
		return dst, nil
	}
	return dst, copyExecutable(real, dst)
}

// reachable reports whether any user may walk to path.
func reachable(path string) bool {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

func copyExecutable(src, dst string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755) //nolint:gosec // a program
	if err != nil {
		return err
	}
	_, err = out.ReadFrom(in)
	return errors.Join(err, out.Close())
}

// Root is the repository's root directory: the nearest go.mod upwards.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod in this directory or above it")
		}
		dir = filepath.Dir(dir)
	}
}

// Find returns the path of a program: from .tools/bin, from PostgreSQL's
// newest installation, from PATH or from the system's sbin directories.
func Find(name string) (string, error) {
	var candidates []string
	if root, err := Root(); err == nil {
		candidates = append(candidates, filepath.Join(root, ".tools", "bin", name))
	}
	if dir := postgresBin(); dir != "" {
		candidates = append(candidates, filepath.Join(dir, name))
	}
	for _, path := range candidates {
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			return path, nil
		}
	}
	if path, err := exec.LookPath(name); err == nil {
		return filepath.Abs(path)
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} { // not on a user's PATH
		if path := filepath.Join(dir, name); isFile(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed; run `make tools`", name)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// postgresBin is the bin directory of the newest PostgreSQL server in Debian's
// layout, "" if there is none.
func postgresBin() string {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	best, bestMajor := "", -1
	for _, dir := range dirs {
		major, err := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
		if err == nil && major > bestMajor && isFile(filepath.Join(dir, "initdb")) {
			best, bestMajor = dir, major
		}
	}
	return best
}
