/*
 * crgetid: a third emulated call, the example of docs/adding-a-syscall.md.
 *
 *     crgetid [IMAGE]
 *
 * Prints the last crid that this process was given: 0 at first. With IMAGE it saves itself there and asks again.
 * The process that comes back from the image was given none yet.
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <crshim.h>

int main(int argc, char *argv[])
{
	int crid, fd;

	crid = crgetid();
	if (crid < 0) {
		perror("crgetid");
		return 1;
	}
	printf("crid %d\n", crid);
	if (argc < 2)
		return 0;

	/* What printf holds back would be in the image too, and come out twice. */
	fflush(stdout);

	fd = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (fd < 0) {
		perror(argv[1]);
		return 1;
	}
	crid = checkpoint(getpid(), fd, 0);
	if (crid < 0) {
		perror("checkpoint");
		return 1;
	}
	close(fd);
	if (crid == 0)
		printf("back from %s, crid %d\n", argv[1], crgetid());
	else
		printf("saved as crid %d, crid %d\n", crid, crgetid());
	return 0;
}
