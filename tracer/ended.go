package tracer

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Ended returns a pidfd, opened with flags (pidfd_open(2)), of a process that
// has ended with that status and has been waited for. It was started for that.
func Ended(status unix.WaitStatus, flags int) (*os.File, error) {
	file, err := ended(status, flags)
	if err != nil {
		return nil, fmt.Errorf("make a process that has ended: %w", err)
	}
	return file, nil
}

var (
	// stopping are the signals that would have us wait for ever.
	stopping = []unix.Signal{unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU}
	// ignored are those that nobody notices who has no handler for them (signal(7)).
	ignored = []unix.Signal{unix.SIGCHLD, unix.SIGCONT, unix.SIGURG, unix.SIGWINCH}
)

func ended(status unix.WaitStatus, flags int) (*os.File, error) {
	if status.Signaled() && slices.Contains(stopping, status.Signal()) {
		return nil, fmt.Errorf("%v ends nobody: %w", status.Signal(), unix.EINVAL)
	}
	image, err := imageOf(endingELF(status), 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(image)
	pid, err := syscall.ForkExec(fmt.Sprintf("/proc/self/fd/%d", image), []string{"ended"}, &syscall.ProcAttr{Env: []string{}})
	if err != nil {
		return nil, fmt.Errorf("execute: %w", err)
	}
	fd, err := unix.PidfdOpen(pid, flags) // it is there until it is waited for
	var got unix.WaitStatus
	_, werr := unix.Wait4(pid, &got, unix.WALL, nil)
	switch {
	case err != nil || werr != nil:
		err = errors.Join(err, werr)
	case got != status:
		err = fmt.Errorf("it ended with %#x, not %#x: %w", int(got), int(status), unix.EINVAL)
	default:
		return os.NewFile(uintptr(fd), "pidfd"), nil
	}
	if fd >= 0 {
		err = errors.Join(err, unix.Close(fd))
	}
	return nil, err
}
