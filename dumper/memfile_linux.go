package dumper

import (
	"os"

	"golang.org/x/sys/unix"
)

// openMemFile is an anonymous file in memory: no directory entry, no disk, gone
// with its last descriptor. nil where the kernel or a sandbox has none.
func openMemFile() (*os.File, error) {
	fd, err := unix.MemfdCreate("pgstow", unix.MFD_CLOEXEC)
	if err == unix.ENOSYS || err == unix.EPERM {
		return nil, nil
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	if err := unix.Fchmod(fd, 0o600); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("fchmod", err)
	}
	f := os.NewFile(uintptr(fd), "pgstow")
	// libpq opens it by name; without /proc it could not.
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		_ = f.Close()
		return nil, nil
	}
	return f, nil
}
