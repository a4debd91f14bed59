package resource

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer/procfs"
)

// sharedObject is shared anonymous memory on its way into the image. Its pages
// are written with the first mapping that shows them; what no mapping shows, at
// its first sight.
type sharedObject struct {
	ref  object.Ref
	size uint64
	data []procfs.Range // what is not a hole and not written yet, as offsets
}

func isSharedAnon(m *procfs.Mapping) bool {
	return m.Special() == procfs.SpecialSharedAnon || m.Special() == procfs.SpecialAnonShmem
}

// sharedObject returns the object behind a mapping, nil if there is none.
func (s *memorySave) sharedObject(d *Saver, m *procfs.Mapping) (o *sharedObject, first bool, err error) {
	if !isSharedAnon(m) {
		return nil, false, nil
	}
	id := mappedID(m)
	if o := d.tree.shared[id]; o != nil {
		return o, false, nil
	}
	c, err := d.contentsOf(m)
	if err != nil {
		return nil, false, err
	}
	o = new(sharedObject)
	err = o.measure(c)
	if err = errors.Join(err, c.close()); err != nil {
		return nil, false, err
	}
	o.ref, _ = d.Objects.Add(object.SharedMemory, id)
	d.tree.shared[id] = o
	return o, true, nil
}

// measure finds its size and data.
func (o *sharedObject) measure(c *contents) error {
	st, err := c.stat()
	if err != nil {
		return err
	}
	c.size = st.Size
	o.size = (uint64(st.Size) + procfs.PageSize - 1) &^ (procfs.PageSize - 1)
	for at := int64(0); at < c.size; {
		from, to, err := c.extent(at)
		if err != nil {
			return err
		}
		if from < to {
			o.data = append(o.data, procfs.Range{Start: procfs.Addr(from).PageDown(), End: procfs.Addr(to)})
		}
		at = to
	}
	return nil
}

// take returns the pages of a mapping that are to be written with it.
func (o *sharedObject) take(m *procfs.Mapping, guards []procfs.Range) []procfs.Range {
	shown := shownBy(m, guards)
	var pages []procfs.Range
	for _, r := range shown {
		for _, page := range intersect(o.data, r) {
			pages = append(pages, shift(page, m.Start-procfs.Addr(m.Offset)))
		}
		o.data = without(o.data, r)
	}
	return pages
}

// dumpHidden writes what no mapping shows: the object is larger than they are,
// or there is a guard before it.
func (o *sharedObject) dumpHidden(d *Saver, index *pageIndex, m *procfs.Mapping) error {
	hidden := o.data
	for i := range d.Mappings {
		if x := &d.Mappings[i]; isSharedAnon(x) && mappedID(x) == mappedID(m) {
			for _, r := range shownBy(x, index.guardsOf(x)) {
				hidden = without(hidden, r)
			}
		}
	}
	if len(hidden) == 0 {
		return nil
	}
	c, err := d.contentsOf(m)
	if err != nil {
		return err
	}
	c.size = int64(o.size)
	for _, r := range hidden {
		if err := c.dumpRange(d.W, uint32(o.ref), int64(r.Start), int64(r.End)); err != nil {
			return errors.Join(err, c.close())
		}
		o.data = without(o.data, r)
	}
	return c.close()
}

// shownBy returns the parts of the object, as offsets, that a mapping shows.
func shownBy(m *procfs.Mapping, guards []procfs.Range) []procfs.Range {
	shown := []procfs.Range{m.Range}
	for _, g := range guards {
		shown = without(shown, g)
	}
	for i := range shown {
		shown[i] = shift(shown[i], procfs.Addr(m.Offset)-m.Start)
	}
	return shown
}

func shift(r procfs.Range, by procfs.Addr) procfs.Range {
	return procfs.Range{Start: r.Start + by, End: r.End + by}
}

// intersect returns what an ascending set has in common with r.
func intersect(set []procfs.Range, r procfs.Range) []procfs.Range {
	var common []procfs.Range
	for i := firstEndingAfter(set, r.Start); i < len(set) && set[i].Start < r.End; i++ {
		if part, ok := set[i].Intersect(r); ok {
			common = append(common, part)
		}
	}
	return common
}

// without returns an ascending set less r.
func without(set []procfs.Range, r procfs.Range) []procfs.Range {
	var rest []procfs.Range
	for _, x := range set {
		hit, ok := x.Intersect(r)
		if !ok {
			rest = append(rest, x)
			continue
		}
		for _, part := range []procfs.Range{{Start: x.Start, End: hit.Start}, {Start: hit.End, End: x.End}} {
			if !part.Empty() {
				rest = append(rest, part)
			}
		}
	}
	return rest
}

// sharedObject returns the mapping of a shared anonymous object as a whole,
// which is made at its first sight. Mappings of the image are second views.
func (r *memoryRestore) sharedObject(b *Builder, m *stagedMapping) (*stagedMapping, error) {
	ref := object.Ref(m.more.Objref)
	bad := func(format string, args ...any) error {
		return badImage(fault.ImageValue, fmt.Sprintf("mapping %v", m.final), format, args...)
	}
	known, ok, err := b.Objects.Get(object.SharedMemory, ref)
	if err != nil {
		return nil, bad("%v", err)
	}
	if ok {
		base := known.(*stagedMapping)
		if base.more.Size != m.more.Size {
			return nil, bad("shared object of two sizes")
		}
		return r.viewOf(b, base)
	}
	base, err := r.mapAside(b, m.more.Size, unix.MAP_SHARED|m.mapFlags()&unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	base.more, base.by = m.more, b
	if err := b.Objects.Add(object.SharedMemory, ref, base); err != nil {
		return nil, bad("%v", err)
	}
	return base, r.loadHidden(b, base)
}

// loadHidden reads what no mapping shows of an object into the place where it
// is mapped as a whole.
func (r *memoryRestore) loadHidden(b *Builder, base *stagedMapping) error {
	for {
		kind, err := b.R.Peek()
		if err != nil || kind != fileDataKind {
			return err
		}
		piece, head, err := image.Expect[fileData](b.R)
		if err != nil {
			return err
		}
		n := uint64(len(piece.Data))
		if head.Parent != base.more.Objref || piece.Offset > base.more.Size || n > base.more.Size-piece.Offset {
			return badImage(fault.ImageValue, "shared memory", "%d bytes at %d of %d", n, piece.Offset, base.more.Size)
		}
		if err := b.Flush(); err != nil { // it may not be mapped yet
			return err
		}
		if err := b.Tracee.WriteMem(base.at.Start+procfs.Addr(piece.Offset), piece.Data); err != nil {
			return fmt.Errorf("write shared memory: %w", err)
		}
	}
}
