package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/pgstow/pgstow/archiver"
)

// printAuditJSON writes the report an archive and a finding at a time: there may be
// tens of thousands, and all of them as one text would be most of the memory that
// an audit takes. Each stands on a line of its own.
func printAuditJSON(w io.Writer, r *auditReport) error {
	j := &jsonStream{w: bufio.NewWriterSize(w, 64<<10)}
	j.open(struct {
		*auditReport
		Buckets *struct{} `json:"buckets,omitempty"` // instead of the report's
	}{auditReport: r})
	j.list("buckets", len(r.Buckets), func(i int) { j.bucket(r.Buckets[i]) })
	j.text("}\n")
	if j.err == nil {
		j.err = j.w.Flush()
	}
	if j.err != nil {
		return fmt.Errorf("write output: %w", j.err)
	}
	return nil
}

// jsonStream writes objects whose long lists are written after their other fields.
type jsonStream struct {
	w   *bufio.Writer
	err error
}

func (j *jsonStream) bucket(r *archiver.AuditResult) {
	j.open(struct {
		*archiver.AuditResult
		Databases *struct{} `json:"databases,omitempty"`
		Findings  *struct{} `json:"findings,omitempty"`
	}{AuditResult: r})
	j.list("findings", len(r.Findings), func(i int) { j.value(r.Findings[i]) })
	j.list("databases", len(r.Databases), func(i int) {
		d := &r.Databases[i]
		j.open(struct {
			*archiver.AuditedDatabase
			Archives *struct{} `json:"archives,omitempty"`
		}{AuditedDatabase: d})
		j.list("archives", len(d.Archives), func(i int) { j.value(d.Archives[i]) })
		j.text("}")
	})
	j.text("}")
}

// open writes an object with at least one field, but for its end.
func (j *jsonStream) open(v any) { j.bytes(bytes.TrimSuffix(j.marshal(v), []byte("}"))) }

func (j *jsonStream) value(v any) { j.bytes(j.marshal(v)) }

// list writes a further field of the object that is open.
func (j *jsonStream) list(name string, n int, each func(int)) {
	j.text(`,"` + name + `":[`)
	for i := range n {
		if i > 0 {
			j.text(",")
		}
		j.text("\n")
		each(i)
	}
	j.text("]")
}

func (j *jsonStream) marshal(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil && j.err == nil {
		j.err = err
	}
	return bytes.TrimSpace(b.Bytes())
}

func (j *jsonStream) bytes(b []byte) {
	if j.err == nil {
		_, j.err = j.w.Write(b)
	}
}

func (j *jsonStream) text(s string) {
	if j.err == nil {
		_, j.err = j.w.WriteString(s)
	}
}
