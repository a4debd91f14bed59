/*
 * unix.c - unix sockets whose other end is in the program, or closed.
 */
#include "scenario.h"

#include <poll.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

static int fds[8];
static char big[1 << 20];

static int buffered(int fd)
{
	int n;

	/* FIONREAD, which musl has in another header. */
	check_eq(syscall(SYS_ioctl, fd, 0x541b, &n), 0);
	return n;
}

static void takes(int fd, const char *want)
{
	char buf[256];

	check_eq(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), strlen(want));
	check_eq(memcmp(buf, want, strlen(want)), 0);
}

static void sends(int fd, const char *text)
{
	check_eq(send(fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL), strlen(text));
}

static void nothing(int fd)
{
	char c;

	check_eq(recv(fd, &c, 1, MSG_DONTWAIT), -1);
	check_eq(errno, EAGAIN);
}

static int events(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP };

	check(poll(&p, 1, 0) >= 0);
	return p.revents;
}

/* ---- pairs ---- */

static void stream_setup(void)
{
	check_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	check_eq(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
	sends(fds[0], "0123456789");
	sends(fds[1], "ab");
	sends(fds[1], "cdefghij");
}

static void stream_verify(int cycle)
{
	char buf[16];

	check_eq(fcntl(fds[0], F_GETFL), O_RDWR | O_NONBLOCK);
	check_eq(fcntl(fds[1], F_GETFL), O_RDWR);
	check_eq(fcntl(fds[1], F_GETFD), FD_CLOEXEC);
	check_eq(buffered(fds[0]), 10);
	check_eq(read(fds[0], buf, 1), 1);
	check_eq(buf[0], 'a' + cycle - 1);
	check_eq(read(fds[1], buf, 1), 1);
	check_eq(buf[0], '0' + cycle - 1);
	sends(fds[0], "x");
	sends(fds[1], "y");
	if (cycle < 3)
		return;
	takes(fds[0], "defghijyyy");
	takes(fds[1], "3456789xxx");
	nothing(fds[0]);
}

/* Full in one direction, with what many writes have put there. */
static void full_setup(void)
{
	ssize_t n;
	size_t at = 0;

	check_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	fill(big, sizeof(big), 1);
	while ((n = write(fds[0], big + at, 3000)) > 0)
		at += n;
	check_eq(errno, EAGAIN);
	check(at > 30000);
	fds[2] = at;
}

static void full_verify(int cycle)
{
	(void)cycle;
	check_eq(buffered(fds[1]), fds[2]);
	memset(big, 0, sizeof(big));
	check_eq(read(fds[1], big, sizeof(big)), fds[2]);
	filled(big, fds[2], 1);
	nothing(fds[1]);
	for (int at = 0; at < fds[2]; at += 3000)
		check(write(fds[0], big + at, at + 3000 > fds[2] ? fds[2] - at : 3000) > 0);
}

/* Bounds of messages, also of empty ones. */
static void messages(int fd)
{
	sends(fd, "one");
	sends(fd, "");
	sends(fd, "three");
	check_eq(send(fd, big, 70000, MSG_DONTWAIT), 70000);
	sends(fd, "");
}

static void message_setup(int type)
{
	check_eq(socketpair(AF_UNIX, type, 0, fds), 0);
	fill(big, sizeof(big), 2);
	messages(fds[0]);
	sends(fds[1], "back");
}

static void dgram_setup(void)
{
	message_setup(SOCK_DGRAM);
}

static void seqpacket_setup(void)
{
	message_setup(SOCK_SEQPACKET);
}

static void message_verify(int cycle)
{
	(void)cycle;
	takes(fds[1], "one");
	takes(fds[1], "");
	takes(fds[1], "three");
	memset(big, 0, sizeof(big));
	check_eq(recv(fds[1], big, sizeof(big), MSG_DONTWAIT), 70000);
	filled(big, 70000, 2);
	takes(fds[1], "");
	nothing(fds[1]);
	takes(fds[0], "back");
	nothing(fds[0]);
	messages(fds[0]);
	sends(fds[1], "back");
}

/* ---- ends that were closed ---- */

static void half_setup(void)
{
	check_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	check_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds + 2), 0);
	check_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds + 4), 0);
	sends(fds[0], "0123456789");
	sends(fds[1], "ab");
	check_eq(shutdown(fds[0], SHUT_WR), 0);
	check_eq(shutdown(fds[2], SHUT_RD), 0);
	sends(fds[2], "open");
	check_eq(shutdown(fds[4], SHUT_RD), 0);
	sends(fds[4], "open");
}

