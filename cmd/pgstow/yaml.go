package main

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v4"
)

// yamlReader walks a YAML document and notes what is not as it should be,
// instead of ending at the first mistake. Of YAML it takes mappings, lists and
// plain values: no anchors, no aliases, no merge keys, no tags.
type yamlReader struct {
	mistakes
	env func(string) (string, bool)
}

// document is the root of the only document in data; nil after a mistake.
func (r *yamlReader) document(data []byte) *yaml.Node {
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		r.at(1, 1, "cannot be read: %v", err)
		return nil
	}
	var doc, next yaml.Node
	switch err := loader.Load(&doc); {
	case errors.Is(err, io.EOF):
		r.at(1, 1, "the file is empty")
		return nil
	case err != nil:
		r.syntax(data, err)
		return nil
	}
	switch err := loader.Load(&next); {
	case err == nil:
		r.add(&next, "a second YAML document; one file holds one")
	case !errors.Is(err, io.EOF):
		r.syntax(data, err)
	}
	root := doc.Content[0]
	if isNull(root) {
		r.add(root, "the file is empty")
	}
	r.plain(root)
	if len(r.list) > 0 {
		return nil
	}
	return root
}

// syntax reports what is no YAML. The parser's words stay, with a hint where a
// common slip explains them better.
func (r *yamlReader) syntax(data []byte, err error) {
	var load *yaml.LoadError
	if !errors.As(err, &load) {
		r.at(1, 1, "no YAML: %v", err)
		return
	}
	at, text := load.Mark, load.Message
	if at.Line == 0 { // found before there were lines
		before := data[:min(max(at.Index, 0), len(data))]
		at.Line = 1 + bytes.Count(before, []byte("\n"))
		at.Column = 1 + len([]rune(string(before[bytes.LastIndexByte(before, '\n')+1:])))
	}
	switch began := load.ContextMark; {
	case strings.Contains(text, "anchor"):
		text = noAliases // the parser would repeat its name
	case began.Line > 0 && unquotedVariable(data, began.Line):
		text += `; a variable inside { } or [ ] stands in quotes: "${NAME}"`
	case bytes.HasPrefix(data[min(max(at.Index, 0), len(data)):], []byte("\t")):
		text = "a tab; indent with spaces"
	case unquotedVariable(data, at.Line):
		text += `; a variable stands in quotes: "${NAME}"`
	case load.ContextMsg != "" && began.Line > 0 && began != at:
		text += ", " + load.ContextMsg + " that begins at " + strconv.Itoa(began.Line) + ":" + strconv.Itoa(began.Column)
	}
	r.at(at.Line, at.Column, "no YAML: %s", text)
}

var bareVariable = regexp.MustCompile(`[{\[][^"']*[{\[,:]\s*\$\{`)

func unquotedVariable(data []byte, line int) bool {
	lines := bytes.Split(data, []byte("\n"))
	return line <= len(lines) && bareVariable.Match(lines[line-1])
}

const noAliases = "anchors (&name), aliases (*name) and merge keys (<<) are not taken; write it out"

// plain refuses the parts of YAML that could hide what a line means.
func (r *yamlReader) plain(n *yaml.Node) {
	switch {
	case n.Kind == yaml.AliasNode, n.Anchor != "", n.Tag == "!!merge":
		r.add(n, noAliases)
	case n.Style&yaml.TaggedStyle != 0:
		r.add(n, "a YAML tag (%s) is not taken", n.Tag)
	case n.Kind == yaml.ScalarNode && strings.ContainsFunc(n.Value, unicode.IsControl):
		r.add(n, "holds a line break or another control character")
	}
	for _, child := range n.Content {
		r.plain(child)
	}
}

// fields maps the keys of an object to what reads their values. The value's
// position is that of what is wrong in it, the key's that of what is missing.
type fields map[string]func(key, value *yaml.Node)

// object reads a mapping whose keys are known. unknown says why another key is
// refused; "" leaves it to a general message.
func (r *yamlReader) object(n *yaml.Node, what string, known fields, unknown func(key string) string) {
	r.each(n, what, func(key, value *yaml.Node) {
		if read := known[key.Value]; read != nil {
			if isNull(value) {
				r.add(key, "%s: %s has no value", what, key.Value)
				return
			}
			read(key, value)
			return
		}
		why := unknown(key.Value)
		if why == "" {
			why = "unknown key" + didYouMean(key.Value, known)
		}
		r.add(key, "%s: %s: %s", what, key.Value, why)
	})
}

