package resource

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// A task that was there before the restart does not inherit what its parent has
// staged, as a child that is forked would. It is handed the open files, gets
// copies of private memory, and maps shared memory by way of its parent's.

// Adopt hands the process the open files that its parent has staged, under the
// same numbers. It comes after Inherit.
func (b *Builder) Adopt() error {
	b.adopted = true
	own := make(map[int32]bool)
	for _, f := range b.parent.Caller.FDs {
		own[f.Number] = true
	}
	for _, fd := range slices.Sorted(maps.Keys(b.parent.fds.open)) {
		if own[fd] || tracer.FD(fd) == b.parent.taskIn {
			continue
		}
		if err := b.takeFrom(b.parent, tracer.FD(fd)); err != nil {
			return fmt.Errorf("hand fd %d to %s: %w", fd, b.Caller.Name(), err)
		}
	}
	return b.undoStage() // in place of what the transfers have registered
}

// takeFrom opens what stands behind a descriptor of another task.
func (b *Builder) takeFrom(other *Builder, fd tracer.FD) error {
	if !b.fds.vacant(fd) {
		return &fault.Error{Code: fault.TaskDescriptor, Object: b.Caller.FDName(int32(fd))}
	}
	file, err := other.Tracee.TakeFD(fd)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // the tasks hold it
	got, err := b.Remote.SendFD(file)
	if err != nil {
		return err
	}
	b.fds.put(fd)
	if got == fd {
		return nil
	}
	p := b.Remote.Program()
	p.Dup3(got, fd, unix.O_CLOEXEC)
	p.Close(got)
	if err := p.Run(); err != nil {
		return &fault.Error{Code: fault.DescriptorLimit, Object: b.Caller.FDName(int32(fd)), Err: err}
	}
	return nil
}

// HasTerminal tells whether a terminal of the tree is to be its controlling one: that
// cannot be given to a task that may have to go back.
func (b *Builder) HasTerminal() bool { return b.control != nil && b.control.pty != nil }

// Beyond is a descriptor above all that the process has open or staged.
func (b *Builder) Beyond() tracer.FD {
	last := int32(-1)
	for fd := range b.fds.open {
		last = max(last, fd)
	}
	return tracer.FD(last + 1)
}

// copyOver makes a private mapping that is like the parent's, and copies its pages.
func (r *memoryRestore) copyOver(b *Builder, m, from, last *stagedMapping) error {
	if m.pool != 0 {
		return &fault.Error{Code: fault.TaskMemory, Object: fmt.Sprintf("mapping %v", m.final), Detail: "huge pages"}
	}
	if err := r.place(b, m, last); err != nil {
		return err
	}
	if err := r.stage(b, m); err != nil {
		return err
	}
	pages, err := b.parent.pagesOf(from)
	if err != nil {
		return err
	}
	for _, lack := range m.lacks {
		pages = without(pages, lack)
	}
	if len(pages) == 0 {
		return nil
	}
	m.touched = true
	if err := m.makeWritable(b); err != nil {
		return err
	}
	if err := b.Flush(); err != nil {
		return err
	}
	for _, run := range pages {
		err := eachPiece([]procfs.Range{run}, func(piece procfs.Range, buf []byte) error {
			return errors.Join(b.parent.memory.Read(shift(piece, from.at.Start-from.final.Start).Start, buf),
				b.Tracee.WriteMem(shift(piece, m.at.Start-m.final.Start).Start, buf))
		})
		if err != nil {
			return fmt.Errorf("copy memory %v to %s: %w", run, b.Caller.Name(), err)
		}
	}
	return nil
}

// pagesOf returns the pages that a staged mapping has, as it lies in the end.
func (b *Builder) pagesOf(m *stagedMapping) ([]procfs.Range, error) {
	pagemap, err := b.Caller.Proc.Pagemap()
	if err != nil {
		return nil, err
	}
	defer func() { _ = pagemap.Close() }() // only read
	pages, err := pagemap.Scan(m.at, procfs.PagesToSave)
	if err != nil {
		return nil, fmt.Errorf("find pages of %v: %w", m.at, err)
	}
	for i := range pages {
		pages[i] = shift(pages[i], m.final.Start-m.at.Start)
	}
	return pages, nil
}

// viewOf returns where the process has a shared object as a whole. One that was
// there before maps it by its name in the map_files of who made it.
func (r *memoryRestore) viewOf(b *Builder, base *stagedMapping) (*stagedMapping, error) {
	if !b.adopted || base.by == b {
		return base, nil
	}
	if own := r.views[base]; own != nil {
		return own, nil
	}
	own, err := r.reserveAside(b, base.at.Len())
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("/proc/%d/map_files/%x-%x", base.by.VPID, uint64(base.at.Start), uint64(base.at.End))
	f, err := b.openFile(name, unix.O_RDWR, fault.TaskMemory)
	if err != nil {
		return nil, err
	}
	b.Expect(b.Stage().Mmap(own.at, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE|mapFixedNoReplace, f.fd, 0), fault.StageMemory, "shared memory")
	f.closeStaged(b)
	own.more = base.more
	if r.views == nil {
		r.views = make(map[*stagedMapping]*stagedMapping)
	}
	r.views[base] = own
	return own, nil
}

// wholeOf returns where the process has a segment as a whole.
func (g *stagedSegment) wholeOf(b *Builder) (*stagedMapping, error) {
	if !b.adopted || g.by == b {
		return g.whole, nil
	}
	if own := b.mem.views[g.whole]; own != nil {
		return own, nil
	}
	own, err := g.attach(b, 0)
	if err != nil {
		return nil, err
	}
	if b.mem.views == nil {
		b.mem.views = make(map[*stagedMapping]*stagedMapping)
	}
	b.mem.views[g.whole] = own
	return own, nil
}
