package tests

import (
	"encoding/binary"
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/image"
)

// TestHugePagesRefused: a pool that is empty, and what no checkpoint writes, are
// found out before the caller gives up anything.
func TestHugePagesRefused(t *testing.T) {
	addHugePages()
	e := newEnv(t, users()[0])
	savedOnce(e, t, "hugetlb", "huge-private")
	raw := readRaw(t, e.path("img"))
	i := slices.IndexFunc(raw.records, func(r *image.Record) bool { return r.Name() == "VMA_POOL" })
	const header = 8
	size := int(raw.records[i].Offset) + header
	for what, value := range map[string]uint64{"none": 0, "small": 4096, "odd": 3 << 20, "too large": 1 << 30, "absurd": 1 << 63} {
		bad := slices.Clone(raw.bytes)
		binary.LittleEndian.PutUint64(bad[size:], value)
		e.write(e.path("bad"), string(raw.signed(bad)))
		t.Run(what, func(t *testing.T) {
			e := *e
			e.TB = t
			refusedRestart(&e, "CR2013", e.crshim, "restart", "bad")
		})
	}
	// Without a word that it is of the pool.
	e.write(e.path("bad"), string(raw.signed(raw.bytes[:raw.records[i].Offset], raw.bytes[raw.records[i+1].Offset:])))
	refusedRestart(e, "CR2013", e.crshim, "restart", "bad")

	taken, err := unix.Mmap(-1, 0, freeHugePages(t)<<21, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_HUGETLB)
	if err != nil {
		t.Fatalf("take what is in the pool: %v", err)
	}
	refusedRestart(e, "CR2610", e.crshim, "restart", "img")
	if err := unix.Munmap(taken); err != nil {
		t.Fatal(err)
	}
	j := e.start(streams{}, e.crshim, "restart", "img")
	e.write(e.nth("go", 1), "")
	j.ends("exit status 0")
	e.passed()
}

// freeHugePages is how many pages of the pool nobody has or is promised.
func freeHugePages(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	number := func(name string) int {
		m := regexp.MustCompile(name + `: +(\d+)`).FindSubmatch(text)
		if m == nil {
			t.Fatalf("no %s in /proc/meminfo", name)
		}
		n, err := strconv.Atoi(string(m[1]))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return number("HugePages_Free") - number("HugePages_Rsvd")
}
