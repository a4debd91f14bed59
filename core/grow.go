package core

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/resource"
	"github.com/crshim/crshim/tracer"
)

// A tree grows as it did at first: when the image comes to a process, its parent
// forks it, with all that it has staged by then, and the child stages what is
// its own. The children end with us, or with the stage, until all have committed;
// the root commits last.

// plant is a process of the image on its way.
type plant struct {
	process
	tracee  *tracer.Tracee
	view    *resource.View // before anything of the image was in it
	remote  *tracer.Remote // while it is borrowed
	builder *resource.Builder
	leads   bool // it leads a session of its own already
	kept    bool // in the process group of the first process since it was forked
	moved   bool // it has left that for its own already

	caller *arrival // it was there before, and waits in a call; nil for a child that is made
	lost   bool     // such a one is no longer itself
	gone   bool     // and is not ours any more
}

// load stages a process. One that is made here is settled when somebody needs it,
// at the end of grow at the latest.
func (r *restart) load(p *plant) (err error) {
	taskIn := r.taskIn
	if p.caller != nil {
		if taskIn, err = r.lendImage(p); err != nil {
			return err
		}
	}
	p.builder, err = resource.NewBuilder(p.view, p.number(), r.reader, r.in, taskIn, r.source, p.tracee, p.remote)
	if err != nil {
		return err
	}
	p.builder.XstateSize = int(r.fpu.XstateSize)
	p.builder.Policy, p.builder.Warn = r.policy, r.warn
	if p.parent >= 0 {
		if err := p.builder.Inherit(r.plants[p.maker].builder, p.Shares); err != nil {
			return err
		}
	}
	if p.parent < 0 && r.within != nil {
		// By restart(2) it comes into namespaces that stay as they are.
		if err := p.builder.LoadNamespaces(r.blank, r.within.Net != NetHost); err != nil {
			return err
		}
	}
	if p.caller != nil {
		if err := p.builder.Adopt(); err != nil {
			return err
		}
		if err := r.enlist(p); err != nil {
			return err
		}
	}
	if p.nested != nil {
		for _, text := range p.nested.settings {
			if err := p.builder.Setting(text); err != nil {
				return err
			}
		}
	}
	if err := p.builder.Load(); err != nil {
		return err
	}
	if p.parent >= 0 && p.caller == nil && p.Shares == 0 {
		return nil // it goes on while others are begun
	}
	return p.builder.Settle()
}

// grow makes and stages all processes but the first.
func (r *restart) grow() error {
	if len(r.forest.living) == 1 && len(r.forest.ended) == 0 {
		return nil
	}
	if err := r.expectChildren(0); err != nil {
		return err
	}
	if r.team != nil {
		if r.forest.hasNamespaces() {
			return &fault.Error{Code: fault.TaskPlace, Object: r.plants[0].view.Name(), Detail: "and some of its processes were in namespaces of their own"}
		}
		return r.growTeam()
	}
	if err := r.chooseNumbers(); err != nil {
		return err
	}
	for i, proc := range r.forest.living[1:] {
		parent := r.plants[proc.parent]
		if err := parent.builder.Settle(); err != nil {
			return err
		}
		if proc.parent > 0 && r.forest.inSession(i+1, parent.VPID) {
			if err := parent.lead(); err != nil {
				return err
			}
		}
		if err := r.plants[proc.maker].builder.Settle(); err != nil {
			return err
		}
		if err := r.joinBefore(i + 1); err != nil {
			return err
		}
		made, err := r.bear(i + 1)
		if err != nil {
			return err
		}
		p := &plant{process: proc, tracee: made.tracee, remote: made.remote, leads: made.leads}
		p.kept = made.remote != nil && (proc.parent == 0 || parent.kept) && !parent.leads && !parent.moved
		r.plants = append(r.plants, p)
		if p.remote == nil {
			options := tracer.InjectOptions{ScratchSize: scratchSize}
			if options.At, err = r.roomFor(p.maker, p.Shares); err != nil {
				return err
			}
			if p.remote, err = p.tracee.Borrow(options); err != nil {
				return err
			}
		}
		if err := r.enterNested(i+1, p); err != nil {
			return err
		}
		if p.view, err = resource.Offspring(parent.view, p.tracee.TID()); err != nil {
			return err
		}
		p.view.Hide(p.remote.Scratch())
		if err := r.load(p); err != nil {
			return err
		}
		if leader := r.leaderOf(p); leader != nil {
			if err := errors.Join(leader.builder.Settle(), p.builder.Settle()); err != nil {
				return err
			}
			if err := p.builder.InheritTerminal(leader.builder); err != nil {
				return err
			}
		}
		if err := r.bearSiblings(i + 1); err != nil {
			return err
		}
	}
	for _, p := range r.plants {
		if err := p.builder.Settle(); err != nil {
			return err
		}
	}
	return nil
}

