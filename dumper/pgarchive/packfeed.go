package pgarchive

import "io"

// feedBuffer is what is read from the source at once. pg_dump writes 4 KiB at a time into a
// pipe of 64 KiB.
const feedBuffer = 128 << 10

// feeder takes an uncompressed archive apart and gives its contents to a cutter.
type feeder struct {
	*cutter
	scan   *Scanner
	check  *completeness
	parser *blockParser
}

// run returns io.EOF for a complete archive that came whole.
func (f *feeder) run(src io.Reader) error {
	buf := make([]byte, feedBuffer)
	for idle := 0; ; {
		n, err := src.Read(buf)
		if fault := f.take(buf[:n]); fault != nil {
			return fault
		}
		switch {
		case err == io.EOF: // bare: a wrapped one is somebody's failure
			if fault := f.check.end(f.parser); fault != nil {
				return fault
			}
			return io.EOF
		case err != nil:
			return err
		case n > 0:
			idle = 0
		default:
			if idle++; idle >= 100 {
				return io.ErrNoProgress
			}
		}
		if f.stopped() {
			return ErrClosed
		}
	}
}

// take consumes b.
func (f *feeder) take(b []byte) error {
	for len(b) > 0 {
		if f.parser.between() && f.check.allSeen() {
			return f.scan.trailing()
		}
		n, ev, err := f.parser.step(b)
		if err != nil {
			return f.scan.place(err)
		}
		if ev != evNone {
			if err := f.event(ev, b[:n]); err != nil {
				return err
			}
		}
		b = b[n:]
	}
	return nil
}

func (f *feeder) event(ev blockEvent, b []byte) error {
	block := &f.parser.cur
	ok := true
	switch ev {
	case evBlock:
		if err := f.check.begin(block); err != nil {
			return err
		}
		f.begins = true
		if !block.BlobBlock {
			ok = f.begin(stream{kind: f.entry().streamKind(), dumpID: block.DumpID})
		}
	case evObject:
		ok = f.begin(stream{kind: kindObject, dumpID: block.DumpID, blob: true, oid: f.parser.oid})
	case evPayload:
		ok = f.add(b)
	case evObjectEnd:
		f.end()
	case evBlockEnd:
		if block.BlobBlock {
			ok = f.endBlobs(block.DumpID)
		} else if fault := f.end(); fault != "" {
			return &FormatError{Offset: block.Offset, Detail: "the block of " + f.entry().Label() + " " + fault, Err: ErrIncomplete}
		}
	}
	if !ok {
		return ErrClosed
	}
	return nil
}

// entry is that of the current block.
func (f *feeder) entry() *Entry { return f.check.promised[f.check.next-1] }

// streamKind is what the entry's block holds.
func (e *Entry) streamKind() contentKind {
	switch {
	case e.HoldsLargeObjects():
		return kindObject
	case e.CopyStmt.S == "":
		return kindInserts
	}
	return kindRows
}
