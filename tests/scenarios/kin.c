/*
 * kin.c - what the first process of a tree has itself, and shares with those
 * below it.
 */
#include "tree.h"

#include <netinet/in.h>
#include <semaphore.h>
#include <sys/ipc.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

/* ---- sockets of the first process ---- */

static int pair[2], server;

static void talk_begin(void)
{
	check_eq(close(pair[0]), 0);
	check_eq(close(server), 0);
}

static void talk_child(int cycle)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	char c;
	int fd;

	check_eq(read(pair[1], &c, 1), 1);
	check_eq(c, 'a' + cycle);
	c = 'A' + cycle;
	check_eq(write(pair[1], &c, 1), 1);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	check(fd >= 0);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path("socket", -1));
	check_eq(connect(fd, (void *)&a, sizeof(a)), 0);
	check_eq(write(fd, &c, 1), 1);
	check_eq(close(fd), 0);
}

static const struct child talks = { talk_begin, talk_child };

static void talk_setup(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	share();
	check_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	server = socket(AF_UNIX, SOCK_STREAM, 0);
	check(server >= 0);
	check((size_t)snprintf(a.sun_path, sizeof(a.sun_path), "%s", path("socket", -1)) < sizeof(a.sun_path));
	check_eq(bind(server, (void *)&a, sizeof(a)), 0);
	check_eq(listen(server, 5), 0);
	grow(&talks);
	check_eq(close(pair[1]), 0);
	check_eq(write(pair[0], "b", 1), 1);
}

static void talk_verify(int cycle)
{
	char c;
	int fd;

	all(cycle);
	check_eq(read(pair[0], &c, 1), 1);
	check_eq(c, 'A' + cycle);
	fd = accept(server, NULL, NULL);
	check(fd >= 0);
	check_eq(read(fd, &c, 1), 1);
	check_eq(c, 'A' + cycle);
	check_eq(close(fd), 0);
	c = 'a' + cycle + 1;
	check_eq(write(pair[0], &c, 1), 1);
}

/* ---- a child with many sockets, which the first one has for a moment ---- */

enum { CROWD = 300 };

static int crowd[CROWD][2];

static void crowd_begin(void)
{
	struct rlimit files;

	check_eq(getrlimit(RLIMIT_NOFILE, &files), 0);
	if (files.rlim_cur < 3 * CROWD)
		needs("%d descriptors", 3 * CROWD);
	for (int i = 0; i < CROWD; i++) {
		check_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, crowd[i]), 0);
		check_eq(write(crowd[i][0], &i, sizeof(i)), sizeof(i));
	}
}

static void crowd_child(int cycle)
{
	int n;

	(void)cycle;
	for (int i = 0; i < CROWD; i++) {
		check_eq(read(crowd[i][1], &n, sizeof(n)), sizeof(n));
		check_eq(n, i);
		check_eq(write(crowd[i][0], &i, sizeof(i)), sizeof(i));
	}
}

static const struct child crowded = { crowd_begin, crowd_child };

static void crowd_setup(void)
{
	share();
	grow(&crowded);
}

static void crowd_verify(int cycle) { all(cycle); }

/* ---- a socket with a name that begins where only a child is ---- */

static void near_begin(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX, .sun_path = "near" };

	check_eq(mkdir(path("below", -1), 0700), 0);
	check_eq(chdir(path("below", -1)), 0);
	server = socket(AF_UNIX, SOCK_STREAM, 0);
	check(server >= 0);
	check_eq(bind(server, (void *)&a, sizeof(a)), 0);
	check_eq(listen(server, 5), 0);
}

static void near_child(int cycle)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX, .sun_path = "near" };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), peer;

	(void)cycle;
	check(fd >= 0);
	check_eq(connect(fd, (void *)&a, sizeof(a)), 0);
	peer = accept(server, NULL, NULL);
	check(peer >= 0);
	check_eq(close(peer), 0);
	check_eq(close(fd), 0);
}

