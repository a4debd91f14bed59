/*
 * inet.c - UDP and TCP sockets that lead to nobody outside.
 *
 * Several of these programs run at once: each has an address of its own in
 * 127.0.0.0/8, and ports of its own where there is but one address, ::1.
 */
#include "scenario.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#ifndef TCP_FASTOPEN
#define TCP_FASTOPEN 23
#endif
#ifndef TCP_USER_TIMEOUT
#define TCP_USER_TIMEOUT 18
#endif

static int fds[8];

/* local is an address of this program alone; port 0 has the kernel choose. */
static struct sockaddr_in local(int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
	unsigned pid = getpid();

	a.sin_addr.s_addr = htonl(127u << 24 | (pid & 0x3fffff) << 2 | 1);
	return a;
}

static struct sockaddr_in6 local6(void)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_addr = in6addr_loopback };

	a.sin6_port = htons(12000 + getpid() % 20000);
	return a;
}

static int got(int fd, const char *what)
{
	if (fd < 0 && (errno == EAFNOSUPPORT || errno == EPROTONOSUPPORT))
		needs("%s", what);
	if (fd < 0)
		fail("%s: errno %d", what, errno);
	return fd;
}

static int udp(int family) { return got(socket(family, SOCK_DGRAM, 0), "UDP"); }
static int tcp(int family) { return got(socket(family, SOCK_STREAM, 0), "TCP"); }

static void set(int fd, int level, int name, int value)
{
	if (setsockopt(fd, level, name, &value, sizeof(value)))
		fail("setsockopt %d %d: errno %d", level, name, errno);
}

static int get(int fd, int level, int name)
{
	int value = 0;
	socklen_t n = sizeof(value);

	if (getsockopt(fd, level, name, &value, &n))
		fail("getsockopt %d %d: errno %d", level, name, errno);
	return value;
}

static int bound(int fd, const void *address, socklen_t size)
{
	if (bind(fd, address, size)) {
		if (errno == EADDRNOTAVAIL)
			needs("::1");
		fail("bind: errno %d", errno);
	}
	return fd;
}

/* A name stays what it was. */
static struct sockaddr_storage names[8][2];

static void name_of(int i, struct sockaddr_storage two[2])
{
	for (int k = 0; k < 2; k++) {
		socklen_t n = sizeof(two[k]);

		memset(&two[k], 0, sizeof(two[k]));
		if (k == 0)
			check_eq(getsockname(fds[i], (void *)&two[k], &n), 0);
		else if (getpeername(fds[i], (void *)&two[k], &n))
			check_eq(errno, ENOTCONN);
	}
}

static void names_setup(int n)
{
	for (int i = 0; i < n; i++)
		name_of(i, names[i]);
}

static void names_verify(int n)
{
	struct sockaddr_storage now[2];

	for (int i = 0; i < n; i++) {
		name_of(i, now);
		check_eq(memcmp(now, names[i], sizeof(now)), 0);
	}
}

static void ready(int fd, int events)
{
	struct pollfd p = { fd, events, 0 };

	check_eq(poll(&p, 1, 10000), 1);
}

static int events(int fd)
{
	struct pollfd p = { fd, POLLIN | POLLOUT | POLLRDHUP, 0 };

	check(poll(&p, 1, 0) >= 0);
	return p.revents;
}

/* ---- UDP ---- */

static void said(int from, int to, const struct sockaddr *address, socklen_t size)
{
	char buf[8];

	check_eq(sendto(from, "hello", 5, 0, address, size), 5);
	ready(to, POLLIN);
	check_eq(recv(to, buf, sizeof(buf), MSG_DONTWAIT), 5);
	check_eq(memcmp(buf, "hello", 5), 0);
}

/* 0 is bound, 1 connected to it, 2 not even bound. */
static void udp_setup(void)
{
	struct sockaddr_in a = local(0);

	fds[0] = bound(udp(AF_INET), &a, sizeof(a));
	fds[1] = udp(AF_INET);
	fds[2] = udp(AF_INET);
	names_setup(1);
	check_eq(connect(fds[1], (void *)&names[0][0], sizeof(a)), 0);
	names_setup(3);
}

