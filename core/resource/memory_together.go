package resource

import (
	"fmt"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// Processes that have one memory without being threads (CLONE_VM): it is in the
// image with the first of them. The others are made by one who has it already, when
// all of it is staged, and stage in it what else they have: nothing of that is
// memory. When all have committed, and the memory is in place, they register what
// points into it, and are again in the calls that they were in.

// findMemory notes whose memory each has. Who has another one's has no mappings.
func (t *Tree) findMemory() {
	for _, v := range t.views {
		if t.shares[v]&image.SharesVM != 0 {
			v.memory, v.Mappings = t.parents[v].owner(), nil
		}
	}
}

// owner is the process with which its memory is saved.
func (v *View) owner() *View {
	if v.memory != nil {
		return v.memory
	}
	return v
}

// above is whose memory a process has got a copy of when it was made; nil for the root.
func (t *Tree) above(v *View) *View {
	if parent := t.parents[v]; parent != nil {
		return parent.owner()
	}
	return nil
}

// MemoryOf is the place of the process whose memory the i-th one has.
func (t *Tree) MemoryOf(i int) int {
	for t.shares[t.views[i]]&image.SharesVM != 0 {
		i = t.makers[i]
	}
	return i
}

// refuseSharers names what they must not have: threads would be made in memory that
// is not in place, and a filter could forbid what they do when it is.
func (t *Tree) refuseSharers() (list fault.List) {
	for _, v := range t.views {
		switch n := v.Status.SeccompFilters - v.BenignFilters; {
		case v.memory == nil:
		case v.Status.Threads > 1:
			list = append(list, v.refuseSharer(fmt.Sprintf("and has %d threads", v.Status.Threads)))
		case v.Status.Seccomp != 0 && n > 0:
			list = append(list, v.refuseSharer("and has seccomp filters"))
		}
	}
	return list
}

func (v *View) refuseSharer(why string) *fault.Error {
	return &fault.Error{Code: fault.MemoryTasks, Object: v.Name(), Detail: "with " + v.memory.Name() + ", " + why}
}

// sharesMemory tells whether the process has the memory of who has made it.
func (b *Builder) sharesMemory() bool { return b.shares&image.SharesVM != 0 }

// RoomFor reserves a place in the memory of the process for n bytes.
func (b *Builder) RoomFor(n uint64) (tracer.Addr, error) {
	if err := b.Flush(); err != nil {
		return 0, err
	}
	at, ok := b.Layout.Find(n, 0, procfs.PageSize)
	if !ok {
		return 0, &fault.Error{Code: fault.StageRoom, Object: b.Caller.Name()}
	}
	b.Layout.Occupy(at)
	return at.Start, nil
}

// loadSharing reads what stands in the place of the memory of such a process.
func loadSharing(b *Builder, mm *image.MM) error {
	if mm.MapCount != 0 {
		return badImage(fault.ImageValue, "address space", "%d mappings in one that is another process's", mm.MapCount)
	}
	if _, _, err := image.Expect[exeRecord](b.R); err != nil {
		return err
	}
	if _, _, err := image.Expect[auxvRecord](b.R); err != nil {
		return err
	}
	context, _, err := image.Expect[image.MMContext](b.R)
	if err == nil && context.NLDT != 0 {
		err = badImage(fault.ImageUnsupported, "local descriptor table", "%d entries", context.NLDT)
	}
	return err
}

// CommitSharing ends the commit of a process that has the memory of another one, once
// that is in place. Until then the end of the process would write to where its
// registrations point.
func (b *Builder) CommitSharing() error {
	if !b.sharesMemory() {
		return nil
	}
	leader := b.Threads[0]
	p := b.Remote.Program()
	for _, part := range leader.parts {
		if part, ok := part.(*threadRestore); ok {
			part.register(b, leader, p)
		}
	}
	if err := p.Run(); err != nil {
		return &fault.Error{Code: fault.CommitFailed, Object: b.Caller.Name(), Err: err}
	}
	return b.wake()
}
