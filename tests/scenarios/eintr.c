/*
 * eintr.c - children in system calls that fail with EINTR when their task is
 * stopped (signal(7)). A checkpoint is such a stop, and must not be noticed:
 * each call returns what the first process brings about after it.
 */
#include "scenario.h"

#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#define LONG 1000	/* seconds */
#define HELD 250	/* milliseconds that each sleeps, at least, before it is saved */

static int sem, event, poller, listener, *ends;
static pid_t ended;	/* the child that is ended now */
static struct timespec time_of = { .tv_sec = LONG };
static char full[4096];

/* ---- the calls, which return 0 or more ---- */

static long semop_call(void) { return syscall(SYS_semop, sem, &(struct sembuf){ 0, -1, 0 }, 1); }
static long semtimedop_call(void)
{
	return syscall(SYS_semtimedop, sem, &(struct sembuf){ 1, -1, 0 }, 1, &time_of);
}
static void up(int n) { check_eq(semop(sem, &(struct sembuf){ n, 1, 0 }, 1), 0); }
static void semop_end(void) { up(0); }
static void semtimedop_end(void) { up(1); }

static struct epoll_event got;
static long epoll_done(long n)
{
	uint64_t count;

	if (n < 0)
		return n;
	check_eq(n, 1);
	check_eq(got.data.u32, 77);
	check_eq(read(event, &count, sizeof(count)), sizeof(count));
	return 0;
}
static long epoll_call(void) { return epoll_done(syscall(SYS_epoll_wait, poller, &got, 1, -1)); }
static long epoll_timed_call(void) { return epoll_done(syscall(SYS_epoll_wait, poller, &got, 1, LONG * 1000)); }
static long epoll_mask_call(void)
{
	uint64_t mask = 1ull << (SIGUSR2 - 1), after = -1;
	long n = epoll_done(syscall(SYS_epoll_pwait, poller, &got, 1, LONG * 1000, &mask, 8));

	check_eq(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &after, 8), 0);
	check_eq(after, 1ull << (SIGUSR1 - 1));
	return n;
}
static void epoll_end(void)
{
	uint64_t one = 1;

	check_eq(write(event, &one, sizeof(one)), sizeof(one));
}

static uint64_t usr1 = 1ull << (SIGUSR1 - 1);
static long sigwait_call(void)
{
	long n = syscall(SYS_rt_sigtimedwait, &usr1, NULL, &time_of, 8);

	return n == SIGUSR1 ? 0 : -1;
}
static void sigwait_end(void) { check_eq(kill(ended, SIGUSR1), 0); }

/* The end of a socket that the child has; the other one is that of the parent. */
static long recv_call(void)
{
	char c;

	return recv(ends[1], &c, 1, 0);
}
static long read_call(void)
{
	char c;

	return read(ends[1], &c, 1);
}
static void recv_end(void) { check_eq(write(ends[0], "x", 1), 1); }

static long send_call(void)
{
	/* the parent has filled it, and empties it to let us go on */
	return send(ends[1], full, sizeof(full), 0);
}
static void send_begin(void)
{
	while (send(ends[1], full, sizeof(full), MSG_DONTWAIT) == sizeof(full))
		;
	check_eq(errno, EAGAIN);
}
static void send_end(void)
{
	while (recv(ends[0], full, sizeof(full), MSG_DONTWAIT) > 0)
		;
	check_eq(errno, EAGAIN);
}

static struct sockaddr_un address = { .sun_family = AF_UNIX };
static long accept_call(void)
{
	int fd = accept(listener, NULL, NULL);

	return fd < 0 ? fd : close(fd);
}
static void accept_end(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	check(fd >= 0);
	check_eq(connect(fd, (void *)&address, sizeof(address)), 0);
	check_eq(close(fd), 0);
}

static const struct {
	const char *name;
	long nr;
	void (*begin)(void);	/* by the parent, NULL nothing */
	long (*call)(void);
	void (*end)(void);	/* by the parent */
	int pair;		/* a pair of sockets is made for it */
} calls[] = {
	{ "semop", SYS_semop, NULL, semop_call, semop_end, 0 },
	{ "semtimedop", SYS_semtimedop, NULL, semtimedop_call, semtimedop_end, 0 },
	{ "epoll_wait", SYS_epoll_wait, NULL, epoll_call, epoll_end, 0 },
	{ "epoll_wait with a time", SYS_epoll_wait, NULL, epoll_timed_call, epoll_end, 0 },
	{ "epoll_pwait", SYS_epoll_pwait, NULL, epoll_mask_call, epoll_end, 0 },
	{ "rt_sigtimedwait", SYS_rt_sigtimedwait, NULL, sigwait_call, sigwait_end, 0 },
	{ "recv", SYS_recvfrom, NULL, recv_call, recv_end, 1 },
	{ "read", SYS_read, NULL, read_call, recv_end, 1 },
	{ "send", SYS_sendto, send_begin, send_call, send_end, 1 },
	{ "accept", SYS_accept, NULL, accept_call, accept_end, 0 },
};
enum { CALLS = sizeof(calls) / sizeof(*calls) };

