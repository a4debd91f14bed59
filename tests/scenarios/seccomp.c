/*
 * seccomp.c - a program that has confined itself: filters, one above the other
 * and different from thread to thread, and strict mode.
 */
#include "scenario.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

/* As in <linux/filter.h>, <linux/seccomp.h>. */
struct insn { uint16_t code; uint8_t jt, jf; uint32_t k; };
struct program { uint16_t len; struct insn *code; };

enum {
	LOAD = 0x20, JEQ = 0x15, RET = 0x06, /* BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K */
	ALLOW = 0x7fff0000, ERRNO = 0x00050000, TRAP = 0x00030000, KILL = 0,
	TSYNC = 1, LOG = 2,
};

static void load(struct insn *code, size_t n, unsigned flags)
{
	struct program program = { (uint16_t)n, code };

	check_eq(syscall(SYS_seccomp, 1, flags, &program), 0);
}

/* forbid loads a filter that answers one call so. */
static void forbid(int nr, uint32_t answer, unsigned flags)
{
	struct insn code[] = {
		{ LOAD, 0, 0, 0 /* nr */ },
		{ JEQ, 0, 1, (uint32_t)nr },
		{ RET, 0, 0, answer },
		{ RET, 0, 0, ALLOW },
	};

	load(code, 4, flags);
}

static void answers(int nr, int error)
{
	errno = 0;
	check_eq(syscall(nr, -1, -1, -1, -1, -1, -1), -1);
	check_eq(errno, error);
}

/* status returns a number of the calling thread's status file. */
static int status(const char *field)
{
	char text[8192], *at;
	int fd = open("/proc/thread-self/status", O_RDONLY | O_CLOEXEC);
	ssize_t n;

	check(fd >= 0);
	n = read(fd, text, sizeof(text) - 1);
	check(n > 0);
	text[n] = 0;
	check_eq(close(fd), 0);
	at = strstr(text, field);
	if (!at)
		needs("%s in /proc/PID/status", field);
	return atoi(at + strlen(field));
}

static int filters;

static void no_new_privs(void)
{
	filters = status("Seccomp_filters:");
	check_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
}

/* ---- one, and two of which the newer one decides where both speak ---- */

static void errno_setup(void)
{
	no_new_privs();
	forbid(SYS_getppid, ERRNO | 71, 0);
}

static void errno_verify(int cycle)
{
	(void)cycle;
	answers(SYS_getppid, 71);
	check_eq(status("Seccomp_filters:"), filters + 1);
	check_eq(status("Seccomp:"), 2);
}

static void stacked_setup(void)
{
	no_new_privs();
	forbid(SYS_getppid, ERRNO | 71, 0);
	forbid(SYS_getpgid, ERRNO | 73, LOG);
	forbid(SYS_getppid, ERRNO | 72, 0);
	/* What rebuilding takes; the process itself goes on without it. */
	forbid(SYS_munmap, ERRNO | 74, 0);
	forbid(SYS_prctl, ERRNO | 75, 0);
	forbid(SYS_mremap, KILL, 0);
	forbid(SYS_tgkill, KILL, 0);
	forbid(SYS_process_vm_writev, KILL, 0);
	forbid(SYS_kcmp, KILL, 0);
}

static void stacked_verify(int cycle)
{
	(void)cycle;
	answers(SYS_getppid, 72);
	answers(SYS_getpgid, 73);
	answers(SYS_munmap, 74);
	answers(SYS_prctl, 75);
	check_eq(status("Seccomp_filters:"), filters + 9);
}

/* ---- as long as one can be: 4096 instructions ---- */

static void long_setup(void)
{
	static struct insn code[4096];
	int n = 0;

	no_new_privs();
	code[n++] = (struct insn){ LOAD, 0, 0, 0 };
	while (n < 4092)
		code[n++] = (struct insn){ JEQ, 0, 0, (uint32_t)n };
	code[n++] = (struct insn){ JEQ, 0, 1, SYS_getppid };
	code[n++] = (struct insn){ RET, 0, 0, ERRNO | 76 };
	code[n++] = (struct insn){ RET, 0, 0, ALLOW };
	code[n++] = (struct insn){ RET, 0, 0, ALLOW };
	load(code, (size_t)n, 0);
}

static void long_verify(int cycle)
{
	(void)cycle;
	answers(SYS_getppid, 76);
}

/* ---- SIGSYS ---- */

static volatile sig_atomic_t trapped;

static void on_sigsys(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	trapped = info->si_syscall;
}

static void trap_setup(void)
{
	struct sigaction sa = { .sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO };

	no_new_privs();
	check_eq(sigaction(SIGSYS, &sa, NULL), 0);
	forbid(SYS_getppid, TRAP, 0);
}

static void trap_verify(int cycle)
{
	(void)cycle;
	trapped = 0;
	syscall(SYS_getppid);
	check_eq(trapped, SYS_getppid);
}

/* ---- without no_new_privs: then it takes CAP_SYS_ADMIN, which it gives up ---- */

