/*
 * common.c - processes that have more together than a child has of its parent:
 * descriptors and directories, as by clone(2).
 */
#include "tree.h"

#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>

/* cloned is grow with flags of clone(2). */
static int cloned(const struct child *c, unsigned long flags)
{
	int n = atomic_fetch_add(&control->count, 1);
	pid_t parent = getpid(), pid;

	check(n < MOST);
	pid = (pid_t)syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, 0UL);
	check(pid >= 0);
	if (pid == 0) {
		self = n;
		obey(c, parent);
	}
	await(&control->of[n].done, 1);
	return n;
}

/* ---- one table of descriptors, or one working directory, or both, or neither ---- */

static const char *dirs[] = { "one", "two", "three", "four", "five" };

/* put_there opens a file at a number that all can know. */
static void put_there(int fd, const char *name)
{
	int at = open(path(name, -1), O_RDWR | O_CREAT, 0600);

	check(at >= 0);
	if (at == fd)
		return;
	check_eq(dup3(at, fd, O_CLOEXEC), fd);
	check_eq(close(at), 0);
}

static int is_open(int fd) { return fcntl(fd, F_GETFD) >= 0; }

static void stands_in(const char *name)
{
	char now[4096], *last;

	check(getcwd(now, sizeof(now)) != NULL);
	last = strrchr(now, '/');
	check(last && !strcmp(last + 1, name));
}

enum { FIRST = 40, TABLE = 41, ALONE = 42, BELOW = 43 };

/* A lock is the table's. */
static void lock_it(int fd)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	check_eq(fcntl(fd, F_SETLK, &whole), 0);
}

static int locked_out(int fd)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	check_eq(fcntl(fd, F_GETLK, &whole), 0);
	return whole.l_type != F_UNLCK;
}

/* Who has the table sees what the first one has opened, and the other way round. */
static void table_setup(void) { put_there(TABLE, "table"); lock_it(TABLE); }

static void table_verify(int cycle)
{
	check(is_open(FIRST) && is_open(TABLE) && !is_open(ALONE) && is_open(BELOW));
	check(!locked_out(TABLE));
	stands_in("one"); /* and has a directory of its own */
	check_eq(fcntl(TABLE, F_SETFD, cycle & 1 ? 0 : FD_CLOEXEC), 0);
	check_eq(dup2(FIRST, 100 + cycle), 100 + cycle);
}

/* A child of that one, of the same table and of another directory than anybody. */
static void below_setup(void)
{
	put_there(BELOW, "below");
	check_eq(chdir(path("three", -1)), 0);
}

static void below_verify(int cycle)
{
	(void)cycle;
	check(is_open(FIRST) && is_open(TABLE) && is_open(BELOW));
	stands_in("three");
}

/* Who has the directories stands where the first one stands, and has descriptors of its own. */
static void place_setup(void)
{
	check_eq(close(FIRST), 0);
	put_there(ALONE, "alone");
	check_eq(chdir(path("two", -1)), 0);
	umask(027);
}

static void place_verify(int cycle)
{
	int fd = open(path("table", -1), O_RDWR);

	check(fd >= 0 && locked_out(fd));
	check_eq(close(fd), 0);
	check(!is_open(FIRST) && is_open(ALONE));
	stands_in(cycle == 1 ? "two" : dirs[cycle]);
	check_eq(chdir(path(dirs[cycle + 1], -1)), 0);
	check_eq(umask(020 + cycle), cycle == 1 ? 027 : 020 + cycle - 1);
}

static const struct child below = { below_setup, below_verify }, place = { place_setup, place_verify };

static void table_and_child(void)
{
	table_setup();
	cloned(&below, CLONE_FILES);
}

static const struct child table = { table_and_child, table_verify };

static void both_verify(int cycle)
{
	(void)cycle;
	check(is_open(FIRST) && is_open(TABLE));
}

static const struct child both = { NULL, both_verify };

static void common_setup(void)
{
	share();
	for (int i = 0; i < 5; i++)
		check(!mkdir(path(dirs[i], -1), 0700) || errno == EEXIST);
	check_eq(chdir(path("one", -1)), 0);
	put_there(FIRST, "first");
	cloned(&table, CLONE_FILES);
	cloned(&place, CLONE_FS);
	cloned(&both, CLONE_FILES | CLONE_FS);
	check(is_open(TABLE) && is_open(BELOW) && !is_open(ALONE));
	stands_in("two");
}

