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

// Memory that processes share of whom none descends from the others: they had it of
// one who has dropped it since. Nothing leads to it but their mappings. It is in
// the image, whole, with the nearest from whom all of them descend, who has it
// until the commit: so its descendants find it when the tree grows.

// heldRecord is such memory. The records of a file that the image carries follow,
// or FILE_DATA of anonymous memory.
type heldRecord struct {
	Objref    uint32 `doc:"its reference"`
	NoReserve uint32 `doc:"1 if no swap space is reserved for it"`
	Size      uint64 `doc:"of anonymous memory, in bytes; 0 if it is a file"`
}

const heldKind image.Kind = 6221

// heldMemory is it on its way into the image, by a mapping of one who has it.
type heldMemory struct {
	view    *View
	mapping *procfs.Mapping
}

// sharedMemory finds it, and refuses what cannot be had in this way.
func (t *Tree) sharedMemory() fault.List {
	type sharing struct {
		heldMemory
		top   *View // from whom all of them descend
		other *View
	}
	var list fault.List
	var all []*sharing
	known := make(map[inodeID]*sharing)
	open := make(map[inodeID]bool)
	for i := range t.views[0].FDs {
		open[idOf(&t.views[0].FDs[i])] = true
	}
	for _, v := range t.views {
		for i := range v.Mappings {
			m := &v.Mappings[i]
			pool := isSharedPool(m)
			if !isSharedAnon(m) && !pool && inodeKindOf(m) == nil || open[mappedID(m)] {
				continue
			}
			first := known[mappedID(m)]
			if first == nil {
				first = &sharing{heldMemory{v, m}, v, nil}
				known[mappedID(m)], all = first, append(all, first)
			}
			if top := t.ancestor(first.top, v); top != first.top {
				first.top, first.other = top, v
			}
			if pool && first.view != v && t.descends(v, first.view) && !t.inheritsPool(v, m) {
				list = append(list, &fault.Error{Code: fault.MemoryShared, Object: v.MappingName(m),
					Detail: fmt.Sprintf("huge pages of %s, otherwise than its parent has them", first.view.Name())})
			}
		}
	}
	t.held = make(map[*View][]heldMemory)
	for _, s := range all {
		switch {
		case s.top.owner() == s.view:
		case isSharedPool(s.mapping) || s.mapping.Flags&procfs.VMHugeTLB != 0:
			list = append(list, &fault.Error{Code: fault.MemoryShared, Object: s.view.MappingName(s.mapping),
				Detail: fmt.Sprintf("with %s, while %s has it no more", s.other.Name(), s.top.Name())})
		default:
			top := s.top.owner()
			t.held[top] = append(t.held[top], s.heldMemory)
		}
	}
	return list
}

// ancestor is the nearest from whom both descend.
func (t *Tree) ancestor(a, b *View) *View {
	for !t.descends(b, a) {
		a = t.parents[a]
	}
	return a
}

// dumpHeld writes what the process is to have for its descendants.
func (d *Saver) dumpHeld() error {
	for _, h := range d.tree.held[d.View] {
		if err := h.dump(d.tree.savers[h.view]); err != nil {
			return fmt.Errorf("save %s: %w", h.view.MappingName(h.mapping), err)
		}
	}
	return nil
}

func (h heldMemory) dump(s *Saver) error {
	m := h.mapping
	if kind := inodeKindOf(m); kind != nil {
		ref, _ := s.Objects.Add(object.Inode, mappedID(m))
		if err := s.W.Put(0, &heldRecord{Objref: uint32(ref)}); err != nil {
			return err
		}
		return kind.dumpMapped(s, m, ref)
	}
	c, err := s.contentsOf(m)
	if err != nil {
		return err
	}
	return errors.Join(h.dumpAnon(s, c), c.close())
}

func (h heldMemory) dumpAnon(s *Saver, c *contents) error {
	o := new(sharedObject)
	if err := o.measure(c); err != nil {
		return err
	}
	o.ref, _ = s.Objects.Add(object.SharedMemory, mappedID(h.mapping))
	s.tree.shared[mappedID(h.mapping)] = o
	rec := heldRecord{Objref: uint32(o.ref), Size: o.size}
	if h.mapping.Flags&procfs.VMNoReserve != 0 {
		rec.NoReserve = 1
	}
	if err := s.W.Put(0, &rec); err != nil {
		return err
	}
	c.size = int64(o.size)
	for _, r := range o.data {
		if err := c.dumpRange(s.W, uint32(o.ref), int64(r.Start), int64(r.End)); err != nil {
			return err
		}
	}
	o.data = nil // the mappings add nothing to it
	return nil
}

// loadHeld makes it.
func (r *memoryRestore) loadHeld(b *Builder) error {
	for {
		kind, err := b.R.Peek()
		if err != nil || kind != heldKind {
			return err
		}
		rec, _, err := image.Expect[heldRecord](b.R)
		if err != nil {
			return err
		}
		ref := object.Ref(rec.Objref)
		what := fmt.Sprintf("memory %d", ref)
		if ref == 0 || rec.NoReserve > 1 || rec.Size > 1<<47 || rec.Size%procfs.PageSize != 0 {
			return badImage(fault.ImageValue, what, "%d bytes", rec.Size)
		}
		if rec.Size == 0 {
			if _, err := b.loadCarried(ref); err != nil {
				return err
			}
			continue
		}
		base, err := r.mapAside(b, rec.Size, unix.MAP_SHARED|int(rec.NoReserve)*unix.MAP_NORESERVE)
		if err != nil {
			return err
		}
		base.more = vmaMore{Objref: rec.Objref, Size: rec.Size}
		if err := b.Objects.Add(object.SharedMemory, ref, base); err != nil {
			return badImage(fault.ImageValue, what, "%v", err)
		}
		if err := r.loadHidden(b, base); err != nil {
			return err
		}
	}
}