static const struct child near = { near_begin, near_child };

static void near_setup(void)
{
	share();
	grow(&near);
}

static void near_verify(int cycle) { all(cycle); }

/* ---- pipes that send signals to one below the first process ---- */

static int shared_pipe[2];
static volatile sig_atomic_t owner_signals;

static void count_signal(int sig)
{
	(void)sig;
	owner_signals++;
}

static void own_pipe(int fd, int who, int sig)
{
	check(signal(sig, count_signal) != SIG_ERR);
	check_eq(fcntl(fd, F_SETOWN, who), 0);
	check_eq(fcntl(fd, F_SETSIG, sig), 0);
	check_eq(fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK), 0);
}

static void owned(int fd, int to, int who)
{
	char c;

	owner_signals = 0;
	check_eq(fcntl(fd, F_GETOWN), who);
	check_eq(fcntl(fd, F_GETFL), O_ASYNC | O_NONBLOCK);
	check_eq(write(to, "x", 1), 1);
	check_eq(owner_signals, 1);
	check_eq(read(fd, &c, 1), 1);
}

/* One of its own, and the one that the first process has, too. */
static int kept[2];

static void owner_begin(void)
{
	check_eq(pipe(kept), 0);
	own_pipe(kept[0], getpid(), SIGRTMIN);
	own_pipe(shared_pipe[0], getpid(), SIGRTMIN + 1);
}

static void owner_child(int cycle)
{
	(void)cycle;
	owned(kept[0], kept[1], getpid());
	owned(shared_pipe[0], shared_pipe[1], getpid());
}

static const struct child owner = { owner_begin, owner_child };

static void led_begin(void)
{
	check_eq(setpgid(0, 0), 0);
	check_eq(pipe(kept), 0);
	own_pipe(kept[0], -getpid(), SIGRTMIN);
}

static void led_child(int cycle)
{
	(void)cycle;
	owned(kept[0], kept[1], -getpgrp());
}

static const struct child led = { led_begin, led_child };

static void owners_setup(void)
{
	share();
	check_eq(pipe(shared_pipe), 0);
	grow(&owner);
	grow(&led);
}

static void owners_verify(int cycle)
{
	all(cycle);
	check_eq(fcntl(shared_pipe[0], F_GETFL), O_ASYNC | O_NONBLOCK);
}

/* ---- System V shared memory ---- */

enum { PAGE = 4096 };

static int id, own;
static char *region, *reading, *mine;

static char *attach(int segment, int flags)
{
	char *p = shmat(segment, NULL, flags);

	if (p == (void *)-1)
		fail("shmat: errno %d", errno);
	return p;
}

/* attached is how often that at an address is; its id may be a new one. */
static int attached(const void *at)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long start, inode;
	struct shmid_ds ds;
	char line[512];

	check(maps != NULL);
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%*x %*s %*x %*s %lu", &start, &inode) == 2 && start == (unsigned long)at) {
			check_eq(shmctl((int)inode, IPC_STAT, &ds), 0);
			check_eq(fclose(maps), 0);
			return ds.shm_nattch;
		}
	}
	fail("nothing is mapped at %p", at);
}

static int made(size_t size)
{
	int segment = shmget(IPC_PRIVATE, size, IPC_CREAT | 0600);

	if (segment < 0)
		needs("System V shared memory");
	return segment;
}

/* One attaches it once more, to read; and has one of its own. */
static void reader_begin(void)
{
	reading = attach(id, SHM_RDONLY);
	own = made(2 * PAGE);
	mine = attach(own, 0);
	check_eq(shmctl(own, IPC_RMID, NULL), 0);
	fill(mine, PAGE, 7);
}

static void reader_child(int cycle)
{
	(void)cycle;
	filled(reading + PAGE, PAGE, 3);
	filled(mine, PAGE, 7);
	check_eq(faults(reading, 1), SIGSEGV);
	check_eq(reading[0], region[0]);
	check_eq(attached(mine), 1);
	__atomic_add_fetch(&region[0], 1, __ATOMIC_SEQ_CST);
}

