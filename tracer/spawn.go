package tracer

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer/procfs"
)

// siblingFlags are those of a thread as pthread_create(3) makes it.
const siblingFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD |
	unix.CLONE_SYSVSEM | unix.CLONE_PARENT_SETTID | unix.CLONE_CHILD_CLEARTID

// Spawn makes new threads in the borrowed process, one for each of tids, which
// is its number in the innermost pid namespace, or 0 for any. They wait, with
// all signals blocked, and end if fn fails or we do. They have their memory at
// the page boundary at, which must be free for SiblingsSize bytes.
//
// After that: Program for each, Prepare, Become of the borrowed thread, Release
// in its last program, Halt, Settle, and Detach after Inject.
//
// The error wraps EAGAIN if there are too many threads, EEXIST if a number is
// taken, and EPERM if we may not choose (clone3(2)).
func (r *Remote) Spawn(at Addr, tids []TID) (*Siblings, error) {
	if err := r.ready(); err != nil {
		return nil, err
	}
	s, err := r.mapSiblings(at, len(tids), siblingsWait)
	if err == nil {
		err = r.Undo(unix.SYS_MUNMAP, uint64(s.region.Start), s.region.Len())
	}
	if err == nil {
		err = s.spawn(tids)
	}
	return s, r.e.fault("spawn siblings of", err)
}

func (s *Siblings) spawn(tids []TID) error {
	heads := make([]part, len(tids))
	for i := range tids {
		heads[i] = part{s.block(i), words(uint64(s.region.Start+siblingSpawned), uint64(s.word()))}
	}
	if err := s.r.e.transfer(unix.ProcessVMWritev, heads); err != nil {
		return err
	}
	before, err := s.r.e.threads()
	if err != nil {
		return err
	}
	p := s.r.Program()
	rows := make([]*Row, len(tids))
	for i, tid := range tids {
		block := s.block(i)
		args := cloneArgs{flags: siblingFlags, childTID: uint64(block + blockTID), parentTID: uint64(block + blockTID),
			stack: uint64(block) - 16, stackSize: 16}
		if tid != 0 {
			args.setTID, args.setTIDSize = uint64(p.Bytes(words(uint64(tid)))), 1
		}
		rows[i] = p.Call(unix.SYS_CLONE3, Ptr(p.Bytes(args.encode())), Imm(cloneArgsSize))
		rows[i].ctl |= ctlSpawn
		// Taken back from below: they are told to end, and are waited for, as
		// they run in memory that goes away.
		const wait = 0
		rows[i].Undo(unix.SYS_FUTEX, Ptr(block+blockTID), Imm(wait), rows[i], Imm(0))
		rows[i].Undo(unix.SYS_FUTEX, s.telling(siblingsEnd)...)
	}
	if err := p.Run(); err != nil {
		return err
	}
	return s.seize(before, rows)
}

// seize attaches to the new threads. They have the numbers that the rows say in
// their own namespace; in ours they are those that were not there before.
func (s *Siblings) seize(before []TID, rows []*Row) error {
	now, err := s.r.e.threads()
	if err != nil {
		return err
	}
	fresh := slices.DeleteFunc(now, func(tid TID) bool { return slices.Contains(before, tid) })
	if len(fresh) != len(rows) {
		return fmt.Errorf("%d threads are new, not %d: %w", len(fresh), len(rows), unix.ENOTRECOVERABLE)
	}
	byOwn := make(map[TID]TID, len(fresh))
	for _, tid := range fresh {
		own := tid
		if s.r.self != s.r.e.leader {
			if own, err = innermost(tid); err != nil {
				return err
			}
		}
		byOwn[own] = tid
	}
	for _, row := range rows {
		tid, ok := byOwn[TID(row.Result())]
		if !ok {
			return fmt.Errorf("find new thread %d: %w", row.Result(), unix.ESRCH)
		}
		e, err := s.r.e.t.Seize(tid, s.r.e.opt)
		if err != nil {
			return err
		}
		e.leader = s.r.e.leader
		s.tasks = append(s.tasks, e)
	}
	return nil
}

// threads lists the threads of the task's process.
func (e *Tracee) threads() ([]TID, error) {
	p, err := procfs.Open(e.leader)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return p.Threads()
}

// innermost is the number of a thread in its own pid namespace.
func innermost(tid TID) (TID, error) {
	p, err := procfs.Open(tid)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	status, err := p.Status()
	if err != nil {
		return 0, err
	}
	return status.NSpid[len(status.NSpid)-1], nil
}

// Own are the numbers of spawned threads in their own pid namespace, by the
// words that clone has stored.
func (s *Siblings) Own() ([]TID, error) {
	parts := make([]part, len(s.tasks))
	for i := range parts {
		parts[i] = part{s.block(i) + blockTID, make([]byte, 4)}
	}
	if err := s.r.e.transfer(unix.ProcessVMReadv, slices.Clone(parts)); err != nil {
		return nil, err
	}
	tids := make([]TID, len(parts))
	for i, p := range parts {
		tids[i] = TID(int32(uint32(p.data[0]) | uint32(p.data[1])<<8 | uint32(p.data[2])<<16 | uint32(p.data[3])<<24))
	}
	return tids, nil
}

// Prepare says what each sibling becomes once it has run its program. Become
// must follow: from then on they go on as well, should we end.
func (s *Siblings) Prepare(states []State) error {
	if err := s.write(states); err != nil {
		return fmt.Errorf("prepare siblings: %w", err)
	}
	var args []uint64
	for _, a := range s.telling(siblingsLeave) {
		w, _ := a.word()
		args = append(args, w)
	}
	s.r.parting = undoRow(unix.SYS_FUTEX, args)
	return nil
}

// Release adds a call that lets the siblings run their programs.
func (s *Siblings) Release(p *Program) { p.Call(unix.SYS_FUTEX, s.telling(siblingsRun)...) }

// Halt waits until they have done so, and stops them. The error is that of the
// first row that failed.
func (s *Siblings) Halt() error { return errors.Join(s.await(), s.halt()) }

// Settle gives them their states and takes their memory away. They are stopped
// until Detach.
func (s *Siblings) Settle(states []State) error {
	if err := s.give(states, true); err != nil {
		return err
	}
	return s.unmap()
}

// Detach lets them go.
func (s *Siblings) Detach() error {
	var errs []error
	for _, e := range s.tasks {
		errs = append(errs, e.Detach(0))
	}
	return errors.Join(errs...)
}

// Interrupted is Remote.Interrupted for one sibling, between Halt and Settle.
func (s *Siblings) Interrupted(i int, nr uintptr, args ...uint64) (int64, error) {
	e := s.tasks[i]
	result, err := s.interrupted(e, s.block(i), uint64(nr), args)
	return result, e.fault(fmt.Sprintf("interrupt %s in", syscallName(uint64(nr))), err)
}

func (s *Siblings) interrupted(e *Tracee, block Addr, nr uint64, args []uint64) (int64, error) {
	regs, err := e.getRegs()
	if err != nil {
		return 0, err
	}
	return e.interruptCall(regs.once(s.region.Start, block, nr, args...), func() error { return s.toCall(e) })
}

// toCall lets a sibling run up to the entry or exit of a system call.
func (s *Siblings) toCall(e *Tracee) error {
	for {
		if err := e.resume(unix.PTRACE_SYSCALL, 0); err != nil {
			return err
		}
		stop, err := e.waitNext(-1)
		switch {
		case err != nil:
			return err
		case stop.Gone():
			return ErrGone
		case stop.Kind == SyscallStop:
			return nil
		}
		if err := s.hold(e, stop); err != nil {
			return err
		}
	}
}
