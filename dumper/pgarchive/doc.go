// Package pgarchive reads and writes PostgreSQL's custom archive format (pg_dump -Fc),
// archive versions 1.12 to 1.16, as pure bytes: it starts no process and opens no file.
//
// An archive is HEADER | TOC | DATA BLOCK*. It has no trailer, no checksum and no length
// field, so a stream that was cut between two blocks looks like a smaller archive. What
// tells them apart is the TOC, which stands first and promises every block. [Scanner]
// holds a stream against that promise while it passes it on; [Verifier] holds one
// against hashes that were taken earlier.
//
// The reader is strict: it takes what pg_dump writes and nothing else. Integers are 4
// bytes and offsets 8 (so on every platform that pg_dump has been built for in the range
// of versions known here), every integer is in its one canonical form, no string holds a
// NUL. Therefore a head that parses is written back by [Head.AppendBinary] byte for byte.
//
// Memory: a head is held whole, as text, which its entries share; it grows with the bytes
// that came, never with a size that was merely claimed. Blocks are never held.
package pgarchive
