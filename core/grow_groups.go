package core

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
)

// arrange brings about sessions and process groups, and lets those end that had
// ended, once all processes are there.
func (r *restart) arrange() error {
	if err := r.leadGroup(); err != nil {
		return err
	}
	if len(r.forest.living) == 1 && len(r.forest.ended) == 0 {
		return nil
	}
	for _, p := range r.plants[1:] {
		if p.VSession == p.VPID {
			if err := p.lead(); err != nil {
				return err
			}
		}
	}
	if err := r.group(); err != nil {
		return err
	}
	if err := r.foreground(); err != nil {
		return err
	}
	if err := r.end(); err != nil {
		return err
	}
	return r.openForChildren()
}

// group brings about the process groups. That of the first process is whatever
// it is, and so is everybody's who was in it.
func (r *restart) group() error {
	now := r.groups
	own, err := r.plants[0].remote.Syscall(unix.SYS_GETPGID, 0)
	if err != nil {
		return err
	}
	now[r.plants[0].VPgrp] = names{own}
	for _, p := range r.plants[1:] {
		if p.VPgrp != p.VPID || p.leads {
			continue // who leads a session leads a group
		}
		if err := p.join(0); err != nil {
			return err
		}
	}
	for _, p := range r.plants[1:] {
		if p.VPgrp == p.VPID {
			if now[p.VPgrp], err = r.namesOf(p.tracee); err != nil {
				return err
			}
		}
	}
	for _, p := range r.plants[1:] {
		if p.VPgrp == p.VPID || p.VPgrp == r.plants[0].VPgrp && p.kept && !p.leads && !r.regrouped {
			continue
		}
		group, known := now[p.VPgrp]
		number := group.to(p)
		if known && number == 0 {
			continue // one of outside has no number here: it has it from its parents, and 0 would ask for one of its own
		}
		if known {
			if err := p.join(number); err != nil {
				return err
			}
			continue
		}
		if now[p.VPgrp], err = r.found(p); err != nil {
			return err
		}
	}
	return nil
}

func (p *plant) join(group uint64) error {
	if p.caller != nil {
		now, err := p.remote.Syscall(unix.SYS_GETPGID, 0)
		if err != nil {
			return err
		}
		if now == group || group == 0 && now == uint64(p.builder.VPID) {
			return nil
		}
		if err := p.remote.Undo(unix.SYS_SETPGID, 0, now); err != nil {
			return err
		}
	}
	if _, err := p.remote.Syscall(unix.SYS_SETPGID, 0, group); err != nil {
		return &fault.Error{Code: fault.GroupFailed, Object: p.view.Name(), Detail: fmt.Sprintf("group %d", p.VPgrp), Err: err}
	}
	return nil
}

// found makes a group whose leader is no more, by one who ends again when the
// process has joined him.
func (r *restart) found(p *plant) (group names, err error) {
	leader, err := r.fork(p, p.groups(), 0, 0)
	if err != nil {
		return nil, err
	}
	err = leader.Inject(tracer.InjectOptions{}, func(rem *tracer.Remote) error {
		if group, err = r.namesOf(leader); err != nil {
			return err
		}
		_, err := rem.Syscall(unix.SYS_SETPGID, 0, 0)
		return err
	})
	if err == nil {
		err = p.join(group.to(p))
	}
	if err = errors.Join(err, leader.Kill()); err != nil {
		return nil, err
	}
	_, err = p.remote.Syscall(unix.SYS_WAIT4, group.to(p), 0, unix.WALL, 0)
	return group, err
}
