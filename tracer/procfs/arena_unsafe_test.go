package procfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// place is a part of an arena: one way to come to pages.
type place struct {
	Range
	Save  []Range // pages that PagesToSave must find
	Zero  []Range // pages of zeros that only PAGEMAP_SCAN tells from Save
	Any   []Range // pages that a Query{} must find; nil if readahead decides
	Guard []Range // guard pages
}

// arena is memory outside of Go's heap where every page is as we left it.
type arena struct {
	All    Range
	Places map[string]place

	base unsafe.Pointer // of All, in the process that built it
}

// at points to an address in the arena.
func (a *arena) at(addr Addr) unsafe.Pointer { return unsafe.Add(a.base, addr-a.All.Start) }

func (a *arena) bytes(r Range) []byte { return unsafe.Slice((*byte)(a.at(r.Start)), r.Len()) }

// mapAt maps over what is at r.
func (a *arena) mapAt(r Range, prot, flags, fd int) error {
	_, err := unix.MmapPtr(fd, 0, a.at(r.Start), uintptr(r.Len()), prot, flags|unix.MAP_FIXED)
	return err
}

const (
	arenaSize = 24 << 20
	placeSize = 16 // pages
	hugeSize  = 2 << 20

	madvGuardInstall = 102 // MADV_GUARD_INSTALL, since Linux 6.13
)

// builder cuts places from the arena; the first error sticks.
type builder struct {
	arena
	next Addr
	err  error
}

func (b *builder) pages(base Addr, first, n uint64) Range {
	start := base + Addr(first*PageSize)
	return Range{start, start + Addr(n*PageSize)}
}

func (b *builder) try(err error, what string) {
	if err != nil && b.err == nil {
		b.err = fmt.Errorf("%s: %w", what, err)
	}
}

// place maps placeSize pages behind a PROT_NONE page.
func (b *builder) place(prot, flags, fd int) Addr {
	base := b.next + Addr(PageSize)
	b.next = base + Addr(placeSize*PageSize)
	b.try(b.mapAt(b.pages(base, 0, placeSize), prot, flags, fd), "mmap")
	return base
}

// write and read touch pages.
func (b *builder) write(r Range) {
	for a := r.Start; a < r.End && b.err == nil; a += Addr(PageSize) {
		*(*byte)(b.at(a)) = 1
	}
}

//go:noinline
func (b *builder) read(r Range) (sum byte) {
	for a := r.Start; a < r.End && b.err == nil; a += Addr(PageSize) {
		sum += *(*byte)(b.at(a))
	}
	return sum
}

const (
	rw   = unix.PROT_READ | unix.PROT_WRITE
	anon = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
)

// buildArena maps it; file has at least placeSize pages. Free it by freeArena.
func buildArena(file *os.File) (arena, error) {
	base, err := unix.MmapPtr(-1, 0, nil, arenaSize, unix.PROT_NONE, anon|unix.MAP_NORESERVE)
	if err != nil {
		return arena{}, fmt.Errorf("map the arena: %w", err)
	}
	start := Addr(uintptr(base))
	b := builder{next: start, arena: arena{
		All: Range{start, start + arenaSize}, Places: make(map[string]place), base: base,
	}}
	b.small(int(file.Fd()))
	b.huge()
	b.guard()
	if b.err != nil {
		return arena{}, errors.Join(b.err, freeArena(b.arena))
	}
	runtime.KeepAlive(file)
	return b.arena, nil
}

func freeArena(a arena) error {
	return unix.MunmapPtr(a.base, uintptr(a.All.Len()))
}

func (b *builder) add(name string, base Addr, p place) {
	p.Range = b.pages(base, 0, placeSize)
	b.Places[name] = p
}

