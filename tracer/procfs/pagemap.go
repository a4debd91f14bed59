package procfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// PageCategory is a set of things that can be said of a page, PAGE_IS_* of
// <linux/fs.h>. What is not Present or Swapped holds nothing and has no
// category at all.
type PageCategory uint64

const (
	// Written: not write-protected by userfaultfd. True of every page in
	// memory that no userfaultfd watches.
	Written PageCategory = 1 << 1
	// File: a page of the mapped file, or of shared memory; a private page
	// that has been copied on write is not.
	File PageCategory = 1 << 2
	// Present: in memory.
	Present PageCategory = 1 << 3
	// Swapped: not in memory, but noted in the page table: swapped out, under
	// migration, poisoned, a guard page, or a mark of userfaultfd that a page
	// will be write-protected once it comes (then Written is missing).
	Swapped PageCategory = 1 << 4
	// ZeroPage: the shared page of zeros, small or huge. Reads as zeros, and
	// so need not be saved. Not told before Linux 6.7.
	ZeroPage PageCategory = 1 << 5
	// Huge: mapped by one entry that covers several pages. Not told before
	// Linux 6.7.
	Huge PageCategory = 1 << 6
	// SoftDirty: written since /proc/PID/clear_refs was last told 4. Never set
	// without CONFIG_MEM_SOFT_DIRTY.
	SoftDirty PageCategory = 1 << 7
	// Guard: MADV_GUARD_INSTALL. Told since Linux 6.15; before that no page has
	// it, and those that are are Swapped.
	Guard PageCategory = 1 << 8
)

// Query chooses pages. A page matches if it holds something (Present or
// Swapped), has every category in AllOf, none in NoneOf and, unless AnyOf is
// empty, at least one of AnyOf. The zero Query matches every page that holds
// something.
type Query struct {
	AllOf, NoneOf, AnyOf PageCategory
}

// PagesToSave matches the pages that a copy of the mapping cannot get from
// anywhere else: private pages that were written once, and not since
// replaced by zeros. In shared memory, whose pages are all File, it matches
// none.
var PagesToSave = Query{AnyOf: Present | Swapped, NoneOf: File | ZeroPage | Guard}

func (q Query) match(c PageCategory) bool {
	return c&content != 0 && c&q.AllOf == q.AllOf && c&q.NoneOf == 0 &&
		(q.AnyOf == 0 || c&q.AnyOf != 0)
}

// Pagemap is /proc/PID/pagemap, held open. It belongs to the memory that the
// task had when it was opened: if the task ends or calls execve, Scan
// returns ErrGone.
type Pagemap struct {
	fd   int
	in   string // the file's path, for messages
	of   *Proc
	scan bool // PAGEMAP_SCAN is there

	regions *[scanRegions]pageRegion // for PAGEMAP_SCAN
	entries []byte                   // for reading, 8 bytes a page
}

// Pagemap opens the page map of the process. It wants PTRACE_MODE_READ. The
// Proc must stay open as long. A zombie and a kernel thread give ESRCH.
func (p *Proc) Pagemap() (*Pagemap, error) {
	fd, err := p.open("pagemap", unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	return &Pagemap{fd: fd, in: p.in + "/pagemap", of: p, scan: PagemapScanSupported()}, nil
}

// Close closes the file. A second Close does nothing.
func (pm *Pagemap) Close() error {
	if pm.fd < 0 {
		return nil
	}
	fd := pm.fd
	pm.fd = -1
	if pm.regions != nil {
		regionsPool.Put(pm.regions)
		pm.regions = nil
	}
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close %s: %w", pm.in, err)
	}
	return nil
}

