package tracer

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer/procfs"
)

// layout says where things are in scratch memory:
//
//	code (read, execute) | header | xstate | undo rows | rows | data
//
// All but the code is readable and writable; nothing is both writable and
// executable, which PR_SET_MDWE forbids.
type layout struct {
	whole, code, header, xstate, undo, rows, data Range
}

const (
	defaultScratch = 1 << 20
	minScratch     = 64 << 10
	maxScratch     = 1 << 36
	maxRowBytes    = 128 << 10
)

// layOut divides size bytes at base.
func layOut(base Addr, size uint64) layout {
	page := procfs.PageSize
	whole := Range{Start: base, End: base + Addr(size)}
	next := base
	cut := func(n uint64) Range {
		n = (n + page - 1) &^ (page - 1)
		r := Range{Start: next, End: next + Addr(n)}
		next = r.End
		return r
	}
	l := layout{whole: whole, code: cut(page), header: cut(page), xstate: cut(uint64(XstateSize()))}
	l.undo = cut(size / 4)
	// Rows are walked upwards to the end of their table, and new ones come
	// before old ones.
	l.undo.Start += Addr(l.undo.Len() % rowSize)
	l.rows = cut(min(size/8, maxRowBytes))
	l.data = Range{Start: next, End: whole.End}
	return l
}

func scratchSize(asked uint64) (uint64, error) {
	if asked == 0 {
		asked = defaultScratch
	}
	if asked > maxScratch {
		return 0, fmt.Errorf("scratch memory of %d bytes: %w", asked, unix.EINVAL)
	}
	size := max(asked, minScratch+4*uint64(XstateSize()))
	return (size + procfs.PageSize - 1) &^ (procfs.PageSize - 1), nil
}

func words(w ...uint64) []byte {
	b := make([]byte, 0, 8*len(w))
	for _, x := range w {
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	return b
}

// choosePlace returns an address for size bytes that overlaps nothing and
// none of avoid, or 0 if the kernel may choose. The middle of the widest gap
// is far from what grows: heap, stack and the kernel's own choices.
func (e *Tracee) choosePlace(avoid []Range, size uint64) (Addr, error) {
	if len(avoid) == 0 {
		return 0, nil
	}
	maps, err := e.maps()
	if err != nil {
		return 0, err
	}
	busy := slices.Clone(avoid)
	for _, m := range maps {
		busy = append(busy, m.Range)
	}
	gap, ok := widestGap(busy, Range{Start: 1 << 20, End: taskSize})
	if !ok || gap.Len() < size {
		return 0, fmt.Errorf("place %d bytes in task %d: %w", size, e.tid, ErrNoPlace)
	}
	middle := gap.Start + Addr((gap.Len()-size)/2)
	return max(middle.PageDown(), gap.Start), nil
}

// widestGap returns the longest part of within, from page boundary to page
// boundary, that overlaps no busy range.
func widestGap(busy []Range, within Range) (widest Range, ok bool) {
	slices.SortFunc(busy, func(a, b Range) int {
		switch {
		case a.Start < b.Start:
			return -1
		case a.Start > b.Start:
			return 1
		}
		return 0
	})
	free := within.Start
	consider := func(end Addr) {
		gap := Range{Start: free, End: end.PageDown()}
		if gap.Len() > widest.Len() {
			widest, ok = gap, true
		}
	}
	for _, b := range busy {
		if b.Empty() {
			continue
		}
		consider(min(b.Start, within.End))
		up, fits := b.End.PageUp()
		if !fits || up >= within.End {
			return widest, ok
		}
		free = max(free, up)
	}
	consider(within.End)
	return widest, ok
}

const (
	scratchProt  = unix.PROT_READ | unix.PROT_WRITE
	codeProt     = unix.PROT_READ | unix.PROT_EXEC
	scratchFlags = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE
)

// mmapArgs are the arguments of mmap(2) for size bytes of scratch memory at
// an address from choosePlace.
func mmapArgs(at Addr, size uint64) []uint64 {
	flags := uint64(scratchFlags)
	if at != 0 {
		flags |= unix.MAP_FIXED_NOREPLACE
	}
	return []uint64{uint64(at), size, scratchProt, flags, ^uint64(0), 0}
}

// codeArgs are the arguments of mmap(2) that make the code page of the
// scratch memory at base executable.
func codeArgs(base Addr) []uint64 {
	return []uint64{uint64(base), procfs.PageSize, codeProt, scratchFlags | unix.MAP_FIXED, ^uint64(0), 0}
}
