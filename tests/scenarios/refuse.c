/*
 * refuse.c - what cannot be saved: checkpoint must fail with the right errno,
 * write nothing, and leave the program as it was.
 */
#include "scenario.h"

#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#endif

static int fds[2] = { -1, -1 };
static char *region;

/* got takes a new descriptor, or names what is missing. */
static int got(int fd, const char *what)
{
	if (fd < 0 && (errno == ENOSYS || errno == EPERM || errno == ENODEV ||
		       errno == EAFNOSUPPORT || errno == EPROTONOSUPPORT))
		needs("%s", what);
	if (fd < 0)
		fail("%s: errno %d", what, errno);
	return fd;
}

static int temporary(const char *name)
{
	int fd = got(open(path(name, -1), O_RDWR | O_CREAT | O_TRUNC, 0600), name);

	check_eq(ftruncate(fd, 1 << 16), 0);
	return fd;
}

/* ---- descriptors ---- */

/* MPTCP has no repair mode, by which what was not sent could be read. */
static void mptcp_setup(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(a);
	char page[4096] = { 0 };

	fds[0] = got(socket(AF_INET, SOCK_STREAM, 262), "MPTCP");
	fds[1] = got(socket(AF_INET, SOCK_STREAM, 262), "MPTCP");
	check_eq(bind(fds[0], (void *)&a, n), 0);
	check_eq(listen(fds[0], 1), 0);
	check_eq(getsockname(fds[0], (void *)&a, &n), 0);
	check_eq(connect(fds[1], (void *)&a, n), 0);
	fds[2] = got(accept(fds[0], NULL, NULL), "MPTCP");
	check_eq(fcntl(fds[1], F_SETFL, O_NONBLOCK), 0);
	/* Until the other end has no room, and not just not yet got it. */
	for (int quiet = 0; quiet < 20; quiet++) {
		struct timespec ms = { .tv_nsec = 10000000 };

		while (write(fds[1], page, sizeof(page)) > 0)
			quiet = 0;
		check_eq(errno, EAGAIN);
		nanosleep(&ms, NULL);
	}
}

static void packet_setup(void)
{
	fds[0] = got(socket(AF_PACKET, SOCK_DGRAM, 0), "packet sockets");
}

static void raw_setup(void)
{
	fds[0] = got(socket(AF_INET, SOCK_RAW, 1), "raw sockets");
}

/* Messages wait: the answer to a question for all links. */
static void netlink_setup(void)
{
	struct { uint32_t len; uint16_t type, flags; uint32_t seq, pid; uint8_t family, pad[15]; } ask = {
		sizeof(ask), 18 /* RTM_GETLINK */, 0x301 /* REQUEST, DUMP */, 1, 0, 0, { 0 },
	};
	struct pollfd p = { .events = POLLIN };

	fds[0] = got(socket(AF_NETLINK, SOCK_RAW, 0), "netlink");
	check_eq(send(fds[0], &ask, sizeof(ask), 0), sizeof(ask));
	p.fd = fds[0];
	check_eq(poll(&p, 1, 10000), 1);
}

static void netlink_verify(int cycle)
{
	char buf[64];

	(void)cycle;
	check(recv(fds[0], buf, sizeof(buf), MSG_PEEK | MSG_DONTWAIT) > 0);
}

static void netfilter_setup(void)
{
	fds[0] = got(socket(AF_NETLINK, SOCK_RAW, 12), "netlink of netfilter");
}

/* A datagram that is still being put together. */
static void cork_setup(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int on = 1;

	fds[0] = got(socket(AF_INET, SOCK_DGRAM, 0), "UDP");
	check_eq(setsockopt(fds[0], IPPROTO_UDP, 1 /* UDP_CORK */, &on, sizeof(on)), 0);
	check_eq(sendto(fds[0], "abc", 3, 0, (void *)&to, sizeof(to)), 3);
}

static void filter_setup(void)
{
	struct { uint16_t code; uint8_t jt, jf; uint32_t k; } all = { 6, 0, 0, 0xffffffff };
	struct { uint16_t len; void *filter; } program = { 1, &all };

	fds[0] = got(socket(AF_INET, SOCK_DGRAM, 0), "UDP");
	check_eq(setsockopt(fds[0], SOL_SOCKET, 26 /* SO_ATTACH_FILTER */, &program, sizeof(program)), 0);
}

static void urgent_setup(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(a);
	struct pollfd p = { .events = POLLPRI };
	int listener = got(socket(AF_INET, SOCK_STREAM, 0), "TCP");

	check_eq(bind(listener, (void *)&a, sizeof(a)), 0);
	check_eq(listen(listener, 1), 0);
	check_eq(getsockname(listener, (void *)&a, &n), 0);
	fds[0] = got(socket(AF_INET, SOCK_STREAM, 0), "TCP");
	check_eq(connect(fds[0], (void *)&a, sizeof(a)), 0);
	fds[1] = accept(listener, NULL, NULL);
	check_eq(send(fds[0], "!", 1, MSG_OOB), 1);
	p.fd = fds[1];
	check_eq(poll(&p, 1, 10000), 1);
}

