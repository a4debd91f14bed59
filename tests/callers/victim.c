/*
 * victim.c - calls restart() with images that must not work, and proves each
 * time that it is as it was.
 *
 *	victim victim file|pipe DIR COUNT
 *
 * The images are DIR/bad.0 to DIR/bad.COUNT-1; DIR/errno.I gets what the call
 * failed with. The first is tried before DIR/ready.1 and DIR/go.1, so that
 * somebody can look at the supervisor before and, at DIR/ready.2, after the
 * rest. The verdict is in DIR/result, as scenarios have it.
 *
 * In pipe mode the whole image waits in a pipe, whose writing end is closed.
 */
#include "../scenarios/scenario.h"

#include <sys/wait.h>

#define F_SETPIPE_SZ_ 1031

static char *private_region, *shared_region, *stack_area;
static volatile sig_atomic_t handled;
static int data_fd;

static void handler(int sig)
{
	handled = sig;
}

static void build(void)
{
	struct sigaction sa = { .sa_handler = handler, .sa_flags = SA_ONSTACK };
	stack_t ss = { .ss_size = 1 << 16 };
	sigset_t set;

	private_region = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	shared_region = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	stack_area = mmap(NULL, ss.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(private_region != MAP_FAILED && shared_region != MAP_FAILED && stack_area != MAP_FAILED);
	fill(private_region, 1 << 20, 1);
	fill(shared_region, 1 << 16, 2);
	check_eq(mprotect(private_region + (1 << 19), 4096, PROT_NONE), 0);
	ss.ss_sp = stack_area;
	check_eq(sigaltstack(&ss, NULL), 0);
	check_eq(sigaction(SIGUSR2, &sa, NULL), 0);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGCHLD);	/* it would stay pending */
	check_eq(sigprocmask(SIG_BLOCK, &set, NULL), 0);
	data_fd = open(path("data", -1), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	check(data_fd >= 0);
	check_eq(write(data_fd, "abc", 3), 3);
	check_eq(dup2(data_fd, 50), 50);
	check_eq(lseek(50, 1, SEEK_SET), 1);
}

static void intact(void)
{
	sigset_t set;

	filled(private_region, 1 << 19, 1);
	filled(shared_region, 1 << 16, 2);
	handled = 0;
	check_eq(kill(getpid(), SIGUSR2), 0);
	check_eq(handled, SIGUSR2);
	check_eq(lseek(data_fd, 0, SEEK_CUR), 1);
	check_eq(waitpid(-1, NULL, WNOHANG), -1);	/* no children were left to us */
	check_eq(errno, ECHILD);
	check_eq(sigpending(&set), 0);
	check(!sigismember(&set, SIGCHLD));
}

/* into_pipe returns the reading end of a pipe with the whole file in it. */
static int into_pipe(int fd)
{
	static char buf[1 << 16];
	ssize_t n;
	int ends[2];

	check_eq(pipe(ends), 0);
	check(fcntl(ends[1], F_SETPIPE_SZ_, 1 << 20) > 0);
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		check_eq(write(ends[1], buf, n), n);
	check_eq(close(ends[1]), 0);
	check_eq(close(fd), 0);
	return ends[0];
}

static void try(int i, int from_pipe)
{
	char text[32];
	long got;
	int fd, err;

	fd = open(path("bad", i), O_RDONLY);
	check(fd >= 0);
	if (from_pipe)
		fd = into_pipe(fd);
	snapshot_ignore_fd = fd;
	snapshot(&snapshot_before);
	got = syscall(__NR_checkpoint + 1, 0, fd, 0UL);
	err = errno;
	snapshot_allow_scratch = err == EINTR || err == ENOSYS;
	snapshot(&snapshot_after);
	if (got != -1)
		fail("restart of bad.%d returned %ld", i, got);
	snapshot_compare();
	intact();
	/* A supervisor that was killed may already have put the offset behind the image. */
	if (!from_pipe && err != EINTR && err != ENOSYS)
		check_eq(lseek(fd, 0, SEEK_CUR), 0);
	check_eq(close(fd), 0);
	snprintf(text, sizeof(text), "%d", err);
	check_eq(put("errno", i, text), 0);
}

int main(int argc, char *argv[])
{
	static const struct scenario victim = { .name = "victim" };
	int count, from_pipe;

	if (argc != 5)
		return 2;
	scenario = &victim;
	from_pipe = !strcmp(argv[2], "pipe");
	scenario_dir = argv[3];
	count = atoi(argv[4]);

	own_output();
	build();
	try(0, from_pipe);
	announce("ready", 1);
	wait_told(1);
	for (int i = 1; i < count; i++)
		try(i, from_pipe);
	announce("ready", 2);
	wait_told(2);
	verdict("PASS", NULL);
}