// leaderOf is the process whose session a new one has come into.
func (r *restart) leaderOf(p *plant) *plant {
	for at := p.maker; at >= 0; at = r.plants[at].maker {
		if r.plants[at].leads {
			return r.plants[at]
		}
	}
	return nil
}

// growTeam stages the tasks that were there before.
func (r *restart) growTeam() (err error) {
	for _, p := range r.plants[1:] {
		if p.remote, err = p.tracee.Borrow(tracer.InjectOptions{ScratchSize: scratchSize}); err != nil {
			return err
		}
		if err := r.load(p); err != nil {
			return err
		}
		if p.builder.HasTerminal() {
			return &fault.Error{Code: fault.TaskSession, Object: p.view.Name(), Detail: "with a controlling terminal of the tree"}
		}
	}
	return nil
}

// expectChildren prepares a caller for those that it will have.
func (r *restart) expectChildren(of int) error {
	var signals []unix.Signal
	for _, p := range slices.Concat(r.forest.living, r.forest.ended) {
		if p.parent == of {
			signals = append(signals, unix.Signal(p.ExitSignal))
		}
	}
	return r.plants[of].builder.ExpectChildren(signals)
}

// together turns image.Process.Shares into flags of clone(2).
func together(shares uint32) (flags uint64) {
	if shares&image.SharesFiles != 0 {
		flags |= unix.CLONE_FILES
	}
	if shares&image.SharesFS != 0 {
		flags |= unix.CLONE_FS
	}
	if shares&image.SharesVM != 0 {
		flags |= unix.CLONE_VM
	}
	if shares&image.SharesSighand != 0 {
		flags |= unix.CLONE_SIGHAND
	}
	return flags
}

// lead makes a process the leader of a session.
func (p *plant) lead() error {
	if p.leads {
		return nil
	}
	p.leads = true
	if _, err := p.remote.Syscall(unix.SYS_SETSID); err != nil {
		return fmt.Errorf("make %s lead a session: %w", p.view.Name(), err)
	}
	return p.builder.TakeTerminal()
}

// commit puts all processes in place. The first one, which may be a caller that
// can go back so far, comes last.
func (r *restart) commit() error {
	for _, p := range slices.Backward(r.plants) {
		if err := p.builder.Commit(); err != nil {
			lost := errors.Is(err, fault.CommitFailed)
			r.lost, p.lost = p == r.plants[0] && lost, lost
			return err
		}
		p.lost = true // no longer who it was
	}
	for _, p := range r.plants {
		if err := p.builder.CommitSharing(); err != nil {
			return err
		}
	}
	return nil
}

// roomFor is where a process that has the memory of its maker has its scratch memory
// in that; anywhere, if it has its own.
func (r *restart) roomFor(maker int, shares uint32) (tracer.Addr, error) {
	if shares&image.SharesVM == 0 {
		return 0, nil
	}
	return r.plants[maker].builder.RoomFor(scratchSize)
}

// giveBack ends the borrowing. If the restart has failed no child is left.
func (r *restart) giveBack(failed bool) error {
	var errs []error
	if failed {
		errs = append(errs, r.endUnborn())
	}
	for _, p := range slices.Backward(r.plants) {
		if p.builder != nil {
			errs = append(errs, p.builder.Close())
		}
		if p.remote != nil { // a child waits for its own children: they must not be left to others
			if err := p.remote.GiveBack(failed); err != nil && !(failed && errors.Is(err, tracer.ErrGone)) {
				errs = append(errs, err)
			}
		}
		if failed && p != r.plants[0] && p.caller == nil {
			errs = append(errs, p.tracee.Kill())
		}
	}
	return errors.Join(errs...)
}

// letGo lets all processes run. Until here their end was ours.
func (r *restart) letGo() error {
	var errs []error
	for _, p := range r.plants[1:] {
		if p.caller == nil {
			errs = append(errs, p.tracee.SetExitKill(false))
		}
	}
	for _, p := range slices.Backward(r.plants) {
		p.gone = true
		errs = append(errs, p.tracee.Detach(0), p.builder.Detach())
	}
	return errors.Join(errs...)
}

func (r *restart) closePlants() {
	for _, p := range r.plants {
		if p.view != nil {
			p.view.Close()
		}
	}
}
