/*
 * kin.c - what the first process of a tree has itself, and shares with those
 * below it.
 */
#include "tree.h"

#include <semaphore.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

/* ---- sockets of the first process ---- */

static int pair[2], server;

static void talk_begin(void)
{
	check_eq(close(pair[0]), 0);
	check_eq(close(server), 0);
}

static void talk_child(int cycle)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	char c;
	int fd;

	check_eq(read(pair[1], &c, 1), 1);
	check_eq(c, 'a' + cycle);
	c = 'A' + cycle;
	check_eq(write(pair[1], &c, 1), 1);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	check(fd >= 0);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path("socket", -1));
	check_eq(connect(fd, (void *)&a, sizeof(a)), 0);
	check_eq(write(fd, &c, 1), 1);
	check_eq(close(fd), 0);
}

static const struct child talks = { talk_begin, talk_child };

static void talk_setup(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	share();
	check_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	server = socket(AF_UNIX, SOCK_STREAM, 0);
	check(server >= 0);
	check((size_t)snprintf(a.sun_path, sizeof(a.sun_path), "%s", path("socket", -1)) < sizeof(a.sun_path));
	check_eq(bind(server, (void *)&a, sizeof(a)), 0);
	check_eq(listen(server, 5), 0);
	grow(&talks);
	check_eq(close(pair[1]), 0);
	check_eq(write(pair[0], "b", 1), 1);
}

static void talk_verify(int cycle)
{
	char c;
	int fd;

	all(cycle);
	check_eq(read(pair[0], &c, 1), 1);
	check_eq(c, 'A' + cycle);
	fd = accept(server, NULL, NULL);
	check(fd >= 0);
	check_eq(read(fd, &c, 1), 1);
	check_eq(c, 'A' + cycle);
	check_eq(close(fd), 0);
	c = 'a' + cycle + 1;
	check_eq(write(pair[0], &c, 1), 1);
}

/* ---- what it has that cannot be saved ---- */

static const struct child plain;

/* A file with another name than the one that it was opened by. */
static void refused_setup(void)
{
	share();
	grow(&plain);
	check(open(path("before", -1), O_RDWR | O_CREAT | O_TRUNC, 0600) >= 0);
	check_eq(link(path("before", -1), path("after", -1)), 0);
	check_eq(unlink(path("before", -1)), 0);
}

SCENARIOS(
	{ .name = "talk", .flags = EXTERNAL, .setup = talk_setup, .verify = talk_verify },
	{ .name = "refused", .flags = EXTERNAL | REFUSED, .setup = refused_setup, .refused = EBADF },
)
