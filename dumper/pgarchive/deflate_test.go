package pgarchive

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/klauspost/compress/flate"
)

// vocabulary is what rows are made of: words, of which few are frequent.
func vocabulary(rng *rand.Rand) []string {
	words := make([]string, 20_000)
	for i := range words {
		word := make([]byte, 2+rng.IntN(9))
		for j := range word {
			word[j] = "etaoinshrdlucmfwypvbgkjqxz"[int(rng.Float64()*rng.Float64()*26)]
		}
		words[i] = string(word)
	}
	return words
}

// scattered are rows that repeat no more than single words, repeating are made of the
// beginnings of a hundred sentences, of which a longer search finds a longer one.
func scattered(rng *rand.Rand, words []string, size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "%d", i)
		for range 60 {
			r := rng.Float64()
			b.WriteByte('\t')
			b.WriteString(words[int(r*r*r*float64(len(words)))])
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func repeating(rng *rand.Rand, words []string, size int) string {
	sentences := make([]string, 100)
	for i := range sentences {
		var s []string
		for range 5 + rng.IntN(20) {
			s = append(s, words[rng.IntN(len(words))])
		}
		sentences[i] = strings.Join(s, " ")
	}
	var b strings.Builder
	for b.Len() < size {
		for range 8 {
			piece := sentences[rng.IntN(len(sentences))]
			b.WriteString(piece[:1+rng.IntN(len(piece))])
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// single is the size of a text by one level alone, segment by segment.
func single(t *testing.T, text string, level int) int {
	w, err := flate.NewWriter(io.Discard, level)
	if err != nil {
		t.Fatal(err)
	}
	var n counter
	for at := 0; at < len(text); at += segmentSize {
		s := &segment{buf: []byte(text[max(0, at-dictSize):min(len(text), at+segmentSize)]), dict: min(at, dictSize)}
		if err := deflate(w, &n, s); err != nil {
			t.Fatal(err)
		}
	}
	return int(n)
}

// The default level takes the quicker encoder where that costs nothing, and not where it
// does; what comes out is the same however many work on it.
func TestDeflateTrials(t *testing.T) {
	const size = 24 << 20
	for _, c := range []struct {
		name  string
		make  func(*rand.Rand, []string, int) string
		rival bool
	}{
		{"scattered", scattered, true}, {"repeating", repeating, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(3, 4))
			text := c.make(rng, vocabulary(rng), size)
			usual, rivals := single(t, text, defaultGzip), single(t, text, rivalLevel)
			if wins := rivals <= usual+usual/trialMargin; wins != c.rival {
				t.Fatalf("the data are of the wrong kind: %d bytes, the rival's are %d", usual, rivals)
			}
			archive := testArchive(t, []string{text})
			p, packed := mustPack(t, archive, PackOptions{Compression: Compression{Algorithm: "gzip"}, Workers: 1, Verify: true})
			sameContent(t, packed, archive)
			_, others := mustPack(t, archive, PackOptions{Compression: Compression{Algorithm: "gzip"}, Workers: 5})
			if !bytes.Equal(packed, others) {
				t.Error("one worker and five write different bytes")
			}
			// The first twelve segments are the usual encoder's, and so are all if it wins.
			stored := int(p.Blocks()[0].Payload)
			want := usual
			if c.rival {
				first := text[:trialUsed*segmentSize]
				want = single(t, first, defaultGzip) + rivals - single(t, first, rivalLevel)
			}
			if got := stored - len(zlibHeader) - len(lastStored) - 4; got < want-64 || got > want+64 {
				t.Errorf("stored are %d bytes, want %d; the usual encoder makes %d of it, the rival %d", got, want, usual, rivals)
			}
		})
	}
}

// A verdict is that of the trial eight segments before, and every stream begins without one.
func TestTrials(t *testing.T) {
	var all []*segment
	for range 2 {
		var of trials
		for range 40 {
			s := &segment{}
			of.assign(s)
			all = append(all, s)
		}
	}
	for i, s := range all {
		n := i % 40
		if (s.trial != nil) != (n == 4 || n == 20 || n == 36) {
			t.Errorf("segment %d: trial %v", i, s.trial != nil)
		}
		var want *trial
		switch {
		case n >= 28:
			want = all[i-n+20].trial
		case n >= 12:
			want = all[i-n+4].trial
		}
		if s.verdict != want {
			t.Errorf("segment %d has another verdict", i)
		}
	}
}

// A trial whose compression fails holds up nobody.
func TestDeflateTrialFails(t *testing.T) {
	d, err := newDeflater(defaultGzip)
	if err != nil {
		t.Fatal(err)
	}
	d.rival = &flate.Writer{} // panics when used
	s := &segment{buf: []byte("text"), trial: &trial{done: make(chan struct{})}}
	func() {
		defer func() { _ = recover() }()
		_ = d.encode(s)
	}()
	later := &segment{buf: []byte("more"), verdict: s.trial}
	if later.verdict.rivalWins() {
		t.Error("the trial was won")
	}
}
