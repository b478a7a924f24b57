package dumper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Tools is one installed set of client programs.
type Tools struct {
	Dir     string
	Major   int
	Version string // "15.18 (Debian 15.18-0+deb12u1)"
}

// toolDirs are the packagers' directories, one per major.
var toolDirs = []string{
	"/usr/lib/postgresql/*/bin",            // Debian, Ubuntu
	"/usr/pgsql-*/bin",                     // PostgreSQL's own RPMs
	"/usr/lib/postgresql*/bin",             // SUSE, Gentoo
	"/usr/libexec/postgresql*",             // Alpine
	"/opt/homebrew/opt/postgresql@*/bin",   // Homebrew on ARM
	"/opt/homebrew/opt/libpq/bin",          //
	"/usr/local/opt/postgresql@*/bin",      // Homebrew on Intel
	"/usr/local/opt/libpq/bin",             //
	"/home/linuxbrew/.linuxbrew/opt/*/bin", // Homebrew on Linux, filtered by the program's presence
	"/opt/local/lib/postgresql*/bin",       // MacPorts
	"/Library/PostgreSQL/*/bin",            // EDB's installer
	"/Applications/Postgres.app/Contents/Versions/*/bin",
}

// versionTimeout is generous: a loaded machine may take seconds to start a program.
const versionTimeout = time.Minute

var errNoAnswer = errors.New("no answer")

// FindTools looks for every installed major, lowest first; binDir, if set, is the
// only place looked at, and an error if it holds no usable pg_dump. Finding
// none elsewhere is not an error: ChooseTools says what to install.
func FindTools(ctx context.Context, binDir string) ([]Tools, error) {
	if binDir != "" {
		t, err := toolsIn(ctx, binDir)
		if err != nil {
			return nil, failCause(ErrVersion, fmt.Sprintf("--pg-bin %s: %v", binDir, err), err)
		}
		return []Tools{t}, nil
	}
	var found []Tools
	seen := map[string]bool{}
	for _, dir := range candidateDirs() {
		real, err := filepath.EvalSymlinks(filepath.Join(dir, "pg_dump"))
		if err != nil || seen[real] || filepath.Base(real) == "pg_wrapper" {
			// Debian's wrapper picks a version by rules of its own; what it picks from is found itself.
			continue
		}
		seen[real] = true
		t, err := toolsIn(ctx, dir)
		switch {
		case err == nil:
			found = append(found, t)
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, errNoAnswer):
			// Passing over it would make a slow machine one without pg_dump.
			return nil, failCause(ErrVersion, fmt.Sprintf("%s: %v", dir, err), err)
		}
	}
	slices.SortStableFunc(found, func(a, b Tools) int { return a.Major - b.Major })
	return found, nil
}

func candidateDirs() []string {
	var dirs []string
	for _, pattern := range toolDirs {
		if m, err := filepath.Glob(pattern); err == nil {
			dirs = append(dirs, m...)
		}
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if filepath.IsAbs(dir) { // a relative one would run whatever lies in the working directory
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

func toolsIn(ctx context.Context, dir string) (Tools, error) {
	for _, name := range []string{"pg_dump", "pg_restore"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.IsDir() {
			return Tools{}, fmt.Errorf("no %s there", name)
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Tools{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, versionTimeout, errNoAnswer)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "pg_dump"), "--version")
	cmd.Env = cleanEnv(os.Environ())
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if errors.Is(context.Cause(ctx), errNoAnswer) {
		return Tools{}, fmt.Errorf("pg_dump --version: %w for %s", errNoAnswer, versionTimeout)
	}
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && len(exit.Stderr) > 0 {
			return Tools{}, fmt.Errorf("pg_dump --version: %w: %s", err, clip(oneLine(string(exit.Stderr)), 300))
		}
		return Tools{}, fmt.Errorf("pg_dump --version: %w", err)
	}
	version, major, ok := parseVersion(string(out))
	if !ok {
		return Tools{}, fmt.Errorf("pg_dump --version says %q", clip(oneLine(string(out)), 100))
	}
	return Tools{Dir: dir, Major: major, Version: version}, nil
}

// "pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"; "18beta1" and "19devel" occur.
var versionOutput = regexp.MustCompile(`^pg_dump \([^)]*\) ((\d+)\S*.*)$`)

func parseVersion(out string) (version string, major int, ok bool) {
	m := versionOutput.FindStringSubmatch(strings.TrimSpace(out))
	if m == nil {
		return "", 0, false
	}
	major, err := strconv.Atoi(m[2])
	return m[1], major, err == nil
}

// newer orders two sets of one major by their minor release.
func (t Tools) newer(o Tools) bool {
	return minorOf(t.Version) > minorOf(o.Version)
}

func minorOf(version string) int {
	_, rest, _ := strings.Cut(strings.Fields(version)[0], ".")
	n, err := strconv.Atoi(rest)
	if err != nil {
		return -1 // a beta
	}
	return n
}

// ChooseTools picks the server's own major or the next higher, ErrVersion if there is none:
// pg_dump refuses a newer server, and would not know its catalogue.
func ChooseTools(found []Tools, serverMajor int) (Tools, error) {
	var best Tools
	for _, t := range found {
		if t.Major >= serverMajor && (best.Dir == "" || t.Major < best.Major || (t.Major == best.Major && t.newer(best))) {
			best = t
		}
	}
	if best.Dir != "" {
		return best, nil
	}
	return Tools{}, versionError(found, serverMajor)
}

func versionError(found []Tools, serverMajor int) error {
	const cure = "install postgresql-client-%d or point --pg-bin at it"
	if len(found) == 0 {
		return fail(ErrVersion, fmt.Sprintf("server is %d, no pg_dump found; "+cure, serverMajor, serverMajor))
	}
	newest := found[0]
	for _, t := range found {
		if t.Major > newest.Major || (t.Major == newest.Major && t.newer(newest)) {
			newest = t
		}
	}
	return fail(ErrVersion, fmt.Sprintf("server is %d, newest pg_dump found is %s in %s; "+cure,
		serverMajor, strings.Fields(newest.Version)[0], newest.Dir, serverMajor))
}
