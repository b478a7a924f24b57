// Package storage is the bucket contract: what pgstow asks of an object store,
// and nothing that one store alone can do.
//
// Two rules carry the guarantee "whole or absent". Put reads its source, it is
// not written to: a bare io.EOF is the only commit signal, every other outcome
// leaves nothing visible. And creation is create-only: a key that exists is
// never replaced.
//
// Drivers live in storage/s3, storage/gcs and storage/file; each must pass the
// suite in storage/storagetest, bare and under a prefix. Drivers return errors
// wrapped once in *Error, which unwraps both to a sentinel of this package and
// to the SDK's own error.
package storage