static void urgent_verify(int cycle)
{
	char c;

	(void)cycle;
	check_eq(recv(fds[1], &c, 1, MSG_OOB | MSG_PEEK), 1);
	check_eq(c, '!');
}

static void epoll_setup(void)
{
	struct epoll_event event = { .events = EPOLLIN };

	/* Watched under a number that has been closed since. */
	fds[0] = got(epoll_create1(0), "epoll");
	fds[1] = got(eventfd(0, 0), "eventfd");
	check_eq(epoll_ctl(fds[0], EPOLL_CTL_ADD, fds[1], &event), 0);
	check(dup(fds[1]) >= 0);
	check_eq(close(fds[1]), 0);
}

/* An event that nobody has read. */
static void inotify_setup(void)
{
	fds[0] = got(inotify_init1(0), "inotify");
	check_eq(inotify_add_watch(fds[0], scenario_dir, IN_CREATE), 1);
	fds[1] = temporary("new");
}

static void inotify_verify(int cycle)
{
	struct pollfd p = { .fd = fds[0], .events = POLLIN };

	(void)cycle;
	check_eq(poll(&p, 1, 0), 1);
}

/* A watched file that has no name any more. */
static void inotify_deleted_setup(void)
{
	fds[0] = got(inotify_init1(0), "inotify");
	fds[1] = temporary("watched");
	check_eq(inotify_add_watch(fds[0], path("watched", -1), IN_MODIFY), 1);
	check_eq(unlink(path("watched", -1)), 0);
}

static void pidfd_setup(void)
{
	fds[0] = got(syscall(SYS_pidfd_open, getppid(), 0), "pidfd_open");
}

static void userfaultfd_setup(void)
{
	fds[0] = got(syscall(SYS_userfaultfd, 1 /* UFFD_USER_MODE_ONLY */), "userfaultfd");
}

static void io_uring_setup(void)
{
	static char params[120];

	fds[0] = got(syscall(SYS_io_uring_setup, 4, params), "io_uring");
}

static void fanotify_setup(void)
{
	/* FAN_REPORT_FID, which anybody may have since Linux 5.13 */
	fds[0] = got(syscall(SYS_fanotify_init, 0x200, 0), "fanotify");
}

static void perf_setup(void)
{
	static uint64_t attr[17] = { 1 | (uint64_t)112 << 32, 1 };	/* PERF_TYPE_SOFTWARE, PERF_COUNT_SW_TASK_CLOCK */

	attr[5] = 1 << 5;	/* exclude_kernel */
	fds[0] = syscall(SYS_perf_event_open, attr, 0, -1, -1, 0UL);
	if (fds[0] < 0 && errno == EACCES)
		needs("kernel.perf_event_paranoid below 3");
	got(fds[0], "perf events");
}

static void bpf_setup(void)
{
	static uint32_t attr[32] = { 2, 4, 4, 1 };	/* BPF_MAP_TYPE_ARRAY */

	fds[0] = got(syscall(SYS_bpf, 0, attr, sizeof(attr)), "bpf");
}

static void secret_fd_setup(void)
{
	fds[0] = got(syscall(SYS_memfd_secret, 0), "memfd_secret");
}

static void landlock_setup(void)
{
	static uint64_t attr = 1;

	fds[0] = syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
	if (fds[0] < 0 && errno == EOPNOTSUPP)
		needs("landlock");
	got(fds[0], "landlock");
}

static void listener_setup(void)
{
	static struct { uint16_t code; uint8_t t, f; uint32_t k; } allow = { 6, 0, 0, 0x7fff0000 };
	struct { unsigned short len; void *code; } filter = { 1, &allow };

	check_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	fds[0] = syscall(SYS_seccomp, 1, 8 /* NEW_LISTENER */, &filter);
	if (fds[0] < 0 && errno == EBUSY)
		needs("no filter with a listener around the program");
	got(fds[0], "a seccomp listener");
}

static void terminal_setup(void)
{
	fds[0] = got(open("/dev/ptmx", O_RDWR | O_NOCTTY), "/dev/ptmx");
	check_eq(dup2(fds[0], 9), 9);
}

/* A deleted file that has another name, which only others know. */
static void linked_setup(void)
{
	fds[0] = temporary("one");
	check_eq(link(path("one", -1), path("two", -1)), 0);
	check_eq(unlink(path("one", -1)), 0);
	check_eq(write(fds[0], "abc", 3), 3);
}

static void linked_verify(int cycle)
{
	char buf[4];

	(void)cycle;
	check_eq(pread(fds[0], buf, 3, 0), 3);
	check_eq(memcmp(buf, "abc", 3), 0);
}