static void half_verify(int cycle)
{
	char c;

	check_eq(send(fds[0], "x", 1, MSG_NOSIGNAL), -1);
	check_eq(errno, EPIPE);
	check_eq(events(fds[0]), POLLIN | POLLOUT);
	check_eq(events(fds[1]), POLLIN | POLLOUT | POLLRDHUP);
	check_eq(recv(fds[1], &c, 1, 0), 1);
	check_eq(c, '0' + cycle - 1);
	if (cycle == 3) {
		takes(fds[1], "3456789");
		check_eq(recv(fds[1], &c, 1, 0), 0);
	}
	takes(fds[0], "ab");
	sends(fds[1], "ab");

	check_eq(send(fds[3], "x", 1, MSG_NOSIGNAL), -1);
	check_eq(errno, EPIPE);
	takes(fds[3], "open");
	sends(fds[2], "open");

	check_eq(send(fds[5], "x", 1, MSG_NOSIGNAL), -1);
	check_eq(errno, EPIPE);
	takes(fds[5], "open");
	sends(fds[4], "open");
}

/* Closed with nothing unread: data, then the end. */
static void closed_setup(void)
{
	for (int i = 0; i < 2; i++) {
		check_eq(socketpair(AF_UNIX, i ? SOCK_SEQPACKET : SOCK_STREAM, 0, fds + 2 * i), 0);
		for (int n = 0; n < 4; n++)
			check_eq(send(fds[2 * i], "0123" + n, 1, 0), 1);
		check_eq(close(fds[2 * i]), 0);
	}
	check_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds + 4), 0);
	sends(fds[4], "");
	sends(fds[4], "x");
	check_eq(close(fds[4]), 0);
}

static void closed_verify(int cycle)
{
	char c;

	for (int i = 1; i < 4; i += 2) {
		check_eq(events(fds[i]), POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
		check_eq(recv(fds[i], &c, 1, 0), 1);
		check_eq(c, '0' + cycle - 1);
		check_eq(send(fds[i], "x", 1, MSG_NOSIGNAL), -1);
		check_eq(errno, EPIPE);
		if (cycle == 3) {
			check_eq(recv(fds[i], &c, 1, 0), 1);
			check_eq(recv(fds[i], &c, 1, 0), 0);
		}
	}
	if (cycle == 1) {
		check_eq(recv(fds[5], &c, 1, 0), 0);
		check_eq(recv(fds[5], &c, 1, 0), 1);
		check_eq(c, 'x');
	}
	check_eq(recv(fds[5], &c, 1, 0), 0);
}

/* Closed with something unread: an error first. */
static void reset_setup(void)
{
	check_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	check_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds + 2), 0);
	sends(fds[0], "0123456789");
	sends(fds[1], "unread");
	sends(fds[3], "unread");
	check_eq(close(fds[0]), 0);
	check_eq(close(fds[2]), 0);
}

static void reset_verify(int cycle)
{
	char c;

	if (cycle < 3) {
		check_eq(events(fds[1]), POLLIN | POLLOUT | POLLRDHUP | POLLHUP | POLLERR);
		check_eq(events(fds[3]), POLLIN | POLLOUT | POLLRDHUP | POLLHUP | POLLERR);
		return;
	}
	takes(fds[1], "0123456789");
	for (int i = 1; i < 4; i += 2) {
		check_eq(recv(fds[i], &c, 1, 0), -1);
		check_eq(errno, ECONNRESET);
		check_eq(recv(fds[i], &c, 1, 0), 0);
	}
}

