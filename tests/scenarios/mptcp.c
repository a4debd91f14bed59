/*
 * mptcp.c - sockets of MPTCP: such as listen or are not connected, connections
 * with both ends in the program, of which one or both speak MPTCP, and such as
 * are over.
 */
#include "scenario.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define MPTCP 262	/* IPPROTO_MPTCP; musl has none */

static int listener, server, client;
static int fds[8];
static struct sockaddr_storage names[8];

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

static int multipath(int family)
{
	int fd = socket(family, SOCK_STREAM, MPTCP);

	if (fd < 0)
		needs("MPTCP (net.mptcp.enabled)");
	return fd;
}

static struct sockaddr_storage name_of(int fd, int (*ask)(int, struct sockaddr *, socklen_t *))
{
	struct sockaddr_storage name = { .ss_family = 0 };
	socklen_t n = sizeof(name);

	check_eq(ask(fd, (void *)&name, &n), 0);
	return name;
}

static void same_name(int fd, int (*ask)(int, struct sockaddr *, socklen_t *), const struct sockaddr_storage *was)
{
	struct sockaddr_storage name = name_of(fd, ask);

	check_eq(memcmp(&name, was, sizeof(name)), 0);
}

/* own_address is one of this program alone. */
static struct sockaddr_in own_address(void)
{
	struct sockaddr_in a = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(127u << 24 | (getpid() & 0x3fffff) << 2 | 1),
	};

	return a;
}

static void listens(int protocol)
{
	struct sockaddr_in a = own_address();

	listener = protocol ? multipath(AF_INET) : socket(AF_INET, SOCK_STREAM, 0);
	check(listener >= 0);
	set(listener, SOL_SOCKET, SO_REUSEADDR, 1);
	if (bind(listener, (void *)&a, sizeof(a)))
		needs("a loopback address");
	check_eq(listen(listener, 5), 0);
}

/* connected makes a connection from a socket of the one kind to one of the other. */
static void connected(int from, int to)
{
	struct sockaddr_storage a;

	listens(to);
	a = name_of(listener, getsockname);
	client = from ? multipath(AF_INET) : socket(AF_INET, SOCK_STREAM, 0);
	check(client >= 0);
	check_eq(connect(client, (void *)&a, sizeof(struct sockaddr_in)), 0);
	server = accept(listener, NULL, NULL);
	check(server >= 0);
	check_eq(get(client, SOL_SOCKET, SO_PROTOCOL), from ? MPTCP : IPPROTO_TCP);
	check_eq(get(server, SOL_SOCKET, SO_PROTOCOL), from && to ? MPTCP : IPPROTO_TCP);
	names[0] = name_of(client, getsockname);
	names[1] = name_of(server, getsockname);
}

static void connected_verify(int from, int to)
{
	check_eq(get(listener, SOL_SOCKET, SO_PROTOCOL), to ? MPTCP : IPPROTO_TCP);
	check_eq(get(client, SOL_SOCKET, SO_PROTOCOL), from ? MPTCP : IPPROTO_TCP);
	check_eq(get(server, SOL_SOCKET, SO_PROTOCOL), from && to ? MPTCP : IPPROTO_TCP);
	same_name(client, getsockname, &names[0]);
	same_name(server, getsockname, &names[1]);
	same_name(client, getpeername, &names[1]);
	same_name(server, getpeername, &names[0]);
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

/* ---- without a connection ---- */

static const struct { int level, name, value; } options[] = {
	{ SOL_SOCKET, SO_REUSEPORT, 1 },
	{ SOL_SOCKET, SO_KEEPALIVE, 1 },
	{ SOL_SOCKET, SO_RCVLOWAT, 3 },
	{ IPPROTO_IP, IP_FREEBIND, 1 },
	{ IPPROTO_TCP, TCP_NODELAY, 1 },
	{ IPPROTO_TCP, TCP_KEEPIDLE, 33 },
	{ IPPROTO_TCP, TCP_KEEPINTVL, 5 },
	{ IPPROTO_TCP, TCP_KEEPCNT, 4 },
	{ IPPROTO_TCP, TCP_DEFER_ACCEPT, 7 },
	{ IPPROTO_TCP, TCP_FASTOPEN, 12 },
	{ SOL_SOCKET, SO_RCVBUF, 50000 },
	{ SOL_SOCKET, SO_PRIORITY, 3 },
};
#define OPTIONS (sizeof(options) / sizeof(*options))
static int values[OPTIONS];

static int backlog(int fd)
{
	struct tcp_info info;
	socklen_t n = sizeof(info);

	check_eq(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n), 0);
	check_eq(info.tcpi_state, TCP_LISTEN);
	return info.tcpi_sacked;
}

