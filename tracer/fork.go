package tracer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"structs"

	"golang.org/x/sys/unix"
)

// cloneArgs is struct clone_args of <linux/sched.h>, first published size but
// one: CLONE_ARGS_SIZE_VER1, Linux 5.5.
type cloneArgs struct {
	_          structs.HostLayout
	flags      uint64
	pidfd      uint64
	childTID   uint64
	parentTID  uint64
	exitSignal uint64
	stack      uint64
	stackSize  uint64
	tls        uint64
	setTID     uint64
	setTIDSize uint64
}

const cloneArgsSize = 80

func (a *cloneArgs) encode() []byte {
	return words(a.flags, a.pidfd, a.childTID, a.parentTID, a.exitSignal, a.stack, a.stackSize, a.tls, a.setTID, a.setTIDSize)
}

// Fork makes a child of the borrowed, single-threaded process: a copy of its
// memory as it is now but for our scratch memory, with its descriptors, stopped
// where the process itself was stopped, and with the state that it goes back to.
// Its numbers are tids, that of the innermost pid namespace first; on the levels for
// which there is none it gets any (clone3(2), set_tid). At its end the parent gets the signal, 0 for none. Of the flags of
// clone(2) it may have CLONE_FILES and CLONE_FS in common with the process: what
// it does to the descriptors is then done to both. With CLONE_PARENT it is a child
// of who the parent of the process is, by the same signal as that: signal must be
// 0, and to wait for it is the matter of that one. With CLONE_NEWPID it is the first
// process of a pid namespace, whose number there must be 1.
//
// Until it is detached the child ends when we do, by ExitKill; the caller has to
// kill it if fn fails. An undo call of the parent reaps it.
//
// The error wraps EEXIST if a number is taken (also as a process group or
// session), EPERM if we may not choose it or not make a namespace, EINVAL if it is out of range, EAGAIN if
// there are too many processes.
func (r *Remote) Fork(tids []TID, signal unix.Signal, flags uint64) (*Tracee, error) {
	child, err := r.ForkBorrowed(tids, signal, flags)
	if err != nil {
		return nil, err
	}
	return child.Settle()
}

// Settle is GiveBack for a child that has just been forked, which is ended if
// that fails.
func (r *Remote) Settle() (*Tracee, error) {
	if err := r.GiveBack(false); err != nil {
		return nil, errors.Join(err, r.e.Kill())
	}
	return r.e, nil
}

// ForkBorrowed is Fork of a child that is borrowed already, with options like
// those of the process itself. GiveBack must follow.
func (r *Remote) ForkBorrowed(tids []TID, signal unix.Signal, flags uint64) (*Remote, error) {
	if err := r.ready(); err != nil {
		return nil, err
	}
	child, err := r.fork(tids, signal, flags, 0)
	if err != nil {
		return nil, fmt.Errorf("fork task %d: %w", r.e.tid, err)
	}
	return child, nil
}

func (r *Remote) fork(tids []TID, signal unix.Signal, flags uint64, at Addr) (child *Remote, err error) {
	e := r.e
	e.events = unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK // the latter if the signal is SIGCHLD
	defer func() {
		e.events = 0
		if !e.gone {
			err = errors.Join(err, e.setOptions())
		}
	}()
	if err := e.setOptions(); err != nil {
		return nil, err
	}
	p := r.Program()
	// If we are gone before we have it, it finds nothing to do but to end.
	end := p.Bytes(words(0, 0, uint64(r.at.code.Start+stubEnded)))
	args := cloneArgs{flags: flags, exitSignal: uint64(signal), stack: uint64(end), stackSize: 16}
	if len(tids) > 0 {
		var raw []byte // pid_t each
		for _, tid := range tids {
			raw = binary.LittleEndian.AppendUint32(raw, uint32(tid))
		}
		args.setTID, args.setTIDSize = uint64(p.Bytes(raw)), uint64(len(tids))
	}
	row := p.Call(unix.SYS_CLONE3, Ptr(p.Bytes(args.encode())), Imm(cloneArgsSize))
	row.ctl |= ctlSpawn
	if flags&unix.CLONE_PARENT == 0 {
		row.Undo(unix.SYS_WAIT4, row, Imm(0), Imm(unix.WALL), Imm(0))
	}
	if err := p.Run(); err != nil {
		return nil, err
	}
	if flags&unix.CLONE_VM != 0 {
		return r.adoptSharing(at)
	}
	return r.adopt()
}

// forked is the process that r's task has just forked. It came attached.
func (r *Remote) forked() (*Tracee, error) {
	e := r.e
	c := &Tracee{t: e.t, tid: r.newTID, opt: Options{ExitKill: true}, suspended: e.suspended, boot: e.boot}
	e.t.tracees[c.tid] = c
	stop, err := c.waitNext(-1)
	if err == nil && stop.Gone() {
		err = ErrGone
	}
	return c, err
}

// adopt takes over the process that r's task has just forked, which has a copy of
// the whole loan.
func (r *Remote) adopt() (*Remote, error) {
	e := r.e
	c, err := r.forked()
	if err != nil {
		return nil, err
	}
	facts, err := c.facts()
	if err != nil {
		return nil, errors.Join(err, c.Kill())
	}
	c.leader, c.injecting = facts.leader, true
	loan := &Remote{
		e: c, opt: r.opt, size: r.size, at: r.at, boot: bootKey{c.leader, r.boot.addr}, final: r.final, signal: r.signal,
		undo: r.at.undo.End, undoEnd: r.at.undo.End, self: facts.self,
		data: arena{areas: slices.Clone(r.data.areas)},
	}
	loan.data.loosen()
	loan.data.reset()
	e.t.boots[loan.boot] = true
	// The copies of registered calls are not its to make.
	empty := part{loan.at.header.Start + headerUndo, words(uint64(loan.undo), uint64(loan.undoEnd))}
	err = errors.Join(c.setOptions(), c.transfer(unix.ProcessVMWritev, []part{empty}))
	if err == nil {
		err = errors.Join(loan.unmapAreas(), r.forgetBoots(c))
	}
	if err != nil {
		return nil, errors.Join(err, c.Kill(), loan.GiveBack(true))
	}
	return loan, nil
}