// Scan lists the pages in r that match q, in rising order, neighbours joined
// into one range. r must be page aligned and may span mappings and holes; one
// Scan of all memory is cheaper than one for each mapping. Mappings without
// struct pages (VMPFNMap: [vvar], device memory) and [vsyscall] have no pages
// here.
//
// Where the kernel lacks PAGEMAP_SCAN, ZeroPage and Huge are never seen set,
// so that pages of zeros count as pages with content, but for the huge page
// of zeros, which counts as File.
func (pm *Pagemap) Scan(r Range, q Query) ([]Range, error) {
	yes, _, err := pm.collect(r, q, 0, 0)
	return yes, err
}

// Split is Scan that keeps those pages apart that have a category.
func (pm *Pagemap) Split(r Range, q Query, by PageCategory) (having, lacking []Range, err error) {
	lacking, having, err = pm.collect(r, q, by, 0)
	return having, lacking, err
}

// ScanAndProtect is Scan for memory that a userfaultfd watches with
// UFFD_FEATURE_WP_ASYNC: in one step, it lists the pages that match and
// write-protects them, so that Written means "since the last ScanAndProtect".
// An empty page is left alone, and Written when it comes to hold something.
// Memory that is not so watched gives EPERM, a kernel without PAGEMAP_SCAN
// ENOTTY.
func (pm *Pagemap) ScanAndProtect(r Range, q Query) ([]Range, error) {
	if !pm.scan {
		return nil, fmt.Errorf("scan and protect %v in %s: %w", r, pm.in, unix.ENOTTY)
	}
	yes, _, err := pm.collect(r, q, 0, pmScanWPMatching|pmScanCheckWPAsync)
	return yes, err
}

// collect lists what matches, apart what has any of the categories by.
func (pm *Pagemap) collect(r Range, q Query, by PageCategory, flags uint64) (lacking, having ranges, err error) {
	if !r.Aligned() || r.End < r.Start {
		return nil, nil, fmt.Errorf("scan %v in %s: not a range of pages: %w", r, pm.in, unix.EINVAL)
	}
	r, ok := r.Intersect(userSpace)
	if !ok {
		return nil, nil, nil
	}
	add := func(r Range, c PageCategory) {
		if c&by != 0 {
			having.add(r)
			return
		}
		lacking.add(r)
	}
	if pm.scan {
		err = pm.scanRange(r, q, by, flags, add)
	} else {
		err = pm.readMapped(r, q, add)
	}
	if err == nil {
		err = pm.alive()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("scan %v in %s: %w", r, pm.in, err)
	}
	return lacking, having, nil
}

// Frames tells for each page of r, which must be page aligned, where its content
// is: equal numbers, but 0, are the same page, or the same place of the same swap
// area. 0 is one that has none, or that the kernel does not tell about: it does
// who has CAP_SYS_ADMIN (admin-guide/mm/pagemap.rst).
func (pm *Pagemap) Frames(r Range) ([]uint64, error) {
	const frame, swapped = 1<<55 - 1, 1 << 62
	buf := make([]byte, r.Pages()*8)
	n, err := pread(pm.fd, buf, int64(uint64(r.Start)/PageSize*8))
	if err == nil && n < len(buf) {
		err = ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("read %v in %s: %w", r, pm.in, err)
	}
	frames := make([]uint64, r.Pages())
	for i := range frames {
		entry := binary.LittleEndian.Uint64(buf[8*i:])
		if entry&frame != 0 {
			frames[i] = entry & (frame | swapped)
		}
	}
	return frames, nil
}

// alive tells memory that has been given up from memory without pages: the
// kernel shows neither's pages, but the first has not even empty entries.
func (pm *Pagemap) alive() error {
	var entry [8]byte
	n, err := pread(pm.fd, entry[:], 0)
	if err == nil && n == 0 {
		return ErrGone
	}
	return err
}

// ranges grows in rising order and joins what touches.
type ranges []Range

func (rs *ranges) add(r Range) {
	if n := len(*rs); n > 0 && (*rs)[n-1].End == r.Start {
		(*rs)[n-1].End = r.End
		return
	}
	*rs = append(*rs, r)
}

