/*
 * oracle.c - a server that is slow to start: it has to compute what it knows.
 *
 *	oracle SOCKET LIMIT		serve
 *	oracle SOCKET LIMIT NUMBER	ask, and print the answer
 *
 * It answers how many primes there are up to NUMBER, which is at most LIMIT,
 * and for that it first counts them all by trial division. Who asks waits until
 * there is a server.
 */
#include "uses.h"

#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

static uint32_t *count_primes(uint32_t limit)
{
	uint32_t *primes_up_to = calloc(limit + 1, sizeof(*primes_up_to));
	uint32_t n, d, count = 0;

	if (!primes_up_to)
		die("calloc");
	for (n = 2; n <= limit; n++) {
		for (d = 2; d * d <= n && n % d; d++)
			;
		if (d * d > n)
			count++;
		primes_up_to[n] = count;
	}
	return primes_up_to;
}

static void serve(int s, const struct sockaddr_un *name, uint32_t limit)
{
	uint32_t *primes_up_to = count_primes(limit);

	if (bind(s, (const struct sockaddr *)name, sizeof(*name)) < 0)
		die(name->sun_path);
	if (listen(s, 16) < 0)
		die("listen");
	for (;;) {
		uint32_t n, answer;
		int client = accept(s, NULL, NULL);

		if (client < 0)
			die("accept");
		if (read(client, &n, sizeof(n)) == sizeof(n) && n <= limit) {
			answer = primes_up_to[n];
			if (write(client, &answer, sizeof(answer)) < 0)
				perror("write");
		}
		close(client);
	}
}

static int ask(int s, const struct sockaddr_un *name, uint32_t n)
{
	const struct timespec pause = { .tv_nsec = 1000000 };
	uint32_t answer;

	while (connect(s, (const struct sockaddr *)name, sizeof(*name)) < 0) {
		/* A server that comes back opens its socket to others last. */
		if (errno != ENOENT && errno != ECONNREFUSED && errno != EACCES)
			die(name->sun_path);
		nanosleep(&pause, NULL);
	}
	if (write(s, &n, sizeof(n)) != sizeof(n) || read(s, &answer, sizeof(answer)) != sizeof(answer)) {
		fprintf(stderr, "oracle: no answer\n");
		return 1;
	}
	printf("%u\n", answer);
	return 0;
}

int main(int argc, char *argv[])
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int s;

	drop_inherited();
	if (argc < 3 || argc > 4 || strlen(argv[1]) >= sizeof(name.sun_path)) {
		fprintf(stderr, "usage: oracle SOCKET LIMIT [NUMBER]\n");
		return 2;
	}
	strcpy(name.sun_path, argv[1]);
	s = socket(AF_UNIX, SOCK_STREAM, 0);
	if (s < 0)
		die("socket");
	if (argc == 4)
		return ask(s, &name, strtoul(argv[3], NULL, 10));
	serve(s, &name, strtoul(argv[2], NULL, 10));
	return 0;
}
