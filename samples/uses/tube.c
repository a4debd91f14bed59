/*
 * tube.c - a program whose standard input and output are a TCP connection, so
 * that an image can go from one machine to another one.
 *
 *	tube listen PORT CMD [ARG...]
 *	tube connect ADDRESS PORT CMD [ARG...]
 *
 * The one that connects waits until somebody listens. CMD takes its place.
 */
#include "uses.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <time.h>

int main(int argc, char *argv[])
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	const struct timespec pause = { .tv_nsec = 10000000 };
	int listens = argc > 3 && !strcmp(argv[1], "listen");
	int on = 1, s, connection;
	char **cmd = argv + (listens ? 3 : 4);

	if (!listens && (argc < 5 || strcmp(argv[1], "connect") || inet_pton(AF_INET, argv[2], &addr.sin_addr) != 1)) {
		fprintf(stderr, "usage: tube listen PORT CMD...\n       tube connect ADDRESS PORT CMD...\n");
		return 2;
	}
	addr.sin_port = htons(atoi(cmd[-1]));
	s = socket(AF_INET, SOCK_STREAM, 0);
	if (s < 0)
		die("socket");
	if (listens) {
		if (setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
		    bind(s, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(s, 1) < 0)
			die("listen");
		connection = accept(s, NULL, NULL);
		if (connection < 0)
			die("accept");
		close(s);
	} else {
		/* A socket that was refused is used up. */
		while (connect(s, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
			if (errno != ECONNREFUSED)
				die("connect");
			close(s);
			nanosleep(&pause, NULL);
			s = socket(AF_INET, SOCK_STREAM, 0);
			if (s < 0)
				die("socket");
		}
		connection = s;
	}
	if (dup2(connection, 0) < 0 || dup2(connection, 1) < 0)
		die("dup2");
	close(connection);
	execvp(cmd[0], cmd);
	die(cmd[0]);
	return 1;
}
