// Package s3 is the storage driver for Amazon S3 and the stores that speak its
// protocol.
//
// Streams go through an own multipart loop on service/s3: the SDK's managers
// publish part 1 first, stop at 78 GiB when the length is unknown and lose the
// abort when the context is cancelled. Parts are hashed with CRC64NVME before
// they are sent, because it is the one algorithm whose part values combine into
// a whole-object checksum on every store that knows it; the store compares the
// combined value when it completes the upload, and Put reads it back.
package s3
