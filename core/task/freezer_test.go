package task

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

const limit = 30 * time.Second

// newGroup makes a control group below the root of a hierarchy that has a freezer.
func newGroup(t *testing.T, kind freezerKind) freezer {
	t.Helper()
	mounts, err := cgroupMounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		v1 := m.FSType == "cgroup" && strings.Contains(m.VFSOptions, "freezer")
		if m.FSType == "cgroup2" && kind != freezerV2 || m.FSType == "cgroup" && (!v1 || kind != freezerV1) {
			continue
		}
		dir, err := os.MkdirTemp(m.Mountpoint, "crshim-test-")
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
			t.Skipf("needs: the right to make control groups (%v)", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		g := freezer{kind, dir}
		t.Cleanup(func() {
			// The kernel takes its time to notice that a task has ended.
			for deadline := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
				err := os.Remove(dir)
				if err == nil {
					return
				}
				if time.Now().After(deadline) {
					t.Error(err)
					return
				}
			}
		})
		if _, err := os.Stat(filepath.Join(dir, kind.frozen)); err != nil {
			t.Skipf("needs: a freezer (%v)", err)
		}
		return g
	}
	t.Skipf("needs: a mounted control group hierarchy with %s", kind.state)
	return freezer{}
}

// busy starts a process in the group that writes to a file all the time.
func (f *freezer) busy(t *testing.T, out string) procfs.PID {
	t.Helper()
	cmd := exec.Command("sh", "-c", `while :; do echo; done > "$0"`, out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = f.set(f.off) // the frozen do not die
		_ = cmd.Wait()
	})
	procs := filepath.Join(f.dir, "cgroup.procs")
	if err := os.WriteFile(procs, []byte(fmt.Sprint(cmd.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	return procfs.PID(cmd.Process.Pid)
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func awaitGrowth(t *testing.T, path string) {
	t.Helper()
	from := size(t, path)
	for deadline := time.Now().Add(limit); size(t, path) == from; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not grow", path)
		}
	}
}

// awaitFrozen waits until the group and all in it are frozen.
func (f *freezer) awaitFrozen(t *testing.T) {
	t.Helper()
	name, want := "cgroup.events", "frozen 1"
	if f.freezerKind == freezerV1 {
		name, want = "freezer.state", "FROZEN"
	}
	for deadline := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(filepath.Join(f.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %q", name, text)
		}
	}
}

// TestFreezer works in a process whose control group is frozen: neither it nor another process of the group runs an
// instruction of its own, and in the end the group is as it was.
func TestFreezer(t *testing.T) {
	for name, kind := range map[string]freezerKind{"version 1": freezerV1, "version 2": freezerV2} {
		for _, above := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, above %t", name, above), func(t *testing.T) { testFreezer(t, kind, above) })
		}
	}
}

func testFreezer(t *testing.T, kind freezerKind, above bool) {
	top := newGroup(t, kind)
	group := top
	if above { // the group that is frozen is not the one that the process is in
		group.dir = filepath.Join(top.dir, "inner")
		if err := os.Mkdir(group.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Remove(group.dir) })
	}
	dir := t.TempDir()
	files := []string{filepath.Join(dir, "target"), filepath.Join(dir, "other")}
	target, other := group.busy(t, files[0]), group.busy(t, files[1])
	for _, f := range files {
		awaitGrowth(t, f)
	}
	if err := top.set(top.on); err != nil {
		t.Fatal(err)
	}
	top.awaitFrozen(t)
	before := []int64{size(t, files[0]), size(t, files[1])}

	var claims Claims
	for _, end := range []func(*Tree) error{(*Tree).Thaw, (*Tree).Thaw, (*Tree).Stop, (*Tree).Kill} {
		pid, err := tracer.Run(func(tr *tracer.Tracer) (pid uint64, err error) {
			f, err := Freeze(tr, &claims, target, nil)
			if err != nil {
				return 0, err
			}
			err = f.Root().Leader().Inject(tracer.InjectOptions{}, func(r *tracer.Remote) error {
				p := r.Program()
				row := p.Call(unix.SYS_GETPID)
				err := p.Run()
				pid = row.Result()
				return err
			})
			return pid, errors.Join(err, end(f))
		})
		if err != nil || pid != uint64(target) {
			t.Fatalf("the target says that it is %d: %v", pid, err)
		}
		top.awaitFrozen(t)
		for i, f := range files {
			if now := size(t, f); now != before[i] {
				t.Errorf("%s has grown from %d to %d", f, before[i], now)
			}
		}
	}
	if status, err := statusOf(target); err == nil && status.State != 'Z' {
		t.Errorf("the target is not dead but %c", status.State)
	}
	if err := top.set(top.off); err != nil {
		t.Fatal(err)
	}
	awaitGrowth(t, files[1])
	if tracedBy := TracedBy(other); tracedBy != 0 {
		t.Errorf("traced by %d", tracedBy)
	}
}
