package dumper

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// childAttr: a group of its own, so that a signal reaches descendants too, and
// SIGTERM when the thread that started it ends. SIGTERM, not SIGKILL: pg_dump
// and pg_restore cancel their query on the server before they go.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// awaitExit blocks until pid has exited and leaves it unreaped, so that its
// process group id cannot be anybody else's yet. It tells whether it could.
func awaitExit(pid int) bool {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return err == nil
		}
	}
}

// widenPipe asks for the largest buffer an unprivileged process may have; a
// refusal costs only speed.
func widenPipe(f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, 1<<20) })
}
