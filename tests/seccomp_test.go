package tests

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/image"
)

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs: root")
	}
}

// TestFiltersRefused: filters that no checkpoint has saved, and a restarter who
// could not set them aside, are refused before anything is given up.
func TestFiltersRefused(t *testing.T) {
	needsRoot(t)
	e := newEnv(t, user{"root", 0})
	savedOnce(e, t, "seccomp", "errno")
	raw := readRaw(t, e.path("img"))
	const header = 8
	filter := slices.IndexFunc(raw.records, func(r *image.Record) bool { return r.Name() == "SECCOMP_FILTER" })
	at, code := int(raw.records[filter].Offset)+header, int(raw.records[filter+1].Offset)+header
	list := slices.IndexFunc(raw.records, func(r *image.Record) bool { return r.Name() == "SECCOMP" })
	sandbox := int(raw.records[list].Offset) + header
	for _, c := range []struct {
		what  string
		at    int
		value uint32
	}{
		{"number", at, 2},
		{"no length", at + 4, 0},
		{"length beyond", at + 4, 4097},
		{"length of more", at + 4, 5},
		{"flags", at + 8, unix.SECCOMP_FILTER_FLAG_TSYNC},
		{"instruction", code, 0x30},
		{"place of the load", code + 4, 64},
		{"jump", code + 8, 0xff000015},
		{"question", code + 20, unix.SECCOMP_RET_USER_NOTIF},
		{"no mode", sandbox, 0},
		{"strict with filters", sandbox, 1},
		{"unknown mode", sandbox, 9},
		{"no such filter", sandbox + 8, 2},
		{"filter 0", sandbox + 8, 0},
	} {
		bad := slices.Clone(raw.bytes)
		binary.LittleEndian.PutUint32(bad[c.at:], c.value)
		e.write(e.path("bad"), string(raw.signed(bad)))
		t.Run(c.what, func(t *testing.T) {
			e := *e
			e.TB = t
			refusedRestart(&e, "CR2013", e.crshim, "restart", "bad")
		})
	}
	for _, name := range []string{".", "img", "log.program"} {
		if err := os.Chmod(e.path(name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	refusedRestart(e, "CR2309", e.crshim, "run", e.crshim, "restart", "img")
	e.user = user{"user", 65534}
	refusedRestart(e, "CR2309", e.crshim, "restart", "--ids", "caller", "--limits", "caller", "img")
}

// TestKilledFiltered: whoever saves a process with filters of its own is killed;
// these let pass what takes the work back.
func TestKilledFiltered(t *testing.T) {
	needsRoot(t)
	for _, step := range checkpointSteps {
		for _, scenario := range []string{"errno", "threads"} {
			t.Run(fmt.Sprintf("%s/%s", step, scenario), func(t *testing.T) {
				t.Parallel()
				c := newCalls(t, user{"root", 0})
				j := c.start(streams{}, program(t, glibc, "scenarios", "seccomp"), scenario, "external", c.dir, "1")
				pid := c.announced(j, "ready", 1)
				c.dieAfter(step, streams{}, "sh", "-c",
					fmt.Sprintf("%s out checkpoint %d 3 0 3>img; exit $?", c.call, pid)).ends("exit status 1")
				c.runsOn(pid)
				c.write(c.nth("go", 1), "")
				j.ends("exit status 0")
				c.passed()
			})
		}
	}
}
