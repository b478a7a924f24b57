//go:build !linux

package dumper

import "os"

// openMemFile: no memory files here. /dev/fd shares one read position among all
// opens on these systems, so a pipe or unlinked file could be read only once,
// and pg_restore --create reads it twice.
func openMemFile() (*os.File, error) { return nil, nil }
