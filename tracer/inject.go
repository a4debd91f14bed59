package tracer

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer/procfs"
)

// InjectOptions say where scratch memory may be. The zero value is fine.
type InjectOptions struct {
	Avoid       []Range          // must stay free
	At          Addr             // exactly here, at a page boundary; 0 means anywhere
	ScratchSize uint64           // in bytes of address space, default 1 MiB; only pages that are used cost memory
	Mappings    []procfs.Mapping // that the task has now; nil has them looked up
}

// Remote makes system calls in a stopped task that Inject has borrowed. It is
// dead once the function given to Inject has returned.
type Remote struct {
	e       *Tracee
	opt     InjectOptions
	size    uint64
	at      layout
	boot    bootKey
	final   State // what the task gets at the end
	become  bool  // final is not its own
	signal  unix.Signal
	undo    Addr   // topmost undo row
	undoEnd Addr   // behind the lowest one
	parting []byte // the undo row that Become leaves; nil for none
	undoGen int    // grows whenever the undo table is emptied
	held    []Siginfo
	newTID  TID // of the last clone or fork
	dead    bool
	moved   bool // a program moved memory, perhaps the vdso
	self    TID  // the process in its own pid namespace
	data    arena
	unrun   int      // programs begun and not yet run
	running *Program // started, and not yet finished
}

// Inject borrows the stopped task: fn may have it make system calls, after
// which it has its registers, signal mask and memory back and is stopped as
// before. If fn fails, the calls registered by Undo are made first, the last
// one first. Signals that arrive meanwhile wait.
//
// If we end at any moment, the task by itself finishes the program that it
// runs, makes the calls registered by Undo, and goes on as if nothing had
// been. It may then keep scratch memory that was asked for beyond the first.
//
// The error is fn's own, ErrGone if the task has ended, ErrCompat for 32-bit
// code, or says why the task could not be borrowed or given back.
func (e *Tracee) Inject(opt InjectOptions, fn func(*Remote) error) (err error) {
	r, err := e.Borrow(opt)
	if err != nil {
		return err
	}
	failed := true // stays so if fn panics
	defer func() { err = errors.Join(err, r.GiveBack(failed)) }()
	err = fn(r)
	failed = err != nil
	return err
}

// Borrow is Inject for who needs several tasks at a time. Whatever happens,
// GiveBack must follow; the errors are those of Inject.
func (e *Tracee) Borrow(opt InjectOptions) (*Remote, error) {
	if err := e.ready(); err != nil {
		return nil, e.fault("inject into", err)
	}
	if e.injecting {
		panic("tracer: nested Inject")
	}
	e.injecting = true
	r, err := e.borrow(opt)
	if err != nil {
		e.injecting = false
		return nil, e.fault("inject into", err)
	}
	return r, nil
}

// GiveBack ends what Borrow began. If the work has failed, the calls registered
// by Undo are made first.
func (r *Remote) GiveBack(failed bool) error {
	defer func() { r.e.injecting = false }()
	return r.e.fault("give back", r.giveBack(failed))
}

// borrow brings the task into scratch memory.
func (e *Tracee) borrow(opt InjectOptions) (r *Remote, err error) {
	if err := e.abortRseq(); err != nil {
		return nil, err
	}
	r = &Remote{e: e, opt: opt}
	if r.final.Regs, err = e.getRegs(); err != nil {
		return nil, err
	}
	if r.final.Regs.Is32() {
		return nil, ErrCompat
	}
	if r.final.Sigmask, err = e.getSigmask(); err != nil {
		return nil, err
	}
	if r.size, err = scratchSize(opt.ScratchSize); err != nil {
		return nil, err
	}
	facts, err := e.facts()
	if err != nil {
		return nil, err
	}
	e.leader, r.self = facts.leader, facts.self
	r.signal = parkSignal(facts.pending, facts.caught)
	at := opt.At
	if at == 0 {
		if at, err = e.choosePlace(opt.Avoid, r.size); err != nil {
			return nil, err
		}
	}
	if r.boot, err = e.takeBoot(opt.Mappings); err != nil {
		return nil, err
	}
	if err := r.mapScratch(at, facts.filtered && !e.suspended); err != nil {
		return nil, errors.Join(err, r.restore())
	}
	return r, nil
}

