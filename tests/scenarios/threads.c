/*
 * threads.c - several threads: running, and waiting in every kind of call.
 */
#include "scenario.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

enum { MAX = 64 };

/* One thread, what it is to do, and what it finds. */
static struct task {
	pthread_t handle;
	int n;
	int tid;
	void (*work)(struct task *);
	atomic_int begun;	/* handle is set */
	atomic_int ready;	/* about to wait, or at work */
	atomic_int woken;	/* how often it went on */
	atomic_int ended;
	atomic_long loops;
	int fd[2];
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	int go;
	char altstack[16384] __attribute__((aligned(64)));
} tasks[MAX];

static int ntasks;
static __thread int own = -1;
static __thread volatile double own_float;
static atomic_int stop;

static void thread_state_set(struct task *t)
{
	char name[16];
	sigset_t set;
	stack_t stack = { .ss_sp = t->altstack, .ss_size = sizeof(t->altstack) };

	snprintf(name, sizeof(name), "worker (%d)", t->n);
	check_eq(prctl(PR_SET_NAME, name), 0);
	check_eq(prctl(PR_SET_TIMERSLACK, 60000UL + (unsigned long)t->n), 0);
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 3 + t->n % 20);
	check_eq(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
	check_eq(sigaltstack(&stack, NULL), 0);
	own = t->n;
	own_float = t->n * 1.25;
}

/* thread_state_check judges the same, from within. */
static void thread_state_check(struct task *t)
{
	char name[16], want[16];
	sigset_t set;
	stack_t stack;
	char task[64];

	snprintf(want, sizeof(want), "worker (%d)", t->n);
	check_eq(prctl(PR_GET_NAME, name), 0);
	if (strcmp(name, want))
		fail("thread is called %s, not %s", name, want);
	check_eq(prctl(PR_GET_TIMERSLACK), 60000 + t->n);
	check_eq(pthread_sigmask(SIG_SETMASK, NULL, &set), 0);
	for (int sig = SIGRTMIN + 3; sig < SIGRTMIN + 23; sig++)
		check_eq(sigismember(&set, sig), sig == SIGRTMIN + 3 + t->n % 20);
	check_eq(sigaltstack(NULL, &stack), 0);
	check(stack.ss_sp == t->altstack && stack.ss_size == sizeof(t->altstack));
	check_eq(own, t->n);
	check(own_float == t->n * 1.25);
	check(pthread_equal(pthread_self(), t->handle));
	/* The C library knows the thread under the number that it has. */
	snprintf(task, sizeof(task), "/proc/self/task/%d", (int)syscall(SYS_gettid));
	check_eq(access(task, F_OK), 0);
	check(pthread_kill(pthread_self(), 0) == 0);
}

static void *thread_main(void *arg)
{
	struct task *t = arg;

	while (!t->begun)
		usleep(100);
	thread_state_set(t);
	t->work(t);
	thread_state_check(t);
	t->ended = 1;
	return NULL;
}

/* start begins a thread and waits until it is at its place. */
static struct task *start(void (*work)(struct task *))
{
	struct task *t = &tasks[ntasks];
	pthread_attr_t attr;

	check(ntasks < MAX);
	t->n = ntasks++;
	t->begun = t->ready = 0;
	t->work = work;
	check_eq(pipe2(t->fd, O_CLOEXEC), 0);
	check_eq(pthread_mutex_init(&t->mutex, NULL), 0);
	check_eq(pthread_cond_init(&t->cond, NULL), 0);
	check_eq(pthread_attr_init(&attr), 0);
	check_eq(pthread_attr_setstacksize(&attr, 256 * 1024), 0);
	check_eq(pthread_create(&t->handle, &attr, thread_main, t), 0);
	t->begun = 1;
	check_eq(pthread_attr_destroy(&attr), 0);
	while (!t->ready)
		usleep(100);
	return t;
}

/* ---- kinds of work ---- */

static void work_spin(struct task *t)
{
	double x = t->n + 1, want;
	long loops = 0;

	t->ready = 1;
	while (!stop) {
		want = x = t->n + 1;
		for (int i = 0; i < 1000; i++)
			x = x * 1.000001 + 0.5;
		for (int i = 0; i < 1000; i++)
			want = want * 1.000001 + 0.5;
		if (x != want)
			fail("floating point of thread %d went wrong", t->n);
		t->loops = ++loops;
		usleep(200); /* one that never sleeps would have a processor to itself */
	}
}

