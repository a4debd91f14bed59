package procfs

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// stoppedArena is a stopped child with an arena: nothing in it moves.
func stoppedArena(t *testing.T) (*Proc, arena) {
	c := start(t, "arena")
	var a arena
	if err := json.Unmarshal([]byte(c.line), &a); err != nil {
		t.Fatal(err)
	}
	if err := c.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	err := error(unix.EINTR)
	for errors.Is(err, unix.EINTR) {
		err = unix.Waitid(unix.P_PID, c.Process.Pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Process.Signal(unix.SIGCONT); err != nil {
			t.Error(err)
		}
	})
	return openProc(t, c.pid()), a
}

func TestScanChild(t *testing.T) {
	p, a := stoppedArena(t)
	bothWays(t, p, func(t *testing.T, pm *Pagemap) { checkArena(t, pm, a) })
}

// without takes the pages of gaps out of list; both are in rising order.
func without(list, gaps []Range) []Range {
	var out ranges
	for _, r := range list {
		for _, g := range gaps {
			if cut, ok := r.Intersect(g); ok {
				if r.Start < cut.Start {
					out.add(Range{r.Start, cut.Start})
				}
				r.Start = cut.End
			}
		}
		if !r.Empty() {
			out.add(r)
		}
	}
	return out
}

// told are the categories that both ways know.
const told = Written | File | Present | Swapped | Guard

func TestScanBothWaysAgree(t *testing.T) {
	p, a := stoppedArena(t)
	ioctl, read := openPagemap(t, p), openPagemap(t, p)
	if !ioctl.scan {
		t.Skip("needs: kernel 6.7 (PAGEMAP_SCAN)")
	}
	read.scan = false
	guard := guardTold(ioctl)
	// To a pagemap entry the huge page of zeros is a File page.
	hugeZeros := scan(t, ioctl, userSpace, Query{AllOf: ZeroPage | Huge})
	set := rapid.Custom(func(t *rapid.T) PageCategory {
		var c PageCategory
		for _, bit := range []PageCategory{Written, File, Present, Swapped, Guard} {
			if (bit != Guard || guard) && rapid.IntRange(0, 3).Draw(t, "bit") == 0 {
				c |= bit
			}
		}
		return c & told
	})
	rapid.Check(t, func(rt *rapid.T) {
		q := Query{AllOf: set.Draw(rt, "all"), NoneOf: set.Draw(rt, "none"), AnyOf: set.Draw(rt, "any")}
		r := a.All
		r.Start += Addr(rapid.Uint64Range(0, 200).Draw(rt, "from") * PageSize)
		r.End -= Addr(rapid.Uint64Range(0, 200).Draw(rt, "to") * PageSize)
		one, err1 := ioctl.Scan(r, q)
		two, err2 := read.Scan(r, q)
		if err1 != nil || err2 != nil {
			rt.Fatalf("%v, %v", err1, err2)
		}
		if diff := cmp.Diff(without(one, hugeZeros), without(two, hugeZeros)); diff != "" {
			rt.Fatalf("%+v in %v (-ioctl +read):\n%s", q, r, diff)
		}
	})
	for _, q := range []Query{{}, {AllOf: File}, {NoneOf: File, AnyOf: Written | Swapped}} {
		one, two := scan(t, ioctl, userSpace, q), scan(t, read, userSpace, q)
		if diff := cmp.Diff(without(one, hugeZeros), without(two, hugeZeros)); diff != "" || len(one) == 0 {
			t.Errorf("%+v in all memory (-ioctl +read):\n%s", q, diff)
		}
	}
}

// TestQueryMasks holds the translation to the rule of the kernel,
// pagemap_scan_is_interesting_page() of fs/proc/task_mmu.c, for every page
// that there can be.
func TestQueryMasks(t *testing.T) {
	const every = Written | File | Present | Swapped | ZeroPage | Huge | SoftDirty | Guard
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) PageCategory {
			return PageCategory(rapid.Uint64().Draw(t, name)) & PageCategory(rapid.Uint64().Draw(t, name+" thinned")) & every
		}
		q := Query{AllOf: draw("all"), NoneOf: draw("none"), AnyOf: draw("any")}
		inverted, mask, anyOf, ok := q.masks()
		for c := PageCategory(0); c <= every; c += Written {
			if c&content == 0 && c != 0 && c != Written {
				continue // there is no such page
			}
			k := c ^ inverted
			interesting := ok && k&mask == mask && (anyOf == 0 || k&anyOf != 0) && c&content != 0
			if interesting != q.match(c) {
				t.Fatalf("%+v of %#x: kernel %v, match %v", q, c, interesting, q.match(c))
			}
		}
	})
}
