/*
 * mktree.c - restart a tree of processes, made by this program itself.
 *
 *	$ ./mktree < ckpt.image
 *
 * restart() makes the children of a tree by itself if one process calls it. In
 * 2009 that was left to user space, and still can be: read from the head of the
 * image who was whose child, fork such tasks, write their process ids over those
 * in the image, and pass it on to them through a pipe. The first one calls
 * restart() with its own process id, all others with that of the first one.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <crshim.h>

enum { HEAD = 1, TREE = 101, MOST = 10000 };

struct cr_hdr { int16_t type, len; uint32_t parent; };
struct cr_hdr_tree { uint32_t tasks_nr, padding; };
struct cr_hdr_pids { int32_t vpid, vtgid, vppid, padding; };

/* The head as it was read, up to the process ids, and those. */
static char head[1 << 16];
static size_t head_len;
static struct cr_hdr_pids *was, *now;
static int tasks;

static int image[2];	/* the image, from this program to the tasks */
static int report[2];	/* who has become which task, the other way round */

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* get reads exactly n bytes. */
static void get(void *to, size_t n)
{
	for (size_t done = 0; done < n;) {
		ssize_t got = read(STDIN_FILENO, (char *)to + done, n - done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0) {
			fprintf(stderr, "mktree: the image ends early\n");
			exit(1);
		}
		done += got;
	}
}

/* put writes n bytes to the tasks, and tells whether they still listen. */
static int put(const void *from, size_t n)
{
	for (size_t done = 0; done < n;) {
		ssize_t sent = write(image[1], (const char *)from + done, n - done);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return 0;
		done += sent;
	}
	return 1;
}

/* record reads one into the head, and returns its type. */
static int record(void)
{
	struct cr_hdr h;
	char *at = head + head_len;

	get(&h, sizeof(h));
	if (h.len < 0 || sizeof(h) + h.len > sizeof(head) - head_len) {
		fprintf(stderr, "mktree: not the head of an image\n");
		exit(1);
	}
	memcpy(at, &h, sizeof(h));
	get(at + sizeof(h), h.len);
	head_len += sizeof(h) + h.len;
	return h.type;
}

/* read_head reads up to the process ids. There may be kinds of records before
 * them that 2009 did not know. */
static void read_head(void)
{
	struct cr_hdr_tree tree;
	size_t size;

	if (record() != HEAD) {
		fprintf(stderr, "mktree: not an image\n");
		exit(1);
	}
	while (record() != TREE)
		;
	memcpy(&tree, head + head_len - sizeof(tree), sizeof(tree));
	if (tree.tasks_nr < 1 || tree.tasks_nr > MOST) {
		fprintf(stderr, "mktree: %u tasks\n", tree.tasks_nr);
		exit(1);
	}
	tasks = tree.tasks_nr;
	size = tasks * sizeof(*was);
	was = malloc(size);
	now = malloc(size);
	if (!was || !now)
		die("malloc");
	get(was, size);
	memcpy(now, was, size);
}

/* announce tells who has become task i. */
static void announce(int i)
{
	struct { int task; pid_t pid; } me = { i, getpid() };

	if (write(report[1], &me, sizeof(me)) != sizeof(me))
		die("report");
}

/* become is what the first task does, and each that it forks from where it was
 * forked: fork its children, which come behind it, and then be restarted. */
static void become(pid_t root)
{
	pid_t pid;
	int i = 0;

	announce(i);
	for (int k = i + 1; k < tasks; k++) {
		if (was[k].vppid != was[i].vpid)
			continue;
		pid = fork();
		if (pid < 0)
			die("fork");
		if (pid == 0)
			announce(i = k);
	}
	close(report[1]);
	restart(root, image[0], 0);
	fprintf(stderr, "mktree: task %d: restart: %s\n", i, strerror(errno));
	_exit(1);
}

/* renumber writes what the tasks are called now. */
static void renumber(int task, pid_t pid)
{
	now[task].vpid = now[task].vtgid = pid;
	for (int k = 0; k < tasks; k++)
		if (k > 0 && was[k].vppid == was[task].vpid)
			now[k].vppid = pid;
}

int main(void)
{
	struct { int task; pid_t pid; } one;
	char buf[1 << 16];
	int status, null;
	ssize_t n;
	pid_t root;

	read_head();
	if (pipe(image) || pipe(report))
		die("pipe");
	root = fork();
	if (root < 0)
		die("fork");
	if (root == 0) {
		close(image[1]);
		close(report[0]);
		null = open("/dev/null", O_RDONLY); /* instead of the image */
		if (null < 0 || dup2(null, STDIN_FILENO) < 0)
			die("/dev/null");
		close(null);
		become(getpid());
	}
	close(image[0]);
	close(report[1]);
	for (int i = 0; i < tasks; i++) {
		if (read(report[0], &one, sizeof(one)) != sizeof(one)) {
			fprintf(stderr, "mktree: cannot make %d tasks\n", tasks);
			exit(1); /* who waits for the image finds that it ends */
		}
		/* One process alone needs no other name. */
		if (tasks > 1)
			renumber(one.task, one.pid);
	}

	/* The tasks read up to the end of the image and no further. */
	signal(SIGPIPE, SIG_IGN);
	if (put(head, head_len) && put(now, tasks * sizeof(*now)))
		while ((n = read(STDIN_FILENO, buf, sizeof(buf))) > 0 && put(buf, n))
			;
	close(image[1]);

	/* Go as the first one goes. */
	while (waitpid(root, &status, 0) < 0)
		if (errno != EINTR)
			die("waitpid");
	if (WIFSIGNALED(status)) {
		signal(WTERMSIG(status), SIG_DFL);
		raise(WTERMSIG(status));
	}
	return WEXITSTATUS(status);
}
