/*
 * creds.c - who a process is: user and group ids, capabilities, securebits.
 * Those of one thread are not those of another.
 */
#include "scenario.h"

#include <grp.h>
#include <pthread.h>
#include <sys/fsuid.h>

/* capget(2) and its like have no header that musl-gcc finds. */
struct cap_header { uint32_t version; int pid; };
struct cap_data { uint32_t effective, permitted, inheritable; };

enum {
	CAP_CHOWN = 0, CAP_KILL = 5, CAP_SETPCAP = 8, CAP_NET_BIND_SERVICE = 10,
	CAP_NET_RAW = 13, CAP_SYS_CHROOT = 18, CAP_SYS_TIME = 25,
	CAP_COUNT = 41,
};

enum {
	NOROOT = 1 << 0, NO_SETUID_FIXUP = 1 << 2, NO_SETUID_FIXUP_LOCKED = 1 << 3,
	KEEP_CAPS = 1 << 4, NO_AMBIENT_RAISE = 1 << 6,
};

#define BIT(n) (1ULL << (n))

struct caps { unsigned long long effective, permitted, inheritable, bounding, ambient; };

/* What a thread is, asked of the kernel by the thread itself. */
struct creds {
	uid_t uid[4];
	gid_t gid[4];
	int ngroups;
	gid_t groups[64];
	struct caps caps;
	int secure;
};

static void ask(struct creds *c)
{
	struct cap_header h = { 0x20080522, 0 };
	struct cap_data d[2];

	memset(c, 0, sizeof(*c));
	check_eq(syscall(SYS_getresuid, &c->uid[0], &c->uid[1], &c->uid[2]), 0);
	check_eq(syscall(SYS_getresgid, &c->gid[0], &c->gid[1], &c->gid[2]), 0);
	c->uid[3] = (uid_t)syscall(SYS_setfsuid, -1);
	c->gid[3] = (gid_t)syscall(SYS_setfsgid, -1);
	c->ngroups = (int)syscall(SYS_getgroups, 64, c->groups);
	check(c->ngroups >= 0);
	check_eq(syscall(SYS_capget, &h, d), 0);
	c->caps.effective = d[0].effective | (unsigned long long)d[1].effective << 32;
	c->caps.permitted = d[0].permitted | (unsigned long long)d[1].permitted << 32;
	c->caps.inheritable = d[0].inheritable | (unsigned long long)d[1].inheritable << 32;
	for (int i = 0; i < CAP_COUNT; i++) {
		if (prctl(PR_CAPBSET_READ, i, 0, 0, 0) == 1)
			c->caps.bounding |= BIT(i);
		if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, i, 0, 0) == 1)
			c->caps.ambient |= BIT(i);
	}
	c->secure = prctl(PR_GET_SECUREBITS, 0, 0, 0, 0);
	check(c->secure >= 0);
}

static struct creds before;

static void unchanged(const struct creds *was)
{
	struct creds now;

	ask(&now);
	for (int i = 0; i < 4; i++) {
		check_eq(now.uid[i], was->uid[i]);
		check_eq(now.gid[i], was->gid[i]);
	}
	check_eq(now.ngroups, was->ngroups);
	check_eq(memcmp(now.groups, was->groups, sizeof(now.groups)), 0);
	check_eq(now.caps.effective, was->caps.effective);
	check_eq(now.caps.permitted, was->caps.permitted);
	check_eq(now.caps.inheritable, was->caps.inheritable);
	check_eq(now.caps.bounding, was->caps.bounding);
	check_eq(now.caps.ambient, was->caps.ambient);
	check_eq(now.secure, was->secure);
}

static void verify(int cycle)
{
	(void)cycle;
	unchanged(&before);
}

/* open_up lets whoever the program becomes write in DIR, and be looked at. */
static void open_up(void) { check_eq(chmod(scenario_dir, 0777), 0); }

