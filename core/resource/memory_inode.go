package resource

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// Mappings of files that the image carries.

// carried tells such a mapping from one of a file that is found by its name.
func (m *stagedMapping) carried() bool { return m.vma.Type == image.VMAFile && m.more.Objref != 0 }

// late tells a mapping that could have been made only when its file had been
// sealed against writing: the kernel takes VM_MAYWRITE from it then
// (mm/memfd.c, memfd_check_seals_mmap). One that was made before has kept it.
func (m *stagedMapping) late() bool {
	return m.carried() && !m.private() && m.vma.Flags&(image.VMShared|image.VMMayWrite) == image.VMShared
}

// stageCarried adds the making of such a mapping.
func (r *memoryRestore) stageCarried(b *Builder, m *stagedMapping, prot int) (*tracer.Row, error) {
	file, err := r.carried(b, m)
	if err != nil {
		return nil, err
	}
	return file.mapping(b, m, prot)
}

// carried returns the file, which is made at its first sight.
func (r *memoryRestore) carried(b *Builder, m *stagedMapping) (carriedInode, error) {
	file, err := b.loadCarried(object.Ref(m.more.Objref))
	if err == nil && !slices.Contains(r.inodes, file) {
		r.inodes = append(r.inodes, file)
	}
	return file, err
}

// mapLate seals the files, and makes the mappings that come after that.
func (r *memoryRestore) mapLate(b *Builder) error {
	for _, file := range r.inodes {
		file.shutNow()
	}
	for p := b.parent; p != nil && len(r.lates) > 0; p = p.parent { // who made the file shuts it
		if err := p.Flush(); err != nil {
			return err
		}
	}
	for _, m := range r.lates {
		if err := r.stage(b, m); err != nil {
			return err
		}
		if err := r.finish(b, m); err != nil {
			return err
		}
	}
	return nil
}

// reserveAside returns a place for n bytes that are dropped at commit.
func (r *memoryRestore) reserveAside(b *Builder, n uint64) (*stagedMapping, error) {
	at, ok := b.Layout.Find(n, 0, hugePage)
	if !ok {
		return nil, &fault.Error{Code: fault.StageRoom, Object: "shared memory"}
	}
	b.Layout.Occupy(at)
	m := &stagedMapping{vma: &image.VMA{}, at: at}
	r.mapped = append(r.mapped, m)
	return m, nil
}

// mapAside maps memory of that kind.
func (r *memoryRestore) mapAside(b *Builder, n uint64, flags int) (*stagedMapping, error) {
	m, err := r.reserveAside(b, n)
	if err != nil {
		return nil, err
	}
	row := b.Stage().Mmap(m.at, unix.PROT_READ|unix.PROT_WRITE, flags|unix.MAP_ANONYMOUS|mapFixedNoReplace, tracer.FD(-1), 0)
	b.Expect(row, fault.StageMemory, "shared memory")
	return m, nil
}

// secondView adds the mapping of the same pages a second time, which an old
// size of 0 means to mremap(2).
func (b *Builder) secondView(whole, m *stagedMapping) *tracer.Row {
	from := whole.at.Start + procfs.Addr(m.vma.Pgoff*procfs.PageSize)
	return b.Stage().Mremap(procfs.Range{Start: from, End: from}, m.at.Len(), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, m.at.Start)
}
