package tracer

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// StopKind says why wait4 reported a tracee.
type StopKind uint8

// See ptrace(2), "Stopped states".
const (
	// EventStop is PTRACE_EVENT_STOP: the answer to PTRACE_INTERRUPT (Signal
	// SIGTRAP), a new child that came attached (SIGTRAP), or a group stop
	// (Signal SIGSTOP, SIGTSTP, SIGTTIN or SIGTTOU).
	EventStop StopKind = iota + 1
	SignalStop
	SyscallStop // entry or exit
	ExecStop
	CloneStop // NewTID is the new task
	ForkStop  // NewTID is the new task
	VforkStop // NewTID is the new task
	ExitStop
	OtherStop // an event that was not asked for
	Exited    // Status; the task is gone
	Killed    // Signal; the task is gone
)

var stopKindNames = [...]string{
	EventStop: "event stop", SignalStop: "signal stop", SyscallStop: "syscall stop",
	ExecStop: "exec stop", CloneStop: "clone stop", ForkStop: "fork stop",
	VforkStop: "vfork stop", ExitStop: "exit stop", OtherStop: "other stop",
	Exited: "exited", Killed: "killed",
}

func (k StopKind) String() string {
	if int(k) < len(stopKindNames) && stopKindNames[k] != "" {
		return stopKindNames[k]
	}
	return fmt.Sprintf("stop kind %d", uint8(k))
}

// Stop is one report about a tracee.
type Stop struct {
	Kind   StopKind
	Signal unix.Signal // EventStop, SignalStop, Killed
	Status int         // Exited
	NewTID TID         // CloneStop, ForkStop, VforkStop
	Core   bool        // Killed, and dumped core
}

// Gone says that the task has ended.
func (s Stop) Gone() bool { return s.Kind == Exited || s.Kind == Killed }

// GroupStop says that the task's whole thread group is stopped, as by SIGSTOP.
func (s Stop) GroupStop() bool { return s.Kind == EventStop && s.Signal != unix.SIGTRAP }

func (s Stop) String() string {
	switch s.Kind {
	case EventStop, SignalStop, Killed:
		return fmt.Sprintf("%v (%s)", s.Kind, unix.SignalName(s.Signal))
	case Exited:
		return fmt.Sprintf("exited (%d)", s.Status)
	case CloneStop, ForkStop, VforkStop:
		return fmt.Sprintf("%v (new task %d)", s.Kind, s.NewTID)
	}
	return s.Kind.String()
}

// decodeStop reads a wait status of a task seized with
// PTRACE_O_TRACESYSGOOD. It leaves NewTID alone: that takes a question.
func decodeStop(status uint32) Stop {
	sig := unix.Signal(status >> 8 & 0xff)
	switch low := status & 0x7f; {
	case low == 0:
		return Stop{Kind: Exited, Status: int(sig)}
	case low != 0x7f:
		return Stop{Kind: Killed, Signal: unix.Signal(low), Core: status&0x80 != 0}
	case sig == unix.SIGTRAP|0x80:
		return Stop{Kind: SyscallStop}
	}
	switch event := status >> 16; event {
	case 0:
		return Stop{Kind: SignalStop, Signal: sig}
	case unix.PTRACE_EVENT_STOP:
		return Stop{Kind: EventStop, Signal: sig}
	case unix.PTRACE_EVENT_FORK:
		return Stop{Kind: ForkStop}
	case unix.PTRACE_EVENT_VFORK:
		return Stop{Kind: VforkStop}
	case unix.PTRACE_EVENT_CLONE:
		return Stop{Kind: CloneStop}
	case unix.PTRACE_EVENT_EXEC:
		return Stop{Kind: ExecStop}
	case unix.PTRACE_EVENT_EXIT:
		return Stop{Kind: ExitStop}
	}
	return Stop{Kind: OtherStop}
}
