package task

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer/procfs"
)

// A task that has called vfork(2) does not stop before its child has executed a
// program, or has ended: that uses its memory meanwhile. As the child is not
// stopped before its parent is, the wait is short as a rule.

// inVfork returns why a task that does not stop cannot, if it waits for the child
// of a vfork; nil if it does not, or if the child may still come so far.
func inVfork(tid procfs.PID, last bool) error {
	child, stopped := vforkChild(tid)
	if child == 0 || !stopped && !last {
		return nil
	}
	detail := fmt.Sprintf("for pid %d", child)
	if stopped {
		detail += ", which is stopped"
	}
	return &fault.Error{Code: fault.InVfork, Object: fmt.Sprintf("pid %d", tid), Detail: detail}
}

// vforkChild finds a child that has the memory of the task, 0 if there is none,
// and tells whether it is stopped, as by SIGSTOP.
func vforkChild(tid procfs.PID) (child procfs.PID, stopped bool) {
	proc, err := procfs.Open(tid)
	if err != nil {
		return 0, false
	}
	defer proc.Close()
	if call, err := proc.Syscall(); err != nil || call.Nr != unix.SYS_VFORK && call.Nr != unix.SYS_CLONE && call.Nr != unix.SYS_CLONE3 {
		return 0, false
	}
	children, err := proc.Children()
	if err != nil {
		return 0, false
	}
	for _, pid := range children {
		const kcmpVM = 1
		order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(tid), uintptr(pid), kcmpVM, 0, 0, 0)
		if errno != 0 || order != 0 {
			continue
		}
		status, err := statusOf(pid)
		return pid, err == nil && status.State == 'T'
	}
	return 0, false
}
