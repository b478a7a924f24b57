package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

const helpWidth = 80

// manual is the part of a command's help that urfave/cli has no place for.
type manual struct {
	usage    []string // behind "pgstow"
	text     string
	examples []example
	exits    []int
	// client is the program that takes the options behind "--", "" for none.
	client string
}

type example struct{ what, command string }

// command is a cli.Command with its manual.
type command struct {
	*cli.Command
	manual manual
}

func (c *command) passesThrough() bool { return c.manual.client != "" }

// program is the whole command line.
type program struct {
	*cli.App
	commands []*command
}

func (p *program) command(name string) *command {
	for _, c := range p.commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

func literalTemplate(text string) string { return strings.ReplaceAll(text, "{{", `{{"{{"}}`) }

func section(b *strings.Builder, name string) { fmt.Fprintf(b, "\n%s:\n", name) }

// commandHelp renders the help of one command as a template without variables.
func commandHelp(app *cli.App, c *command) string {
	m := c.manual
	var b strings.Builder
	fmt.Fprintf(&b, "pgstow %s: %s\n", c.Name, c.Usage)
	section(&b, "Usage")
	for _, u := range m.usage {
		writeWrapped(&b, "pgstow "+u, 2, 6)
	}
	if m.text != "" {
		for paragraph := range strings.SplitSeq(strings.TrimSpace(m.text), "\n\n") {
			b.WriteByte('\n')
			writeWrapped(&b, paragraph, 0, 0)
		}
	}
	if len(c.Flags) > 0 {
		section(&b, "Options")
		writeFlags(&b, c.Flags)
	}
	section(&b, "Global options")
	writeFlags(&b, app.Flags)
	section(&b, "Examples")
	for i, e := range m.examples {
		writeWrapped(&b, fmt.Sprintf("%d. %s", i+1, e.what), 2, 5)
		for line := range strings.SplitSeq(e.command, "\n") {
			fmt.Fprintf(&b, "     %s\n", line)
		}
	}
	section(&b, "Exit codes")
	writeExitCodes(&b, m.exits)
	return literalTemplate(b.String())
}

func appHelp(prog *program) string {
	var b strings.Builder
	fmt.Fprintf(&b, "pgstow streams %s.\n", prog.Usage)
	section(&b, "Usage")
	b.WriteString("  pgstow COMMAND [options] [arguments]\n")
	section(&b, "Commands")
	for _, c := range prog.commands {
		fmt.Fprintf(&b, "  %-9s  %s\n", c.Name, c.Usage)
	}
	section(&b, "Global options")
	writeFlags(&b, prog.Flags)
	section(&b, "Exit codes")
	writeExitCodes(&b, nil)
	b.WriteString("\n\"pgstow COMMAND --help\" shows a command's options and examples.\n")
	return literalTemplate(b.String())
}

// writeExitCodes lists codes, all of them for nil; 0, 1, 2 and those of an
// interruption belong to every command.
func writeExitCodes(b *strings.Builder, codes []int) {
	for _, e := range exitCodes {
		if codes == nil || e.always || slices.Contains(codes, e.code) {
			writeWrapped(b, fmt.Sprintf("%-4d %s", e.code, e.meaning), 2, 7)
		}
	}
}

const flagColumn = 26

func writeFlags(b *strings.Builder, flags []cli.Flag) {
	for _, f := range flags {
		d, ok := f.(cli.DocGenerationFlag)
		if !ok || slices.Contains(f.Names(), "help") {
			continue
		}
		names := make([]string, 0, 3)
		for _, n := range f.Names() {
			names = append(names, dashed(n))
		}
		value, usage := placeholder(d.GetUsage())
		head := strings.Join(names, ", ")
		if d.TakesValue() {
			head += " " + value
		}
		if repeatable(f) {
			usage += "; repeatable"
		}
		if def := d.GetDefaultText(); d.TakesValue() && def != "" && def != `""` {
			usage += fmt.Sprintf(" (default %s)", strings.Trim(def, `"`))
		}
		if env := d.GetEnvVars(); len(env) > 0 {
			usage += fmt.Sprintf(" [$%s]", strings.Join(env, ", $"))
		}
		if len(head) > flagColumn-4 {
			fmt.Fprintf(b, "  %s\n", head)
			writeWrapped(b, usage, flagColumn, flagColumn)
			continue
		}
		writeWrapped(b, fmt.Sprintf("%-*s%s", flagColumn-2, head, usage), 2, flagColumn)
	}
}

// placeholder takes the first word in backquotes for the name of the value,
// as the flag package does.
func placeholder(usage string) (name, text string) {
	before, rest, ok := strings.Cut(usage, "`")
	if !ok {
		return "VALUE", usage
	}
	name, after, _ := strings.Cut(rest, "`")
	if strings.ToUpper(name) == name {
		return name, before + name + after
	}
	return "WORD", before + name + after
}

// writeWrapped breaks text at helpWidth; runs of spaces in its first line are
// kept, because they align columns.
func writeWrapped(b *strings.Builder, text string, first, others int) {
	line := strings.Repeat(" ", first)
	empty := true
	for word := range strings.SplitSeq(strings.ReplaceAll(text, "\n", " "), " ") {
		if !empty && len(line)+1+len(word) > helpWidth {
			b.WriteString(strings.TrimRight(line, " ") + "\n")
			line, empty = strings.Repeat(" ", others), true
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
}