static void detached_begin(void) { check_eq(shmdt(region), 0); }

static void detached_child(int cycle)
{
	(void)cycle;
	check_eq(faults(region, 0), SIGSEGV);
}

static const struct child reader = { reader_begin, reader_child }, detached = { detached_begin, detached_child };

static void sysv_setup(void)
{
	share();
	id = made(4 * PAGE);
	region = attach(id, 0);
	check_eq(shmctl(id, IPC_RMID, NULL), 0);
	fill(region + PAGE, PAGE, 3);
	grow(&reader);
	grow(&detached);
}

static void sysv_verify(int cycle)
{
	check_eq(region[0], cycle - 1);
	all(cycle);
	check_eq(region[0], cycle);
	filled(region + PAGE, PAGE, 3);
	check_eq(region[3 * PAGE], 0);
	check_eq(attached(region), 3);
}

/* ---- semaphores in files: a named one, and one whose name was removed ---- */

static sem_t *named, *removed;

/* opened does what sem_open(3) does, in a directory of ours. */
static sem_t *opened(const char *name)
{
	int fd = open(path("passing", -1), O_RDWR | O_CREAT | O_EXCL, 0600);
	sem_t *s;

	check(fd >= 0);
	check_eq(ftruncate(fd, PAGE), 0);
	s = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check(s != MAP_FAILED);
	check_eq(close(fd), 0);
	check_eq(sem_init(s, 1, 0), 0);
	check_eq(link(path("passing", -1), path(name, -1)), 0);
	check_eq(unlink(path("passing", -1)), 0);
	return s;
}

/* A restart has the mapping under the name that the file has. */
static void post_begin(void) { named = opened("named"); }

static void post_child(int cycle)
{
	(void)cycle;
	check_eq(sem_post(named), 0);
	check_eq(sem_post(removed), 0);
}

static const struct child posts = { post_begin, post_child };

static void semaphores_setup(void)
{
	share();
	removed = opened("removed");
	check_eq(unlink(path("removed", -1)), 0);
	grow(&posts);
}

static void semaphores_verify(int cycle)
{
	int fd = open(path("named", -1), O_RDWR);
	sem_t *s = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	check(s != MAP_FAILED);
	check_eq(sem_trywait(s), -1);
	all(cycle);
	check_eq(sem_trywait(s), 0);
	check_eq(sem_trywait(s), -1);
	check_eq(munmap(s, PAGE), 0);
	check_eq(close(fd), 0);
	check_eq(sem_trywait(removed), 0);
	check_eq(sem_trywait(removed), -1);
}

/* ---- what it has that cannot be saved ---- */

static const struct child plain;

/* A file with another name than the one that it was opened by. */
static void refused_setup(void)
{
	share();
	grow(&plain);
	check(open(path("before", -1), O_RDWR | O_CREAT | O_TRUNC, 0600) >= 0);
	check_eq(link(path("before", -1), path("after", -1)), 0);
	check_eq(unlink(path("before", -1)), 0);
}

/* ---- nothing shared but what a descriptor leads to ---- */

static char *changed;
static int ends[2];

static void named_begin(void)
{
	filled(changed, 1 << 18, 5);
	fill(changed + 8 * PAGE, PAGE, 60 + self);
	check_eq(munmap(changed + 16 * PAGE, PAGE), 0);
}

static void named_child(int cycle)
{
	char c;

	filled(changed, 8 * PAGE, 5);
	filled(changed + 8 * PAGE, PAGE, 60 + self + cycle - 1);
	fill(changed + 8 * PAGE, PAGE, 60 + self + cycle);
	check_eq(faults(changed + 16 * PAGE, 0), SIGSEGV);
	check_eq(read(ends[0], &c, 1), 1);
}

static const struct child holds = { named_begin, named_child };

