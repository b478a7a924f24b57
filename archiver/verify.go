package archiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// VerifyOptions say which archives are verified, and how.
type VerifyOptions struct {
	Bucket storage.Bucket
	// Refs are archives as Resolve takes them, or All takes every one that is
	// there; Name is the label under which either looks.
	Refs []string
	All  bool
	Name string
	// Quick asks the store and reads nothing but manifests and signatures.
	Quick bool
	// NoRecord leaves no record beside the archives.
	NoRecord bool
	By       string // who, recorded
	Pgstow   string // this program's version
	Signer   Signer // of the record; nil leaves it unsigned
	// Identities open encrypted archives. Of one that none of them opens, all but its
	// content is verified: ModeSealed.
	Identities Identities
	// Trust says whose signatures of manifests and records count.
	Trust Trust

	// Thaw, with a tier, thaws archives that lie in a cold class, as in
	// RestoreOptions. Without one a cold archive is a *ColdError, except to Quick.
	Thaw ThawOptions

	Log      *slog.Logger
	Progress func(Progress) // of the archive that is read
	// Begin and Verified, when set, are called before and after each archive, in
	// order, by one goroutine at a time.
	Begin    func(e Entry, n, of int)
	Verified func(*VerifiedArchive)
	Now      func() time.Time
}

// Modes of a verification.
const (
	ModeFull  = "full"  // everything was read and compared
	ModeQuick = "quick" // the store was asked
	// ModeSealed: everything was read, and nobody could look into it: it is encrypted.
	ModeSealed = "sealed"
)

// ResultUndecided is of a verification that could not be done, with nothing found
// wrong as far as it came.
const ResultUndecided = "undecided"

// VerifyResult is what Verify found.
type VerifyResult struct {
	Archives  []*VerifiedArchive `json:"archives"`
	Passed    int                `json:"passed"`
	Failed    int                `json:"failed"`
	Undecided int                `json:"undecided"`
	// Vanished are archives that those which were looked at, or their neighbours,
	// name as kept until later, and that are not there.
	Vanished []ChainFault `json:"vanished,omitempty"`
}

// VerifiedArchive is what was found of one archive.
type VerifiedArchive struct {
	ID             string    `json:"id"`
	Label          string    `json:"label"`
	Policy         string    `json:"policy"`
	Key            string    `json:"key"`
	Time           time.Time `json:"time"` // when the archive was started
	ManifestSHA256 string    `json:"manifest_sha256,omitempty"`
	// Result is ResultPassed, ResultFailed where there are Problems, or
	// ResultUndecided where Error says why.
	Result string `json:"result"`
	VerifyFacts
	// Signature is the manifest's.
	Signature Signature `json:"signature,omitzero"`
	// Protection is how the store keeps it now; nil when it could not be asked.
	Protection *Shown   `json:"protection,omitempty"`
	Warnings   []string `json:"warnings,omitempty"`
	Error      string   `json:"error,omitempty"`
	// Record is the name of the record that was left; "" when there is none.
	Record string `json:"record,omitempty"`

	err error // of Error
}

// VerifyFacts are what a verification did and found; its record has them.
type VerifyFacts struct {
	Mode    string `json:"mode"`
	Objects int    `json:"objects"` // of the archive, that were looked at
	Bytes   int64  `json:"bytes"`   // that were read
	// Structure and Evidence are the manifest's, and were found true.
	// StructureUnchecked: the dump's hash is all that was compared.
	Structure    string `json:"structure,omitempty"`
	Evidence     string `json:"evidence,omitempty"`
	Blocks       int    `json:"blocks,omitempty"` // that were decoded, and compared with the index
	Tables       int    `json:"tables,omitempty"`
	LargeObjects int    `json:"large_objects,omitempty"`
	Rows         *int64 `json:"rows,omitempty"`
	// Denied is what the store does not show these credentials: of that, nothing
	// is known.
	Denied   []storage.Attribute `json:"denied,omitempty"`
	Problems []Problem           `json:"problems,omitempty"`
	// MoreProblems is how many there are beyond those that are listed.
	MoreProblems int `json:"more_problems,omitempty"`
}

// Problem is one thing that is not as it was stored or promised.
type Problem struct {
	Object string `json:"object"`          // its name below the archive's key
	Table  string `json:"table,omitempty"` // schema.table, or "large objects"
	What   string `json:"what"`

	inside bool // What may name what is in an encrypted object
}

func (p Problem) String() string {
	if p.Table == "" {
		return p.Object + ": " + p.What
	}
	return p.Object + ": " + p.Table + ": " + p.What
}

// maxProblems are listed of one archive: a dump has as many blocks as tables.
const maxProblems = 50

// Verify checks archives: what the store has of them against their manifests, and,
// unless Quick, every byte against its hashes and every row against the index. One
// that fails does not keep the others from being looked at. The error is
// ErrIntegrity when something is wrong with one of them, or one that they name is gone;
// without that, what kept one from being verified; the result stands beside either. What cannot be
// resolved is an error before anything is verified.
func Verify(ctx context.Context, opts VerifyOptions) (*VerifyResult, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if !opts.NoRecord {
		if err := checkWords("who it is", opts.By, maxBy); err != nil {
			return nil, err
		}
	}
	entries, all, err := opts.entries(ctx)
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	faults, err := opts.chain(ctx, entries, all)
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	res := &VerifyResult{Archives: []*VerifiedArchive{}, Vanished: faults.vanished}
	for n, e := range entries {
		if opts.Begin != nil {
			opts.Begin(e, n+1, len(entries))
		}
		v := verifyEntry(ctx, e, opts, faults.of[e.ID])
		res.Archives = append(res.Archives, v)
		if opts.Verified != nil {
			opts.Verified(v)
		}
		if err := context.Cause(ctx); err != nil {
			return res.count(), err
		}
	}
	return res.count(), res.err()
}

