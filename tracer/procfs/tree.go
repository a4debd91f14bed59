package procfs

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Threads lists the threads of the process, its leader included, in rising
// order. A running process can start one behind the reader's back: who stops
// them all lists again until nothing is new.
func (p *Proc) Threads() ([]PID, error) {
	numbers, err := p.numbers("task")
	if err != nil {
		return nil, err
	}
	return asPIDs(numbers), nil
}

// Children lists the processes whose parent is some thread of this process,
// zombies included, in rising order. Exact if neither the process nor its
// children run. The files /proc/PID/task/TID/children exist with
// CONFIG_PROC_CHILDREN only (always with CONFIG_CHECKPOINT_RESTORE); without
// them every process in /proc is asked for its parent.
func (p *Proc) Children() ([]PID, error) {
	kids, told, err := p.childrenFiles()
	if err == nil && !told {
		return p.childrenScan()
	}
	return kids, err
}

// childrenFiles is false if the kernel has no such files.
func (p *Proc) childrenFiles() (kids []PID, told bool, err error) {
	threads, err := p.Threads()
	if err != nil {
		return nil, false, err
	}
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
	all, err := listNumbers(fd, root)
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
