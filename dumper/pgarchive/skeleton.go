// Package pgarchive reads and writes PostgreSQL's custom archive format.
package pgarchive

import (
	"errors"
	"io"
)

var errSkeleton = errors.New("skeleton")

// ErrUnknownVersion: an archive version newer than 1.16 (the stream still passes through).
var ErrUnknownVersion = errors.New("unknown archive version")

// ErrIncomplete: cut, trailing bytes, a promised block missing, ...
var ErrIncomplete = errors.New("archive is incomplete")

// ErrFormat: not a custom archive, or one whose bytes contradict themselves.
var ErrFormat = errors.New("malformed archive")

type Version struct{ Major, Minor, Rev byte }

type Header struct {
	Version                              Version
	IntSize, OffSize                     byte
	Format                               byte
	Compression                          Compression
	Created                              [7]int // sec, min, hour, mday, mon, year-1900, isdst
	Database, ServerVersion, DumpVersion string
}

type Compression struct {
	Algorithm string // "none", "gzip", "lz4", "zstd"
	Level     int    // as the header holds it; 0 where it holds none
}

// Str is a string that may be NULL, which differs from "".
type Str struct {
	S    string
	Null bool
}

type Section int

const (
	SectionNone Section = 1 + iota
	SectionPreData
	SectionData
	SectionPostData
)

type Entry struct {
	DumpID                         int
	HadDumper                      bool
	TableOID, OID                  Str
	Tag, Desc                      Str
	Section                        Section
	Defn, DropStmt, CopyStmt       Str
	Namespace, Tablespace, TableAM Str
	RelKind                        int
	Owner                          Str
	WithOIDs                       Str
	Dependencies                   []string
	OffsetFlag                     byte   // 1 not set, 2 set, 3 no data
	Offset                         uint64 // absolute position of the block
}

// Head is HEADER + TOC.
type Head struct {
	Header
	Entries []Entry
}

// ParseHead reads exactly the head from r (buffered internally is not allowed to over-read).
func ParseHead(r io.Reader) (*Head, error) { return nil, errSkeleton }

// AppendBinary writes the head back, byte for byte.
func (h *Head) AppendBinary(b []byte) ([]byte, error) { return nil, errSkeleton }

// Block is one data block of the stream.
type Block struct {
	DumpID       int
	BlobBlock    bool  // type 3
	Offset       int64 // absolute, of its type byte
	Length       int64 // from the type byte to behind the closing 0
	Payload      int64 // bytes of its chunks, as stored
	Chunks       int64
	LargeObjects int
	SHA256       [32]byte // of the stored Length bytes
}

// Scanner passes an archive on unchanged while it indexes it and holds back its
// head. io.EOF comes out only when r returned a bare io.EOF and the archive is complete.
type Scanner struct{}

func NewScanner(r io.Reader) *Scanner { return &Scanner{} }

// Head reads up to the end of the head. For an unknown newer version it returns
// ErrUnknownVersion (with the parsed Header's version); Read then delivers the whole
// stream from byte 0, unindexed.
func (s *Scanner) Head() (*Head, error) { return nil, errSkeleton }

// HeadSize is the length of the head, 0 for an unknown version.
func (s *Scanner) HeadSize() int64 { return 0 }

// HeadBytes is the head as it came, offsets unset.
func (s *Scanner) HeadBytes() []byte { return nil }

// PatchedHead is the head with every block's offset set; valid after Read returned io.EOF.
func (s *Scanner) PatchedHead() ([]byte, error) { return nil, errSkeleton }

// Read delivers the bytes behind the head.
func (s *Scanner) Read(p []byte) (int, error) { return 0, errSkeleton }

// Blocks are the data blocks seen so far, in stream order.
func (s *Scanner) Blocks() []Block { return nil }
