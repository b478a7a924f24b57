package archiver

import (
	"math"
	"sync"
	"time"
)

// RecordedDrill is what a record keeps of a drill: how much was compared, how long it took,
// and what was left out. It names no tables, which an encrypted archive would not tell.
type RecordedDrill struct {
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	// RestoreSeconds is the time from an empty database to a restored one.
	RestoreSeconds float64      `json:"restore_seconds"`
	Phases         []DrillPhase `json:"phases"`

	ServerVersion string `json:"server_version"` // of the scratch server
	PgRestore     string `json:"pg_restore"`
	Jobs          int    `json:"jobs,omitempty"`
	Bytes         int64  `json:"bytes"` // of the dump read

	// Tables were compared, with so many rows and bytes of COPY text.
	Tables       int   `json:"tables"`
	Rows         int64 `json:"rows"`
	RawBytes     int64 `json:"raw_bytes"`
	Sequences    int   `json:"sequences"`
	LargeObjects int   `json:"large_objects"`
	// Schema is SchemaEqual, SchemaDiffers or SchemaNotCompared, with a note beside it.
	Schema       string `json:"schema"`
	SchemaReason string `json:"schema_reason,omitempty"`

	// Complete says that all rows, sequences, large objects and definitions were restored and
	// compared. NotCompared may have what is beside them, such as owners.
	Complete    bool         `json:"complete"`
	NotCompared []string     `json:"not_compared,omitempty"`
	Part        *DrillPart   `json:"part,omitempty"`   // of chosen tables
	Sample      *DrillSample `json:"sample,omitempty"` // of tables chosen by chance
	// Differing counts what was restored otherwise than archived.
	Differing int `json:"differing,omitempty"`
}

// Values of RecordedDrill.Schema.
const (
	SchemaEqual       = "equal"
	SchemaDiffers     = "differs"
	SchemaNotCompared = "not compared"
)

// DrillPhase is how long something took.
type DrillPhase struct {
	Name    Phase   `json:"name"`
	Seconds float64 `json:"seconds"`
}

// DrillPart says how many of the archive's tables a drill was of.
type DrillPart struct {
	Tables int `json:"tables"`
	Of     int `json:"of"`
}

// DrillSample says which part of an archive a drill by chance was of.
type DrillSample struct {
	Percent int    `json:"percent"`
	Seed    string `json:"seed"`
	Tables  int    `json:"tables"`
	Of      int    `json:"of"`
}

// phaseClock measures phases by what is reported as progress.
type phaseClock struct {
	mu    sync.Mutex
	list  []DrillPhase
	now   Phase
	since time.Time
	first time.Time
	last  time.Time
}

// watch notes the phases that are reported to sink, which may be nil.
func (c *phaseClock) watch(sink func(Progress)) func(Progress) {
	return func(p Progress) {
		c.begin(p.Phase)
		if sink != nil {
			sink(p)
		}
	}
}

func (c *phaseClock) begin(p Phase) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p == c.now {
		return
	}
	c.turn()
	c.now = p
}

func (c *phaseClock) end() { c.begin("") }

// turn adds what has passed to the phase that ends.
func (c *phaseClock) turn() {
	now := time.Now()
	if c.first.IsZero() {
		c.first = now
	}
	took := seconds(now.Sub(c.since))
	c.since, c.last = now, now
	if c.now == "" {
		return
	}
	for i := range c.list {
		if c.list[i].Name == c.now {
			c.list[i].Seconds = math.Round((c.list[i].Seconds+took)*1000) / 1000
			return
		}
	}
	c.list = append(c.list, DrillPhase{c.now, took})
}

func (c *phaseClock) total() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last.Sub(c.first)
}

// seconds has milliseconds, which is what people compare.
func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*1000) / 1000 }
