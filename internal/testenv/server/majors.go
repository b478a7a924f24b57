package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Majors are the major versions of PostgreSQL that `tools.sh servers` installs.
var Majors = []int{13, 15, 17, 18}

// MajorBin is the directory of a major version's server and client programs.
func MajorBin(major int) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	bin, err := filepath.EvalSymlinks(filepath.Join(root, ".tools", "postgres", strconv.Itoa(major)))
	if err != nil || !isFile(filepath.Join(bin, "initdb")) {
		return "", fmt.Errorf("PostgreSQL %d is not installed; run `internal/testenv/tools.sh servers`", major)
	}
	return bin, nil
}

// majorBin is MajorBin where the servers' user can reach it: a tree of programs,
// libraries and data in a home directory of mode 0700 is linked (or copied)
// into the Home.
func (h *Home) majorBin(major int) (string, error) {
	bin, err := MajorBin(major)
	if err != nil || h.cred == nil || reachable(filepath.Join(bin, "initdb")) {
		return bin, err
	}
	below := fmt.Sprintf("/usr/lib/postgresql/%d/bin", major)
	tree, ok := strings.CutSuffix(bin, below)
	if !ok {
		return "", fmt.Errorf("the servers' user cannot reach %s", bin)
	}
	dst := filepath.Join(h.dir, fmt.Sprintf("programs-%d", major))
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := os.Stat(dst); errors.Is(err, fs.ErrNotExist) {
		if err := linkTree(tree, dst); err != nil {
			return "", err
		}
	}
	return dst + below, nil
}

// extended is a copy of the programs in bin with further files of extensions. PostgreSQL
// finds what belongs to it by where its own program lies.
func (h *Home) extended(bin string, files map[string]string) (string, error) {
	root, err := h.mkdir("extended")
	if err != nil {
		return "", err
	}
	lib := filepath.Dir(bin)
	at := strings.LastIndex(lib, "/usr/lib/postgresql/")
	if at < 0 {
		return "", fmt.Errorf("%s is not laid out as Debian does it", bin)
	}
	major := filepath.Base(lib)
	for _, kind := range []string{"lib", "share"} {
		below := filepath.Join("usr", kind, "postgresql")
		if err := os.MkdirAll(filepath.Join(root, below), 0o755); err != nil { //nolint:gosec // the servers' user passes through
			return "", err
		}
		if err := linkTree(filepath.Join(lib[:at+1], below, major), filepath.Join(root, below, major)); err != nil {
			return "", err
		}
	}
	for name, text := range files {
		path := filepath.Join(root, "usr/share/postgresql", major, "extension", name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil { //nolint:gosec // the server reads it
			return "", err
		}
	}
	return filepath.Join(root, "usr/lib/postgresql", major, "bin"), nil
}

// linkTree makes a copy of a tree that shares the files where it can.
func linkTree(src, dst string) error {
	return filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(dst, strings.TrimPrefix(path, src))
		switch {
		case d.IsDir():
			return os.Mkdir(to, 0o755) //nolint:gosec // the servers' user passes through
		case d.Type()&fs.ModeSymlink != 0:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(link, to)
		}
		if os.Link(path, to) == nil {
			return nil
		}
		return copyExecutable(path, to)
	})
}
