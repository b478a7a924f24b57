package main

import (
	"io"
	"slices"
	"strings"
	"testing"
)

func testProgram() *program {
	return newProgram(&runtime{console: console{out: io.Discard, err: io.Discard}})
}

func TestPermute(t *testing.T) {
	tests := []struct {
		name, argv, want, passthrough string
	}{
		{"flags first", "restore --from B latest", "restore --from=B -- latest", ""},
		{"argument first", "restore latest --from B", "restore --from=B -- latest", ""},
		{"argument between", "restore --from B latest --json", "restore --from=B --json -- latest", ""},
		{"value after an equals sign", "restore latest --from=B", "restore --from=B -- latest", ""},
		{"empty value", "restore latest --from= --json", "restore --from= --json -- latest", ""},
		{"value holds an equals sign", "archive --db service=a", "archive --db=service=a", ""},
		{"one dash", "restore latest -from B", "restore --from=B -- latest", ""},
		{"aliases become the first name", "list --bucket B", "list --from=B", ""},
		{"a dash is an argument", "show - --from B", "show --from=B -- -", ""},
		{"a dash is a value", "restore latest --output -", "restore --output=- -- latest", ""},
		{"a value that starts with a dash", "list --name -x", "list --name=-x", ""},
		{"repeated", "restore a --table t --table=u,v", "restore --table=t --table=u,v -- a", ""},
		{"boolean with a value", "list --long=false", "list --long=false", ""},
		{"global flag behind the command", "list --from B --log-level debug", "--log-level=debug list --from=B", ""},
		{"global flag in front", "--progress none list", "--progress=none list", ""},
		{"passed through", "archive --to B -- --exclude-table x -v", "archive --to=B", "--exclude-table x -v"},
		{"passed through, arguments stay", "restore latest --from B -- --verbose --", "restore --from=B -- latest", "--verbose --"},
		{"nothing behind the dashes", "restore latest --", "restore -- latest", ""},
		{"no client: arguments", "show --from B -- --odd", "show --from=B -- --odd", ""},
		{"help wins", "restore --from B --help x", "restore --help", ""},
		{"help over mistakes", "restore --help --nonsense", "restore --help", ""},
		{"help is passed through", "archive -- --help", "archive", "--help"},
		{"help of a command", "help restore", "restore --help", ""},
		{"help", "help", "--help", ""},
		{"help flag", "-h", "--help", ""},
		{"an archive named help", "show help --from B", "show --from=B -- help", ""},
		{"version flag", "--version", "version", ""},
		{"nothing", "", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			line, err := permute(testProgram(), append([]string{"pgstow"}, strings.Fields(tt.argv)...))
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(line.args[1:], " "); got != tt.want {
				t.Errorf("args\n got %s\nwant %s", got, tt.want)
			}
			if got := strings.Join(line.passthrough, " "); got != tt.passthrough {
				t.Errorf("passed through %q, want %q", got, tt.passthrough)
			}
		})
	}
}

func TestPermuteRefuses(t *testing.T) {
	tests := []struct{ argv, want string }{
		{"restor x", `no command "restor"; did you mean restore?`},
		{"frobnicate", `no command "frobnicate"`},
		{"list --fron B", "list: unknown flag --fron; did you mean --from?"},
		{"list --frobnicate=secret", "list: unknown flag --frobnicate"},
		{"archive -Fc", `options for pg_dump go behind a "--"`},
		{"restore -j 4", `options for pg_restore go behind a "--"`},
		{"archive --to", "--to needs a value"},
		{"archive --to --db x", "--to needs a value"},
		{"archive --to -- --db x", "--to needs a value"},
		{"archive --db a --db b", "--db is given twice"},
		{"archive --to a --bucket b", "--bucket (an alias of --to) is given twice"},
		{"--db x archive", "pgstow archive --db"},
		{"--frobnicate list", "unknown flag --frobnicate"},
		// Later steps bring these; until then they must not be swallowed.
		{"archive --comprss zstd", "unknown flag --comprss"},
		{"list --encrypt-to age1", "unknown flag --encrypt-to"},
		{"list --sign-key f", "unknown flag --sign-key"},
	}
	for _, tt := range tests {
		t.Run(tt.argv, func(t *testing.T) {
			_, err := permute(testProgram(), append([]string{"pgstow"}, strings.Fields(tt.argv)...))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the value stands in the error: %v", err)
			}
			if code := exitCode(t.Context(), err); code != exitUsage {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

func TestPermuteKnowsWhatWasTyped(t *testing.T) {
	line, err := permute(testProgram(), []string{"pgstow", "restore", "a", "--bucket=b", "--db", "c"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"from": true, "db": true, "name": false} {
		if line.typed[name] != want {
			t.Errorf("typed[%q] = %v", name, !want)
		}
	}
}

// A flag that is both global and a command's would be sorted to one of them in
// silence.
func TestNoFlagIsBothGlobalAndLocal(t *testing.T) {
	p := testProgram()
	for _, c := range p.commands {
		for _, f := range c.Flags {
			for _, name := range f.Names() {
				if slices.Contains([]string{"h", "help"}, name) {
					continue
				}
				if findFlag(p.Flags, name) != nil {
					t.Errorf("%s --%s is a global flag, too", c.Name, name)
				}
			}
		}
	}
}
