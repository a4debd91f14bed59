package tests

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/image"
)

// newBadTree is newBad with the image of a scenario of that name.
func newBadTree(t *testing.T, u user, name string) *badSetup {
	c := newCalls(t, u)
	j := c.start(streams{}, program(t, libcs[1], "scenarios", name), name, "external", c.dir, "1")
	pid := c.announced(j, "ready", 1)
	c.start(streams{}, c.crshim, "checkpoint", strconv.Itoa(pid), "-o", "img").ends("exit status 0")
	children := descendants(pid)
	c.write(c.nth("go", 1), "")
	j.ends("exit status 0")
	c.buried(children)
	for _, name := range []string{c.nth("go", 1), c.nth("ready", 1), c.path("result")} {
		c.remove(name)
	}
	c.write(c.path("out"), "1 0\n")
	return &badSetup{callSetup: c, raw: readRaw(t, c.path("img"))}
}

// TestBadDaemons: who was made by another one than its parent is gone as well when
// the image ends anywhere, and so is that other one.
func TestBadDaemons(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		b := newBadTree(t, u, "daemons")
		tasks := 0
		for i, rec := range b.raw.records {
			if rec.Kind == image.KindTask {
				tasks++
			}
			if rec.Kind == image.KindTask && tasks > 1 || i == len(b.raw.records)-1 {
				b.add(fmt.Sprintf("cut before %s at %d", rec.Name(), rec.Offset), b.raw.bytes[:rec.Offset], unix.EPIPE)
			}
		}
		if tasks != 8 {
			t.Fatalf("%d processes in the image, want 8", tasks)
		}
		b.try(glibc, "file")
		b.nobodyLeft()
	})
}

// TestKilledDaemons: the same if the supervisor is killed when all are there.
func TestKilledDaemons(t *testing.T) {
	killedInStage(t, "daemons")
}

// killedInStage kills the supervisor when all processes of a scenario are staged.
func killedInStage(t *testing.T, scenario string) {
	eachUser(t, func(t *testing.T, u user) {
		b := newBadTree(t, u, scenario)
		if got := b.outcome(b.victimOf("stage")); got != "as before" {
			t.Errorf("the caller is %s", got)
		}
		b.nobodyLeft()
	})
}

// TestBadHeld: memory that is said to be shared as it cannot be.
func TestBadHeld(t *testing.T) {
	b := newBadTree(t, users()[0], "dropped")
	const held image.Kind = 6221
	const objref, noReserve, size = 0, 4, 8
	u32 := func(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }
	u64 := func(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }
	var anonymous, file *image.Record // in the order of their addresses
	for _, rec := range b.raw.records {
		switch {
		case rec.Kind != held:
		case binary.LittleEndian.Uint64(b.raw.bytes[rec.Offset+8+size:]) == 0:
			file = rec
		default:
			anonymous = rec
		}
	}
	for _, p := range []struct {
		what   string
		rec    *image.Record
		offset int64
		value  []byte
		want   unix.Errno
	}{
		{"no reference", anonymous, objref, u32(0), unix.EINVAL},
		{"reference of another one", file, objref, u32(1 << 30), unix.EINVAL},
		{"flag", anonymous, noReserve, u32(2), unix.EINVAL},
		{"half a page", anonymous, size, u64(2048), unix.EINVAL},
		{"smaller than what it holds", anonymous, size, u64(4096), unix.EINVAL},
		{"larger than its mappings say", anonymous, size, u64(16384), unix.EINVAL},
		{"larger than all", anonymous, size, u64(1 << 48), unix.EINVAL},
		{"larger than there is room", anonymous, size, u64(1 << 47), unix.ENOMEM},
		{"a file that is memory", anonymous, size, u64(0), unix.EINVAL},
		{"memory that is a file", file, size, u64(4096), unix.EINVAL},
	} {
		bad := slices.Clone(b.raw.bytes)
		copy(bad[p.rec.Offset+8+p.offset:], p.value)
		b.add(p.what, b.raw.signed(bad), p.want)
	}
	b.try(glibc, "file")
	b.nobodyLeft()
}

// TestBadSharers: who has the memory of the caller, which is the one that they are
// made in, is gone as well, and leaves nothing there.
func TestBadSharers(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		b := newBadTree(t, u, "clonevm")
		const mapCount = 4
		tasks, maps := 0, 0
		var sharer *image.Record // its address space
		for i, rec := range b.raw.records {
			switch rec.Kind {
			case image.KindTask:
				tasks++
			case image.KindMM:
				if n := binary.LittleEndian.Uint32(b.raw.bytes[rec.Offset+8+mapCount:]); n == 0 {
					sharer = rec
				} else {
					maps++
				}
			}
			if rec.Kind == image.KindTask && tasks > 1 || i == len(b.raw.records)-1 {
				b.add(fmt.Sprintf("cut before %s at %d", rec.Name(), rec.Offset), b.raw.bytes[:rec.Offset], unix.EPIPE)
			}
		}
		if tasks != 6 || maps != 2 {
			t.Fatalf("%d processes with %d address spaces in the image, want 6 with 2", tasks, maps)
		}
		bad := slices.Clone(b.raw.bytes)
		bad[sharer.Offset+8+mapCount] = 1
		b.add("a mapping of one that has none", b.raw.signed(bad), unix.EINVAL)
		b.try(glibc, "file")
		b.nobodyLeft()
	})
}

// TestKilledSharers: the same if the supervisor is killed when all are there.
func TestKilledSharers(t *testing.T) {
	killedInStage(t, "clonevm")
}