/* Spinning threads that take turns with sleeping. */
static void work_busy(struct task *t)
{
	struct timespec a_while = { .tv_nsec = 1000000 * (1 + t->n % 7) };

	t->ready = 1;
	while (!stop) {
		check_eq(own, t->n);
		check_eq(clock_nanosleep(CLOCK_MONOTONIC, 0, &a_while, NULL), 0);
		t->loops++;
	}
}

static void work_cond(struct task *t)
{
	while (!stop) {
		check_eq(pthread_mutex_lock(&t->mutex), 0);
		t->ready = 1;
		while (!t->go)
			check_eq(pthread_cond_wait(&t->cond, &t->mutex), 0);
		t->go = 0;
		t->woken++;
		check_eq(pthread_mutex_unlock(&t->mutex), 0);
	}
}

static void wake_cond(struct task *t)
{
	check_eq(pthread_mutex_lock(&t->mutex), 0);
	t->go = 1;
	check_eq(pthread_cond_signal(&t->cond), 0);
	check_eq(pthread_mutex_unlock(&t->mutex), 0);
}

static void work_read(struct task *t)
{
	char c;

	while (!stop) {
		t->ready = 1;
		check_eq(read(t->fd[0], &c, 1), 1);
		check_eq(c, 'x');
		t->woken++;
	}
}

static void wake_byte(struct task *t) { check_eq(write(t->fd[1], "x", 1), 1); }

static void work_poll(struct task *t)
{
	char c;

	while (!stop) {
		struct pollfd p = { .fd = t->fd[0], .events = POLLIN };

		t->ready = 1;
		check_eq(poll(&p, 1, -1), 1);
		check_eq(read(t->fd[0], &c, 1), 1);
		t->woken++;
	}
}

/* As epoll_wait is not restarted after a signal, a program makes it again. */
static void work_epoll(struct task *t)
{
	struct epoll_event e = { .events = EPOLLIN, .data.u32 = (uint32_t)t->n };
	int ep = epoll_create1(EPOLL_CLOEXEC);
	char c;

	check(ep >= 0);
	check_eq(epoll_ctl(ep, EPOLL_CTL_ADD, t->fd[0], &e), 0);
	while (!stop) {
		int n;

		t->ready = 1;
		while ((n = epoll_wait(ep, &e, 1, -1)) < 0)
			check_eq(errno, EINTR);
		check_eq(n, 1);
		check_eq(e.data.u32, t->n);
		check_eq(read(t->fd[0], &c, 1), 1);
		t->woken++;
	}
	check_eq(close(ep), 0);
}

static void work_sigwait(struct task *t)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 3 + t->n % 20);
	while (!stop) {
		int sig = 0, err;

		t->ready = 1;
		while ((err = sigwait(&set, &sig)) != 0)
			check_eq(err, EINTR);
		check_eq(sig, SIGRTMIN + 3 + t->n % 20);
		t->woken++;
	}
}

static void wake_signal(struct task *t)
{
	check_eq(pthread_kill(t->handle, SIGRTMIN + 3 + t->n % 20), 0);
}

/* ---- many threads in many calls ---- */

static const struct {
	void (*work)(struct task *);
	void (*wake)(struct task *);
} waits[] = {
	{ work_cond, wake_cond }, { work_read, wake_byte }, { work_poll, wake_byte },
	{ work_epoll, wake_byte }, { work_sigwait, wake_signal },
};

enum { NWAITS = sizeof(waits) / sizeof(*waits) };

static void until(atomic_int *what, int least)
{
	for (int i = 0; *what < least; i++) {
		if (i > 100000)
			fail("a thread did not go on");
		usleep(100);
	}
}

static void waiting_setup(void)
{
	for (int i = 0; i < 4 * NWAITS; i++)
		start(waits[i % NWAITS].work);
	usleep(10000);
}

/* wake_all has every waiting thread go on once. */
static void wake_all(void)
{
	for (int i = 0; i < ntasks; i++) {
		int before = tasks[i].woken;

		tasks[i].ready = 0;
		waits[i % NWAITS].wake(&tasks[i]);
		until(&tasks[i].woken, before + 1);
	}
}

