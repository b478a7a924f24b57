package archiver

import (
	"sync"
	"time"

	"github.com/pgstow/pgstow/dumper/pgarchive"
	"github.com/pgstow/pgstow/storage"
)

// Phase is what a use case is doing.
type Phase string

// Phases, in the order in which they come.
const (
	PhasePreflight   Phase = "preflight"
	PhaseIndex       Phase = "reading through" // an object that has no index
	PhaseOpening     Phase = "opening"         // the upload
	PhaseGlobals     Phase = "globals"         // roles and tablespaces
	PhaseCatalogue   Phase = "catalogue"       // pg_dump reads the catalogue
	PhaseDefinitions Phase = "definitions"     // pg_restore creates what data need
	PhaseData        Phase = "data"            // dump or restore streams
	PhaseComplete    Phase = "completing"      // the store joins the parts
	PhaseCommit      Phase = "commit"          // read back, index, manifest
	PhaseReadBack    Phase = "reading back"    // a stored dump is verified
	PhaseFinish      Phase = "finishing"       // pg_restore builds indexes and constraints
	PhaseSchema      Phase = "schema"          // a drill compares definitions
	PhaseCompare     Phase = "comparing"       // a drill reads what was restored
	PhaseDrop        Phase = "dropping"        // the scratch database
)

// Progress is the state of a running use case.
type Progress struct {
	Phase Phase
	// Bytes of the dump read so far.
	Bytes int64
	// Acknowledged is how many of them the store has confirmed (archive only).
	Acknowledged int64
	// Total is the dump's size, 0 when unknown. Estimated says that it is a guess.
	Total     int64
	Estimated bool
	// Tables with data, and how many of them are through.
	Tables, TablesDone int
	// Rows loaded by a restore, as far as the bytes of their blocks tell, and all that there
	// are by the index; 0 where nobody counted them.
	Rows, RowsTotal int64
	// Table is the one whose data pass, where they pass one by one.
	Table TableProgress
	// Loading are the tables that a restore's workers are loading.
	Loading []TableProgress
	// Share of an archive's data that is through, from 0 to 1 by the source's
	// own estimates; 0 while it is not known.
	Share float64
}

// progressEvery is the least time between two reports of the same phase.
const progressEvery = 100 * time.Millisecond

// tracker joins what reader and upload report into one Progress. A nil sink
// makes it do nothing.
type tracker struct {
	mu    sync.Mutex
	state Progress
	sink  func(Progress)
	last  time.Time
}

func newTracker(sink func(Progress)) *tracker { return &tracker{sink: sink} }

func (t *tracker) phase(p Phase) { t.update(true, func(s *Progress) { s.Phase = p }) }

func (t *tracker) total(n int64, estimated bool) {
	t.update(false, func(s *Progress) { s.Total, s.Estimated = n, estimated })
}

// restart begins to count the bytes anew, for a second reading.
func (t *tracker) restart(total int64) {
	t.update(true, func(s *Progress) { s.Bytes, s.Total = 0, total })
}

func (t *tracker) tables(done, of int) {
	t.update(false, func(s *Progress) { s.TablesDone, s.Tables = done, of })
}

// table follows the data blocks of a dump; m may be nil.
func (t *tracker) table(m *tableMeter, now pgarchive.Passing) {
	if m == nil {
		return
	}
	t.update(false, func(s *Progress) {
		s.Table, s.TablesDone, s.Share = m.at(now)
		s.Tables = len(m.blocks)
	})
}

func (t *tracker) read(n int) { t.update(false, func(s *Progress) { s.Bytes += int64(n) }) }

// put is the progress of the dump's upload.
func (t *tracker) put(p storage.Progress) {
	t.update(p.Completing, func(s *Progress) {
		s.Acknowledged = p.Acknowledged
		if p.Completing {
			s.Phase = PhaseComplete
		}
	})
}

func (t *tracker) update(now bool, change func(*Progress)) {
	if t.sink == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	change(&t.state)
	if !now && time.Since(t.last) < progressEvery {
		return
	}
	t.last = time.Now()
	t.sink(t.state)
}
