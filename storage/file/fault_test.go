package file

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// childEnv marks the process that a test starts from its own binary.
const childEnv = "PGSTOW_FILE_TEST_CHILD"

// child runs the calling test once more in a process of its own, changed by
// attr, and fails unless it passes there. It returns true in that process.
func child(t *testing.T, attr *syscall.SysProcAttr) bool {
	t.Helper()
	if os.Getenv(childEnv) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("in a process of its own (user namespaces must be allowed): %v\n%s", err, out)
	}
	return false
}

// namespace maps the current user to inside, which has root's powers there only
// if it is 0.
func namespace(inside int, flags uintptr) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | flags,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: inside, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: inside, HostID: os.Getgid(), Size: 1}},
	}
}

// counted tells how much of it was read.
type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func mustPut(t *testing.T, b storage.Bucket, key, data string) {
	t.Helper()
	if _, err := storage.PutBytes(t.Context(), b, key, []byte(data), storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

func listed(t *testing.T, b storage.Bucket, opts storage.ListOptions) []string {
	t.Helper()
	keys := []string{}
	for o, err := range b.List(t.Context(), opts) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, o.Key)
	}
	return keys
}

func is(t *testing.T, err error, kinds ...error) {
	t.Helper()
	for _, kind := range kinds {
		if !errors.Is(err, kind) {
			t.Errorf("error %v, expected %v", err, kind)
		}
	}
}

func TestDiskFull(t *testing.T) {
	if !child(t, namespace(0, syscall.CLONE_NEWNS)) {
		return
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=3m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	b := open(t, dir)
	mustPut(t, b, "pg/before", "here")
	_, err := b.Put(t.Context(), "pg/large", rand.NewChaCha8([32]byte{}), storage.PutOptions{})
	is(t, err, storage.ErrUnavailable, syscall.ENOSPC)
	if !strings.Contains(err.Error(), "full") {
		t.Errorf("the error does not say that the disk is full: %v", err)
	}
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	if keys := listed(t, b, storage.ListOptions{}); !slices.Equal(keys, []string{"pg/before"}) {
		t.Errorf("listed: %q", keys)
	}
	mustPut(t, b, "pg/after", "there is room again")
}

func TestReadOnlyFileSystem(t *testing.T) {
	if !child(t, namespace(0, syscall.CLONE_NEWNS)) {
		return
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	b := open(t, dir)
	mustPut(t, b, "pg/kept", "here")
	if err := syscall.Mount("none", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	source := &counted{r: strings.NewReader("data")}
	_, err := b.Put(t.Context(), "pg/new", source, storage.PutOptions{})
	is(t, err, storage.ErrPermission, syscall.EROFS)
	if source.n > 0 {
		t.Errorf("%d bytes were read first", source.n)
	}
	is(t, b.Delete(t.Context(), "pg/kept", ""), storage.ErrPermission)
	if keys := listed(t, b, storage.ListOptions{}); !slices.Equal(keys, []string{"pg/kept"}) {
		t.Errorf("listed: %q", keys)
	}
}

func TestDenied(t *testing.T) {
	if !child(t, namespace(1000, 0)) {
		return
	}
	dir := t.TempDir()
	b := open(t, dir)
	mustPut(t, b, "pg/a", "here")
	if err := os.Chmod(filepath.Join(dir, "pg"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(filepath.Join(dir, "pg"), 0o700) })
	_, err := b.Stat(t.Context(), "pg/a", "")
	is(t, err, storage.ErrPermission)
	_, err = b.Open(t.Context(), "pg/a", storage.OpenOptions{})
	is(t, err, storage.ErrPermission)
	is(t, b.Delete(t.Context(), "pg/a", ""), storage.ErrPermission)
	for _, err = range b.List(t.Context(), storage.ListOptions{}) {
	}
	is(t, err, storage.ErrPermission)
	source := &counted{r: strings.NewReader("data")}
	_, err = b.Put(t.Context(), "pg/b", source, storage.PutOptions{})
	is(t, err, storage.ErrPermission)
	if source.n > 0 {
		t.Errorf("%d bytes were read first", source.n)
	}
	if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(dir, 0o700) })
	_, err = Open(t.Context(), Config{Dir: filepath.Join(dir, "pg")})
	is(t, err, storage.ErrPermission)
}

// TestLostFound: the root of an ext4 disk holds a folder that only root can
// read, and a listing must not fail on it.
func TestLostFound(t *testing.T) {
	if !child(t, namespace(1000, 0)) {
		return
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, lostFound), 0); err != nil {
		t.Fatal(err)
	}
	b := open(t, dir)
	mustPut(t, b, "a", "here")
	if keys := listed(t, b, storage.ListOptions{}); !slices.Equal(keys, []string{"a"}) {
		t.Errorf("listed: %q", keys)
	}
	_, err := storage.PutBytes(t.Context(), b, lostFound+"/x", nil, storage.PutOptions{})
	is(t, err, storage.ErrInvalidKey)
}

