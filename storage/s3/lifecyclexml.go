package s3

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgstow/pgstow/storage"
)

const lifecycleRoot = `<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">`

// splitLifecycle cuts a document into its rules, byte for byte. No document is
// an empty one.
func splitLifecycle(raw []byte) (lifecycleDoc, error) {
	doc := lifecycleDoc{start: []byte(lifecycleRoot)}
	if len(bytes.TrimSpace(raw)) == 0 {
		return doc, nil
	}
	doc.exists = true
	broken := func(why string) (lifecycleDoc, error) {
		return lifecycleDoc{}, fmt.Errorf("the store's lifecycle document cannot be taken apart, so it is not touched: %s", why)
	}
	d := xml.NewDecoder(bytes.NewReader(raw))
	depth, from := 0, int64(0) // from: where the element at depth 1 began
	for {
		at := d.InputOffset()
		token, err := d.Token()
		if err == io.EOF {
			return doc, nil
		}
		if err != nil {
			return broken(err.Error())
		}
		text := raw[at:d.InputOffset()]
		switch t := token.(type) {
		case xml.StartElement:
			switch depth {
			case 0:
				// Another name, or a namespace prefix, and our rules would not
				// be rules in it.
				if !bytes.HasPrefix(text, []byte("<LifecycleConfiguration")) {
					return broken(fmt.Sprintf("it is a %.60q", text))
				}
				if !bytes.HasSuffix(text, []byte("/>")) {
					doc.start = bytes.Clone(text)
				}
			case 1:
				from = at
			}
			depth++
		case xml.EndElement:
			if depth--; depth == 1 {
				whole := raw[from:d.InputOffset()]
				if t.Name.Local == "Rule" {
					doc.rules = append(doc.rules, bytes.Clone(whole))
				} else {
					doc.others = append(doc.others, whole...)
				}
			}
		default:
			if depth == 1 && len(bytes.TrimSpace(text)) > 0 {
				doc.others = append(doc.others, text...)
			}
		}
	}
}

// element is one XML element, with everything in it.
type element struct {
	XMLName  xml.Name
	Text     string    `xml:",chardata"`
	Children []element `xml:",any"`
}

// ruleParser reads a rule and notes what it does not know.
type ruleParser struct {
	rule storage.LifecycleRule
	err  error
}

// parseRule reads what a rule says.
func parseRule(raw []byte) (storage.LifecycleRule, error) {
	var e element
	if err := xml.Unmarshal(raw, &e); err != nil {
		return storage.LifecycleRule{}, fmt.Errorf("a lifecycle rule cannot be read: %w", err)
	}
	p := ruleParser{rule: storage.LifecycleRule{Raw: raw}}
	p.each(e, "", map[string]func(element){
		"ID":     func(e element) { p.rule.ID = e.text() },
		"Status": func(e element) { p.rule.Disabled = e.text() != "Enabled" },
		"Prefix": p.prefix,
		"Filter": p.filter,
		"Expiration": func(e element) {
			a := p.action(e, storage.LifecycleExpire, storage.LifecycleSinceCreation)
			if e.child("ExpiredObjectDeleteMarker") == "true" {
				a = storage.LifecycleAction{Kind: storage.LifecycleExpireMarkers}
			}
			p.add(a)
		},
		"Transition": func(e element) {
			p.add(p.action(e, storage.LifecycleTransition, storage.LifecycleSinceCreation))
		},
		"NoncurrentVersionExpiration": func(e element) {
			p.add(p.action(e, storage.LifecycleExpireNoncurrent, storage.LifecycleSinceNoncurrent))
		},
		"NoncurrentVersionTransition": func(e element) {
			p.add(p.action(e, storage.LifecycleTransitionNoncurrent, storage.LifecycleSinceNoncurrent))
		},
		"AbortIncompleteMultipartUpload": func(e element) {
			p.add(p.action(e, storage.LifecycleAbortUploads, storage.LifecycleSinceCreation))
		},
	})
	if p.err != nil {
		return storage.LifecycleRule{}, fmt.Errorf("lifecycle rule %q: %w", p.rule.ID, p.err)
	}
	return p.rule, nil
}

func (e element) text() string { return strings.TrimSpace(e.Text) }

func (e element) child(name string) string {
	for _, c := range e.Children {
		if c.XMLName.Local == name {
			return c.text()
		}
	}
	return ""
}

func (p *ruleParser) each(e element, path string, known map[string]func(element)) {
	for _, c := range e.Children {
		if read := known[c.XMLName.Local]; read != nil {
			read(c)
		} else {
			p.rule.Unknown = append(p.rule.Unknown, path+c.XMLName.Local)
		}
	}
}

func (p *ruleParser) add(a storage.LifecycleAction) { p.rule.Actions = append(p.rule.Actions, a) }

// prefix keeps the text as it is: keys may begin or end with spaces.
func (p *ruleParser) prefix(e element) {
	if e.Text != "" {
		p.rule.Filter.Prefixes = []string{e.Text}
	}
}

func (p *ruleParser) filter(e element) {
	known := map[string]func(element){
		"Prefix": p.prefix,
		"Tag": func(e element) {
			if p.rule.Filter.Tags == nil {
				p.rule.Filter.Tags = map[string]string{}
			}
			p.rule.Filter.Tags[e.child("Key")] = e.child("Value")
		},
		"ObjectSizeGreaterThan": func(e element) { p.rule.Filter.LargerThan = int64(p.number(e)) },
		"ObjectSizeLessThan":    func(e element) { p.rule.Filter.SmallerThan = int64(p.number(e)) },
	}
	and := maps.Clone(known)
	known["And"] = func(e element) { p.each(e, "Filter/And/", and) }
	p.each(e, "Filter/", known)
}