static void deaf_setup(void)
{
	check_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds), 0);
	sends(fds[0], "one");
	sends(fds[0], "two");
	check_eq(close(fds[0]), 0);
}

static void deaf_verify(int cycle)
{
	if (cycle == 1)
		takes(fds[1], "one");
	if (cycle < 3)
		return;
	takes(fds[1], "two");
	nothing(fds[1]);
	check_eq(send(fds[1], "x", 1, 0), -1);
	check_eq(errno, ECONNREFUSED);
	check_eq(send(fds[1], "x", 1, 0), -1);
	check_eq(errno, ENOTCONN);
}

/* ---- names ---- */

static struct sockaddr_un address;

static socklen_t named(const char *format, const char *name)
{
	int n;

	memset(&address, 0, sizeof(address));
	address.sun_family = AF_UNIX;
	n = snprintf(address.sun_path, sizeof(address.sun_path), format, name);
	check(n > 0 && n < (int)sizeof(address.sun_path));
	if (*address.sun_path == '@') {
		*address.sun_path = 0;
		return offsetof(struct sockaddr_un, sun_path) + n;
	}
	return offsetof(struct sockaddr_un, sun_path) + n + 1;
}

static socklen_t in_dir(const char *name)
{
	return named("%s", path(name, -1));
}

/* has_name checks what getsockname or getpeername says against address. */
static void has_name(int fd, socklen_t len, int (*get)(int, struct sockaddr *, socklen_t *))
{
	struct sockaddr_un is;
	socklen_t got = sizeof(is);

	check_eq(get(fd, (void *)&is, &got), 0);
	check_eq(got, len);
	check_eq(memcmp(&is, &address, len), 0);
}

static void connects(int fd, socklen_t len)
{
	check_eq(connect(fd, (void *)&address, len), 0);
}

static int made(int type)
{
	int fd = socket(AF_UNIX, type, 0);

	check(fd >= 0);
	return fd;
}

/*
 * A server in the program: fds[0] listens, fds[1] and fds[2] are a connection,
 * fds[3] is one of which the client has been closed, fds[4] and fds[5] wait.
 */
static void server_setup(socklen_t len, int type)
{
	int gone;

	fds[0] = made(type);
	check_eq(bind(fds[0], (void *)&address, len), 0);
	check_eq(listen(fds[0], 7), 0);
	fds[1] = made(type);
	connects(fds[1], len);
	fds[2] = accept(fds[0], NULL, NULL);
	gone = made(type);
	connects(gone, len);
	fds[3] = accept(fds[0], NULL, NULL);
	check(fds[2] >= 0 && fds[3] >= 0);
	sends(fds[1], "to server");
	sends(fds[2], "to client");
	sends(gone, "bye");
	check_eq(close(gone), 0);
	fds[4] = made(type);
	fds[5] = made(type | SOCK_NONBLOCK);
	connects(fds[4], len);
	connects(fds[5], len);
}

static void server_verify(socklen_t len, int type)
{
	struct ucred cred;
	socklen_t size = sizeof(cred);
	int fd, on;

	has_name(fds[0], len, getsockname);
	has_name(fds[2], len, getsockname);
	has_name(fds[3], len, getsockname);
	has_name(fds[1], len, getpeername);
	has_name(fds[4], len, getpeername);
	size = sizeof(on);
	check_eq(getsockopt(fds[0], SOL_SOCKET, SO_ACCEPTCONN, &on, &size), 0);
	check_eq(on, 1);
	size = sizeof(cred);
	check_eq(getsockopt(fds[1], SOL_SOCKET, SO_PEERCRED, &cred, &size), 0);
	check_eq(cred.pid, getpid());
	check_eq(cred.uid, geteuid());

	takes(fds[2], "to server");
	takes(fds[1], "to client");
	sends(fds[1], "to server");
	sends(fds[2], "to client");
	check_eq(events(fds[3]) & POLLHUP, POLLHUP);

	/* Those that wait are accepted in order, others wait again. */
	for (int i = 4; i < 6; i++) {
		fd = accept(fds[0], NULL, NULL);
		check(fd >= 0);
		has_name(fd, len, getsockname);
		sends(fds[i], i == 4 ? "first" : "second");
		takes(fd, i == 4 ? "first" : "second");
		check_eq(close(fd), 0);
		check_eq(close(fds[i]), 0);
	}
	check_eq(events(fds[0]), 0);
	for (int i = 4; i < 6; i++) {
		check_eq(made(type | (i == 5 ? SOCK_NONBLOCK : 0)), fds[i]);
		connects(fds[i], len);
	}
}