func TestSizeLimit(t *testing.T) {
	if !child(t, nil) {
		return
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 2 << 20, Max: 2 << 20}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	_, err := open(t, dir).Put(t.Context(), "large", rand.NewChaCha8([32]byte{}), storage.PutOptions{})
	is(t, err, storage.ErrUnavailable, syscall.EFBIG)
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// killed is the content of an object in TestKilled, made from its number.
func killed(n int) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}), int64(n*37%5)*400_000+int64(n%7))
}

// TestKilled kills processes that put one object after the other: every other
// one in mid-object, the rest at random moments. What is listed then is whole,
// the others are leftovers that the sweeper finds under their keys and removes.
func TestKilled(t *testing.T) {
	if dir := os.Getenv(childEnv); dir != "" {
		putForever(t, dir)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for round := range 12 {
		dir := t.TempDir()
		if round%2 == 0 {
			killOnce(t, dir, func(line string) bool { return line == "blocked" }, 1)
			continue
		}
		lines := 1 + rng.IntN(7)
		killOnce(t, dir, func(string) bool { lines--; return lines == 0 }, 0)
	}
}

// putForever is the process to be killed. The source of object 7 never ends.
func putForever(t *testing.T, dir string) {
	b := open(t, dir)
	for n := 0; ; n++ {
		source := killed(n)
		if n == 7 {
			source = io.MultiReader(source, readerFunc(func([]byte) (int, error) {
				fmt.Println("blocked")
				time.Sleep(time.Hour) // until the kill
				return 0, io.EOF
			}))
		}
		if _, err := b.Put(t.Context(), fmt.Sprintf("pg/%d/dump", n), source, storage.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		fmt.Println("put", n)
	}
}

// killOnce kills when a line of the process says so, and expects least
// leftovers.
func killOnce(t *testing.T, dir string, now func(line string) bool, least int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	for {
		if !lines.Scan() {
			t.Fatal("the process ended by itself")
		}
		if now(lines.Text()) {
			break
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	allWhole(t, dir)
	if left := sweep(t, dir); left < least {
		t.Errorf("the process left %d temporary files, expected %d", left, least)
	}
}

// allWhole checks that every listed object is complete, and that there are some.
func allWhole(t *testing.T, dir string) {
	t.Helper()
	b := open(t, dir)
	for o, err := range b.List(t.Context(), storage.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		var n int
		if _, err := fmt.Sscanf(o.Key, "pg/%d/dump", &n); err != nil {
			t.Fatalf("listed: %q", o.Key)
		}
		want, _ := io.ReadAll(killed(n))
		if got, err := os.ReadFile(filepath.Join(dir, o.Key)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is listed with %d of %d bytes, error %v", o.Key, len(got), len(want), err)
		}
	}
}

// sweep removes all leftovers and returns their number.
func sweep(t *testing.T, dir string) int {
	t.Helper()
	b := open(t, dir)
	left := 0
	for u, err := range b.Uploads(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if u.Newest.IsZero() || u.Initiated.IsZero() {
			t.Errorf("leftover %+v", u)
		}
		left++
		if err := b.AbortUpload(t.Context(), u); err != nil {
			t.Error(err)
		}
	}
	if all, _ := os.ReadDir(filepath.Join(dir, tmpDir)); len(all) > 0 {
		t.Errorf("after the sweep: %v", all)
	}
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("after the sweep: %q", left)
	}
	return left
}

// TestRenameFallback publishes on a file system without hard links as well as
// this one can play it: the fallback itself, with racing creators.
func TestRenameFallback(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	const racers = 8
	for i := range racers {
		if err := b.root.WriteFile(fmt.Sprintf("t%d", i), []byte{byte(i)}, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.root.Mkdir("to", 0o700); err != nil {
		t.Fatal(err)
	}
	errs := make([]error, racers)
	var all sync.WaitGroup
	for i := range racers {
		all.Go(func() { errs[i] = b.renameNoReplace(fmt.Sprintf("t%d", i), "to/name") })
	}
	all.Wait()
	won := -1
	for i, err := range errs {
		switch {
		case err == nil && won >= 0:
			t.Errorf("%d and %d both won", won, i)
		case err == nil:
			won = i
		default:
			is(t, err, fs.ErrExist)
		}
	}
	if data, err := b.root.ReadFile("to/name"); err != nil || won < 0 || data[0] != byte(won) {
		t.Errorf("the name holds %v, error %v, the winner is %d", data, err, won)
	}
	for _, err := range []error{syscall.EPERM, syscall.ENOTSUP, syscall.ENOSYS} {
		if !cannotLink(&os.LinkError{Op: "linkat", Err: err}) {
			t.Errorf("%v does not lead to the fallback", err)
		}
	}
	if cannotLink(&os.LinkError{Op: "linkat", Err: syscall.EEXIST}) {
		t.Error("a taken name leads to the fallback")
	}
}

func TestCancelLeavesReaderAlone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	dir := t.TempDir()
	b := open(t, dir)
	reads := 0
	_, err := b.Put(ctx, "a", readerFunc(func(p []byte) (int, error) {
		if reads++; reads == 3 {
			cancel()
		}
		return len(p) / 10, nil
	}), storage.PutOptions{})
	is(t, err, context.Canceled)
	if reads != 3 {
		t.Errorf("the source was read %d times, it was cancelled in the third", reads)
	}
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
