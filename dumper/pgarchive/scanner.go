package pgarchive

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"io"
)

// scanBuffer is what a Scanner reads at once where its caller asks for less. pg_dump
// writes 4 KiB at a time; what has gathered in the pipe meanwhile comes as one read.
const scanBuffer = 64 << 10

// Scanner passes an archive on unchanged while it indexes it and holds back its head.
//
// Its io.EOF is a promise: it comes only when the source returned a bare io.EOF and the
// archive is complete, that is, when the data blocks were exactly the promised ones, once
// each, in TOC order, of the right type, with nothing behind them. Errors of the source
// come back unchanged. Every error is final.
//
// A Scanner is used by one goroutine at a time.
type Scanner struct {
	src *bufio.Reader
	err error // what Read returns from now on

	started bool
	unknown bool // version: passed through from byte 0, unindexed
	headErr error
	head    *Head
	text    string // the head as it came
	flags   []int  // position in text of each promised entry's offset flag

	parser blockParser
	check  completeness
	sum    hash.Hash
	blocks []Block
}

// NewScanner reads nothing yet.
func NewScanner(r io.Reader) *Scanner {
	return &Scanner{src: bufio.NewReaderSize(r, scanBuffer), sum: sha256.New()}
}

// Head reads up to the end of the head. For an unknown version it returns
// ErrUnknownVersion, with a head that holds the version alone; Read then delivers the
// whole stream from byte 0, unindexed.
func (s *Scanner) Head() (*Head, error) {
	if !s.started {
		s.started = true
		s.start()
	}
	return s.head, s.headErr
}

func (s *Scanner) start() {
	if v, ok := s.peekVersion(); ok && !v.known() {
		s.unknown = true
		s.head = &Head{Header: Header{Version: v}}
		s.headErr = v.unknown()
		return
	}
	head, text, flags, err := readHead(s.src)
	if err != nil {
		s.headErr, s.err = err, err
		return
	}
	s.head, s.text, s.flags = head, text, flags
	s.parser.pos = int64(len(text))
	s.check.promised = head.Promised()
}

// peekVersion consumes nothing, since a stream of an unknown version goes out whole.
func (s *Scanner) peekVersion() (v Version, ok bool) {
	b, err := s.src.Peek(preambleLen)
	if err != nil || string(b[:len(magic)]) != magic {
		return v, false // the head's parser says what is wrong
	}
	return Version{b[5], b[6], b[7]}, true
}

// HeadSize is the length of the head, 0 for an unknown version.
func (s *Scanner) HeadSize() int64 { return int64(len(s.text)) }

// HeadBytes is the head as it came, offsets unset; nil for an unknown version.
func (s *Scanner) HeadBytes() []byte {
	if s.text == "" {
		return nil
	}
	return []byte(s.text)
}

// PatchedHead is the head with every block's offset set, which is what pg_dump writes into
// a file that it can seek in. It is valid only after Read returned io.EOF.
func (s *Scanner) PatchedHead() ([]byte, error) {
	switch {
	case s.unknown:
		return nil, s.headErr
	case s.err != io.EOF:
		return nil, errors.New("offsets are known only at the end of the archive")
	}
	b := []byte(s.text)
	for i, at := range s.flags {
		b[at] = offsetSet
		binary.LittleEndian.PutUint64(b[at+1:], uint64(s.blocks[i].Offset))
	}
	return b, nil
}

// Blocks are the data blocks seen so far, in stream order; those of a complete archive
// stand in the order of Head.Promised. The slice is the Scanner's own.
func (s *Scanner) Blocks() []Block { return s.blocks }

// Read delivers the bytes behind the head, reading the head first if Head did not.
func (s *Scanner) Read(p []byte) (int, error) {
	s.Head() //nolint:errcheck // a failure stands in s.err, an unknown version is no failure here
	if s.err != nil {
		return 0, s.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := s.src.Read(p)
	if n > 0 && !s.unknown {
		if n, s.err = s.index(p[:n]); s.err != nil {
			return n, s.err
		}
	}
	// A bare io.EOF alone is the end: a wrapped one is somebody's failure.
	if err == io.EOF && !s.unknown {
		if fault := s.check.end(&s.parser); fault != nil {
			err = fault
		}
	}
	s.err = err
	return n, err
}

// index takes p apart; n < len(p) bytes are good when there is an error.
func (s *Scanner) index(p []byte) (n int, err error) {
	hashed := 0 // p[hashed:n] belongs to the current block and is not hashed yet
	for n < len(p) {
		if s.parser.between() {
			if s.check.allSeen() {
				return n, s.trailing()
			}
			hashed = n
		}
		used, ev, err := s.parser.step(p[n:])
		if err != nil {
			return n, s.place(err)
		}
		n += used
		switch ev {
		case evBlock:
			if err := s.check.begin(&s.parser.cur); err != nil {
				return n, err
			}
		case evBlockEnd:
			s.sum.Write(p[hashed:n])
			b := s.parser.cur
			s.sum.Sum(b.SHA256[:0])
			s.sum.Reset()
			s.blocks = append(s.blocks, b)
			hashed = n
		}
	}
	s.sum.Write(p[hashed:])
	return n, nil
}

func (s *Scanner) trailing() error {
	return &FormatError{Offset: s.parser.pos, Detail: "bytes follow the last block", Err: ErrIncomplete}
}

// place adds to a fault of the framing where it was met.
func (s *Scanner) place(err error) error {
	if fe := (*FormatError)(nil); errors.As(err, &fe) {
		switch {
		case s.parser.between():
			fe.Detail += " where the block of " + s.check.label() + " should begin"
		case s.parser.state != atID:
			fe.Detail += " inside the block of " + s.check.promised[s.check.next-1].Label()
		}
	}
	return err
}
