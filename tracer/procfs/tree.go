package procfs

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Threads lists the threads of the process, its leader first, the others as
// they were made (next_tid of fs/proc/base.c), which is not the order of their
// numbers once those have begun anew. A running process can start one behind
// the reader's back: who stops them all lists again until nothing is new.
func (p *Proc) Threads() ([]PID, error) {
	numbers, err := p.numbers("task")
	if err != nil {
		return nil, err
	}
	return asPIDs(numbers), nil
}

// LookAtThreads returns what look finds of every thread, in the order of
// Threads. Several are looked at at a time. Those that end meanwhile, for
// which look says ErrGone, are left out.
func LookAtThreads[T any](p *Proc, look func(thread *Proc) (T, error)) ([]T, error) {
	tids, err := p.Threads()
	if err != nil {
		return nil, err
	}
	const perWorker = 16 // below it starting one costs more than it gains
	workers := min(runtime.GOMAXPROCS(0), 1+len(tids)/perWorker)
	found, errs := make([]T, len(tids)), make([]error, len(tids))
	var next atomic.Int64
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(tids)); i = next.Add(1) - 1 {
				errs[i] = p.thread(tids[i], func(thread *Proc) (err error) {
					found[i], err = look(thread)
					return err
				})
			}
		})
	}
	all.Wait()
	kept := found[:0]
	for i, err := range errs {
		switch {
		case err == nil:
			kept = append(kept, found[i])
		case !errors.Is(err, ErrGone):
			return nil, err
		}
	}
	return kept, nil
}

// thread calls do with one thread of the process.
func (p *Proc) thread(tid PID, do func(*Proc) error) error {
	name := "task/" + strconv.Itoa(int(tid))
	fd, err := p.open(name, unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) {
		return ErrGone
	}
	if err != nil {
		return err
	}
	t := &Proc{dir: fd, pid: tid, in: p.in + "/" + name}
	return errors.Join(do(t), t.Close())
}

// Children lists the processes whose parent is some thread of this process,
// zombies included, in rising order. Exact if neither the process nor its
// children run. The files /proc/PID/task/TID/children exist with
// CONFIG_PROC_CHILDREN only (always with CONFIG_CHECKPOINT_RESTORE); without
// them every process in /proc is asked for its parent.
func (p *Proc) Children() ([]PID, error) {
	threads, err := p.Threads()
	if err != nil {
		return nil, err
	}
	return p.ChildrenOf(threads)
}

// ChildrenOf is Children for who knows the threads of the process already.
func (p *Proc) ChildrenOf(threads []PID) ([]PID, error) {
	kids, told, err := p.childrenFiles(threads)
	if err == nil && !told {
		return p.childrenScan()
	}
	return kids, err
}

// childrenFiles is false if the kernel has no such files.
func (p *Proc) childrenFiles(threads []PID) (kids []PID, told bool, err error) {
	for _, tid := range threads {
		dir := "task/" + strconv.Itoa(int(tid))
		list, err := read(p, dir+"/children", parseChildren)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
			_, err := p.StatLink(dir + "/stat")
			if err == nil {
				return nil, false, nil
			}
			if errors.Is(err, ErrGone) || !errors.Is(err, unix.ENOENT) {
				return nil, false, err
			}
			continue // the thread has ended; its children are another's now
		}
		if err != nil {
			return nil, false, err
		}
		kids = append(kids, list...)
	}
	slices.Sort(kids)
	return slices.Compact(kids), true, nil
}

// childrenScan reads the stat of every process.
func (p *Proc) childrenScan() ([]PID, error) {
	self, err := p.Stat()
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", root, err)
	}
	all, err := listNumbers(fd)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", root, err)
	}
	var kids []PID
	for _, pid := range all {
		parent, err := parentOf(PID(pid))
		if errors.Is(err, ErrGone) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if parent == self.PID {
			kids = append(kids, PID(pid))
		}
	}
	// The numbers meant nothing if the process ended during the scan.
	if !p.Alive() {
		return nil, p.fault("list", "children", ErrGone)
	}
	return kids, nil
}

func parentOf(pid PID) (PID, error) {
	q, err := Open(pid)
	if err != nil {
		return 0, err
	}
	defer q.Close()
	st, err := q.Stat()
	if err != nil {
		return 0, err
	}
	return st.PPid, nil
}

func parseChildren(data []byte) ([]PID, error) {
	return list(data, func(b []byte) (PID, error) {
		pid, err := intOf[PID](b)
		if err == nil && pid < 0 {
			err = malformed("process id", b)
		}
		return pid, err
	})
}

func asPIDs(numbers []int32) []PID {
	out := make([]PID, len(numbers))
	for i, n := range numbers {
		out[i] = PID(n)
	}
	return out
}