static struct {
	pid_t pid;
	int pair[2], event, poller;
} of[CALLS];

/* What all share. */
static struct { atomic_int done, result, error; } *told_by;

static void timed(int fd)
{
	struct timeval t = { .tv_sec = LONG };

	check_eq(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)), 0);
	check_eq(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t)), 0);
}

static void use(int i) { ends = of[i].pair; event = of[i].event; poller = of[i].poller; ended = of[i].pid; }

/* children finds them by their present numbers, in the order in which they were made. */
static void children(void)
{
	char name[64];
	FILE *f;

	snprintf(name, sizeof(name), "/proc/self/task/%d/children", (int)syscall(SYS_getpid));
	f = fopen(name, "re");
	check(f != NULL);
	for (int i = 0; i < CALLS; i++)
		check_eq(fscanf(f, "%d", &of[i].pid), 1);
	check_eq(fclose(f), 0);
}

/* in_call tells whether a child sleeps in its call, and how long it still would. */
static int in_call(int i, unsigned long *fourth)
{
	char name[64], text[256];
	unsigned long a[4];
	long nr;
	ssize_t n;
	int fd;

	snprintf(name, sizeof(name), "/proc/%d/syscall", of[i].pid);
	fd = open(name, O_RDONLY);
	check(fd >= 0);
	n = read(fd, text, sizeof(text) - 1);
	check(n >= 0);
	check_eq(close(fd), 0);
	text[n] = 0;
	if (sscanf(text, "%ld %lx %lx %lx %lx", &nr, &a[0], &a[1], &a[2], &a[3]) != 5)
		return 0;
	*fourth = a[3];
	return nr == calls[i].nr;
}

static void begin(void)
{
	unsigned long fourth;

	for (int i = 0; i < CALLS; i++) {
		use(i);
		if (calls[i].begin)
			calls[i].begin();
	}
	for (int i = 0; i < CALLS; i++) {
		atomic_store(&told_by[i].done, 2);
		for (int n = 0; !in_call(i, &fourth); n++) {
			if (n > 20000)
				fail("%s has not begun", calls[i].name);
			usleep(1000);
		}
	}
	usleep(HELD * 1000);
}

static void child(int i, int parent)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
		_exit(97);
	use(i);
	for (;;) {
		while (atomic_load(&told_by[i].done) != 2)
			usleep(500);
		atomic_store(&told_by[i].done, 0);
		told_by[i].result = calls[i].call();
		told_by[i].error = errno;
		atomic_store(&told_by[i].done, 1);
	}
}

static void setup(void)
{
	int parent = getpid();

	told_by = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(told_by != MAP_FAILED);
	check_eq(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &usr1, NULL, 8), 0);
	sem = semget(IPC_PRIVATE, 2, 0666);
	if (sem < 0)
		needs("System V semaphores");
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path("socket", -1));
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	check(listener >= 0);
	timed(listener);
	check_eq(bind(listener, (void *)&address, sizeof(address)), 0);
	check_eq(listen(listener, 5), 0);
	for (int i = 0; i < CALLS; i++) {
		if (calls[i].pair) {
			check_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, of[i].pair), 0);
			timed(of[i].pair[1]);
		}
		if (calls[i].end == epoll_end) {
			struct epoll_event e = { .events = EPOLLIN, .data.u32 = 77 };

			check((of[i].event = eventfd(0, 0)) >= 0);
			check((of[i].poller = epoll_create1(0)) >= 0);
			check_eq(epoll_ctl(of[i].poller, EPOLL_CTL_ADD, of[i].event, &e), 0);
		}
		of[i].pid = fork();
		check(of[i].pid >= 0);
		if (!of[i].pid)
			child(i, parent);
	}
	begin();
}

static void verify(int cycle)
{
	children();
	for (int i = 0; i < CALLS; i++) {
		unsigned long left = 0;

		if (calls[i].call == epoll_timed_call && in_call(i, &left) && left > LONG * 1000 - HELD + 50)
			fail("%s has %lu of %d ms left", calls[i].name, left, LONG * 1000);
		use(i);
		calls[i].end();
		for (int n = 0; atomic_load(&told_by[i].done) != 1; n++) {
			if (n > 20000)
				fail("%s has not ended", calls[i].name);
			usleep(1000);
		}
		if (told_by[i].result < 0)
			fail("%s in cycle %d: errno %d", calls[i].name, cycle, told_by[i].error);
	}
	if (cycle < 3)
		begin();
	else
		check_eq(semctl(sem, 0, IPC_RMID), 0);
}

SCENARIOS(
	{ "eintr", EXTERNAL, setup, verify, NULL, 0 },
)
