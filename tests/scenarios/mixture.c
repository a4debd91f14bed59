/*
 * mixture.c - random mixtures of everything. The seed is in the name of the
 * scenario, seed-N for any N; the frame compares the views of /proc.
 */
#include "scenario.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <netinet/in.h>

#ifndef F_SETPIPE_SZ
#define F_SETPIPE_SZ 1031
#define F_GETPIPE_SZ 1032
#endif

/* An item is one resource; verify looks at it and leaves it as it is. */
struct item {
	void (*verify)(struct item *);
	unsigned seed;
	int fd[2];
	size_t len;
	long value;
	char *at;
	pthread_t thread;
	volatile int ready, go, woken;
};

static struct item items[64];
static int nitems;
static uint64_t state;

/* roll is xorshift: the same numbers with every C library. */
static unsigned roll(unsigned n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (unsigned)((state >> 20) % n);
}

/* own_path names a file of this item. */
static char *own_path(struct item *it) { return path("mixture", (int)(it - items)); }

static char buffer[70000], again[70000];

/* ---- files ---- */

static void verify_file(struct item *it)
{
	check_eq(pread(it->fd[0], again, it->len, 0), it->len);
	filled(again, it->len, it->seed);
	check_eq(lseek(it->fd[0], 0, SEEK_CUR), it->value);
	if (it->fd[1] >= 0)
		check_eq(lseek(it->fd[1], 0, SEEK_CUR), it->value);
}

static void make_file(struct item *it)
{
	static const int flags[] = { O_RDWR, O_RDWR | O_APPEND, O_RDWR | O_CLOEXEC, O_RDWR | O_NONBLOCK, O_RDWR | O_SYNC };

	it->fd[0] = open(own_path(it), flags[roll(5)] | O_CREAT | O_TRUNC, 0600);
	check(it->fd[0] >= 0);
	it->len = 1 + roll(sizeof(buffer));
	fill(buffer, it->len, it->seed);
	check_eq(write(it->fd[0], buffer, it->len), it->len);
	it->value = (long)roll(100000);
	check_eq(lseek(it->fd[0], it->value, SEEK_SET), it->value);
	if (roll(3) == 0)
		it->fd[1] = fcntl(it->fd[0], roll(2) ? F_DUPFD : F_DUPFD_CLOEXEC, 20 + (int)roll(200));
	if (roll(4) == 0)
		check_eq(flock(it->fd[0], LOCK_EX), 0);
	if (roll(3) == 0)
		check_eq(unlink(own_path(it)), 0);
	it->verify = verify_file;
}

static void verify_memfd(struct item *it) { verify_file(it); }

static void make_memfd(struct item *it)
{
	it->fd[0] = (int)syscall(SYS_memfd_create, "mixture", roll(2));
	check(it->fd[0] >= 0);
	it->len = 1 + roll(sizeof(buffer));
	fill(buffer, it->len, it->seed);
	check_eq(write(it->fd[0], buffer, it->len), it->len);
	it->value = (long)roll(1000);
	check_eq(lseek(it->fd[0], it->value, SEEK_SET), it->value);
	it->verify = verify_memfd;
}

/* ---- what holds bytes on their way ---- */

static void verify_stream(struct item *it)
{
	int n = -1;

	check_eq(ioctl(it->fd[0], FIONREAD, &n), 0);
	check_eq(n, it->len);
	if (!n)
		return;
	check_eq(read(it->fd[0], again, sizeof(again)), it->len);
	filled(again, it->len, it->seed);
	check_eq(write(it->fd[1], again, it->len), it->len);
}

static void make_pipe(struct item *it)
{
	check_eq(pipe2(it->fd, roll(2) ? O_CLOEXEC : 0), 0);
	if (roll(2))
		check(fcntl(it->fd[0], F_SETPIPE_SZ, 4096 << roll(5)) > 0);
	it->len = roll(4096);
	fill(buffer, it->len, it->seed);
	check_eq(write(it->fd[1], buffer, it->len), it->len);
	if (roll(2))
		check_eq(fcntl(it->fd[1], F_SETFL, O_NONBLOCK), 0);
	it->verify = verify_stream;
}

static void make_socketpair(struct item *it)
{
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };

	check_eq(socketpair(AF_UNIX, types[roll(3)] | (roll(2) ? SOCK_CLOEXEC : 0), 0, it->fd), 0);
	it->len = roll(5000);
	fill(buffer, it->len, it->seed);
	if (it->len)
		check_eq(write(it->fd[1], buffer, it->len), it->len);
	it->verify = verify_stream;
}

/* ---- counters and timers ---- */

