/*
 * tcp.c - TCP connections with both ends in the program, and such as are over.
 */
#include "scenario.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static int listener, server, client;
static struct sockaddr_storage names[2][2];
static char big[300 << 10];

static void set(int fd, int level, int name, int value)
{
	if (setsockopt(fd, level, name, &value, sizeof(value)))
		fail("setsockopt %d %d: errno %d", level, name, errno);
}

static int get(int fd, int level, int name)
{
	int value = 0;
	socklen_t n = sizeof(value);

	check_eq(getsockopt(fd, level, name, &value, &n), 0);
	return value;
}

static void names_of(struct sockaddr_storage of[2][2])
{
	int fds[] = { server, client };

	memset(of, 0, sizeof(names));
	for (int i = 0; i < 2; i++) {
		socklen_t n = sizeof(of[0][0]), m = n;

		check_eq(getsockname(fds[i], (void *)&of[i][0], &n), 0);
		check_eq(getpeername(fds[i], (void *)&of[i][1], &m), 0);
	}
	check_eq(memcmp(&of[0][0], &of[1][1], sizeof(of[0][0])), 0);
	check_eq(memcmp(&of[0][1], &of[1][0], sizeof(of[0][0])), 0);
}

/* The addresses are what they were: nobody else wants them here. */
static void names_verify(void)
{
	static struct sockaddr_storage now[2][2];

	names_of(now);
	check_eq(memcmp(now, names, sizeof(names)), 0);
}

/* listening has an address of this program alone where there are many. */
static struct sockaddr_storage listening(int family)
{
	struct sockaddr_storage name = { .ss_family = family };
	struct sockaddr_in *a = (void *)&name;
	struct sockaddr_in6 *b = (void *)&name;
	socklen_t n = sizeof(name);

	if (family == AF_INET) {
		a->sin_addr.s_addr = htonl(127u << 24 | (getpid() & 0x3fffff) << 2 | 2);
	} else {
		b->sin6_addr = in6addr_loopback;
		b->sin6_port = htons(12000 + getpid() % 20000);
	}
	listener = socket(family, SOCK_STREAM, 0);
	check(listener >= 0);
	set(listener, SOL_SOCKET, SO_REUSEADDR, 1);
	if (bind(listener, (void *)&name, sizeof(name)))
		needs("a loopback address");
	check_eq(listen(listener, 5), 0);
	check_eq(getsockname(listener, (void *)&name, &n), 0);
	return name;
}

static void connected(int family, int client_first)
{
	struct sockaddr_storage name = listening(family);

	client = socket(family, SOCK_STREAM, 0);
	check(client >= 0);
	if (!client_first) {
		/* The server's end gets the lower number. */
		int high = fcntl(client, F_DUPFD, 100), low = client;

		check(high >= 0);
		check_eq(close(low), 0);
		client = high;
	}
	check_eq(connect(client, (void *)&name, sizeof(name)), 0);
	server = accept(listener, NULL, NULL);
	check(server >= 0);
	names_of(names);
}

static void say(int fd, const char *text)
{
	check_eq(write(fd, text, strlen(text)), strlen(text));
}

static void hear(int fd, const char *text)
{
	char buf[64];
	size_t have = 0, want = strlen(text);

	while (have < want) {
		ssize_t n = read(fd, buf + have, want - have);

		if (n <= 0)
			fail("read %zd, errno %d, %zu of %zu", n, errno, have, want);
		have += n;
	}
	check_eq(memcmp(buf, text, want), 0);
}

/* Data waits in both directions. */
static void inside_setup(void)
{
	connected(AF_INET, 1);
	set(client, IPPROTO_TCP, TCP_NODELAY, 1);
	set(server, SOL_SOCKET, SO_KEEPALIVE, 1);
	set(server, IPPROTO_TCP, TCP_KEEPIDLE, 44);
	check_eq(fcntl(server, F_SETFL, O_NONBLOCK), 0);
	say(client, "to the server");
	say(server, "to the client");
}

static void inside_verify(int cycle)
{
	(void)cycle;
	names_verify();
	check_eq(get(client, IPPROTO_TCP, TCP_NODELAY), 1);
	check_eq(get(client, SOL_SOCKET, SO_KEEPALIVE), 0);
	check_eq(get(client, SOL_SOCKET, SO_REUSEADDR), 0);
	check_eq(get(server, SOL_SOCKET, SO_KEEPALIVE), 1);
	check_eq(get(server, SOL_SOCKET, SO_REUSEADDR), 1);
	check_eq(get(server, IPPROTO_TCP, TCP_KEEPIDLE), 44);
	hear(server, "to the server");
	hear(client, "to the client");
	say(client, "to the server");
	say(server, "to the client");
}

static void inside6_setup(void)
{
	connected(AF_INET6, 0);
	say(client, "to the server");
}

static void inside6_verify(int cycle)
{
	(void)cycle;
	names_verify();
	hear(server, "to the server");
	say(server, "and back");
	hear(client, "and back");
	say(client, "to the server");
}

