/*
 * client.c - a client of ledger that does not give up.
 *
 *	client ADDRESS PORT NAME LOG
 *
 * It credits 1, 2, 3 and so on, one request after the other, and writes each
 * answer to the file LOG. When the connection breaks, or no answer comes for a
 * while, it connects anew and repeats the request. After SIGTERM it finishes the
 * request that it is at and compares the balance with what it should be: the
 * exit status says whether something was lost or credited twice. Its last line
 * says how often it had to connect, and the longest time between two answers.
 */
#include "uses.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>

#define PATIENCE 500	/* milliseconds */

static volatile sig_atomic_t enough;

static void on_term(int sig)
{
	(void)sig;
	enough = 1;
}

static long milliseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void rest(long ms)
{
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	nanosleep(&t, NULL);
}

/* Waits a while for what poll calls events. */
static int ready(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	return poll(&p, 1, PATIENCE) > 0;
}

static int connected(const struct sockaddr_in *addr)
{
	int error = 0, s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	socklen_t len = sizeof(error);

	if (s < 0)
		die("socket");
	if ((connect(s, (const struct sockaddr *)addr, sizeof(*addr)) == 0 || errno == EINPROGRESS) &&
	    ready(s, POLLOUT) && getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && !error)
		return s;
	close(s);
	return -1;
}

/* Reads one line; returns -1 if the connection ends or rests too long. */
static int read_line(int s, char *line, size_t size)
{
	size_t len = 0;

	while (len < size - 1) {
		if (!ready(s, POLLIN) || read(s, line + len, 1) != 1)
			return -1;
		if (line[len] == '\n') {
			line[len] = 0;
			return 0;
		}
		len++;
	}
	return -1;
}

int main(int argc, char *argv[])
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	struct sigaction term = { .sa_handler = on_term };
	unsigned long id, got, balance = 0, due = 0;
	long last, gap, worst = 0;
	int s = -1, times = 0;
	char line[160], host[64];
	FILE *log;

	drop_inherited();
	if (argc != 5 || inet_pton(AF_INET, argv[1], &addr.sin_addr) != 1) {
		fprintf(stderr, "usage: client ADDRESS PORT NAME LOG\n");
		return 2;
	}
	addr.sin_port = htons(atoi(argv[2]));
	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGTERM, &term, NULL);
	log = fopen(argv[4], "w");
	if (!log)
		die(argv[4]);

	last = milliseconds();
	for (id = 1; !enough; id++) {
		int n = snprintf(line, sizeof(line), "%s %lu %lu\n", argv[3], id, id);
		char request[160];

		memcpy(request, line, n);
		for (;;) {
			if (s < 0 && (s = connected(&addr)) >= 0)
				times++;
			if (s >= 0 && write(s, request, n) == n && read_line(s, line, sizeof(line)) == 0)
				break;
			if (s >= 0)
				close(s);
			s = -1;
			rest(10);
		}
		due += id;
		if (sscanf(line, "%lu %lu %63s", &got, &balance, host) != 3 || got != id || balance != due) {
			fprintf(log, "WRONG: request %lu was answered %s, and the balance is to be %lu\n", id, line, due);
			fclose(log);
			return 1;
		}
		gap = milliseconds() - last;
		last += gap;
		if (id > 1 && gap > worst)
			worst = gap;
		fprintf(log, "%s\n", line);
		fflush(log);
		rest(5);
	}
	fprintf(log, "right after %lu requests: connected %d times, at most %ld ms without an answer\n", id - 1, times, worst);
	return fclose(log) ? 1 : 0;
}