// entries are the archives that are meant, and all that the listing has.
func (o VerifyOptions) entries(ctx context.Context) (entries, all []Entry, err error) {
	switch {
	case o.All && len(o.Refs) > 0:
		return nil, nil, fmt.Errorf("%w: all archives, or those that are named; not both", ErrUsage)
	case !o.All && len(o.Refs) == 0:
		return nil, nil, fmt.Errorf("%w: which archives?", ErrUsage)
	}
	if o.Name != "" {
		if err := CheckLabel(o.Name); err != nil {
			return nil, nil, err
		}
	}
	if all, err = scan(ctx, o.Bucket, o.Name, o.Log); err != nil {
		return nil, nil, err
	}
	if o.All {
		entries = slices.DeleteFunc(slices.Clone(all), func(e Entry) bool { return !e.Complete })
		if n := len(all) - len(entries); n > 0 {
			logger(o.Log).Warn("what has no manifest is no archive and is not verified; see `pgstow list --incomplete`", "directories", n)
		}
		if len(entries) == 0 {
			return nil, nil, fmt.Errorf("%w: there is none%s to verify; check bucket and prefix", ErrNoArchive, under(o.Name))
		}
		return entries, all, nil
	}
	listed := func(context.Context, storage.Bucket, string, *slog.Logger) ([]Entry, error) {
		return slices.Clone(all), nil
	}
	for _, ref := range o.Refs {
		e, err := resolveBy(ctx, o.Bucket, ref, o.Name, o.Log, listed)
		if err != nil {
			return nil, nil, err
		}
		if !slices.ContainsFunc(entries, func(have Entry) bool { return have.Key == e.Key }) {
			entries = append(entries, e)
		}
	}
	return entries, all, nil
}

func (r *VerifyResult) count() *VerifyResult {
	for _, v := range r.Archives {
		switch v.Result {
		case ResultPassed:
			r.Passed++
		case ResultFailed:
			r.Failed++
		default:
			r.Undecided++
		}
	}
	return r
}

// err is the worst of what was found: that an archive is damaged matters more than
// that another could not be read.
func (r *VerifyResult) err() error {
	of := ""
	if n := len(r.Archives); n > 1 {
		of = fmt.Sprintf("%d of %d archives failed; the first: ", r.Failed, n)
	}
	for _, v := range r.Archives {
		if v.Result != ResultFailed {
			continue
		}
		more := ""
		if n := len(v.Problems) + v.MoreProblems - 1; n > 0 {
			more = fmt.Sprintf(" (and %d more)", n)
		}
		return integrity("%sarchive %s: %s%s", of, v.ID, v.Problems[0], more)
	}
	if len(r.Vanished) > 0 {
		more := ""
		if n := len(r.Vanished); n > 1 {
			more = fmt.Sprintf(" (and %d more)", n-1)
		}
		return integrity("%s%s", r.Vanished[0], more)
	}
	for _, v := range r.Archives {
		if v.err == nil {
			continue
		}
		err := v.err
		if !errors.As(err, new(*ColdError)) { // which names it
			err = fmt.Errorf("archive %s: %w", v.ID, err)
		}
		if n := len(r.Archives); n > 1 {
			err = fmt.Errorf("%d of %d archives could not be verified; the first: %w", r.undecided(), n, err)
		}
		return err
	}
	return nil
}

// undecided counts those that could not be verified, or whose record could not be
// stored.
func (r *VerifyResult) undecided() (n int) {
	for _, v := range r.Archives {
		if v.err != nil {
			n++
		}
	}
	return n
}

// finding gives an error its place: it is a problem when it tells that something is
// wrong with what is stored, and else what kept it from being verified.
func (v *VerifiedArchive) finding(object string, err error) {
	switch {
	case err == nil:
	case errors.Is(err, ErrIntegrity), errors.Is(err, storage.ErrIntegrity), errors.Is(err, storage.ErrNotExist), errors.Is(err, storage.ErrRange):
		v.problems(Problem{Object: object, What: v.says(object, err)})
	case v.err == nil:
		v.err = err
	}
}

// says is what an error says of an object, which a Problem names already.
func (v *VerifiedArchive) says(object string, err error) string {
	key := v.Key + object
	return strings.NewReplacer(ErrIntegrity.Error()+": ", "", key+": ", "", key, "it",
		"read manifest: ", "", "manifest "+key+": ", "", "read index: ", "", "index "+key+": ", "", "read dump: ", "").Replace(oneLine(err))
}

func (v *VerifiedArchive) problems(found ...Problem) {
	for _, p := range found {
		if len(v.Problems) == maxProblems {
			v.MoreProblems++
			continue
		}
		v.Problems = append(v.Problems, p)
	}
}

func (v *VerifiedArchive) warn(log *slog.Logger, text string) {
	logger(log).Warn(text, "archive", v.ID)
	v.Warnings = append(v.Warnings, text)
}
