/* Leaves a process behind that waits to be notified by a POSIX message queue. */
#include <fcntl.h>
#include <mqueue.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sigevent none = { .sigev_notify = SIGEV_NONE };
	int ready[2];
	char byte;
	mqd_t mq;

	if (argc != 2 || pipe(ready))
		return 1;
	switch (fork()) {
	case -1:
		return 1;
	case 0:
		if ((mq = mq_open(argv[1], O_CREAT | O_EXCL | O_RDWR, 0600, 0)) < 0 || mq_notify(mq, &none) || write(ready[1], "", 1) != 1) {
			perror("mq_notify");
			return 1;
		}
		close(ready[0]);
		close(ready[1]);
		pause();
		return 0;
	}
	close(ready[1]);
	return read(ready[0], &byte, 1) != 1;
}