// masks translates q for PAGEMAP_SCAN; false means that nothing can match.
// The kernel flips the bits of "inverted" before it compares, in both masks,
// so that a category of NoneOf must not stay in AnyOf.
func (q Query) masks() (inverted, all, anyOf PageCategory, ok bool) {
	if q.AllOf&^scanKnows() != 0 {
		return 0, 0, 0, false
	}
	q.NoneOf &= scanKnows()
	anyOf = q.AnyOf &^ q.NoneOf
	if q.AllOf&q.NoneOf != 0 || q.AnyOf != 0 && anyOf == 0 || q.NoneOf&content == content {
		return 0, 0, 0, false
	}
	// To the kernel an empty entry of a page table is Written. It must not
	// match even so: ScanAndProtect would leave a mark in its place.
	if anyOf == 0 {
		anyOf = content &^ q.NoneOf
	}
	return q.NoneOf, q.AllOf | q.NoneOf, anyOf, true
}

// content is what a page has one of if it holds something.
const content = Present | Swapped

// scanRegions is how many ranges one PAGEMAP_SCAN may return: 96 KiB.
const scanRegions = 4096

// regionsPool has room for the answers of PAGEMAP_SCAN that nobody uses.
var regionsPool = sync.Pool{New: func() any { return new([scanRegions]pageRegion) }}

func takeRegions() *[scanRegions]pageRegion { return regionsPool.Get().(*[scanRegions]pageRegion) }

// scanRange uses the ioctl PAGEMAP_SCAN, admin-guide/mm/pagemap.rst.
func (pm *Pagemap) scanRange(r Range, q Query, by PageCategory, flags uint64, add func(Range, PageCategory)) error {
	inverted, all, anyOf, ok := q.masks()
	if !ok {
		return nil
	}
	r.End = min(r.End, userEnd())
	if pm.regions == nil {
		pm.regions = takeRegions()
	}
	for !r.Empty() {
		arg := pmScanArg{
			flags: flags, start: uint64(r.Start), end: uint64(r.End),
			categoryInverted: uint64(inverted), categoryMask: uint64(all),
			categoryAnyofMask: uint64(anyOf),
			// To be asked for no more: regions come apart where these differ.
			returnMask: uint64(content | by&scanKnows()),
		}
		n, err := pagemapScan(pm.fd, &arg, pm.regions[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		for _, g := range pm.regions[:n] {
			if PageCategory(g.categories)&content != 0 {
				add(Range{Start: Addr(g.start), End: Addr(g.end)}, PageCategory(g.categories))
			}
		}
		if n < len(pm.regions) {
			return nil // the walk came to its end
		}
		// walk_end alone will not do: the kernel walks in steps of 512
		// regions and, if the last step reaches the end, leaves the value of
		// the step before there (do_pagemap_scan(), seen in 6.18).
		next := max(Addr(arg.walkEnd), Addr(pm.regions[n-1].end))
		if next <= r.Start {
			return fmt.Errorf("PAGEMAP_SCAN stopped at %v: %w", next, unix.EIO)
		}
		r.Start = next
	}
	return nil
}

// userSpace leaves out [vsyscall], which is in the kernel's half.
var userSpace = Range{Start: 0, End: 1 << 63}

// userEnd is the end of the addresses that PAGEMAP_SCAN takes; it refuses a
// range that goes beyond with EFAULT. That is a power of two, on some machines
// less one page.
var userEnd = sync.OnceValue(func() Addr {
	fd, err := unix.Open(root+"/self/pagemap", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return userSpace.End // the next scan tells why
	}
	defer unix.Close(fd)
	for power := userSpace.End; power > Addr(2*PageSize); power >>= 1 {
		for _, end := range []Addr{power, power - Addr(PageSize)} {
			arg := pmScanArg{start: uint64(end) - PageSize, end: uint64(end)}
			if _, err := pagemapScan(fd, &arg, nil); err == nil {
				return end
			}
		}
	}
	return userSpace.End
})
