package core

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// fork has a staged process make a child of those numbers, with flags of clone(2).
func (r *restart) fork(parent *plant, numbers []int32, signal unix.Signal, flags uint64) (*tracer.Tracee, error) {
	return r.forkBy(parent.remote, parent.view.Name(), numbers, signal, flags, 0)
}

func (r *restart) forkBy(parent *tracer.Remote, name string, numbers []int32, signal unix.Signal, flags uint64, at tracer.Addr) (*tracer.Tracee, error) {
	child, err := r.forkBorrowed(parent, name, numbers, signal, flags, at)
	if err != nil {
		return nil, err
	}
	return child.Settle()
}

// forkBorrowed is forkBy of one that is going to be worked on. at is that of roomFor.
func (r *restart) forkBorrowed(parent *tracer.Remote, name string, numbers []int32, signal unix.Signal, flags uint64, at tracer.Addr) (*tracer.Remote, error) {
	fork := func(tids []tracer.TID) (*tracer.Remote, error) {
		if at != 0 {
			return parent.ForkSharing(tids, signal, flags, at)
		}
		return parent.ForkBorrowed(tids, signal, flags)
	}
	child, err := fork(r.choice(numbers, r.numbers))
	if errors.Is(err, unix.EEXIST) && !r.keepPIDs && r.numbers {
		// Somebody was faster, or it is that of a process group or a session.
		r.warn("process id %d is taken: the process gets another one", numbers[0])
		child, err = fork(r.choice(numbers, false))
	}
	switch {
	case errors.Is(err, unix.EEXIST):
		return nil, &fault.Error{Code: fault.PIDTaken, Object: fmt.Sprintf("pid %d", numbers[0]), Err: err}
	case errors.Is(err, unix.EAGAIN):
		return nil, &fault.Error{Code: fault.ThreadLimit, Object: name, Err: err}
	case err != nil && flags&unix.CLONE_NEWPID != 0:
		return nil, &fault.Error{Code: fault.NestedMake, Object: name, Detail: "pid", Err: err}
	}
	return child, err
}

// chooseNumbers decides whether the processes get the numbers that they had: if
// the first one has, and all others are free and may be chosen.
func (r *restart) chooseNumbers() error {
	root := r.plants[0]
	whyNot := ""
	switch {
	case root.builder.VPID != procfs.PID(root.VPID):
		whyNot = fmt.Sprintf("the first one is %d, not %d", root.builder.VPID, root.VPID)
	case !root.builder.MayChoosePIDs():
		whyNot = "to choose them takes CAP_CHECKPOINT_RESTORE"
	default:
		p := root.remote.Program()
		var all []int32
		for _, process := range slices.Concat(r.forest.living[1:], r.forest.ended) {
			all = append(all, process.VPID)
		}
		for _, s := range r.forest.strays {
			all = append(all, s.number)
		}
		rows := make([]*tracer.Row, len(all))
		for i, number := range all {
			rows[i] = p.Call(unix.SYS_SCHED_GETSCHEDULER, tracer.Imm(uint64(number))).Tolerate()
		}
		if err := p.Run(); err != nil {
			return fmt.Errorf("look for free process ids: %w", err)
		}
		for i, row := range rows {
			if !errors.Is(row.Err(), unix.ESRCH) {
				whyNot = fmt.Sprintf("%d is taken", all[i])
			}
		}
	}
	r.numbers, r.inner = whyNot == "", root.builder.MayChoosePIDs()
	if r.numbers {
		return nil
	}
	if r.keepPIDs {
		return &fault.Error{Code: fault.PIDTaken, Object: "the processes of the tree", Detail: whyNot}
	}
	r.warn("the processes of the tree get new ids, as %s: a program that has noted the id of another one does not know it any more", whyNot)
	return nil
}
