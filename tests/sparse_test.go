package tests

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sparseRun is what it took to save and restart a program.
type sparseRun struct {
	save, restart time.Duration
	size          int64
}

// sparseTimes saves and restarts callers/sparse.c three times and returns the
// least of each.
func sparseTimes(t *testing.T, u user, kind string, mib int) sparseRun {
	var all []sparseRun
	for range 3 {
		e := newEnv(t, u)
		j := e.start(streams{}, program(t, glibc, "callers", "sparse"), kind, strconv.Itoa(mib), e.dir)
		e.until("the program is ready", func() bool {
			if j.ended() {
				e.Skipf("needs: %d MiB of address space (%s)", mib, j.cmd.ProcessState)
			}
			return exists(e.path("ready"))
		})
		pid, before := j.pid(), time.Now()
		e.start(streams{}, e.crshim, "checkpoint", strconv.Itoa(pid), "-o", "img").ends("exit status 0")
		run := sparseRun{save: time.Since(before)}
		var st unix.Stat_t
		if err := unix.Stat(e.path("img"), &st); err != nil {
			e.Fatal(err)
		}
		run.size = st.Size
		e.signal(pid, unix.SIGKILL)
		j.ends("signal: killed")
		before = time.Now()
		j = e.start(streams{}, e.crshim, "restart", "img")
		pid = e.restored(j, scenario{}, "sparse")
		run.restart = time.Since(before)
		e.signal(pid, unix.SIGUSR1)
		j.ends("exit status 0")
		if !exists(e.path("right")) {
			e.Fatal("it did not find its memory as it was")
		}
		all = append(all, run)
	}
	least := func(of func(sparseRun) time.Duration) time.Duration {
		return of(slices.MinFunc(all, func(a, b sparseRun) int { return int(of(a) - of(b)) }))
	}
	return sparseRun{
		save:    least(func(r sparseRun) time.Duration { return r.save }),
		restart: least(func(r sparseRun) time.Duration { return r.restart }),
		size:    all[0].size,
	}
}

// TestSparse: what is reserved and not touched costs neither time nor room. A
// walk through 1 TiB takes seconds, and so more than the factor that noise is
// given.
func TestSparse(t *testing.T) {
	const small, large, noise = 1, 1 << 20, 6
	for _, kind := range []string{"private", "none", "file", "memfd", "closed", "shared"} {
		t.Run(kind, func(t *testing.T) {
			eachUser(t, func(t *testing.T, u user) {
				if u.id != 0 && (kind == "closed" || kind == "shared") {
					t.Skip("needs: CAP_CHECKPOINT_RESTORE; without, mincore(2) has to look for the pages")
				}
				if kind == "file" && !holdsSparse(t) {
					t.Skip("needs: a file system with files of 1 TiB")
				}
				a, b := sparseTimes(t, u, kind, small), sparseTimes(t, u, kind, large)
				t.Logf("1 MiB: %+v; 1 TiB: %+v", a, b)
				if b.save > noise*a.save || b.restart > noise*a.restart {
					t.Errorf("1 MiB takes %v to save and %v to restart, 1 TiB %v and %v", a.save, a.restart, b.save, b.restart)
				}
				if b.size > a.size+a.size/4 {
					t.Errorf("images of %d and %d bytes", a.size, b.size)
				}
			})
		})
	}
}

// holdsSparse tells whether a file may be as long.
func holdsSparse(t *testing.T) bool {
	e := newEnv(t, users()[0])
	f := e.create(e.path("probe"), unix.O_RDWR)
	defer f.Close()
	return f.Truncate(1<<40) == nil
}