static void udp_verify(int cycle)
{
	(void)cycle;
	names_verify(3);
	said(fds[1], fds[0], NULL, 0);
	said(fds[0], fds[1], (void *)&names[1][0], sizeof(struct sockaddr_in));
	check_eq(get(fds[2], SOL_SOCKET, SO_REUSEADDR), 0);
}

static void udp6_setup(void)
{
	struct sockaddr_in6 a = local6();

	fds[0] = bound(udp(AF_INET6), &a, sizeof(a));
	fds[1] = udp(AF_INET6);
	names_setup(1);
	check_eq(connect(fds[1], (void *)&names[0][0], sizeof(a)), 0);
	names_setup(2);
}

static void udp6_verify(int cycle)
{
	(void)cycle;
	names_verify(2);
	said(fds[1], fds[0], NULL, 0);
	said(fds[0], fds[1], (void *)&names[1][0], sizeof(struct sockaddr_in6));
}

static const struct { int level, name, value; } udp_options[] = {
	{ SOL_SOCKET, SO_BROADCAST, 1 },
	{ SOL_SOCKET, SO_REUSEADDR, 1 },
	{ SOL_SOCKET, SO_REUSEPORT, 1 },
	{ SOL_SOCKET, SO_DONTROUTE, 1 },
	{ SOL_SOCKET, SO_RCVBUF, 30000 },
	{ SOL_SOCKET, SO_SNDBUF, 40000 },
	{ SOL_SOCKET, SO_TIMESTAMP, 1 },
	{ SOL_SOCKET, SO_PRIORITY, 3 },
	{ IPPROTO_IP, IP_TOS, 0x10 },
	{ IPPROTO_IP, IP_TTL, 17 },
	{ IPPROTO_IP, IP_MULTICAST_TTL, 9 },
	{ IPPROTO_IP, IP_MULTICAST_LOOP, 0 },
	{ IPPROTO_IP, IP_RECVTTL, 1 },
	{ IPPROTO_IP, IP_PKTINFO, 1 },
	{ IPPROTO_IP, IP_RECVERR, 1 },
	{ IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE },
	{ IPPROTO_IP, IP_FREEBIND, 1 },
};
#define UDP_OPTIONS (sizeof(udp_options) / sizeof(*udp_options))
static int udp_values[UDP_OPTIONS];

static void udp_options_setup(void)
{
	struct sockaddr_in a = local(0);
	struct timeval timeout = { 3, 500000 };

	fds[0] = udp(AF_INET);
	for (size_t i = 0; i < UDP_OPTIONS; i++)
		set(fds[0], udp_options[i].level, udp_options[i].name, udp_options[i].value);
	check_eq(setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)), 0);
	bound(fds[0], &a, sizeof(a));
	names_setup(1);
	/* A second socket on the same port. */
	fds[1] = udp(AF_INET);
	set(fds[1], SOL_SOCKET, SO_REUSEADDR, 1);
	set(fds[1], SOL_SOCKET, SO_REUSEPORT, 1);
	bound(fds[1], &names[0][0], sizeof(a));
	names_setup(2);
	for (size_t i = 0; i < UDP_OPTIONS; i++)
		udp_values[i] = get(fds[0], udp_options[i].level, udp_options[i].name);
}

static void udp_options_verify(int cycle)
{
	struct timeval timeout;
	socklen_t n = sizeof(timeout);

	(void)cycle;
	names_verify(2);
	for (size_t i = 0; i < UDP_OPTIONS; i++)
		check_eq(get(fds[0], udp_options[i].level, udp_options[i].name), udp_values[i]);
	check_eq(getsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &timeout, &n), 0);
	check_eq(timeout.tv_sec, 3);
	check_eq(timeout.tv_usec, 500000);
	check_eq(get(fds[0], SOL_SOCKET, SO_BUF_LOCK), 3);
	check_eq(get(fds[1], SOL_SOCKET, SO_BUF_LOCK), 0);
}

/* A datagram that waits may be lost, but the socket goes on. */
static void udp_waiting_setup(void)
{
	udp_setup();
	check_eq(send(fds[1], "lost?", 5, 0), 5);
	ready(fds[0], POLLIN);
}

static void udp_waiting_verify(int cycle)
{
	char buf[8];

	while (recv(fds[0], buf, sizeof(buf), MSG_DONTWAIT) == 5)
		check_eq(memcmp(buf, "lost?", 5), 0);
	udp_verify(cycle);
	check_eq(send(fds[1], "lost?", 5, 0), 5);
	ready(fds[0], POLLIN);
}