/* A deleted file that the program may write to, and not read. */
static void unreadable_setup(void)
{
	if (geteuid() == 0)
		needs("to be no superuser, who may read everything");
	fds[0] = got(open(path("gone", -1), O_WRONLY | O_CREAT, 0200), "file");
	check_eq(unlink(path("gone", -1)), 0);
	check_eq(write(fds[0], "abc", 3), 3);
}

/* A file about another process, and one that holds a trigger. */
static void proc_setup(void)
{
	char name[64];

	snprintf(name, sizeof(name), "/proc/%d/stat", getppid());
	fds[0] = got(open(name, O_RDONLY), "/proc/PID/stat");
}

static void pressure_setup(void)
{
	fds[0] = open("/proc/pressure/cpu", O_RDWR);
	if (fds[0] < 0)
		needs("/proc/pressure/cpu");
}

static void directory_setup(void)
{
	check_eq(mkdir(path("gone", -1), 0700), 0);
	fds[0] = got(open(path("gone", -1), O_RDONLY | O_DIRECTORY), "directory");
	check_eq(rmdir(path("gone", -1)), 0);
}

/* A lease that somebody waits for. */
static void lease_setup(void)
{
	pid_t pid;

	check(signal(SIGIO, SIG_IGN) != SIG_ERR);
	fds[0] = temporary("leased");
	if (fcntl(fds[0], F_SETLEASE, F_WRLCK))
		needs("file leases");
	pid = fork();
	if (pid == 0)
		_exit(open(path("leased", -1), O_RDONLY | O_NONBLOCK) >= 0 || errno != EWOULDBLOCK);
	check_eq(waitpid(pid, fds + 1, 0), pid);
	check_eq(fds[1], 0);
}

/* Signals about a descriptor that go to another process. */
static void owner_setup(void)
{
	check_eq(pipe(fds), 0);
	check_eq(fcntl(fds[0], F_SETOWN, getppid()), 0);
}

/* Two kinds of lock on one open file. */
static void locks_setup(void)
{
	struct flock lock = { .l_type = F_RDLCK, .l_start = 10, .l_len = 10 };

	fds[0] = temporary("locked");
	check_eq(fcntl(fds[0], F_SETLK, &lock), 0);
	check_eq(fcntl(fds[0], F_OFD_SETLK, &lock), 0);
}

/* ---- memory ---- */

static void mapped(int fd, int flags)
{
	region = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, flags, fd, 0);
	check(region != MAP_FAILED);
	fill(region, 1 << 16, 1);
}

static void mapped_verify(int cycle)
{
	(void)cycle;
	filled(region, 1 << 16, 1);
}

static void secret_setup(void)
{
	int fd = got(syscall(SYS_memfd_secret, 0), "memfd_secret");

	check_eq(ftruncate(fd, 1 << 16), 0);
	mapped(fd, MAP_SHARED);
	check_eq(close(fd), 0);
}

/* Its page faults are served by the program itself. */
static void registered_setup(void)
{
	uint64_t api[3] = { 0xaa }, range[4] = { 0, 1 << 16, 1 /* MISSING */ };

	fds[0] = got(syscall(SYS_userfaultfd, 1 /* UFFD_USER_MODE_ONLY */), "userfaultfd");
	mapped(-1, MAP_PRIVATE | MAP_ANONYMOUS);
	range[0] = (uintptr_t)region;
	check_eq(ioctl(fds[0], 0xc018aa3f /* UFFDIO_API */, api), 0);
	check_eq(ioctl(fds[0], 0xc020aa00 /* UFFDIO_REGISTER */, range), 0);
}

/*
 * Semaphore adjustments that one thread has and the first one has not, or that
 * nobody can find out any more.
 */
static int set = -1;
static pthread_mutex_t never = PTHREAD_MUTEX_INITIALIZER;

static void semaphore_make(void)
{
	set = semget(IPC_PRIVATE, 1, IPC_CREAT | 0666);
	if (set < 0)
		needs("System V semaphores");
}

static void *apart(void *ready)
{
	check_eq(unshare(CLONE_SYSVSEM), 0);
	check_eq(semop(set, &(struct sembuf){ .sem_op = 1, .sem_flg = SEM_UNDO }, 1), 0);
	*(volatile int *)ready = 1;
	pthread_mutex_lock(&never);
	return ready;
}

static void semaphore_apart_setup(void)
{
	volatile int ready = 0;
	pthread_t t;

	semaphore_make();
	check_eq(pthread_mutex_lock(&never), 0);
	check_eq(pthread_create(&t, NULL, apart, (void *)&ready), 0);
	while (!ready)
		usleep(1000);
}

