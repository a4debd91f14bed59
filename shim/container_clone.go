package shim

/*
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vector.h"

extern char **environ;

struct first {
	uint64_t flags;     // CLONE_NEW*
	const char *path;   // of the stage that becomes CMD
	char **argv;
	int told;           // socket to us
	int init;           // descriptor of the init program, -1: the stage is the first process
	int reports;        // eventfd of the init
	int session;        // it leads a session of its own
	int network;        // it has one of its own
	char last[16];      // what was the last process id, "" for nothing else than it is
	int keep_caps;      // the stage and the init have all capabilities, although they are not user 0
	char clocks[160];   // for timens_offsets of a time namespace; "" for none, or for one that clone makes
	int pidfd;          // result: of the first process
};

// What the first process tells: what it was about when it failed and the errno; or 0, and the pidfd of CMD.
struct said {
	int step, err;
};

// The steps of struct said, as steps in Go names them.
enum { STEP_DONE, STEP_DEATH, STEP_CAPS, STEP_FORK, STEP_DIRECTORY, STEP_INIT, STEP_NUMBERS, STEP_STAGE, STEP_TIME, STEP_NETWORK };

static struct rlimit start_files;

// The Go runtime raises this limit and gives it back when it executes something itself. Here it does not.
__attribute__((constructor)) static void note_limit(void) { getrlimit(RLIMIT_NOFILE, &start_files); }

static void say(int told, int step, int fd)
{
	struct said said = { step, step ? errno : 0 };
	struct iovec part = { &said, sizeof said };
	char room[CMSG_SPACE(sizeof fd)] = { 0 };
	struct msghdr m = { .msg_iov = &part, .msg_iovlen = 1 };

	if (fd >= 0) {
		m.msg_control = room;
		m.msg_controllen = sizeof room;
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof fd);
		memcpy(CMSG_DATA(c), &fd, sizeof fd);
	}
	if (sendmsg(told, &m, MSG_NOSIGNAL) < 0 || step)
		_exit(125); // nobody is there to be told
}

// Who was to say it has died if it is not said.
static void await_word(struct first *f)
{
	char byte;
	int n;

	while ((n = read(f->told, &byte, 1)) < 0 && errno == EINTR)
		;
	if (n != 1)
		_exit(125);
}

static void become_stage(struct first *f, const sigset_t *mask)
{
	await_word(f); // that it is known who we are
	sigprocmask(SIG_SETMASK, mask, 0);
	setrlimit(RLIMIT_NOFILE, &start_files);
	execve(f->path, f->argv, environ);
	say(f->told, STEP_STAGE, -1);
}

// Ambient capabilities are kept by execve for a user other than 0 (capabilities(7)).
static int keep_capabilities(void)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &head, data))
		return -1;
	data[0].inheritable = data[0].permitted;
	data[1].inheritable = data[1].permitted;
	if (syscall(SYS_capset, &head, data))
		return -1;
	for (int cap = 0; cap < 64; cap++)
		if (data[cap / 32].permitted & 1u << cap % 32 &&
		    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0))
			return -1;
	return 0;
}

// The offsets of a time namespace can be set as long as nobody is in it, so it is made by the one who enters it.
static int enter_time(const char *clocks)
{
	int fd;

	if (unshare(CLONE_NEWTIME) || (fd = open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC)) < 0)
		return -1;
	if (write(fd, clocks, strlen(clocks)) != (ssize_t)strlen(clocks) || close(fd))
		return -1;
	if ((fd = open("/proc/self/ns/time_for_children", O_RDONLY | O_CLOEXEC)) < 0)
		return -1;
	return setns(fd, CLONE_NEWTIME) || close(fd) ? -1 : 0;
}

// The next process or thread gets a number above last.
static int set_last(const char *last)
{
	int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC), n;

	if (fd < 0)
		return errno != ENOENT; // a kernel without CONFIG_CHECKPOINT_RESTORE
	n = write(fd, last, strlen(last));
	close(fd);
	return n < 0;
}

// The first process of the container, a copy of a process with threads: nothing but system calls. Single-threaded as it is,
// the process that it forks has the number 2.
static void be_first(struct first *f, const sigset_t *mask)
{
	struct clone_args args = { .flags = CLONE_PIDFD | CLONE_CLEAR_SIGHAND, .exit_signal = SIGCHLD };
	char *argv[] = { "crshim-init", 0 }, *none[] = { 0 };
	int command = -1, n;

	if (prctl(PR_SET_PDEATHSIG, SIGKILL))
		say(f->told, STEP_DEATH, -1);
	if (f->session)
		setsid();
	await_word(f); // that the id maps are written
	if (f->network && unshare(CLONE_NEWNET)) // after the id maps: the kernel gives files of it to who is 0 then
		say(f->told, STEP_NETWORK, -1);
	if (f->clocks[0] && enter_time(f->clocks))
		say(f->told, STEP_TIME, -1);
	if (f->keep_caps && keep_capabilities())
		say(f->told, STEP_CAPS, -1);
	if (f->last[0] && set_last(f->last))
		say(f->told, STEP_NUMBERS, -1);
	if (f->init < 0)
		become_stage(f, mask);
	args.pidfd = (uintptr_t)&command;
	n = syscall(SYS_clone3, &args, sizeof args);
	if (n < 0)
		say(f->told, STEP_FORK, -1);
	if (n == 0)
		become_stage(f, mask);
	// Both stay in the session and process group of the job. A relative of CMD's in another group of that session would keep its
	// group from being an orphaned one; and a checkpoint of the container makes the session of its first process again.
	if (chdir("/"))
		say(f->told, STEP_DIRECTORY, -1);
	say(f->told, STEP_DONE, command);
	// Nothing stays open but the eventfd: what CMD closes is closed.
	int told = fcntl(f->told, F_DUPFD_CLOEXEC, 16), init = fcntl(f->init, F_DUPFD_CLOEXEC, 16);
	if (told < 0 || init < 0 || dup2(f->reports, 3) < 0 || syscall(SYS_close_range, 0, 2, 0) ||
	    syscall(SYS_close_range, 4, 15, 0) || syscall(SYS_close_range, 16, ~0u, CLOSE_RANGE_CLOEXEC))
		_exit(125);
	syscall(SYS_execveat, init, "", argv, none, AT_EMPTY_PATH);
	say(told, STEP_INIT, -1);
}

// Returns the first process, or -errno.
static int clone_first(struct first *f)
{
	struct clone_args args = {
		.flags = f->flags | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
		.pidfd = (uintptr_t)&f->pidfd,
		.exit_signal = SIGCHLD,
	};
	sigset_t all, mask;
	int pid, err;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &mask);
	pid = syscall(SYS_clone3, &args, sizeof args);
	err = errno;
	if (pid == 0)
		be_first(f, &mask);
	sigprocmask(SIG_SETMASK, &mask, 0);
	return pid < 0 ? -err : pid;
}
*/
import "C"

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
)