static void listen_setup(void)
{
	server_setup(in_dir("socket"), SOCK_STREAM);
	check_eq(chmod(address.sun_path, 0620), 0);
}

static void listen_verify(int cycle)
{
	struct stat st;

	server_verify(in_dir("socket"), SOCK_STREAM);
	check_eq(stat(address.sun_path, &st), 0);
	check_eq(st.st_mode, S_IFSOCK | 0620);
	if (cycle == 3)
		takes(fds[3], "bye");
}

static void seqlisten_setup(void)
{
	server_setup(in_dir("packets"), SOCK_SEQPACKET);
}

static void seqlisten_verify(int cycle)
{
	(void)cycle;
	server_verify(in_dir("packets"), SOCK_SEQPACKET);
}

static void abstract_setup(void)
{
	server_setup(named("@%s", scenario_dir), SOCK_STREAM);
}

static void abstract_verify(int cycle)
{
	(void)cycle;
	server_verify(named("@%s", scenario_dir), SOCK_STREAM);
}

/* A name that begins at a directory other than that of the restarter. */
static void relative_setup(void)
{
	check_eq(mkdir(path("sub", -1), 0700), 0);
	check_eq(mkdir(path("sub/deep", -1), 0700), 0);
	check_eq(chdir(path("sub", -1)), 0);
	server_setup(named("deep/%s", "socket"), SOCK_STREAM);
}

static void relative_verify(int cycle)
{
	(void)cycle;
	server_verify(named("deep/%s", "socket"), SOCK_STREAM);
}

/* A name whose file was removed, as private servers do, and an accepted end
 * whose listening socket was closed. */
static void deleted_setup(void)
{
	socklen_t len = in_dir("gone");

	fds[0] = made(SOCK_STREAM);
	check_eq(bind(fds[0], (void *)&address, len), 0);
	check_eq(listen(fds[0], 1), 0);
	fds[1] = made(SOCK_STREAM);
	connects(fds[1], len);
	fds[2] = accept(fds[0], NULL, NULL);
	check(fds[2] >= 0);
	check_eq(close(fds[0]), 0);
	check_eq(unlink(address.sun_path), 0);
}

static void deleted_verify(int cycle)
{
	socklen_t len = in_dir("gone");

	(void)cycle;
	check_eq(access(address.sun_path, F_OK), -1);
	has_name(fds[2], len, getsockname);
	has_name(fds[1], len, getpeername);
	sends(fds[1], "x");
	takes(fds[2], "x");
}

/* The same, but it still listens. Who may not ask where the file is now
 * (CAP_NET_ADMIN) cannot save it. */
static void private_setup(void)
{
	server_setup(in_dir("private"), SOCK_STREAM);
	check_eq(unlink(address.sun_path), 0);
	check_eq(close(fds[4]), 0);
	check_eq(close(fds[5]), 0);
	for (int i = 4; i < 6; i++)
		check_eq(close(accept(fds[0], NULL, NULL)), 0);
}

static void private_verify(int cycle)
{
	socklen_t len = in_dir("private");

	(void)cycle;
	check_eq(access(address.sun_path, F_OK), -1);
	has_name(fds[0], len, getsockname);
	has_name(fds[2], len, getsockname);
	has_name(fds[1], len, getpeername);
	takes(fds[2], "to server");
	nothing(fds[2]);
	sends(fds[1], "to server");
}