/* In a namespace of its own, as it would hinder all who have threads. */
static void semaphore_closed_setup(void)
{
	struct { uint32_t version; int pid; } header = { 0x20080522, 0 };
	uint32_t caps[6];	/* effective, permitted, inheritable, twice */
	struct semid_ds ds;

	if (unshare(CLONE_NEWIPC))
		needs("CAP_SYS_ADMIN");
	semaphore_make();
	check_eq(semop(set, &(struct sembuf){ .sem_op = 1, .sem_flg = SEM_UNDO }, 1), 0);
	check_eq(semctl(set, 0, IPC_STAT, &ds), 0);
	ds.sem_perm.mode = 0444;	/* no longer to be altered, by its owner neither */
	check_eq(semctl(set, 0, IPC_SET, &ds), 0);
	check_eq(syscall(SYS_capget, &header, caps), 0);
	caps[0] &= ~(1u << 15);	/* CAP_IPC_OWNER */
	caps[1] &= ~(1u << 15);
	check_eq(syscall(SYS_capset, &header, caps), 0);
}

static void semaphore_verify(int cycle)
{
	check_eq(semctl(set, 0, GETVAL), 1);
	if (cycle == 3)
		check_eq(semctl(set, 0, IPC_RMID), 0);
}

static void hugetlb_setup(void)
{
	/* Shared, and in two mappings, which nobody can make again. */
	region = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (region == MAP_FAILED)
		needs("huge pages (vm.nr_hugepages)");
	check_eq(mprotect((char *)region + (2 << 20), 2 << 20, PROT_READ), 0);
	fill(region, 1 << 16, 1);
}

/*
 * A child, and memory that it shares. Neither hinders a self checkpoint, which
 * saves the calling process alone.
 */
static pid_t child_pid;
static int child_closes = -1;	/* a descriptor that the child does not keep */