static void join_all(void)
{
	for (int i = 0; i < ntasks; i++) {
		check_eq(pthread_join(tasks[i].handle, NULL), 0);
		check_eq(tasks[i].ended, 1);
	}
}

static void waiting_verify(int cycle)
{
	wake_all();
	for (int i = 0; i < ntasks; i++)
		until(&tasks[i].ready, 1);
	if (cycle < 3)
		return;
	stop = 1;
	wake_all();
	join_all();
}

/* ---- threads at work ---- */

static void working_setup(void)
{
	start(work_spin);
	for (int i = 0; i < 4; i++)
		start(work_busy);
}

static void working_verify(int cycle)
{
	for (int i = 0; i < ntasks; i++) {
		long before = tasks[i].loops;

		for (int k = 0; tasks[i].loops < before + 2; k++) {
			if (k > 100000)
				fail("thread %d does not go on", i);
			usleep(100);
		}
	}
	if (cycle < 3)
		return;
	stop = 1;
	join_all();
}

/* ---- new threads afterwards, and threads that end ---- */

static void renew_setup(void) { waiting_setup(); }

static void work_end(struct task *t) { t->ready = 1; }

static void renew_verify(int cycle)
{
	struct task *t;

	(void)cycle;
	wake_all();
	t = start(work_end);
	check_eq(pthread_join(t->handle, NULL), 0);
	ntasks--;
	check_eq(close(t->fd[0]), 0);
	check_eq(close(t->fd[1]), 0);
	for (int i = 0; i < ntasks; i++)
		until(&tasks[i].ready, 1);
}

/* ---- locks that are held, by the number of their owner ---- */

static pthread_mutex_t robust, recursive;

static void locks_setup(void)
{
	pthread_mutexattr_t attr;

	check_eq(pthread_mutexattr_init(&attr), 0);
	check_eq(pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST), 0);
	check_eq(pthread_mutex_init(&robust, &attr), 0);
	check_eq(pthread_mutexattr_destroy(&attr), 0);
	check_eq(pthread_mutexattr_init(&attr), 0);
	check_eq(pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE), 0);
	check_eq(pthread_mutex_init(&recursive, &attr), 0);
	check_eq(pthread_mutexattr_destroy(&attr), 0);
	waiting_setup();
}

static void work_robust(struct task *t)
{
	check_eq(pthread_mutex_lock(&robust), 0);
	check_eq(pthread_mutex_lock(&recursive), 0);
	check_eq(pthread_mutex_lock(&recursive), 0);
	check_eq(pthread_mutex_unlock(&recursive), 0);
	check_eq(pthread_mutex_unlock(&recursive), 0);
	t->ready = 1;
	/* ends with the lock held */
}

static void locks_verify(int cycle)
{
	struct task *t = start(work_robust);

	(void)cycle;
	check_eq(pthread_join(t->handle, NULL), 0);
	ntasks--;
	check_eq(close(t->fd[0]), 0);
	check_eq(close(t->fd[1]), 0);
	check_eq(pthread_mutex_lock(&robust), EOWNERDEAD);
	check_eq(pthread_mutex_consistent(&robust), 0);
	check_eq(pthread_mutex_unlock(&robust), 0);
	check_eq(pthread_mutex_lock(&recursive), 0);
	check_eq(pthread_mutex_lock(&recursive), 0);
	check_eq(pthread_mutex_unlock(&recursive), 0);
	check_eq(pthread_mutex_unlock(&recursive), 0);
}

/* ---- pending signals of one thread ---- */

static void work_pending(struct task *t)
{
	int sig = SIGRTMIN + 3 + t->n % 20;
	sigset_t set, left;
	siginfo_t info;
	char c;

	sigemptyset(&set);
	sigaddset(&set, sig);
	t->tid = (int)syscall(SYS_gettid);
	while (!stop) {
		t->ready = 1;
		check_eq(read(t->fd[0], &c, 1), 1);
		t->tid = (int)syscall(SYS_gettid); /* it may have changed */
		for (int i = 0; i < 3; i++) {
			while (sigwaitinfo(&set, &info) < 0)
				check_eq(errno, EINTR);
			check_eq(info.si_signo, sig);
			check_eq(info.si_value.sival_int, 1000 * t->n + i);
		}
		check_eq(sigpending(&left), 0);
		check_eq(sigismember(&left, sig), 0);
		t->woken++;
	}
}

