package core

import (
	"golang.org/x/sys/unix"
)

// Who has something together with a sibling, and not with the parent, is made by that
// sibling, as a child of the parent that both have (CLONE_PARENT).

// bearSiblings has a staged process make those siblings. It comes before the process
// leads a session, or after that where they belong into it.
func (r *restart) bearSiblings(i int) error {
	maker := r.plants[i]
	for _, led := range []bool{false, true} {
		for k := i + 1; k < len(r.forest.living); k++ {
			if p := &r.forest.living[k]; p.maker != i || p.parent == i || r.forest.inSession(k, maker.VPID) != led {
				continue
			}
			if led {
				if err := maker.lead(); err != nil {
					return err
				}
			}
			if err := r.bearSibling(maker, k); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *restart) bearSibling(maker *plant, k int) error {
	if err := maker.builder.Settle(); err != nil {
		return err
	}
	p := &r.forest.living[k]
	parent := r.plants[p.parent].remote
	// The maker is not the one who has to wait for it if the stage fails.
	wait := func(number uint64) error { return parent.Undo(unix.SYS_WAIT4, number, 0, unix.WALL, 0) }
	if r.numbers {
		if err := wait(uint64(p.number())); err != nil {
			return err
		}
	}
	at, err := r.roomFor(p.maker, p.Shares)
	if err != nil {
		return err
	}
	child, err := r.forkBy(maker.remote, maker.view.Name(), p.numbers(), 0, unix.CLONE_PARENT|together(p.Shares), at)
	if err != nil {
		return err
	}
	r.born[k] = &born{tracee: child}
	names, err := r.namesOf(child)
	if number := names.to(r.plants[p.parent]); err == nil && !(r.numbers && number == uint64(p.number())) {
		err = wait(number)
	}
	return err
}
