package shim

/*
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vector.h"

extern char **environ;

struct child {
	const char *path;
	char **argv;
	int hold;    // executes path when a message comes there; 0: at once
	int session; // leads a session of its own
	int pidfd;   // result
	int failed;  // result: errno of an execve at once
};

// Runs in a copy of a process with threads: nothing but system calls.
static void become(struct child *c, const sigset_t *mask, int told)
{
	char byte, *none[] = { 0 };
	int err;

	sigprocmask(SIG_SETMASK, mask, 0);
	if (c->session)
		setsid();
	if (c->hold) {
		while ((err = read(c->hold, &byte, 1)) < 0 && errno == EINTR)
			;
		if (err <= 0)
			_exit(125);
	}
	execve(c->path, c->argv, c->hold ? none : environ);
	err = errno;
	_exit(write(told, &err, sizeof err) < 0 ? 126 : 127);
}

// Returns the child, or -errno. Handlers of the Go runtime would not survive in it: they go, and until then no signal comes.
static int clone_as(struct child *c, int number)
{
	struct clone_args args = {
		.flags = CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
		.pidfd = (uintptr_t)&c->pidfd,
		.exit_signal = SIGCHLD,
		.set_tid = number ? (uintptr_t)&number : 0,
		.set_tid_size = number ? 1 : 0,
	};
	sigset_t all, mask;
	int told[2], pid, err;

	if (pipe2(told, O_CLOEXEC))
		return -errno;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &mask);
	pid = syscall(SYS_clone3, &args, sizeof args);
	err = errno;
	if (pid == 0)
		become(c, &mask, told[1]);
	sigprocmask(SIG_SETMASK, &mask, 0);
	close(told[1]);
	c->failed = 0;
	if (pid > 0 && !c->hold)
		while (read(told[0], &c->failed, sizeof c->failed) < 0 && errno == EINTR)
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

// blankChild is a child that is about to become a blank process, or a stage on the way there.
type blankChild struct {
	path    string
	argv    []string
	hold    socket // it waits there before it executes path, unless this is 0
	session bool   // it leads a session of its own
}

// start starts the child as that process (clone3(2), set_tid, since Linux 5.5), or as any if number is 0. Where a number cannot be
// had the error is errPID as well as the fault.
func (b *blankChild) start(number int) (pid, pidfd int, err error) {
	vector := C.new_vector(C.int(len(b.argv) + 1))
	defer C.free_vector(vector)
	path := C.CString(b.path)
	C.set_vector(vector, 0, path)
	for i, arg := range b.argv {
		C.set_vector(vector, C.int(i+1), C.CString(arg))
	}
	c := C.struct_child{path: path, argv: C.behind_first(vector), hold: C.int(b.hold)}
	if b.session {
		c.session = 1
	}
	pid = int(C.clone_as(&c, C.int(number)))
	switch {
	case pid < 0:
		return 0, -1, pidFault(number, unix.Errno(-pid))
	case c.failed != 0:
		_, err := unix.Wait4(pid, nil, 0, nil)
		return 0, -1, errors.Join(fmt.Errorf("execute %s: %w", b.path, unix.Errno(c.failed)), err, unix.Close(int(c.pidfd)))
	}
	return pid, int(c.pidfd), nil
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