/* Groups on the loopback interface: one plain, one with a single sender. */
static void group_setup(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	struct ip_mreqn plain = { .imr_ifindex = if_nametoindex("lo") };
	struct ip_mreq_source one;

	plain.imr_multiaddr.s_addr = inet_addr("239.1.2.3");
	one.imr_multiaddr.s_addr = inet_addr("239.1.2.4");
	one.imr_interface.s_addr = inet_addr("127.0.0.1");
	one.imr_sourceaddr.s_addr = local(0).sin_addr.s_addr;
	fds[0] = bound(udp(AF_INET), &a, sizeof(a));
	fds[1] = bound(udp(AF_INET), &(struct sockaddr_in){ .sin_family = AF_INET, .sin_addr = local(0).sin_addr }, sizeof(a));
	set(fds[0], IPPROTO_IP, IP_MULTICAST_ALL, 0);
	if (setsockopt(fds[0], IPPROTO_IP, IP_ADD_MEMBERSHIP, &plain, sizeof(plain)))
		needs("multicast on the loopback interface");
	check_eq(setsockopt(fds[0], IPPROTO_IP, IP_ADD_SOURCE_MEMBERSHIP, &one, sizeof(one)), 0);
	check_eq(setsockopt(fds[1], IPPROTO_IP, IP_MULTICAST_IF, &plain, sizeof(plain)), 0);
	names_setup(2);
}

static void group_verify(int cycle)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = ((struct sockaddr_in *)&names[0][0])->sin_port };
	struct ip_mreqn plain = { .imr_ifindex = if_nametoindex("lo") };
	struct ip_mreq by_address;

	(void)cycle;
	names_verify(2);
	check_eq(setsockopt(fds[1], IPPROTO_IP, IP_MULTICAST_IF, &plain, sizeof(plain)), 0);
	to.sin_addr.s_addr = inet_addr("239.1.2.3");
	said(fds[1], fds[0], (void *)&to, sizeof(to));
	to.sin_addr.s_addr = inet_addr("239.1.2.4");
	said(fds[1], fds[0], (void *)&to, sizeof(to));
	/* It is in no other group, and may leave this one by address. */
	by_address.imr_multiaddr.s_addr = inet_addr("239.1.2.3");
	by_address.imr_interface.s_addr = htonl(INADDR_LOOPBACK);
	check_eq(setsockopt(fds[0], IPPROTO_IP, IP_DROP_MEMBERSHIP, &by_address, sizeof(by_address)), 0);
	check_eq(setsockopt(fds[0], IPPROTO_IP, IP_DROP_MEMBERSHIP, &by_address, sizeof(by_address)), -1);
	check_eq(errno, EADDRNOTAVAIL);
	plain.imr_multiaddr = by_address.imr_multiaddr;
	check_eq(setsockopt(fds[0], IPPROTO_IP, IP_ADD_MEMBERSHIP, &plain, sizeof(plain)), 0);
}

static void group6_setup(void)
{
	struct ipv6_mreq request = { .ipv6mr_interface = if_nametoindex("lo") };
	struct sockaddr_in6 a = { .sin6_family = AF_INET6 };

	check_eq(inet_pton(AF_INET6, "ff12::4321", &request.ipv6mr_multiaddr), 1);
	fds[0] = bound(udp(AF_INET6), &a, sizeof(a));
	if (setsockopt(fds[0], IPPROTO_IPV6, IPV6_JOIN_GROUP, &request, sizeof(request)))
		needs("IPv6 multicast on the loopback interface");
	names_setup(1);
}

static void group6_verify(int cycle)
{
	struct ipv6_mreq request = { .ipv6mr_interface = if_nametoindex("lo") };

	(void)cycle;
	names_verify(1);
	check_eq(inet_pton(AF_INET6, "ff12::4321", &request.ipv6mr_multiaddr), 1);
	check_eq(setsockopt(fds[0], IPPROTO_IPV6, IPV6_LEAVE_GROUP, &request, sizeof(request)), 0);
	check_eq(setsockopt(fds[0], IPPROTO_IPV6, IPV6_LEAVE_GROUP, &request, sizeof(request)), -1);
	check_eq(setsockopt(fds[0], IPPROTO_IPV6, IPV6_JOIN_GROUP, &request, sizeof(request)), 0);
}

