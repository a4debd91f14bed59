package resource

import (
	"slices"
	"sort"

	"github.com/crshim/crshim/tracer/procfs"
)

// Layout keeps account of an address space that is about to be replaced: what
// the caller has mapped, where the mappings of the image belong, and what has
// been staged elsewhere for now. It only computes; nothing is mapped here.
type Layout struct {
	old   []procfs.Range // the caller's own mappings, ascending
	final []procfs.Range // the image's mappings seen so far, ascending
	away  []procfs.Range // staged at other addresses than their final ones, and scratch
	space procfs.Range   // all that a program of this machine may map
}

// stageTop is where the search for staging room begins, downwards: far from
// where Linux puts programs, heaps, libraries and stacks, so that a mapping of
// the image that comes later seldom wants the same place.
const stageTop = procfs.Addr(0x3000_0000_0000)

// NewLayout starts with the caller's mappings.
func NewLayout(mappings []procfs.Mapping, space procfs.Range) *Layout {
	l := &Layout{space: space}
	for _, m := range mappings {
		if m.Start < space.End {
			l.old = append(l.old, m.Range)
		}
	}
	return l
}

// Vacant tells whether nothing of the caller and nothing staged is in r, so
// that a mapping that belongs there can be staged in place.
func (l *Layout) Vacant(r procfs.Range) bool {
	return !overlapsSorted(l.old, r) && !overlapsSorted(l.final, r) && !overlapsAny(l.away, r)
}

// Claim enters the final place of the image's next mapping. Mappings come in
// ascending order; ok is false for one that does not, or that lies outside of
// what may be mapped.
func (l *Layout) Claim(r procfs.Range) (ok bool) {
	if r.Empty() || !l.space.ContainsRange(r) {
		return false
	}
	if n := len(l.final); n > 0 && l.final[n-1].End > r.Start {
		return false
	}
	l.final = append(l.final, r)
	return true
}

// Find returns a vacant place for n bytes, congruent to like modulo align (so
// that huge pages can be moved whole), and false if there is none.
func (l *Layout) Find(n uint64, like procfs.Addr, align uint64) (procfs.Range, bool) {
	for _, top := range []procfs.Addr{stageTop, l.space.End} {
		if r, ok := l.findBelow(top, n, like, align); ok {
			return r, true
		}
	}
	return procfs.Range{}, false
}

func (l *Layout) findBelow(top procfs.Addr, n uint64, like procfs.Addr, align uint64) (procfs.Range, bool) {
	for uint64(top) > n {
		start := top - procfs.Addr(n)
		start -= (start - like) & procfs.Addr(align-1)
		r, ok := start.Range(n)
		if !ok || start < l.space.Start || start > top {
			break
		}
		obstacle, hit := l.obstacle(r)
		if !hit {
			return r, true
		}
		top = obstacle.Start
	}
	return procfs.Range{}, false
}

// obstacle returns the lowest range known to overlap r.
func (l *Layout) obstacle(r procfs.Range) (procfs.Range, bool) {
	var low procfs.Range
	found := false
	consider := func(o procfs.Range) {
		if !found || o.Start < low.Start {
			low, found = o, true
		}
	}
	for _, set := range [][]procfs.Range{l.old, l.final} {
		if i := firstEndingAfter(set, r.Start); i < len(set) && set[i].Overlaps(r) {
			consider(set[i])
		}
	}
	for _, o := range l.away {
		if o.Overlaps(r) {
			consider(o)
		}
	}
	return low, found
}

// TakeOver takes a range that the caller has mapped as staged, and tells whether
// all of it is.
func (l *Layout) TakeOver(r procfs.Range) bool {
	var had uint64
	for _, part := range intersect(l.old, r) {
		had += part.Len()
	}
	if had != r.Len() {
		return false
	}
	l.old = without(l.old, r)
	return true
}

// Occupy enters a range that is staged away from its final place.
func (l *Layout) Occupy(r procfs.Range) { l.away = append(l.away, r) }

// Release ends what Occupy began.
func (l *Layout) Release(r procfs.Range) {
	if i := slices.Index(l.away, r); i >= 0 {
		l.away = slices.Delete(l.away, i, i+1)
	}
}

// Gaps returns the ranges in which the caller has nothing mapped, without
// except: whatever is found there during the stage was put there by it.
func (l *Layout) Gaps(except procfs.Range) []procfs.Range {
	taken := append(slices.Clone(l.old), except)
	sort.Slice(taken, func(i, j int) bool { return taken[i].Start < taken[j].Start })
	var gaps []procfs.Range
	at := l.space.Start
	for _, r := range taken {
		if r.Start > at {
			gaps = append(gaps, procfs.Range{Start: at, End: r.Start})
		}
		at = max(at, r.End)
	}
	if at < l.space.End {
		gaps = append(gaps, procfs.Range{Start: at, End: l.space.End})
	}
	return gaps
}

// firstEndingAfter returns the index of the first range of an ascending set
// that ends behind a.
func firstEndingAfter(set []procfs.Range, a procfs.Addr) int {
	return sort.Search(len(set), func(i int) bool { return set[i].End > a })
}

func overlapsSorted(set []procfs.Range, r procfs.Range) bool {
	i := firstEndingAfter(set, r.Start)
	return i < len(set) && set[i].Overlaps(r)
}

func overlapsAny(set []procfs.Range, r procfs.Range) bool {
	return slices.ContainsFunc(set, func(o procfs.Range) bool { return o.Overlaps(r) })
}
