package shim

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core"
)

// terminal is the one in whose foreground `crshim restart` was started. CMD has it as it had its own: with its settings, and its
// process group in the foreground, if it has one of its own. Then the front does as a shell does for a job: it takes the
// terminal back when CMD stops or ends, and gives it again when both are continued in the foreground.
type terminal struct {
	file *os.File
	own  int  // our process group
	late bool // CMD is to have it when it is continued

	mu       sync.Mutex
	holds    bool         // CMD has it
	had      bool         // it had when that was to be taken back last
	group    int          // of CMD, in the foreground when CMD has it
	before   unix.Termios // as the terminal was before CMD had it
	settings unix.Termios // of CMD, while that does not have it
}

// openTerminal returns the controlling terminal, nil if there is none or this process is not in its foreground.
func openTerminal() (*terminal, error) {
	file, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil // ENXIO: there is none. Whatever else it is, it can be done without.
	}
	t := &terminal{file: file, own: unix.Getpgrp()}
	group, err := t.foreground()
	if err == nil && group == t.own {
		if settings, err := unix.IoctlGetTermios(t.fd(), unix.TCGETS2); err == nil {
			t.before = *settings
			return t, nil
		}
	}
	return nil, file.Close()
}

func (t *terminal) fd() int { return int(t.file.Fd()) }

func (t *terminal) foreground() (int, error) { return unix.IoctlGetInt(t.fd(), unix.TIOCGPGRP) }

// inJob tells whether somebody watches over this process and its group: one of the session, in another group. If nobody does, a
// stop from the terminal would be for ever, and the kernel does not let it happen (an orphaned process group of POSIX).
func inJob() bool {
	parent := os.Getppid()
	session, err := unix.Getsid(0)
	theirs, theirErr := unix.Getsid(parent)
	group, groupErr := unix.Getpgid(parent)
	return errors.Join(err, theirErr, groupErr) == nil && session == theirs && group != unix.Getpgrp()
}

// give lets CMD have the terminal for the first time.
func (t *terminal) give(f core.Foreground) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.group, t.settings = int(f.Group), t.before
	if s := f.Settings; s.Known {
		t.settings.Iflag, t.settings.Oflag, t.settings.Lflag, t.settings.Cc = s.InputMode, s.OutputMode, s.Local, s.Chars
	}
	if t.late {
		return nil
	}
	return t.handTo(t.group, &t.settings, true)
}

// redraw tells CMD that the window is another one.
func (t *terminal) redraw() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.holds {
		_ = unix.Kill(-t.group, unix.SIGWINCH) // it may have ended, or be of another user
	}
}

// retake takes the terminal back from CMD.
func (t *terminal) retake() error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.had = t.holds; !t.holds {
		return nil
	}
	group, err := t.foreground()
	if err == nil {
		var settings *unix.Termios
		if settings, err = unix.IoctlGetTermios(t.fd(), unix.TCGETS2); err == nil {
			t.settings = *settings
			if group != t.own {
				t.group = group
			}
		}
	}
	if err != nil {
		t.holds = false
		return unlessGone(err)
	}
	return t.handTo(t.own, &t.before, false)
}

// share has a key of the terminal that has ended CMD reach all of our job, as it would have if CMD were in our process group: a
// script around us ends then, too.
func (t *terminal) share(status unix.WaitStatus) error {
	if t == nil || !t.had || t.group == t.own || !status.Signaled() || status.Signal() != unix.SIGINT && status.Signal() != unix.SIGQUIT {
		return nil
	}
	if err := unix.Kill(0, status.Signal()); err != nil { // our handler takes it
		return fmt.Errorf("pass %s on: %w", unix.SignalName(status.Signal()), err)
	}
	return nil
}

// resume gives the terminal to CMD again, if this job is in the foreground.
func (t *terminal) resume() error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.holds || t.group == 0 {
		return nil
	}
	group, err := t.foreground()
	if err != nil || group != t.own {
		return unlessGone(err)
	}
	settings, err := unix.IoctlGetTermios(t.fd(), unix.TCGETS2)
	if err != nil {
		return unlessGone(err)
	}
	t.before = *settings
	return t.handTo(t.group, &t.settings, true)
}

// handTo makes a group that of the foreground. The calls are made with SIGTTOU blocked: a process in the background may make them
// only so (tcsetpgrp(3)). mu is held.
func (t *terminal) handTo(group int, settings *unix.Termios, holds bool) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	block := unix.Sigset_t{Val: [16]uint64{1 << (unix.SIGTTOU - 1)}}
	var mask unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &block, &mask); err != nil {
		return fmt.Errorf("block SIGTTOU: %w", err)
	}
	t.holds = holds
	err := unix.IoctlSetPointerInt(t.fd(), unix.TIOCSPGRP, group)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EPERM) {
		err = nil // the group has ended
	}
	err = errors.Join(err, unix.IoctlSetTermios(t.fd(), unix.TCSETS2, settings))
	if err = unlessGone(err); err != nil {
		err = fmt.Errorf("hand the terminal over: %w", err)
	}
	return errors.Join(err, unix.PthreadSigmask(unix.SIG_SETMASK, &mask, nil))
}

// unlessGone leaves out that the terminal has been hung up: nobody misses it.
func unlessGone(err error) error {
	if errors.Is(err, unix.EIO) || errors.Is(err, unix.ENOTTY) {
		return nil
	}
	return err
}
