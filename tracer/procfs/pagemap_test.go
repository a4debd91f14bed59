package procfs

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
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
				t.Skip("needs: kernel 6.7 (PAGEMAP_SCAN)")
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
		if p.Guard != nil && !guardTold(pm) {
			continue
		}
		wantRanges(t, name+": pages to save", save, scan(t, pm, p.Range, PagesToSave))
		if p.Any != nil {
			wantRanges(t, name+": any page", p.Any, scan(t, pm, p.Range, Query{}))
		}
		if p.Guard != nil {
			wantRanges(t, name+": guard pages", p.Guard, scan(t, pm, p.Range, Query{AllOf: Guard}))
			having, lacking, err := pm.Split(p.Range, Query{NoneOf: File | ZeroPage}, Guard)
			if err != nil {
				t.Fatal(err)
			}
			wantRanges(t, name+": guard pages by themselves", p.Guard, having)
			wantRanges(t, name+": other pages", save, lacking)
		}
		if pm.scan {
			wantRanges(t, name+": pages of zeros", p.Zero, scan(t, pm, p.Range, Query{AllOf: ZeroPage}))
		}
	}
}

// guardTold says whether the kernel tells of guard pages, Linux 6.15.
func guardTold(pm *Pagemap) bool {
	return !pm.scan || scanKnows()&Guard != 0
}

// TestScanWithoutGuards: a kernel before Linux 6.15 refuses to be asked for guards.
func TestScanWithoutGuards(t *testing.T) {
	known := scanKnows
	t.Cleanup(func() { scanKnows = known })
	scanKnows = func() PageCategory { return ^Guard }
	inverted, all, anyOf, ok := PagesToSave.masks()
	if !ok || (inverted|all|anyOf)&Guard != 0 {
		t.Errorf("pages to save: inverted %#x, all %#x, any %#x, %v", inverted, all, anyOf, ok)
	}
	if _, _, _, ok := (Query{AllOf: Guard}).masks(); ok {
		t.Error("some page may be a guard")
	}
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

func TestScanContinues(t *testing.T) {
	// The kernel walks in steps of 512 regions, one call returns scanRegions,
	// and one read entriesRead pages: all borders, and either side of them.
	const most = 2*entriesRead + 100
	memory := mapped(t, -1, int(most*PageSize), rw, anon)
	if err := unix.Madvise(memory, unix.MADV_NOHUGEPAGE); err != nil && !errors.Is(err, unix.EINVAL) {
		t.Fatal(err)
	}
	all := rangeOf(memory)
	var want []Range
	for i := uint64(0); i < most; i += 2 {
		memory[i*PageSize] = 1
		at := all.Start + Addr(i*PageSize)
		want = append(want, Range{at, at + Addr(PageSize)})
	}
	bothWays(t, self(t), func(t *testing.T, pm *Pagemap) {
		for _, n := range []int{1, 511, 512, 513, 1000, scanRegions - 1, scanRegions, scanRegions + 1,
			scanRegions + 600, 3 * scanRegions, len(want)} {
			// Up to the last page that is there, and beyond it.
			for _, end := range []Addr{want[n-1].End, want[n-1].End + Addr(PageSize)} {
				if got := scan(t, pm, Range{all.Start, end}, PagesToSave); !slices.Equal(got, want[:n]) {
					t.Errorf("%d ranges, want %d", len(got), n)
				}
			}
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
			// An ordinary user may not look at a zombie.
			if _, err := p.Pagemap(); !errors.Is(err, unix.ESRCH) && class(err) != "denied" {
				t.Errorf("%s: Pagemap: %v; want ESRCH", role, err)
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
		t.Skip("needs: kernel 6.7 (PAGEMAP_SCAN)")
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
