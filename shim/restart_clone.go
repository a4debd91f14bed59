package shim

/*
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char **environ;

static char **new_vector(int n) { return calloc(n + 1, sizeof(char *)); }

static void set_vector(char **v, int i, char *s) { v[i] = s; }

static void free_vector(char **v)
{
	for (int i = 0; v[i]; i++)
		free(v[i]);
	free(v);
}

// The child must have the number of its own choice, and then nothing of this process: a handler of the Go runtime would not
// survive there, so they go and all signals wait. Returns the child, or -errno; *failed is the errno of its execve.
static int clone_as(int number, char **argv, int *pidfd, int *failed)
{
	struct clone_args args = {
		.flags = CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
		.pidfd = (uintptr_t)pidfd,
		.exit_signal = SIGCHLD,
		.set_tid = (uintptr_t)&number,
		.set_tid_size = 1,
	};
	sigset_t all, mask;
	int told[2], pid, err;

	if (pipe2(told, O_CLOEXEC))
		return -errno;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &mask);
	pid = syscall(SYS_clone3, &args, sizeof args);
	err = errno;
	if (pid == 0) {
		sigprocmask(SIG_SETMASK, &mask, 0);
		execve("/proc/self/exe", argv, environ);
		err = errno;
		_exit(write(told[1], &err, sizeof err) < 0 ? 126 : 127);
	}
	sigprocmask(SIG_SETMASK, &mask, 0);
	close(told[1]);
	*failed = 0;
	if (pid > 0)
		while (read(told[0], failed, sizeof *failed) < 0 && errno == EINTR)
			;
	close(told[0]);
	return pid < 0 ? -err : pid;
}
*/
import "C"

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
)

// errPID says that a process id cannot be had.
var errPID = errors.New("no such choice of process id")

// spawnAs is spawn for a process of a certain number (clone3(2), set_tid, since Linux 5.5). Where that number cannot be had the
// error is errPID as well as the fault.
func spawnAs(number int, stage string, config *stageConfig) (pid, pidfd int, err error) {
	argv, err := config.pass(stage, nil)
	defer config.keep(unix.CloseOnExec)
	if err != nil {
		return 0, -1, err
	}
	vector := C.new_vector(C.int(len(argv)))
	defer C.free_vector(vector)
	for i, arg := range argv {
		C.set_vector(vector, C.int(i), C.CString(arg))
	}
	var fd, failed C.int
	pid = int(C.clone_as(C.int(number), vector, &fd, &failed))
	switch {
	case pid < 0:
		return 0, -1, pidFault(number, unix.Errno(-pid))
	case failed != 0:
		_, err := unix.Wait4(pid, nil, 0, nil)
		return 0, -1, errors.Join(fmt.Errorf("start stage %s: %w", stage, unix.Errno(failed)), err, unix.Close(int(fd)))
	}
	return pid, int(fd), nil
}

func pidFault(number int, errno unix.Errno) error {
	codes := map[unix.Errno]fault.Code{
		unix.EEXIST: fault.PIDTaken,
		unix.EPERM:  fault.PIDNotPermitted,
		unix.EINVAL: fault.PIDRange,
		// As some container runtimes have it for what their filter forbids.
		unix.ENOSYS: fault.PIDNotPermitted,
	}
	code, ok := codes[errno]
	if !ok {
		return fmt.Errorf("start process %d: %w", number, errno)
	}
	return &fault.Error{Code: code, Object: fmt.Sprintf("pid %d", number), Err: errPIDCause{errno}}
}

// errPIDCause is the errno, and errPID.
type errPIDCause struct{ unix.Errno }

func (e errPIDCause) Unwrap() []error { return []error{e.Errno, errPID} }
