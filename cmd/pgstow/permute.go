package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// commandLine is an argv in the one shape that urfave/cli v2 understands:
// it stops looking for flags at the first argument, so they are moved in front.
type commandLine struct {
	// args starts with the program's name, has every flag as --name=value in
	// front of the arguments, and the arguments behind a "--".
	args    []string
	command string // "" when none was found
	// passthrough are the options behind "--", for pg_dump or pg_restore.
	passthrough []string
	// typed holds the primary names of the flags that stood in argv, as
	// opposed to those that the environment set.
	typed map[string]bool
}

// permute sorts argv. Flags, global ones included, may stand anywhere in front
// of a "--". What is behind it is passed through by the commands that run a
// PostgreSQL client, and is an argument to all others.
func permute(prog *program, argv []string) (commandLine, error) {
	p := permuter{prog: prog, typed: map[string]bool{}}
	rest, help, err := p.sort(argv[1:])
	line := commandLine{typed: p.typed}
	if p.command != nil {
		line.command = p.command.Name
	}
	if err != nil {
		return line, err
	}
	line.args = append(line.args, argv[0])
	line.args = append(line.args, p.global...)
	if p.command == nil {
		if help {
			line.args = append(line.args, "--help")
		}
		return line, nil
	}
	line.args = append(line.args, p.command.Name)
	if help {
		line.args = append(line.args, "--help")
		return line, nil
	}
	if p.command.passesThrough() {
		line.passthrough = rest
	} else {
		p.arguments = append(p.arguments, rest...)
	}
	line.args = append(line.args, p.local...)
	if len(p.arguments) > 0 {
		line.args = append(append(line.args, "--"), p.arguments...)
	}
	return line, nil
}

type permuter struct {
	prog      *program
	command   *command
	global    []string
	local     []string
	arguments []string
	typed     map[string]bool
}

// sort distributes args and returns what stands behind "--".
func (p *permuter) sort(args []string) (rest []string, help bool, err error) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			return args[i+1:], help, nil
		case isHelp(arg):
			help = true
		case arg == "--version" && p.command == nil:
			p.command = p.prog.command("version")
		case len(arg) > 1 && arg[0] == '-':
			used, err := p.flag(args[i:])
			if err != nil {
				if help {
					continue // help answers every question about flags
				}
				return nil, false, err
			}
			i += used
		case p.command == nil && arg == "help":
			help = true
		case p.command == nil:
			if p.command = p.prog.command(arg); p.command == nil {
				return nil, false, unknownCommand(p.prog, arg)
			}
		default:
			p.arguments = append(p.arguments, arg)
		}
	}
	return nil, help, nil
}

// flag takes the flag at args[0] and returns how many of the following
// elements are its value.
func (p *permuter) flag(args []string) (used int, err error) {
	name, value, hasValue := strings.Cut(strings.TrimPrefix(args[0][1:], "-"), "=")
	flag, global := p.lookup(name)
	if flag == nil {
		return 0, p.unknownFlag(args[0])
	}
	primary := flag.Names()[0]
	if takesValue(flag) && !hasValue {
		if len(args) < 2 || args[1] == "--" || p.isFlag(args[1]) {
			return 0, usagef("%s needs a value", dashed(name))
		}
		value, hasValue, used = args[1], true, 1
	}
	if p.typed[primary] && !repeatable(flag) {
		return 0, usagef("%s is given twice", bothNames(primary, name))
	}
	p.typed[primary] = true
	word := "--" + primary
	if hasValue {
		word += "=" + value
	}
	if global {
		p.global = append(p.global, word)
	} else {
		p.local = append(p.local, word)
	}
	return used, nil
}

func (p *permuter) lookup(name string) (flag cli.Flag, global bool) {
	if p.command != nil {
		if f := findFlag(p.command.Flags, name); f != nil {
			return f, false
		}
	}
	return findFlag(p.prog.Flags, name), true
}

// isFlag reports whether arg is one of our flags rather than a value that
// happens to start with a dash.
func (p *permuter) isFlag(arg string) bool {
	if len(arg) < 2 || arg[0] != '-' {
		return false
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
	flag, _ := p.lookup(name)
	return flag != nil || isHelp(arg)
}

func (p *permuter) unknownFlag(arg string) error {
	name, _, _ := strings.Cut(arg, "=") // the value may be a secret
	if p.command == nil {
		for _, c := range p.prog.commands {
			if findFlag(c.Flags, strings.TrimLeft(name, "-")) != nil {
				return usagef("%s belongs behind a command, as in: pgstow %s %s", name, c.Name, name)
			}
		}
		return usagef("unknown flag %s%s", name, suggest(p.prog.Flags, name))
	}
	known := slices.Concat(p.command.Flags, p.prog.Flags)
	hint := suggest(known, name)
	if tool := p.command.manual.client; tool != "" && hint == "" {
		hint = fmt.Sprintf("; options for %s go behind a \"--\"", tool)
	}
	return usagef("%s: unknown flag %s%s", p.command.Name, name, hint)
}

func unknownCommand(prog *program, name string) error {
	best, hint := "", ""
	for _, c := range prog.commands {
		if best == "" || distance(c.Name, name) < distance(best, name) {
			best = c.Name
		}
	}
	if distance(best, name) <= 2 {
		hint = fmt.Sprintf("; did you mean %s?", best)
	}
	return usagef("no command %q%s", name, hint)
}

// suggest names the flag that was probably meant.
func suggest(flags []cli.Flag, typed string) string {
	name := strings.TrimLeft(typed, "-")
	best := ""
	for _, f := range flags {
		for _, n := range f.Names() {
			if len(n) > 1 && (best == "" || distance(n, name) < distance(best, name)) {
				best = n
			}
		}
	}
	if best == "" || distance(best, name) > min(2, len(name)/2) {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", dashed(best))
}

// distance is the number of edits between two words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

func findFlag(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

func repeatable(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationSliceFlag)
	return ok && d.IsSliceFlag()
}

func isHelp(arg string) bool {
	return arg == "-h" || arg == "-help" || arg == "--help"
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

func bothNames(primary, name string) string {
	if primary == name {
		return dashed(name)
	}
	return fmt.Sprintf("%s (an alias of %s)", dashed(name), dashed(primary))
}