static void verify_eventfd(struct item *it)
{
	uint64_t v;

	if (it->value == 0)
		return;
	if (it->len) { /* a semaphore */
		check_eq(read(it->fd[0], &v, 8), 8);
		check_eq(v, 1);
	} else {
		check_eq(read(it->fd[0], &v, 8), 8);
		check_eq(v, it->value);
	}
	check_eq(write(it->fd[0], &v, 8), 8);
}

static void make_eventfd(struct item *it)
{
	it->value = (long)roll(100000);
	it->len = roll(2);
	it->fd[0] = eventfd((unsigned)it->value, (it->len ? EFD_SEMAPHORE : 0) | (roll(2) ? EFD_CLOEXEC : 0) | EFD_NONBLOCK);
	check(it->fd[0] >= 0);
	it->verify = verify_eventfd;
}

static void verify_timerfd(struct item *it)
{
	struct itimerspec spec;

	check_eq(timerfd_gettime(it->fd[0], &spec), 0);
	check(spec.it_value.tv_sec <= it->value && spec.it_value.tv_sec > it->value - 600);
	check_eq(spec.it_interval.tv_sec, it->len);
}

static void make_timerfd(struct item *it)
{
	struct itimerspec spec = { 0 };

	it->value = 1000 + (long)roll(100000);
	it->len = roll(100);
	spec.it_value.tv_sec = it->value;
	spec.it_interval.tv_sec = (time_t)it->len;
	it->fd[0] = timerfd_create(roll(2) ? CLOCK_MONOTONIC : CLOCK_REALTIME, roll(2) ? TFD_CLOEXEC : 0);
	check(it->fd[0] >= 0);
	check_eq(timerfd_settime(it->fd[0], 0, &spec, NULL), 0);
	it->verify = verify_timerfd;
}

/* ---- memory ---- */

static void verify_mapping(struct item *it)
{
	for (size_t page = it->seed % 3; page * 4096 < it->len; page += 3)
		filled(it->at + page * 4096, 4096, it->seed + (unsigned)page);
}

static void make_mapping(struct item *it)
{
	static const int advice[] = { MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_DONTFORK, MADV_HUGEPAGE, MADV_NOHUGEPAGE };
	size_t pages = 1 + roll(300);
	int flags = MAP_ANONYMOUS | (roll(3) ? MAP_PRIVATE : MAP_SHARED) | (roll(4) ? 0 : MAP_NORESERVE);

	it->len = pages * 4096;
	it->at = mmap(NULL, it->len, PROT_READ | PROT_WRITE, flags, -1, 0);
	check(it->at != MAP_FAILED);
	(void)madvise(it->at, it->len, advice[roll(6)]); /* a kernel may lack one */
	for (size_t page = it->seed % 3; page < pages; page += 3)
		fill(it->at + page * 4096, 4096, it->seed + (unsigned)page);
	if (roll(2))
		check_eq(mprotect(it->at, (1 + roll((unsigned)pages)) * 4096, PROT_READ), 0);
	if (roll(5) == 0)
		check_eq(mprotect(it->at + it->len - 4096, 4096, PROT_READ | PROT_EXEC), 0);
	it->verify = verify_mapping;
}

static void make_file_mapping(struct item *it)
{
	int shared = (int)roll(2);

	it->fd[0] = open(own_path(it), O_RDWR | O_CREAT | O_TRUNC, 0600);
	check(it->fd[0] >= 0);
	it->len = 3 * 4096 * (1 + roll(8));
	check_eq(ftruncate(it->fd[0], (off_t)it->len), 0);
	it->at = mmap(NULL, it->len, PROT_READ | PROT_WRITE, shared ? MAP_SHARED : MAP_PRIVATE, it->fd[0], 0);
	check(it->at != MAP_FAILED);
	for (size_t page = it->seed % 3; page * 4096 < it->len; page += 3)
		fill(it->at + page * 4096, 4096, it->seed + (unsigned)page);
	if (roll(2)) {
		check_eq(close(it->fd[0]), 0);
		it->fd[0] = -1;
	}
	it->verify = verify_mapping;
}

/* ---- signals ---- */

static void on_signal(int sig) { (void)sig; }

static void verify_signal(struct item *it)
{
	struct sigaction sa;
	sigset_t pending, blocked;

	check_eq(sigaction((int)it->value, NULL, &sa), 0);
	check(sa.sa_handler == (it->len ? on_signal : SIG_IGN));
	check_eq(sigpending(&pending), 0);
	check_eq(sigprocmask(SIG_SETMASK, NULL, &blocked), 0);
	check_eq(sigismember(&blocked, (int)it->value), 1);
	check_eq(sigismember(&pending, (int)it->value), it->len);
}

