package storagetest

import (
	"bytes"
	"errors"
	"reflect"

	"github.com/pgstow/pgstow/storage"
)

func lifecycleChecks() []check {
	return []check{
		{"lifecycle/round trip", lifecycleRoundTrip},
		{"lifecycle/as they came", lifecycleAsTheyCame},
		{"lifecycle/changed between", lifecycleChanged},
	}
}

// rules reads the lifecycle document, or asserts that there is none to be read.
func (c *suite) rules() (l storage.Lifecycle, ok bool) {
	c.Helper()
	l, err := storage.ReadLifecycle(c.ctx, c.bucket)
	if !c.h.Lifecycle {
		if !errors.Is(err, errors.ErrUnsupported) {
			c.Errorf("lifecycle rules of a store without any: %+v, %v, expected ErrUnsupported", l, err)
		}
		if err := storage.WriteLifecycle(c.ctx, c.bucket, l); !errors.Is(err, errors.ErrUnsupported) {
			c.Errorf("write lifecycle rules of a store without any: %v, expected ErrUnsupported", err)
		}
		return l, false
	}
	if err != nil {
		c.Fatalf("read lifecycle rules: %v", err)
	}
	if l.Prefix != c.prefix {
		c.Errorf("the rules are said to be seen from prefix %q, expected %q", l.Prefix, c.prefix)
	}
	return l, true
}

// write writes rules over the document that l was read from.
func (c *suite) writeRules(l storage.Lifecycle, rules ...storage.LifecycleRule) {
	c.Helper()
	l.Rules = rules
	if err := storage.WriteLifecycle(c.ctx, c.bucket, l); err != nil {
		c.Fatalf("write %d lifecycle rules: %v", len(rules), err)
	}
}

// expires is a rule that every store with rules can have.
func (c *suite) expires(id string, days int) storage.LifecycleRule {
	r := storage.LifecycleRule{
		Filter:  storage.LifecycleFilter{Prefixes: []string{c.prefix + id + "/"}},
		Actions: []storage.LifecycleAction{{Kind: storage.LifecycleExpire, Days: days, Clock: storage.LifecycleSinceCreation}},
	}
	if f, _ := storage.LifecycleFeaturesOf(c.bucket); f.IDs {
		r.ID = id
	}
	return r
}

// says compares rules without the store's own words for them.
func (c *suite) says(l storage.Lifecycle, want ...storage.LifecycleRule) {
	c.Helper()
	if len(l.Rules) != len(want) {
		c.Fatalf("the rules are %+v, expected %d", l.Rules, len(want))
	}
	for i, r := range l.Rules {
		if len(r.Raw) == 0 {
			c.Errorf("rule %d has no Raw", i)
		}
		r.Raw, want[i].Raw = nil, nil
		if !reflect.DeepEqual(r, want[i]) {
			c.Errorf("rule %d is %+v, expected %+v", i, r, want[i])
		}
	}
}

// lifecycleRoundTrip: none, two, none; each time what was written is read.
func lifecycleRoundTrip(c *suite) {
	l, ok := c.rules()
	if !ok {
		return
	}
	c.says(l)
	c.writeRules(l) // nothing over nothing
	one, two := c.expires("one & <only>", 40), c.expires("two", 50)
	l, _ = c.rules()
	c.writeRules(l, one, two)
	l, _ = c.rules()
	c.says(l, one, two)
	c.writeRules(l)
	l, _ = c.rules()
	c.says(l)
}

// lifecycleAsTheyCame: Raw is what is written, byte for byte.
func lifecycleAsTheyCame(c *suite) {
	l, ok := c.rules()
	if !ok {
		return
	}
	c.writeRules(l, c.expires("one", 40), c.expires("two", 50))
	before, _ := c.rules()
	kept := before.Rules[1]
	misread := kept
	misread.Actions, misread.Unknown = nil, []string{"something"} // Raw counts, not what was understood of it
	c.writeRules(before, misread, c.expires("three", 60))
	after, _ := c.rules()
	if len(after.Rules) != 2 || !bytes.Equal(after.Rules[0].Raw, kept.Raw) {
		c.Fatalf("the rule %s was written back, there are %+v", kept.Raw, after.Rules)
	}
	c.says(after, kept, c.expires("three", 60))
	c.writeRules(after)
}

// lifecycleChanged: a document that somebody changed meanwhile stays as it is.
func lifecycleChanged(c *suite) {
	mine, ok := c.rules()
	if !ok {
		return
	}
	c.writeRules(mine, c.expires("theirs", 40))
	mine.Rules = []storage.LifecycleRule{c.expires("mine", 50)}
	err := storage.WriteLifecycle(c.ctx, c.bucket, mine)
	if !errors.Is(err, storage.ErrChanged) {
		c.Errorf("write over a changed document: %v, expected ErrChanged", err)
	}
	l, _ := c.rules()
	c.says(l, c.expires("theirs", 40))
	c.writeRules(l)
}
