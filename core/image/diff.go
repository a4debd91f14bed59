package image

import (
	"cmp"
	"hash/maphash"
	"slices"
)

// Difference is what two images do not have in common. When they were written
// does not count, nor the checksum, which follows from the rest.
type Difference struct {
	Records []RecordChange // by task, section and item
	Pages   []PageChange   // by task and address
}

// Same reports that there is none.
func (d *Difference) Same() bool { return len(d.Records) == 0 && len(d.Pages) == 0 }

// RecordChange is a record that has changed, or that one image alone has. Of a
// task, mapping, descriptor or thread that one image alone has there is just
// the record that opens it.
type RecordChange struct {
	Task     int32 // its process id, in A if it is there; 0 outside of tasks
	Item     Item
	Name     string // of the kind
	InA, InB bool
	Fields   []FieldChange // those that differ, or all if one image alone has the record
}

// FieldChange is one field of a record as Fields writes it, "" in an image
// that has none. A and B are equal if they say only how many bytes it has.
type FieldChange struct {
	Name, A, B string
}

// PageChange is the pages of one mapping that differ. A page that an image does
// not hold is one of the mapping's file, or zeros.
type PageChange struct {
	Task         int32
	Mapping      string // its file, [heap], [stack] or ""
	Start, End   uint64 // from the first of the pages to behind the last
	Changed      int    // pages that both images hold
	OnlyA, OnlyB int    // pages that one image alone holds
}

// Item is what a record is about within its task.
type Item struct {
	Kind ItemKind
	ID   uint64 // address of a mapping, number of a descriptor or thread
}

// ItemKind is a kind of Item.
type ItemKind uint8

const (
	Whole ItemKind = iota // the task, or outside of tasks the image
	Mapping
	Descriptor
	OneThread
)

// SideError is the error of one of two images.
type SideError struct {
	B   bool // the second one
	Err error
}

// Error returns the text of the error itself.
func (e *SideError) Error() string { return e.Err.Error() }

// Unwrap returns the error itself.
func (e *SideError) Unwrap() error { return e.Err }

// Diff reads two images side by side and returns what differs. Tasks belong
// together if they have the same process id or, if no two have, if they stand
// in the same place. A *SideError says which image could not be read.
//
// What was read is kept as digests, and only until its counterpart is met: that
// is some 100 bytes for each page that one image alone holds.
func Diff(a, b *Reader) (*Difference, error) {
	d := &differ{
		seed:    maphash.MakeSeed(),
		records: map[place]*loose{},
		pages:   map[pagePlace]loosePage{},
		rows:    map[pagePlace]*PageChange{},
	}
	for i, r := range []*Reader{a, b} {
		d.sides[i] = &side{d: d, r: r, start: r.Offset(), isB: i == 1, count: map[place]int{}}
	}
	// The lists of tasks come first: they say which ones belong together.
	for _, s := range d.sides {
		for !s.listed && !s.r.Done() {
			if err := s.step(); err != nil {
				return nil, err
			}
		}
	}
	if err := d.match(); err != nil {
		return nil, err
	}
	for {
		// Whichever is behind goes on, so that counterparts are met soon.
		s, other := d.sides[0], d.sides[1]
		if s.r.Done() || !other.r.Done() && other.read() < s.read() {
			s = other
		}
		if s.r.Done() {
			return d.result(), nil
		}
		if err := s.step(); err != nil {
			return nil, err
		}
	}
}

// differ is what is known of both images so far.
type differ struct {
	seed    maphash.Seed
	sides   [2]*side
	byPID   bool                    // tasks belong together by process id, not by order
	records map[place]*loose        // whose counterpart was not met
	pages   map[pagePlace]loosePage // whose counterpart was not met
	changed []found
	rows    map[pagePlace]*PageChange // by the first address of the mapping
}

// place is where a record stands; in one image there is one at each.
type place struct {
	task int // a process id or an ordinal from 1 on; 0 outside of tasks
	item Item
	kind Kind
	nth  int // of this kind in this item
}

// loose is a record without its counterpart.
type loose struct {
	side    *side
	section Section
	seq     int // in its image
	name    string
	fields  []digested
}

type digested struct {
	name, text string
	sum        uint64
}

// pagePlace is where a page or a mapping is.
type pagePlace struct {
	task int
	addr uint64
}

// loosePage is one without its counterpart.
type loosePage struct {
	sum     uint64
	isB     bool
	mapping int // of its side
}

// found is a record that differs, with what it is sorted by.
type found struct {
	place
	section Section
	seq     int
	RecordChange
}

