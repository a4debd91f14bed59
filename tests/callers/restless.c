/*
 * restless.c - a tree that never stands still, and judges itself.
 *
 *	restless KIND DIR
 *
 *   forks     processes that start and await others all the time, some by vfork and execve
 *   execs     a process in which always another thread than the first one executes a program
 *   threads   threads that come and go, fifty at a time
 *   stops     processes that stop each other and let each other go on
 *   signals   a timer of 1 kHz, signals with values in their order, a flood of SIGCHLD
 *
 * It writes DIR/ready.1 and goes on until DIR/go.1 is there. It ends with 0 if all
 * went on as it must; else standard error has why.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define check(cond) do { \
	if (!(cond)) { \
		dprintf(2, "restless: line %d: not so: %s (errno %d)\n", __LINE__, #cond, errno); \
		_exit(1); \
	} \
} while (0)

static const char *go, *self;

/* What all processes have together: how much they have done, and that they are to end. */
static struct { atomic_int rounds[8], enough; } *shared;

static int enough(void)
{
	return atomic_load(&shared->enough);
}

static void share(void)
{
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(shared != MAP_FAILED);
}

static pid_t child(void)
{
	pid_t parent = getpid(), pid = fork();

	check(pid >= 0);
	if (!pid && (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent))
		_exit(97);
	return pid;
}

static pid_t await(pid_t pid, int *status)
{
	pid_t got;

	do
		got = waitpid(pid, status, 0);
	while (got < 0 && errno == EINTR);
	return got;
}

static void ms(long n)
{
	struct timespec t = { .tv_nsec = n * 1000000 };

	nanosleep(&t, NULL);
}

/* until_enough waits for the word, and for its n processes to have done something. */
static void until_enough(int n)
{
	while (access(go, F_OK))
		ms(2);
	for (int i = 0; i < n; i++)
		for (int before = shared->rounds[i]; shared->rounds[i] == before;)
			ms(1);
	shared->enough = 1;
}

/* ---- forks ---- */

/* executed starts a program by vfork that ends with this status. */
static pid_t executed(int status)
{
	char number[2] = { (char)(status + 1), 0 };
	pid_t pid = vfork();

	check(pid >= 0);
	if (!pid) {
		execl(self, "restless", "leaf", number, NULL);
		_exit(96);
	}
	return pid;
}

static void workers(int me)
{
	for (int n = 0; !enough(); n++, shared->rounds[me]++) {
		int status, want[3];
		pid_t pids[3];

		for (int i = 0; i < 3; i++) {
			want[i] = (n + i) % 100;
			pids[i] = (n + i) % 3 ? child() : executed(want[i]);
			if (!pids[i])
				_exit(want[i]);
		}
		for (int i = 2; i >= 0; i--) {
			check(await(pids[i], &status) == pids[i]);
			check(WIFEXITED(status) && WEXITSTATUS(status) == want[i]);
		}
	}
}

static void forks(void)
{
	int status;
	pid_t pids[3];

	for (int i = 0; i < 3; i++) {
		pids[i] = child();
		if (!pids[i]) {
			workers(i);
			_exit(0);
		}
	}
	until_enough(3);
	for (int i = 0; i < 3; i++)
		check(await(pids[i], &status) == pids[i] && !status);
}

/* ---- execs ---- */

static int generation;

static void *runs_on(void *unused)
{
	for (;;)
		ms(1);
	return unused;
}

static void *executes(void *unused)
{
	char number[16];

	snprintf(number, sizeof(number), "%d", generation + 1);
	execl(self, "restless", "next", number, NULL);
	check(!"executed");
	return unused;
}

/* next is a program that becomes the next one; each tells the first process its number. */
static void next(int number)
{
	pthread_t t;

	generation = number;
	check(write(1, &generation, sizeof(generation)) == sizeof(generation));
	for (int i = 0; i < 3; i++)
		check(!pthread_create(&t, NULL, runs_on, NULL));
	check(!pthread_create(&t, NULL, executes, NULL));
	for (;;)
		pause();
}

