package archiver

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// CheckpointFormat is the "format" of the checkpoints this version writes, and
// the newest it reads.
const (
	CheckpointFormat = "pgstow-checkpoint/1"
	checkpointName   = "pgstow-checkpoint/"
	checkpointMajor  = 1
)

// AuditHead is the newest archive of a label, as an audit has left it: what the
// next one must find again. That the newest archives have vanished shows in no
// other archive.
type AuditHead struct {
	Label          string    `json:"label"`
	ID             string    `json:"id"`
	Key            string    `json:"key"`
	ManifestSHA256 string    `json:"manifest_sha256"`
	KeepUntil      time.Time `json:"keep_until,omitzero"`
	// Missing is when an audit first found it gone before its time: it is told
	// of until that has come.
	Missing time.Time `json:"missing,omitzero"`
}

// Checkpoint is the file that carries heads from one audit to the next. It
// belongs elsewhere than the bucket: who can delete archives there must not be
// able to delete it.
type Checkpoint struct {
	Format string    `json:"format"`
	Time   time.Time `json:"time"` // of the last audit
	// Buckets holds the heads of each place.
	Buckets map[string][]AuditHead `json:"buckets"`
}

// DecodeCheckpoint reads what Encode wrote. Errors are ErrIntegrity, or
// ErrFormat for one that a newer version has written.
func DecodeCheckpoint(raw []byte) (*Checkpoint, error) {
	if err := checkFormat(raw, checkpointName, checkpointMajor); err != nil {
		return nil, err
	}
	c := new(Checkpoint)
	if err := json.Unmarshal(raw, c); err != nil {
		return nil, integrity("a field has the wrong type: %w", err)
	}
	for place, heads := range c.Buckets {
		for _, h := range heads {
			if CheckLabel(h.Label) != nil || !ValidID(h.ID) {
				return nil, integrity("%s: %q of %q is no archive", place, h.ID, h.Label)
			}
		}
	}
	return c, nil
}

// Encode is the checkpoint as it is stored.
func (c *Checkpoint) Encode() ([]byte, error) {
	c.Format = CheckpointFormat
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(c); err != nil {
		return nil, fmt.Errorf("encode checkpoint: %w", err)
	}
	return b.Bytes(), nil
}

// head files the label's newest readable archive for the next audit.
func (l *labelAudit) head() {
	for _, a := range slices.Backward(l.archives) {
		if a.readable() {
			l.res.Heads = append(l.res.Heads, AuditHead{Label: a.label, ID: a.ID, Key: a.Key, ManifestSHA256: a.ManifestSHA256, KeepUntil: a.KeepUntil})
			return
		}
	}
}

// checkpoint looks for the heads of the last audit. One that vanished before its
// time stays a violation, and a head, until that time has come.
func (x *auditing) checkpoint() {
	there := map[string]*AuditedArchive{}
	for i := range x.res.Databases {
		for j := range x.res.Databases[i].Archives {
			a := &x.res.Databases[i].Archives[j]
			there[a.ID] = a
		}
	}
	for _, h := range x.opts.Heads {
		if x.opts.Name != "" && h.Label != x.opts.Name {
			x.res.Heads = append(x.res.Heads, h) // not looked at
			continue
		}
		f := AuditFinding{Severity: SeverityViolation, Check: CheckCheckpoint, Label: h.Label, Archive: h.ID, Time: dirTime(h.Key)}
		a := there[h.ID]
		switch {
		case a == nil && h.KeepUntil.IsZero():
			f.Severity, f.Text = SeverityNotice, "the newest archive of the last audit is gone; its policy promised no keep"
			f.Do = "find out who deleted it"
			x.find(f)
			continue
		case a == nil && !h.KeepUntil.After(x.now):
			continue
		case a == nil:
			f.Text = "the newest archive of the last audit is gone, and was to be kept until " + h.KeepUntil.Format(time.DateOnly)
			f.Do = "find out who deleted it; in a versioned bucket look for its versions and delete markers"
		case a.ManifestSHA256 != h.ManifestSHA256:
			f.Text = "its manifest is not the one of the last audit: SHA-256 " + cmp.Or(a.ManifestSHA256, "unknown") + ", it was " + h.ManifestSHA256
			f.Do = "find out who replaced it; do not rely on it"
		default:
			continue
		}
		if h.Missing.IsZero() {
			h.Missing = x.now
		}
		x.res.Heads = append(x.res.Heads, h)
		x.find(f)
	}
	slices.SortStableFunc(x.res.Heads, func(a, b AuditHead) int { return cmp.Or(cmp.Compare(a.Label, b.Label), cmp.Compare(a.Key, b.Key)) })
}

// dirTime is when the archive with this key was begun.
func dirTime(key string) time.Time {
	dir, _, _ := ParseKey(key + ManifestName)
	return dir.Time
}
