package resource

import (
	"bytes"
	"errors"
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

// dumpedMapping is what a child can refer to.
type dumpedMapping struct {
	mapping *procfs.Mapping
	pages   []procfs.Range // that the image has, or the parent's parent
}

// legacy is the same mapping of the parent, nil if there is none to inherit.
func (d *Saver) legacy(m *procfs.Mapping) *dumpedMapping {
	parent := d.tree.parents[d.View]
	if parent == nil {
		return nil
	}
	before := parent.dumped[m.Start]
	if before == nil {
		return nil
	}
	p := before.mapping
	const never = procfs.VMDontCopy | procfs.VMWipeOnFork | procfs.VMSealed | procfs.VMDroppable | procfs.VMHugeTLB
	if p.Range != m.Range || rawOf(p.Flags) != rawOf(m.Flags) || p.Offset != m.Offset || p.Name != m.Name || p.Deleted != m.Deleted ||
		mappedID(p) != mappedID(m) || p.ProtectionKey != m.ProtectionKey || m.Flags&never != 0 {
		return nil
	}
	return before
}

// bequeath notes a mapping for the children.
func (d *Saver) bequeath(m *procfs.Mapping, pages, guards []procfs.Range) {
	if m.Perms.Shared || slices.Contains(specials[1:], m.Special()) || len(guards) > 0 || inodeKindOf(m) != nil || len(d.Children) == 0 {
		return
	}
	if d.dumped == nil {
		d.dumped = make(map[procfs.Addr]*dumpedMapping)
	}
	d.dumped[m.Start] = &dumpedMapping{m, pages}
}

// inherit writes in what a mapping differs from the parent's, and returns the
// pages that it does not have from there.
func (d *Saver) inherit(pagemap *procfs.Pagemap, m *procfs.Mapping, pages, guards []procfs.Range) ([]procfs.Range, error) {
	before := d.legacy(m)
	if before == nil || len(guards) > 0 {
		return pages, nil
	}
	var same []procfs.Range
	for _, r := range pages {
		for _, both := range intersect(before.pages, r) {
			equal, err := d.sameAsParent(pagemap, both)
			if err != nil {
				return nil, err
			}
			same = append(same, equal...)
		}
	}
	if len(same) == 0 && len(before.pages) > 0 {
		return pages, nil
	}
	lacks, own := before.pages, pages
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

// sameAsParent returns the pages of a range that are the parent's, or like them:
// some kernels copy small memory when they fork.
func (d *Saver) sameAsParent(pagemap *procfs.Pagemap, r procfs.Range) ([]procfs.Range, error) {
	theirs, err := d.tree.pagemapOf(d.tree.parents[d.View])
	if err != nil {
		return nil, err
	}
	a, err := pagemap.Frames(r)
	if err != nil {
		return nil, err
	}
	b, err := theirs.Frames(r)
	if err != nil {
		return nil, err
	}
	var same []procfs.Range
	contents := comparison{d: d, r: r}
	for i := range a {
		page := procfs.Range{Start: r.Start + procfs.Addr(uint64(i)*procfs.PageSize)}
		page.End = page.Start + procfs.Addr(procfs.PageSize)
		equal := a[i] != 0 && a[i] == b[i]
		if !equal {
			if equal, err = contents.equal(page); err != nil {
				return nil, err
			}
		}
		switch n := len(same); {
		case !equal:
		case n > 0 && same[n-1].End == page.Start:
			same[n-1].End = page.End
		default:
			same = append(same, page)
		}
	}
	return same, nil
}

// comparison compares pages of a range with the parent's by their contents.
type comparison struct {
	d            *Saver
	r            procfs.Range
	read         procfs.Range // what own and theirs hold
	own, theirs  []byte
	hits, misses int
}

const (
	// fruitless is after how many pages in vain no more are compared: to read them
	// twice costs as much as it would save.
	fruitless = 64
	// atOnce is how much is read at a time, in bytes.
	atOnce = 64 << 10
)

func (c *comparison) equal(page procfs.Range) (bool, error) {
	if c.misses > fruitless+4*c.hits {
		return false, nil
	}
	if !c.read.ContainsRange(page) {
		c.read = procfs.Range{Start: page.Start, End: min(c.r.End, page.Start+atOnce)}
		c.own, c.theirs = make([]byte, c.read.Len()), make([]byte, c.read.Len())
		parent := c.d.tree.savers[c.d.tree.parents[c.d.View]]
		if err := errors.Join(c.d.memory.Read(c.read.Start, c.own), parent.memory.Read(c.read.Start, c.theirs)); err != nil {
			return false, fmt.Errorf("read memory %v: %w", c.read, err)
		}
	}
	from, to := page.Start-c.read.Start, page.End-c.read.Start
	if !bytes.Equal(c.own[from:to], c.theirs[from:to]) {
		c.misses++
		return false, nil
	}
	c.hits++
	return true, nil
}

// pagemapOf opens the page map of a process for as long as the tree is saved.
func (t *Tree) pagemapOf(v *View) (*procfs.Pagemap, error) {
	if t.pagemap == nil || t.pagemapFor != v {
		if err := t.Close(); err != nil {
			return nil, err
		}
		pagemap, err := v.Proc.Pagemap()
		if err != nil {
			return nil, err
		}
		t.pagemap, t.pagemapFor = pagemap, v
	}
	return t.pagemap, nil
}

// Close ends the saving of the tree.
func (t *Tree) Close() error {
	if t.pagemap == nil {
		return nil
	}
	err := t.pagemap.Close()
	t.pagemap = nil
	return err
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
func (r *memoryRestore) takeOver(b *Builder, m *stagedMapping) error {
	object := fmt.Sprintf("mapping %v", m.final)
	var from *stagedMapping
	if b.parent != nil {
		from = b.parent.mem.staged[m.final.Start]
	}
	if from == nil || from.final != m.final || from.vma.Flags != m.vma.Flags || from.vma.Type != m.vma.Type || from.vma.Pgoff != m.vma.Pgoff ||
		from.path != m.path || from.pool != m.pool || m.carried() || !m.inheritable(from) {
		return badImage(fault.ImageValue, object, "the parent has no such mapping")
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
