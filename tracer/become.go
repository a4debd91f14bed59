package tracer

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// State is what a thread's processor holds, and which signals it blocks.
type State struct {
	Regs    Regs
	Xstate  []byte // nil leaves it alone
	Sigmask uint64
}

// prepareFinal gives the task its new xstate and looks for a place for boot
// code in its new memory.
func (r *Remote) prepareFinal() error {
	if r.final.Xstate != nil {
		if err := r.e.SetXstate(r.final.Xstate); err != nil {
			return err
		}
	}
	r.releaseBoot()
	r.e.boot = nil
	boot, err := r.e.takeBoot(nil)
	if errors.Is(err, ErrNoPlace) {
		return nil
	}
	if err != nil {
		return err
	}
	r.boot = boot
	return r.e.pokeMem(boot.addr, bootImage(r.final.Regs.settled(), r.final.Sigmask, r.size))
}

// Become makes s the state in which the task goes on after Inject, or by
// itself if we end: from here on there is no way back to its own. The undo
// calls registered so far are dropped. The error, if s could not be taken on,
// matches ErrState, and nothing has changed.
//
// fs_base and gs_base are set at the end of Inject. For the case that we end
// before, the program must set them as well, by arch_prctl(2). With Restart
// the task makes its interrupted call again.
//
// Call it before the program that moves or unmaps the vdso.
func (r *Remote) Become(s State) error {
	if err := r.ready(); err != nil {
		return err
	}
	if err := ValidateRegs(s.Regs); err != nil {
		return fmt.Errorf("become: %w", err)
	}
	var parts []part
	if s.Xstate != nil {
		if err := ValidateXstate(s.Xstate); err != nil {
			return fmt.Errorf("become: %w", err)
		}
		whole := make([]byte, XstateSize())
		copy(whole, s.Xstate)
		parts = append(parts, part{r.at.xstate.Start, whole})
	}
	own := *r
	r.final, r.become, r.undo, r.undoEnd = s, true, r.at.undo.End, r.at.undo.End
	if r.parting != nil {
		// Below those that are still valid.
		if own.undo-r.at.undo.Start < rowSize {
			return r.e.fault("become in", ErrFull)
		}
		r.undo, r.undoEnd = own.undo-rowSize, own.undo
		parts = append(parts, part{r.undo, r.parting})
	}
	// The header is one page, which the kernel copies in one go: the state is
	// either the old or the new one, never a mixture.
	parts = append(parts, part{r.at.header.Start, r.header()})
	if err := r.e.transfer(unix.ProcessVMWritev, parts); err != nil {
		r.final, r.become, r.undo, r.undoEnd = own.final, own.become, own.undo, own.undoEnd
		return r.e.fault("become in", err)
	}
	r.undoGen++
	r.parting = nil
	r.data.loosen()
	return nil
}