/* A client of IPv4 and a server of IPv6, as those that listen to both have. */
static void mixed_setup(void)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6 };
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(any);

	listener = socket(AF_INET6, SOCK_STREAM, 0);
	if (listener < 0)
		needs("IPv6");
	set(listener, SOL_SOCKET, SO_REUSEADDR, 1);
	set(listener, IPPROTO_IPV6, IPV6_V6ONLY, 0);
	check_eq(bind(listener, (void *)&any, sizeof(any)), 0);
	check_eq(listen(listener, 5), 0);
	check_eq(getsockname(listener, (void *)&any, &n), 0);
	to.sin_port = any.sin6_port;
	client = socket(AF_INET, SOCK_STREAM, 0);
	check(client >= 0);
	check_eq(connect(client, (void *)&to, sizeof(to)), 0);
	server = accept(listener, NULL, NULL);
	check(server >= 0);
	say(client, "to the server");
}

static void mixed_verify(int cycle)
{
	(void)cycle;
	check_eq(get(server, SOL_SOCKET, SO_DOMAIN), AF_INET6);
	check_eq(get(client, SOL_SOCKET, SO_DOMAIN), AF_INET);
	hear(server, "to the server");
	say(server, "and back");
	hear(client, "and back");
	say(client, "to the server");
}

/*
 * Still connecting: the queue of the listening socket is full of connections
 * that are over, and so it does not answer. After a restart it is empty.
 */
static int state(int fd)
{
	struct tcp_info info;
	socklen_t n = sizeof(info);

	check_eq(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n), 0);
	return info.tcpi_state;
}

static int begun(void)
{
	struct sockaddr_storage name;
	socklen_t n = sizeof(name);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	check(fd >= 0);
	check_eq(getsockname(listener, (void *)&name, &n), 0);
	if (connect(fd, (void *)&name, n))
		check_eq(errno, EINPROGRESS);
	return fd;
}

static void connecting_begin(void)
{
	struct pollfd p = { .events = POLLOUT };

	/* One fits a queue of 0 (sk_acceptq_is_full). */
	p.fd = begun();
	check_eq(poll(&p, 1, 10000), 1);
	check_eq(close(p.fd), 0);
	client = begun();
	check_eq(state(client), TCP_SYN_SENT);
}

static void connecting_setup(void)
{
	listening(AF_INET);
	check_eq(listen(listener, 0), 0);
	check_eq(fcntl(listener, F_SETFL, O_NONBLOCK), 0);
	connecting_begin();
}