static void child_start(void)
{
	pid_t parent = getpid();

	child_pid = fork();
	check(child_pid >= 0);
	if (child_pid)
		return;
	/* Nobody must wait for us if the parent is killed. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
		_exit(1);
	close(child_closes);
	for (;;)
		pause();
}

/* Still our child, and still running: a new one takes its place. */
static void child_verify(int cycle)
{
	(void)cycle;
	check_eq(waitpid(child_pid, NULL, WNOHANG), 0);
	check_eq(kill(child_pid, SIGKILL), 0);
	check_eq(waitpid(child_pid, NULL, 0), child_pid);
	child_start();
}

static void shared_verify(int cycle)
{
	mapped_verify(cycle);
	child_verify(cycle);
}

/* A terminal of which the program has both sides, and the child as well. */
static void both_sides(void)
{
	fds[0] = got(posix_openpt(O_RDWR | O_NOCTTY), "/dev/ptmx");
	check_eq(unlockpt(fds[0]), 0);
	fds[1] = got(open(ptsname(fds[0]), O_RDWR | O_NOCTTY), "/dev/pts");
}

static void pty_setup(void)
{
	both_sides();
	child_start();
}

/* A terminal of the program's own that controls its session. */
static void session_setup(void)
{
	pid_t pid = fork();

	check(pid >= 0);
	if (pid) {
		int status;

		check_eq(waitpid(pid, &status, 0), pid);
		_exit(WEXITSTATUS(status));
	}
	check(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
	check(setsid() > 0);
	both_sides();
	check_eq(ioctl(fds[1], TIOCSCTTY, 0), 0);
}

/* Output that has been stopped. */
static void stopped_setup(void)
{
	both_sides();
	check_eq(ioctl(fds[1], TCXONC, TCOOFF), 0);
}

static void stopped_verify(int cycle)
{
	struct pollfd p = { .fd = fds[1], .events = POLLOUT };

	(void)cycle;
	check_eq(poll(&p, 1, 0), 0);
}

/* A named pipe that the child has open as well. */
static void fifo_setup(void)
{
	check_eq(mkfifo(path("fifo", -1), 0600), 0);
	fds[0] = got(open(path("fifo", -1), O_RDWR), "fifo");
	child_start();
}

/* A named pipe that has no name any more. */
static void fifo_deleted_setup(void)
{
	check_eq(mkfifo(path("fifo", -1), 0600), 0);
	fds[0] = got(open(path("fifo", -1), O_RDWR), "fifo");
	check_eq(unlink(path("fifo", -1)), 0);
}

/* System V shared memory that the child has, too. */
static void sysv_setup(void)
{
	int id = shmget(IPC_PRIVATE, 1 << 16, IPC_CREAT | 0600);

	if (id < 0)
		needs("System V shared memory");
	region = shmat(id, NULL, 0);
	check_eq(shmctl(id, IPC_RMID, NULL), 0);	/* goes with the last user */
	check(region != (void *)-1);
	fill(region, 1 << 16, 1);
	child_start();
}

/* The image into a pipe that only the program itself could read. */
static void image_setup(void)
{
	check_eq(pipe(fds), 0);
}

static int image_point(int cycle)
{
	char c;

	(void)cycle;
	check_eq(syscall(__NR_checkpoint, getpid(), fds[1], 0UL), -1);
	check_eq(errno, EBADF);
	check_eq(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
	check_eq(read(fds[0], &c, 1), -1);
	check_eq(errno, EAGAIN);
	return 0;
}

/* A file in memory that the child has mapped, and not open. */
static void memfd_setup(void)
{
	fds[0] = got(syscall(SYS_memfd_create, "memfd", 0), "memfd_create");
	check_eq(ftruncate(fds[0], 1 << 16), 0);
	mapped(fds[0], MAP_SHARED);
	child_closes = fds[0];
	child_start();
	check_eq(munmap(region, 1 << 16), 0);
}

/* A counter that the child has, too. */
static void eventfd_setup(void)
{
	fds[0] = got(eventfd(7, 0), "eventfd");
	child_start();
}

static void eventfd_verify(int cycle)
{
	uint64_t n;

	check_eq(read(fds[0], &n, 8), 8);
	check_eq(n, 7);
	check_eq(write(fds[0], &n, 8), 8);
	child_verify(cycle);
}

/* A pipe of which the child has both ends, too. */
static void pipe_setup(void)
{
	check_eq(pipe(fds), 0);
	check_eq(write(fds[1], "abc", 3), 3);
	child_start();
}

static void pipe_verify(int cycle)
{
	char buf[8];

	check_eq(read(fds[0], buf, sizeof(buf)), 3);
	check_eq(write(fds[1], "abc", 3), 3);
	child_verify(cycle);
}

/* ---- tasks, signals, timers ---- */

static char thread_stack[64 << 10] __attribute__((aligned(16)));
static int thread_tid;

/* A thread by clone(2) alone: it sleeps in pause(2) and never returns. */
static void thread_setup(void)
{
	long tid;
	register long r10 __asm__("r10") = 0;
	register long r8 __asm__("r8") = 0;

	__asm__ volatile(
		"syscall\n\t"
		"test %%rax, %%rax\n\t"
		"jnz 1f\n"
		"2:	mov %4, %%eax\n\t"
		"syscall\n\t"
		"jmp 2b\n"
		"1:"
		: "=a"(tid)
		: "0"((long)SYS_clone),
		  /* VM FS SIGHAND THREAD SYSVSEM, and no FILES: a descriptor table of its own */
		  "D"(0x00000100 | 0x200 | 0x800 | 0x10000 | 0x40000),
		  "S"(thread_stack + sizeof(thread_stack)), "i"(SYS_pause),
		  "d"(0L), "r"(r10), "r"(r8)
		: "rcx", "r11", "memory");
	check(tid > 0);
	thread_tid = (int)tid;
}

static void thread_verify(int cycle)
{
	(void)cycle;
	check_eq(syscall(SYS_tgkill, getpid(), thread_tid, 0), 0);
}

/* A timer on the CPU clock of another process. */
static void posix_timer_setup(void)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2 };
	int id;

	check_eq(syscall(SYS_timer_create, (~(clockid_t)getppid() << 3) | 2, &event, &id), 0);
}

/* A directory that was removed under the program's feet. */
static void cwd_setup(void)
{
	check_eq(mkdir(path("gone", -1), 0700), 0);
	check_eq(chdir(path("gone", -1)), 0);
	check_eq(rmdir(path("gone", -1)), 0);
}

static void aio_setup(void)
{
	unsigned long context = 0;

	if (syscall(SYS_io_setup, 4, &context))
		needs("asynchronous I/O");
}

/* ---- unix sockets ---- */

/* The other end is the child's. */
static void socket_setup(void)
{
	check_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	child_closes = fds[0];
	child_start();
	check_eq(close(fds[1]), 0);
	check_eq(write(fds[0], "abc", 3), 3);
}

/* Both ends are the child's, too. */
static void socket_shared_setup(void)
{
	check_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	child_start();
}

static void socket_verify(int cycle)
{
	(void)cycle;
	check_eq(waitpid(child_pid, NULL, WNOHANG), 0);
	check_eq(write(fds[0], "abc", 3), 3);
}

static socklen_t unix_name(struct sockaddr_un *name, const char *file)
{
	memset(name, 0, sizeof(*name));
	name->sun_family = AF_UNIX;
	snprintf(name->sun_path, sizeof(name->sun_path), "%s", path(file, -1));
	return sizeof(*name);
}

static void unix_urgent_setup(void)
{
	check_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	check_eq(write(fds[0], "abc", 3), 3);
	if (send(fds[0], "!", 1, MSG_OOB) != 1)
		needs("urgent data of unix sockets");
}

static void unix_urgent_verify(int cycle)
{
	char c;

	(void)cycle;
	check_eq(recv(fds[1], &c, 1, MSG_OOB | MSG_PEEK), 1);
	check_eq(c, '!');
}

/* A datagram from a name that nobody has any more. */
static void unix_sender_setup(void)
{
	struct sockaddr_un name;
	socklen_t len = unix_name(&name, "receiver");

	fds[0] = got(socket(AF_UNIX, SOCK_DGRAM, 0), "socket");
	check_eq(bind(fds[0], (void *)&name, len), 0);
	fds[1] = got(socket(AF_UNIX, SOCK_DGRAM, 0), "socket");
	check_eq(connect(fds[1], (void *)&name, len), 0);
	len = unix_name(&name, "sender");
	check_eq(bind(fds[1], (void *)&name, len), 0);
	check_eq(send(fds[1], "abc", 3, 0), 3);
	check_eq(close(fds[1]), 0);
}

static void unix_sender_verify(int cycle)
{
	char buf[8];

	(void)cycle;
	check_eq(recv(fds[0], buf, sizeof(buf), MSG_PEEK), 3);
}

/* A message with the credentials of another process, which is gone. */
static void unix_creds_setup(void)
{
	int on = 1;
	pid_t child;

	check_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds), 0);
	check_eq(setsockopt(fds[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
	child = fork();
	check(child >= 0);
	if (!child)
		_exit(write(fds[0], "abc", 3) != 3);
	check_eq(waitpid(child, NULL, 0), child);
}

static void unix_creds_verify(int cycle)
{
	char buf[8];

	(void)cycle;
	check_eq(recv(fds[1], buf, sizeof(buf), MSG_PEEK), 3);
}

/* Empty datagrams behind another one, which no peek shows a second time. */
static void unix_empty_setup(void)
{
	int at = 0;
	char c;

	check_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds), 0);
	check_eq(send(fds[0], "a", 1, 0), 1);
	check_eq(send(fds[0], "", 0, 0), 0);
	check_eq(setsockopt(fds[1], SOL_SOCKET, 42 /* SO_PEEK_OFF */, &at, sizeof(at)), 0);
	check_eq(recv(fds[1], &c, 1, MSG_PEEK), 1);
	check_eq(recv(fds[1], &c, 1, MSG_PEEK), 0);
	at = -1;
	check_eq(setsockopt(fds[1], SOL_SOCKET, 42, &at, sizeof(at)), 0);
}

