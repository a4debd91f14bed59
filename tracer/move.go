package tracer

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer/procfs"
)

// Move relocates scratch memory to a page boundary where it overlaps nothing
// that is mapped, itself included; it wraps EEXIST where it would. Registered
// undo calls and a state from Become go along. Data of programs does not:
// addresses from before are void.
func (r *Remote) Move(to Addr) error {
	err := r.ready()
	if err == nil && r.unrun > 0 {
		panic("tracer: Move while a Program is being built")
	}
	if err == nil {
		err = r.move(to)
	}
	return r.e.fault(fmt.Sprintf("move scratch memory to %v in", to), err)
}

func (r *Remote) move(to Addr) error {
	if err := r.unmapAreas(); err != nil {
		return err
	}
	if to == 0 || to%Addr(procfs.PageSize) != 0 {
		return unix.EINVAL
	}
	old, oldUndo, stale := r.at, r.undo, r.at.undo.End-r.undoEnd
	p := r.begin()
	m := p.Call(unix.SYS_MMAP, immediates(mmapArgs(to, r.size))...)
	m.Undo(unix.SYS_MUNMAP, m, Imm(r.size))
	p.Call(unix.SYS_MMAP, immediates(codeArgs(to))...)
	if err := p.Run(); err != nil {
		return err
	}
	// The topmost undo row unmaps the new place. Its copy there unmaps the old.
	withNew := r.undo
	kept := make([]byte, old.undo.End-oldUndo)
	var xstate []byte
	parts := []part{{oldUndo, kept}}
	if r.become && r.final.Xstate != nil {
		xstate = make([]byte, XstateSize())
		parts = append(parts, part{old.xstate.Start, xstate})
	}
	if err := r.e.transfer(unix.ProcessVMReadv, parts); err != nil {
		return err
	}
	if err := r.e.pokeMem(to, stubCode); err != nil {
		return err
	}
	r.setLayout(layOut(to, r.size))
	r.undo, r.undoEnd = r.at.undo.End-Addr(len(kept))-rowSize, r.at.undo.End-stale
	table := append(undoRow(unix.SYS_MUNMAP, []uint64{uint64(old.whole.Start), r.size}), kept...)
	parts = []part{{r.undo, table}, {r.at.xstate.Start, xstate}, {r.at.header.Start, r.header()}}
	err := r.e.transfer(unix.ProcessVMWritev, parts)
	if err == nil {
		// Now the task parks in the new place.
		err = r.e.pokeUser(offsetRIP, uint64(r.at.code.Start+stubParked))
	}
	if err != nil {
		r.setLayout(old)
		r.undo, r.undoEnd = withNew, old.undo.End-stale
		return err
	}
	unmapOld := &Undo{r: r, below: r.at.undo.End - r.undo, gen: r.undoGen}
	p = r.begin()
	p.Munmap(old.whole)
	p.Forget(unmapOld)
	if err := p.Run(); err != nil {
		return errors.Join(errors.New("unmap the old place"), err)
	}
	return nil
}