// match decides which tasks belong together, and compares their ids.
func (d *differ) match() error {
	a, b := d.sides[0], d.sides[1]
	d.byPID = slices.ContainsFunc(a.tasks, func(t PIDs) bool {
		return slices.ContainsFunc(b.tasks, func(u PIDs) bool { return t.VPID == u.VPID })
	})
	for _, s := range d.sides {
		for i, ids := range s.tasks {
			fields, err := d.digest(&ids)
			if err != nil {
				return err
			}
			s.section = InTree
			s.meet(place{task: s.key(i), kind: KindTree}, "pids", fields)
		}
	}
	return nil
}

// pid returns the process id of a task, that in A if it is there.
func (d *differ) pid(task int) int32 {
	if d.byPID || task == 0 {
		return int32(task)
	}
	for _, s := range d.sides {
		if task <= len(s.tasks) {
			return s.tasks[task-1].VPID
		}
	}
	return 0 // unreachable: a Reader accepts no more tasks than TREE has
}

// pair compares a record of a with its counterpart in b.
func (d *differ) pair(p place, a, b *loose) {
	change := RecordChange{Task: d.pid(p.task), Item: p.item, Name: a.name, InA: true, InB: true}
	for _, f := range a.fields {
		i := slices.IndexFunc(b.fields, func(g digested) bool { return f.name == g.name })
		switch {
		case i < 0:
			change.Fields = append(change.Fields, FieldChange{Name: f.name, A: f.text})
		case f.sum != b.fields[i].sum:
			change.Fields = append(change.Fields, FieldChange{Name: f.name, A: f.text, B: b.fields[i].text})
		}
	}
	for _, f := range b.fields {
		if !slices.ContainsFunc(a.fields, func(g digested) bool { return f.name == g.name }) {
			change.Fields = append(change.Fields, FieldChange{Name: f.name, B: f.text})
		}
	}
	if change.Fields != nil {
		d.changed = append(d.changed, found{p, a.section, a.seq, change})
	}
}

// alone notes a record that has no counterpart, unless that is said of what it is a part of.
func (d *differ) alone(p place, r *loose) {
	opener := map[ItemKind]Kind{Mapping: KindVMA, Descriptor: KindFDEntry, OneThread: KindThread}[p.item.Kind]
	for _, whole := range []place{{task: p.task, kind: KindTask}, {task: p.task, item: p.item, kind: opener}} {
		if whole != p && d.records[whole] != nil {
			return
		}
	}
	change := RecordChange{Task: d.pid(p.task), Item: p.item, Name: r.name, InA: !r.side.isB, InB: r.side.isB}
	for _, f := range r.fields {
		if r.side.isB {
			change.Fields = append(change.Fields, FieldChange{Name: f.name, B: f.text})
		} else {
			change.Fields = append(change.Fields, FieldChange{Name: f.name, A: f.text})
		}
	}
	d.changed = append(d.changed, found{p, r.section, r.seq, change})
}

// row is the line for a page of a mapping of s.
func (d *differ) row(s *side, at pagePlace, mapping int) *PageChange {
	m := s.mappings[mapping]
	key := pagePlace{at.task, m.start}
	row := d.rows[key]
	if row == nil {
		row = &PageChange{Task: d.pid(at.task), Mapping: m.name, Start: at.addr}
		d.rows[key] = row
	}
	row.Start = min(row.Start, at.addr)
	row.End = max(row.End, at.addr+uint64(s.r.PageSize()))
	return row
}

// result is what differs once both images have been read.
func (d *differ) result() *Difference {
	for p, r := range d.records {
		d.alone(p, r)
	}
	for at, p := range d.pages {
		if p.isB {
			d.row(d.sides[1], at, p.mapping).OnlyB++
		} else {
			d.row(d.sides[0], at, p.mapping).OnlyA++
		}
	}
	slices.SortFunc(d.changed, func(x, y found) int {
		return cmp.Or(cmp.Compare(x.task, y.task), cmp.Compare(x.section, y.section), cmp.Compare(x.item.Kind, y.item.Kind),
			cmp.Compare(x.item.ID, y.item.ID), cmp.Compare(x.seq, y.seq), cmp.Compare(x.kind, y.kind), cmp.Compare(x.nth, y.nth))
	})
	out := &Difference{}
	for _, f := range d.changed {
		out.Records = append(out.Records, f.RecordChange)
	}
	keys := make([]pagePlace, 0, len(d.rows))
	for key := range d.rows {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(x, y pagePlace) int {
		return cmp.Or(cmp.Compare(x.task, y.task), cmp.Compare(x.addr, y.addr))
	})
	for _, key := range keys {
		out.Pages = append(out.Pages, *d.rows[key])
	}
	return out
}
