/*
 * family.c - a small tree of processes that knows what it should be like.
 *
 *	family wait|ask DIR OUT
 *
 * The first process has a child with a thread and with a child of its own,
 * which leads a session; one whose group has lost its leader; one that has
 * ended with status 5, and pipes to and from the first two. In mode wait it
 * writes DIR/family.1 and waits for DIR/go.9, in mode ask a further child
 * calls checkpoint() for the first process, with the image DIR/img, and OUT
 * gets a line of its result and errno. Then the first process asks all of them
 * and looks at the one that has ended. OUT gets a line "0 0"; it ends with 7.
 */
#include "../scenarios/scenario.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

static atomic_int *ticks;
static int question[2], answer[2];
static pid_t leader, gone;

static void *tick(void *unused)
{
	for (;;) {
		(*ticks)++;
		usleep(1000);
	}
	return unused;
}

/* reply answers one question after the other. */
static void reply(char who)
{
	char c;

	while (read(question[0], &c, 1) == 1)
		if (write(answer[1], &who, 1) != 1)
			break;
	_exit(0);
}

static pid_t child(void)
{
	pid_t parent = getpid(), pid = fork();

	check(pid >= 0);
	if (!pid && (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent))
		_exit(97);
	return pid;
}

static void grow(void)
{
	pthread_t t;
	siginfo_t info;
	char c;

	ticks = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(ticks != MAP_FAILED);
	check_eq(pipe(question), 0);
	check_eq(pipe(answer), 0);
	if (!child()) {
		if (!child()) {
			check(setsid() > 0);
			reply('c');
		}
		check_eq(pthread_create(&t, NULL, tick, NULL), 0);
		reply('a');
	}
	leader = child();
	if (!leader) {
		pause();
		_exit(0);
	}
	check_eq(setpgid(leader, leader), 0);
	if (!child()) {
		check_eq(setpgid(0, leader), 0);
		check_eq(write(answer[1], "+", 1), 1);
		reply('b');
	}
	check_eq(read(answer[0], &c, 1), 1);
	check_eq(kill(leader, SIGKILL), 0);
	check_eq(waitpid(leader, NULL, 0), leader);
	gone = child();
	if (!gone)
		_exit(5);
	check_eq(waitid(P_PID, gone, &info, WEXITED | WNOWAIT), 0);
	check_eq(close(question[0]), 0);
	check_eq(close(answer[1]), 0);
}

/* alike looks at all of them, and waits for those that have ended. */
static void alike(int ended)
{
	int status, before = *ticks;
	pid_t got;
	char c;

	for (int i = 0; *ticks < before + 2; i++) {
		check(i < 20000);
		usleep(1000);
	}
	for (int i = 0; i < 6; i++) {
		check_eq(write(question[1], "?", 1), 1);
		check_eq(read(answer[0], &c, 1), 1);
		check(c >= 'a' && c <= 'c');
	}
	for (int i = 0, all = 0; i < ended; i++) {
		for (int k = 0; !(got = waitpid(-1, &status, WNOHANG)); k++) {
			check(k < 20000);
			usleep(1000);
		}
		check(got > 0);
		all += status;
		if (i == ended - 1)
			check_eq(all, 5 << 8);
	}
	check_eq(waitpid(-1, &status, WNOHANG), 0);
}

static void report(const char *out, long result)
{
	int fd = open(out, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	check(fd >= 0);
	check(dprintf(fd, "%ld %d\n", result, result < 0 ? errno : 0) > 0);
	check_eq(close(fd), 0);
}

int main(int argc, char *argv[])
{
	static const struct scenario family = { .name = "family" };
	int fd, asked = 0;

	if (argc != 4)
		return 2;
	scenario = &family;
	scenario_dir = argv[2];
	own_output();
	grow();
	if (!strcmp(argv[1], "wait")) {
		announce("family", 1);
		wait_told(9);
	} else if (!child()) {
		fd = open(path("img", -1), O_RDWR | O_CREAT | O_TRUNC, 0600);
		check(fd >= 0);
		report(argv[3], syscall(__NR_checkpoint, getppid(), fd, 0UL));
		ticks[1] = 1;
		_exit(0);
	} else {
		asked = 1;
		for (int i = 0; !ticks[1]; i++) {
			check(i < 20000);
			usleep(1000);
		}
	}
	alike(1 + asked);
	report(argv[3], 0);
	_exit(7);
}