/* ---- TCP that is not connected ---- */

static void fresh_setup(void)
{
	struct sockaddr_in a = local(0);

	fds[0] = tcp(AF_INET);
	set(fds[0], IPPROTO_TCP, TCP_NODELAY, 1);
	set(fds[0], SOL_SOCKET, SO_KEEPALIVE, 1);
	set(fds[0], IPPROTO_TCP, TCP_KEEPIDLE, 77);
	fds[1] = bound(tcp(AF_INET), &a, sizeof(a));
	check_eq(fcntl(fds[1], F_SETFL, O_NONBLOCK), 0);
	names_setup(2);
}

static void fresh_verify(int cycle)
{
	char c;

	(void)cycle;
	names_verify(2);
	check_eq(get(fds[0], IPPROTO_TCP, TCP_NODELAY), 1);
	check_eq(get(fds[0], SOL_SOCKET, SO_KEEPALIVE), 1);
	check_eq(get(fds[0], IPPROTO_TCP, TCP_KEEPIDLE), 77);
	check_eq(get(fds[1], SOL_SOCKET, SO_REUSEADDR), 0);
	check_eq(get(fds[1], SOL_SOCKET, SO_ACCEPTCONN), 0);
	check_eq(recv(fds[0], &c, 1, 0), -1);
	check_eq(errno, ENOTCONN);
	check_eq(events(fds[0]), POLLOUT | POLLHUP);
}

/* served makes a connection to a listening socket and ends it again. */
static void served(int listener, const void *address, socklen_t size)
{
	char buf[8];
	int client = tcp(((const struct sockaddr *)address)->sa_family), server;

	check_eq(connect(client, address, size), 0);
	check_eq(write(client, "hello", 5), 5);	/* TCP_DEFER_ACCEPT waits for it */
	server = accept(listener, NULL, NULL);
	check(server >= 0);
	ready(server, POLLIN);
	check_eq(read(server, buf, sizeof(buf)), 5);
	/* Closed here first, so that TIME_WAIT holds the server's port. */
	check_eq(close(server), 0);
	check_eq(read(client, buf, sizeof(buf)), 0);
	check_eq(close(client), 0);
}

static const struct { int level, name, value; } listen_options[] = {
	{ SOL_SOCKET, SO_REUSEADDR, 1 },
	{ SOL_SOCKET, SO_KEEPALIVE, 1 },
	{ SOL_SOCKET, SO_RCVBUF, 50000 },
	{ IPPROTO_TCP, TCP_NODELAY, 1 },
	{ IPPROTO_TCP, TCP_KEEPIDLE, 55 },
	{ IPPROTO_TCP, TCP_KEEPINTVL, 11 },
	{ IPPROTO_TCP, TCP_KEEPCNT, 4 },
	{ IPPROTO_TCP, TCP_DEFER_ACCEPT, 7 },
	{ IPPROTO_TCP, TCP_FASTOPEN, 5 },
	{ IPPROTO_TCP, TCP_USER_TIMEOUT, 9000 },
	{ IPPROTO_TCP, TCP_SYNCNT, 3 },
	{ IPPROTO_TCP, TCP_LINGER2, 21 },
	{ IPPROTO_IP, IP_TOS, 0x08 },
};
#define LISTEN_OPTIONS (sizeof(listen_options) / sizeof(*listen_options))
static int listen_values[LISTEN_OPTIONS];