/* Datagrams: fds[0] has a name, fds[1] has one, too, and is connected to it,
 * fds[2] has none. */
static void named_setup(void)
{
	socklen_t len;

	for (int i = 0; i < 2; i++) {
		len = in_dir(i ? "client" : "server");
		fds[i] = made(SOCK_DGRAM);
		check_eq(bind(fds[i], (void *)&address, len), 0);
	}
	fds[2] = made(SOCK_DGRAM);
	len = in_dir("server");
	connects(fds[1], len);
	sends(fds[1], "from client");
	check_eq(sendto(fds[2], "nameless", 8, 0, (void *)&address, len), 8);
	sends(fds[1], "again");
}

static void named_verify(int cycle)
{
	struct sockaddr_un from;
	char buf[64];
	socklen_t len;

	(void)cycle;
	for (int i = 0; i < 3; i++) {
		static const char *const want[] = { "from client", "nameless", "again" };

		len = sizeof(from);
		check_eq(recvfrom(fds[0], buf, sizeof(buf), MSG_DONTWAIT, (void *)&from, &len), strlen(want[i]));
		check_eq(memcmp(buf, want[i], strlen(want[i])), 0);
		if (i == 1) {
			check_eq(len, 0);
			continue;
		}
		check_eq(len == in_dir("client"), 1);
		check_eq(memcmp(&from, &address, len), 0);
	}
	nothing(fds[0]);
	len = in_dir("server");
	has_name(fds[0], len, getsockname);
	has_name(fds[1], len, getpeername);
	len = in_dir("client");
	check_eq(sendto(fds[0], "hello", 5, 0, (void *)&address, len), 5);
	takes(fds[1], "hello");
	/* Only the peer of a connected socket may send to it. */
	check_eq(sendto(fds[2], "hello", 5, 0, (void *)&address, len), -1);
	check_eq(errno, EPERM);
}

static void named_refill(int cycle)
{
	socklen_t len;

	named_verify(cycle);
	sends(fds[1], "from client");
	len = in_dir("server");
	check_eq(sendto(fds[2], "nameless", 8, 0, (void *)&address, len), 8);
	sends(fds[1], "again");
}

/* ---- what messages carry ---- */

static void pass(int sock, const char *text, int n, const int *numbers)
{
	struct iovec iov = { (void *)text, strlen(text) };
	char control[CMSG_SPACE(8 * sizeof(int))] = { 0 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(n * sizeof(int)) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(c), numbers, n * sizeof(int));
	check_eq(sendmsg(sock, &msg, MSG_DONTWAIT), strlen(text));
}