static void unix_empty_verify(int cycle)
{
	char c;

	if (cycle < 3)
		return;
	check_eq(recv(fds[1], &c, 1, 0), 1);
	check_eq(recv(fds[1], &c, 1, MSG_DONTWAIT), 0);
}

/* A message that carries what is refused itself. */
static void unix_rights_setup(void)
{
	int inner = got(epoll_create1(0), "epoll");
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { "abc", 3 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	check_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &inner, sizeof(int));
	check_eq(sendmsg(fds[0], &msg, 0), 3);
	check_eq(close(inner), 0);
}

/* A connection that is written to before anybody has accepted it. */
static void unix_backlog_setup(void)
{
	struct sockaddr_un name;
	socklen_t len = unix_name(&name, "listening");

	fds[0] = got(socket(AF_UNIX, SOCK_STREAM, 0), "socket");
	check_eq(bind(fds[0], (void *)&name, len), 0);
	check_eq(listen(fds[0], 3), 0);
	fds[1] = got(socket(AF_UNIX, SOCK_STREAM, 0), "socket");
	check_eq(connect(fds[1], (void *)&name, len), 0);
	check_eq(write(fds[1], "abc", 3), 3);
}

static void unix_backlog_verify(int cycle)
{
	char buf[8];
	int fd;

	if (cycle < 3)
		return;
	fd = accept(fds[0], NULL, NULL);
	check(fd >= 0);
	check_eq(read(fd, buf, sizeof(buf)), 3);
}

/* Connected to a socket without a name that is connected elsewhere by now. */
static void unix_oneway_setup(void)
{
	struct sockaddr_un name;
	socklen_t len = unix_name(&name, "third");

	check_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds), 0);
	child_closes = got(socket(AF_UNIX, SOCK_DGRAM, 0), "socket");
	check_eq(bind(child_closes, (void *)&name, len), 0);
	check_eq(connect(fds[1], (void *)&name, len), 0);
}

/* The same, and what was sent is lost, which is yet to be reported. */
static void unix_error_setup(void)
{
	struct sockaddr_un name;
	socklen_t len = unix_name(&name, "third");

	check_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds), 0);
	check_eq(write(fds[0], "abc", 3), 3);
	child_closes = got(socket(AF_UNIX, SOCK_DGRAM, 0), "socket");
	check_eq(bind(child_closes, (void *)&name, len), 0);
	check_eq(connect(fds[1], (void *)&name, len), 0);
	check_eq(close(fds[1]), 0);
}

static void unix_error_verify(int cycle)
{
	socklen_t size = sizeof(int);
	int error;

	if (cycle < 3)
		return;
	check_eq(getsockopt(fds[0], SOL_SOCKET, SO_ERROR, &error, &size), 0);
	check_eq(error, ECONNRESET);
}

static void unix_renamed_setup(void)
{
	struct sockaddr_un name;
	socklen_t len = unix_name(&name, "before");

	fds[0] = got(socket(AF_UNIX, SOCK_STREAM, 0), "socket");
	check_eq(bind(fds[0], (void *)&name, len), 0);
	check_eq(listen(fds[0], 3), 0);
	check_eq(rename(path("before", -1), path("after", -1)), 0);
}

