package core

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// names are the numbers of a process or group that has been made, from the pid
// namespace of the first process inwards.
type names []uint64

// at is its number in the namespace that lies that deep, 0 where it has none.
func (n names) at(depth int) uint64 {
	if depth < len(n) {
		return n[depth]
	}
	return 0
}

// to is what a process calls it.
func (n names) to(p *plant) uint64 { return n.at(len(p.levels)) }

// namesOf asks /proc for the numbers of a process.
func (r *restart) namesOf(e *tracer.Tracee) (n names, err error) {
	proc, err := procfs.Open(e.TID())
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	status, err := proc.Status()
	if err != nil {
		return nil, err
	}
	for _, number := range status.NStgid[len(r.plants[0].view.Status.NStgid)-1:] {
		n = append(n, uint64(number))
	}
	return n, nil
}

// choice is what clone3(2) is told of the numbers of a new process: the innermost
// first, without the outermost one if that is not to be chosen. The first one of a
// namespace has its number there in any case.
func (r *restart) choice(numbers []int32, all bool) (tids []tracer.TID) {
	switch {
	case !r.numbers && !r.inner:
		return nil
	case !all:
		numbers = numbers[1:]
	}
	for _, n := range slices.Backward(numbers) {
		tids = append(tids, tracer.TID(n))
	}
	return tids
}

// cloned are the flags of clone(2) by which a process is made.
func (f *forest) cloned(p *process) uint64 {
	flags := together(p.Shares)
	if f.opensLevel(p) {
		flags |= unix.CLONE_NEWPID
	}
	return flags
}

// joinBefore puts the parent of a process that is going to be made into its process
// group, if the process will not be able to name that: it is one of outside of its
// pid namespace.
func (r *restart) joinBefore(i int) error {
	p := &r.forest.living[i]
	if !r.forest.opensLevel(p) || p.groups()[len(p.levels)] != 0 {
		return nil
	}
	if err := r.leadGroup(); err != nil {
		return err
	}
	parent := r.plants[p.parent]
	if parent.moved || parent.leads || p.parent == 0 || p.VPgrp == r.plants[0].VPgrp && parent.kept && !r.regrouped {
		return nil
	}
	if len(parent.levels) > 0 && parent.groups()[len(parent.levels)] == 0 {
		return nil // nor can the parent, which has it of its own
	}
	group, err := r.groupFor(parent)
	if err != nil {
		return err
	}
	if group == 0 {
		return nil // of outside of the tree
	}
	parent.moved = true
	return parent.join(group)
}

// groupFor brings about the process group of a process before its time.
func (r *restart) groupFor(p *plant) (number uint64, err error) {
	group, known := r.groups[p.VPgrp]
	if known {
		return group.to(p), nil
	}
	leader := p
	if p.VPgrp == r.plants[0].VPgrp {
		leader = r.plants[0]
		own, err := leader.remote.Syscall(unix.SYS_GETPGID, 0)
		return own, err
	}
	at := slices.IndexFunc(r.plants, func(l *plant) bool { return l.VPID == p.VPgrp })
	if at < 0 {
		if r.groups[p.VPgrp], err = r.found(p); err != nil {
			return 0, err
		}
		return r.groups[p.VPgrp].to(p), nil
	}
	if leader = r.plants[at]; !leader.leads && leader != p {
		leader.moved = true
		if err := leader.join(0); err != nil {
			return 0, err
		}
	}
	if group, err = r.namesOf(leader.tracee); err != nil {
		return 0, err
	}
	return group.to(p), nil
}

// openForChildren has processes make their next children in another pid namespace,
// as unshare(1) does after its first one. Those that have failed would not go back:
// they end.
func (r *restart) openForChildren() error {
	for _, p := range r.plants {
		if p.opens == 0 {
			continue
		}
		refuse := func(err error) error {
			return &fault.Error{Code: fault.NestedMake, Object: p.view.Name(), Detail: "pid_for_children", Err: err}
		}
		if p == r.plants[0] && !r.blank {
			return refuse(nil)
		}
		first, err := r.namesOf(r.plants[r.forest.firstOf(p.opens)].tracee)
		if err != nil {
			return err
		}
		prog := p.remote.Program()
		process := prog.PidfdOpen(tracer.Imm(first.to(p)), 0)
		prog.Call(unix.SYS_SETNS, process, tracer.Imm(unix.CLONE_NEWPID))
		prog.Close(process)
		if err := prog.Run(); err != nil {
			return refuse(err)
		}
	}
	return nil
}