static void listen_setup(void)
{
	struct sockaddr_in a = local(0);
	struct linger linger = { 1, 6 };

	fds[0] = tcp(AF_INET);
	for (size_t i = 0; i < LISTEN_OPTIONS; i++)
		set(fds[0], listen_options[i].level, listen_options[i].name, listen_options[i].value);
	check_eq(setsockopt(fds[0], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
	bound(fds[0], &a, sizeof(a));
	check_eq(listen(fds[0], 33), 0);
	names_setup(1);
	served(fds[0], &names[0][0], sizeof(a));
	for (size_t i = 0; i < LISTEN_OPTIONS; i++)
		listen_values[i] = get(fds[0], listen_options[i].level, listen_options[i].name);
}

static int backlog(int fd)
{
	struct tcp_info info;
	socklen_t n = sizeof(info);

	check_eq(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n), 0);
	return info.tcpi_sacked;
}

static void listen_verify(int cycle)
{
	struct linger linger;
	socklen_t n = sizeof(linger);

	(void)cycle;
	names_verify(1);
	check_eq(get(fds[0], SOL_SOCKET, SO_ACCEPTCONN), 1);
	check_eq(backlog(fds[0]), 33);
	for (size_t i = 0; i < LISTEN_OPTIONS; i++)
		check_eq(get(fds[0], listen_options[i].level, listen_options[i].name), listen_values[i]);
	check_eq(getsockopt(fds[0], SOL_SOCKET, SO_LINGER, &linger, &n), 0);
	check_eq(linger.l_onoff, 1);
	check_eq(linger.l_linger, 6);
	served(fds[0], &names[0][0], sizeof(struct sockaddr_in));
}

/* Without SO_REUSEADDR the connections that are over hold the port. */
static void plain_setup(void)
{
	struct sockaddr_in a = local(0);

	fds[0] = bound(tcp(AF_INET), &a, sizeof(a));
	check_eq(listen(fds[0], 3), 0);
	names_setup(1);
	served(fds[0], &names[0][0], sizeof(a));
}

static void plain_verify(int cycle)
{
	(void)cycle;
	names_verify(1);
	check_eq(get(fds[0], SOL_SOCKET, SO_REUSEADDR), 0);
	served(fds[0], &names[0][0], sizeof(struct sockaddr_in));
}

/* An IPv6 port and the IPv4 port of the same number, and two on one port. */
static void listen6_setup(void)
{
	struct sockaddr_in6 a = local6();
	struct sockaddr_in b = local(ntohs(a.sin6_port)), c = local(0);

	for (int i = 0; i < 4; i++) {
		fds[i] = tcp(i ? AF_INET : AF_INET6);
		if (i >= 2)
			set(fds[i], SOL_SOCKET, SO_REUSEPORT, 1);
	}
	set(fds[0], IPPROTO_IPV6, IPV6_V6ONLY, 1);
	set(fds[0], SOL_SOCKET, SO_REUSEADDR, 1);
	bound(fds[0], &a, sizeof(a));
	bound(fds[1], &b, sizeof(b));
	bound(fds[2], &c, sizeof(c));
	names_setup(3);
	bound(fds[3], &names[2][0], sizeof(c));
	for (int i = 0; i < 4; i++)
		check_eq(listen(fds[i], i), 0);
	names_setup(4);
}

static void listen6_verify(int cycle)
{
	(void)cycle;
	names_verify(4);
	for (int i = 0; i < 4; i++) {
		check_eq(backlog(fds[i]), i);
		check_eq(get(fds[i], SOL_SOCKET, SO_REUSEADDR), i == 0);
		check_eq(get(fds[i], SOL_SOCKET, SO_REUSEPORT), i >= 2);
	}
	check_eq(get(fds[0], IPPROTO_IPV6, IPV6_V6ONLY), 1);
	served(fds[0], &names[0][0], sizeof(struct sockaddr_in6));
}

/* Watched by epoll; another program could connect. */
static int epfd;

static void watched_setup(void)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = 99 };

	listen_setup();
	epfd = epoll_create1(0);
	check(epfd >= 0);
	check_eq(epoll_ctl(epfd, EPOLL_CTL_ADD, fds[0], &event), 0);
}

static void watched_verify(int cycle)
{
	struct epoll_event event;
	int client = tcp(AF_INET), server;

	(void)cycle;
	check_eq(epoll_wait(epfd, &event, 1, 0), 0);
	check_eq(connect(client, (void *)&names[0][0], sizeof(struct sockaddr_in)), 0);
	check_eq(write(client, "x", 1), 1);
	check_eq(epoll_wait(epfd, &event, 1, 10000), 1);
	check_eq(event.data.u64, 99);
	server = accept(fds[0], NULL, NULL);
	check(server >= 0);
	check_eq(close(server), 0);
	check_eq(close(client), 0);
}

/* ---- netlink ---- */

struct address_of_netlink { uint16_t family, pad; uint32_t port, groups; };