func didYouMean(typed string, known fields) string {
	best := ""
	for name := range known {
		if d := distance(name, typed); best == "" || d < distance(best, typed) || d == distance(best, typed) && name < best {
			best = name
		}
	}
	if best == "" || distance(best, typed) > min(2, len(typed)/2) {
		return ""
	}
	return "; did you mean " + best + "?"
}

// each calls read for every pair of a mapping; a key that is given twice is
// read once.
func (r *yamlReader) each(n *yaml.Node, what string, read func(key, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		r.add(n, "%s: want keys with values, as in key: value", what)
		return
	}
	first := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			r.add(key, "%s: a key is a single word", what)
			continue
		}
		if at := first[key.Value]; at != nil {
			r.add(key, "%s: %s is given twice, first at %d:%d", what, key.Value, at.Line, at.Column)
			continue
		}
		first[key.Value] = key
		read(key, value)
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// elements are those of a list.
func (r *yamlReader) elements(n *yaml.Node, what string) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		r.add(n, "%s: want a list, as in [a, b]", what)
		return nil
	}
	return n.Content
}

// text is a value with its variables replaced.
type text struct {
	node  *yaml.Node
	value string
	// vars says that value holds what a variable stands for: it is shown to
	// nobody.
	vars bool
	// unset is why value has no use: a variable is not set.
	unset string
}

// shown is the text for messages: as it stands in the file.
func (t text) shown() string { return strconv.Quote(t.node.Value) }

// text reads a value as it is written, whatever YAML takes it for, and replaces
// ${NAME}. ok is false after a mistake; a variable that is not set is one
// unless the caller asks for late texts.
func (r *yamlReader) text(n *yaml.Node, what string) (t text, ok bool) {
	t, ok = r.lateText(n, what)
	if ok && t.unset != "" {
		r.add(n, "%s: %s", what, t.unset)
		return text{}, false
	}
	return t, ok
}

func (r *yamlReader) lateText(n *yaml.Node, what string) (t text, ok bool) {
	switch {
	case n.Kind != yaml.ScalarNode:
		r.add(n, "%s: want a single value", what)
		return text{}, false
	case isNull(n), strings.TrimSpace(n.Value) == "":
		r.add(n, "%s: is empty", what)
		return text{}, false
	}
	t.node = n
	var wrong string
	if t.value, t.unset, wrong = r.expand(n.Value); wrong != "" {
		r.add(n, "%s: %s", what, wrong)
		return text{}, false
	}
	t.vars = t.unset != "" || t.value != n.Value || strings.Contains(n.Value, "${")
	if strings.ContainsFunc(t.value, unicode.IsControl) {
		r.add(n, "%s: what %s stands for holds a line break or another control character", what, t.shown())
		return text{}, false
	}
	return t, true
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// expand replaces ${NAME}, once: what a variable stands for is not looked at.
// Every other "$" is itself.
func (r *yamlReader) expand(s string) (value, unset, wrong string) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, "${")
		b.WriteString(before)
		if !found {
			return b.String(), unset, ""
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed || !variableName.MatchString(name) {
			return "", "", `"${" begins a variable: want ${NAME}, and nothing else between the braces`
		}
		got, set := r.env(name)
		got = strings.TrimRight(got, "\r\n") // what files and secrets end with
		switch {
		case unset != "":
		case !set:
			unset = "the variable " + name + " is not set"
		case got == "":
			unset = "the variable " + name + " is empty"
		}
		b.WriteString(got)
		s = after
	}
}

// word reads a text that has to be one of a few.
func (r *yamlReader) word(n *yaml.Node, what string, allowed ...string) (string, bool) {
	t, ok := r.text(n, what)
	if !ok {
		return "", false
	}
	for _, w := range allowed {
		if t.value == w {
			return w, true
		}
	}
	r.add(n, "%s: %s: want %s", what, t.shown(), either(allowed))
	return "", false
}

// either lists words as in "a, b or c".
func either(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// flag reads true or false.
func (r *yamlReader) flag(n *yaml.Node, what string) (value, ok bool) {
	if n.Kind == yaml.ScalarNode && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0 {
		switch n.Value {
		case "true":
			return true, true
		case "false":
			return false, true
		}
	}
	r.add(n, "%s: want true or false", what)
	return false, false
}

// count reads a number from 1 to most.
func (r *yamlReader) count(n *yaml.Node, what string, most int) (int, bool) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!int" {
		if i, err := strconv.Atoi(n.Value); err == nil && i >= 1 && i <= most {
			return i, true
		}
	}
	r.add(n, "%s: want a number from 1 to %d", what, most)
	return 0, false
}
