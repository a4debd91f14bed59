package procfs

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// bothWays runs check with PAGEMAP_SCAN, where the kernel has it, and with
// the entries of the file.
func bothWays(t *testing.T, p *Proc, check func(t *testing.T, pm *Pagemap)) {
	for _, way := range []struct {
		name string
		scan bool
	}{{"ioctl", true}, {"read", false}} {
		t.Run(way.name, func(t *testing.T) {
			pm := openPagemap(t, p)
			if way.scan && !pm.scan {
				t.Skip("the kernel has no PAGEMAP_SCAN (Linux 6.7)")
			}
			pm.scan = way.scan
			check(t, pm)
		})
	}
}

func openPagemap(t testing.TB, p *Proc) *Pagemap {
	t.Helper()
	pm, err := p.Pagemap()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pm.Close(); err != nil {
			t.Error(err)
		}
	})
	return pm
}

func newArena(t testing.TB) arena {
	t.Helper()
	file, err := arenaFile()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	a, err := buildArena(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := freeArena(a); err != nil {
			t.Error(err)
		}
	})
	return a
}

func scan(t testing.TB, pm *Pagemap, r Range, q Query) []Range {
	t.Helper()
	got, err := pm.Scan(r, q)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// union joins sets of pages that do not overlap.
func union(sets ...[]Range) []Range {
	all := slices.Concat(sets...)
	slices.SortFunc(all, func(a, b Range) int { return int(int64(a.Start - b.Start)) })
	var out ranges
	for _, r := range all {
		out.add(r)
	}
	return out
}

func wantRanges(t *testing.T, what string, want, got []Range) {
	t.Helper()
	if diff := cmp.Diff(union(want), union(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func checkArena(t *testing.T, pm *Pagemap, a arena) {
	for name, p := range a.Places {
		if name == "huge" {
			checkHuge(t, pm, p)
			continue
		}
		save := p.Save
		if !pm.scan {
			save = union(p.Save, p.Zero)
		}
		if p.Guard != nil && !guardTold(pm, p.Range) {
			continue
		}
		wantRanges(t, name+": pages to save", save, scan(t, pm, p.Range, PagesToSave))
		if p.Any != nil {
			wantRanges(t, name+": any page", p.Any, scan(t, pm, p.Range, Query{}))
		}
		if p.Guard != nil {
			wantRanges(t, name+": guard pages", p.Guard, scan(t, pm, p.Range, Query{AllOf: Guard}))
		}
		if pm.scan {
			wantRanges(t, name+": pages of zeros", p.Zero, scan(t, pm, p.Range, Query{AllOf: ZeroPage}))
		}
	}
}

// guardTold says whether the kernel tells of guard pages, Linux 6.15.
func guardTold(pm *Pagemap, r Range) bool {
	_, err := pm.Scan(r, Query{AllOf: Guard})
	return err == nil
}

func checkHuge(t *testing.T, pm *Pagemap, p place) {
	written := Range{p.Start, p.Start + hugeSize}
	zeros := Range{p.Start + hugeSize, p.End}
	got := scan(t, pm, p.Range, PagesToSave)
	if len(got) == 0 || !got[0].Contains(p.Start+Addr(3*PageSize)) {
		t.Fatalf("the written page is not in %v", got)
	}
	if !pm.scan {
		return
	}
	if got[0].Len() < hugeSize {
		t.Log("the kernel gave no huge page")
		return
	}
	wantRanges(t, "written huge page", []Range{written}, got)
	wantRanges(t, "huge pages", []Range{p.Range}, scan(t, pm, p.Range, Query{AllOf: Huge}))
	wantRanges(t, "huge page of zeros", []Range{zeros}, scan(t, pm, p.Range, Query{AllOf: Huge | ZeroPage}))
}

func TestScanOwnPages(t *testing.T) {
	a := newArena(t)
	bothWays(t, self(t), func(t *testing.T, pm *Pagemap) { checkArena(t, pm, a) })
}

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
		t.Skip("the kernel has no PAGEMAP_SCAN (Linux 6.7)")
	}
	read.scan = false
	guard := guardTold(ioctl, a.All)
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
		switch rapid.IntRange(0, 2).Draw(rt, "where") {
		case 0:
			r.Start += Addr(rapid.Uint64Range(0, 200).Draw(rt, "from") * PageSize)
			r.End -= Addr(rapid.Uint64Range(0, 200).Draw(rt, "to") * PageSize)
		case 1:
			r = userSpace
		}
		one, err1 := ioctl.Scan(r, q)
		two, err2 := read.Scan(r, q)
		if err1 != nil || err2 != nil {
			rt.Fatalf("%v, %v", err1, err2)
		}
		if diff := cmp.Diff(without(one, hugeZeros), without(two, hugeZeros)); diff != "" {
			rt.Fatalf("%+v in %v (-ioctl +read):\n%s", q, r, diff)
		}
	})
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

func TestScanContinues(t *testing.T) {
	// More ranges than one call returns, and more pages than one read does.
	const pages = 2*entriesRead + 100
	memory, err := unix.Mmap(-1, 0, int(pages*PageSize), rw, anon)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Munmap(memory); err != nil {
			t.Error(err)
		}
	}()
	if err := unix.Madvise(memory, unix.MADV_NOHUGEPAGE); err != nil && !errors.Is(err, unix.EINVAL) {
		t.Fatal(err)
	}
	r := rangeOf(memory)
	var want []Range
	for i := uint64(0); i < pages; i += 2 {
		memory[i*PageSize] = 1
		at := r.Start + Addr(i*PageSize)
		want = append(want, Range{at, at + Addr(PageSize)})
	}
	if len(want) < 3*scanRegions {
		t.Fatalf("only %d ranges", len(want))
	}
	bothWays(t, self(t), func(t *testing.T, pm *Pagemap) {
		if got := scan(t, pm, r, PagesToSave); !slices.Equal(got, want) {
			t.Errorf("%d ranges, want %d", len(got), len(want))
		}
	})
}