/* Made in a network namespace that the program has left. */
static void unix_left_setup(void)
{
	check_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	if (unshare(CLONE_NEWNET))
		needs("network namespaces");
}

static void unix_filter_setup(void)
{
	struct { uint16_t code; uint8_t jt, jf; uint32_t k; } all = { 6, 0, 0, ~0u };
	struct { uint16_t len; void *filter; } filter = { 1, &all };

	check_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds), 0);
	check_eq(setsockopt(fds[0], SOL_SOCKET, 26 /* SO_ATTACH_FILTER */, &filter, sizeof(filter)), 0);
}

/* Its address space is full: no room for the calls that save it. */
static void space_setup(void)
{
	struct rlimit space;
	long pages;
	FILE *f = fopen("/proc/self/statm", "r");

	check(f && fscanf(f, "%ld", &pages) == 1);
	check_eq(fclose(f), 0);
	check_eq(getrlimit(RLIMIT_AS, &space), 0);
	space.rlim_cur = (rlim_t)pages * 4096 + (900 << 10);
	check_eq(setrlimit(RLIMIT_AS, &space), 0);
}

#define REFUSE(name, flags, setup, verify, errno_) \
	{ name, (flags) | REFUSED, setup, verify, NULL, errno_ }

/*
 * A sandbox: without it the program would come back with more rights. root's
 * can be saved, unless it leaves a decision to a listener.
 */
static void sandbox_setup(void)
{
	struct { uint16_t code; uint8_t jt, jf; uint32_t k; } code[] = {
		{ 0x20, 0, 0, 0 }, { 0x15, 0, 1, SYS_getppid }, { 6, 0, 0, 0x7fc00000 }, { 6, 0, 0, 0x7fff0000 },
	};
	struct { uint16_t len; void *filter; } program = { 4, code };

	check_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	check_eq(syscall(SYS_seccomp, 1, 0, &program), 0);
}

/* It goes on as a child of itself, and traces the parent, which is of no tree of its own. */
static void traces_setup(void)
{
	pid_t parent = getpid(), pid = fork();
	int status;

	check(pid >= 0);
	if (pid) {
		check_eq(waitpid(pid, &status, 0), pid);
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 96);
	}
	check_eq(prctl(PR_SET_PDEATHSIG, SIGKILL), 0);
	check_eq(getppid(), parent);
	if (ptrace(PTRACE_SEIZE, parent, NULL, NULL))
		needs("permission to trace a parent");
}

/* A thread in a network namespace of its own. */
static void *hermit(void *ready)
{
	*(volatile int *)ready = unshare(CLONE_NEWNET) ? -1 : 1;
	for (;;)
		pause();
	return NULL;
}

static void hermit_setup(void)
{
	volatile int ready = 0;
	pthread_t t;

	check_eq(pthread_create(&t, NULL, hermit, (void *)&ready), 0);
	while (!ready)
		usleep(1000);
	if (ready < 0)
		needs("network namespaces");
}

/* Its children will be in another pid namespace. */
static void ahead_setup(void)
{
	if (unshare(CLONE_NEWPID))
		needs("pid namespaces");
}