static void become(uid_t r, uid_t e, uid_t s)
{
	check_eq(syscall(SYS_setresuid, r, e, s), 0);
	check_eq(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
	ask(&before);
}

static void set_caps(unsigned long long e, unsigned long long p, unsigned long long i)
{
	struct cap_header h = { 0x20080522, 0 };
	struct cap_data d[2] = {
		{ (uint32_t)e, (uint32_t)p, (uint32_t)i },
		{ (uint32_t)(e >> 32), (uint32_t)(p >> 32), (uint32_t)(i >> 32) },
	};

	check_eq(syscall(SYS_capset, &h, d), 0);
}

/* A daemon that has dropped its privileges for good. */
static void daemon_setup(void)
{
	gid_t groups[] = { 1005, 5, 27 };

	open_up();
	check_eq(syscall(SYS_setgroups, 3, groups), 0);
	check_eq(syscall(SYS_setresgid, 1001, 1001, 1001), 0);
	become(2001, 2001, 2001);
	check_eq(before.caps.permitted, 0);
	signal(SIGUSR2, SIG_IGN);
	check_eq(prctl(PR_SET_PDEATHSIG, SIGUSR2), 0);
}

static void daemon_verify(int cycle)
{
	int sig;

	verify(cycle);
	check_eq(prctl(PR_GET_PDEATHSIG, &sig), 0);
	check_eq(sig, SIGUSR2);
	check_eq(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 1);
	check_eq(syscall(SYS_setresuid, 0, 0, 0), -1);
	check_eq(errno, EPERM);
}

/* Every number is another one; /proc/self belongs to the effective user, and files are opened as the other. */
static void mixed_setup(void)
{
	open_up();
	check_eq(syscall(SYS_setgroups, 0, NULL), 0);
	check_eq(syscall(SYS_setresgid, 1001, 1002, 1003), 0);
	syscall(SYS_setfsgid, 1001);
	become(2001, 2002, 2003);
	syscall(SYS_setfsuid, 2003);
	check_eq(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
	ask(&before);
	check_eq(before.uid[3], 2003);
	check_eq(before.gid[3], 1001);
}

/* A set-user-id program for a while without its powers. */
static void saved_setup(void)
{
	open_up();
	become(2001, 2001, 0);
	check(before.caps.permitted != 0);
	check_eq(before.caps.effective, 0);
}

static void saved_verify(int cycle)
{
	verify(cycle);
	check_eq(syscall(SYS_setresuid, -1, 0, -1), 0);
	check_eq(chown(scenario_dir, 0, 0), 0);
	check_eq(syscall(SYS_setresuid, -1, 2001, -1), 0);
	check_eq(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
	verify(cycle);
}

/* Root without some of its powers. */
static void caps_setup(void)
{
	unsigned long long all;

	ask(&before);
	all = before.caps.permitted;
	check_eq(prctl(PR_CAPBSET_DROP, CAP_SYS_TIME, 0, 0, 0), 0);
	check_eq(prctl(PR_CAPBSET_DROP, CAP_NET_RAW, 0, 0, 0), 0);
	set_caps(BIT(CAP_CHOWN) | BIT(CAP_KILL), all & ~BIT(CAP_NET_RAW), BIT(CAP_NET_BIND_SERVICE) | BIT(CAP_SYS_CHROOT));
	check_eq(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_CHROOT, 0, 0), 0);
	ask(&before);
	check_eq(before.caps.ambient, BIT(CAP_SYS_CHROOT));
}

/* An ordinary user with one power, and securebits that keep it so. */
static void service_setup(void)
{
	unsigned long long one = BIT(CAP_NET_BIND_SERVICE);

	open_up();
	check_eq(prctl(PR_SET_SECUREBITS, NO_SETUID_FIXUP | NO_SETUID_FIXUP_LOCKED | NOROOT, 0, 0, 0), 0);
	check_eq(syscall(SYS_setresgid, 1001, 1001, 1001), 0);
	check_eq(syscall(SYS_setresuid, 2001, 2001, 2001), 0);
	set_caps(one | BIT(CAP_SETPCAP), one | BIT(CAP_SETPCAP), one);
	check_eq(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0), 0);
	check_eq(prctl(PR_SET_SECUREBITS, NO_SETUID_FIXUP | NO_SETUID_FIXUP_LOCKED | NOROOT | NO_AMBIENT_RAISE, 0, 0, 0), 0);
	set_caps(one, one, one);
	check_eq(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
	ask(&before);
	check_eq(before.caps.effective, one);
	check_eq(before.caps.ambient, one);
}

/* No capability is left anywhere. */
static void none_setup(void)
{
	for (int i = 0; i < CAP_COUNT; i++)
		if (prctl(PR_CAPBSET_READ, i, 0, 0, 0) == 1)
			check_eq(prctl(PR_CAPBSET_DROP, i, 0, 0, 0), 0);
	set_caps(0, 0, 0);
	ask(&before);
	check_eq(before.caps.bounding, 0);
}

/* What anybody may set. */
static void keep_setup(void)
{
	check_eq(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), 0);
	ask(&before);
	check(before.secure & KEEP_CAPS);
}

/* ---- threads ---- */

static struct who {
	void (*set)(void);
	struct creds creds;
	volatile int ready, ask, told;
} others[4];

static void thread_user(void)
{
	check_eq(syscall(SYS_setresgid, 1001, 1001, 1001), 0);
	check_eq(syscall(SYS_setresuid, 2001, 2001, 2001), 0);
}

static void thread_file_user(void) { syscall(SYS_setfsuid, 2002); }

static void thread_caps(void)
{
	for (int i = 0; i < CAP_COUNT; i++)
		if (i % 3 && prctl(PR_CAPBSET_READ, i, 0, 0, 0) == 1)
			check_eq(prctl(PR_CAPBSET_DROP, i, 0, 0, 0), 0);
	set_caps(BIT(CAP_KILL), BIT(CAP_KILL) | BIT(CAP_CHOWN), BIT(CAP_CHOWN));
	check_eq(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0), 0);
}

