package gcsserver

import (
	"crypto/md5" //nolint:gosec // the API's own checksum
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// content is the bytes of an object or of an unfinished upload, with the
// running checksums.
type content struct {
	chunks [][]byte
	file   *os.File // instead of chunks
	length int64
	crc    uint32
	md5    hash.Hash
}

func newContent(dir string) (*content, error) {
	c := &content{md5: md5.New()} //nolint:gosec // the API's own checksum
	if dir == "" {
		return c, nil
	}
	f, err := os.CreateTemp(dir, "gcs-*")
	if err != nil {
		return nil, fmt.Errorf("spill: %w", err)
	}
	c.file = f
	return c, nil
}

// append takes p over.
func (c *content) append(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if c.file != nil {
		if _, err := c.file.Write(p); err != nil {
			return fmt.Errorf("spill: %w", err)
		}
	} else {
		c.chunks = append(c.chunks, p)
	}
	c.length += int64(len(p))
	c.crc = crc32.Update(c.crc, castagnoli, p)
	c.md5.Write(p)
	return nil
}

func (c *content) size() int64 { return c.length }

// writeRange copies length bytes from offset on to w.
func (c *content) writeRange(w io.Writer, offset, length int64) error {
	if c.file != nil {
		_, err := io.Copy(w, io.NewSectionReader(c.file, offset, length))
		return err
	}
	for _, chunk := range c.chunks {
		if offset >= int64(len(chunk)) {
			offset -= int64(len(chunk))
			continue
		}
		part := chunk[offset:]
		part = part[:min(int64(len(part)), length)]
		if _, err := w.Write(part); err != nil {
			return err
		}
		offset, length = 0, length-int64(len(part))
		if length == 0 {
			break
		}
	}
	return nil
}

func (c *content) discard() {
	c.chunks = nil
	if c.file != nil {
		c.file.Close()
		os.Remove(c.file.Name())
	}
}

// crc32c is base64 of the big-endian value:
// https://cloud.google.com/storage/docs/json_api/v1/objects#crc32c
func (c *content) crc32c() string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, c.crc))
}

func (c *content) md5Hash() string { return base64.StdEncoding.EncodeToString(c.md5.Sum(nil)) }