// parkSignal chooses the signal that reports to us: one that the task, should
// we have ended, ignores; that is not on its way already; and that preferably
// has no handler.
func parkSignal(pending, caught uint64) unix.Signal {
	candidates := []unix.Signal{unix.SIGURG, unix.SIGWINCH, unix.SIGCHLD}
	for _, avoid := range []uint64{pending | caught, pending, caught} {
		for _, sig := range candidates {
			if avoid&bit(sig) == 0 {
				return sig
			}
		}
	}
	return candidates[0]
}

// mapScratch maps and fills scratch memory. The task is left in the boot code.
func (r *Remote) mapScratch(at Addr, filtered bool) error {
	e := r.e
	if err := e.pokeMem(r.boot.addr, bootImage(r.final.Regs.settled(), r.final.Sigmask, r.size)); err != nil {
		return fmt.Errorf("write boot code at %v: %w", r.boot.addr, err)
	}
	// Registers before the mask: should we end in between, the boot code
	// gives the mask back as well.
	base, err := r.bootCall(true, unix.SYS_MMAP, mmapArgs(at, r.size)...)
	if err != nil {
		return mapError("scratch memory", err)
	}
	r.setLayout(layOut(Addr(base), r.size))
	unmap := func(err error) error {
		_, uerr := r.step(r.final.Regs.calling(r.boot.addr+bootUnmap, unix.SYS_MUNMAP, base), false)
		r.at = layout{}
		return errors.Join(err, uerr)
	}
	if _, err := r.bootCall(false, unix.SYS_MMAP, codeArgs(Addr(base))...); err != nil {
		return unmap(mapError("code page", err))
	}
	if err := e.transfer(unix.ProcessVMWritev, []part{{r.at.header.Start, r.header()}}); err != nil {
		return unmap(fmt.Errorf("write scratch memory: %w", err))
	}
	if err := e.pokeMem(r.at.code.Start, stubCode); err != nil {
		return unmap(fmt.Errorf("write code page: %w", err))
	}
	if filtered {
		if err := r.probePark(); err != nil {
			return unmap(err)
		}
	}
	return nil
}

// probePark makes sure that a seccomp filter lets the task report to us: if
// not, it would run away at the end of its first program.
func (r *Remote) probePark() error {
	// The boot code must not take the results of these calls for mappings.
	length := r.boot.addr + bootLength
	if err := r.e.pokeMem(length, words(0)); err != nil {
		return err
	}
	pid, err := r.bootCall(false, unix.SYS_GETPID)
	tid, terr := r.bootCall(false, unix.SYS_GETTID)
	if err = errors.Join(err, terr); err == nil {
		_, err = r.bootCall(false, unix.SYS_TGKILL, pid, tid, 0)
	}
	if err != nil {
		err = fmt.Errorf("seccomp filter refuses what a loan needs: %w", err)
	}
	if err := r.e.pokeUser(offsetRAX, uint64(r.at.whole.Start)); err != nil {
		return err
	}
	return errors.Join(err, r.e.pokeMem(length, words(r.size)))
}

func (r *Remote) setLayout(l layout) {
	r.at = l
	r.undo, r.undoEnd = l.undo.End, l.undo.End
	r.data = arena{areas: []Range{l.data}, next: l.data.Start}
}

