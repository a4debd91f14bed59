package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"reflect"
)

// pagesAtOnce is how many pages of contents Diff reads at a time.
const pagesAtOnce = 64

// side is one of two images while Diff reads it.
type side struct {
	d     *differ
	r     *Reader
	isB   bool
	start int64 // offset of the image

	listed bool // TREE was read
	tasks  []PIDs

	section  Section
	entered  int // tasks
	item     Item
	threads  uint64 // of the present task
	seq      int
	count    map[place]int // of each kind in each item of the present task
	mm       MM            // of the present task
	mappings []mapping
}

type mapping struct {
	start uint64
	name  string
}

// read is how much of the image was read.
func (s *side) read() int64 { return s.r.Offset() - s.start }

// key is what Diff calls the i-th task: the same in both images.
func (s *side) key(i int) int {
	if s.d.byPID {
		return int(s.tasks[i].VPID)
	}
	return i + 1
}

// task returns what Diff calls the present task.
func (s *side) task() int {
	if s.section <= InTree || s.section == InTail {
		return 0
	}
	return s.key(s.entered - 1)
}

// step reads one record. Its error is a *SideError.
func (s *side) step() error {
	rec, err := s.r.Next()
	if errors.Is(err, io.EOF) && s.r.Done() {
		return nil
	}
	if err == nil {
		s.enter(rec)
		err = s.take(rec)
	}
	if err != nil {
		return &SideError{B: s.isB, Err: err}
	}
	return nil
}

// enter moves to the section and the item of a record.
func (s *side) enter(rec *Record) {
	if rec.Spec == nil || rec.Spec.Section == Anywhere {
		return // it belongs to what is before it
	}
	section, opens := rec.Spec.Section, rec.Spec.Opens
	if section == InCPU {
		section = InThread // the two take turns
	}
	s.section = section
	switch {
	case section == InTask && opens:
		s.entered++
		s.item, s.threads = Item{}, 0
		clear(s.count)
	case rec.Kind == KindVMA:
		s.item = Item{Mapping, rec.Value.(*VMA).Start}
	case rec.Kind == KindFDEntry:
		s.item = Item{Descriptor, uint64(uint32(rec.Value.(*FDEntry).FD))}
	case rec.Kind == KindThread:
		s.threads++
		s.item = Item{OneThread, s.threads}
		if s.d.byPID {
			s.item.ID = uint64(rec.Parent)
		}
	case section != InThread && opens, rec.Kind == KindMMContext, section == InTail:
		s.item = Item{}
	}
}

// take compares a record, or keeps it until its counterpart comes.
func (s *side) take(rec *Record) error {
	switch value := rec.Value.(type) {
	case *Tree:
		raw, err := s.r.Raw(int(rec.Trailer))
		if err != nil {
			return err
		}
		s.listed = true
		if s.tasks, err = DecodePIDs(raw); err != nil {
			return fmt.Errorf("decode the %d process ids of TREE: %w", value.Tasks, err)
		}
		return nil // what they are is compared once it is known which belong together
	case *PageArray:
		return s.takePages(s.task())
	case *MM:
		s.mm = *value
	case *VMA:
		s.mappings = append(s.mappings, mapping{start: value.Start, name: s.nameOf(value)})
	case *FName:
		if s.item.Kind == Mapping && len(s.mappings) > 0 {
			s.mappings[len(s.mappings)-1].name = value.Name
		}
	}
	fields, err := s.d.digest(rec.Value)
	if err != nil {
		return fmt.Errorf("digest %s: %w", rec.Name(), err)
	}
	if rec.Trailer > 0 {
		raw, err := s.r.Raw(int(rec.Trailer))
		if err != nil {
			return err
		}
		fields = append(fields, digested{"trailer", byteCount(len(raw)), maphash.Bytes(s.d.seed, raw)})
	}
	p := place{task: s.task(), item: s.item, kind: rec.Kind}
	n := s.count[p]
	s.count[p]++
	p.nth = n
	s.meet(p, rec.Name(), fields)
	return nil
}

// nameOf names an anonymous mapping as /proc/PID/maps does.
func (s *side) nameOf(v *VMA) string {
	switch {
	case v.Type != VMAAnon:
	case v.Start < s.mm.Brk && v.End > s.mm.StartBrk:
		return "[heap]"
	case v.Start <= s.mm.StartStack && s.mm.StartStack < v.End:
		return "[stack]"
	}
	return ""
}

// meet compares a record with its counterpart, or waits for that.
func (s *side) meet(p place, name string, fields []digested) {
	s.seq++
	r := &loose{side: s, section: s.section, seq: s.seq, name: name, fields: fields}
	other := s.d.records[p]
	switch {
	case other == nil:
		s.d.records[p] = r
		return
	case s.isB:
		s.d.pair(p, other, r)
	default:
		s.d.pair(p, r, other)
	}
	delete(s.d.records, p)
}

// takePages compares the contents of a run of pages.
func (s *side) takePages(task int) error {
	addrs, err := s.r.Addrs()
	if err != nil {
		return err
	}
	if len(addrs) > 0 && len(s.mappings) == 0 {
		return fmt.Errorf("read image: pages before the first mapping")
	}
	size := int(s.r.PageSize())
	for len(addrs) > 0 {
		n := min(len(addrs), pagesAtOnce)
		contents, err := s.r.Raw(n * size)
		if err != nil {
			return err
		}
		for i, addr := range addrs[:n] {
			s.meetPage(pagePlace{task, addr}, maphash.Bytes(s.d.seed, contents[i*size:(i+1)*size]))
		}
		addrs = addrs[n:]
	}
	return nil
}

// meetPage is meet for a page.
func (s *side) meetPage(at pagePlace, sum uint64) {
	mapping := len(s.mappings) - 1
	other, ok := s.d.pages[at]
	if !ok || other.isB == s.isB {
		s.d.pages[at] = loosePage{sum, s.isB, mapping}
		return
	}
	delete(s.d.pages, at)
	if other.sum == sum {
		return
	}
	if s.isB { // of the two mappings, the one in A
		mapping = other.mapping
	}
	s.d.row(s.d.sides[0], at, mapping).Changed++
}

// digest returns the fields of a record struct, without those that say when or by what sum it was written: their tag is
// diff:"-". A record of unknown kind is one field.
func (d *differ) digest(rec any) ([]digested, error) {
	if raw, ok := rec.([]byte); ok {
		return []digested{{"payload", byteCount(len(raw)), maphash.Bytes(d.seed, raw)}}, nil
	}
	v := reflect.Indirect(reflect.ValueOf(rec))
	var fields []digested
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.PkgPath != "" || f.Tag.Get("diff") == "-" {
			continue
		}
		var h maphash.Hash
		h.SetSeed(d.seed)
		if f.Type.Kind() == reflect.String {
			h.WriteString(v.Field(i).String())
		} else if err := binary.Write(&h, binary.LittleEndian, v.Field(i).Interface()); err != nil {
			return nil, err
		}
		fields = append(fields, digested{f.Name, format(v.Field(i), f.Tag), h.Sum64()})
	}
	return fields, nil
}

func byteCount(n int) string { return fmt.Sprintf("%d bytes", n) }
