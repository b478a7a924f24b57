package pgarchive

// Passing is the block that is on its way, and how much of its content has passed.
type Passing struct {
	DumpID   int // 0 before the first block
	Rows     int64
	RawBytes int64
}

// Passing is for those who show progress. It is called by the goroutine that calls Read.
// Where the compression is kept, it is what the decoder has come to.
func (p *Packer) Passing() Passing {
	switch {
	case p.tap != nil:
		if now := p.tap.passing.Load(); now != nil {
			return *now
		}
		return Passing{}
	case p.line != nil:
		return p.tally.passing(p.index.cur.DumpID)
	}
	return Passing{}
}

func (t *contentTally) passing(dumpID int) Passing {
	return Passing{DumpID: dumpID, Rows: t.cur.Rows, RawBytes: t.cur.RawBytes}
}

// Passing is for those who show progress. A Scanner counts no rows, and bytes as they are
// stored.
func (s *Scanner) Passing() Passing {
	return Passing{DumpID: s.parser.cur.DumpID, RawBytes: s.parser.cur.Payload}
}
