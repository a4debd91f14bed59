/*
 * ledger.c - a server that keeps everything in memory.
 *
 *	ledger PORT
 *
 * A client says "NAME ID AMOUNT" on a line of its own. Its account is
 * credited, and the answer is "ID BALANCE HOST": HOST is the name of the
 * machine that the server is on. A request that comes again, because its
 * answer was lost with the connection, is answered again and not credited twice.
 */
#include "uses.h"

#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#define CLIENTS 16

struct account {
	char name[32];
	unsigned long last;	/* id of the last request */
	unsigned long balance;
};

struct connection {
	char line[128];
	size_t len;
};

static struct account accounts[CLIENTS];
static struct connection connections[CLIENTS + 1];
static struct pollfd fds[CLIENTS + 1];	/* the first listens */

static struct account *account_of(const char *name)
{
	int i;

	for (i = 0; i < CLIENTS; i++) {
		if (!accounts[i].name[0])
			strcpy(accounts[i].name, name);
		if (!strcmp(accounts[i].name, name))
			return &accounts[i];
	}
	return NULL;
}

/* Returns -1 if the connection is to be closed. */
static int answer(int fd, const char *line)
{
	unsigned long id, amount;
	char name[32], host[64], reply[160];
	struct account *a;
	int n;

	if (sscanf(line, "%31s %lu %lu", name, &id, &amount) != 3)
		return -1;
	a = account_of(name);
	if (!a)
		return -1;
	if (id > a->last) {
		a->last = id;
		a->balance += amount;
	}
	if (gethostname(host, sizeof(host)) < 0)
		die("gethostname");
	n = snprintf(reply, sizeof(reply), "%lu %lu %s\n", id, a->balance, host);
	return write(fd, reply, n) == n ? 0 : -1;
}

/* Takes what a client has sent; returns -1 if the connection has ended. */
static int take(int fd, struct connection *c)
{
	ssize_t n = read(fd, c->line + c->len, sizeof(c->line) - 1 - c->len);
	char *end;

	if (n <= 0)
		return -1;
	c->len += n;
	c->line[c->len] = 0;
	while ((end = strchr(c->line, '\n'))) {
		*end = 0;
		if (answer(fd, c->line) < 0)
			return -1;
		c->len -= end + 1 - c->line;
		memmove(c->line, end + 1, c->len + 1);
	}
	return c->len < sizeof(c->line) - 1 ? 0 : -1;
}

static void welcome(int listener)
{
	int i, fd = accept(listener, NULL, NULL);

	if (fd < 0)
		return; /* whoever it was has gone away again */
	for (i = 1; i <= CLIENTS; i++) {
		if (fds[i].fd < 0) {
			fds[i].fd = fd;
			connections[i].len = 0;
			return;
		}
	}
	close(fd);
}

int main(int argc, char *argv[])
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	int i, on = 1, s = -1;

	drop_inherited();
	if (argc != 2) {
		fprintf(stderr, "usage: ledger PORT\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	addr.sin_port = htons(atoi(argv[1]));
	s = socket(AF_INET, SOCK_STREAM, 0);
	if (s < 0 || setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(s, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(s, CLIENTS) < 0)
		die("listen");
	for (i = 0; i <= CLIENTS; i++)
		fds[i] = (struct pollfd){ .fd = i ? -1 : s, .events = POLLIN };
	for (;;) {
		if (poll(fds, CLIENTS + 1, -1) < 0 && errno != EINTR)
			die("poll");
		for (i = 1; i <= CLIENTS; i++) {
			if (fds[i].fd >= 0 && fds[i].revents && take(fds[i].fd, &connections[i]) < 0) {
				close(fds[i].fd);
				fds[i].fd = -1;
			}
		}
		if (fds[0].revents)
			welcome(s);
	}
}