/* visit connects to a listening socket, by TCP and by MPTCP. */
static void visit(int fd)
{
	struct sockaddr_storage to = name_of(fd, getsockname);

	for (int protocol = 0; protocol <= MPTCP; protocol += MPTCP) {
		int own = socket(to.ss_family, SOCK_STREAM, protocol), other;

		check(own >= 0);
		check_eq(connect(own, (void *)&to, to.ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6)), 0);
		say(own, "hello"); /* TCP_DEFER_ACCEPT waits for it */
		other = accept(fd, NULL, NULL);
		check(other >= 0);
		check_eq(get(other, SOL_SOCKET, SO_PROTOCOL), protocol ? MPTCP : IPPROTO_TCP);
		hear(other, "hello");
		/* The client is the first to end, so that it is its port that waits. */
		check_eq(close(own), 0);
		check_eq(close(other), 0);
	}
}

static void listen_setup(void)
{
	struct sockaddr_in a = own_address();
	struct sockaddr_in6 any = { .sin6_family = AF_INET6 };
	struct epoll_event event = { .events = EPOLLIN };

	fds[0] = multipath(AF_INET);
	for (size_t i = 0; i < OPTIONS; i++) {
		set(fds[0], options[i].level, options[i].name, options[i].value);
		values[i] = get(fds[0], options[i].level, options[i].name);
	}
	if (bind(fds[0], (void *)&a, sizeof(a)))
		needs("a loopback address");
	check_eq(listen(fds[0], 33), 0);

	/* As a Go program listens: to both families, and watched by epoll. */
	fds[1] = multipath(AF_INET6);
	set(fds[1], IPPROTO_IPV6, IPV6_V6ONLY, 0);
	set(fds[1], SOL_SOCKET, SO_REUSEADDR, 1);
	check_eq(bind(fds[1], (void *)&any, sizeof(any)), 0);
	check_eq(listen(fds[1], 44), 0);
	fds[2] = epoll_create1(0);
	check_eq(epoll_ctl(fds[2], EPOLL_CTL_ADD, fds[1], &event), 0);

	/* Not bound, and bound only. */
	fds[3] = multipath(AF_INET);
	set(fds[3], SOL_SOCKET, SO_SNDBUF, 40000);
	set(fds[3], IPPROTO_TCP, TCP_NODELAY, 1);
	check_eq(fcntl(fds[3], F_SETFL, O_NONBLOCK), 0);
	fds[4] = multipath(AF_INET);
	check_eq(bind(fds[4], (void *)&a, sizeof(a)), 0);
	for (int i = 0; i < 5; i++)
		if (i != 2)
			names[i] = name_of(fds[i], getsockname);
}

static void listen_verify(int cycle)
{
	struct epoll_event event;

	(void)cycle;
	for (int i = 0; i < 5; i++) {
		if (i == 2)
			continue;
		check_eq(get(fds[i], SOL_SOCKET, SO_PROTOCOL), MPTCP);
		check_eq(get(fds[i], SOL_SOCKET, SO_ACCEPTCONN), i < 2);
		check_eq(get(fds[i], SOL_SOCKET, SO_REUSEADDR), i == 1);
		same_name(fds[i], getsockname, &names[i]);
	}
	for (size_t i = 0; i < OPTIONS; i++)
		if (get(fds[0], options[i].level, options[i].name) != values[i])
			fail("option %d of level %d is %d, not %d", options[i].name, options[i].level,
			     get(fds[0], options[i].level, options[i].name), values[i]);
	check_eq(backlog(fds[0]), 33);
	check_eq(backlog(fds[1]), 44);
	check_eq(get(fds[1], IPPROTO_IPV6, IPV6_V6ONLY), 0);
	check_eq(get(fds[3], SOL_SOCKET, SO_SNDBUF), 80000);
	check_eq(get(fds[3], IPPROTO_TCP, TCP_NODELAY), 1);
	check_eq(epoll_wait(fds[2], &event, 1, 0), 0);
	visit(fds[1]);
}

/* ---- both ends in the program ---- */

static void inside_setup(void)
{
	connected(MPTCP, MPTCP);
	set(client, IPPROTO_TCP, TCP_NODELAY, 1);
	set(server, SOL_SOCKET, SO_KEEPALIVE, 1);
	say(client, "to the server");
	say(server, "to the client");
}

static void talk(void)
{
	hear(server, "to the server");
	hear(client, "to the client");
	say(client, "to the server");
	say(server, "to the client");
}

static void inside_verify(int cycle)
{
	(void)cycle;
	connected_verify(MPTCP, MPTCP);
	check_eq(get(client, IPPROTO_TCP, TCP_NODELAY), 1);
	check_eq(get(server, SOL_SOCKET, SO_KEEPALIVE), 1);
	talk();
}