static void thread_groups(void)
{
	gid_t groups[] = { 7, 8, 9 };

	check_eq(syscall(SYS_setgroups, 3, groups), 0);
}

static void *other(void *arg)
{
	struct who *w = arg;

	w->set();
	ask(&w->creds);
	w->ready = 1;
	for (;;) {
		while (!w->ask)
			usleep(1000);
		unchanged(&w->creds);
		w->ask = 0;
		w->told = 1;
	}
	return NULL;
}

static void threads_setup(void)
{
	void (*const set[])(void) = { thread_user, thread_file_user, thread_caps, thread_groups };
	pthread_t t;

	open_up();
	for (int i = 0; i < 4; i++) {
		others[i].set = set[i];
		check_eq(pthread_create(&t, NULL, other, &others[i]), 0);
		while (!others[i].ready)
			usleep(1000);
	}
	check_eq(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
	ask(&before);
}

static void threads_verify(int cycle)
{
	verify(cycle);
	check_eq(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 1);
	for (int i = 0; i < 4; i++) {
		others[i].told = 0;
		others[i].ask = 1;
		while (!others[i].told)
			usleep(1000);
	}
}

SCENARIOS(
	{ .name = "daemon", .flags = BOTH | ROOT, .setup = daemon_setup, .verify = daemon_verify },
	{ .name = "mixed", .flags = BOTH | ROOT | BARE, .setup = mixed_setup, .verify = verify },
	{ .name = "saved", .flags = BOTH | ROOT, .setup = saved_setup, .verify = saved_verify },
	{ .name = "caps", .flags = BOTH | ROOT, .setup = caps_setup, .verify = verify },
	{ .name = "service", .flags = BOTH | ROOT, .setup = service_setup, .verify = verify },
	{ .name = "none", .flags = BOTH | ROOT, .setup = none_setup, .verify = verify },
	{ .name = "keep", .flags = BOTH, .setup = keep_setup, .verify = verify },
	{ .name = "threads", .flags = BOTH | ROOT, .setup = threads_setup, .verify = threads_verify },
)
