package resource

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer"
)

// Shorten takes off the time of epoll_wait(2) and epoll_pwait(2), which are begun
// anew, what has passed of it: a program that is saved again and again must not wait
// for ever. The argument is in a register that no C function expects to find as it
// left it.
func (a Asleep) Shorten(e *tracer.Tracee) error {
	if !a.Known {
		return nil
	}
	regs, err := e.Regs()
	if err != nil || regs.Restart() == 0 || regs.Is32() {
		return err
	}
	if nr := regs.Orig_rax; nr != unix.SYS_EPOLL_WAIT && nr != unix.SYS_EPOLL_PWAIT {
		return nil
	}
	left := time.Duration(int32(regs.R10)) * time.Millisecond
	if left <= 0 {
		return nil
	}
	left = max(left-a.For, 0)
	regs.R10 = uint64((left + time.Millisecond - 1) / time.Millisecond)
	return e.SetRegs(regs)
}
