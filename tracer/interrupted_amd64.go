package tracer

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Interrupted begins a system call and interrupts it at once. What it returns
// is the raw result: of a call that would have slept, usually one of the
// kernel's internal -ERESTART numbers. With -516 (ERESTART_RESTARTBLOCK) the
// kernel now knows how to go on with the call: a task that is let go with that
// result and the call's number in its registers sleeps on for the rest.
//
// A stop that is asked for between the entry of a call and its first sleep is
// as good as a signal that came during it (PTRACE_INTERRUPT, ptrace(2)).
func (r *Remote) Interrupted(nr uintptr, args ...uint64) (int64, error) {
	if err := r.ready(); err != nil {
		return 0, err
	}
	result, err := r.interrupted(uint64(nr), args)
	r.trace(uint64(nr), args, uint64(result), err)
	return result, r.e.fault(fmt.Sprintf("interrupt %s in", syscallName(uint64(nr))), err)
}

func (r *Remote) interrupted(nr uint64, args []uint64) (int64, error) {
	if r.undo-r.at.undo.Start < rowSize {
		return 0, ErrFull
	}
	regs := r.final.Regs.calling(r.at.code.Start+stubCall, nr, args...)
	// Should we end meanwhile, the stub goes on behind the call, as if it had
	// been that of a row ahead of the undo rows, and leaves when those are done.
	regs.Rbx, regs.R12 = uint64(r.undo-rowSize), ctlTolerate
	regs.R13, regs.R15 = uint64(r.at.header.Start+headerUndo), 1
	return r.e.interruptCall(regs, func() error { return r.drive(unix.PTRACE_SYSCALL) })
}

// interruptCall begins the call that regs are ready for and interrupts it.
// toCall lets the task run up to the next entry or exit of a call.
func (e *Tracee) interruptCall(regs Regs, toCall func() error) (int64, error) {
	if err := e.setRegs(regs); err != nil {
		return 0, err
	}
	if err := toCall(); err != nil { // its entry
		return 0, err
	}
	if err := e.Interrupt(); err != nil {
		return 0, err
	}
	if err := toCall(); err != nil { // its exit
		return 0, err
	}
	regs, err := e.getRegs()
	if err != nil {
		return 0, err
	}
	result := regs.Result()
	regs.Orig_rax = noSyscall // else the kernel would make it again
	return result, e.setRegs(regs)
}