func (p *ruleParser) action(e element, kind storage.LifecycleKind, clock storage.LifecycleClock) storage.LifecycleAction {
	a := storage.LifecycleAction{Kind: kind, Clock: clock}
	days := func(e element) { a.Days = p.number(e) }
	known := map[string]func(element){
		"Days": days, "NoncurrentDays": days, "DaysAfterInitiation": days,
		"Date": func(e element) {
			at, err := time.Parse(time.RFC3339, e.text())
			p.note(e, err)
			a.Date = at.UTC()
		},
		"StorageClass":              func(e element) { a.Class = e.text() },
		"NewerNoncurrentVersions":   func(e element) { a.NewerVersions = p.number(e) },
		"ExpiredObjectDeleteMarker": func(element) {},
	}
	p.each(e, e.XMLName.Local+"/", known)
	return a
}

func (p *ruleParser) number(e element) int {
	n, err := strconv.Atoi(e.text())
	p.note(e, err)
	return n
}

func (p *ruleParser) note(e element, err error) {
	if err != nil && p.err == nil {
		p.err = fmt.Errorf("%s is %q", e.XMLName.Local, e.text())
	}
}

// What rules of our own are written from.
type (
	ruleXML struct {
		XMLName     xml.Name        `xml:"Rule"`
		ID          string          `xml:"ID"`
		Filter      filterXML       `xml:"Filter"`
		Status      string          `xml:"Status"`
		Transition  []transitionXML `xml:"Transition"`
		Expiration  *expirationXML  `xml:"Expiration"`
		Noncurrent  *noncurrentXML  `xml:"NoncurrentVersionExpiration"`
		Incompletes *incompleteXML  `xml:"AbortIncompleteMultipartUpload"`
	}
	filterXML struct {
		Prefix *string `xml:"Prefix"`
		And    *andXML `xml:"And"`
	}
	andXML struct {
		Prefix string   `xml:"Prefix"`
		Tags   []tagXML `xml:"Tag"`
	}
	tagXML struct {
		Key   string `xml:"Key"`
		Value string `xml:"Value"`
	}
	transitionXML struct {
		Days         int    `xml:"Days"`
		StorageClass string `xml:"StorageClass"`
	}
	expirationXML struct {
		Days   int  `xml:"Days,omitempty"`
		Marker bool `xml:"ExpiredObjectDeleteMarker,omitempty"`
	}
	noncurrentXML struct {
		Days int `xml:"NoncurrentDays"`
	}
	incompleteXML struct {
		Days int `xml:"DaysAfterInitiation"`
	}
)

// encodeRule writes a rule of one prefix. Tags need a prefix beside them: rules
// without one are not ours to write.
func encodeRule(r storage.LifecycleRule) ([]byte, error) {
	f := r.Filter
	if r.ID == "" || len(f.Prefixes) != 1 || f.Prefixes[0] == "" || len(f.Suffixes)+len(f.Classes) > 0 || f.LargerThan != 0 || f.SmallerThan != 0 {
		return nil, fmt.Errorf("rule %q: S3 rules written here have an id, one prefix and tags", r.ID)
	}
	x := ruleXML{ID: r.ID, Status: "Enabled"}
	if r.Disabled {
		x.Status = "Disabled"
	}
	if len(f.Tags) == 0 {
		x.Filter.Prefix = &f.Prefixes[0]
	} else {
		x.Filter.And = &andXML{Prefix: f.Prefixes[0]}
		for _, key := range slices.Sorted(maps.Keys(f.Tags)) {
			x.Filter.And.Tags = append(x.Filter.And.Tags, tagXML{key, f.Tags[key]})
		}
	}
	for _, a := range r.Actions {
		if err := x.add(a); err != nil {
			return nil, fmt.Errorf("rule %q: %w", r.ID, err)
		}
	}
	return xml.Marshal(x)
}

func (x *ruleXML) add(a storage.LifecycleAction) error {
	plain := a == storage.LifecycleAction{Kind: a.Kind, Days: a.Days, Clock: a.Clock, Class: a.Class}
	created := plain && a.Clock == storage.LifecycleSinceCreation
	switch {
	case a.Kind == storage.LifecycleTransition && created:
		x.Transition = append(x.Transition, transitionXML{a.Days, a.Class})
	case a.Kind == storage.LifecycleExpire && created && x.Expiration == nil:
		x.Expiration = &expirationXML{Days: a.Days}
	case a.Kind == storage.LifecycleExpireMarkers && plain && x.Expiration == nil:
		x.Expiration = &expirationXML{Marker: true}
	case a.Kind == storage.LifecycleExpireNoncurrent && plain && a.Clock == storage.LifecycleSinceNoncurrent:
		x.Noncurrent = &noncurrentXML{a.Days}
	case a.Kind == storage.LifecycleAbortUploads && created:
		x.Incompletes = &incompleteXML{a.Days}
	default:
		return errors.New("S3 has no action like " + string(a.Kind) + " since " + string(a.Clock))
	}
	return nil
}
