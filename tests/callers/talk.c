/*
 * talk.c - answers each line that is typed with the number of lines so far.
 * Writes its pid to the file OUT once it listens.
 *
 *	talk OUT
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
	char line[200];
	int n, lines = 0, fd;

	if (argc != 2)
		return 2;
	n = snprintf(line, sizeof(line), "%d\n", getpid());
	fd = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (fd < 0 || write(fd, line, n) != n || close(fd))
		return 1;
	while ((n = read(STDIN_FILENO, line, sizeof(line) - 1)) > 0) {
		line[n - 1] = 0;
		lines++;
		if (dprintf(STDOUT_FILENO, "line %d was <%s>\n", lines, line) < 0)
			return 1;
	}
	return n < 0;
}