static void make_signal(struct item *it)
{
	struct sigaction sa = { .sa_flags = roll(2) ? SA_RESTART : 0 };

	it->value = SIGRTMIN + 4 + (it - items) % 24;
	it->len = roll(2); /* with a handler, and pending; or ignored */
	sa.sa_handler = it->len ? on_signal : SIG_IGN;
	for (int i = 0; i < 5; i++)
		sigaddset(&sa.sa_mask, 1 + (int)roll(30));
	check_eq(sigaction((int)it->value, &sa, NULL), 0);
	if (it->len)
		check_eq(sigqueue(getpid(), (int)it->value, (union sigval){ .sival_int = (int)it->seed }), 0);
	it->verify = verify_signal;
}

/* ---- sockets ---- */

static void verify_udp(struct item *it)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);

	check_eq(getsockname(it->fd[0], (struct sockaddr *)&a, &len), 0);
	check_eq(ntohs(a.sin_port), it->value);
}

static void make_udp(struct item *it)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);

	it->fd[0] = socket(AF_INET, SOCK_DGRAM | (roll(2) ? SOCK_CLOEXEC : 0), 0);
	check(it->fd[0] >= 0);
	check_eq(bind(it->fd[0], (struct sockaddr *)&a, sizeof(a)), 0);
	check_eq(getsockname(it->fd[0], (struct sockaddr *)&a, &len), 0);
	it->value = ntohs(a.sin_port);
	it->verify = verify_udp;
}

/* ---- epoll over what is there already ---- */

static void verify_epoll(struct item *it)
{
	struct epoll_event e[64];
	int n = epoll_wait(it->fd[0], e, 64, 0);

	check_eq(n, it->value);
}

static void make_epoll(struct item *it)
{
	struct epoll_event e[64];

	it->fd[0] = epoll_create1(roll(2) ? EPOLL_CLOEXEC : 0);
	check(it->fd[0] >= 0);
	for (int i = 0; i < nitems; i++)
		for (int k = 0; k < 2; k++)
			if (items[i].fd[k] >= 0 && roll(2)) {
				struct epoll_event want = { .events = roll(2) ? EPOLLIN : EPOLLOUT, .data.u64 = (uint64_t)i };

				if (epoll_ctl(it->fd[0], EPOLL_CTL_ADD, items[i].fd[k], &want))
					check_eq(errno, EPERM); /* a file */
			}
	it->value = epoll_wait(it->fd[0], e, 64, 0);
	it->verify = verify_epoll;
}

/* ---- threads ---- */

static void *thread_main(void *arg)
{
	struct item *it = arg;
	char name[16];

	snprintf(name, sizeof(name), "mixed %u", it->seed % 1000);
	check_eq(prctl(PR_SET_NAME, name), 0);
	it->ready = 1;
	for (;;) {
		while (!it->go)
			usleep(1000 + it->seed % 1000);
		it->go = 0;
		it->woken = 1;
	}
	return NULL;
}

static void verify_thread(struct item *it)
{
	it->woken = 0;
	it->go = 1;
	for (int i = 0; !it->woken; i++) {
		if (i > 60000)
			fail("thread %d does not go on", (int)(it - items));
		usleep(500);
	}
}

static void make_thread(struct item *it)
{
	check_eq(pthread_create(&it->thread, NULL, thread_main, it), 0);
	while (!it->ready)
		usleep(100);
	it->verify = verify_thread;
}

static void (*const makers[])(struct item *) = {
	make_file, make_file, make_memfd, make_pipe, make_socketpair, make_eventfd, make_timerfd,
	make_mapping, make_mapping, make_file_mapping, make_signal, make_udp, make_epoll, make_thread,
};

static void mixture_setup(void)
{
	unsigned n;
	sigset_t set;

	/* before there are threads, which would take them */
	sigemptyset(&set);
	for (int i = 0; i < 24; i++)
		sigaddset(&set, SIGRTMIN + 4 + i);
	check_eq(sigprocmask(SIG_BLOCK, &set, NULL), 0);
	state = 0x9e3779b97f4a7c15ull * (uint64_t)(1 + atoi(scenario->name + strlen("seed-")));
	roll(1);
	n = 5 + roll(30);
	while (nitems < (int)n) {
		struct item *it = &items[nitems];

		it->fd[0] = it->fd[1] = -1;
		it->seed = roll(1 << 20);
		makers[roll(sizeof(makers) / sizeof(*makers))](it);
		nitems++;
	}
}

static void mixture_verify(int cycle)
{
	(void)cycle;
	for (int i = 0; i < nitems; i++)
		items[i].verify(&items[i]);
}

#define SEED(n) { .name = "seed-" #n, .flags = BOTH, .setup = mixture_setup, .verify = mixture_verify }

int main(int argc, char *argv[])
{
	static struct scenario scenarios[] = { SEED(1), SEED(2) };

	if (argc > 1 && !strncmp(argv[1], "seed-", 5))
		scenarios[0].name = argv[1];
	return run(argc, argv, scenarios, sizeof(scenarios) / sizeof(*scenarios));
}