static void execs(void)
{
	int fds[2], number, expected = 0, status;
	pid_t pid;

	check(!pipe(fds));
	pid = child();
	if (!pid) {
		check(dup2(fds[1], 1) == 1);
		close(fds[0]);
		close(fds[1]);
		execl(self, "restless", "next", "0", NULL);
		_exit(96);
	}
	close(fds[1]);
	for (int left = 20; left; expected++) {
		check(read(fds[0], &number, sizeof(number)) == sizeof(number));
		check(number == expected);
		left -= !access(go, F_OK);
	}
	check(!kill(pid, SIGKILL));
	check(await(pid, &status) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* ---- threads ---- */

static void *comes(void *n)
{
	if ((long)n % 3 == 0)
		sched_yield();
	return (void *)((long)n * 3 + 1);
}

static void threads(void)
{
	pthread_t t[50];
	void *got;

	for (long n = 0; n < 20 || access(go, F_OK); n++) {
		for (long i = 0; i < 50; i++)
			check(!pthread_create(&t[i], NULL, comes, (void *)(n + i)));
		for (long i = 0; i < 50; i++)
			check(!pthread_join(t[i], &got) && (long)got == (n + i) * 3 + 1);
	}
}

/* ---- stops ---- */

/* One stops and continues the next one of the ring, and is stopped itself. */
static void ring(int me, volatile pid_t *pids)
{
	while (!enough()) {
		pid_t other = pids[(me + 1) % 3];

		if (other) {
			check(!kill(other, SIGSTOP));
			sched_yield();
			check(!kill(other, SIGCONT));
		}
		shared->rounds[me]++;
	}
}

static void stops(void)
{
	volatile pid_t *pids = (pid_t *)&shared[1];
	int status;

	for (int i = 0; i < 3; i++) {
		pid_t pid = child();

		if (!pid) {
			ring(i, pids);
			_exit(0);
		}
		pids[i] = pid;
	}
	/* All three may have been stopped at once: somebody has to wake them. */
	while (access(go, F_OK)) {
		for (int i = 0; i < 3; i++)
			check(!kill(pids[i], SIGCONT));
		ms(1);
	}
	shared->enough = 1;
	/* Nobody is waited for before all have ended: they send signals to each other. */
	for (int ended = 0; ended < 3;) {
		siginfo_t info = { 0 };

		check(!waitid(P_PID, pids[ended], &info, WEXITED | WNOHANG | WNOWAIT));
		ended += info.si_pid != 0;
		for (int i = 0; i < 3; i++)
			check(!kill(pids[i], SIGCONT));
	}
	for (int i = 0; i < 3; i++)
		check(await(pids[i], &status) == pids[i] && !status && shared->rounds[i] > 0);
}

/* ---- signals ---- */

static atomic_int ticks, ends, last;

static void tick(int sig) { (void)sig; ticks++; }
static void end(int sig) { (void)sig; ends++; }

/* In their order, none lost and none twice. */
static void value(int sig, siginfo_t *info, void *context)
{
	(void)sig, (void)context;
	if (info->si_value.sival_int != last + 1)
		shared->rounds[7] = info->si_value.sival_int;
	last++;
}

static void sends(void)
{
	for (int n = 1; !enough(); n++, shared->rounds[0]++) {
		union sigval v = { .sival_int = n };

		while (sigqueue(getppid(), SIGRTMIN + 3, v))
			check(errno == EAGAIN);
		if (n % 64 == 0)
			ms(1);
	}
}

static void signals(void)
{
	struct sigaction a = { .sa_handler = tick, .sa_flags = SA_RESTART };
	struct itimerval each = { { 0, 1000 }, { 0, 1000 } };
	pid_t sender;
	int status;

	check(!sigaction(SIGALRM, &a, NULL));
	a.sa_handler = end;
	check(!sigaction(SIGCHLD, &a, NULL));
	a.sa_sigaction = value;
	a.sa_flags |= SA_SIGINFO;
	check(!sigaction(SIGRTMIN + 3, &a, NULL));
	check(!setitimer(ITIMER_REAL, &each, NULL));
	sender = child();
	if (!sender) {
		sends();
		_exit(0);
	}
	for (int n = 0, over = 0; !over; n++) {
		pid_t pids[4];
		int before = ends;

		over = !access(go, F_OK) && n > 20;
		shared->enough = over;
		for (int i = 0; i < 4; i++) {
			pids[i] = child();
			if (!pids[i])
				_exit(i + n % 10);
		}
		for (int i = 0; i < 4; i++)
			check(await(pids[i], &status) == pids[i] && WEXITSTATUS(status) == i + n % 10);
		check(ends > before);
		for (int t = ticks; ticks == t;)
			ms(1);
	}
	check(await(sender, &status) == sender && !status);
	check(shared->rounds[7] == 0 && last == shared->rounds[0]);
}

int main(int argc, char *argv[])
{
	static const struct { const char *name; void (*does)(void); } kinds[] = {
		{ "forks", forks }, { "execs", execs }, { "threads", threads }, { "stops", stops }, { "signals", signals },
	};
	char path[2][4096];
	FILE *f;

	check(argc == 3);
	self = "/proc/self/exe";
	if (!strcmp(argv[1], "leaf"))
		return (unsigned char)argv[2][0] - 1;
	if (!strcmp(argv[1], "next"))
		next(atoi(argv[2]));
	snprintf(path[0], sizeof(path[0]), "%s/ready.1", argv[2]);
	snprintf(path[1], sizeof(path[1]), "%s/go.1", argv[2]);
	go = path[1];
	share();
	snprintf(path[0] + strlen(path[0]), 8, ".new");
	check((f = fopen(path[0], "w")) && fprintf(f, "%d\n", getpid()) > 0 && !fclose(f));
	char *to = strndup(path[0], strlen(path[0]) - 4);

	check(to && !rename(path[0], to));
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		if (!strcmp(argv[1], kinds[i].name)) {
			kinds[i].does();
			return 0;
		}
	return 2;
}
