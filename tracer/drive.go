package tracer

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// pokeUser writes the word at an offset of struct user (sys/user.h).
func (e *Tracee) pokeUser(offset uintptr, word uint64) error {
	return ptraceValue(unix.PTRACE_POKEUSR, e.tid, offset, uintptr(word))
}

// bootCall makes one system call by the boot code. The task stops behind it.
func (r *Remote) bootCall(first bool, nr uint64, args ...uint64) (uint64, error) {
	result, err := r.step(r.final.Regs.calling(r.boot.addr, nr, args...), first)
	r.trace(nr, args, result, err)
	return result, err
}

// step makes the system call that regs are ready for, from stop at its entry
// to stop at its exit. The first time all signals become blocked.
func (r *Remote) step(regs Regs, first bool) (uint64, error) {
	if err := r.e.setRegs(regs); err != nil {
		return 0, err
	}
	if first {
		if err := r.e.setSigmask(^bit(r.signal)); err != nil {
			return 0, err
		}
	}
	for range 2 { // entry and exit
		if err := r.drive(unix.PTRACE_SYSCALL); err != nil {
			return 0, err
		}
	}
	result, err := r.e.peekUser(offsetRAX)
	if err != nil {
		return 0, err
	}
	return result, callErrno(result)
}

// callErrno is the error in a system call's raw result, or nil.
func callErrno(result uint64) error {
	if result > ^uint64(4095) {
		return unix.Errno(-result)
	}
	return nil
}

// run lets the task walk rows from an entry of the stub until it parks.
func (r *Remote) run(entry Addr) error {
	if err := r.start(entry); err != nil {
		return err
	}
	return r.await(unix.PTRACE_CONT)
}

// start is run without waiting: await must follow.
func (r *Remote) start(entry Addr) error {
	if err := r.e.pokeUser(offsetRIP, uint64(r.at.code.Start+entry)); err != nil {
		return err
	}
	return r.e.resume(unix.PTRACE_CONT, 0)
}

// drive resumes the task until it stops at a system call (PTRACE_SYSCALL) or
// is parked. Other stops are not ours to keep: signals are held back, the
// report of a group stop is taken note of by resuming.
func (r *Remote) drive(request int) error {
	if err := r.e.resume(request, 0); err != nil {
		return err
	}
	return r.await(request)
}

// await is drive of a task that has been resumed.
func (r *Remote) await(request int) error {
	e := r.e
	for {
		stop, err := e.waitNext(-1)
		if err != nil {
			return err
		}
		switch stop.Kind {
		case Exited, Killed:
			return ErrGone
		case SyscallStop:
			if request == unix.PTRACE_SYSCALL {
				return nil
			}
		case SignalStop:
			parked, err := r.signalStop(stop.Signal)
			if parked || err != nil {
				return err
			}
		case CloneStop, ForkStop, VforkStop:
			r.newTID = stop.NewTID
		case ExecStop:
			return fmt.Errorf("task %d has executed another program: %w", e.tid, unix.ENOTRECOVERABLE)
		}
		if err := e.resume(request, 0); err != nil {
			return err
		}
	}
}

// signalStop tells the park from other signals, which are remembered.
func (r *Remote) signalStop(sig unix.Signal) (parked bool, err error) {
	info, err := r.e.getSiginfo()
	if err != nil {
		return false, err
	}
	ip, err := r.e.peekUser(offsetRIP)
	if err != nil {
		return false, err
	}
	parked = sig == r.signal && r.at.code.Len() > 0 && Addr(ip) == r.at.code.Start+stubParked
	switch {
	case parked:
		// Signals of one number do not queue: somebody else's may have been
		// on its way and stand for ours.
		if (info.Code() != siTkill || info.PID() != r.self) && !info.bare() {
			r.held = append(r.held, info)
		}
		return true, nil
	case info.Code() > 0 && synchronous(sig):
		return false, &FaultError{Signal: sig, IP: Addr(ip)}
	}
	r.held = append(r.held, info)
	return false, nil
}

// synchronous says whether the processor may raise sig.
func synchronous(sig unix.Signal) bool {
	switch sig {
	case unix.SIGSEGV, unix.SIGBUS, unix.SIGILL, unix.SIGFPE, unix.SIGTRAP, unix.SIGSYS:
		return true
	}
	return false
}