func TestScanRefusesUnaligned(t *testing.T) {
	pm := openPagemap(t, self(t))
	page := Addr(PageSize)
	for _, r := range []Range{{1, page}, {0, page + 1}, {2 * page, page}} {
		if _, err := pm.Scan(r, Query{}); !errors.Is(err, unix.EINVAL) {
			t.Errorf("Scan(%v): %v", r, err)
		}
	}
	vsyscall := Range{0xffffffffff600000, 0xffffffffff601000}
	bothWays(t, self(t), func(t *testing.T, pm *Pagemap) {
		for _, r := range []Range{{}, vsyscall} {
			if got := scan(t, pm, r, Query{}); got != nil {
				t.Errorf("Scan(%v) = %v", r, got)
			}
		}
	})
}

func TestScanAfterTheEnd(t *testing.T) {
	all := Range{0, 1 << 46}
	for role, end := range map[string]func(*child){
		"wait": func(c *child) { c.kill(t) },
		"exec": func(c *child) { c.end(t) },
	} {
		for _, ioctl := range []bool{PagemapScanSupported(), false} {
			c := start(t, role)
			p := openProc(t, c.pid())
			pm := openPagemap(t, p)
			pm.scan = ioctl
			if got := scan(t, pm, all, Query{}); len(got) == 0 {
				t.Error("a process without memory")
			}
			end(c)
			if got, err := pm.Scan(all, Query{}); !errors.Is(err, ErrGone) {
				t.Errorf("%s, ioctl %v: Scan = %v, %v; want ErrGone", role, ioctl, got, err)
			}
			if _, err := p.Pagemap(); !errors.Is(err, ErrGone) {
				t.Errorf("%s: Pagemap: %v; want ErrGone", role, err)
			}
		}
	}
}

func TestScanAndProtect(t *testing.T) {
	a := newArena(t)
	pm := openPagemap(t, self(t))
	if !pm.scan {
		if _, err := pm.ScanAndProtect(a.All, Query{}); !errors.Is(err, unix.ENOTTY) {
			t.Errorf("without PAGEMAP_SCAN: %v", err)
		}
		t.Skip("the kernel has no PAGEMAP_SCAN (Linux 6.7)")
	}
	p := a.Places["private"]
	if _, err := pm.ScanAndProtect(p.Range, Query{AllOf: Written}); !errors.Is(err, unix.EPERM) {
		t.Errorf("memory that nobody watches: %v", err)
	}
	fd, err := watch(p.Range)
	if err != nil {
		t.Fatalf("userfaultfd with WP_ASYNC, Linux 6.7 as PAGEMAP_SCAN: %v", err)
	}
	defer unix.Close(fd)
	arm := func() []Range {
		t.Helper()
		got, err := pm.ScanAndProtect(p.Range, Query{AllOf: Written})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	wantRanges(t, "before the first", p.Save, arm())
	wantRanges(t, "nothing written", nil, arm())
	page := func(n uint64) Range {
		at := p.Start + Addr(n*PageSize)
		return Range{at, at + Addr(PageSize)}
	}
	a.bytes(page(2))[0]++ // was there
	a.bytes(page(9))[0]++ // was not
	wantRanges(t, "two written", []Range{page(2), page(9)}, arm())
	wantRanges(t, "all pages", union(p.Save, []Range{page(9)}), scan(t, pm, p.Range, PagesToSave))
	wantRanges(t, "all pages since then", nil, scan(t, pm, p.Range, Query{AnyOf: Written}))
}

func TestPagemapClose(t *testing.T) {
	pm, err := self(t).Pagemap()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := pm.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := pm.Scan(Range{0, Addr(PageSize)}, Query{}); !errors.Is(err, unix.EBADF) {
		t.Errorf("Scan after Close: %v", err)
	}
}

func BenchmarkScan(b *testing.B) {
	const size = 256 << 20
	memory, err := unix.Mmap(-1, 0, size, rw, anon)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Munmap(memory)
	for i := 0; i < size; i += 2 * os.Getpagesize() {
		memory[i] = 1
	}
	pm := openPagemap(b, self(b))
	for _, way := range []string{"ioctl", "read"} {
		pm.scan = way == "ioctl"
		b.Run(way, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				scan(b, pm, rangeOf(memory), PagesToSave)
			}
		})
	}
}
