package resource

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"github.com/crshim/crshim/tracer/procfs"
)

// pageIndex is what the page map tells of the memory of a process that stands
// still. It is read for all mappings at once, and beside other work.
type pageIndex struct {
	pages  []procfs.Range                 // private ones that no file has, ascending
	guards []procfs.Range                 // that fault on touch (madvise(2)), ascending
	same   map[procfs.Addr][]procfs.Range // those that are like the parent's, by the start of the mapping

	done chan struct{} // closed when all of it is there, or the error
	err  error
}

// indexed tells whether the page map tells of a mapping: of the kernel's own
// pages ([vvar]) and of devices it does not.
func indexed(m *procfs.Mapping) bool { return m.Flags&(procfs.VMIO|procfs.VMPFNMap) == 0 }

// worthSaving returns the pages of a mapping whose contents the image must
// hold: those that are neither zero nor still what the file says. Of shared
// memory there are none: the file has it all.
func (x *pageIndex) worthSaving(m *procfs.Mapping) []procfs.Range {
	if m.Perms.Shared || !indexed(m) {
		return nil
	}
	return intersect(x.pages, m.Range)
}

// guardsOf returns the ranges of a mapping that fault on touch (since Linux
// 6.13; the page map shows them since 6.15).
func (x *pageIndex) guardsOf(m *procfs.Mapping) []procfs.Range {
	if !indexed(m) {
		return nil
	}
	return intersect(x.guards, m.Range)
}

// Index begins to read the page maps of all processes, which are compared with
// their parents' as well. It must be ended by Close.
func (t *Tree) Index() {
	for _, v := range t.views {
		v.index = &pageIndex{done: make(chan struct{})}
	}
	var next atomic.Int64
	for range min(runtime.GOMAXPROCS(0), len(t.views)) {
		t.indexing.Go(func() {
			own, theirs := make([]byte, atOnce), make([]byte, atOnce)
			// Parents come before their children: nobody waits for one behind.
			for i := next.Add(1) - 1; i < int64(len(t.views)); i = next.Add(1) - 1 {
				v := t.views[i]
				if v.index.err = errClosed; !t.closed.Load() {
					v.index.err = t.index(v, own, theirs)
				}
				close(v.index.done)
			}
		})
	}
}

// errClosed is nobody's to see: who has closed the tree waits for nothing of it.
var errClosed = errors.New("the tree is not saved any more")

// Close ends the saving of the tree.
func (t *Tree) Close() {
	t.closed.Store(true)
	t.indexing.Wait()
}

// pageIndex waits for that of a process.
func (v *View) pageIndex() (*pageIndex, error) {
	<-v.index.done
	return v.index, v.index.err
}

// index reads one, with room for atOnce bytes of the process and its parent.
func (t *Tree) index(v *View, own, above []byte) (err error) {
	pagemap, err := v.Proc.Pagemap()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pagemap.Close()) }()
	if len(v.Mappings) == 0 {
		return nil
	}
	x := v.index
	all := procfs.Range{Start: v.Mappings[0].Start, End: v.Mappings[len(v.Mappings)-1].End}
	worth := procfs.PagesToSave
	worth.NoneOf &^= procfs.Guard
	if x.guards, x.pages, err = pagemap.Split(all, worth, procfs.Guard); err != nil {
		return err
	}
	parent := t.above(v)
	if parent == nil {
		return nil
	}
	inherited, err := parent.pageIndex()
	if err != nil {
		return fmt.Errorf("compare with %s: %w", parent.Name(), err)
	}
	theirs, err := parent.Proc.Pagemap()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, theirs.Close()) }()
	c := comparison{own: side{t.savers[v].memory, pagemap, own}, theirs: side{t.savers[parent].memory, theirs, above}}
	x.same = make(map[procfs.Addr][]procfs.Range)
	for i := range v.Mappings {
		m := &v.Mappings[i]
		p := v.legacy(m)
		if p == nil {
			continue
		}
		before := inherited.worthSaving(p)
		for _, r := range x.worthSaving(m) {
			for _, both := range intersect(before, r) {
				equal, err := c.equal(both)
				if err != nil {
					return fmt.Errorf("compare %s with that of %s: %w", v.MappingName(m), parent.Name(), err)
				}
				x.same[m.Start] = append(x.same[m.Start], equal...)
			}
		}
	}
	return nil
}

// comparison finds the pages that two processes have in common.
type comparison struct {
	own, theirs side
}

// side is one of the two.
type side struct {
	memory interface {
		Read(addr procfs.Addr, buf []byte) error
	}
	pagemap *procfs.Pagemap
	content []byte // of what was read last
}

const (
	// fruitless is after how many pages in vain no more of a range are compared by
	// their contents: to read them twice costs as much as it would save.
	fruitless = 16
	// atOnce is how much is read at a time, in bytes.
	atOnce = 64 << 10
)

// equal returns the pages of a range that are the same, or alike: some kernels
// copy small memory when they fork.
func (c *comparison) equal(r procfs.Range) ([]procfs.Range, error) {
	a, err := c.own.pagemap.Frames(r)
	if err != nil {
		return nil, err
	}
	b, err := c.theirs.pagemap.Frames(r)
	if err != nil {
		return nil, err
	}
	var same []procfs.Range
	var read procfs.Range // what content holds
	hits, misses := 0, 0
	for i := range a {
		page := procfs.Range{Start: r.Start + procfs.Addr(uint64(i)*procfs.PageSize)}
		page.End = page.Start + procfs.Addr(procfs.PageSize)
		equal := a[i] != 0 && a[i] == b[i]
		if !equal && misses <= fruitless+4*hits {
			if !read.ContainsRange(page) {
				read = procfs.Range{Start: page.Start, End: min(r.End, page.Start+atOnce)}
				if err := errors.Join(c.own.read(read), c.theirs.read(read)); err != nil {
					return nil, err
				}
			}
			from, to := page.Start-read.Start, page.End-read.Start
			equal = bytes.Equal(c.own.content[from:to], c.theirs.content[from:to])
			if equal {
				hits++
			} else {
				misses++
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

func (s *side) read(r procfs.Range) error {
	if err := s.memory.Read(r.Start, s.content[:r.Len()]); err != nil {
		return fmt.Errorf("read memory %v: %w", r, err)
	}
	return nil
}
