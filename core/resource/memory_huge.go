package resource

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// nursery is where contents are read into huge pages, which are then moved to
// where they belong: page faults are most of the time of a restart, and huge
// pages save them. A mapping that was advised to use huge pages itself would
// keep the mark of it for ever (UFFDIO_MOVE, ioctl_userfaultfd(2), since Linux
// 6.8). Without the call, pages are filled where they are.
type nursery struct {
	at   procfs.Range // empty until it is mapped
	uffd *stagedFile  // nil if the kernel cannot move pages
}

// Parts of include/uapi/linux/userfaultfd.h.
const (
	uffdUserModeOnly   = 1
	uffdAPI            = 0xaa
	uffdFeatureWP      = 1 << 0  // UFFD_FEATURE_PAGEFAULT_FLAG_WP
	uffdFeatureMove    = 1 << 16 // UFFD_FEATURE_MOVE
	uffdRegisterModeWP = 2       // leaves the kernel's own faults alone
	ioctlAPI           = 0xc018aa3f
	ioctlRegister      = 0xc020aa00
	ioctlUnregister    = 0x8010aa01
	ioctlMove          = 0xc028aa05
)

// openNursery asks once whether the kernel can move pages.
func openNursery(b *Builder) (*nursery, error) {
	if err := b.Flush(); err != nil {
		return nil, err
	}
	n := &nursery{}
	p := b.Stage()
	fd := p.Call(unix.SYS_USERFAULTFD, tracer.Imm(unix.O_CLOEXEC|uffdUserModeOnly))
	p.Ioctl(fd, ioctlAPI, tracer.Ptr(p.Bytes(quads(uffdAPI, uffdFeatureWP|uffdFeatureMove, 0))))
	b.stage = nil
	err := p.Run()
	var call *tracer.CallError
	switch {
	case fd.Err() == nil:
		n.uffd = &stagedFile{fd: b.fds.take(fd)}
		if err := b.fds.confirm(b.Remote); err != nil {
			return nil, err
		}
	case !errors.As(fd.Err(), &call):
		return nil, err
	}
	if err != nil && !errors.As(err, &call) {
		return nil, err
	}
	if err != nil && n.uffd != nil {
		n.uffd.closeStaged(b)
		n.uffd = nil
	}
	return n, nil
}

// quads packs 64-bit fields as the kernel's structures have them.
func quads(words ...uint64) []byte {
	var raw []byte
	for _, w := range words {
		raw = binary.LittleEndian.AppendUint64(raw, w)
	}
	return raw
}

// extents are the parts of the runs that fill huge pages whole.
func extents(runs []procfs.Range) []procfs.Range {
	var whole []procfs.Range
	for _, run := range runs {
		r := procfs.Range{Start: (run.Start + hugePage - 1) &^ (hugePage - 1), End: run.End &^ (hugePage - 1)}
		if r.Start < r.End {
			whole = append(whole, r)
		}
	}
	return whole
}

// suits tells whether pages may be moved into a mapping: the kernel demands
// the same kind and protection on both sides.
func (n *nursery) suits(m *stagedMapping) bool {
	const readWrite = image.VMRead | image.VMWrite
	access := m.vma.Flags & (readWrite | image.VMExec)
	return n.uffd != nil && m.private() && m.vma.Type == image.VMAAnon && (m.open || access == readWrite) &&
		m.vma.Flags&(image.VMExec|image.VMNoHugePage|image.VMHugePage|image.VMHugeTLB|image.VMGrowsDown) == 0
}

// register lets pages be moved into a mapping, until unregister.
func (n *nursery) register(b *Builder, m *stagedMapping) error {
	if err := n.mapIt(b); err != nil {
		return err
	}
	p := b.Stage()
	row := p.Ioctl(n.uffd.fd, ioctlRegister, tracer.Ptr(p.Bytes(quads(uint64(m.at.Start), m.at.Len(), uffdRegisterModeWP, 0))))
	b.Expect(row, fault.StageMemory, fmt.Sprintf("mapping %v", m.final))
	m.registered = true
	return nil
}

func (n *nursery) unregister(b *Builder, m *stagedMapping) {
	p := b.Stage()
	row := p.Ioctl(n.uffd.fd, ioctlUnregister, tracer.Ptr(p.Bytes(quads(uint64(m.at.Start), m.at.Len()))))
	b.Expect(row, fault.StageMemory, fmt.Sprintf("mapping %v", m.final))
	m.registered = false
}

// mapIt maps the nursery, as large as the largest chunk.
func (n *nursery) mapIt(b *Builder) error {
	if !n.at.Empty() {
		return nil
	}
	at, ok := b.Layout.Find(image.MaxChunk*procfs.PageSize, 0, hugePage)
	if !ok {
		return &fault.Error{Code: fault.StageRoom, Object: "huge pages"}
	}
	b.Layout.Occupy(at)
	n.at = at
	p := b.Stage()
	b.Expect(p.Mmap(at, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE|mapFixedNoReplace, tracer.FD(-1), 0),
		fault.StageMemory, "huge pages")
	p.Madvise(at, unix.MADV_HUGEPAGE).Tolerate() // a kernel without huge pages has small ones to move
	return nil
}

// drop gives the nursery up, because its place is wanted or the stage is over.
func (n *nursery) drop(b *Builder) {
	if n.at.Empty() {
		return
	}
	b.Stage().Munmap(n.at)
	b.Layout.Release(n.at)
	n.at = procfs.Range{}
}

// move adds the move of what has been read to the start of the nursery.
func (n *nursery) move(b *Builder, to procfs.Range) {
	p := b.Stage()
	row := p.Ioctl(n.uffd.fd, ioctlMove, tracer.Ptr(p.Bytes(quads(uint64(to.Start), uint64(n.at.Start), to.Len(), 0, 0))))
	b.Expect(row, fault.StageMemory, fmt.Sprintf("pages at %v", to))
}
