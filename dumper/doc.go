// Package dumper runs PostgreSQL's client programs as streams: pg_dump out of a
// database, pg_restore into one, roles and tablespaces beside them, and the
// preflights that find out before anything runs what would go wrong.
//
// A stream's end is a promise: Dump.Read returns io.EOF only after pg_dump
// exited 0. The programs get their connection through an inherited memory file,
// never through arguments, and end with this process.
package dumper
