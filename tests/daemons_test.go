package tests

import (
	"fmt"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/image"
)

// newBadDaemons is newBad with the image of scenarios/daemons.c.
func newBadDaemons(t *testing.T, u user) *badSetup {
	c := newCalls(t, u)
	j := c.start(streams{}, program(t, libcs[1], "scenarios", "daemons"), "daemons", "external", c.dir, "1")
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
		b := newBadDaemons(t, u)
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
	eachUser(t, func(t *testing.T, u user) {
		b := newBadDaemons(t, u)
		if got := b.outcome(b.victimOf("stage")); got != "as before" {
			t.Errorf("the caller is %s", got)
		}
		b.nobodyLeft()
	})
}
