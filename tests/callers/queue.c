/* Makes a POSIX message queue and leaves it there. */
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	if (argc != 2 || mq_open(argv[1], O_CREAT | O_EXCL | O_RDWR, 0600, 0) < 0) {
		perror("mq_open");
		return 1;
	}
	return 0;
}