func (b *builder) small(file int) {
	none := []Range{}

	at := b.place(rw, anon, -1)
	written := []Range{b.pages(at, 1, 2), b.pages(at, 5, 1), b.pages(at, 15, 1)}
	for _, r := range written {
		b.write(r)
	}
	b.add("private", at, place{Save: written, Any: written})

	at = b.place(rw, anon, -1)
	b.read(b.pages(at, 0, 2))
	b.write(b.pages(at, 2, 1))
	b.add("zero", at, place{Save: []Range{b.pages(at, 2, 1)}, Zero: []Range{b.pages(at, 0, 2)},
		Any: []Range{b.pages(at, 0, 3)}})

	// As the dynamic linker leaves RELRO: written once, read-only now.
	at = b.place(rw, unix.MAP_PRIVATE, file)
	b.read(b.pages(at, 0, 2))
	b.write(b.pages(at, 3, 2))
	b.try(unix.Mprotect(b.bytes(b.pages(at, 0, placeSize)), unix.PROT_READ), "mprotect")
	b.add("relro", at, place{Save: []Range{b.pages(at, 3, 2)}})

	at = b.place(rw, unix.MAP_SHARED|unix.MAP_ANONYMOUS, -1)
	b.write(b.pages(at, 0, 4))
	b.add("shared", at, place{Save: none, Any: []Range{b.pages(at, 0, 4)}})

	at = b.place(rw, unix.MAP_SHARED, file)
	b.read(b.pages(at, 0, placeSize))
	b.add("shared file", at, place{Save: none, Any: []Range{b.pages(at, 0, placeSize)}})

	at = b.place(rw, anon, -1)
	b.write(b.pages(at, 0, 4))
	b.try(unix.Mprotect(b.bytes(b.pages(at, 0, placeSize)), unix.PROT_NONE), "mprotect")
	b.add("no access", at, place{Save: []Range{b.pages(at, 0, 4)}, Any: []Range{b.pages(at, 0, 4)}})

	at = b.place(rw, anon, -1)
	b.write(b.pages(at, 0, 8))
	b.try(unix.Madvise(b.bytes(b.pages(at, 2, 2)), unix.MADV_DONTNEED), "madvise")
	kept := []Range{b.pages(at, 0, 2), b.pages(at, 4, 4)}
	b.add("given back", at, place{Save: kept, Any: kept})

	at = b.place(rw, anon, -1)
	b.write(b.pages(at, 0, 4))
	b.try(unix.MunmapPtr(b.at(at), uintptr(placeSize*PageSize)), "munmap")
	b.add("hole", at, place{Save: none, Any: none})
}

// huge makes one written huge page and one of zeros, if the kernel gives any.
func (b *builder) huge() {
	at := (b.next + hugeSize - 1) &^ (hugeSize - 1)
	b.next = at + 2*hugeSize
	both := Range{at, at + 2*hugeSize}
	b.try(b.mapAt(both, rw, anon, -1), "mmap")
	if err := unix.Madvise(b.bytes(both), unix.MADV_HUGEPAGE); errors.Is(err, unix.EINVAL) {
		return // no CONFIG_TRANSPARENT_HUGEPAGE
	} else {
		b.try(err, "madvise")
	}
	b.write(b.pages(at, 3, 1))
	b.read(b.pages(at+hugeSize, 3, 1))
	b.Places["huge"] = place{Range: both}
}

// guard makes guard pages, if the kernel has them.
func (b *builder) guard() {
	at := b.place(rw, anon, -1)
	b.write(b.pages(at, 0, 2))
	guard := b.pages(at, 1, 2)
	if err := unix.Madvise(b.bytes(guard), madvGuardInstall); errors.Is(err, unix.EINVAL) {
		return
	} else {
		b.try(err, "madvise")
	}
	b.add("guard", at, place{Save: []Range{b.pages(at, 0, 1)}, Guard: []Range{guard}, Any: []Range{b.pages(at, 0, 3)}})
}

// showArena is the role of a child that has an arena.
func showArena() error {
	file, err := arenaFile()
	if err != nil {
		return err
	}
	defer file.Close()
	a, err := buildArena(file)
	if err != nil {
		return err
	}
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return ready(string(text))
}

// arenaFile is a file without a name that holds no zeros.
func arenaFile() (*os.File, error) {
	f, err := os.CreateTemp("", "procfs-arena-*")
	if err != nil {
		return nil, err
	}
	content := make([]byte, placeSize*PageSize)
	for i := range content {
		content[i] = 7
	}
	_, err = f.Write(content)
	return f, errors.Join(err, os.Remove(f.Name()))
}

func rangeOf(b []byte) Range {
	start := Addr(uintptr(unsafe.Pointer(unsafe.SliceData(b))))
	return Range{start, start + Addr(len(b))}
}
