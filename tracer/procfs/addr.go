package procfs

import (
	"fmt"
	"os"
)

// PID is the number of a process or of a thread in our own pid namespace.
type PID int32

// Addr is an address in the memory of some process. It is never dereferenced
// here.
type Addr uint64

// PageSize is the size of a base page in bytes.
var PageSize = uint64(os.Getpagesize())

// Add returns a+n, and false if the sum does not fit.
func (a Addr) Add(n uint64) (Addr, bool) {
	sum := a + Addr(n)
	return sum, sum >= a
}

// Range returns the n bytes from a on, and false if they do not fit below the
// end of the address space.
func (a Addr) Range(n uint64) (Range, bool) {
	end, ok := a.Add(n)
	if !ok {
		return Range{}, false
	}
	return Range{Start: a, End: end}, true
}

// PageDown rounds a down to the start of its page.
func (a Addr) PageDown() Addr { return a &^ Addr(PageSize-1) }

// PageUp rounds a up to a page boundary, and is false if there is none above.
func (a Addr) PageUp() (Addr, bool) {
	up, ok := a.Add(PageSize - 1)
	return up.PageDown(), ok
}

func (a Addr) String() string { return fmt.Sprintf("%#x", uint64(a)) }

// Range is the addresses [Start, End). A range with End <= Start is empty.
type Range struct {
	Start, End Addr
}

// Len is the number of bytes in the range.
func (r Range) Len() uint64 {
	if r.Empty() {
		return 0
	}
	return uint64(r.End - r.Start)
}

// Pages is the number of base pages that the range touches.
func (r Range) Pages() uint64 {
	if r.Empty() {
		return 0
	}
	return (uint64(r.End-1)/PageSize - uint64(r.Start)/PageSize) + 1
}

// Empty says that the range holds no address.
func (r Range) Empty() bool { return r.End <= r.Start }

// Contains says whether a lies in the range.
func (r Range) Contains(a Addr) bool { return r.Start <= a && a < r.End }

// ContainsRange says whether every address of o lies in the range.
func (r Range) ContainsRange(o Range) bool {
	return o.Empty() || r.Start <= o.Start && o.End <= r.End
}

// Overlaps says whether the two ranges share an address.
func (r Range) Overlaps(o Range) bool {
	_, ok := r.Intersect(o)
	return ok
}

// Intersect returns the addresses that both ranges hold, and false if there
// are none.
func (r Range) Intersect(o Range) (Range, bool) {
	both := Range{Start: max(r.Start, o.Start), End: min(r.End, o.End)}
	if both.Empty() {
		return Range{}, false
	}
	return both, true
}

// Aligned says whether both ends lie on page boundaries.
func (r Range) Aligned() bool {
	return uint64(r.Start|r.End)%PageSize == 0
}

func (r Range) String() string { return fmt.Sprintf("[%v, %v)", r.Start, r.End) }
