package task

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer"
)

// unnoticed keeps a stop of ours from being seen by a task that it found asleep.
//
// Most calls that a stop interrupts the kernel makes again by itself; some fail
// with EINTR (signal(7), "Interruption of system calls and library functions by
// stop signals"). Those get the kernel's own word for "make it again unless a
// signal handler is to run" instead, in which case they fail with EINTR after
// all. They have done nothing yet: who has transferred, taken or received anything
// returns that.
//
// A time that lies behind a pointer, or is that of a socket, begins anew. That of
// epoll_wait(2) is an argument (resource.Asleep.Shorten).
func unnoticed(e *tracer.Tracee) error {
	regs, err := e.Regs()
	if err != nil {
		return err
	}
	if regs.Is32() || !regs.InSyscall() || regs.Result() != -int64(unix.EINTR) {
		return nil
	}
	if stop, _ := e.Stopped(); stop.GroupStop() {
		return nil // somebody else has stopped it
	}
	switch regs.Orig_rax {
	case unix.SYS_EPOLL_WAIT, unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2, unix.SYS_RT_SIGTIMEDWAIT,
		unix.SYS_SEMOP, unix.SYS_SEMTIMEDOP, unix.SYS_IO_GETEVENTS:
	case unix.SYS_READ, unix.SYS_READV, unix.SYS_RECVFROM, unix.SYS_RECVMSG, unix.SYS_RECVMMSG, unix.SYS_ACCEPT, unix.SYS_ACCEPT4,
		unix.SYS_WRITE, unix.SYS_WRITEV, unix.SYS_SENDTO, unix.SYS_SENDMSG, unix.SYS_SENDMMSG, unix.SYS_CONNECT:
		// Of a socket with a time (SO_RCVTIMEO, SO_SNDTIMEO; sock_intr_errno).
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", e.TID(), int32(regs.Rdi)))
		if err != nil || !strings.HasPrefix(link, "socket:") {
			return nil // closed by another thread meanwhile, or a file of its own mind
		}
	default:
		return nil
	}
	const restartNoHandler = -514 // -ERESTARTNOHAND (include/linux/errno.h)
	regs.Rax = ^uint64(-restartNoHandler) + 1
	return e.SetRegs(regs)
}
