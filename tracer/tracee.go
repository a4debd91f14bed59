package tracer

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer/procfs"
)

// The types of procfs under the names that this package speaks.
type (
	TID   = procfs.PID
	Addr  = procfs.Addr
	Range = procfs.Range
)

// FD is the number of a descriptor in another process.
type FD int32

// Options for Seize.
type Options struct {
	// ExitKill kills the task when the tracer ends, in whatever way, before
	// it has detached (PTRACE_O_EXITKILL).
	ExitKill bool
	// Beside are threads of the same process that are ours already.
	Beside []*Tracee
}

// Tracee is a thread under our control. Registers, memory and the like may be
// looked at while it is stopped, that is from WaitStop to Detach or Cont;
// else the error is ErrRunning.
type Tracee struct {
	t         *Tracer
	tid       TID
	leader    TID // 0 until asked for
	opt       Options
	suspended bool // seccomp filters do not apply
	events    int  // further PTRACE_O_TRACE* that are set for a moment
	stopped   bool
	gone      bool
	injecting bool
	stop      Stop
	boot      []Addr   // boot slots of its memory, nil until looked for
	pipe      *os.File // keeps a blank waiting, nil for other tasks

	sharesWith TID  // the process whose memory it has, 0 for its own
	shared     bool // with another process
}

// Seize attaches to a running or stopped thread without stopping it
// (PTRACE_SEIZE). While we are attached and are allowed to (CAP_SYS_ADMIN),
// its seccomp filters do not apply.
//
// A thread that is ours under a number that it has no longer is taken over.
//
// The error is ErrGone if there is no such thread, and wraps EPERM if we may
// not trace it, somebody else does, or it has ended.
func (t *Tracer) Seize(tid TID, opt Options) (*Tracee, error) {
	t.check()
	e := &Tracee{t: t, tid: tid, opt: Options{ExitKill: opt.ExitKill}, suspended: true}
	err := seizeBeside(tid, e.options(), opt.Beside)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) {
		// Without the privilege, without CONFIG_SECCOMP, or because of what
		// is about the task itself: then the second try fails as well.
		e.suspended = false
		err = seizeBeside(tid, e.options(), opt.Beside)
	}
	if errors.Is(err, unix.EPERM) {
		if ours, aerr := t.adopt(tid, e.opt); ours != nil || aerr != nil {
			return ours, aerr
		}
	}
	if errors.Is(err, unix.ESRCH) {
		err = ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("seize task %d: %w", tid, err)
	}
	t.tracees[tid], t.suspends = e, e.suspended
	return e, nil
}

func (e *Tracee) options() uintptr {
	o := unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACEEXEC | e.events
	if e.opt.ExitKill {
		o |= unix.PTRACE_O_EXITKILL
	}
	if e.suspended {
		o |= unix.PTRACE_O_SUSPEND_SECCOMP
	}
	return uintptr(o)
}

func (e *Tracee) setOptions() error {
	return ptraceValue(unix.PTRACE_SETOPTIONS, e.tid, 0, e.options())
}

// TID is the thread's number in our pid namespace.
func (e *Tracee) TID() TID { return e.tid }

// SeccompSuspended says whether the task's seccomp filters do not apply while
// it is traced.
func (e *Tracee) SeccompSuspended() bool { return e.suspended }

// Stopped says whether the task waits for us, and in which stop.
func (e *Tracee) Stopped() (Stop, bool) { return e.stop, e.stopped }

// Leader is the thread group leader, whose number is the process's.
func (e *Tracee) Leader() (TID, error) {
	if e.leader == 0 {
		facts, err := e.facts()
		if err != nil {
			return 0, fmt.Errorf("find leader of task %d: %w", e.tid, err)
		}
		e.leader = facts.leader
	}
	return e.leader, nil
}

// ready says whether the task can be worked on.
func (e *Tracee) ready() error {
	e.t.check()
	switch {
	case e.gone:
		return ErrGone
	case !e.stopped:
		return ErrRunning
	}
	return nil
}

// fault words an error and notices the task's death: a stopped tracee that
// the kernel does not find (ESRCH) has been killed.
func (e *Tracee) fault(verb string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, unix.ESRCH) {
		e.gone, e.stopped = true, false
		err = ErrGone
	}
	return fmt.Errorf("%s task %d: %w", verb, e.tid, err)
}

// Interrupt makes the task stop soon, with an EventStop (PTRACE_INTERRUPT).
// The request stays pending while the task waits for a seccomp supervisor. It
// is spent by whatever stop comes first: if that is another than EventStop,
// ask again before Cont.
func (e *Tracee) Interrupt() error {
	e.t.check()
	if e.gone {
		return e.fault("interrupt", ErrGone)
	}
	return e.fault("interrupt", ptraceValue(unix.PTRACE_INTERRUPT, e.tid, 0, 0))
}