static void connecting_verify(int cycle)
{
	struct pollfd p = { client, POLLOUT, 0 };
	int fd;

	(void)cycle;
	check_eq(fcntl(client, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	while ((fd = accept(listener, NULL, NULL)) >= 0)
		check_eq(close(fd), 0);
	check_eq(errno, EAGAIN);
	check_eq(poll(&p, 1, 30000), 1);
	check_eq(get(client, SOL_SOCKET, SO_ERROR), 0);
	check_eq(close(client), 0);
	p.fd = listener;
	while (poll(&p, 1, 100), (fd = accept(listener, NULL, NULL)) >= 0)
		check_eq(close(fd), 0);
	connecting_begin();
}

/* One end has said that no more will come. */
static void half_setup(void)
{
	connected(AF_INET, 0);
	say(client, "the last");
	check_eq(shutdown(client, SHUT_WR), 0);
}

static void half_verify(int cycle)
{
	struct pollfd p = { server, POLLIN | POLLRDHUP, 0 };
	char c;

	names_verify();
	check_eq(poll(&p, 1, 10000), 1);
	check(p.revents & POLLRDHUP);
	check_eq(write(client, "x", 1), -1);
	check_eq(errno, EPIPE);
	say(server, "still");
	hear(client, "still");
	if (cycle < 3)
		return;
	hear(server, "the last");
	check_eq(read(server, &c, 1), 0);
}

static void half_start(void)
{
	check(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
	half_setup();
}

/* More than the buffers of a fresh connection take at once. */
static void big_fill(void)
{
	size_t sent = 0;

	fill(big, sizeof(big), 7);
	check_eq(fcntl(client, F_SETFL, O_NONBLOCK), 0);
	while (sent < sizeof(big)) {
		ssize_t n = write(client, big + sent, sizeof(big) - sent);

		if (n < 0)
			fail("write: errno %d behind %zu", errno, sent);
		sent += n;
	}
	check_eq(fcntl(client, F_SETFL, 0), 0);
	memset(big, 0, sizeof(big));
}

static void big_setup(void)
{
	struct sockaddr_storage name = listening(AF_INET);

	/* Room for all of it in the receiver's buffer, before it is offered. */
	set(listener, SOL_SOCKET, SO_RCVBUF, 2 * sizeof(big));
	client = socket(AF_INET, SOCK_STREAM, 0);
	check(client >= 0);
	check_eq(connect(client, (void *)&name, sizeof(name)), 0);
	server = accept(listener, NULL, NULL);
	check(server >= 0);
	names_of(names);
	big_fill();
}

static void big_verify(int cycle)
{
	size_t have = 0;

	(void)cycle;
	names_verify();
	while (have < sizeof(big)) {
		ssize_t n = read(server, big + have, sizeof(big) - have);

		if (n <= 0)
			fail("read %zd, errno %d", n, errno);
		have += n;
	}
	filled(big, sizeof(big), 7);
	big_fill();
}

/*
 * What the other end has had no room for stays with the one that sent it; to
 * read it there takes CAP_NET_ADMIN.
 */
static void unsent_setup(void)
{
	struct sockaddr_storage name = listening(AF_INET);

	set(listener, SOL_SOCKET, SO_RCVBUF, 8000);
	client = socket(AF_INET, SOCK_STREAM, 0);
	check(client >= 0);
	set(client, SOL_SOCKET, SO_SNDBUF, 2 * sizeof(big));
	check_eq(connect(client, (void *)&name, sizeof(name)), 0);
	server = accept(listener, NULL, NULL);
	check(server >= 0);
	names_of(names);
	big_fill();
}

/* Many connections to one port, watched by epoll. */
#define MANY 20
static int many[MANY][2], epfd;

static void many_setup(void)
{
	struct sockaddr_storage name = listening(AF_INET);

	epfd = epoll_create1(0);
	check(epfd >= 0);
	for (int i = 0; i < MANY; i++) {
		struct epoll_event event = { .events = EPOLLIN, .data.u32 = i };

		many[i][0] = socket(AF_INET, SOCK_STREAM, 0);
		check_eq(connect(many[i][0], (void *)&name, sizeof(name)), 0);
		many[i][1] = accept(listener, NULL, NULL);
		check(many[i][1] >= 0);
		check_eq(epoll_ctl(epfd, EPOLL_CTL_ADD, many[i][1], &event), 0);
	}
	say(many[3][0], "three");
}

static void many_verify(int cycle)
{
	struct epoll_event event;

	(void)cycle;
	check_eq(epoll_wait(epfd, &event, 1, 10000), 1);
	check_eq(event.data.u32, 3);
	hear(many[3][1], "three");
	check_eq(epoll_wait(epfd, &event, 1, 0), 0);
	for (int i = 0; i < MANY; i++) {
		say(many[i][1], "hello");
		hear(many[i][0], "hello");
	}
	say(many[3][0], "three");
}

/* Both ends have closed, in order; what was said is still to be read. */
static void over_setup(void)
{
	char c;

	connected(AF_INET, 1);
	say(client, "the last");
	check_eq(shutdown(client, SHUT_WR), 0);
	check_eq(shutdown(server, SHUT_WR), 0);
	check_eq(read(client, &c, 1), 0);
	check_eq(close(client), 0);
}

static void over_verify(int cycle)
{
	struct pollfd p = { server, POLLIN | POLLOUT | POLLRDHUP, 0 };
	char buf[16];

	check_eq(poll(&p, 1, 0), 1);
	check_eq(p.revents, POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
	check_eq(recv(server, buf, sizeof(buf), MSG_PEEK), 8);
	check_eq(get(server, SOL_SOCKET, SO_ERROR), 0);
	if (cycle < 3)
		return;
	hear(server, "the last");
	check_eq(read(server, buf, 1), 0);
}

/* A connection that was reset; the program has not looked yet. */
static void reset_setup(void)
{
	struct linger linger = { 1, 0 };

	connected(AF_INET6, 1);
	say(client, "the last");
	check_eq(setsockopt(client, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
	check_eq(close(client), 0);
}

static void reset_verify(int cycle)
{
	struct pollfd p = { server, POLLIN | POLLOUT | POLLRDHUP, 0 };
	char buf[16];

	check_eq(poll(&p, 1, 10000), 1);
	check_eq(p.revents, POLLIN | POLLOUT | POLLRDHUP | POLLHUP | POLLERR);
	if (cycle < 3)
		return;
	hear(server, "the last");
	check_eq(read(server, buf, 1), -1);
	check_eq(errno, ECONNRESET);
	check_eq(read(server, buf, 1), 0);
}

SCENARIOS(
	{ "inside", BOTH, inside_setup, inside_verify, NULL, 0 },
	{ "inside6", BOTH, inside6_setup, inside6_verify, NULL, 0 },
	{ "mixed", BOTH, mixed_setup, mixed_verify, NULL, 0 },
	{ "connecting", BOTH, connecting_setup, connecting_verify, NULL, 0 },
	{ "half", BOTH, half_start, half_verify, NULL, 0 },
	{ "big", BOTH, big_setup, big_verify, NULL, 0 },
	{ "unsent", BOTH | ROOT, unsent_setup, big_verify, NULL, 0 },
	{ "many", BOTH, many_setup, many_verify, NULL, 0 },
	{ "over", BOTH, over_setup, over_verify, NULL, 0 },
	{ "reset", BOTH, reset_setup, reset_verify, NULL, 0 },
)
