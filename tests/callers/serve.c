/*
 * serve.c - a TCP server for one client at a time. Each line is answered with
 * its number within the connection; "blast N" is answered with N bytes before
 * that. Its pid goes to the file OUT once it listens, behind the port; each
 * connection's end to OUT.end, as the name of what read(2) said. While there
 * is a file OUT.hold it does not read.
 *
 *	serve 4|6|4m|6m OUT
 *
 * With m it listens by MPTCP.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void put(const char *name, const char *suffix, const char *text)
{
	char path[4096], temporary[4200];
	int fd, n = strlen(text);

	snprintf(path, sizeof(path), "%s%s", name, suffix);
	snprintf(temporary, sizeof(temporary), "%s.new", path);
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (fd < 0 || write(fd, text, n) != n || close(fd) || rename(temporary, path))
		die(path);
}

static int listening(const char *family, char *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in6 b = { .sin6_family = AF_INET6, .sin6_addr = in6addr_any };
	int six = *family == '6', on = 1, fd = socket(six ? AF_INET6 : AF_INET, SOCK_STREAM, family[1] == 'm' ? 262 : 0);
	socklen_t n = six ? sizeof(b) : sizeof(a);
	struct sockaddr *name = six ? (void *)&b : (void *)&a;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	    bind(fd, name, n) || listen(fd, 5) || getsockname(fd, name, &n))
		die("listen");
	sprintf(port, "%d", ntohs(six ? b.sin6_port : a.sin_port));
	return fd;
}

static void all(int fd, const char *p, size_t n)
{
	while (n > 0) {
		ssize_t done = write(fd, p, n);

		if (done < 0)
			return;	/* the next read says why */
		p += done;
		n -= done;
	}
}

static void serve(int fd, const char *out)
{
	static char chunk[65536];
	char line[200], hold[4096], answer[300];
	int lines = 0, have = 0;
	struct timespec ms = { .tv_nsec = 1000000 };
	ssize_t n;
	char c;

	for (size_t i = 0; i < sizeof(chunk); i++)
		chunk[i] = i * 7 + (i >> 8);
	snprintf(hold, sizeof(hold), "%s.hold", out);
	for (;;) {
		while (access(hold, F_OK) == 0)
			nanosleep(&ms, NULL);
		n = read(fd, &c, 1);
		if (n <= 0)
			break;
		if (c != '\n') {
			if (have < (int)sizeof(line) - 1)
				line[have++] = c;
			continue;
		}
		line[have] = 0;
		have = 0;
		if (!strncmp(line, "blast ", 6))
			for (long left = atol(line + 6); left > 0; left -= sizeof(chunk))
				all(fd, chunk, left < (long)sizeof(chunk) ? (size_t)left : sizeof(chunk));
		n = sprintf(answer, "%d %s\n", ++lines, line);
		all(fd, answer, n);
	}
	put(out, ".end", n == 0 ? "end" : errno == ECONNRESET ? "ECONNRESET" : strerror(errno));
}

int main(int argc, char *argv[])
{
	char text[64], port[16];
	int listener;

	if (argc != 3)
		return 2;
	listener = listening(argv[1], port);
	snprintf(text, sizeof(text), "%s %d\n", port, getpid());
	put(argv[2], "", text);
	for (;;) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			die("accept");
		serve(fd, argv[2]);
		close(fd);
	}
}