// Cont lets the task run on, still attached. From a SignalStop sig is
// delivered to it, 0 swallows the signal; other stops ignore sig.
//
// A system call that was interrupted is restarted only from an EventStop or a
// SignalStop; after Inject use Detach.
func (e *Tracee) Cont(sig unix.Signal) error {
	if err := e.ready(); err != nil {
		return e.fault("continue", err)
	}
	return e.fault("continue", e.resume(unix.PTRACE_CONT, sig))
}

func (e *Tracee) resume(request int, sig unix.Signal) error {
	err := ptraceValue(request, e.tid, 0, uintptr(sig))
	if err == nil {
		e.stopped = false
	}
	return err
}

// Detach lets the task go: it runs on, restarts the system call that our stop
// interrupted, or is stopped again if it was stopped by a signal before. With
// sig it gets that signal.
func (e *Tracee) Detach(sig unix.Signal) error {
	if err := e.ready(); err != nil {
		return e.fault("detach from", err)
	}
	if sig != 0 && e.stop.Kind != SignalStop {
		// PTRACE_DETACH passes a signal on from a SignalStop only.
		if err := e.signal(sig); err != nil {
			return e.fault("signal", err)
		}
		sig = 0
	}
	err := ptraceValue(unix.PTRACE_DETACH, e.tid, 0, uintptr(sig))
	if err == nil {
		e.forget()
	}
	return e.fault("detach from", err)
}

func (e *Tracee) forget() {
	e.gone, e.stopped = true, false
	if e.t.tracees[e.tid] == e {
		delete(e.t.tracees, e.tid)
	}
	if e.pipe != nil {
		_ = e.pipe.Close() // a pipe without readers or data: nothing to lose
		e.pipe = nil
	}
}

// SetExitKill changes Options.ExitKill of a stopped task.
func (e *Tracee) SetExitKill(on bool) error {
	if err := e.ready(); err != nil {
		return e.fault("set options of", err)
	}
	before := e.opt.ExitKill
	e.opt.ExitKill = on
	err := e.setOptions()
	if err != nil {
		e.opt.ExitKill = before
	}
	return e.fault("set options of", err)
}

// Kill ends the task's whole process and waits until it is dead. A child of
// ours is reaped; anyone else stays a zombie until its parent has seen it.
func (e *Tracee) Kill() error {
	e.t.check()
	if e.gone {
		e.reap()
		return nil
	}
	leader, err := e.Leader()
	var others []*Tracee
	for _, o := range e.t.tracees {
		if of, oerr := o.Leader(); o != e && oerr == nil && of == leader && o.tid != leader {
			others = append(others, o)
		}
	}
	if err == nil {
		err = unix.Kill(int(leader), unix.SIGKILL)
	}
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill task %d: %w", e.tid, err)
	}
	// A leader is reported only after all other threads, ours among them.
	for _, o := range others {
		o.waitDead()
	}
	e.waitDead()
	return nil
}

// EndBy lets a task end by a signal, and waits until it has. The signal must
// have its default effect. The error matches EINVAL if that is not to end.
func (e *Tracee) EndBy(sig unix.Signal) error {
	if sig <= 0 || sig > 64 || slices.Contains(stopping, sig) || slices.Contains(ignored, sig) {
		return e.fault("end", fmt.Errorf("%v ends nobody: %w", sig, unix.EINVAL))
	}
	if err := e.ready(); err != nil {
		return e.fault("end", err)
	}
	if sig == unix.SIGKILL {
		return e.Kill()
	}
	err := errors.Join(e.setSigmask(0), e.signal(sig), e.resume(unix.PTRACE_CONT, 0))
	for err == nil {
		var stop Stop
		stop, err = e.waitNext(-1)
		switch {
		case err != nil:
		case stop.Gone():
			return nil
		case stop.Kind == SignalStop:
			err = e.resume(unix.PTRACE_CONT, stop.Signal)
		default:
			err = e.resume(unix.PTRACE_CONT, 0)
		}
	}
	return e.fault("end", err)
}

// Regs are the general registers.
func (e *Tracee) Regs() (Regs, error) {
	if err := e.ready(); err != nil {
		return Regs{}, e.fault("read registers of", err)
	}
	regs, err := e.getRegs()
	return regs, e.fault("read registers of", err)
}

// SetRegs replaces the general registers; see ValidateRegs.
func (e *Tracee) SetRegs(regs Regs) error {
	err := e.ready()
	if err == nil {
		err = e.setRegs(regs)
	}
	return e.fault("set registers of", err)
}

// SetResult makes the system call that the task is in return v.
func (e *Tracee) SetResult(v int64) error {
	regs, err := e.Regs()
	if err != nil {
		return err
	}
	regs.SetResult(v)
	return e.SetRegs(regs)
}
