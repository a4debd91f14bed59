package tests

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// segmentOf returns the line of /proc/sysvipc/shm about the segment that a
// process has made, in fields, nil if there is none. Its first two are key and
// id, the seventh the number of attaches.
func segmentOf(t *testing.T, maker int) []string {
	t.Helper()
	table, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil {
		t.Skip("needs: System V shared memory")
	}
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); f[4] == strconv.Itoa(maker) {
			return f
		}
	}
	return nil
}

// TestSegmentOfFailedRestart: one that is there stays as it is, one that is gone
// stays gone, and one that somebody uses is not touched.
func TestSegmentOfFailedRestart(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		e := newEnv(t, u)
		j := e.start(streams{}, program(t, glibc, "scenarios", "sysv"), "stays", "external", e.dir, "1")
		pid := e.announced(j, "ready", 1)
		e.start(streams{}, e.crshim, "checkpoint", strconv.Itoa(pid), "-o", "img").ends("exit status 0")
		e.signal(pid, unix.SIGKILL)
		j.ends("signal: killed")
		segment := segmentOf(t, pid)
		if segment == nil {
			t.Fatal("the segment is gone with its maker")
		}
		id, err := strconv.Atoi(segment[1])
		if err != nil {
			t.Fatal(err)
		}
		remove := func() { _, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil) } // it may be gone
		t.Cleanup(remove)

		// Without its end, the image fails when all of it has been staged.
		image := e.read(e.path("img"))
		e.write(e.path("cut"), image[:len(image)-100])
		memory, err := unix.SysvShmAttach(id, 0, 0)
		if err != nil {
			t.Skip("needs: to attach what another user has made: ", err)
		}
		memory[100], memory[6*4096] = 'x', 'y'
		busy := e.start(streams{}, e.crshim, "restart", "img")
		busy.ends("exit status 125")
		if text := busy.output(); !strings.Contains(text, "CR2604") {
			t.Errorf("restart beside another user of the segment: %q, want CR2604", text)
		}
		if err := unix.SysvShmDetach(memory); err != nil {
			t.Fatal(err)
		}
		e.start(streams{}, e.crshim, "restart", "cut").ends("exit status 125")
		if memory, err = unix.SysvShmAttach(id, 0, 0); err != nil {
			t.Fatal(err)
		}
		if memory[100] != 'x' || memory[6*4096] != 'y' {
			t.Error("a restart that failed has changed the segment")
		}
		if err := unix.SysvShmDetach(memory); err != nil {
			t.Fatal(err)
		}
		remove()
		e.start(streams{}, e.crshim, "restart", "cut").ends("exit status 125")
		table, err := os.ReadFile("/proc/sysvipc/shm")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(table)) {
			if f := strings.Fields(line); f[0] == segment[0] {
				t.Errorf("a restart that failed has left a segment: %s", line)
			}
		}
	})
}
