/*
 * snapshot.h - what /proc/self says of the calling process, as text, so that
 * two looks can be compared line by line. Part of scenario.h.
 *
 * Only raw reads into static memory: looking must not change what is seen.
 */
#ifndef SNAPSHOT_H
#define SNAPSHOT_H

struct text {
	size_t len;
	char buf[4 << 20];
};

static struct text snapshot_before, snapshot_after;
static int snapshot_ignore_fd = -1;	/* the image of a self checkpoint */

static void text_add(struct text *t, const char *s, size_t len)
{
	if (t->len + len >= sizeof(t->buf))
		fail("snapshot larger than its buffer");
	memcpy(t->buf + t->len, s, len);
	t->len += len;
}

__attribute__((format(printf, 2, 3)))
static void text_addf(struct text *t, const char *format, ...)
{
	char line[4600];
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	text_add(t, line, n < (int)sizeof(line) ? (size_t)n : sizeof(line) - 1);
}

/* each_line reads a file and hands over its lines, without their newline. */
static void each_line(const char *name, struct text *t, void (*fn)(struct text *, char *))
{
	static char buf[1 << 16];
	size_t have = 0;
	ssize_t n;
	int fd = open(name, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		fail("open %s: errno %d", name, errno);
	while ((n = read(fd, buf + have, sizeof(buf) - 1 - have)) > 0) {
		char *line = buf, *end = buf + have + n, *nl;

		*end = 0;
		while ((nl = memchr(line, '\n', end - line))) {
			*nl = 0;
			fn(t, line);
			line = nl + 1;
		}
		have = end - line;
		memmove(buf, line, have);
	}
	if (n < 0)
		fail("read %s: errno %d", name, errno);
	close(fd);
}

/*
 * nameless cuts the name of a deleted file: the one that a restart makes is
 * called #N in the same directory, N being its inode.
 */
static int nameless(char *name)
{
	static const char deleted[] = " (deleted)";
	size_t n = strlen(name), end = sizeof(deleted) - 1;

	if (n < end || strcmp(name + n - end, deleted) || access(name, F_OK) == 0 || !strncmp(name, "/memfd:", 7))
		return 0;
	strcpy(strrchr(name, '/') + 1, "(deleted)");
	return 1;
}

static void smaps_line(struct text *t, char *line)
{
	char *colon = strchr(line, ':'), *space = strchr(line, ' ');

	if (!strncmp(line, "VmFlags:", 8) || !strncmp(line, "ProtectionKey:", 14)) {
		text_addf(t, "   %s\n", line);
	} else if (space && (!colon || space < colon)) {
		/* "start-end perms offset dev inode name": a header. */
		char range[64], perms[8], offset[32], dev[16], inode[32];
		int name = 0;

		if (sscanf(line, "%63s %7s %31s %15s %31s %n", range, perms, offset, dev, inode, &name) < 5)
			fail("smaps line %s", line);
		if (!nameless(line + name) && !strstr(line + name, " (deleted)"))
			text_addf(t, "map %s\n", line);
		else	/* one that a restart makes has another inode */
			text_addf(t, "map %s %s %s %s\n", range, perms, offset, line + name);
	}
}

static void status_line(struct text *t, char *line)
{
	static const char *const wanted[] = {
		"Name:", "Umask:", "TracerPid:", "Uid:", "Gid:", "Groups:", "SigPnd:",
		"ShdPnd:", "SigBlk:", "SigIgn:", "SigCgt:", "CapInh:", "CapPrm:",
		"CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:", "Seccomp:", "Threads:",
		"VmLck:", "THP_enabled:",
	};

	for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++)
		if (!strncmp(line, wanted[i], strlen(wanted[i])))
			text_addf(t, "status %s\n", line);
}

/* stat_line adds the fields that describe the memory layout (proc(5)). */
static void stat_line(struct text *t, char *line)
{
	char *p = strrchr(line, ')');
	int field = 2;

	if (!p)
		fail("stat line %s", line);
	for (p = strtok(p + 1, " "); p; p = strtok(NULL, " ")) {
		field++;
		if ((field >= 26 && field <= 28) || (field >= 45 && field <= 51))
			text_addf(t, "stat %d %s\n", field, p);
	}
}

static int fdinfo_number;

static void fdinfo_line(struct text *t, char *line)
{
	if (!strncmp(line, "pos:", 4) || !strncmp(line, "flags:", 6))
		text_addf(t, "fd %d %s\n", fdinfo_number, line);
}

static void snapshot_link(struct text *t, const char *what, const char *name)
{
	char target[4096], own[64];
	ssize_t n = readlink(name, target, sizeof(target) - 1);

	if (n < 0)
		fail("readlink %s: errno %d", name, errno);
	target[n] = 0;
	/* A pipe, socket or terminal that a restart makes has another number. */
	if (!strncmp(target, "/dev/pts/", 9))
		target[9] = 0;
	if (!strncmp(target, "pipe:[", 6) || !strncmp(target, "socket:[", 8))
		*strchr(target, '[') = 0;
	nameless(target);
	/* What it has open about itself is so whatever its number is. */
	for (int task = 1; task >= 0; task--) {
		int pid = getpid();

		n = snprintf(own, sizeof(own), task ? "/proc/%d/task/%d/" : "/proc/%d/", pid, pid);
		if (strncmp(target, own, n))
			continue;
		text_addf(t, "%s -> own %s%s\n", what, task ? "task " : "", target + n);
		return;
	}
	text_addf(t, "%s -> %s\n", what, target);
}