static void common_verify(int cycle)
{
	check(is_open(TABLE) && is_open(BELOW) && !is_open(ALONE));
	check_eq(lseek(FIRST, 0, SEEK_CUR), 0);
	all(cycle);
	/* What the children did is done to the parent, too. */
	check_eq(fcntl(TABLE, F_GETFD), cycle & 1 ? 0 : FD_CLOEXEC);
	check(is_open(100 + cycle));
	stands_in(dirs[cycle + 1]);
	check_eq(umask(020 + cycle), 020 + cycle);
	check_eq(control->of[0].ppid, getpid());
}

/* ---- threads with a working directory of their own ---- */

static atomic_int question, answers;
static char where[2][4096];
static int mask[2];

static void *standing(void *which)
{
	int i = which != NULL;

	check_eq(unshare(CLONE_FS), 0);
	check_eq(chdir(path(dirs[i + 1], -1)), 0);
	umask(i ? 07 : 070);
	for (int n = 1;; n++) {
		atomic_fetch_add(&answers, 1);
		await(&question, n);
		check(getcwd(where[i], sizeof(where[i])) != NULL);
		mask[i] = umask(i ? 07 : 070);
		check_eq(fcntl(FIRST, F_GETFD), FD_CLOEXEC);
	}
	return NULL;
}

static void standing_setup(void)
{
	pthread_t t;

	for (int i = 0; i < 5; i++)
		check(!mkdir(path(dirs[i], -1), 0700) || errno == EEXIST);
	check_eq(chdir(path("one", -1)), 0);
	umask(022);
	put_there(FIRST, "first");
	check_eq(pthread_create(&t, NULL, standing, NULL), 0);
	check_eq(pthread_create(&t, NULL, standing, where), 0);
	await(&answers, 2);
}

static void standing_verify(int cycle)
{
	stands_in(cycle == 1 ? "one" : "four");
	check_eq(umask(022), 022);
	check_eq(chdir(path("four", -1)), 0);
	atomic_store(&question, cycle);
	await(&answers, 2 * cycle + 2);
	for (int i = 0; i < 2; i++) {
		check_eq(mask[i], i ? 07 : 070);
		check(!strcmp(strrchr(where[i], '/') + 1, dirs[i + 1]));
	}
}

/* One that has a root directory of its own as well. */
static void *confined(void *done)
{
	int failed = unshare(CLONE_FS) || chroot(path("one", -1));

	atomic_store((atomic_int *)done, failed ? 2 : 1);
	for (;;)
		pause();
	return NULL;
}

static void confined_setup(void)
{
	static atomic_int done;
	pthread_t t;

	check(!mkdir(path("one", -1), 0700) || errno == EEXIST);
	check_eq(pthread_create(&t, NULL, confined, &done), 0);
	await(&done, 1);
	check_eq(done, 1);
}

/* ---- children of vfork, at any moment of their short life ---- */

static atomic_int spawned;

static void *spawning(void *unused)
{
	for (;;) {
		int status;
		pid_t pid = vfork();

		if (!pid) {
			syscall(SYS_nanosleep, &(struct timespec){ .tv_nsec = 20000000 }, NULL);
			_exit(3 + spawned % 50);
		}
		check(pid > 0);
		check(waitpid(-1, &status, 0) > 0); /* its number may be another one by now */
		check_eq(WEXITSTATUS(status), 3 + spawned % 50);
		atomic_fetch_add(&spawned, 1);
	}
	return unused;
}

static void vfork_setup(void)
{
	pthread_t t;

	check_eq(pthread_create(&t, NULL, spawning, NULL), 0);
}

static void vfork_verify(int cycle)
{
	int before = spawned;

	(void)cycle;
	await(&spawned, before + 3);
}

/* other_thread is the only one beside the first. */
static int other_thread(void)
{
	struct dirent *entry;
	DIR *dir = opendir("/proc/self/task");
	int tid = 0;

	check(dir != NULL);
	while ((entry = readdir(dir)))
		if (atoi(entry->d_name) > 0 && atoi(entry->d_name) != getpid())
			tid = atoi(entry->d_name);
	check_eq(closedir(dir), 0);
	return tid;
}

/* One that never comes so far. */
static void *held(void *unused)
{
	pid_t pid = vfork();

	if (!pid) {
		syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
		syscall(SYS_kill, syscall(SYS_getpid), SIGSTOP);
		_exit(1);
	}
	fail("vfork returned %d", pid);
	return unused;
}

