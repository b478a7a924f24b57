// Package gcs is the Google Cloud Storage driver of the bucket contract.
//
// Objects are written by the official client's Writer over the JSON API: up to
// one chunk in a single request, more as one resumable upload, strictly in
// order. So there is no deferred head, and a Put sends one chunk at a time.
//
// Three things about Put are worth knowing.
//
// The client opens its upload only with the first full chunk. So that a store
// that will not take an object says so before the source is read, Put first
// rehearses the creating request of a stream: it opens a resumable session with
// the same metadata, retention, hold and condition, and cancels it. The
// creating request itself goes out with the first chunk.
//
// The only way out is to cancel the Writer's context: its Close is the commit,
// and is called after a bare io.EOF alone. Below the client sits a transport
// that refuses every further request of a Put that was given up, so that
// nothing can complete it behind our back, and that asks the session for the
// outcome when a reply was lost, which needs no right to read.
//
// The client takes every 308 for a confirmation of the whole chunk, whatever
// its Range says. The transport reads the Range and has the client send the
// chunk again when the store kept less of it.
//
// Unfinished sessions are neither listed by any API nor visible or billed, and
// they expire after a week; the driver has no storage.UploadSweeper.
//
// Tags are stored as metadata with the key "tag-<key>". Metadata keys that
// start with "tag-", and "pgstow-upload", are refused.
package gcs
