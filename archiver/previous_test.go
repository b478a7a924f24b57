package archiver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgstow/pgstow/internal/testenv"
	"github.com/pgstow/pgstow/storage"
	"github.com/pgstow/pgstow/storage/storagetest"
)

// chainBucket is a bucket whose objects have the times that their archives ought
// to have, and that counts the manifests that are read.
type chainBucket struct {
	*storagetest.Memory
	committed map[string]time.Time // by manifest key
	opened    []string
	deny      string // "list" or "open"
}

func newChain() *chainBucket {
	return &chainBucket{Memory: storagetest.NewMemory(storagetest.MemoryOptions{}), committed: map[string]time.Time{}}
}

func (c *chainBucket) List(ctx context.Context, opts storage.ListOptions) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		if c.deny == "list" {
			yield(storage.Object{}, &storage.Error{Op: "list", Kind: storage.ErrPermission})
			return
		}
		for o, err := range c.Memory.List(ctx, opts) {
			if d, _, ok := ParseKey(o.Key); ok {
				o.Created = c.committed[d.Key(ManifestName)]
			}
			if !yield(o, err) {
				return
			}
		}
	}
}

func (c *chainBucket) Open(ctx context.Context, key string, opts storage.OpenOptions) (io.ReadCloser, error) {
	if c.deny == "open" {
		return nil, &storage.Error{Op: "open", Key: key, Kind: storage.ErrPermission}
	}
	c.opened = append(c.opened, key)
	return c.Memory.Open(ctx, key, opts)
}

// run is one archive that is kept for so many days, seen from its beginning to
// its end. change may alter its manifest.
func (c *chainBucket) run(t testing.TB, id string, began, ended time.Time, days int, previous *Previous) {
	t.Helper()
	d := Dir{Policy: fmt.Sprintf("keep-%d", days), Label: "orders", Time: began, ID: id}
	m := fakeManifest(d, "1")
	m.Finished, m.Previous = ended, previous
	if days > 0 {
		m.Kept = &Kept{Policy: Policy{Keep: Period{Days: days}}, KeepUntil: ended.AddDate(0, 0, days)}
	}
	raw, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	put(t, c.Memory, d.Key(DumpName), "dump")
	put(t, c.Memory, m.Key, string(raw))
	c.committed[m.Key] = ended
}

