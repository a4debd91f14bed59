package procfs

import (
	"encoding/binary"
	"errors"
	"math/bits"

	"golang.org/x/sys/unix"
)

// Bits of a pagemap entry, admin-guide/mm/pagemap.rst.
const (
	entrySoftDirty = 1 << 55
	entryUffdWP    = 1 << 57
	entryGuard     = 1 << 58 // since Linux 6.15
	entryFile      = 1 << 61
	entrySwapped   = 1 << 62
	entryPresent   = 1 << 63
)

// entriesRead is the number of pages one read asks for: 128 MiB of memory.
const entriesRead = 32 << 10

// category says of an entry what PAGEMAP_SCAN would say of the page, as far
// as the entry knows.
func category(entry uint64) PageCategory {
	var c PageCategory
	switch {
	case entry&entryPresent != 0:
		c = Present
	case entry&entrySwapped != 0:
		c = Swapped
	default:
		return 0 // SoftDirty is set for whole new mappings here
	}
	if entry&entryUffdWP == 0 {
		c |= Written
	}
	if entry&entryFile != 0 {
		c |= File
	}
	if entry&entrySoftDirty != 0 {
		c |= SoftDirty
	}
	if entry&entryGuard != 0 {
		c |= Guard
	}
	return c
}

// sparse is the length from which a range may be mostly holes: then it pays
// to read the list of mappings first, for each page of a hole has an entry
// too.
const sparse = 1 << 30

func (pm *Pagemap) readMapped(r Range, q Query, add func(Range, PageCategory)) error {
	if r.Len() < sparse {
		return pm.readRange(r, q, add)
	}
	mappings, err := pm.of.Maps()
	if err != nil {
		return err
	}
	for i := range mappings {
		part, ok := r.Intersect(mappings[i].Range)
		if !ok {
			continue
		}
		if err := pm.readRange(part, q, add); err != nil {
			return err
		}
	}
	return nil
}

// readRange reads the entries of all pages in r.
func (pm *Pagemap) readRange(r Range, q Query, add func(Range, PageCategory)) error {
	if pm.entries == nil {
		pm.entries = make([]byte, 8*entriesRead)
	}
	pageShift := bits.TrailingZeros64(PageSize)
	page, end := uint64(r.Start)>>pageShift, uint64(r.End)>>pageShift
	for page < end {
		want := min(end-page, entriesRead)
		n, err := pread(pm.fd, pm.entries[:8*want], int64(page*8))
		if err != nil {
			return err
		}
		if n < 8 {
			return nil // behind the last address of user space
		}
		for i := 0; i+8 <= n; i += 8 {
			if c := category(binary.NativeEndian.Uint64(pm.entries[i:])); q.match(c) {
				start := Addr(page << pageShift)
				add(Range{Start: start, End: start + Addr(PageSize)}, c)
			}
			page++
		}
	}
	return nil
}

func pread(fd int, buf []byte, offset int64) (int, error) {
	for {
		n, err := unix.Pread(fd, buf, offset)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
