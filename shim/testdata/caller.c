/*
 * caller MODE: makes emulated calls in the ways that the tests of `crshim run` need.
 *
 *   once          one crgetid(); prints the result or the errno's number
 *   bad            one checkpoint() with a flag; prints the errno's number
 *   loop FILE     crgetid() until FILE exists, then the last errno and "done"
 *   crowd N FILE  N processes in that loop; the sum of those that ended well, as "N done"
 *   state         what a process inherits: signal dispositions and mask, groups, limits, descriptors, arguments, environment
 *   signals       counts SIGUSR1, SIGTERM, SIGHUP, SIGINT, SIGTSTP; prints the counts at each signal, ends at SIGUSR2
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <crshim.h>

extern char **environ;

static volatile sig_atomic_t count[65];

static void counted(int sig)
{
	count[sig]++;
}

static int loop(const char *stop)
{
	int err = 0;

	while (access(stop, F_OK)) {
		int ret = crgetid();

		err = ret < 0 ? errno : 0;
		if (err && err != ENOSYS && err != EINTR)
			return err;
	}
	return err;
}

static int crowd(int n, const char *stop)
{
	int done = 0;
	int status;

	for (int i = 0; i < n; i++) {
		pid_t pid = fork();

		if (pid < 0)
			return 1;
		if (pid == 0) {
			int err = loop(stop);

			_exit(err == 0 || err == ENOSYS || err == EINTR ? 0 : 1);
		}
		printf("%d\n", (int)pid);
	}
	puts("all");
	fflush(stdout);
	while (wait(&status) > 0)
		done += WIFEXITED(status) && WEXITSTATUS(status) == 0;
	printf("%d done\n", done);
	return 0;
}

static void show_links(const char *dir)
{
	struct dirent *entry;
	DIR *list = opendir(dir);

	while ((entry = readdir(list))) {
		char path[300], target[300];
		ssize_t len;

		if (entry->d_name[0] == '.' || atoi(entry->d_name) == dirfd(list))
			continue;
		snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
		len = readlink(path, target, sizeof target - 1);
		target[len > 0 ? len : 0] = 0;
		printf("%s -> %s\n", path, target);
	}
	closedir(list);
}

static int state(int argc, char **argv)
{
	char line[1000];
	FILE *status = fopen("/proc/self/status", "r");

	while (fgets(line, sizeof line, status))
		if (!strncmp(line, "Sig", 3) || !strncmp(line, "Shd", 3) || !strncmp(line, "Name", 4) || !strncmp(line, "Cap", 3) ||
		    !strncmp(line, "Umask", 5) || !strncmp(line, "Groups", 6))
			if (strncmp(line, "SigQ", 4))
				fputs(line, stdout);
	fclose(status);
	printf("session %d\n", (int)getsid(0));
	for (int r = 0; r < 16; r++) {
		struct rlimit lim;

		getrlimit(r, &lim);
		printf("limit %d: %lu %lu\n", r, (unsigned long)lim.rlim_cur, (unsigned long)lim.rlim_max);
	}
	show_links("/proc/self/fd");
	printf("nice %d cwd %s\n", nice(0), getcwd(line, sizeof line));
	for (int i = 0; i < argc; i++)
		printf("argument %s\n", argv[i]);
	for (char **e = environ; *e; e++)
		printf("environment %s\n", *e);
	return 0;
}

static int signals(void)
{
	static const int counting[] = { SIGUSR1, SIGTERM, SIGHUP, SIGINT, SIGTSTP, SIGUSR2 };
	struct sigaction sa = { .sa_handler = counted };
	sigset_t all, none;

	sigfillset(&all);
	sigemptyset(&none);
	sigprocmask(SIG_BLOCK, &all, NULL);
	for (unsigned int i = 0; i < sizeof counting / sizeof counting[0]; i++)
		sigaction(counting[i], &sa, NULL);
	puts("ready");
	fflush(stdout);
	while (!count[SIGUSR2]) {
		sigsuspend(&none);
		printf("%d %d %d %d %d\n", count[SIGUSR1], count[SIGTERM], count[SIGHUP], count[SIGINT], count[SIGTSTP]);
		fflush(stdout);
	}
	return 0;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";

	if (!strcmp(mode, "once")) {
		int ret = crgetid();

		printf("%d\n", ret < 0 ? -errno : ret);
	} else if (!strcmp(mode, "bad")) {
		printf("%d\n", checkpoint(getpid(), 1, 4) ? errno : 0);
	} else if (!strcmp(mode, "loop") && argc > 2) {
		puts("ready");
		fflush(stdout);
		printf("%d done\n", loop(argv[2]));
	} else if (!strcmp(mode, "crowd") && argc > 3) {
		return crowd(atoi(argv[2]), argv[3]);
	} else if (!strcmp(mode, "state")) {
		return state(argc, argv);
	} else if (!strcmp(mode, "signals")) {
		return signals();
	} else {
		return 2;
	}
	return 0;
}
