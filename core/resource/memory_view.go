package resource

import (
	"errors"
	"fmt"
	"sort"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// memoryView is a whole file, mapped once more by the frozen task
// itself, for as long as it is read: the only way to a file that is mapped and
// not open, for those who may not open /proc/PID/map_files.
type memoryView struct {
	s    *Saver
	id   inodeID
	at   procfs.Range
	size uint64         // of the file, in whole pages
	data []procfs.Range // what is not a hole, as offsets
	undo *tracer.Undo
}

// viewable returns a mapping that a view can be made from: one of pages that
// may be shared for writing, as mremap(2) and remap_file_pages(2) demand. It
// is nil if there is none.
func (v *View) viewable(id inodeID) *procfs.Mapping {
	var best *procfs.Mapping
	for i := range v.Mappings {
		m := &v.Mappings[i]
		// Maps does not tell flags; what it shows as shared may be read-only.
		// One that is sealed (mseal(2)) cannot be mapped once more.
		if mappedID(m) != id || !m.Perms.Shared || m.Flags != 0 && m.Flags&(procfs.VMShared|procfs.VMSealed) != procfs.VMShared {
			continue
		}
		// A view of a locked mapping would bring the whole file in.
		if best == nil || best.Flags&procfs.VMLocked != 0 || m.Offset == 0 && m.Flags&procfs.VMLocked == 0 {
			best = m
		}
	}
	return best
}

// viewOf maps the file, finds how long it is and where it has data.
func (s *Saver) viewOf(id inodeID) (*memoryView, error) {
	anchor := s.viewable(id)
	if anchor == nil {
		return nil, fmt.Errorf("map it as a whole: %w", unix.EACCES)
	}
	var end uint64 // of what is mapped of it
	for i := range s.Mappings {
		if m := &s.Mappings[i]; mappedID(m) == id {
			end = max(end, m.Offset+m.Len())
		}
	}
	v := &memoryView{s: s, id: id}
	err := v.measure(anchor, end)
	if err == nil {
		err = v.findData(inMemory(anchor))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map a file as a whole: %w", err), v.close())
	}
	return v, nil
}

// measure maps more and more of the file until its end is in sight.
func (v *memoryView) measure(anchor *procfs.Mapping, end uint64) error {
	const most = 1 << 46
	var known uint64 // it is as long as that
	n := end + procfs.PageSize
	for ; ; n *= 2 {
		if err := v.mapIt(anchor, n); err != nil {
			return err
		}
		more, err := v.readable(n - procfs.PageSize)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		if n > most {
			return fmt.Errorf("no end at %#x: %w", n, unix.EFBIG)
		}
		known = n
		if err := v.close(); err != nil {
			return err
		}
	}
	if known == 0 {
		// Most often it ends where what is mapped of it ends. Looking into a hole
		// fills it with zeros, so that is tried first.
		last, err := v.readable(end - procfs.PageSize)
		if err != nil || last {
			v.size = end
			return err
		}
	}
	var failed error
	v.size = known + procfs.PageSize*uint64(sort.Search(int((n-known)/procfs.PageSize), func(i int) bool {
		there, err := v.readable(known + uint64(i)*procfs.PageSize)
		failed = errors.Join(failed, err)
		return !there
	}))
	return failed
}

// mapIt maps n bytes from the file's beginning on.
func (v *memoryView) mapIt(anchor *procfs.Mapping, n uint64) error {
	const mapNonblock = 0x10000 // MAP_NONBLOCK: no page is brought in
	p := v.s.Remote.Program()
	row := p.Mremap(procfs.Range{Start: anchor.Start, End: anchor.Start}, n, unix.MREMAP_MAYMOVE, 0)
	v.undo = row.Undo(unix.SYS_MUNMAP, row, tracer.Imm(n))
	p.Call(unix.SYS_MUNLOCK, row, tracer.Imm(n)).Tolerate()
	if anchor.Offset != 0 {
		// A file that is sealed against new writers may still be mapped to be read.
		p.Call(unix.SYS_MPROTECT, row, tracer.Imm(n), tracer.Imm(unix.PROT_READ))
		p.Call(unix.SYS_REMAP_FILE_PAGES, row, tracer.Imm(n), tracer.Imm(0), tracer.Imm(0), tracer.Imm(mapNonblock))
	}
	err := p.Run()
	if row.Err() == nil {
		at := procfs.Addr(row.Result())
		v.at = procfs.Range{Start: at, End: at + procfs.Addr(n)}
	}
	return err
}

// readable tells whether the file has a page at that offset.
func (v *memoryView) readable(offset uint64) (bool, error) {
	var b [1]byte
	switch err := v.ReadAt(b[:], int64(offset)); {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EFAULT), errors.Is(err, unix.EIO):
		return false, nil
	default:
		return false, err
	}
}