// previous is what an archive at this time would name.
func (c *chainBucket) previous(t testing.TB, now time.Time) *Previous {
	t.Helper()
	c.opened = nil
	p, err := readPrevious(t.Context(), c, "orders", "", now)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (c *chainBucket) entries(t testing.TB) []Entry {
	t.Helper()
	all := listed(t, c)
	if err := LoadManifests(t.Context(), c, all); err != nil {
		t.Fatal(err)
	}
	return all
}

func namedIDs(p *Previous) (ids []string) {
	for _, a := range p.Archives {
		ids = append(ids, a.ID)
	}
	slices.Sort(ids)
	return ids
}

func chainID(i int) string {
	const digits = "0123456789abcdefghjkmnpqrstvwxyz"
	return "a00000" + string(digits[i/32]) + string(digits[i%32])
}

// Night after night: each archive names the one before and reads its manifest
// alone, however many there are.
func TestPreviousIsTheLastOne(t *testing.T) {
	c := newChain()
	night := timeOf(t, "2026-01-01T01:00:00Z")
	for i := range 100 {
		p := c.previous(t, night)
		want := []string{}
		if i > 0 {
			want = []string{chainID(i - 1)}
		}
		if p.Unreadable || !slices.Equal(namedIDs(p), want) && len(namedIDs(p))+len(want) > 0 {
			t.Fatalf("night %d names %v", i, namedIDs(p))
		}
		if len(c.opened) > 1 {
			t.Fatalf("night %d reads %v", i, c.opened)
		}
		c.run(t, chainID(i), night, night.Add(time.Hour/2), 365, p)
		night = night.AddDate(0, 0, 1)
	}
	if f := ChainFaults(c.entries(t), night); len(f) > 0 {
		t.Errorf("%+v", f)
	}
}

// Whatever began before another one was committed is a head beside it, and the
// next one names both; hourly ones are told apart, too.
func TestPreviousOfOverlappingRuns(t *testing.T) {
	c := newChain()
	at := func(hours int) time.Time {
		return timeOf(t, "2026-01-01T00:00:00Z").Add(time.Duration(hours) * time.Hour)
	}
	c.run(t, "a0000001", at(0), at(1), 365, c.previous(t, at(1)))
	both := c.previous(t, at(8)) // both looked before either was there
	c.run(t, "a0000002", at(2), at(9), 365, both)
	c.run(t, "a0000003", at(7), at(8), 365, both)
	c.run(t, "a0000004", at(8), at(12), 365, c.previous(t, at(8)))
	if p := c.previous(t, at(30)); !slices.Equal(namedIDs(p), []string{"a0000004"}) {
		t.Errorf("after all: %v", namedIDs(p))
	}
	var fourth Entry
	for _, e := range c.entries(t) {
		if e.ID == "a0000004" {
			fourth = e
		}
	}
	if got := namedIDs(fourth.Manifest.Previous); !slices.Equal(got, []string{"a0000002", "a0000003"}) {
		t.Errorf("the fourth names %v", got)
	}
	for i := range 10 {
		c.run(t, chainID(32+i), at(40+i), at(40+i).Add(10*time.Minute), 365, c.previous(t, at(40+i)))
		if len(c.opened) > 3 {
			t.Errorf("hour %d reads %v", i, c.opened)
		}
	}
	if p := c.previous(t, at(60)); !slices.Equal(namedIDs(p), []string{chainID(41)}) {
		t.Errorf("hourly: %v", namedIDs(p))
	}
}

// Archives of before there was a chain, those whose makers could not see, and
// those whose manifest is damaged name nobody and are named all the same.
func TestPreviousOfWhatNamesNobody(t *testing.T) {
	c := newChain()
	night := timeOf(t, "2026-01-01T01:00:00Z")
	for i := range 30 {
		c.run(t, chainID(i), night.AddDate(0, 0, i), night.AddDate(0, 0, i).Add(time.Hour/2), 365, nil)
	}
	p := c.previous(t, night.AddDate(0, 0, 30))
	if len(p.Archives) != maxHeads || len(c.opened) != maxHeads || !slices.Contains(namedIDs(p), chainID(29)) || slices.Contains(namedIDs(p), chainID(0)) {
		t.Errorf("%v; read %d", namedIDs(p), len(c.opened))
	}
	c.run(t, chainID(30), night.AddDate(0, 0, 30), night.AddDate(0, 0, 30).Add(time.Hour/2), 365, p)
	c.run(t, chainID(31), night.AddDate(0, 0, 31), night.AddDate(0, 0, 31).Add(time.Hour/2), 365, &Previous{Unreadable: true})
	if got := namedIDs(c.previous(t, night.AddDate(0, 0, 32))); !slices.Equal(got, []string{chainID(30), chainID(31)}) {
		t.Errorf("after one that could not see: %v", got)
	}
	d := Dir{Policy: "x", Label: "orders", Time: night.AddDate(0, 0, 33), ID: "b0000001"}
	put(t, c.Memory, d.Key(ManifestName), "{")
	c.committed[d.Key(ManifestName)] = d.Time
	if got := namedIDs(c.previous(t, night.AddDate(0, 0, 34))); !slices.Equal(got, []string{chainID(30), chainID(31), "b0000001"}) {
		t.Errorf("after a damaged one: %v", got)
	}
}

// The name of one that is kept for years is passed on by those that are not, as
// long as it is promised to be there: it is missed whatever has expired.
func TestPreviousIsPassedOn(t *testing.T) {
	c := newChain()
	first := timeOf(t, "2026-01-01T01:00:00Z")
	day := func(i int) time.Time { return first.AddDate(0, 0, i) }
	c.run(t, "b0000001", day(0), day(0).Add(time.Minute), 2555, c.previous(t, day(0)))
	for i := 1; i < 90; i++ {
		c.run(t, chainID(i), day(i), day(i).Add(time.Minute), 30, c.previous(t, day(i)))
	}
	all := c.entries(t)
	if got := namedIDs(all[89].Manifest.Previous); !slices.Equal(got, []string{chainID(88), "b0000001"}) {
		t.Fatalf("the last names %v", got)
	}
	// 58 have expired, in order; then somebody takes the first away.
	left := all[59:]
	faults := ChainFaults(left, day(90))
	if len(faults) != 1 || faults[0].Kind != ChainVanished || faults[0].ID != "b0000001" || faults[0].Label != "orders" || len(faults[0].NamedBy) != 31 {
		t.Errorf("%+v", faults)
	}
	if faults := ChainFaults(append([]Entry{all[0]}, left...), day(90)); len(faults) > 0 {
		t.Errorf("only the expired ones are gone: %+v", faults)
	}
	if faults := ChainFaults(left, day(3000)); len(faults) > 0 {
		t.Errorf("all promises are over: %+v", faults)
	}
	// One without any promise passes it on, too.
	c.run(t, "b0000002", day(91), day(91).Add(time.Minute), 0, c.previous(t, day(91)))
	if got := namedIDs(c.previous(t, day(92))); !slices.Contains(got, "b0000001") || !slices.Contains(got, "b0000002") {
		t.Errorf("after one without a promise: %v", got)
	}
	// What is kept for longer than the first outlives it: no need.
	c.run(t, "b0000003", day(93), day(93).Add(time.Minute), 5000, c.previous(t, day(93)))
	if got := namedIDs(c.previous(t, day(94))); !slices.Equal(got, []string{"b0000003"}) {
		t.Errorf("after one that outlives it: %v", got)
	}
}

// A list has its bound, and what is kept longest stays in it.
func TestPreviousIsBounded(t *testing.T) {
	now := timeOf(t, "2026-01-01T00:00:00Z")
	var many Previous
	for i := range 400 {
		many.Archives = append(many.Archives, Predecessor{ID: fmt.Sprintf("c%07d", i), SHA256: strings.Repeat("a", 64), KeepUntil: now.AddDate(0, 0, 100+i)})
	}
	c := newChain()
	c.run(t, "a0000001", now, now, 1, &many)
	p := c.previous(t, now)
	if len(p.Archives) != maxPrevious || p.Archives[0].ID != "c0000399" {
		t.Errorf("%d, the first is %+v", len(p.Archives), p.Archives[0])
	}
}

func TestChainFaults(t *testing.T) {
	c := newChain()
	day := func(i int) time.Time { return timeOf(t, "2026-01-01T00:00:00Z").AddDate(0, 0, i) }
	for i := range 4 {
		c.run(t, chainID(i), day(i), day(i), 30, c.previous(t, day(i)))
	}
	all := c.entries(t)
	without := func(i int) []Entry { return slices.Delete(slices.Clone(all), i, i+1) }
	for i, want := range []int{1, 1, 1, 0} { // nobody names the last one
		f := ChainFaults(without(i), day(5))
		if len(f) != want || want == 1 && (f[0].Kind != ChainVanished || f[0].ID != chainID(i) || !slices.Equal(f[0].NamedBy, []string{chainID(i + 1)})) {
			t.Errorf("without %d: %+v", i, f)
		}
	}
	other := slices.Clone(all)
	other[1].ManifestSHA256 = strings.Repeat("b", 64)
	if f := ChainFaults(other, day(500)); len(f) != 1 || f[0].Kind != ChainReplaced || f[0].Found != other[1].ManifestSHA256 || f[0].SHA256 != all[1].ManifestSHA256 {
		t.Errorf("replaced: %+v", f)
	}
	other[1].ManifestSHA256 = "" // it could not be read: that is told elsewhere
	if f := ChainFaults(other, day(5)); len(f) > 0 {
		t.Errorf("unreadable: %+v", f)
	}
	liar := without(1)
	for _, s := range []struct {
		state string
		want  int
	}{{SignatureInvalid, 0}, {SignatureUntrusted, 0}, {SignatureUnsigned, 1}, {SignatureValid, 1}} {
		liar[1].Signature = &Signature{State: s.state}
		if f := ChainFaults(liar, day(5)); len(f) != s.want {
			t.Errorf("accused by one that is %s: %+v", s.state, f)
		}
	}
}

func TestPreviousJSON(t *testing.T) {
	for _, c := range []struct {
		p    Previous
		text string
	}{
		{Previous{}, `[]`}, {Previous{Unreadable: true}, `"unreadable"`},
		{Previous{Archives: []Predecessor{{ID: "a0000001", SHA256: "ab"}}}, `[{"id":"a0000001","sha256":"ab"}]`},
	} {
		raw, err := json.Marshal(c.p)
		var back Previous
		if err != nil || string(raw) != c.text || json.Unmarshal(raw, &back) != nil || back.Unreadable != c.p.Unreadable || len(back.Archives) != len(c.p.Archives) {
			t.Errorf("%+v is %s, %v; back %+v", c.p, raw, err, back)
		}
	}
	for _, text := range []string{`"later"`, `7`, `{}`, `[7]`} {
		if err := json.Unmarshal([]byte(text), new(Previous)); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}

// Credentials that only write make archives that say so; a store that fails to
// list costs no archive, and is told.
func TestArchiveCannotLookBack(t *testing.T) {
	pg := testenv.Postgres(t)
	db := smallSource(t, pg)
	for name, c := range map[string]struct {
		deny  string
		fails bool
	}{"no listing": {"list", false}, "no reading": {"open", false}, "a failing store": {"", true}} {
		t.Run(name, func(t *testing.T) {
			inner := newChain()
			earlier := archived(t, pg, db, inner.Memory)
			inner.deny = c.deny
			var b storage.Bucket = inner
			if c.fails {
				b = hooked{inner.Memory, func(op, key string) error {
					if op == "list" {
						return &storage.Error{Op: op, Kind: storage.ErrUnavailable, Err: errors.New("down")}
					}
					return nil
				}}
			}
			res := archived(t, pg, db, b)
			if p := res.Manifest.Previous; p == nil || !p.Unreadable {
				t.Errorf("%+v", p)
			}
			warned := slices.ContainsFunc(res.Warnings, func(w string) bool { return strings.Contains(w, "archives before this one") })
			if warned != c.fails {
				t.Errorf("warnings %q", res.Warnings)
			}
			validate(t, content(t, inner.Memory)[res.Manifest.Key])
			next := archived(t, pg, db, inner.Memory)
			want := []string{earlier.Manifest.ID, res.Manifest.ID}
			slices.Sort(want)
			if got := namedIDs(next.Manifest.Previous); !slices.Equal(got, want) {
				t.Errorf("the next one names %v, want %v", got, want)
			}
			validate(t, content(t, inner.Memory)[next.Manifest.Key])
		})
	}
}
