package resource

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// Memory of the huge page pool (hugetlbfs): mmap(2) with MAP_HUGETLB, and files
// of memfd_create(2) with MFD_HUGETLB. The stage takes from the pool what the
// commit needs, so that an empty one is found out in time.

const (
	vmaPoolKind   image.Kind = 6210
	memfdPoolKind image.Kind = 6211
)

// vmaPool completes the record of a mapping.
type vmaPool struct {
	PageSize uint64 `doc:"of the pool, in bytes"`
}

// memfdPool completes that of a memfd.
type memfdPool struct {
	PageSize uint64 `doc:"of the pool, in bytes"`
}

// poolPage tells whether there may be a pool of such pages. Whether this machine
// has it mmap(2) tells.
func poolPage(size uint64) bool {
	return size > procfs.PageSize && size <= 1<<34 && bits.OnesCount64(size) == 1
}

// poolFlags ask mmap(2) and memfd_create(2) for pages of that size (MAP_HUGE_SHIFT).
func poolFlags(size uint64) int { return bits.TrailingZeros64(size) << 26 }

// refusePool says why anonymous memory of the pool cannot be saved, or "".
func refusePool(v *View, m *procfs.Mapping) string {
	if !m.Perms.Shared {
		return ""
	}
	for i := range v.Mappings {
		if o := &v.Mappings[i]; o != m && mappedID(o) == mappedID(m) {
			return "shared, and mapped in parts"
		}
	}
	if m.Offset != 0 {
		return "shared, and mapped in part"
	}
	return ""
}

// isSharedPool tells whether a mapping is of a nameless file of the pool.
func isSharedPool(m *procfs.Mapping) bool {
	return m.Perms.Shared && m.Special() == procfs.SpecialHugeTLB
}

// inheritsPool tells whether a process has shared memory of the pool just as its
// parent does, so that it has it again when it is forked: nobody can map a part
// of it once more (mremap(2)).
func (t *Tree) inheritsPool(v *View, m *procfs.Mapping) bool {
	parent := t.above(v)
	return parent != nil && m.Flags&procfs.VMDontCopy == 0 && slices.ContainsFunc(parent.Mappings, func(p procfs.Mapping) bool {
		return p.Range == m.Range && rawOf(p.Flags) == rawOf(m.Flags) && mappedID(&p) == mappedID(m)
	})
}

// poolContents returns the pages of shared memory of the pool that the image
// must hold. Those that the process has not touched may be there all the same:
// they are read through the file, which leaves holes alone, or where that may
// not be opened through the memory.
func poolContents(d *Saver, m *procfs.Mapping) (pages []procfs.Range, err error) {
	pagemap, err := d.Proc.Pagemap()
	if err != nil {
		return nil, err
	}
	defer pagemap.Close()
	touched, err := pagemap.Scan(m.Range, procfs.Query{AnyOf: procfs.Present | procfs.Swapped})
	if err != nil {
		return nil, err
	}
	look := func(at procfs.Addr, buf []byte) error { return d.memory.Read(at, buf) }
	switch c, err := d.openMapped(m); {
	case err == nil:
		defer func() { _ = c.close() }() // only read from
		look = func(at procfs.Addr, buf []byte) error {
			_, err := c.pread(buf, int64(at-m.Start)+int64(m.Offset))
			return err
		}
	case !errors.Is(err, unix.EPERM):
		return nil, err
	}
	left := []procfs.Range{m.Range}
	for _, r := range touched {
		left = without(left, r)
	}
	for _, r := range left {
		for at := r.Start; at < r.End; at += procfs.Addr(m.KernelPageSize) {
			page := procfs.Range{Start: at, End: at + procfs.Addr(m.KernelPageSize)}
			empty, err := isEmpty(page, look)
			if err != nil {
				return nil, fmt.Errorf("read pages of %v: %w", page, err)
			}
			if !empty {
				touched = append(touched, page)
			}
		}
	}
	slices.SortFunc(touched, func(a, b procfs.Range) int { return cmp.Compare(a.Start, b.Start) })
	return touched, nil
}