// ReadAt reads from the file.
func (v *memoryView) ReadAt(buf []byte, offset int64) error {
	return v.s.memory.Read(v.at.Start+procfs.Addr(offset), buf)
}

// findData fills v.data. Of a file on disk mincore(2) tells what is in memory,
// not what there is: it is read as a whole.
func (v *memoryView) findData(inMemory bool) error {
	if !inMemory {
		v.data = []procfs.Range{{End: procfs.Addr(v.size)}}
		return nil
	}
	if err := v.checkSwap(); err != nil {
		return err
	}
	pages, err := v.s.resident(procfs.Range{Start: v.at.Start, End: v.at.Start + procfs.Addr(v.size)})
	for _, r := range pages {
		v.data = append(v.data, procfs.Range{Start: r.Start - v.at.Start, End: r.End - v.at.Start})
	}
	return err
}

// checkSwap refuses a file that is in part swapped out: mincore(2) does not
// tell such pages from holes.
func (v *memoryView) checkSwap() error {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return fmt.Errorf("sysinfo: %w", err)
	}
	if info.Totalswap == info.Freeswap {
		return nil
	}
	maps, err := v.s.Proc.Mappings()
	if err != nil {
		return err
	}
	for i := range maps {
		if m := &maps[i]; m.Overlaps(v.at) && m.SwapBytes > 0 {
			return &fault.Error{Code: fault.MemoryUnreadable, Object: v.s.Name(), Detail: "shared memory that is swapped out"}
		}
	}
	return nil
}

// stat is what can be known of it. Without a descriptor nobody can see the
// rest: owner and mode are those that it was most likely made with.
func (v *memoryView) stat() unix.Stat_t {
	now := unix.NsecToTimespec(time.Now().UnixNano())
	return unix.Stat_t{
		Ino: v.id.ino, Size: int64(v.size), Mode: unix.S_IFREG | 0o600, Atim: now, Mtim: now,
		Uid: v.s.Status.Uid[3], Gid: v.s.Status.Gid[3],
	}
}

// seals returns those of a file made by memfd_create(2).
func (c *contents) seals() (int, error) {
	if c.view == nil {
		return unix.FcntlInt(uintptr(c.fd), unix.F_GET_SEALS, 0)
	}
	return c.view.seals(), nil
}

// seals are those that can be seen by the mappings: one that was made under a
// seal cannot become writable.
func (v *memoryView) seals() int {
	for i := range v.s.Mappings {
		const may = procfs.VMShared | procfs.VMMayWrite
		if m := &v.s.Mappings[i]; mappedID(m) == v.id && m.Flags&may == procfs.VMShared {
			return unix.F_SEAL_FUTURE_WRITE
		}
	}
	return 0
}

// extent returns the next range of data from an offset on.
func (v *memoryView) extent(at int64) (from, to int64) {
	i := firstEndingAfter(v.data, procfs.Addr(at))
	if i == len(v.data) {
		return int64(v.size), int64(v.size)
	}
	return max(at, int64(v.data[i].Start)), int64(v.data[i].End)
}

// close unmaps it.
func (v *memoryView) close() error {
	if v.at.Empty() {
		return nil
	}
	p := v.s.Remote.Program()
	p.Munmap(v.at)
	p.Forget(v.undo)
	v.at = procfs.Range{}
	return p.Run()
}

// resident returns the pages of shared memory that exist, whether or not this
// process has touched them itself: mincore(2) looks into the file.
func (s *Saver) resident(m procfs.Range) ([]procfs.Range, error) {
	const step = 64 << 10 // pages asked for at once
	var found []procfs.Range
	for at := m.Start; at < m.End; {
		part := procfs.Range{Start: at, End: min(m.End, at+step*procfs.Addr(procfs.PageSize))}
		p := s.Remote.Program()
		vec := p.Buffer(part.Pages())
		p.Call(unix.SYS_MINCORE, tracer.Imm(uint64(part.Start)), tracer.Imm(part.Len()), tracer.Imm(uint64(vec)))
		if err := p.Run(); err != nil {
			return nil, fmt.Errorf("find pages of %v: %w", part, err)
		}
		in := make([]byte, part.Pages())
		if err := s.Remote.ReadMem(vec, in); err != nil {
			return nil, err
		}
		for i, b := range in {
			if b&1 == 0 {
				continue
			}
			page := part.Start + procfs.Addr(uint64(i)*procfs.PageSize)
			if n := len(found); n > 0 && found[n-1].End == page {
				found[n-1].End += procfs.Addr(procfs.PageSize)
			} else {
				found = append(found, procfs.Range{Start: page, End: page + procfs.Addr(procfs.PageSize)})
			}
		}
		at = part.End
	}
	return found, nil
}
