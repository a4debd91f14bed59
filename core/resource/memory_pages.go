package resource

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer/procfs"
)

// unopened is a file that nobody of us may open, read by the mappings of it.
type unopened interface {
	stat() unix.Stat_t
	seals() int
	extent(at int64) (from, to int64)
	ReadAt(buf []byte, offset int64) error
	close() error
}

var (
	_ unopened = (*memoryView)(nil)
	_ unopened = (*mappedPages)(nil)
)

// mappedPages is what the process itself can see of a file that it has mapped
// privately, as its libraries, and that has been deleted since. Pages that it
// has written to are its own; what the file had in their place nothing tells,
// and nothing shows it: they are left out here, and saved with the mapping.
type mappedPages struct {
	s      *Saver
	id     inodeID
	size   uint64
	pieces []seenPiece // by offset in the file, without overlap
}

// seenPiece is a range of the file and where it is in memory.
type seenPiece struct {
	procfs.Range // offsets
	at           procfs.Addr
}

func (s *Saver) pagesOf(id inodeID) (*mappedPages, error) {
	pagemap, err := s.Proc.Pagemap()
	if err != nil {
		return nil, err
	}
	defer pagemap.Close()
	f := &mappedPages{s: s, id: id}
	var all []seenPiece
	for i := range s.Mappings {
		m := &s.Mappings[i]
		if mappedID(m) != id {
			continue
		}
		own, err := pagemap.Scan(m.Range, procfs.PagesToSave)
		if err != nil {
			return nil, fmt.Errorf("find pages of %v: %w", m.Range, err)
		}
		left := []procfs.Range{m.Range}
		for _, r := range own {
			left = without(left, r)
		}
		for _, clean := range left {
			if clean, err = f.readable(clean); err != nil {
				return nil, err
			}
			at := procfs.Addr(m.Offset) + clean.Start - m.Start
			all = append(all, seenPiece{procfs.Range{Start: at, End: at + procfs.Addr(clean.Len())}, clean.Start})
		}
		for _, r := range own {
			f.size = max(f.size, m.Offset+uint64(r.End-m.Start))
		}
	}
	slices.SortFunc(all, func(a, b seenPiece) int { return cmp.Compare(a.Start, b.Start) })
	var end procfs.Addr
	for _, p := range all {
		if p.Start < end { // seen by another mapping, too
			skip := min(end, p.End) - p.Start
			p.Start, p.at = p.Start+skip, p.at+skip
		}
		if !p.Empty() {
			f.pieces = append(f.pieces, p)
			end = p.End
		}
	}
	f.size = max(f.size, uint64(end))
	return f, nil
}

// readable cuts off what lies behind the end of the file.
func (f *mappedPages) readable(r procfs.Range) (procfs.Range, error) {
	var failed error
	n := sort.Search(int(r.Pages()), func(i int) bool {
		// From the end: most often all of it is there.
		var b [1]byte
		err := f.s.memory.Read(r.End-procfs.Addr(uint64(i+1)*procfs.PageSize), b[:])
		if err != nil && !errors.Is(err, unix.EIO) && !errors.Is(err, unix.EFAULT) {
			failed = err
		}
		return err == nil
	})
	r.End -= procfs.Addr(uint64(n) * procfs.PageSize)
	return r, failed
}

// stat is what can be known of it: nobody has it open.
func (f *mappedPages) stat() unix.Stat_t {
	now := unix.NsecToTimespec(time.Now().UnixNano())
	return unix.Stat_t{
		Ino: f.id.ino, Size: int64(f.size), Mode: unix.S_IFREG | 0o755, Atim: now, Mtim: now,
		Uid: f.s.Status.Uid[3], Gid: f.s.Status.Gid[3],
	}
}

func (f *mappedPages) seals() int { return 0 }

func (f *mappedPages) extent(at int64) (from, to int64) {
	i := sort.Search(len(f.pieces), func(i int) bool { return int64(f.pieces[i].End) > at })
	if i == len(f.pieces) {
		return int64(f.size), int64(f.size)
	}
	return max(at, int64(f.pieces[i].Start)), int64(f.pieces[i].End)
}

// ReadAt reads within one extent.
func (f *mappedPages) ReadAt(buf []byte, offset int64) error {
	i := sort.Search(len(f.pieces), func(i int) bool { return int64(f.pieces[i].End) > offset })
	if i == len(f.pieces) || int64(f.pieces[i].Start) > offset || int64(f.pieces[i].End)-offset < int64(len(buf)) {
		return fmt.Errorf("read %d bytes at %d: not mapped: %w", len(buf), offset, unix.EFAULT)
	}
	return f.s.memory.Read(f.pieces[i].at+procfs.Addr(offset)-f.pieces[i].Start, buf)
}

func (f *mappedPages) close() error { return nil }