/* got receives up to len bytes, and returns how many descriptors came along. */
static int got(int sock, size_t len, const char *want, int *numbers)
{
	char buf[64], control[CMSG_SPACE(8 * sizeof(int))];
	struct iovec iov = { buf, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *c;
	int n;

	check_eq(recvmsg(sock, &msg, MSG_DONTWAIT), strlen(want));
	check_eq(memcmp(buf, want, strlen(want)), 0);
	c = CMSG_FIRSTHDR(&msg);
	if (!c)
		return 0;
	check_eq(c->cmsg_type, SCM_RIGHTS);
	n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(numbers, CMSG_DATA(c), n * sizeof(int));
	return n;
}

/* A pipe whose ends are open nowhere else, a file, and one's own end. */
static void rights_fill(void)
{
	int two[2], three[3];

	check_eq(pipe(two), 0);
	check_eq(write(two[1], "in the pipe", 11), 11);
	sends(fds[0], "plain");
	pass(fds[0], "pipe", 2, two);
	sends(fds[0], "more");
	three[0] = open(path("file", -1), O_RDWR | O_CREAT, 0600);
	three[1] = fds[2];
	three[2] = fds[0];
	check(three[0] >= 0);
	check_eq(lseek(three[0], 123, SEEK_SET), 123);
	pass(fds[0], "three", 3, three);
	check_eq(close(two[0]), 0);
	check_eq(close(two[1]), 0);
	check_eq(close(three[0]), 0);
}

static void rights_setup(void)
{
	check_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	fds[2] = open("/dev/null", O_RDWR);
	check(fds[2] >= 0);
	rights_fill();
}

static void rights_verify(int cycle)
{
	int n[8];
	char buf[16];

	(void)cycle;
	check_eq(got(fds[1], 3, "pla", n), 0);
	check_eq(got(fds[1], 2, "in", n), 0);
	check_eq(got(fds[1], 1, "p", n), 2);
	check_eq(read(n[0], buf, sizeof(buf)), 11);
	check_eq(memcmp(buf, "in the pipe", 11), 0);
	check_eq(close(n[1]), 0);
	check_eq(read(n[0], buf, sizeof(buf)), 0);
	check_eq(close(n[0]), 0);
	check_eq(got(fds[1], 60, "ipemorethree", n), 3);
	check_eq(lseek(n[0], 0, SEEK_CUR), 123);
	check_eq(close(n[0]), 0);
	/* The same open file as that which is still open, not another one. */
	check_eq(fcntl(fds[2], F_SETFL, O_APPEND), 0);
	check_eq(fcntl(n[1], F_GETFL) & O_APPEND, O_APPEND);
	check_eq(fcntl(fds[2], F_SETFL, 0), 0);
	check_eq(close(n[1]), 0);
	sends(n[2], "self");
	takes(fds[1], "self");
	check_eq(close(n[2]), 0);
	nothing(fds[1]);
	rights_fill();
}

/* A file with a lock that is both open and in a message. */
static void locked_setup(void)
{
	check_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds), 0);
	fds[2] = open(path("locked", -1), O_RDWR | O_CREAT, 0600);
	check(fds[2] >= 0);
	check_eq(flock(fds[2], LOCK_EX), 0);
	pass(fds[0], "locked", 1, fds + 2);
}

static void locked_verify(int cycle)
{
	int n[8], other = open(path("locked", -1), O_RDWR);

	check(other >= 0);
	check_eq(flock(other, LOCK_EX | LOCK_NB), -1);
	check_eq(close(other), 0);
	check_eq(got(fds[1], 60, "locked", n), 1);
	check_eq(lseek(n[0], cycle, SEEK_SET), cycle);
	check_eq(lseek(fds[2], 0, SEEK_CUR), cycle);
	pass(fds[0], "locked", 1, n);
	check_eq(close(n[0]), 0);
}

/* A socket that is open nowhere but in a message, with messages of its own. */
static void nested_fill(void)
{
	int two[2], pipes[2];

	check_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, two), 0);
	check_eq(pipe(pipes), 0);
	pass(two[0], "inner", 1, pipes);
	sends(two[1], "reply");
	pass(fds[0], "outer", 2, two);
	check_eq(write(pipes[1], "deep", 4), 4);
	check_eq(close(pipes[0]), 0);
	check_eq(close(pipes[1]), 0);
	check_eq(close(two[0]), 0);
	check_eq(close(two[1]), 0);
}

static void nested_setup(void)
{
	check_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
	nested_fill();
}

static void nested_verify(int cycle)
{
	int two[8], end[8];
	char buf[8];

	(void)cycle;
	check_eq(got(fds[1], 60, "outer", two), 2);
	takes(two[0], "reply");
	check_eq(got(two[1], 60, "inner", end), 1);
	check_eq(read(end[0], buf, 8), 4);
	check_eq(memcmp(buf, "deep", 4), 0);
	check_eq(close(end[0]), 0);
	check_eq(close(two[0]), 0);
	check_eq(close(two[1]), 0);
	nested_fill();
}