// isEmpty tells whether a page holds nothing but zeros. One that cannot be had
// is not there: the pool has none to fill the hole with.
func isEmpty(page procfs.Range, look func(procfs.Addr, []byte) error) (bool, error) {
	buf := make([]byte, pieceOfFile)
	for at := page.Start; at < page.End; {
		piece := buf[:min(uint64(len(buf)), uint64(page.End-at))]
		err := look(at, piece)
		if errors.Is(err, unix.EFAULT) || errors.Is(err, unix.EIO) {
			return at == page.Start, nil
		}
		if err != nil || !bytes.Equal(piece, zeros[:len(piece)]) {
			return false, err
		}
		at += procfs.Addr(len(piece))
	}
	return true, nil
}

// checkPool refuses what no checkpoint has written of it.
func (m *stagedMapping) checkPool() string {
	size := m.pool
	switch {
	case (m.vma.Flags&image.VMHugeTLB != 0) != (size != 0):
		return "pool without its page size"
	case size == 0:
		return ""
	case !poolPage(size) || (m.vma.Start|m.vma.End|m.vma.Pgoff*procfs.PageSize)%size != 0:
		return fmt.Sprintf("pages of %d bytes", size)
	case m.vma.Type == image.VMAFile && !m.carried():
		return "pool of a named file"
	case m.vma.Flags&image.VMGrowsDown != 0:
		return "stack of the pool"
	case m.vma.Type == image.VMAAnon && !m.private() && m.vma.Pgoff != 0:
		return "part of a shared object"
	}
	return ""
}

// loadPool reads the size of its pages, if it is of the pool.
func (m *stagedMapping) loadPool(b *Builder) error {
	kind, err := b.R.Peek()
	if err != nil || kind != vmaPoolKind {
		return err
	}
	rec, _, err := image.Expect[vmaPool](b.R)
	if err == nil {
		m.pool = rec.PageSize
	}
	return err
}

// align is what its address is congruent to where it belongs.
func (m *stagedMapping) align() uint64 { return max(hugePage, m.pool) }

// below is how much of its nameless file lies before it: memory of the pool has
// one, of which a part may have been unmapped.
func (m *stagedMapping) below() uint64 {
	if m.pool == 0 || m.vma.Type != image.VMAAnon {
		return 0
	}
	return m.vma.Pgoff * procfs.PageSize
}

// stagePool adds the making of anonymous memory of the pool.
func (m *stagedMapping) stagePool(b *Builder, prot int) (*tracer.Row, error) {
	if !m.private() {
		if err := b.Objects.Add(object.SharedMemory, object.Ref(m.more.Objref), m); err != nil {
			return nil, badImage(fault.ImageValue, fmt.Sprintf("mapping %v", m.final), "%v", err)
		}
	}
	whole := procfs.Range{Start: m.at.Start - procfs.Addr(m.below()), End: m.at.End}
	row := b.Stage().Mmap(whole, prot, m.mapFlags()|unix.MAP_ANONYMOUS|unix.MAP_HUGETLB|poolFlags(m.pool), tracer.FD(-1), 0)
	if whole.Start < m.at.Start {
		b.Stage().Munmap(procfs.Range{Start: whole.Start, End: m.at.Start})
	}
	return row, nil
}

// fillPool reads the contents of a memfd of the pool, which can be written by
// way of memory alone.
func (b *Builder) fillPool(made *stagedOpen, size, page uint64) error {
	var at procfs.Range
	err := b.eachPieceOf(made.path, size, func(data *fileData) error {
		if at.Empty() {
			var ok bool
			if at, ok = b.Layout.Find(size, 0, page); !ok {
				return &fault.Error{Code: fault.StageRoom, Object: made.path}
			}
			b.Layout.Occupy(at)
			row := b.Stage().Mmap(at, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE|mapFixedNoReplace, made.fd, 0)
			b.Expect(row, fault.PoolEmpty, made.path)
			if err := b.Flush(); err != nil {
				return err
			}
		}
		err := b.Tracee.WriteMem(at.Start+procfs.Addr(data.Offset), data.Data)
		if errors.Is(err, unix.EFAULT) || errors.Is(err, unix.EIO) {
			return &fault.Error{Code: fault.PoolEmpty, Object: made.path, Err: unix.ENOMEM}
		}
		return err
	})
	if err == nil && !at.Empty() {
		b.Stage().Munmap(at)
		b.Layout.Release(at)
	}
	return err
}
