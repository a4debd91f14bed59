package resource

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/crshim/crshim/tracer/procfs"
)

func ranges(t *rapid.T, label string, within procfs.Range, most int) []procfs.Range {
	var set []procfs.Range
	at := within.Start
	for range rapid.IntRange(0, most).Draw(t, label) {
		gap := procfs.Addr(rapid.Uint64Range(0, 1<<20).Draw(t, "gap")) * 4096
		size := procfs.Addr(rapid.Uint64Range(1, 1<<18).Draw(t, "size")) * 4096
		if at+gap+size > within.End {
			break
		}
		set = append(set, procfs.Range{Start: at + gap, End: at + gap + size})
		at += gap + size
	}
	return set
}

func layoutOf(old []procfs.Range) *Layout {
	var maps []procfs.Mapping
	for _, r := range old {
		maps = append(maps, procfs.Mapping{Range: r})
	}
	return NewLayout(maps, addressSpace())
}

// What is found is free of everything, whatever has been entered before.
func TestLayoutFindsVacantPlaces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := layoutOf(ranges(t, "old", addressSpace(), 30))
		var taken []procfs.Range
		for _, f := range ranges(t, "final", addressSpace(), 30) {
			if !l.Claim(f) {
				t.Fatalf("cannot claim %v", f)
			}
			taken = append(taken, f)
		}
		taken = append(taken, l.old...)
		for range 10 {
			size := rapid.Uint64Range(1, 1<<20).Draw(t, "pages") * 4096
			like := procfs.Addr(rapid.Uint64Range(0, 1<<30).Draw(t, "like")) * 4096
			r, ok := l.Find(size, like, hugePage)
			if !ok {
				t.Fatalf("no place for %d bytes", size)
			}
			if r.Len() != size || (r.Start-like)%hugePage != 0 || !addressSpace().ContainsRange(r) {
				t.Fatalf("found %v for %d bytes like %v", r, size, like)
			}
			for _, o := range taken {
				if r.Overlaps(o) {
					t.Fatalf("%v overlaps %v", r, o)
				}
			}
			l.Occupy(r)
			taken = append(taken, r)
		}
	})
}

// The gaps and what is in use make up the whole space, once.
func TestLayoutGapsAreTheRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := layoutOf(ranges(t, "old", addressSpace(), 30))
		scratch, ok := l.Find(16<<20, 0, 4096)
		if !ok {
			t.Fatal("no place for scratch")
		}
		rest := addressSpace().Len()
		for _, r := range append(l.Gaps(scratch), append(l.old, scratch)...) {
			rest -= r.Len()
		}
		if rest != 0 {
			t.Fatalf("%d bytes are in no range or in two", int64(rest))
		}
		for _, gap := range l.Gaps(scratch) {
			if overlapsSorted(l.old, gap) || gap.Overlaps(scratch) {
				t.Fatalf("gap %v is in use", gap)
			}
		}
	})
}

func TestLayoutClaimsInOrder(t *testing.T) {
	l := layoutOf(nil)
	for _, c := range []struct {
		r  procfs.Range
		ok bool
	}{
		{procfs.Range{Start: 0x20000, End: 0x30000}, true},
		{procfs.Range{Start: 0x2f000, End: 0x40000}, false}, // overlaps
		{procfs.Range{Start: 0x10000, End: 0x11000}, false}, // comes too late
		{procfs.Range{Start: 0x30000, End: 0x30000}, false}, // empty
		{procfs.Range{Start: 0x30000, End: 0x31000}, true},
		{procfs.Range{Start: 0x7ffffffff000, End: 0x800000000000}, false}, // not for user space
		{procfs.Range{Start: 0xffffffffff600000, End: 0xffffffffff601000}, false},
	} {
		if ok := l.Claim(c.r); ok != c.ok {
			t.Errorf("claim %v: %v", c.r, ok)
		}
	}
	if l.Vacant(procfs.Range{Start: 0x2f000, End: 0x38000}) || !l.Vacant(procfs.Range{Start: 0x31000, End: 0x38000}) {
		t.Error("what is claimed is not vacant, and only that")
	}
}

func TestExtentsAreWholeHugePages(t *testing.T) {
	const m = hugePage
	runs := []procfs.Range{
		{Start: m, End: 2 * m},
		{Start: 3*m + 4096, End: 6*m - 4096},
		{Start: 7*m + 4096, End: 8 * m},
	}
	want := []procfs.Range{{Start: m, End: 2 * m}, {Start: 4 * m, End: 5 * m}}
	got := extents(runs)
	if len(got) != len(want) || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %v, want %v", got, want)
	}
}
