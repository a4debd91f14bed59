package core

import "github.com/crshim/crshim/core/task"

// Frozen tells how a process was frozen for more than a moment (task.Suspended).
type Frozen = task.Suspended

// Stopped is a process that a signal has stopped for it.
type Stopped = task.Stopped

// Freeze keeps a process and all that belongs to it from running, until Thaw
// (task.Suspend).
func Freeze(pid PID) (*Frozen, error) { return task.Suspend(pid) }

// FreezeHeld is Freeze for a process that is being restored, before it is let go
// (task.SuspendHeld).
func FreezeHeld(pid PID) (*Frozen, error) { return task.SuspendHeld(pid) }

// Thaw lets it go on (task.Resume).
func Thaw(pid PID, stopped []Stopped) error { return task.Resume(pid, stopped) }

// FreezeGroup freezes or thaws a control group by its directory.
func FreezeGroup(dir string, frozen bool) error { return task.SetGroup(dir, frozen) }

// IsFrozen tells whether a control group keeps a process from running.
func IsFrozen(pid PID) (bool, error) { return task.IsFrozen(pid) }

// ForgetFrozen removes what Freeze has made for a process that has ended while
// it was frozen. The caller is in the control groups that it was in.
func ForgetFrozen(pid PID) { task.Forget(pid) }
