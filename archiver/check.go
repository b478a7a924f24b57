package archiver

import (
	"encoding/hex"
	"io"

	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// expected is what must come out of the store for a dump.
func expected(o StoredObject, ix *Index) (pgarchive.Expected, error) {
	var want pgarchive.Expected
	if ix == nil {
		whole := pgarchive.ExpectedPart{Name: "the dump", Length: o.plainSize()}
		if err := decodeSum(&whole.SHA256, o.plainSHA256()); err != nil {
			return want, err
		}
		want.Blocks = []pgarchive.ExpectedPart{whole}
		return want, nil
	}
	want.Head.Length = o.Head.Length
	if err := decodeSum(&want.Head.SHA256, o.Head.SHA256); err != nil {
		return want, err
	}
	want.Blocks = make([]pgarchive.ExpectedPart, len(ix.Blocks))
	for i, b := range ix.Blocks {
		p := pgarchive.ExpectedPart{Name: b.label(), Offset: b.Offset, Length: b.Length}
		if err := decodeSum(&p.SHA256, b.SHA256); err != nil {
			return want, err
		}
		want.Blocks[i] = p
	}
	return want, nil
}

func (b *IndexBlock) label() string {
	if b.Schema == "" {
		return b.Kind + " " + b.Name
	}
	return b.Kind + " " + b.Schema + "." + b.Name
}

func decodeSum(to *[32]byte, s string) error {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != len(to) {
		return integrity("%q is no SHA-256", s)
	}
	copy(to[:], raw)
	return nil
}

// checkedDump is a stored dump that delivers proved bytes only.
type checkedDump struct {
	*pgarchive.Verifier
	body     io.Closer
	key      string
	progress *tracker
	want     pgarchive.Expected
	at       partCursor
	load     *loadWorker
	n        int64
	err      error // what ended it, other than io.EOF
	ended    bool
}

func (c *checkedDump) Read(p []byte) (int, error) {
	n, err := c.Verifier.Read(p)
	c.n += int64(n)
	c.progress.read(n)
	if c.load != nil {
		c.at.passed(c.load, n)
	}
	switch {
	case err == io.EOF:
		if !c.ended {
			c.progress.phase(PhaseFinish)
		}
		c.ended = true
	case err != nil:
		c.err = err
	}
	return n, err
}

func (c *checkedDump) Close() error { return c.body.Close() }

// follow reports the tables that pass to m.
func (c *checkedDump) follow(m *loadMeter) {
	m.choose(c.want.Blocks)
	c.load = m.worker()
	head := c.want.Head
	head.Offset = -1 // no block stands there
	c.at.parts = append([]pgarchive.ExpectedPart{head}, c.want.Blocks...)
}

// toEnd reads what pg_restore left unread.
func (c *checkedDump) toEnd() error {
	if c.ended {
		return nil
	}
	_, err := io.Copy(io.Discard, c)
	return err
}

// fault gives err the class it has when the dump is its cause.
func (c *checkedDump) fault(err error) error {
	if c.err == nil {
		return err
	}
	return storedFault(c.key, c.err)
}