SCENARIOS(
	REFUSE("pipe", SELF, pipe_setup, pipe_verify, EBADF),
	{ "pipe-image", SELF | REFUSED, image_setup, NULL, image_point, EBADF },
	REFUSE("fifo", SELF, fifo_setup, child_verify, EBADF),
	REFUSE("fifo-deleted", BOTH, fifo_deleted_setup, NULL, EBADF),
	REFUSE("socket", SELF, socket_setup, socket_verify, EBADF),
	REFUSE("socket-shared", SELF, socket_shared_setup, socket_verify, EOPNOTSUPP),
	REFUSE("unix-urgent", BOTH, unix_urgent_setup, unix_urgent_verify, EOPNOTSUPP),
	REFUSE("unix-sender", BOTH, unix_sender_setup, unix_sender_verify, EOPNOTSUPP),
	REFUSE("unix-creds", BOTH, unix_creds_setup, unix_creds_verify, EOPNOTSUPP),
	REFUSE("unix-empty", BOTH, unix_empty_setup, unix_empty_verify, EOPNOTSUPP),
	REFUSE("unix-rights", BOTH, unix_rights_setup, NULL, EOPNOTSUPP),
	REFUSE("unix-backlog", BOTH, unix_backlog_setup, unix_backlog_verify, EOPNOTSUPP),
	REFUSE("unix-oneway", BOTH, unix_oneway_setup, NULL, EOPNOTSUPP),
	REFUSE("unix-error", BOTH, unix_error_setup, unix_error_verify, EOPNOTSUPP),
	REFUSE("unix-renamed", BOTH, unix_renamed_setup, NULL, EOPNOTSUPP),
	REFUSE("unix-left", BOTH | ROOT, unix_left_setup, NULL, EOPNOTSUPP),
	REFUSE("unix-filter", BOTH, unix_filter_setup, NULL, EOPNOTSUPP),
	REFUSE("mptcp", BOTH, mptcp_setup, NULL, EOPNOTSUPP),
	REFUSE("packet", BOTH, packet_setup, NULL, EOPNOTSUPP),
	REFUSE("raw", BOTH, raw_setup, NULL, EOPNOTSUPP),
	REFUSE("netlink", BOTH, netlink_setup, netlink_verify, EOPNOTSUPP),
	REFUSE("address-space", BOTH, space_setup, NULL, ENOMEM),
	REFUSE("sandbox", BOTH, sandbox_setup, NULL, EOPNOTSUPP),
	REFUSE("netfilter", BOTH, netfilter_setup, NULL, EOPNOTSUPP),
	REFUSE("cork", BOTH, cork_setup, NULL, EOPNOTSUPP),
	REFUSE("filter", BOTH, filter_setup, NULL, EOPNOTSUPP),
	REFUSE("urgent", BOTH, urgent_setup, urgent_verify, EOPNOTSUPP),
	REFUSE("epoll", BOTH, epoll_setup, NULL, EOPNOTSUPP),
	REFUSE("eventfd", SELF, eventfd_setup, eventfd_verify, EOPNOTSUPP),
	REFUSE("inotify", BOTH, inotify_setup, inotify_verify, EOPNOTSUPP),
	REFUSE("inotify-deleted", BOTH, inotify_deleted_setup, NULL, EOPNOTSUPP),
	REFUSE("pidfd", BOTH, pidfd_setup, NULL, EOPNOTSUPP),
	REFUSE("userfaultfd", BOTH, userfaultfd_setup, NULL, EOPNOTSUPP),
	REFUSE("io-uring", BOTH, io_uring_setup, NULL, EOPNOTSUPP),
	REFUSE("fanotify", BOTH, fanotify_setup, NULL, EOPNOTSUPP),
	REFUSE("perf", BOTH, perf_setup, NULL, EOPNOTSUPP),
	REFUSE("bpf", BOTH | ROOT, bpf_setup, NULL, EOPNOTSUPP),
	REFUSE("secret-fd", BOTH, secret_fd_setup, NULL, EOPNOTSUPP),
	REFUSE("landlock", BOTH, landlock_setup, NULL, EOPNOTSUPP),
	REFUSE("listener", EXTERNAL, listener_setup, NULL, EOPNOTSUPP),
	REFUSE("memfd", SELF, memfd_setup, NULL, EOPNOTSUPP),
	REFUSE("terminal", BOTH, terminal_setup, NULL, EBADF),
	REFUSE("terminal-shared", SELF, pty_setup, child_verify, EBADF),
	REFUSE("terminal-session", BOTH, session_setup, NULL, EBADF),
	REFUSE("terminal-stopped", BOTH, stopped_setup, stopped_verify, EBADF),
	REFUSE("linked", BOTH, linked_setup, linked_verify, EBADF),
	REFUSE("unreadable", BOTH, unreadable_setup, NULL, EBADF),
	REFUSE("directory", BOTH, directory_setup, NULL, EBADF),
	REFUSE("proc", BOTH, proc_setup, NULL, EOPNOTSUPP),
	REFUSE("pressure", BOTH, pressure_setup, NULL, EOPNOTSUPP),
	REFUSE("locks", BOTH, locks_setup, NULL, EOPNOTSUPP),
	REFUSE("owner", BOTH, owner_setup, NULL, EOPNOTSUPP),
	REFUSE("lease", BOTH, lease_setup, NULL, EOPNOTSUPP),
	REFUSE("secret", BOTH, secret_setup, mapped_verify, EOPNOTSUPP),
	REFUSE("registered", BOTH, registered_setup, mapped_verify, EOPNOTSUPP),
	REFUSE("semaphore-apart", BOTH, semaphore_apart_setup, semaphore_verify, EOPNOTSUPP),
	REFUSE("semaphore-closed", BOTH | ROOT, semaphore_closed_setup, semaphore_verify, EOPNOTSUPP),
	REFUSE("hugetlb", BOTH, hugetlb_setup, mapped_verify, ENOSYS),
	REFUSE("sysv", SELF, sysv_setup, shared_verify, EOPNOTSUPP),
	REFUSE("thread-apart", BOTH, thread_setup, thread_verify, EOPNOTSUPP),
	REFUSE("posix-timer", BOTH, posix_timer_setup, NULL, EOPNOTSUPP),
	REFUSE("cwd", BOTH, cwd_setup, NULL, EBADF),
	REFUSE("aio", BOTH, aio_setup, NULL, EOPNOTSUPP),
	REFUSE("traces", BOTH, traces_setup, NULL, EOPNOTSUPP),
	REFUSE("thread-namespace", BOTH | ROOT, hermit_setup, NULL, EOPNOTSUPP),
	REFUSE("child-namespace", BOTH | ROOT, ahead_setup, NULL, EOPNOTSUPP),
)