static void privileged_setup(void)
{
	filters = status("Seccomp_filters:");
	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0))
		needs("no no_new_privs");
	forbid(SYS_getppid, ERRNO | 71, 0);
	check_eq(chmod(scenario_dir, 0777), 0);
	check_eq(setresgid(65534, 65534, 65534), 0);
	check_eq(setresuid(65534, 65534, 65534), 0);
	check_eq(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
}

static void privileged_verify(int cycle)
{
	errno_verify(cycle);
	check_eq(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
	check_eq(getuid(), 65534);
}

/* ---- threads ---- */

enum { THREADS = 3 };

static struct worker {
	pthread_t handle;
	int n;
	atomic_int asked, answered, found, count;
} workers[THREADS];

/* Each forbids one call more than the ones before it. */
static void *work(void *arg)
{
	struct worker *w = arg;

	for (int i = 0; i < w->n; i++)
		forbid(SYS_getpgid, ERRNO | (uint32_t)(81 + i), 0);
	w->answered = 1;
	for (;;) {
		while (w->asked <= w->answered)
			usleep(200);
		errno = 0;
		syscall(SYS_getpgid, -1);
		w->found = errno;
		w->count = status("Seccomp_filters:");
		w->answered++;
	}
	return NULL;
}

static void ask(struct worker *w)
{
	w->asked = w->answered + 1;
	while (w->answered < w->asked)
		usleep(200);
}

static void threads_setup(void)
{
	no_new_privs();
	forbid(SYS_getppid, ERRNO | 71, 0);
	for (int i = 0; i < THREADS; i++) {
		workers[i].n = i;
		check_eq(pthread_create(&workers[i].handle, NULL, work, &workers[i]), 0);
		while (!workers[i].answered)
			usleep(200);
	}
}

static void threads_verify(int cycle)
{
	(void)cycle;
	answers(SYS_getppid, 71);
	check_eq(status("Seccomp_filters:"), filters + 1);
	for (int i = 0; i < THREADS; i++) {
		ask(&workers[i]);
		check_eq(workers[i].found, i ? 80 + i : ESRCH);
		check_eq(workers[i].count, filters + 1 + i);
	}
}

/* All have the same one: handing on another takes that it is one and the same. */
static void sync_setup(void)
{
	no_new_privs();
	forbid(SYS_getppid, ERRNO | 71, 0);
	for (int i = 0; i < THREADS; i++) {
		check_eq(pthread_create(&workers[i].handle, NULL, work, &workers[i]), 0);
		while (!workers[i].answered)
			usleep(200);
	}
}

static void sync_verify(int cycle)
{
	/* Of the original, and once more of each restored process. */
	forbid(SYS_getpgid, ERRNO | (uint32_t)(90 + cycle), TSYNC);
	answers(SYS_getppid, 71);
	for (int i = 0; i < THREADS; i++) {
		ask(&workers[i]);
		check_eq(workers[i].found, 90 + cycle);
		check_eq(workers[i].count, status("Seccomp_filters:"));
	}
}

/* ---- strict mode, of a thread that adds one to each byte ---- */

static int to[2], from[2];

static void *strict(void *arg)
{
	char c;

	if (syscall(SYS_seccomp, 0, 0, NULL)) {
		c = 'x';
		check_eq(write(from[1], &c, 1), 1);
		return arg;
	}
	c = 'o';
	for (;;) {
		syscall(SYS_write, from[1], &c, 1);
		if (syscall(SYS_read, to[0], &c, 1) != 1)
			syscall(SYS_exit, 0);
		c++;
	}
}

static void strict_setup(void)
{
	pthread_t t;
	char c;

	check_eq(pipe(to), 0);
	check_eq(pipe(from), 0);
	check_eq(pthread_create(&t, NULL, strict, NULL), 0);
	check_eq(read(from[0], &c, 1), 1);
	if (c != 'o')
		needs("no filter around the program");
}

static void strict_verify(int cycle)
{
	char c = (char)(cycle * 10);

	check_eq(write(to[1], &c, 1), 1);
	check_eq(read(from[0], &c, 1), 1);
	check_eq(c, cycle * 10 + 1);
}

SCENARIOS(
	{ "errno", BOTH | ROOT | CALL, errno_setup, errno_verify, NULL, 0 },
	{ "stacked", BOTH | ROOT | CALL, stacked_setup, stacked_verify, NULL, 0 },
	{ "long", BOTH | ROOT | CALL, long_setup, long_verify, NULL, 0 },
	{ "trap", BOTH | ROOT | CALL, trap_setup, trap_verify, NULL, 0 },
	{ "privileged", EXTERNAL | ROOT, privileged_setup, privileged_verify, NULL, 0 },
	{ "threads", BOTH | ROOT | CALL, threads_setup, threads_verify, NULL, 0 },
	{ "sync", BOTH | ROOT | CALL, sync_setup, sync_verify, NULL, 0 },
	{ "strict", EXTERNAL | ROOT, strict_setup, strict_verify, NULL, 0 },
)
