/*
 * identity.c - what a process is called and where it lives: cwd, root, umask,
 * names, personality and the settings of prctl(2).
 */
#include "scenario.h"

#include <sys/personality.h>

static void cwd_setup(void)
{
	check_eq(mkdir(path("a dir", -1), 0700), 0);
	check_eq(chdir(path("a dir", -1)), 0);
	umask(027);
}

static void cwd_verify(int cycle)
{
	struct stat st;
	char name[16];
	int fd;

	snprintf(name, sizeof(name), "made.%d", cycle);
	fd = open(name, O_WRONLY | O_CREAT, 0666);
	check(fd >= 0);
	check_eq(close(fd), 0);
	check_eq(lstat(path("a dir/made", cycle), &st), 0);
	check_eq(st.st_mode & 0777, 0640);
	check_eq(umask(027), 027);
}

/* DIR becomes /; there is no /proc in it, so the frame compares nothing. */
static void chroot_setup(void)
{
	if (chroot(scenario_dir) || chdir("/"))
		needs("CAP_SYS_CHROOT");
	scenario_dir = "";
}

static void chroot_verify(int cycle)
{
	struct stat a, b;

	(void)cycle;
	check_eq(stat("/", &a), 0);
	check_eq(stat("/..", &b), 0);
	check_eq(a.st_ino, b.st_ino);
	check_eq(stat(".", &b), 0);
	check_eq(a.st_ino, b.st_ino);
	check_eq(access("/proc/self", F_OK), -1);
	check_eq(access("/pid", F_OK), -1);
}

static void personality_setup(void)
{
	check(personality(ADDR_NO_RANDOMIZE | READ_IMPLIES_EXEC | UNAME26) >= 0);
}

static void personality_verify(int cycle)
{
	(void)cycle;
	check_eq(personality(0xffffffff), ADDR_NO_RANDOMIZE | READ_IMPLIES_EXEC | UNAME26);
}

/* prctl(2) settings that belong to the process or thread. */
static void prctl_setup(void)
{
	check_eq(prctl(PR_SET_NAME, "odd ) name\n"), 0);
	check_eq(prctl(PR_SET_PDEATHSIG, SIGUSR2), 0);
	check_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	signal(SIGUSR2, SIG_IGN);
	check_eq(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	check_eq(prctl(PR_SET_TIMERSLACK, 123456, 0, 0, 0), 0);
}

static void prctl_verify(int cycle)
{
	char name[16];
	int sig;

	(void)cycle;
	check_eq(prctl(PR_GET_NAME, name), 0);
	check_eq(strcmp(name, "odd ) name\n"), 0);
	check_eq(prctl(PR_GET_PDEATHSIG, &sig), 0);
	check_eq(sig, SIGUSR2);
	check_eq(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
	check_eq(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 1);
	check_eq(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0), 123456);
}

/* Not dumpable: nobody but root can look at it, and it cannot be changed. */
static void dumpable_setup(void)
{
	check_eq(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), 0);
}

static void dumpable_verify(int cycle)
{
	(void)cycle;
	check_eq(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 0);
}

/* A program that wrote over its own arguments, as setproctitle does. */
static void title_setup(void)
{
	char *p = (char *)(uintptr_t)scenario_argv[0];

	memset(p, 'T', strlen(p));
	check_eq(setenv("ADDED", "later", 1), 0);
}

static void title_verify(int cycle)
{
	char text[8] = "";
	int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);

	(void)cycle;
	check(fd >= 0);
	check_eq(read(fd, text, 4), 4);
	check_eq(close(fd), 0);
	check_eq(strcmp(text, "TTTT"), 0);
	check_eq(strcmp(getenv("ADDED"), "later"), 0);
}

/* The pid it asks for is the one it has, whatever it was before. */
static void pid_verify(int cycle)
{
	char text[32], link[32] = "";

	(void)cycle;
	snprintf(text, sizeof(text), "%d", (int)syscall(SYS_getpid));
	check(readlink("/proc/self", link, sizeof(link) - 1) > 0);
	check_eq(strcmp(text, link), 0);
	check_eq(syscall(SYS_gettid), syscall(SYS_getpid));
	check_eq(kill(getpid(), 0), 0);
}

SCENARIOS(
	{ "cwd", BOTH, cwd_setup, cwd_verify, NULL, 0 },
	{ "chroot", BOTH | ROOT | BARE, chroot_setup, chroot_verify, NULL, 0 },
	{ "personality", BOTH, personality_setup, personality_verify, NULL, 0 },
	{ "prctl", BOTH, prctl_setup, prctl_verify, NULL, 0 },
	{ "dumpable", BOTH | ROOT, dumpable_setup, dumpable_verify, NULL, 0 },
	{ "title", BOTH, title_setup, title_verify, NULL, 0 },
	{ "pid", SELF | EXTERNAL, NULL, pid_verify, NULL, 0 },
)
