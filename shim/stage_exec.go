package shim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/seccomp"
	"github.com/crshim/crshim/syscalls"
)

// becomeCommand is the stage that turns into CMD. It runs on the locked main thread.
func becomeCommand(config *stageConfig, command []string) error {
	var lastPID *os.File
	if config.Container != nil {
		var err error
		if config.Restart != nil {
			lastPID, err = openLastPID()
		}
		if err == nil {
			err = config.Container.enter()
		}
		if err != nil {
			return err
		}
	}
	if config.Restart != nil {
		return becomeBlank(config, lastPID)
	}
	if config.Container != nil && config.Container.User == userKeep {
		if err := dropCapabilities(); err != nil {
			return err
		}
	}
	path, err := findCommand(command[0])
	if err != nil {
		return err
	}
	if err := enterFilter(config.Hand); err != nil {
		return err
	}
	if err := config.Start.restore(); err != nil {
		return err
	}
	err = syscall.Exec(path, command, os.Environ())
	if errors.Is(err, unix.ENOEXEC) {
		// A script without a first line "#!" is for the shell, as execvp(3) has it.
		err = syscall.Exec("/bin/sh", append([]string{"sh", path}, command[1:]...), os.Environ())
	}
	return commandFault(command[0], err)
}

// enterFilter puts the thread under the filter and waits until its calls are served.
func enterFilter(hand socket) error {
	// Threads share a list of semaphore adjustments (SEM_UNDO), which outlives execve: CMD would look as if it had some.
	if err := unix.Unshare(unix.CLONE_SYSVSEM); err != nil {
		return fmt.Errorf("unshare semaphore adjustments: %w", err)
	}
	filter, err := seccomp.Build(syscalls.Numbers())
	if err != nil {
		return err
	}
	listener, err := filter.Load()
	if err != nil {
		return filterFault(err)
	}
	err = hand.send(notice{Kind: noticeListener}, listener)
	// While we hold a copy of it, our calls would wait for a supervisor that has died.
	if closeErr := unix.Close(listener); closeErr != nil {
		err = errors.Join(err, fmt.Errorf("close listener: %w", closeErr))
	}
	if err != nil {
		return err
	}
	if _, _, err := hand.receive(); err != nil {
		return &fault.Error{Code: fault.SupervisorLost, Err: err}
	}
	return nil
}

func filterFault(err error) error {
	for cause, code := range map[error]fault.Code{
		seccomp.ErrTooOld:      fault.KernelTooOld,
		seccomp.ErrNested:      fault.ListenerTaken,
		seccomp.ErrUnsupported: fault.NoSeccomp,
		seccomp.ErrPrivileges:  fault.NoNewPrivs,
	} {
		if errors.Is(err, cause) {
			return &fault.Error{Code: code, Err: err}
		}
	}
	return err
}

// restore gives CMD what crshim itself was started with.
func (s startState) restore() error {
	for sig := unix.Signal(1); sig <= 64; sig++ {
		if s.ignores(int(sig)) && sig != unix.SIGKILL && sig != unix.SIGSTOP {
			if _, err := setSigaction(sig, sigaction{handler: sigIgnore}); err != nil {
				return err
			}
		}
	}
	mask := unix.Sigset_t{Val: [16]uint64{s.Blocked}}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &mask, nil); err != nil {
		return fmt.Errorf("set signal mask: %w", err)
	}
	for fd := range 3 {
		if s.Closed&(1<<fd) != 0 {
			unix.CloseOnExec(fd) // a failed exec still has to be told
		}
	}
	return nil
}

// findCommand looks name up as execvp(3) does.
func findCommand(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil // the kernel decides
	}
	denied := error(nil)
	for _, dir := range filepath.SplitList(searchPath()) {
		path := dir + "/" + name
		if dir == "" {
			path = "./" + name
		}
		info, err := os.Stat(path)
		switch {
		case err != nil || info.IsDir():
			continue
		case unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS) != nil:
			denied = unix.EACCES
			continue
		}
		return path, nil
	}
	if denied != nil {
		return "", commandFault(name, denied)
	}
	return "", commandFault(name, unix.ENOENT)
}

// searchPath is PATH, or the default of execvp(3) where it is unset.
func searchPath() string {
	if path, ok := os.LookupEnv("PATH"); ok {
		return path
	}
	return "/bin:/usr/bin"
}

func commandFault(name string, err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return &fault.Error{Code: fault.CommandNotFound, Object: name}
	}
	return &fault.Error{Code: fault.CommandNotExec, Object: name, Err: err}
}