// header is the header page's content.
func (r *Remote) header() []byte {
	regs, xstate := r.final.Regs.settled(), uint64(0)
	if !r.become {
		// The boot code unmaps scratch memory and does the rest.
		regs = regs.calling(r.boot.addr+bootUnmap, unix.SYS_MUNMAP, uint64(r.at.whole.Start))
	} else if r.final.Xstate != nil && XstateSize() > xstateMin {
		xstate = uint64(r.at.xstate.Start)
	}
	h := words(uint64(r.at.rows.Start), uint64(r.at.rows.Start),
		uint64(r.undo), uint64(r.undoEnd), uint64(r.signal), r.final.Sigmask)
	h = append(h, leaveRegs(regs)...)
	return append(h, words(xstate)...)
}

// giveBack ends the loan. If fn failed its changes are undone before.
func (r *Remote) giveBack(failed bool) error {
	r.settleRun()
	r.dead = true
	if r.e.gone {
		r.releaseBoot()
		if failed {
			return nil // fn has said so
		}
		return ErrGone
	}
	var errs []error
	if failed {
		errs = append(errs, r.rollback())
	} else {
		errs = append(errs, r.keep())
	}
	errs = append(errs, r.unmapAreas(), r.unmapScratch(), r.restore())
	if r.e.gone {
		return ErrGone
	}
	return errors.Join(errs...)
}

// unmapScratch leaves scratch memory by way of the boot code.
func (r *Remote) unmapScratch() error {
	if r.become {
		if err := r.prepareFinal(); err != nil {
			return err
		}
	}
	// Without a place for boot code in the new memory, the stop at the exit of
	// munmap needs no next instruction; but should we end just there, the task
	// would die.
	ip := r.at.code.Start + stubCall
	if r.boot.addr != 0 {
		ip = r.boot.addr + bootUnmap
	}
	_, err := r.step(r.final.Regs.calling(ip, unix.SYS_MUNMAP, uint64(r.at.whole.Start), r.at.whole.Len()), false)
	if err != nil {
		return fmt.Errorf("unmap scratch memory: %w", err)
	}
	return nil
}

// restore gives the task, which is in the boot code, its final state.
func (r *Remote) restore() error {
	e := r.e
	err := e.setSigmask(r.final.Sigmask)
	if err == nil {
		err = e.setRegs(r.final.Regs)
	}
	if err == nil && r.boot.addr != 0 {
		err = e.pokeMem(r.boot.addr, make([]byte, bootSize))
	}
	r.releaseBoot()
	if r.moved {
		e.boot = nil
	}
	return errors.Join(err, r.resendHeld())
}

func (r *Remote) releaseBoot() {
	delete(r.e.t.boots, r.boot)
	r.boot = bootKey{}
}

// resendHeld sends again what arrived although it was not wanted: SIGSTOP,
// which cannot be blocked, or somebody's signal of the kind we park with. A
// SIGCONT that came later takes a SIGSTOP back.
func (r *Remote) resendHeld() error {
	var errs []error
	for i := range r.held {
		if r.held[i].Signo() == unix.SIGSTOP {
			facts, err := r.e.facts()
			if err != nil {
				return err
			}
			if facts.pending&bit(unix.SIGCONT) != 0 {
				continue
			}
		}
		errs = append(errs, r.e.resend(&r.held[i]))
	}
	r.held = nil
	return errors.Join(errs...)
}

// Scratch is the task's memory that belongs to us.
func (r *Remote) Scratch() Range { return r.at.whole }

// Tracee is the task that is borrowed.
func (r *Remote) Tracee() *Tracee { return r.e }

// ReadMem is Tracee.ReadMem.
func (r *Remote) ReadMem(addr Addr, buf []byte) error {
	r.settleRun()
	return r.e.ReadMem(addr, buf)
}

// WriteMem is Tracee.WriteMem.
func (r *Remote) WriteMem(addr Addr, buf []byte) error {
	r.settleRun()
	return r.e.WriteMem(addr, buf)
}

func (r *Remote) ready() error {
	if r.dead {
		panic("tracer: Remote used after its Inject")
	}
	r.settleRun()
	return r.e.ready()
}

// settleRun waits for a program that was started. Its own Finish tells the error.
func (r *Remote) settleRun() {
	if r.running != nil {
		_ = r.running.Finish()
	}
}
