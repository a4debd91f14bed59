package resource

import (
	"cmp"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer/procfs"
)

// What a process has of its parent since it was forked is not in the image
// again: a mapping that both have says so, and where they differ. It is inherited
// again when the tree grows, and so the pages are shared again as well.

// inheritRecord lists [start, end) pairs of what a mapping lacks of its parent's.
type inheritRecord struct {
	Bounds []uint64 `fmt:"hex" doc:"where it has nothing, unlike the parent"`
}

const inheritKind image.Kind = 6213

// legacy is the same mapping of the parent, nil if there is none to inherit.
func (v *View) legacy(m *procfs.Mapping) *procfs.Mapping {
	parent := v.tree.above(v)
	if parent == nil {
		return nil
	}
	i, found := slices.BinarySearchFunc(parent.Mappings, m.Start, func(p procfs.Mapping, a procfs.Addr) int { return cmp.Compare(p.Start, a) })
	if !found {
		return nil
	}
	p := &parent.Mappings[i]
	const never = procfs.VMDontCopy | procfs.VMWipeOnFork | procfs.VMSealed | procfs.VMDroppable | procfs.VMHugeTLB
	if p.Range != m.Range || rawOf(p.Flags) != rawOf(m.Flags) || p.Offset != m.Offset || p.Name != m.Name || p.Deleted != m.Deleted ||
		mappedID(p) != mappedID(m) || p.ProtectionKey != m.ProtectionKey || m.Flags&never != 0 {
		return nil
	}
	if p.Perms.Shared || slices.Contains(specials[1:], p.Special()) || inodeKindOf(p) != nil ||
		len(parent.index.guardsOf(p)) > 0 || len(v.index.guardsOf(m)) > 0 {
		return nil
	}
	return p
}

// inherit writes in what a mapping differs from the parent's, and returns the
// pages that it does not have from there.
func (d *Saver) inherit(m *procfs.Mapping, pages []procfs.Range) ([]procfs.Range, error) {
	from := d.legacy(m)
	if from == nil {
		return pages, nil
	}
	lacks, same := d.tree.above(d.View).index.worthSaving(from), d.index.same[m.Start]
	if len(same) == 0 && len(lacks) > 0 {
		return pages, nil
	}
	own := pages
	for _, r := range pages {
		lacks = without(lacks, r)
	}
	for _, r := range same {
		own = without(own, r)
	}
	const most = 2000 // pairs that fit into one record
	for rec := new(inheritRecord); rec != nil; {
		var next *inheritRecord
		if len(lacks) > most {
			next = new(inheritRecord)
		}
		n := min(len(lacks), most)
		for _, r := range lacks[:n] {
			rec.Bounds = append(rec.Bounds, uint64(r.Start), uint64(r.End))
		}
		if err := d.W.Put(0, rec); err != nil {
			return nil, err
		}
		lacks, rec = lacks[n:], next
	}
	return own, nil
}

// loadInherit reads whether a mapping is the parent's, and what it lacks.
func (m *stagedMapping) loadInherit(b *Builder) error {
	for {
		kind, err := b.R.Peek()
		if err != nil || kind != inheritKind {
			return err
		}
		rec, _, err := image.Expect[inheritRecord](b.R)
		if err != nil {
			return err
		}
		m.inherited = true
		for pair := range slices.Chunk(rec.Bounds, 2) {
			if len(pair) != 2 || pair[0]%procfs.PageSize != 0 || pair[1]%procfs.PageSize != 0 ||
				pair[0] >= pair[1] || pair[0] < m.vma.Start || pair[1] > m.vma.End {
				return badImage(fault.ImageRange, fmt.Sprintf("mapping %v", m.final), "lacks %#x", pair)
			}
			m.lacks = append(m.lacks, procfs.Range{Start: procfs.Addr(pair[0]), End: procfs.Addr(pair[1])})
		}
	}
}

// inheritable tells whether one that is like the parent's may be that one.
func (m *stagedMapping) inheritable(from *stagedMapping) bool {
	if m.pool == 0 {
		return m.private()
	}
	return !m.private() && m.more.Objref == from.more.Objref && len(m.lacks) == 0
}

// takeOver makes what the process has inherited of its parent's stage its own.
func (r *memoryRestore) takeOver(b *Builder, m, last *stagedMapping) error {
	object := fmt.Sprintf("mapping %v", m.final)
	var from *stagedMapping
	if b.parent != nil {
		from = b.parent.mem.staged[m.final.Start]
	}
	if from == nil || from.final != m.final || from.vma.Flags != m.vma.Flags || from.vma.Type != m.vma.Type || from.vma.Pgoff != m.vma.Pgoff ||
		from.path != m.path || from.pool != m.pool || m.carried() || !m.inheritable(from) {
		return badImage(fault.ImageValue, object, "the parent has no such mapping")
	}
	if b.adopted {
		return r.copyOver(b, m, from, last)
	}
	if !b.Layout.TakeOver(from.at) {
		return badImage(fault.ImageValue, object, "it is not inherited")
	}
	if err := r.clear(b, m.final); err != nil {
		return err
	}
	if !b.Layout.Claim(m.final) {
		return badImage(fault.ImageRange, object, "overlaps another or lies outside of user space")
	}
	if m.at = from.at; m.at != m.final {
		b.Layout.Occupy(m.at)
		r.mapped = append(r.mapped, m)
	}
	m.touched = true
	for _, lack := range m.lacks {
		b.Expect(b.Stage().Madvise(shift(lack, m.at.Start-m.final.Start), unix.MADV_DONTNEED), fault.StageMemory, object)
	}
	return nil
}
