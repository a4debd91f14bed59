package resource

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer/procfs"
)

// threadNamespaces are those that a thread can have for itself, by unshare(2) or
// setns(2), and that its working directory does not tell of (mnt) or that takes a
// process of one thread (user, time).
var threadNamespaces = [...]string{"net", "ipc", "uts", "cgroup", "pid_for_children", "time_for_children"}

// threadsApart refuses threads that are in other namespaces than their process.
func (v *View) threadsApart() fault.List {
	if len(v.Siblings) == 0 {
		return nil
	}
	type place struct {
		tid    procfs.PID
		inodes [len(threadNamespaces)]uint64
	}
	look := func(thread *procfs.Proc) (p place, err error) {
		p.tid = thread.PID()
		for i, kind := range threadNamespaces {
			if p.inodes[i], err = thread.NS(kind); errors.Is(err, unix.ENOENT) {
				err = nil // the kernel has none such
			}
			if err != nil {
				return p, err
			}
		}
		return p, nil
	}
	places, err := procfs.LookAtThreads(v.Proc, look)
	if err != nil {
		return fault.List{{Code: fault.ProcUnreadable, Object: v.Name(), Err: err}}
	}
	var list fault.List
	for _, p := range places {
		for i, inode := range p.inodes {
			if inode != places[0].inodes[i] {
				list = append(list, &fault.Error{Code: fault.ThreadNamespaces, Object: fmt.Sprintf("thread %d of %s", p.tid, v.Name()), Detail: threadNamespaces[i]})
				break
			}
		}
	}
	return list
}