static void queue_pending(void)
{
	for (int i = 0; i < ntasks; i++)
		for (int k = 0; k < 3; k++) {
			siginfo_t info = { .si_code = SI_QUEUE, .si_pid = getpid(), .si_value.sival_int = 1000 * i + k };
			int sig = SIGRTMIN + 3 + i % 20;

			check_eq(syscall(SYS_rt_tgsigqueueinfo, getpid(), tasks[i].tid, sig, &info), 0);
		}
}

static void pending_setup(void)
{
	for (int i = 0; i < 8; i++)
		start(work_pending);
	queue_pending();
}

static void pending_verify(int cycle)
{
	for (int i = 0; i < ntasks; i++)
		wake_byte(&tasks[i]);
	for (int i = 0; i < ntasks; i++)
		until(&tasks[i].woken, cycle);
	queue_pending();
}

/* ---- a timer that tells one thread ---- */

#ifndef SIGEV_THREAD_ID
#define SIGEV_THREAD_ID 4
#endif

/* What the kernel takes, whatever the C library calls its fields. */
struct event {
	uint64_t value;
	int signo, notify, tid, pad[11];
};

static void work_timer(struct task *t)
{
	int sig = SIGRTMIN + 3 + t->n % 20, id;
	struct event event = { .value = (uint64_t)t->n, .signo = sig, .notify = SIGEV_THREAD_ID, .tid = (int)syscall(SYS_gettid) };
	struct itimerspec spec = { { 0, 2000000 }, { 0, 2000000 } };
	siginfo_t info;
	sigset_t set;

	check_eq(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id), 0);
	check_eq(syscall(SYS_timer_settime, id, 0, &spec, NULL), 0);
	sigemptyset(&set);
	sigaddset(&set, sig);
	t->ready = 1;
	while (!stop) {
		while (sigwaitinfo(&set, &info) < 0)
			check_eq(errno, EINTR);
		check_eq(info.si_signo, sig);
		check_eq(info.si_value.sival_int, t->n);
		t->loops++;
	}
	check_eq(syscall(SYS_timer_delete, id), 0);
	/* one more may be on its way */
	while (sigtimedwait(&set, &info, &(struct timespec){ 0 }) > 0)
		;
}

static void timer_setup(void)
{
	for (int i = 0; i < 5; i++)
		start(i % 2 ? work_timer : work_busy);
}

/* ---- a call from one thread of many ---- */

static atomic_int ask, asked;
static int answer, ask_cycle;

static void work_caller(struct task *t)
{
	t->ready = 1;
	while (!stop) {
		if (!ask) {
			usleep(200);
			continue;
		}
		answer = self_point(ask_cycle);
		ask = 0;
		asked = 1;
	}
}

static void caller_setup(void)
{
	waiting_setup();
	start(work_caller);
}

/* The main thread waits while another one calls. */
static int caller_point(int cycle)
{
	ask_cycle = cycle;
	asked = 0;
	ask = 1;
	while (!asked)
		usleep(100);
	return answer;
}

static void caller_verify(int cycle)
{
	(void)cycle;
	ntasks--;
	wake_all();
	for (int i = 0; i < ntasks; i++)
		until(&tasks[i].ready, 1);
	ntasks++;
}

SCENARIOS(
	{ .name = "waiting", .flags = BOTH, .setup = waiting_setup, .verify = waiting_verify },
	{ .name = "working", .flags = BOTH, .setup = working_setup, .verify = working_verify },
	{ .name = "renew", .flags = BOTH, .setup = renew_setup, .verify = renew_verify },
	{ .name = "locks", .flags = BOTH, .setup = locks_setup, .verify = locks_verify },
	{ .name = "pending", .flags = BOTH, .setup = pending_setup, .verify = pending_verify },
	{ .name = "timer", .flags = BOTH, .setup = timer_setup, .verify = working_verify },
	{ .name = "caller", .flags = SELF, .setup = caller_setup, .verify = caller_verify, .point = caller_point },
)
