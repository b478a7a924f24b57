package dumper

import (
	"strings"
	"testing"
)

func TestCheckDumpArgs(t *testing.T) {
	for _, ok := range []string{
		"", "-n public", "-npublic", "-t a.b -T c", "--table=x", "--table x", "--exclude-table-data=public.cache_*", "--exclude-table-data public.cache_*",
		"--no-comments", "-v", "-E UTF8", "-EUTF8", "--schema-only", "-s", "--inserts", "-Ox", "-O -x", "-vw", "--rows-per-insert 5",
		"--lock-wait-timeout=5000", "--no-own", "--some-option-of-19=x", "--enable-row-security", "-tfFjZd", "--role r",
	} {
		if err := CheckDumpArgs(strings.Fields(ok)); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for args, says := range map[string]string{
		"-F t": "-F (--format)", "-Ft": "-F (--format)", "-vFt": "-F (--format)", "-f x": "-f (--file)", "-j 2": "-j (--jobs)", "-Z0": "--compress",
		"-d x": "--db", "-h x": "--db", "-p 1": "--db", "-U u": "--db", "-W": "passfile", "-xW": "passfile",
		"--format=t": "--format", "--format t": "--format", "--form=t": "--format", "--file=x": "--file", "--fi x": "--file",
		"--jobs=2": "--jobs", "--j 2": "--jobs", "--compress=0": "--compress", "--compr=0": "--compress", "--com=0": "--compress",
		"--dbname=x": "--dbname", "--host=x": "--host", "--port=1": "--port", "--username=u": "--username", "--password": "--password",
		"--snapshot=1": "snapshot", "--snap=1": "snapshot", "--help": "--help", "-?": "--help", "-V": "--version", "--version": "--version",
		"mydb": "database name", "-v mydb": "database name", "--no-comments mydb": "database name", "--": "--",
		"-t": "argument is missing", "--table": "argument is missing", "-Y": "no release", "--unknown word": "database name",
	} {
		err := CheckDumpArgs(strings.Fields(args))
		wantError(t, err, ErrUsage, says, "pg_dump")
	}
}

func TestCheckRestoreArgs(t *testing.T) {
	for _, ok := range []string{"", "--disable-triggers", "-1", "--no-tablespaces", "-I idx", "-P f()", "--section=data", "-S postgres", "--no-data-for-failed-tables", "-vv"} {
		if err := CheckRestoreArgs(strings.Fields(ok)); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for args, says := range map[string]string{
		"-F t": "--format", "-f x": "--file", "-j2": "--jobs", "-d x": "--dbname", "-h x": "--host", "-p 1": "--port", "-U u": "--username", "-W": "--password",
		"-l": "--list", "-vl": "--list", "-L x": "--use-list", "--use=x": "--use-list", "-e": "--keep-going", "--exit": "--keep-going", "x.dump": "file name",
		"--jobs=2": "--jobs", "--list": "--list", "-V": "--version",
	} {
		wantError(t, CheckRestoreArgs(strings.Fields(args)), ErrUsage, says, "pg_restore")
	}
}