static struct address_of_netlink netlink_name(int fd)
{
	struct address_of_netlink a = { 0, 0, 0, 0 };
	socklen_t n = sizeof(a);

	check_eq(getsockname(fd, (void *)&a, &n), 0);
	return a;
}

/* asked has the kernel answer for all links, and reads to the end of it. */
static void asked(int fd)
{
	struct { uint32_t len; uint16_t type, flags; uint32_t seq, pid; uint8_t family, pad[15]; } ask = {
		sizeof(ask), 18 /* RTM_GETLINK */, 0x301 /* REQUEST, DUMP */, 1, 0, 0, { 0 },
	}, *answer;
	static char buf[1 << 16] __attribute__((aligned(8)));

	check_eq(send(fd, &ask, sizeof(ask), 0), sizeof(ask));
	for (;;) {
		ssize_t n = recv(fd, buf, sizeof(buf), 0);

		check(n > 0);
		answer = (void *)buf;
		if (answer->type == 3 /* NLMSG_DONE */)
			return;
	}
}

static struct address_of_netlink netlink_names[3];

/* 0 asks for routes and hears of links and groups above 32, 1 hears of uevents, 2 has no port. */
static void netlink_setup(void)
{
	struct address_of_netlink a = { AF_NETLINK, 0, 0, 0 };

	fds[0] = got(socket(AF_NETLINK, SOCK_RAW, 0), "netlink");
	fds[1] = got(socket(AF_NETLINK, SOCK_DGRAM, 15), "uevents");
	fds[2] = got(socket(AF_NETLINK, SOCK_RAW, 16), "generic netlink");
	set(fds[0], 270, 11 /* NETLINK_EXT_ACK */, 1);
	set(fds[0], SOL_SOCKET, SO_RCVBUF, 100000);
	check_eq(bind(fds[0], (void *)&a, sizeof(a)), 0);
	set(fds[0], 270, 1 /* NETLINK_ADD_MEMBERSHIP */, 26 /* RTNLGRP_MDB */);
	set(fds[0], 270, 1, 33 /* RTNLGRP_BRVLAN */);
	a.groups = 1;
	check_eq(bind(fds[1], (void *)&a, sizeof(a)), 0);
	asked(fds[0]);
	for (int i = 0; i < 3; i++)
		netlink_names[i] = netlink_name(fds[i]);
}

static void netlink_verify(int cycle)
{
	uint32_t groups[2];
	socklen_t n = sizeof(groups);

	(void)cycle;
	for (int i = 0; i < 3; i++) {
		struct address_of_netlink now = netlink_name(fds[i]);

		check_eq(memcmp(&now, &netlink_names[i], sizeof(now)), 0);
	}
	check(netlink_names[0].port != 0);
	check_eq(getsockopt(fds[0], 270, 9 /* NETLINK_LIST_MEMBERSHIPS */, groups, &n), 0);
	check_eq(groups[0], 1u << 25);
	check_eq(groups[1], 1);
	check_eq(get(fds[0], 270, 11), 1);
	check_eq(get(fds[0], SOL_SOCKET, SO_RCVBUF), 200000);
	check_eq(get(fds[1], SOL_SOCKET, SO_TYPE), SOCK_DGRAM);
	asked(fds[0]);
}

SCENARIOS(
	{ "udp", BOTH, udp_setup, udp_verify, NULL, 0 },
	{ "udp6", BOTH, udp6_setup, udp6_verify, NULL, 0 },
	{ "udp-options", BOTH, udp_options_setup, udp_options_verify, NULL, 0 },
	{ "udp-waiting", BOTH, udp_waiting_setup, udp_waiting_verify, NULL, 0 },
	{ "group", BOTH, group_setup, group_verify, NULL, 0 },
	{ "group6", BOTH, group6_setup, group6_verify, NULL, 0 },
	{ "fresh", BOTH, fresh_setup, fresh_verify, NULL, 0 },
	{ "listen", BOTH, listen_setup, listen_verify, NULL, 0 },
	{ "listen-plain", BOTH | ROOT, plain_setup, plain_verify, NULL, 0 },
	{ "listen6", BOTH, listen6_setup, listen6_verify, NULL, 0 },
	{ "netlink", BOTH, netlink_setup, netlink_verify, NULL, 0 },
	{ "watched", BOTH, watched_setup, watched_verify, NULL, 0 },
)
