/*
 * hung.c - holds streams that lead to others until the file DIR/go is there,
 * and then writes to DIR/report what becomes of reading and writing.
 *
 *	hung DIR PORT TERMINAL
 *
 *	7 a pipe to read from, 8 one to write to: inherited	10 a unix socket, of DIR/server
 *	11 a connection to PORT of this host	12, 13 a pipe of its own
 *	14 DIR/data	15 TERMINAL	16 an epoll set that watches 7 and 10
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define must(cond) do { \
	if (!(cond)) { \
		dprintf(2, "hung: line %d: not so: %s (errno %d)\n", __LINE__, #cond, errno); \
		_exit(1); \
	} \
} while (0)

static volatile sig_atomic_t pipes;

static void count(int sig)
{
	(void)sig;
	pipes++;
}

static void at(int fd, int want)
{
	must(fd >= 0 && dup2(fd, want) == want);
	must(close(fd) == 0);
}

static void setup(const char *port, const char *terminal)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX, .sun_path = "server" };
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(atoi(port)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct epoll_event event = { .events = EPOLLIN | EPOLLRDHUP };
	int p[2];

	at(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0), 10);
	must(connect(10, (void *)&un, sizeof(un)) == 0);
	at(socket(AF_INET, SOCK_STREAM, 0), 11);
	must(connect(11, (void *)&in, sizeof(in)) == 0);
	must(pipe(p) == 0);
	at(p[0], 12);
	at(p[1], 13);
	at(open("data", O_RDWR | O_CREAT, 0600), 14);
	at(open(terminal, O_RDWR | O_NOCTTY), 15);
	at(epoll_create1(0), 16);
	for (event.data.fd = 7; event.data.fd <= 10; event.data.fd += 3)
		must(epoll_ctl(16, EPOLL_CTL_ADD, event.data.fd, &event) == 0);
}

static const char *result(ssize_t n)
{
	return n > 0 ? "some" : n == 0 ? "end" : strerrorname_np(errno);
}

int main(int argc, char *argv[])
{
	struct timespec ms = { .tv_nsec = 2000000 };
	struct epoll_event events[4];
	FILE *to;
	int n;

	must(argc == 4 && chdir(argv[1]) == 0);
	must(signal(SIGPIPE, count) != SIG_ERR);
	setup(argv[2], argv[3]);
	must((to = fopen("ready.new", "we")) && fclose(to) == 0 && rename("ready.new", "ready") == 0);
	while (access("go", F_OK))
		nanosleep(&ms, NULL);
	must((to = fopen("report.new", "we")));
	for (int fd = 7; fd <= 15; fd++) {
		struct pollfd p = { fd, POLLIN | POLLRDHUP, 0 };
		int before = pipes;
		char c;

		/* Of what is to be read nothing is taken that others could read. */
		if (fd == 9 || fd == 12 || fd == 14)
			continue;
		fprintf(to, "%d %s", fd, result(read(fd, &c, 1)));
		fprintf(to, " %s", result(write(fd, "x", 1)));
		must(poll(&p, 1, 0) >= 0);
		fprintf(to, "%s%s%s flags 0%o\n", pipes > before ? " SIGPIPE" : "", p.revents & POLLHUP ? " HUP" : "",
			p.revents & POLLERR ? " ERR" : "", fcntl(fd, F_GETFL));
	}
	n = epoll_wait(16, events, 4, 0);
	for (int i = 0; i < n; i++)
		fprintf(to, "watched %d%s\n", events[i].data.fd, events[i].events & EPOLLHUP ? " HUP" : "");
	must(fclose(to) == 0 && rename("report.new", "report") == 0);
	return 0;
}
