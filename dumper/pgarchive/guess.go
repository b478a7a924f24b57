package pgarchive

import (
	"bufio"
	"bytes"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// GuessLength is how much of a stream Guess wants to see, where there is as much: a block of
// zstd, which cannot be looked into by halves.
const GuessLength = 160 << 10

// Guess says what a stream that begins so seems to be, and what to do about it; both are ""
// for a custom-format archive. It is for those who were given somebody else's file: what
// looks like an archive here may still be none.
func Guess(begin []byte) (what, cure string) {
	switch {
	case len(begin) == 0:
		return "empty", "whatever wrote it failed: look for an older one"
	case len(begin) > preambleLen+2 && bytes.HasPrefix(begin, []byte(magic)) && begin[preambleLen+2] == formatTar:
		return "the toc.dat of a directory-format dump (pg_dump -Fd) or of a tar", "fetch the whole directory and give it to pg_restore -Fd"
	case bytes.HasPrefix([]byte(magic), begin[:min(len(begin), len(magic))]):
		return "", "" // or cut in the magic, which the head's parser tells
	}
	for _, s := range signatures {
		if len(begin) >= s.at+len(s.begin) && string(begin[s.at:s.at+len(s.begin)]) == s.begin {
			return s.guess(begin)
		}
	}
	if looksLikeSQL(begin) {
		return "plain SQL (pg_dump without -Fc)", "feed it to psql -v ON_ERROR_STOP=1 -d URL"
	}
	return "no archive of pg_dump -Fc", "check the key"
}

// A signature is what a kind of file begins with.
type signature struct {
	at         int
	begin      string
	what, cure string
	// open undoes a compression, for a look inside.
	open func(io.Reader) (io.Reader, error)
}

var signatures = []signature{
	{begin: "age-encryption.org/v1\n", what: "a file encrypted with age", cure: "decrypt it first: age -d -i KEYFILE, then pg_restore"},
	{begin: "-----BEGIN AGE ENCRYPTED FILE-----", what: "a file encrypted with age", cure: "decrypt it first: age -d -i KEYFILE, then pg_restore"},
	{begin: "-----BEGIN PGP MESSAGE-----", what: "a file encrypted with OpenPGP", cure: "decrypt it first: gpg -d, then pg_restore"},
	{begin: "\x1f\x8b", what: "gzip", cure: "gunzip -c", open: func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
	{begin: "\x28\xb5\x2f\xfd", what: "zstd", cure: "zstd -dc", open: func(r io.Reader) (io.Reader, error) {
		return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
	}},
	{begin: "\x04\x22\x4d\x18", what: "lz4", cure: "lz4 -dc", open: func(r io.Reader) (io.Reader, error) { return lz4.NewReader(r), nil }},
	{begin: "BZh", what: "a bzip2 file", cure: "unpack it first (bzip2 -dc), then see what it is"},
	{begin: "\xfd7zXZ\x00", what: "an xz file", cure: "unpack it first (xz -dc), then see what it is"},
	{begin: "PK\x03\x04", what: "a zip file", cure: "unpack it first, then see what it is"},
	{begin: "toc.dat\x00", what: "a tar-format dump (pg_dump -Ft)", cure: "feed it to pg_restore -Ft -d URL"},
	{at: 257, begin: "ustar", what: "a tar file, perhaps of a directory-format dump (pg_dump -Fd)", cure: "unpack it and give the directory with toc.dat to pg_restore -Fd"},
	{begin: "{", what: "JSON, perhaps the manifest of a pgstow archive", cure: "name an archive by its id, or the key of its dump"},
	{begin: "<", what: "XML or HTML, perhaps the error page of a failed download", cure: "check the key, and what wrote it"},
}

func (s *signature) guess(begin []byte) (what, cure string) {
	if s.open == nil {
		return s.what, s.cure
	}
	inside, _ := s.look(begin)
	unpack := "unpack it first: " + s.cure
	switch {
	case bytes.HasPrefix(inside, []byte(magic)):
		return "an archive of pg_dump -Fc that was compressed once more with " + s.what, unpack + " | pg_restore -d URL"
	case looksLikeSQL(inside):
		return "plain SQL, compressed with " + s.what, unpack + " | psql -v ON_ERROR_STOP=1 -d URL"
	case bytes.HasPrefix(inside, []byte("toc.dat\x00")):
		return "a tar-format dump (pg_dump -Ft), compressed with " + s.what, unpack + " | pg_restore -Ft -d URL"
	case len(inside) > 262 && string(inside[257:262]) == "ustar":
		return "a tar file, compressed with " + s.what, unpack + ", then give the directory with toc.dat to pg_restore -Fd"
	}
	return "a " + s.what + " file", unpack + ", then see what it is"
}

// look unpacks the beginning; that it is cut behind is no fault.
func (s *signature) look(begin []byte) ([]byte, error) {
	r, err := s.open(bytes.NewReader(begin))
	if err != nil {
		return nil, err
	}
	if z, ok := r.(*zstd.Decoder); ok {
		defer z.Close()
	}
	inside := make([]byte, 512)
	n, err := io.ReadFull(r, inside)
	return inside[:n], err
}

// sqlWords begin the first statement, or the first comment, of what pg_dump, pg_dumpall and
// their likes write.
var sqlWords = []string{"--", "/*", "\\restrict", "\\connect", "SET ", "SELECT ", "CREATE ", "BEGIN", "DROP ", "ALTER ", "INSERT ", "COPY "}

func looksLikeSQL(begin []byte) bool {
	lines := bufio.NewScanner(bytes.NewReader(bytes.TrimPrefix(begin, []byte("\xef\xbb\xbf"))))
	for lines.Scan() {
		line := strings.ToUpper(strings.TrimSpace(lines.Text()))
		if line == "" {
			continue
		}
		for _, w := range sqlWords {
			if strings.HasPrefix(line, strings.ToUpper(w)) {
				return true
			}
		}
		return false
	}
	return false
}
