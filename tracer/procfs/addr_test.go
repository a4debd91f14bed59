package procfs

import (
	"math"
	"testing"
)

const top = Addr(math.MaxUint64)

func TestAddr(t *testing.T) {
	if a, ok := Addr(1).Add(2); a != 3 || !ok {
		t.Errorf("1+2 = %v, %v", a, ok)
	}
	if a, ok := (top - 1).Add(1); a != top || !ok {
		t.Errorf("top = %v, %v", a, ok)
	}
	if _, ok := top.Add(1); ok {
		t.Error("an overflow went unnoticed")
	}
	if _, ok := top.Range(2); ok {
		t.Error("a range overflowed unnoticed")
	}
	if r, ok := Addr(8).Range(2); !ok || r != (Range{8, 10}) {
		t.Errorf("range = %v, %v", r, ok)
	}
	page := Addr(PageSize)
	for a, want := range map[Addr]Addr{0: 0, 1: page, page: page, page + 1: 2 * page} {
		if got, ok := a.PageUp(); got != want || !ok {
			t.Errorf("PageUp(%v) = %v, %v", a, got, ok)
		}
	}
	if _, ok := top.PageUp(); ok {
		t.Error("no page begins above the last one")
	}
	if got := (2*page - 1).PageDown(); got != page {
		t.Errorf("PageDown = %v", got)
	}
}

func TestRange(t *testing.T) {
	r := Range{0x1000, 0x3000}
	if got := r.String(); got != "[0x1000, 0x3000)" {
		t.Errorf("String = %s", got)
	}
	if r.Len() != 0x2000 || (Range{2, 1}).Len() != 0 || !(Range{1, 1}).Empty() {
		t.Error("Len or Empty is wrong")
	}
	for a, want := range map[Addr]bool{0xfff: false, 0x1000: true, 0x2fff: true, 0x3000: false} {
		if r.Contains(a) != want {
			t.Errorf("Contains(%v) = %v", a, !want)
		}
	}
	for o, want := range map[Range]Range{
		{0, 0x1000}:      {},
		{0x3000, 0x4000}: {},
		{0, 0x1001}:      {0x1000, 0x1001},
		{0x2000, top}:    {0x2000, 0x3000},
		{0x1800, 0x2000}: {0x1800, 0x2000},
		{0x2000, 0x2000}: {},
		{0, top}:         r,
	} {
		got, ok := r.Intersect(o)
		if got != want || ok == want.Empty() || r.Overlaps(o) != ok {
			t.Errorf("%v and %v share %v, %v", r, o, got, ok)
		}
		if r.ContainsRange(o) != (want == o || o.Empty()) {
			t.Errorf("ContainsRange(%v) = %v", o, r.ContainsRange(o))
		}
	}
	p := PageSize
	for r, want := range map[Range]uint64{
		{0, 0}: 0, {0, 1}: 1, {0, Addr(p)}: 1, {Addr(p) - 1, Addr(p) + 1}: 2, {0, top}: math.MaxUint64/p + 1,
	} {
		if got := r.Pages(); got != want {
			t.Errorf("%v has %d pages, want %d", r, got, want)
		}
	}
	if !(Range{0, Addr(p)}).Aligned() || (Range{1, Addr(p)}).Aligned() || (Range{0, 1}).Aligned() {
		t.Error("Aligned is wrong")
	}
}
