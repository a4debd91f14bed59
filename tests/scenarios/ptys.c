/*
 * ptys.c - pseudo terminals of which the program has both sides.
 */
#include "scenario.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>

#ifndef TIOCGPTPEER
#define TIOCGPTPEER 0x5441
#endif
#ifndef TIOCGPKT
#define TIOCGPKT 0x80045438
#define TIOCGPTLCK 0x80045439
#define TIOCGEXCL 0x80045440
#endif

static int master = -1, slave = -1;

static void make(void)
{
	static const struct winsize size = { 31, 117, 5, 7 };

	master = posix_openpt(O_RDWR | O_NOCTTY);
	if (master < 0)
		needs("pseudo terminals");
	check_eq(grantpt(master), 0);
	check_eq(unlockpt(master), 0);
	slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	check(slave >= 0);
	check_eq(ioctl(master, TIOCSWINSZ, &size), 0);
}

static void type(const char *text)
{
	check_eq(write(master, text, strlen(text)), strlen(text));
}

static int flag(int fd, unsigned long request)
{
	int n;

	check_eq(ioctl(fd, request, &n), 0);
	return n;
}

/* settle waits until so much can be read: what is typed comes later. */
static void settle(int fd, int want)
{
	for (int i = 0; flag(fd, FIONREAD) < want; i++) {
		struct pollfd p = { .fd = fd, .events = POLLIN };

		if (i > 5000)
			fail("%d bytes to read, not %d", flag(fd, FIONREAD), want);
		check(poll(&p, 1, 0) >= 0);
		syscall(SYS_nanosleep, &(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
}

/* reads expects just this, which the kernel may bring in pieces: the end of a line comes after it. */
static void reads(int fd, const char *text, size_t len)
{
	char buf[8192];
	struct pollfd p = { .fd = fd, .events = POLLIN };
	size_t have = 0;

	do {
		ssize_t n;

		check_eq(poll(&p, 1, 5000), 1);
		n = read(fd, buf + have, sizeof(buf) - have);
		if (n > 0)
			have += n;
		if (n < 0 || !n != !len || have > len || memcmp(buf, text, have))
			fail("read %zd, in all %zu bytes <%.*s>, not %zu <%s>", n, have, (int)have, buf, len, text);
	} while (have < len);
}

#define READS(fd, text) reads(fd, text, strlen(text))

static void empty(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	check_eq(poll(&p, 1, 0), 0);
}

static struct termios settings(void)
{
	struct termios t;

	memset(&t, 0, sizeof(t));
	check_eq(tcgetattr(slave, &t), 0);
	return t;
}

static struct termios known;

static void set(struct termios t)
{
	check_eq(tcsetattr(slave, TCSANOW, &t), 0);
	known = settings();
}

/* same compares what tcsetattr(3) sets, and the size of the window. */
static void same(void)
{
	struct termios t = settings();
	struct winsize size;

	check_eq(t.c_iflag, known.c_iflag);
	check_eq(t.c_oflag, known.c_oflag);
	check_eq(t.c_cflag, known.c_cflag);
	check_eq(t.c_lflag, known.c_lflag);
	check_eq(memcmp(t.c_cc, known.c_cc, sizeof(t.c_cc)), 0);
	check_eq(cfgetospeed(&t), cfgetospeed(&known));
	check_eq(ioctl(slave, TIOCGWINSZ, &size), 0);
	check(size.ws_row == 31 && size.ws_col == 117 && size.ws_xpixel == 5 && size.ws_ypixel == 7);
	check(isatty(slave));
	/* One terminal: what is typed on one side comes out on the other. */
	check(ptsname(master));
}

/* As a new terminal is, with nothing in it. */
static void idle_setup(void)
{
	make();
	known = settings();
	check_eq(fcntl(slave, F_SETFD, FD_CLOEXEC), 0);
}

static void idle_verify(int cycle)
{
	struct stat st, named;

	(void)cycle;
	same();
	check_eq(fstat(slave, &st), 0);
	check_eq(stat(ptsname(master), &named), 0);
	check_eq(st.st_ino, named.st_ino);
	empty(master);
	empty(slave);
	type("line\n");
	READS(slave, "line\n");
	settle(master, 6);
	READS(master, "line\r\n");	/* the echo */
	check_eq(write(slave, "answer\n", 7), 7);
	READS(master, "answer\r\n");
}

/* Lines, one that is not finished, and what is printed. */
static void lines_setup(void)
{
	struct termios t;

	make();
	t = settings();
	t.c_cc[VERASE] = 'h';
	t.c_cc[VINTR] = 'x';
	set(t);
	type("one\ntwo\nunfin");
	settle(master, 15);	/* the echo */
	check_eq(write(slave, "printed\n", 8), 8);
}

static void lines_verify(int cycle)
{
	char buf[256];

	(void)cycle;
	same();
	settle(master, 24);
	READS(slave, "one\n");
	READS(slave, "two\n");
	empty(slave);
	type("hhed\n");	/* each h takes away what was typed before */
	READS(slave, "unfed\n");
	settle(master, 34);
	check_eq(read(master, buf, sizeof(buf)), 34);
	check_eq(memcmp(buf, "one\r\ntwo\r\nunfinprinted\r\n", 24), 0);
	type("one\ntwo\nunfin");
	settle(master, 15);
	check_eq(write(slave, "printed\n", 8), 8);
}

/* Ends of file among the lines, and zero bytes that are none. */
static void ends_setup(void)
{
	struct termios t;

	make();
	t = settings();
	t.c_lflag &= ~ECHO;
	set(t);
	type("a\nb\004c\n\004d");
}

static void ends_verify(int cycle)
{
	(void)cycle;
	same();
	READS(slave, "a\n");
	READS(slave, "b");
	READS(slave, "c\n");
	reads(slave, "", 0);
	empty(slave);
	type("\004");
	READS(slave, "d");
	empty(master);
	type("a\nb\004c\n\004d");
}

static void zeros_setup(void)
{
	struct termios t;

	make();
	t = settings();
	t.c_lflag &= ~ECHO;
	set(t);
	check_eq(write(master, "a\0b\n\0c", 6), 6);
}

static void zeros_verify(int cycle)
{
	(void)cycle;
	same();
	reads(slave, "a\0b\n", 4);
	empty(slave);
	type("\n");
	reads(slave, "\0c\n", 3);
	check_eq(write(master, "a\0b\n\0c", 6), 6);
}

/* Every byte there is, both ways, on a terminal that changes none. */
static void raw_setup(void)
{
	struct termios t;
	char all[256];

	make();
	t = settings();
	cfmakeraw(&t);
	t.c_cc[VMIN] = 3;
	t.c_cc[VTIME] = 7;
	check_eq(cfsetospeed(&t, B9600), 0);
	set(t);
	for (int i = 0; i < 256; i++)
		all[i] = i;
	check_eq(write(master, all, 256), 256);
	check_eq(write(slave, all + 1, 255), 255);
	check_eq(fcntl(slave, F_SETFL, O_NONBLOCK), 0);
}

static void raw_verify(int cycle)
{
	char all[256];

	(void)cycle;
	same();
	for (int i = 0; i < 256; i++)
		all[i] = i;
	check_eq(fcntl(slave, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	check_eq(fcntl(master, F_GETFL) & O_NONBLOCK, 0);
	reads(slave, all, 256);
	reads(master, all + 1, 255);
	check_eq(write(master, all, 256), 256);
	check_eq(write(slave, all + 1, 255), 255);
}

/* As much as fits to be read. */
static char big[3000];

static void full_setup(void)
{
	struct termios t;

	make();
	t = settings();
	cfmakeraw(&t);
	set(t);
	fill(big, sizeof(big), 3);
	check_eq(write(master, big, sizeof(big)), sizeof(big));
	check_eq(write(slave, big, sizeof(big)), sizeof(big));
	memset(big, 0, sizeof(big));
}

static void full_verify(int cycle)
{
	(void)cycle;
	for (int side = 0; side < 2; side++) {
		int fd = side ? master : slave;
		size_t have = 0;

		while (have < sizeof(big)) {
			ssize_t n = read(fd, big + have, sizeof(big) - have);

			check(n > 0);
			have += n;
		}
		filled(big, sizeof(big), 3);
		empty(fd);
	}
	check_eq(write(master, big, sizeof(big)), sizeof(big));
	check_eq(write(slave, big, sizeof(big)), sizeof(big));
	memset(big, 0, sizeof(big));
}

/* Packet mode, exclusive use, a lock, and the terminal open several times. */
static int more[3];

static void modes_setup(void)
{
	int on = 1;

	make();
	known = settings();
	more[0] = open(ptsname(master), O_WRONLY | O_NOCTTY | O_NONBLOCK);
	more[1] = open(ptsname(master), O_RDONLY | O_NOCTTY);
	more[2] = dup(slave);
	check(more[0] >= 0 && more[1] >= 0 && more[2] >= 0);
	check_eq(ioctl(master, TIOCPKT, &on), 0);
	check_eq(ioctl(slave, TIOCEXCL, 0), 0);
	check_eq(ioctl(master, TIOCSPTLCK, &on), 0);
	check_eq(fchmod(slave, 0640), 0);
	check_eq(write(more[0], "x", 1), 1);
}

static void modes_verify(int cycle)
{
	struct stat st;

	(void)cycle;
	same();
	check_eq(flag(master, TIOCGPKT), 1);
	check_eq(flag(master, TIOCGPTLCK), 1);
	check_eq(flag(slave, TIOCGEXCL), 1);
	check_eq(fstat(slave, &st), 0);
	check_eq(st.st_mode & 0777, 0640);
	reads(master, "\0x", 2);
	empty(master);
	check_eq(fcntl(more[0], F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_WRONLY | O_NONBLOCK);
	check_eq(fcntl(more[1], F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDONLY);
	check_eq(syscall(SYS_kcmp, getpid(), getpid(), 0, slave, more[2]), 0);
	type("in\n");
	READS(more[1], "in\n");
	settle(master, 4);
	reads(master, "\0in\r\n", 5);
	check_eq(write(more[0], "x", 1), 1);
}

/* Two of them, crosswise, and one is the standard input. */
static int other[2];

static void two_setup(void)
{
	make();
	other[0] = master;
	other[1] = slave;
	make();
	known = settings();
	check_eq(dup2(other[1], 0), 0);
	type("second\n");
	check_eq(write(other[0], "first\n", 6), 6);
}

static void two_verify(int cycle)
{
	(void)cycle;
	same();
	READS(0, "first\n");
	READS(slave, "second\n");
	settle(master, 8);
	settle(other[0], 7);
	READS(master, "second\r\n");
	READS(other[0], "first\r\n");
	type("second\n");
	check_eq(write(other[0], "first\n", 6), 6);
}

SCENARIOS(
	{ "idle", BOTH, idle_setup, idle_verify, NULL, 0 },
	{ "lines", BOTH, lines_setup, lines_verify, NULL, 0 },
	{ "ends", BOTH, ends_setup, ends_verify, NULL, 0 },
	{ "zeros", BOTH, zeros_setup, zeros_verify, NULL, 0 },
	{ "raw", BOTH, raw_setup, raw_verify, NULL, 0 },
	{ "full", BOTH, full_setup, full_verify, NULL, 0 },
	{ "modes", BOTH, modes_setup, modes_verify, NULL, 0 },
	{ "two", BOTH, two_setup, two_verify, NULL, 0 },
)