/* Credentials: sent before SO_PASSCRED was set, and after. */
static void creds_fill(void)
{
	int off = 0, on = 1;

	for (int i = 0; i < 4; i += 2) {
		check_eq(setsockopt(fds[i + 1], SOL_SOCKET, SO_PASSCRED, &off, sizeof(off)), 0);
		sends(fds[i], "without");
		check_eq(setsockopt(fds[i + 1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
		sends(fds[i], "with");
	}
}

static void creds_setup(void)
{
	check_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	check_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds + 2), 0);
	creds_fill();
}

static void has_creds(int sock, const char *want, int pid, unsigned uid)
{
	char buf[64], control[256];
	struct iovec iov = { buf, sizeof(buf) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *c;
	struct ucred cred;

	check_eq(recvmsg(sock, &msg, MSG_DONTWAIT), strlen(want));
	check_eq(memcmp(buf, want, strlen(want)), 0);
	c = CMSG_FIRSTHDR(&msg);
	check(c);
	check_eq(c->cmsg_type, SCM_CREDENTIALS);
	memcpy(&cred, CMSG_DATA(c), sizeof(cred));
	check_eq(cred.pid, pid);
	check_eq(cred.uid, uid);
}

static void creds_verify(int cycle)
{
	(void)cycle;
	for (int i = 1; i < 4; i += 2) {
		has_creds(fds[i], "without", 0, 65534);
		has_creds(fds[i], "with", getpid(), getuid());
	}
	creds_fill();
}

/* ---- options ---- */

static int option(int fd, int name)
{
	int value = -77;
	socklen_t size = sizeof(value);

	check_eq(getsockopt(fd, SOL_SOCKET, name, &value, &size), 0);
	return value;
}

static void set_option(int fd, int name, int value)
{
	check_eq(setsockopt(fd, SOL_SOCKET, name, &value, sizeof(value)), 0);
}

static void options_setup(void)
{
	struct timeval t = { 7, 120000 };

	check_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	set_option(fds[0], SO_SNDBUF, 30000);
	set_option(fds[0], SO_RCVBUF, 50000);
	set_option(fds[0], SO_PASSCRED, 1);
	set_option(fds[0], SO_PRIORITY, 3);
	set_option(fds[1], SO_PEEK_OFF, 2);
	set_option(fds[1], SO_RCVLOWAT, 5);
	check_eq(setsockopt(fds[1], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)), 0);
	sends(fds[0], "0123456789");
}

static void options_verify(int cycle)
{
	struct timeval t;
	socklen_t size = sizeof(t);
	char buf[16];

	check_eq(option(fds[0], SO_SNDBUF), 60000);
	check_eq(option(fds[0], SO_RCVBUF), 100000);
	check_eq(option(fds[0], SO_PASSCRED), 1);
	check_eq(option(fds[1], SO_PASSCRED), 0);
	check_eq(option(fds[0], SO_PRIORITY), 3);
	check_eq(option(fds[1], SO_RCVLOWAT), 5);
	check_eq(option(fds[1], SO_PEEK_OFF), 1 + cycle);
	check_eq(recv(fds[1], buf, 1, MSG_PEEK), 1);
	check_eq(buf[0], '1' + cycle);
	check_eq(getsockopt(fds[1], SOL_SOCKET, SO_RCVTIMEO, &t, &size), 0);
	check_eq(t.tv_sec, 7);
	check_eq(t.tv_usec, 120000);
}

/* ---- in company ---- */

static void epoll_setup(void)
{
	struct epoll_event e = { .events = EPOLLIN, .data.u64 = 1 };
	socklen_t len = named("@%s epoll", scenario_dir);

	check_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	fds[2] = made(SOCK_STREAM);
	check_eq(bind(fds[2], (void *)&address, len), 0);
	check_eq(listen(fds[2], 4), 0);
	fds[3] = epoll_create1(0);
	check(fds[3] >= 0);
	check_eq(epoll_ctl(fds[3], EPOLL_CTL_ADD, fds[1], &e), 0);
	e.data.u64 = 2;
	check_eq(epoll_ctl(fds[3], EPOLL_CTL_ADD, fds[2], &e), 0);
}

static void epoll_verify(int cycle)
{
	struct epoll_event e[4];
	socklen_t len = named("@%s epoll", scenario_dir);
	int client = made(SOCK_STREAM), served;

	(void)cycle;
	check_eq(epoll_wait(fds[3], e, 4, 0), 0);
	sends(fds[0], "x");
	check_eq(epoll_wait(fds[3], e, 4, 0), 1);
	check_eq(e[0].data.u64, 1);
	takes(fds[1], "x");
	connects(client, len);
	check_eq(epoll_wait(fds[3], e, 4, 0), 1);
	check_eq(e[0].data.u64, 2);
	served = accept(fds[2], NULL, NULL);
	check(served >= 0);
	check_eq(close(served), 0);
	check_eq(close(client), 0);
}

/* The numbers of the restarter's own descriptors, and several of one. */
static void low_setup(void)
{
	check_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	check_eq(dup2(fds[0], 0), 0);
	check_eq(dup2(fds[1], 200), 200);
	check_eq(dup2(fds[1], 2), 2);
	check_eq(close(fds[0]), 0);
	check_eq(close(fds[1]), 0);
	sends(0, "a");
}

static void low_verify(int cycle)
{
	(void)cycle;
	takes(200, "a");
	sends(2, "b");
	takes(0, "b");
	check_eq(fcntl(2, F_SETFL, O_NONBLOCK), 0);
	check_eq(fcntl(200, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	check_eq(fcntl(200, F_SETFL, 0), 0);
	sends(0, "a");
}

/* Neither connected nor bound. */
static void alone_setup(void)
{
	fds[0] = made(SOCK_STREAM);
	fds[1] = made(SOCK_DGRAM);
}

static void alone_verify(int cycle)
{
	(void)cycle;
	for (int i = 0; i < 2; i++) {
		check_eq(send(fds[i], "x", 1, MSG_NOSIGNAL), -1);
		check_eq(errno, ENOTCONN);
	}
}

SCENARIOS(
	{ "stream", BOTH, stream_setup, stream_verify, NULL, 0 },
	{ "full", BOTH, full_setup, full_verify, NULL, 0 },
	{ "dgram", BOTH, dgram_setup, message_verify, NULL, 0 },
	{ "seqpacket", BOTH, seqpacket_setup, message_verify, NULL, 0 },
	{ "half", BOTH, half_setup, half_verify, NULL, 0 },
	{ "closed", BOTH, closed_setup, closed_verify, NULL, 0 },
	{ "reset", BOTH, reset_setup, reset_verify, NULL, 0 },
	{ "deaf", BOTH, deaf_setup, deaf_verify, NULL, 0 },
	{ "listen", BOTH, listen_setup, listen_verify, NULL, 0 },
	{ "seqlisten", BOTH, seqlisten_setup, seqlisten_verify, NULL, 0 },
	{ "abstract", BOTH, abstract_setup, abstract_verify, NULL, 0 },
	{ "relative", BOTH, relative_setup, relative_verify, NULL, 0 },
	{ "deleted", BOTH, deleted_setup, deleted_verify, NULL, 0 },
	{ "private", BOTH | ROOT, private_setup, private_verify, NULL, 0 },
	{ "named", BOTH, named_setup, named_refill, NULL, 0 },
	{ "rights", BOTH, rights_setup, rights_verify, NULL, 0 },
	{ "locked", BOTH, locked_setup, locked_verify, NULL, 0 },
	{ "nested", BOTH, nested_setup, nested_verify, NULL, 0 },
	{ "creds", BOTH, creds_setup, creds_verify, NULL, 0 },
	{ "options", BOTH, options_setup, options_verify, NULL, 0 },
	{ "epoll", BOTH, epoll_setup, epoll_verify, NULL, 0 },
	{ "low", BOTH, low_setup, low_verify, NULL, 0 },
	{ "alone", BOTH, alone_setup, alone_verify, NULL, 0 },
)
