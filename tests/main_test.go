// Package tests runs the whole system: the crshim binary, C programs built by
// several compilers, real processes, as root and as an ordinary user.
//
// Everything happens below one temporary directory. After the run no process,
// no descriptor and no file may be left over, or the run fails.
package tests

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// work is the directory of this run: bin/ for what is built, tmp/ as TMPDIR
// of every program, and one directory per test.
var work string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	flag.Parse()
	// Many tests wait for a sleeping program rather than compute.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		if err := f.Value.Set("4"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "tests:", err)
		return 1
	}
	fds := openFDs()
	code := m.Run()
	left := leftovers(fds)
	if err := dropHugePages(); err != nil {
		left = append(left, err.Error())
	}
	if err := os.RemoveAll(work); err != nil {
		left = append(left, err.Error())
	}
	for _, l := range left {
		fmt.Fprintln(os.Stderr, "left over:", l)
	}
	if len(left) > 0 && code == 0 {
		code = 1
	}
	return code
}

func prepare() error {
	var err error
	if work, err = os.MkdirTemp("", "crshim-tests."); err != nil {
		return err
	}
	// Programs run as another user, too: they must get through.
	if err := os.Chmod(work, 0o755); err != nil {
		return err
	}
	for name, mode := range map[string]os.FileMode{"bin": 0o755, "tmp": 0o777 | os.ModeSticky, "run": 0o755} {
		dir := filepath.Join(work, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(dir, mode); err != nil {
			return err
		}
	}
	// The compiler keeps its cache where it is.
	if cache, err := os.UserCacheDir(); err == nil && os.Getenv("GOCACHE") == "" {
		if err := os.Setenv("GOCACHE", filepath.Join(cache, "go-build")); err != nil {
			return err
		}
	}
	for name, value := range map[string]string{"TMPDIR": "tmp", "XDG_CACHE_HOME": "tmp/cache"} {
		if err := os.Setenv(name, filepath.Join(work, value)); err != nil {
			return err
		}
	}
	// Orphans of our programs become our children, so that none hides.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	// What we have inherited is not for our programs: a pipe among it would
	// be a thing that cannot be saved.
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("keep inherited descriptors: %w", err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = min(limit.Max, 4096)
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
}

// leftovers names what the tests have not cleaned up, and ends the processes
// among it.
func leftovers(fds []string) []string {
	// A supervisor may still be on its way out.
	deadline := time.Now().Add(5 * time.Second)
	var left []process
	for {
		reapOrphans()
		left = descendants(os.Getpid())
		if len(left) == 0 || time.Now().After(deadline) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	var names []string
	for _, p := range left {
		names = append(names, fmt.Sprintf("process %d (%s), state %s", p.pid, p.comm, p.state))
		_ = unix.Kill(p.pid, unix.SIGKILL)
	}
	for _, fd := range openFDs() {
		if !slices.Contains(fds, fd) {
			names = append(names, "descriptor "+fd)
		}
	}
	// The unpacked header is meant to stay in the cache directory.
	entries, err := os.ReadDir(filepath.Join(work, "tmp"))
	if err != nil {
		names = append(names, err.Error())
	}
	for _, e := range entries {
		if e.Name() != "cache" {
			names = append(names, "file "+filepath.Join("TMPDIR", e.Name()))
		}
	}
	return names
}

// openFDs lists our descriptors as "NUMBER TARGET", without those of the Go
// runtime's own making.
func openFDs() []string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return []string{err.Error()}
	}
	var fds []string
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || strings.HasPrefix(target, "anon_inode:") || strings.HasPrefix(target, "/sys/fs/cgroup") {
			continue
		}
		fds = append(fds, e.Name()+" "+target)
	}
	return fds
}

// repository is the root of the source tree.
var repository = sync.OnceValue(func() string {
	dir, err := filepath.Abs("..")
	if err != nil {
		panic(err)
	}
	return dir
})

// command runs a tool to its end; its output is in the error.
func command(dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
