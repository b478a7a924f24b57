package archiver

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// Compression says how the dump is compressed; its text form is that of
// --compress. The zero value is auto.
type Compression struct {
	algorithm string // "" is auto
	level     int    // 0 is the algorithm's own default
}

// ParseCompression reads auto, gzip[:1-9], zstd[:1-19], lz4, none or pg_dump.
func ParseCompression(s string) (Compression, error) {
	name, level, leveled := strings.Cut(s, ":")
	c := Compression{algorithm: name}
	if leveled {
		n, err := strconv.Atoi(level)
		if err != nil || n < 1 {
			return Compression{}, fmt.Errorf("%w: compression %q: %q is no level", ErrUsage, s, level)
		}
		c.level = n
	}
	if s == "" || s == "auto" {
		return Compression{}, nil
	}
	// A Packer knows what there is; it reads nothing before it is asked to.
	if _, err := pgarchive.NewPacker(nil, pgarchive.PackOptions{Compression: c.pack()}); err != nil {
		return Compression{}, fmt.Errorf("%w: %w; auto chooses by the version of pg_dump", ErrUsage, err)
	}
	return c, nil
}

func (c Compression) String() string {
	switch {
	case c.algorithm == "":
		return "auto"
	case c.level == 0:
		return c.algorithm
	}
	return fmt.Sprintf("%s:%d", c.algorithm, c.level)
}

func (c Compression) pack() pgarchive.Compression {
	return pgarchive.Compression{Algorithm: c.algorithm, Level: c.level}
}

// packing is who compresses a dump, and how.
type packing struct {
	pgDump string                // pg_dump's own --compress, "" for its default
	pack   pgarchive.Compression // beside it
	// ratio is what the dump is expected to have of the tables' size on disk.
	// It only plans part sizes: a dump that turns out larger gets larger parts,
	// never a failure.
	ratio float64
	// needs is the oldest pg_restore that reads the result, when it is newer
	// than the pg_dump that made it.
	needs int
}

// uncompressed is what pg_dump's --compress takes in every release.
const uncompressed = "0"

// Majors of the client programs that first knew a compression.
const (
	zstdSince = 16
	lz4Since  = 16
)

// choosePacking settles auto, for a pg_dump of this major version. Every
// pg_restore that can read an archive of 16 or later knows zstd, and pg_dump's
// own zstd:1, in C, keeps up with one COPY in one thread: see
// docs/performance.md. It is decoded beside for the evidence.
func choosePacking(c Compression, major int) packing {
	switch {
	case c.algorithm == "" && major >= zstdSince:
		return packing{pgDump: "zstd:1", pack: pgarchive.Compression{Algorithm: pgarchive.KeepCompression}, ratio: 0.5}
	case c.algorithm == "":
		c = Compression{algorithm: "gzip", level: 6}
	}
	p := packing{pgDump: uncompressed, pack: c.pack(), ratio: 0.5}
	switch c.algorithm {
	case pgarchive.KeepCompression:
		p.pgDump = ""
	case "none":
		p.ratio = 1
	case "zstd":
		p.needs = zstdSince
	case "lz4":
		p.needs = lz4Since
	}
	if major >= p.needs {
		p.needs = 0
	}
	return p
}

// level is that of the compression, where pgstow has chosen it.
func (p packing) level(algorithm string) int {
	if p.pack.Algorithm == algorithm {
		return p.pack.Level
	}
	if level, ok := strings.CutPrefix(p.pgDump, algorithm+":"); ok {
		n, _ := strconv.Atoi(level) // our own constant
		return n
	}
	return 0
}
