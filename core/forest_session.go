package core

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/image"
)

// stray is a session in which processes are that have not got it of those from
// whom they descend: who led it, or was between, has ended, and they were taken in
// by somebody further up, as daemons are.
type stray struct {
	number    int32
	parent    int   // of all of them, and of the leader
	processes []int // places among the living, ascending
	leader    int   // place among the living, -1 if it has ended
	waits     bool  // it has ended, and was not waited for
	signal    unix.Signal
	numbers   []int32 // of who led it, as process.numbers
	shares    uint32  // that any of them has together with the parent
}

// inherits tells whether a process leads its session, or has it from its parent,
// as that has it now or had it before it led one.
func (f *forest) inherits(i int) bool {
	p := &f.living[i]
	if i == 0 || p.VSession == p.VPID {
		return true
	}
	for at := p.maker; at >= 0; at = f.living[at].maker {
		switch a := &f.living[at]; {
		case a.VSession == p.VSession:
			return true
		case a.VSession != a.VPID:
			return false
		}
	}
	return false
}

// findStrays finds those sessions. All processes that come straight into one have
// one parent: so its leader can make them as children of that.
func (f *forest) findStrays() error {
	for i := range f.living {
		if f.inherits(i) {
			continue
		}
		p := &f.living[i]
		at := slices.IndexFunc(f.strays, func(s *stray) bool { return s.number == p.VSession })
		if at < 0 {
			at = len(f.strays)
			s := &stray{number: p.VSession, parent: p.parent, leader: -1, signal: unix.Signal(p.ExitSignal)}
			f.strays = append(f.strays, s)
		}
		s := f.strays[at]
		numbers := p.sessions()[:len(f.living[p.parent].levels)+1] // its leader is where the parent is
		if s.numbers == nil {
			s.numbers = numbers
		}
		if slices.Contains(numbers, 0) || !slices.Equal(numbers, s.numbers) || s.parent != p.parent || p.maker != p.parent || s.signal != unix.Signal(p.ExitSignal) {
			return badForest("process %d in session %d", p.VPID, p.VSession)
		}
		if p.Shares&image.SharesVM != 0 {
			return badForest("process %d in session %d, with the memory of another one", p.VPID, p.VSession)
		}
		s.processes = append(s.processes, i)
		s.shares |= p.Shares
	}
	for _, s := range f.strays {
		if err := f.findLeader(s); err != nil {
			return err
		}
	}
	for i := range f.living { // such a leader leads from the first
		p := &f.living[i]
		led := slices.ContainsFunc(f.strays, func(s *stray) bool { return s.leader == p.maker && s.number != p.VSession })
		if p.maker != p.parent && led && p.VSession != p.VPID {
			return badForest("process %d, made by process %d, in session %d", p.VPID, p.Maker, p.VSession)
		}
	}
	return nil
}

// findLeader finds who led a session, if anything is left of him.
func (f *forest) findLeader(s *stray) error {
	for i := range f.living {
		if f.living[i].VPID == s.number {
			s.leader = i
			if s.shares&^f.living[i].Shares != 0 { // they get it by way of the leader
				return badForest("process %d shares what others of session %d have", f.living[i].VPID, s.number)
			}
			if s.shares = f.living[i].Shares; s.shares&image.SharesVM != 0 {
				return badForest("process %d, with the memory of another one, leads session %d", f.living[i].VPID, s.number)
			}
			return s.check(&f.living[i])
		}
	}
	for i := range f.ended {
		if f.ended[i].VPID == s.number {
			s.waits = true
			return s.check(&f.ended[i])
		}
	}
	return nil
}

func (s *stray) check(leader *process) error {
	if leader.parent != s.parent || !slices.Equal(leader.numbers(), s.numbers) || leader.VSession != s.number || unix.Signal(leader.ExitSignal) != s.signal {
		return badForest("process %d does not lead session %d", leader.VPID, s.number)
	}
	return nil
}

// strayOf is the session that a process comes straight into, or leads, nil if that
// is none of those.
func (f *forest) strayOf(i int) *stray {
	for _, s := range f.strays {
		if s.leader == i || slices.Contains(s.processes, i) {
			return s
		}
	}
	return nil
}
