package pgarchive

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"
)

// WriteList writes the TOC as pg_restore -l does, in a form that pg_restore -L reads. loc
// stands in for the zone of the creation time, which an archive does not hold. Up to
// version 1.14 the compression is a level, as the pg_restore of that time writes it.
func (h *Head) WriteList(w io.Writer, loc *time.Location) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, ";\n; Archive created at %s\n", h.CreatedAt(loc).Format("2006-01-02 15:04:05 MST"))
	fmt.Fprintf(b, ";     dbname: %s\n;     TOC Entries: %d\n", oneLine(h.Database), len(h.Entries))
	if h.Version.hasCompressionByte() {
		fmt.Fprintf(b, ";     Compression: %s\n", h.Compression.Algorithm)
	} else {
		fmt.Fprintf(b, ";     Compression: %d\n", h.Compression.Level)
	}
	fmt.Fprintf(b, ";     Dump Version: %v\n;     Format: CUSTOM\n", h.Version)
	fmt.Fprintf(b, ";     Integer: %d bytes\n;     Offset: %d bytes\n", h.IntSize, h.OffSize)
	fmt.Fprintf(b, ";     Dumped from database version: %s\n", h.ServerVersion)
	fmt.Fprintf(b, ";     Dumped by pg_dump version: %s\n", h.DumpVersion)
	fmt.Fprint(b, ";\n;\n; Selected TOC Entries:\n;\n")
	for i := range h.Entries {
		e := &h.Entries[i]
		if !e.listed() {
			continue
		}
		schema := "-"
		if !e.Namespace.Null {
			schema = oneLine(e.Namespace.S)
		}
		fmt.Fprintf(b, "%d; %s %s %s %s %s %s\n", e.DumpID, e.TableOID.S, e.OID.S, e.Desc.S, schema, oneLine(e.Tag.S), oneLine(e.Owner.S))
	}
	return b.Flush()
}

// listed says whether pg_restore shows the entry when it is asked for everything but the
// database itself.
func (e *Entry) listed() bool {
	switch e.Desc.S {
	case "ENCODING", "STDSTRINGS", "SEARCHPATH", "DATABASE", "DATABASE PROPERTIES":
		return false
	case "ACL", "COMMENT", "SECURITY LABEL":
		if strings.HasPrefix(e.Tag.S, "DATABASE ") {
			return false
		}
	case "SEQUENCE SET", "BLOB", "BLOB METADATA":
		return true // data, though without a block
	}
	return e.HadDumper || e.Defn.S != ""
}