static void named_setup(void)
{
	int fd = syscall(SYS_memfd_create, "control", 0);

	check(fd >= 0);
	check_eq(ftruncate(fd, sizeof(*control)), 0);
	control = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	changed = mmap(NULL, 1 << 18, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(control != MAP_FAILED && changed != MAP_FAILED);
	fill(changed, 1 << 18, 5);
	check_eq(pipe(ends), 0);
	check_eq(write(ends[1], "xy", 2), 2);
	grow(&holds);
	grow(&holds);
}

static void named_verify(int cycle)
{
	all(cycle);
	filled(changed, 1 << 18, 5);
	check_eq(write(ends[1], "xy", 2), 2);
}

/* ---- a client that nearly always waits to be accepted ---- */

static struct sockaddr_in desk;
static int listener;

static void pause_ms(int ms)
{
	struct timespec t = { .tv_nsec = ms * 1000000L };

	while (nanosleep(&t, &t))
		check_eq(errno, EINTR);
}

/* Answers the next one, after a while. */
static void serve(void)
{
	char c;
	int fd;

	pause_ms(10);
	fd = accept(listener, NULL, NULL);
	check(fd >= 0);
	check_eq(read(fd, &c, 1), 1);
	check_eq(write(fd, &c, 1), 1);
	check_eq(close(fd), 0);
}

/* What it has said while it waits must be answered. */
static void ask(void)
{
	struct linger none = { .l_onoff = 1 };
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	char c = 0;

	check(fd >= 0);
	check_eq(connect(fd, (void *)&desk, sizeof(desk)), 0);
	check_eq(write(fd, "x", 1), 1);
	check_eq(read(fd, &c, 1), 1);
	check_eq(c, 'x');
	check_eq(setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none)), 0);
	check_eq(close(fd), 0);
	atomic_fetch_add(&control->count, 1);
	pause_ms(5);
}

static void keep_at(void (*work)(void))
{
	int parent = getpid();
	pid_t pid = fork();

	check(pid >= 0);
	if (pid)
		return;
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
		_exit(97);
	for (;;)
		work();
}

static void desk_setup(void)
{
	socklen_t len = sizeof(desk);

	share();
	desk = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	listener = socket(AF_INET, SOCK_STREAM, 0);
	check(listener >= 0);
	check_eq(bind(listener, (void *)&desk, sizeof(desk)), 0);
	check_eq(getsockname(listener, (void *)&desk, &len), 0);
	check_eq(listen(listener, 5), 0);
	keep_at(serve);
	keep_at(ask);
}

static void desk_verify(int cycle)
{
	int least = atomic_load(&control->count) + 3;

	(void)cycle;
	for (int i = 0; atomic_load(&control->count) < least; i++) {
		check(i < 3000);
		check_eq(waitpid(-1, NULL, WNOHANG), 0); /* none has ended */
		pause_ms(10);
	}
}

SCENARIOS(
	{ .name = "named", .flags = EXTERNAL, .setup = named_setup, .verify = named_verify },
	{ .name = "talk", .flags = EXTERNAL, .setup = talk_setup, .verify = talk_verify },
	{ .name = "crowd", .flags = EXTERNAL, .setup = crowd_setup, .verify = crowd_verify },
	{ .name = "desk", .flags = EXTERNAL, .setup = desk_setup, .verify = desk_verify },
	{ .name = "near", .flags = EXTERNAL, .setup = near_setup, .verify = near_verify },
	{ .name = "owners", .flags = EXTERNAL, .setup = owners_setup, .verify = owners_verify },
	{ .name = "sysv", .flags = EXTERNAL, .setup = sysv_setup, .verify = sysv_verify },
	{ .name = "semaphores", .flags = EXTERNAL, .setup = semaphores_setup, .verify = semaphores_verify },
	{ .name = "refused", .flags = EXTERNAL | REFUSED, .setup = refused_setup, .refused = EBADF },
)