// steps are what the first process may fail at, by STEP_ of the C code.
var steps = []string{"", "end with its parent", "keep capabilities", "fork", "leave the directory", "execute init", "choose process ids", "execute stage", "set the clocks", "make a network namespace"}

// startContainer makes the namespaces and in them the first process, and the stage that becomes CMD. All of it ends with the
// thread that called.
func startContainer(config *stageConfig, command []string, known func(*firstProcess) error) (*firstProcess, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer ours.close()
	defer theirs.close()
	argv, err := config.pass(stageExec, command)
	defer config.keep(unix.CloseOnExec)
	if err != nil {
		return nil, err
	}
	vector := C.new_vector(C.int(len(argv) + 1))
	defer C.free_vector(vector)
	path := C.CString("/proc/self/exe")
	C.set_vector(vector, 0, path)
	for i, arg := range argv {
		C.set_vector(vector, C.int(i+1), C.CString(arg))
	}
	c := config.Container
	first := C.struct_first{flags: C.uint64_t(c.flags()), path: path, argv: C.behind_first(vector), told: C.int(theirs), init: -1}
	f := &firstProcess{reports: -1}
	if config.Restart != nil {
		far, err := farNumber()
		if err != nil {
			return nil, err
		}
		for i := range min(len(far), len(first.last)-1) {
			first.last[i] = C.char(far[i])
		}
	}
	if config.Restart != nil && config.Restart.Detach {
		first.session = 1
	}
	forks := c.Init && config.Restart == nil // an init that is restored has its children
	if forks {
		program, err := tracer.InitProgram()
		if err != nil {
			return nil, err
		}
		defer unix.Close(program)
		if f.reports, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
			return nil, fmt.Errorf("make eventfd: %w", err)
		}
		first.init, first.reports = C.int(program), C.int(f.reports)
	}
	clocks, err := c.Clocks.offsets()
	if err != nil {
		return nil, err
	}
	if c.Net != netHost {
		first.network = 1
	}
	for i, char := range []byte(clocks) {
		first.clocks[i] = C.char(char)
	}
	if c.User == userKeep && os.Geteuid() != 0 {
		first.keep_caps = 1
	}
	f.pid = int(C.clone_first(&first))
	if f.pid < 0 {
		return nil, namespaceFault(unix.Errno(-f.pid))
	}
	theirs.close()
	f.own = int(first.pidfd)
	if err := f.begin(c, forks, ours, func() error { return known(f) }); err != nil {
		_ = unix.PidfdSendSignal(f.own, unix.SIGKILL, nil, 0) // it may have ended by itself
		return nil, errors.Join(err, reapParent(f.pid))
	}
	return f, nil
}

func namespaceFault(errno unix.Errno) error {
	codes := map[unix.Errno]fault.Code{
		unix.EPERM:  fault.NamespacesForbidden,
		unix.ENOSPC: fault.NamespaceLimit,
		unix.EUSERS: fault.NamespaceLimit,
		unix.EINVAL: fault.NamespaceMissing,
		unix.ENOSYS: fault.NamespacesForbidden, // as some container runtimes have it for what their filter forbids
	}
	code, ok := codes[errno]
	if !ok {
		code = fault.ContainerSetup
	}
	return &fault.Error{Code: code, Object: "container", Err: errno}
}
