/*
 * chat.c - a server and a client, two processes with a TCP connection between
 * them, count in turn: each round is a line in the file "out". With the file
 * "stop" the client ends with 7.
 *
 *	chat ADDRESS
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define check(x) do { if (!(x)) { printf("line %d: %s: errno %d\n", __LINE__, #x, errno); exit(1); } } while (0)

static int serve(int listener)
{
	int n, s = accept(listener, NULL, NULL);

	check(s >= 0);
	while (read(s, &n, sizeof n) == sizeof n) {
		n++;
		check(write(s, &n, sizeof n) == sizeof n);
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in at = { .sin_family = AF_INET };
	socklen_t len = sizeof at;
	int listener, s, status;

	setbuf(stdout, NULL);
	check(argc == 2 && inet_pton(AF_INET, argv[1], &at.sin_addr) == 1);
	check((listener = socket(AF_INET, SOCK_STREAM, 0)) >= 0);
	check(bind(listener, (struct sockaddr *)&at, len) == 0 && listen(listener, 1) == 0);
	check(getsockname(listener, (struct sockaddr *)&at, &len) == 0);
	switch (fork()) {
	case -1:
		return 1;
	case 0:
		return serve(listener);
	}
	close(listener);
	check((s = socket(AF_INET, SOCK_STREAM, 0)) >= 0);
	check(connect(s, (struct sockaddr *)&at, len) == 0);
	for (int n = 1; access("stop", F_OK); n++) {
		int got, fd = open("out", O_WRONLY | O_CREAT | O_APPEND, 0600);

		check(write(s, &n, sizeof n) == sizeof n && read(s, &got, sizeof got) == sizeof got && got == n + 1);
		check(fd >= 0 && write(fd, "\n", 1) == 1 && close(fd) == 0);
		usleep(20000);
	}
	close(s);
	check(wait(&status) > 0 && status == 0);
	return 7;
}
