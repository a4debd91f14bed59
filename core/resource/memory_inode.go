package resource

import (
	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
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

// carried returns a descriptor to map from.
func (r *memoryRestore) carried(b *Builder, m *stagedMapping) (tracer.FD, error) {
	inode, err := b.loadInode(object.Ref(m.more.Objref))
	if err != nil {
		return -1, err
	}
	if inode.shut != nil {
		r.inodes = append(r.inodes, inode)
	}
	if m.private() || m.vma.Flags&image.VMShared != 0 {
		return inode.made.fd, nil
	}
	if inode.readOnly == nil {
		inode.readOnly = b.reopen(inode.made, unix.O_RDONLY)
	}
	return inode.readOnly.fd, nil
}

// mapLate seals the files, and makes the mappings that come after that.
func (r *memoryRestore) mapLate(b *Builder) error {
	for _, inode := range r.inodes {
		inode.shutNow()
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
