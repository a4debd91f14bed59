package tracer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer/procfs"
)

// TestMain is also the program of the tracer that is killed: see doomed.
func TestMain(m *testing.M) {
	if at := os.Getenv("TRACER_DOOMED"); at != "" {
		os.Exit(doomed(at))
	}
	before := openFDs()
	code := m.Run()
	if targetDir != "" {
		os.RemoveAll(targetDir)
	}
	if after := openFDs(); code == 0 && after > before {
		fmt.Fprintf(os.Stderr, "%d descriptors before the tests, %d after\n", before, after)
		code = 1
	}
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG|unix.WALL, nil); code == 0 && !errors.Is(err, unix.ECHILD) {
		fmt.Fprintf(os.Stderr, "a child is left over (%d, %v)\n", pid, err)
		code = 1
	}
	os.Exit(code)
}

// openFDs leaves out what the runtime opens once for itself.
func openFDs() (n int) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	for _, entry := range entries {
		if link, err := os.Readlink("/proc/self/fd/" + entry.Name()); err == nil && link != "anon_inode:[eventpoll]" && link != "anon_inode:[eventfd]" {
			n++
		}
	}
	return n
}

const patience = 20 * time.Second // far above anything that goes well

var (
	targetDir   string
	buildTarget = sync.OnceValues(func() (string, error) {
		dir, err := os.MkdirTemp("", "tracer-test-")
		if err != nil {
			return "", err
		}
		targetDir = dir
		if err := os.Chmod(dir, 0o755); err != nil {
			return "", err
		}
		program := filepath.Join(dir, "target")
		out, err := exec.Command("cc", "-O1", "-Wall", "-Werror", "-mno-red-zone", "-static", "-no-pie", "-pthread",
			"-o", program, "testdata/target.c").CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("cc: %w\n%s", err, out)
		}
		return program, nil
	})
)

// A target is a running program of testdata/target.c.
type target struct {
	t      testing.TB
	pid    TID
	proc   *os.Process
	in     *os.File
	out    *os.File
	shared []byte
	ended  bool
}

// nobody runs a target or a tracer as an ordinary user.
var nobody = &syscall.Credential{Uid: 65534, Gid: 65534}

func startTarget(t testing.TB, cred *syscall.Credential, args ...string) *target {
	t.Helper()
	program, err := buildTarget()
	if err != nil {
		t.Fatal(err)
	}
	report := filepath.Join(t.TempDir(), "report")
	if err := os.WriteFile(report, make([]byte, 4096), 0o666); err != nil {
		t.Fatal(err)
	}
	for dir := report; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.OpenFile(report, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	shared, err := unix.Mmap(int(file.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer inR.Close()
	defer outW.Close()
	g := &target{t: t, in: inW, out: outR, shared: shared}
	// Not exec.Cmd, whose Wait would take stops from a tracer.
	g.proc, err = os.StartProcess(program, append([]string{program, args[0], report}, args[1:]...), &os.ProcAttr{
		Files: []*os.File{inR, outW, os.Stderr},
		Env:   []string{"GLIBC_TUNABLES=glibc.pthread.rseq=0"},
		Sys:   &syscall.SysProcAttr{Credential: cred},
	})
	if err != nil {
		t.Fatal(err)
	}
	g.pid = TID(g.proc.Pid)
	t.Cleanup(g.end)
	g.until("start", func() bool { return g.loops() > 0 })
	return g
}

func (g *target) end() {
	if !g.ended {
		g.ended = true
		_ = g.proc.Kill()
		_, _ = unix.Wait4(int(g.pid), nil, 0, nil)
	}
	_ = g.proc.Release()
	g.in.Close()
	g.out.Close()
	if g.shared != nil {
		if bad := g.word(8); bad != 0 {
			g.t.Errorf("target found %d faults, the last %#x", bad, g.word(16))
		}
		_ = unix.Munmap(g.shared)
		g.shared = nil
	}
}

func (g *target) word(offset int) uint64 {
	return binary.NativeEndian.Uint64(g.shared[offset:])
}

func (g *target) loops() uint64                   { return g.word(0) }
func (g *target) signals(s syscall.Signal) uint64 { return g.word(24 + 8*int(s)) }

// progress waits until the target has done something more.
func (g *target) progress() {
	g.t.Helper()
	before := g.loops()
	g.until("progress", func() bool { return g.loops() > before+1 })
}

func (g *target) until(what string, ok func() bool) {
	g.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			g.t.Fatalf("no %s of target %d: %+v", what, g.pid, g.status())
		}
	}
}

func (g *target) status() *procfs.Status {
	g.t.Helper()
	p, err := procfs.Open(g.pid)
	if err != nil {
		g.t.Fatal(err)
	}
	defer p.Close()
	st, err := p.Status()
	if err != nil {
		g.t.Fatal(err)
	}
	return st
}

// echo has an "echo" target answer a byte.
func (g *target) echo() {
	g.t.Helper()
	b := []byte{byte(g.loops())}
	if _, err := g.in.Write(b); err != nil {
		g.t.Fatal(err)
	}
	var got [1]byte
	if err := g.out.SetReadDeadline(time.Now().Add(patience)); err != nil {
		g.t.Fatal(err)
	}
	if _, err := io.ReadFull(g.out, got[:]); err != nil || got[0] != b[0] {
		g.t.Fatalf("echo of %v is %v, %v", b, got, err)
	}
}

// A view is what may not change by our work, seen from outside.
type view struct {
	Maps, FDs, Masks string
}

func (g *target) view() view {
	g.t.Helper()
	read := func(name string) string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", g.pid, name))
		if err != nil {
			g.t.Fatal(err)
		}
		return string(b)
	}
	st := g.status()
	v := view{Maps: read("maps"), Masks: fmt.Sprintf("%x %x %x", st.SigBlk, st.SigIgn, st.SigCgt)}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.pid))
	if err != nil {
		g.t.Fatal(err)
	}
	for _, e := range entries {
		v.FDs += e.Name() + " "
	}
	return v
}

// sorted adds numbers to a view's FDs.
func sorted(fds string, more ...string) string {
	all := append(strings.Fields(fds), more...)
	slices.Sort(all) // as os.ReadDir does
	return strings.Join(all, " ") + " "
}

// stopped runs fn with the target stopped by us, and lets it go.
func (g *target) stopped(fn func(*Tracee)) {
	g.t.Helper()
	run(g.t, func(tr *Tracer) {
		e := seize(g.t, tr, g.pid)
		fn(e)
		if !e.gone {
			must(g.t, e.Detach(0))
		}
	})
}

func run(t testing.TB, fn func(*Tracer)) {
	t.Helper()
	// t.Fatal may not be called on another goroutine: it ends there, Run
	// panics here, and the test has failed already.
	defer func() {
		if v := recover(); v != nil {
			if p, ok := v.(*Panic); !ok || !errors.Is(p, errGoexit) || !t.Failed() {
				panic(v)
			}
			t.FailNow()
		}
	}()
	_, err := Run(func(tr *Tracer) (struct{}, error) {
		fn(tr)
		return struct{}{}, nil
	})
	must(t, err)
}

func seize(t testing.TB, tr *Tracer, tid TID) *Tracee {
	t.Helper()
	e, err := tr.Seize(tid, Options{})
	must(t, err)
	must(t, e.Interrupt())
	stop, err := e.WaitStop(patience)
	must(t, err)
	if stop.Kind != EventStop {
		t.Fatalf("stop is %v", stop)
	}
	return e
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func is(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error is %v, want %v", err, want)
	}
}

func atoi(t testing.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	must(t, err)
	return n
}
