/*
 * epoll.c - epoll instances, and what they watch.
 */
#include "scenario.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

static int ep, ep2, fd, fds[2];

static int counter(void)
{
	int n = eventfd(0, EFD_NONBLOCK);

	check(n >= 0);
	return n;
}

static void give(int n)
{
	uint64_t one = 1;

	check_eq(write(n, &one, sizeof(one)), sizeof(one));
}

static void take(int n)
{
	uint64_t value;

	check_eq(read(n, &value, sizeof(value)), sizeof(value));
}

static void watch(int set, int op, int n, uint32_t events, uint64_t data)
{
	struct epoll_event e = { .events = events, .data.u64 = data };

	check_eq(epoll_ctl(set, op, n, &e), 0);
}

/* expect takes one event, or none if events is 0. */
static void expect(int set, uint32_t events, uint64_t data)
{
	struct epoll_event e[4];
	int n = epoll_wait(set, e, 4, 0);

	check_eq(n, events != 0);
	if (!n)
		return;
	check_eq(e[0].events, events);
	check_eq(e[0].data.u64, data);
}

static void level_setup(void)
{
	ep = epoll_create1(EPOLL_CLOEXEC);
	check(ep >= 0);
	fd = counter();
	watch(ep, EPOLL_CTL_ADD, fd, EPOLLIN, 0xfedcba9876543210);
	give(fd);
}

static void level_verify(int cycle)
{
	(void)cycle;
	expect(ep, EPOLLIN, 0xfedcba9876543210);
	expect(ep, EPOLLIN, 0xfedcba9876543210);
	take(fd);
	expect(ep, 0, 0);
	give(fd);
	check_eq(fcntl(ep, F_GETFD), FD_CLOEXEC);
	/* It is known by its number: it can be changed, and not added again. */
	check_eq(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &(struct epoll_event){ 0 }), -1);
	check_eq(errno, EEXIST);
	watch(ep, EPOLL_CTL_MOD, fd, EPOLLIN, 0xfedcba9876543210);
}

/* What was not ready is reported once when it becomes so. */
static void edge_setup(void)
{
	ep = epoll_create1(0);
	fd = counter();
	watch(ep, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET, 7);
}

static void edge_verify(int cycle)
{
	(void)cycle;
	expect(ep, 0, 0);
	give(fd);
	expect(ep, EPOLLIN, 7);
	expect(ep, 0, 0);
	take(fd);
}

/* Fired before the point: switched off, until it is armed anew. */
static void oneshot_setup(void)
{
	ep = epoll_create1(0);
	fd = counter();
	watch(ep, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLONESHOT, 1);
	give(fd);
	expect(ep, EPOLLIN, 1);
}

static void oneshot_verify(int cycle)
{
	expect(ep, 0, 0);
	watch(ep, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLONESHOT, 1 + cycle);
	expect(ep, EPOLLIN, 1 + cycle);
	expect(ep, 0, 0);
}

/* One in another, with pipe ends; the inner one has the higher number. */
static void nested_setup(void)
{
	ep = epoll_create1(0);
	check_eq(pipe2(fds, O_NONBLOCK), 0);
	ep2 = epoll_create1(0);
	watch(ep2, EPOLL_CTL_ADD, fds[0], EPOLLIN, 3);
	watch(ep, EPOLL_CTL_ADD, ep2, EPOLLIN, 4);
	watch(ep, EPOLL_CTL_ADD, fds[1], EPOLLRDHUP, 5);
}

static void nested_verify(int cycle)
{
	char c;

	(void)cycle;
	expect(ep, 0, 0);
	check_eq(write(fds[1], "x", 1), 1);
	expect(ep, EPOLLIN, 4);
	expect(ep2, EPOLLIN, 3);
	check_eq(read(fds[0], &c, 1), 1);
	expect(ep, 0, 0);
}

/* One file under two numbers, watched under both with different events. */
static void dup_setup(void)
{
	ep = epoll_create1(0);
	fd = counter();
	fds[0] = dup(fd);
	watch(ep, EPOLL_CTL_ADD, fd, EPOLLIN, 1);
	watch(ep, EPOLL_CTL_ADD, fds[0], EPOLLOUT, 2);
	ep2 = dup(ep);
}

static void dup_verify(int cycle)
{
	(void)cycle;
	expect(ep2, EPOLLOUT, 2);
	watch(ep2, EPOLL_CTL_MOD, fds[0], 0, 2);
	expect(ep, 0, 0);
	give(fd);
	expect(ep, EPOLLIN, 1);
	take(fd);
	watch(ep, EPOLL_CTL_MOD, fds[0], EPOLLOUT, 2);
}

/* All at the numbers where the restarter has descriptors of its own. */
static void low_setup(void)
{
	int n[4] = { epoll_create1(0), counter(), counter(), counter() };

	for (int i = 0; i < 4; i++) {
		check_eq(dup2(n[i], 20 + i), 20 + i);
		check_eq(close(n[i]), 0);
	}
	for (int i = 0; i < 4; i++) {
		check_eq(dup2(20 + i, i), i);
		check_eq(close(20 + i), 0);
	}
	for (int i = 1; i < 4; i++)
		watch(0, EPOLL_CTL_ADD, i, EPOLLIN, 10 + i);
}

static void low_verify(int cycle)
{
	(void)cycle;
	expect(0, 0, 0);
	for (int i = 1; i < 4; i++) {
		give(i);
		expect(0, EPOLLIN, 10 + i);
		take(i);
		watch(0, EPOLL_CTL_DEL, i, 0, 0);
		watch(0, EPOLL_CTL_ADD, i, EPOLLIN, 10 + i);
	}
}

#define MANY 1000

static int many[MANY];

static void many_setup(void)
{
	struct rlimit limit;

	check_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	if (limit.rlim_cur < MANY + 100)
		needs("%d descriptors", MANY + 100);
	ep = epoll_create1(0);
	for (int i = 0; i < MANY; i++) {
		many[i] = counter();
		watch(ep, EPOLL_CTL_ADD, many[i], EPOLLIN, i);
	}
}

static void many_verify(int cycle)
{
	for (int i = cycle; i < MANY; i += 100) {
		give(many[i]);
		expect(ep, EPOLLIN, i);
		take(many[i]);
	}
}

SCENARIOS(
	{ "level", BOTH, level_setup, level_verify, NULL, 0 },
	{ "edge", BOTH, edge_setup, edge_verify, NULL, 0 },
	{ "oneshot", BOTH, oneshot_setup, oneshot_verify, NULL, 0 },
	{ "nested", BOTH, nested_setup, nested_verify, NULL, 0 },
	{ "dup", BOTH, dup_setup, dup_verify, NULL, 0 },
	{ "low", BOTH, low_setup, low_verify, NULL, 0 },
	{ "many", BOTH, many_setup, many_verify, NULL, 0 },
)
