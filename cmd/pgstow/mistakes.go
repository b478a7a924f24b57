package main

import (
	"cmp"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v4"
)

// mistake is one thing wrong in the configuration file.
type mistake struct {
	line, column int
	text         string
}

// configError is a configuration file that cannot be used, with everything
// that is wrong in it, in the file's order.
type configError struct {
	file     string
	mistakes []mistake
}

// Error is one line: the only mistake, or how many there are.
func (e *configError) Error() string {
	if len(e.mistakes) == 1 {
		return "configuration " + e.at(0)
	}
	return fmt.Sprintf("configuration %s has %d mistakes, listed above", e.file, len(e.mistakes))
}

// at is the form that compilers use and editors understand.
func (e *configError) at(i int) string {
	m := e.mistakes[i]
	return fmt.Sprintf("%s:%d:%d: %s", e.file, m.line, m.column, m.text)
}

// explainConfig prints several mistakes, each on a line of its own; a single one
// is in the line that ends the run.
func (rt *runtime) explainConfig(e *configError) {
	if len(e.mistakes) == 1 {
		return
	}
	for i, m := range e.mistakes {
		if rt.logJSON {
			rt.log.Error(m.text, slog.String("file", e.file), slog.Int("line", m.line), slog.Int("column", m.column))
			continue
		}
		fmt.Fprintln(rt.err, printable(e.at(i)))
	}
}

// mistakes collects what is wrong while a file is read.
type mistakes struct {
	file string // as it was named
	list []mistake
}

func (m *mistakes) at(line, column int, format string, args ...any) {
	m.list = append(m.list, mistake{max(line, 1), max(column, 1), fmt.Sprintf(format, args...)})
}

// add notes a mistake at a node.
func (m *mistakes) add(n *yaml.Node, format string, args ...any) {
	m.at(n.Line, n.Column, format, args...)
}

// err is everything found so far, or nil.
func (m *mistakes) err() error {
	if len(m.list) == 0 {
		return nil
	}
	slices.SortStableFunc(m.list, func(a, b mistake) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column))
	})
	return &configError{m.file, slices.Compact(m.list)}
}

// beside is a path of the file, which is relative to the file itself.
func (m *mistakes) beside(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(m.file), path)
}