static void held_setup(void)
{
	char name[64], state = 0;
	pthread_t t;
	FILE *f;

	check_eq(pthread_create(&t, NULL, held, NULL), 0);
	/* Its child is stopped once it is there and has slept for long enough. */
	for (int i = 0; state != 'T' && i < 10000; i++) {
		int pid = 0;

		usleep(1000);
		snprintf(name, sizeof(name), "/proc/self/task/%d/children", other_thread());
		if ((f = fopen(name, "r"))) {
			if (fscanf(f, "%d", &pid) != 1)
				pid = 0;
			fclose(f);
		}
		snprintf(name, sizeof(name), "/proc/%d/stat", pid);
		if (pid && (f = fopen(name, "r"))) {
			check_eq(fscanf(f, "%*d %*s %c", &state), 1);
			fclose(f);
		}
	}
	check_eq(state, 'T');
}

/* ---- what siblings have together, and their parent has left ---- */

enum { SIBLING = 50 };

static atomic_int *flag(int i) { return (atomic_int *)control->page + i; }

/* stands has the directories with the one in the middle. */
static void stands_verify(int cycle)
{
	check(!is_open(SIBLING));
	check_eq(chdir(path(dirs[cycle], -1)), 0);
	atomic_store(flag(0), cycle);
}

static void middle_setup(void) { put_there(SIBLING, "middle"); }

static void middle_verify(int cycle)
{
	await(flag(0), cycle);
	stands_in(dirs[cycle]);
	check(is_open(SIBLING));
	check_eq(dup2(SIBLING, SIBLING + cycle), SIBLING + cycle);
	atomic_store(flag(1), cycle);
}

/* opens has the table with that one, and leads a session. */
static void opens_setup(void) { check(setsid() > 0); }

static void opens_verify(int cycle)
{
	await(flag(1), cycle);
	check(is_open(SIBLING) && is_open(SIBLING + cycle));
	stands_in("five");
	check_eq(getsid(0), getpid());
}

static const struct child stands = { NULL, stands_verify }, middle = { middle_setup, middle_verify },
	opens = { opens_setup, opens_verify };

static void left_setup(void)
{
	share();
	for (int i = 0; i < 5; i++)
		check(!mkdir(path(dirs[i], -1), 0700) || errno == EEXIST);
	check_eq(chdir(path("four", -1)), 0);
	cloned(&stands, CLONE_FS);
	check_eq(unshare(CLONE_FILES), 0);
	cloned(&middle, CLONE_FS | CLONE_FILES);
	check_eq(unshare(CLONE_FS), 0);
	check_eq(chdir(path("five", -1)), 0);
	cloned(&opens, CLONE_FILES);
	check_eq(unshare(CLONE_FILES), 0);
	check_eq(close(SIBLING), 0);
}

static void left_verify(int cycle)
{
	all(cycle);
	check(!is_open(SIBLING) && !is_open(SIBLING + cycle));
	stands_in("five");
	for (int i = 0; i < 3; i++)
		check_eq(control->of[i].ppid, getpid());
}

/* ---- what nobody can make again: a parent without it is between ---- */

static const struct child plain;

static void between(void)
{
	cloned(&plain, CLONE_FS);
	check_eq(unshare(CLONE_FS), 0);
}

static const struct child without = { between, NULL };

static void apart_setup(void)
{
	share();
	cloned(&without, CLONE_FS);
}

static void apart_verify(int cycle) { all(cycle); }

SCENARIOS(
	{ .name = "common", .flags = EXTERNAL, .setup = common_setup, .verify = common_verify },
	{ .name = "thread-place", .flags = BOTH, .setup = standing_setup, .verify = standing_verify },
	{ .name = "thread-root", .flags = BOTH | ROOT | REFUSED, .setup = confined_setup, .refused = EOPNOTSUPP },
	{ .name = "vfork", .flags = EXTERNAL | BARE, .setup = vfork_setup, .verify = vfork_verify },
	{ .name = "vfork-stopped", .flags = EXTERNAL | BARE | REFUSED, .setup = held_setup, .refused = EBUSY },
	{ .name = "parent-left", .flags = EXTERNAL, .setup = left_setup, .verify = left_verify },
	{ .name = "parent-between", .flags = EXTERNAL | REFUSED, .setup = apart_setup, .verify = apart_verify, .refused = EOPNOTSUPP },
)
