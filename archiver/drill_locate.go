package archiver

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// The first row that differs is looked for in bounded memory, however large the table is.
// Both sides are read and their rows' hashes added up in buckets; equal rows meet in the same
// bucket, whatever their order. Then both are read again, and of the first buckets that differ
// the hashes are kept: a row of the archive that the copy has not is the one to name.

const (
	locateBuckets = 1 << 16
	locateKeep    = 1 << 18 // hashes kept of one side
)

// bucketSums are sums of the hashes of rows. It is written to as a Tally is.
type bucketSums struct {
	lines  lineCutter
	sums   []pgarchive.RowSums
	counts []int64
}

type rowHash [16]byte

func hashRow(row []byte) rowHash {
	sum := sha256.Sum256(row)
	return rowHash(sum[:16])
}

func (h rowHash) bucket() int { return int(binary.BigEndian.Uint16(h[14:])) }

func newBucketSums() *bucketSums {
	b := &bucketSums{sums: make([]pgarchive.RowSums, locateBuckets), counts: make([]int64, locateBuckets)}
	b.lines.row = func(row []byte) {
		h := hashRow(row)
		i := h.bucket()
		b.sums[i][0] += binary.BigEndian.Uint64(h[:8])
		b.sums[i][1] += binary.BigEndian.Uint64(h[8:])
		b.counts[i]++
	}
	return b
}

// differing are the buckets in which two sides differ, the first of them with as many rows as
// are kept.
func (b *bucketSums) differing(o *bucketSums) map[int]bool {
	some := map[int]bool{}
	var rows int64
	for i := range b.sums {
		if b.sums[i] == o.sums[i] && b.counts[i] == o.counts[i] {
			continue
		}
		if rows += max(b.counts[i], o.counts[i]); rows > locateKeep && len(some) > 0 {
			break
		}
		some[i] = true
	}
	return some
}

// lineCutter gives whole rows to row, of a COPY text that comes in pieces.
type lineCutter struct {
	row  func([]byte)
	rest []byte
}

func (l *lineCutter) Write(p []byte) (int, error) {
	n := len(p)
	for {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			l.rest = append(l.rest, p...)
			return n, nil
		}
		if len(l.rest) > 0 {
			l.rest = append(l.rest, p[:end]...)
			l.row(l.rest)
			l.rest = l.rest[:0]
		} else {
			l.row(p[:end])
		}
		p = p[end+1:]
	}
}

// locate names the first row that differs by its primary key, if it has one. ways are those
// to read the copy.
func (c *comparison) locate(ctx context.Context, s *dumper.CopySession, ways []copying, t *drilledTable, target dumper.CopyTarget, relation *dumper.Relation, diff *DrillDifference) error {
	key, err := s.PrimaryKey(ctx, relation.OID)
	if err != nil {
		return err
	}
	archived := newBucketSums()
	if err := c.readArchived(ctx, t, &archived.lines); err != nil {
		return err
	}
	var copied copying
	var buckets map[int]bool
	for _, way := range ways { // the one in which less differs is the source's
		found := newBucketSums()
		if err := way(ctx, &found.lines, target); err != nil {
			return err
		}
		if some := archived.differing(found); copied == nil || len(some) < len(buckets) {
			copied, buckets = way, some
		}
	}
	if len(buckets) == 0 {
		return nil // the copy has changed meanwhile
	}
	there := map[rowHash]int{}
	count := lineCutter{row: func(row []byte) {
		if h := hashRow(row); buckets[h.bucket()] {
			there[h]++
		}
	}}
	if err := copied(ctx, &count, target); err != nil {
		return err
	}
	name := keyNamer(target.Columns, key)
	missing := ""
	look := lineCutter{row: func(row []byte) {
		h := hashRow(row)
		switch {
		case !buckets[h.bucket()]:
		case there[h] > 0:
			there[h]--
		case missing == "":
			missing = name(row)
		}
	}}
	if err := c.readArchived(ctx, t, &look); err != nil {
		return err
	}
	if missing != "" {
		diff.Key = missing
		diff.What += "; the first that is not as archived: " + missing
		return nil
	}
	extra := ""
	look = lineCutter{row: func(row []byte) {
		if h := hashRow(row); extra == "" && buckets[h.bucket()] && there[h] > 0 {
			extra = name(row)
		}
	}}
	if err := copied(ctx, &look, target); err != nil {
		return err
	}
	if extra != "" {
		diff.Key = extra
		diff.What += "; the first that was not archived: " + extra
	}
	return nil
}

// keyNamer names a row by its primary key, or by its place where the table has none.
func keyNamer(columns, key []string) func([]byte) string {
	var places []int
	for _, k := range key {
		places = append(places, slices.Index(columns, k))
	}
	return func(row []byte) string {
		fields := strings.Split(string(row), "\t") // COPY writes a tab in a value as \t
		if len(places) == 0 || slices.ContainsFunc(places, func(i int) bool { return i < 0 || i >= len(fields) }) {
			return "(without a primary key)"
		}
		parts := make([]string, len(places))
		for i, p := range places {
			parts[i] = key[i] + "=" + clipText(fields[p], 60)
		}
		return strings.Join(parts, ", ")
	}
}

func clipText(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "…"
	}
	return s
}

// readArchived writes the COPY text of a table, as it is archived, to w.
func (c *comparison) readArchived(ctx context.Context, t *drilledTable, w io.Writer) error {
	r := c.restore
	blocks, err := newDumpBlocks(c.head, r.dump, r.index, r.source, newTracker(nil))
	if err != nil {
		return err
	}
	for _, b := range t.blocks {
		if err := readBlock(ctx, blocks, b, c.head.Compression, w); err != nil {
			return storedFault(r.dump.Key, fmt.Errorf("read %s again: %w", b.label(), err))
		}
	}
	return nil
}

// readBlock writes the COPY text of one block without its end mark.
func readBlock(ctx context.Context, d *dumpBlocks, b IndexBlock, compression pgarchive.Compression, w io.Writer) error {
	stored := &provedRange{
		parts: []pgarchive.ExpectedPart{d.parts[b.DumpID]}, read: func(int) {},
		open: func(offset, length int64) (io.ReadCloser, error) { return d.source.openRange(ctx, offset, length) },
	}
	defer func() { _ = stored.Close() }()
	u, err := pgarchive.NewUnpacker(stored, compression, b.Offset)
	if err != nil {
		return err
	}
	if _, err := u.Next(); err != nil {
		return err
	}
	in := bufio.NewReaderSize(u, 256<<10)
	for {
		line, err := in.ReadSlice('\n')
		switch {
		case bytes.Equal(line, []byte("\\.\n")): // no row looks like that
			_, err = io.Copy(io.Discard, in)
			return err
		case err != nil && err != bufio.ErrBufferFull:
			return err
		}
		for err == bufio.ErrBufferFull {
			if _, err := w.Write(line); err != nil {
				return err
			}
			if line, err = in.ReadSlice('\n'); err != nil && err != bufio.ErrBufferFull {
				return err
			}
		}
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
}
