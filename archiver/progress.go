package archiver

// Phase is what a use case is doing.
type Phase string

// Phases, in the order in which they come.
const (
	PhasePreflight Phase = "preflight"
	PhaseOpening   Phase = "opening"    // the upload
	PhaseGlobals   Phase = "globals"    // roles and tablespaces
	PhaseCatalogue Phase = "catalogue"  // pg_dump reads the catalogue
	PhaseData      Phase = "data"       // dump or restore streams
	PhaseComplete  Phase = "completing" // the store joins the parts
	PhaseCommit    Phase = "commit"     // read back, index, manifest
	PhaseFinish    Phase = "finishing"  // pg_restore builds indexes and constraints
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
}
