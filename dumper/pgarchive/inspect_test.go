package pgarchive

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"
)

// inspectAll inspects every block of an archive, the last first.
func inspectAll(t testing.TB, archive []byte, blocks []Block) (found []Block, objects []LargeObject) {
	t.Helper()
	head, err := ParseHead(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	i, err := NewInspector(head.Compression, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	for n, e := range slices.Backward(head.Promised()) {
		var of []LargeObject
		b, err := i.Inspect(blockReader(archive, blocks[n]), e, blocks[n].Offset, func(o LargeObject) { of = append(of, o) })
		if err != nil {
			t.Fatalf("%s: %v", e.Label(), err)
		}
		found, objects = append(found, b), append(of, objects...)
	}
	slices.Reverse(found)
	return found, objects
}

func blockReader(archive []byte, b Block) io.Reader {
	return bytes.NewReader(archive[b.Offset : b.Offset+b.Length])
}

// An Inspector finds in each stored block what the Packer that stored it found in the stream.
func TestInspect(t *testing.T) {
	defer goleak.VerifyNone(t)
	rng := rand.New(rand.NewPCG(5, 5))
	archives := map[string][]byte{
		"boundaries": testArchive(t, []string{"", "one\n", textOf(rng, segmentSize, 200), textOf(rng, 3*segmentSize+5, 2*segmentSize), strings.Repeat("\n", 100_000)},
			"a large object", "", strings.Repeat("x", 2*segmentSize)),
		"no blocks": encode(t, testHead(14, testEntry(1, false, "TABLE", "t"))),
	}
	goldens, err := filepath.Glob("testdata/*.dump")
	if err != nil || len(goldens) == 0 {
		t.Fatal("no golden archives", err)
	}
	for _, file := range goldens {
		if archives[filepath.Base(file)], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	for name, source := range archives {
		algorithms := []string{KeepCompression}
		if head, err := ParseHead(bytes.NewReader(source)); err != nil {
			t.Fatal(err)
		} else if head.Compression.Algorithm == "none" {
			algorithms = append(algorithms, "gzip", "zstd", "lz4", "none")
		}
		for _, algorithm := range algorithms {
			t.Run(name+" "+algorithm, func(t *testing.T) {
				var objects []LargeObject
				p, packed := mustPack(t, source, PackOptions{Compression: Compression{Algorithm: algorithm}, Workers: 2,
					LargeObject: func(o LargeObject) { objects = append(objects, o) }})
				want := slices.Clone(p.Blocks())
				for i := range want {
					want[i].SHA256 = [32]byte{}
				}
				found, foundObjects := inspectAll(t, packed, p.Blocks())
				if !slices.Equal(found, want) {
					t.Errorf("found\n%+v, packed were\n%+v", found, want)
				}
				if !slices.Equal(foundObjects, objects) {
					t.Errorf("large objects %+v, packed were %+v", foundObjects, objects)
				}
				head, err := p.Head()
				if err != nil {
					t.Fatal(err)
				}
				if err := head.Complete(found); err != nil {
					t.Error(err)
				}
				if n := len(found); n > 1 {
					for what, blocks := range map[string][]Block{
						"one missing": found[:n-1], "one twice": append(slices.Clone(found), found[0]),
						"swapped": append([]Block{found[1], found[0]}, found[2:]...),
					} {
						if err := head.Complete(blocks); !errors.Is(err, ErrFormat) && !errors.Is(err, ErrIncomplete) {
							t.Errorf("%s: %v", what, err)
						}
					}
				}
			})
		}
	}
}

// What is wrong with a block is said, and the next block is inspected as if nothing had been.
func TestInspectHazards(t *testing.T) {
	defer goleak.VerifyNone(t)
	broken := errors.New("the store is gone")
	for _, alg := range []string{"none", "gzip", "zstd", "lz4"} {
		compressed := func(t testing.TB, alg, data string) string {
			if alg == "none" {
				return data
			}
			return compressed(t, alg, data)
		}
		one, two := testEntry(1, true, "TABLE DATA", "orders"), testEntry(2, true, "BLOBS", "objects")
		rows := strings.Repeat("a row of text\n", 200_000)
		whole, good := compressed(t, alg, rows+endMark), tableBlock(1, compressed(t, alg, "row\n"+endMark))
		i, err := NewInspector(Compression{Algorithm: alg}, 2)
		if err != nil {
			t.Fatal(err)
		}
		defer i.Close()
		object := compressed(t, alg, strings.Repeat("o", 3*segmentSize))
		for name, tc := range map[string]struct {
			e     Entry
			block []byte
			kind  error
			want  string
		}{
			"cut in a chunk":        {one, tableBlock(1, whole)[:len(whole)/2], ErrIncomplete, "orders"},
			"cut between rows":      {one, tableBlock(1, compressed(t, alg, rows)), ErrIncomplete, "end in the mark"},
			"half a row":            {one, tableBlock(1, compressed(t, alg, rows+"half"+endMark)), ErrIncomplete, "without an end"},
			"empty":                 {one, nil, ErrIncomplete, "no block"},
			"a byte":                {one, []byte{typeTable}, ErrIncomplete, ""},
			"no block":              {one, []byte("no block"), ErrFormat, "orders"},
			"of another table":      {one, tableBlock(7, whole), ErrFormat, "dump ID 7"},
			"of large objects":      {one, blobsBlock(1, compressed(t, alg, "x")), ErrFormat, "dump ID 1"},
			"followed by another":   {one, append(tableBlock(1, whole), tableBlock(1, whole)...), ErrFormat, "another block"},
			"followed by a byte":    {one, append(tableBlock(1, whole), typeBlobs), ErrIncomplete, ""},
			"objects cut":           {two, blobsBlock(2, object, object)[:len(object)+100], ErrIncomplete, "objects"},
			"objects without end":   {two, blobsBlock(2, object)[:len(blobsBlock(2, object))-intLen], ErrIncomplete, ""},
			"a table for objects":   {two, tableBlock(2, whole), ErrFormat, "objects"},
			"two blocks of objects": {two, append(blobsBlock(2), blobsBlock(2, object)...), ErrFormat, "another block"},
		} {
			if _, err := i.Inspect(bytes.NewReader(tc.block), &tc.e, 100, nil); !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s, %s: %v, want %v with %q", alg, name, err, tc.kind, tc.want)
			}
			source := io.MultiReader(bytes.NewReader(tableBlock(1, whole)[:len(whole)/2]), iotest.ErrReader(broken))
			if _, err := i.Inspect(source, &one, 100, nil); err != broken { //nolint:errorlint // unchanged
				t.Errorf("%s: an error of the source came as %v", alg, err)
			}
			b, err := i.Inspect(bytes.NewReader(good), &one, 100, nil)
			if err != nil || b.Content != plainContent([]byte("row\n"+endMark)) {
				t.Errorf("%s: the block after %q: %v, %+v", alg, name, err, b)
			}
		}
	}
}