/* snapshot_bytes adds a file that holds no lines: its length and a hash. */
static void snapshot_bytes(struct text *t, const char *name)
{
	static unsigned char buf[1 << 16];
	uint64_t hash = 14695981039346656037u;
	size_t len = 0;
	ssize_t n;
	int fd = open(name, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		fail("open %s: errno %d", name, errno);
	while ((n = read(fd, buf, sizeof(buf))) > 0) {
		for (ssize_t i = 0; i < n; i++)
			hash = (hash ^ buf[i]) * 1099511628211u;
		len += n;
	}
	close(fd);
	text_addf(t, "%s %zu bytes, hash %016llx\n", name, len, (unsigned long long)hash);
}

static void snapshot_fds(struct text *t)
{
	struct { uint64_t ino; int64_t off; uint16_t len; uint8_t type; char name[]; } *e;
	static char buf[1 << 15];
	static unsigned char open_fds[1 << 20];
	int dir = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC), top = -1, fd;
	long n;

	if (dir < 0)
		fail("open /proc/self/fd: errno %d", errno);
	memset(open_fds, 0, sizeof(open_fds));
	while ((n = syscall(SYS_getdents64, dir, buf, sizeof(buf))) > 0) {
		for (long at = 0; at < n; at += e->len) {
			e = (void *)(buf + at);
			fd = atoi(e->name);
			if (e->name[0] == '.' || fd == dir || fd == snapshot_ignore_fd)
				continue;
			open_fds[fd] = 1;
			if (fd > top)
				top = fd;
		}
	}
	close(dir);
	for (fd = 0; fd <= top; fd++) {
		char name[64], what[32];

		if (!open_fds[fd])
			continue;
		snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
		snprintf(what, sizeof(what), "fd %d", fd);
		snapshot_link(t, what, name);
		snprintf(name, sizeof(name), "/proc/self/fdinfo/%d", fd);
		fdinfo_number = fd;
		each_line(name, t, fdinfo_line);
	}
}

static void text_line(struct text *t, char *line)
{
	text_addf(t, "%s\n", line);
}

static void snapshot(struct text *t)
{
	t->len = 0;
	if (scenario->flags & BARE)
		return;
	each_line("/proc/self/smaps", t, smaps_line);
	snapshot_fds(t);
	each_line("/proc/self/status", t, status_line);
	each_line("/proc/self/stat", t, stat_line);
	each_line("/proc/self/comm", t, text_line);
	each_line("/proc/self/personality", t, text_line);
	snapshot_link(t, "cwd", "/proc/self/cwd");
	snapshot_link(t, "root", "/proc/self/root");
	if (geteuid() == 0)	/* only privilege can set it: PR_SET_MM_MAP in prctl(2) */
		snapshot_link(t, "exe", "/proc/self/exe");
	snapshot_bytes(t, "/proc/self/cmdline");
	snapshot_bytes(t, "/proc/self/environ");
	snapshot_bytes(t, "/proc/self/auxv");
}

/*
 * Set where a supervisor was killed while it worked in this process: what it
 * had mapped to work in may remain.
 */
static int snapshot_allow_scratch;

static int scratch_line(const char *line, size_t len)
{
	static const char anonymous[] = " 00:00 0 ";
	static const char flags[] = "   VmFlags:";

	if (len > sizeof(flags) && !memcmp(line, flags, sizeof(flags) - 1))
		return 1;
	return len > 4 && !memcmp(line, "map ", 4) && memmem(line, len, anonymous, sizeof(anonymous) - 1);
}

/* snapshot_compare fails with the first line that differs. */
static void snapshot_compare(void)
{
	const char *a = snapshot_before.buf, *b = snapshot_after.buf;
	const char *a_end = a + snapshot_before.len, *b_end = b + snapshot_after.len;

	while (a < a_end || b < b_end) {
		const char *a_nl = a < a_end ? memchr(a, '\n', a_end - a) : a;
		const char *b_nl = b < b_end ? memchr(b, '\n', b_end - b) : b;

		if (a_nl - a != b_nl - b || memcmp(a, b, a_nl - a)) {
			if (snapshot_allow_scratch && b < b_end && scratch_line(b, b_nl - b)) {
				b = b_nl + 1;
				continue;
			}
			if (put("snapshot.before", -1, snapshot_before.buf) ||
			    put("snapshot.after", -1, snapshot_after.buf))
				_exit(97);
			fail("/proc/self differs:\n  before: %.*s\n  after:  %.*s",
			     (int)(a_nl - a), a, (int)(b_nl - b), b);
		}
		a = a_nl + 1;
		b = b_nl + 1;
	}
}

#endif
