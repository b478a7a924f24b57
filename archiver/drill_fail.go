package archiver

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/storage"
)

// notRestored decides who is to blame for a restore that failed: the archive, which is what a
// drill is to find out, or the scratch server, of which it says nothing.
func (d *drill) notRestored(ctx context.Context, err error) error {
	var partial *PartialError
	if errors.As(err, &partial) {
		err = partial.Err // the copy is dropped: nobody needs to know what it holds
	}
	switch {
	case context.Cause(ctx) != nil, errors.Is(err, ErrIdentity):
		return err
	case errors.Is(err, ErrIntegrity): // damaged in the store: verify's finding, and the drill's
	case errors.As(err, new(*storage.Error)), !errors.Is(err, dumper.ErrRestore):
		return err
	default:
		if why := d.serverFault(ctx, err); why != "" {
			return fmt.Errorf("%w; %s, which says nothing of the archive", err, why)
		}
	}
	d.found = d.newResult()
	d.found.Result = ResultFailed
	d.found.Schema, d.found.SchemaReason = SchemaNotCompared, "the archive was not restored"
	d.found.Differences = []DrillDifference{{Kind: DiffRestore, What: oneLine(err)}}
	return nil
}

// serverWords are what PostgreSQL says when the server, or the role's rights on it, are to
// blame. Its messages may be in another language; then probing decides alone.
var serverWords = []string{
	"No space left on device", "could not extend file", "could not write", "could not fsync", "disk quota",
	"out of memory", "out of shared memory", "too many connections", "remaining connection slots",
	"server closed the connection", "terminating connection", "connection to server", "could not connect", "could not receive data", "could not send data",
	"the database system is", "crash of another server process",
	"permission denied", "must be superuser", "must be owner", "must be member", "must be able to SET ROLE", "Only roles with",
	"is not available", "could not open extension control file", "could not access file", "could not load library",
	"shared_preload_libraries", "can only create extension", "canceling statement due to",
	"is not supported by this build", "This functionality requires",
}

// serverFault says why the server is to blame for err, "" where it is not.
func (d *drill) serverFault(ctx context.Context, err error) string {
	text := err.Error()
	for _, words := range serverWords {
		if strings.Contains(text, words) {
			return "the scratch server is at fault"
		}
	}
	if fault := dumper.ProbeWrite(ctx, d.scratch.Conn); fault != nil {
		return "the scratch server is at fault (" + oneLine(fault) + ")"
	}
	return ""
}
