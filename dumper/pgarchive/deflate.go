package pgarchive

import (
	"hash/adler32"
	"io"

	"github.com/klauspost/compress/flate"
)

// zlibHeader says deflate, a window of 32 KiB, no preset dictionary.
var zlibHeader = []byte{0x78, 0x9c}

// lastStored is an empty stored block that says it is the last one: behind a sync flush it
// ends the deflate stream.
var lastStored = []byte{0x01, 0x00, 0x00, 0xff, 0xff}

// Levels of the encoder that differ from the number asked for, by what was measured;
// docs/performance.md has the figures.
const (
	// fastLevel stands for 1: on tables of text and numbers it is up to a fifth faster, and
	// its output is smaller on all data tried.
	fastLevel = 2
	// rivalLevel is tried beside the default level: where data repeat little, looking
	// harder for a match finds no more, and takes nearly twice the time.
	rivalLevel = 3
)

// deflater makes of each segment a stretch of one deflate stream. It begins with the end of
// the segment before as its dictionary, which the inflater's window holds at that point, and
// ends with a sync flush, so that the next may begin on a byte. A second stream instead
// would make pg_restore hang for ever.
type deflater struct {
	w, rival *flate.Writer // rival is nil where the level stands by itself
	out      appender
}

func newDeflater(level int) (*deflater, error) {
	if level == 1 {
		level = fastLevel
	}
	w, err := flate.NewWriter(io.Discard, level)
	if err != nil || level != defaultGzip {
		return &deflater{w: w}, err
	}
	rival, err := flate.NewWriter(io.Discard, rivalLevel)
	return &deflater{w: w, rival: rival}, err
}

func (d *deflater) encode(s *segment) error {
	d.out.b = s.out[:0]
	if s.first {
		d.out.b = append(d.out.b, zlibHeader...)
	}
	s.adler = adler32.Checksum(s.data())
	if d.rival != nil && s.trial != nil {
		defer close(s.trial.done) // whatever happens, others may be waiting
	}
	if len(s.data()) > 0 {
		w := d.w
		if d.rival != nil && s.verdict.rivalWins() {
			w = d.rival
		}
		before := len(d.out.b)
		if err := deflate(w, &d.out, s); err != nil {
			return err
		}
		if d.rival != nil && s.trial != nil {
			if err := d.compete(s, w == d.rival, len(d.out.b)-before); err != nil {
				return err
			}
		}
	}
	s.out, s.body = d.out.b, d.out.b
	return nil
}

func deflate(w *flate.Writer, out io.Writer, s *segment) error {
	w.ResetDict(out, s.buf[:s.dict])
	if _, err := w.Write(s.data()); err != nil {
		return err
	}
	return w.Flush()
}

// compete compresses the segment a second time, the other way, for its trial.
func (d *deflater) compete(s *segment, wasRival bool, size int) error {
	other := d.rival
	if wasRival {
		other = d.w
	}
	var n counter
	if err := deflate(other, &n, s); err != nil {
		return err
	}
	mine, rivals := size, int(n)
	if wasRival {
		mine, rivals = rivals, mine
	}
	s.trial.won = rivals <= mine+mine/trialMargin
	return nil
}

// counter counts what is written.
type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// Of every 16 segments of a stream one is compressed by both encoders. What comes out
// decides for those from 8 segments later on: by then it is known, so that nobody waits, and
// the bytes that are stored do not depend on who compressed what, or when. A stream of less
// than 4 MiB has no trial.
const (
	trialEvery  = 16
	trialAt     = 4
	trialUsed   = trialAt + 8
	trialMargin = 200 // the rival may be larger by 1 in so many
)

// trial is what one segment has shown. A nil trial was won by no rival.
type trial struct {
	done chan struct{}
	won  bool // valid once done is closed
}

// rivalWins waits for the end of the trial. Its segment comes before that of the caller, so
// that a worker has it, or had it.
func (t *trial) rivalWins() bool {
	if t == nil {
		return false
	}
	<-t.done
	return t.won
}

// trials gives the segments of a stream their trials and verdicts.
type trials struct {
	segments      int
	last, verdict *trial
}

func (t *trials) assign(s *segment) {
	switch t.segments % trialEvery {
	case trialAt:
		t.last = &trial{done: make(chan struct{})}
		s.trial = t.last
	case trialUsed:
		t.verdict = t.last
	}
	s.verdict = t.verdict
	t.segments++
}
