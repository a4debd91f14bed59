package tracer

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// What InitProgram rests on.
const (
	InitCommand = 2 // the process whose end is its own
	InitReports = 3 // its descriptor of the eventfd
)

// InitProgram returns a descriptor of the program that a process executes, by
// execveat(2), to be the first one of a pid namespace. It is a page of code and
// a stack, so that it can be saved and restored like any other process.
//
// It waits for signals, all of which must be blocked when it begins, reaps
// every child, and passes what other processes send it on to the process
// InitCommand. When that ends it ends too, with the same exit status, or 128 and
// the number of the signal, and the kernel ends the namespace with it.
//
// What becomes of InitCommand it adds to the eventfd InitReports, if there is
// one (InitReport).
func InitProgram() (int, error) {
	fd, err := imageOf(initELF(), InitReports+1)
	if err != nil {
		return -1, fmt.Errorf("make init program: %w", err)
	}
	return fd, nil
}

// InitReport is what has been read of the eventfd: the sum of what was added
// since it was read last.
type InitReport uint64

// Changes is how often InitCommand has been stopped, continued or ended.
func (r InitReport) Changes() int { return int(r >> 32) }

// StopSignal is what has stopped InitCommand, if Changes is 1, 0 if it
// goes on or has ended.
func (r InitReport) StopSignal() unix.Signal { return unix.Signal(r >> 16 & 0xffff) }

// Status is how InitCommand has ended, 0 also if it has not.
func (r InitReport) Status() unix.WaitStatus { return unix.WaitStatus(r & 0xffff) }