/* IPv6, and that alone. */
static void inside6_setup(void)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_addr = in6addr_loopback, .sin6_port = htons(12000 + getpid() % 20000) };

	listener = multipath(AF_INET6);
	client = multipath(AF_INET6);
	set(listener, SOL_SOCKET, SO_REUSEADDR, 1);
	set(listener, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	if (bind(listener, (void *)&a, sizeof(a)))
		needs("a port of ::1");
	check_eq(listen(listener, 5), 0);
	check_eq(connect(client, (void *)&a, sizeof(a)), 0);
	server = accept(listener, NULL, NULL);
	check(server >= 0);
	names[0] = name_of(client, getsockname);
	names[1] = name_of(server, getsockname);
	set(server, IPPROTO_TCP, TCP_KEEPCNT, 6);
	say(client, "to the server");
	say(server, "to the client");
}

static void inside6_verify(int cycle)
{
	(void)cycle;
	connected_verify(MPTCP, MPTCP);
	check_eq(get(listener, IPPROTO_IPV6, IPV6_V6ONLY), 1);
	check_eq(get(server, IPPROTO_IPV6, IPV6_V6ONLY), 1);
	check_eq(get(client, IPPROTO_IPV6, IPV6_V6ONLY), 0);
	check_eq(get(server, IPPROTO_TCP, TCP_KEEPCNT), 6);
	talk();
}

/* A client that speaks TCP: the server's end is a TCP socket. */
static void plain_setup(void)
{
	connected(0, MPTCP);
	say(client, "to the server");
	say(server, "to the client");
}

static void plain_verify(int cycle)
{
	(void)cycle;
	connected_verify(0, MPTCP);
	talk();
}

/* A server that speaks TCP: the client has fallen back to it. */
static void fallback_setup(void)
{
	connected(MPTCP, 0);
	set(client, IPPROTO_TCP, TCP_KEEPIDLE, 77);
	say(client, "to the server");
	say(server, "to the client");
}

static void fallback_verify(int cycle)
{
	(void)cycle;
	connected_verify(MPTCP, 0);
	check_eq(get(client, IPPROTO_TCP, TCP_KEEPIDLE), 77);
	talk();
}

/* One end has said that no more will come. */
static void half_setup(void)
{
	check(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
	connected(MPTCP, MPTCP);
	say(client, "the last");
	check_eq(shutdown(client, SHUT_WR), 0);
}

static void half_verify(int cycle)
{
	struct pollfd p = { server, POLLRDHUP, 0 };
	char c;

	connected_verify(MPTCP, MPTCP);
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

/* ---- over ---- */

/* The other end has vanished; what it had said, if anything, is still to be read. */
static void vanished(const char *last)
{
	struct linger now = { 1, 0 };
	struct pollfd p = { .events = POLLRDHUP };

	check(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
	connected(MPTCP, MPTCP);
	say(client, last);
	p.fd = server;
	check_eq(setsockopt(client, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
	/* A reset overtakes what has not arrived. */
	for (char buf[8]; *last && recv(server, buf, 8, MSG_PEEK) < 8;)
		;
	check_eq(close(client), 0);
	check_eq(poll(&p, 1, 10000), 1);
	check(p.revents & POLLERR);
}

static void reset_setup(void)
{
	vanished("the last");
}

static void silent_setup(void)
{
	vanished("");
}

static void over_verify(int cycle, const char *last)
{
	struct pollfd p = { server, POLLIN | POLLRDHUP, 0 };
	struct sockaddr_storage name;
	socklen_t n = sizeof(name);
	char c;

	check_eq(get(server, SOL_SOCKET, SO_PROTOCOL), MPTCP);
	check_eq(getpeername(server, (void *)&name, &n), -1);
	check_eq(errno, ENOTCONN);
	check_eq(poll(&p, 1, 10000), 1);
	check(p.revents & POLLRDHUP);
	check(p.revents & POLLERR);
	if (cycle < 3)
		return;
	hear(server, last);
	check_eq(read(server, &c, 1), -1);
	check_eq(errno, ECONNRESET);
	check_eq(read(server, &c, 1), 0);
	check_eq(write(server, "x", 1), -1);
	check_eq(errno, EPIPE);
}

static void reset_verify(int cycle)
{
	over_verify(cycle, "the last");
}

static void silent_verify(int cycle)
{
	over_verify(cycle, "");
}

SCENARIOS(
	{ "listen", BOTH, listen_setup, listen_verify, NULL, 0 },
	{ "inside", BOTH, inside_setup, inside_verify, NULL, 0 },
	{ "inside6", BOTH, inside6_setup, inside6_verify, NULL, 0 },
	{ "plain", BOTH, plain_setup, plain_verify, NULL, 0 },
	{ "fallback", BOTH, fallback_setup, fallback_verify, NULL, 0 },
	{ "half", BOTH, half_setup, half_verify, NULL, 0 },
	{ "reset", BOTH, reset_setup, reset_verify, NULL, 0 },
	{ "silent", BOTH, silent_setup, silent_verify, NULL, 0 },
)
