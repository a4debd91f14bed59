/*
 * mqueue.c - open POSIX message queues. The queue itself stays where it is.
 */
#include "scenario.h"

#include <mqueue.h>

static mqd_t writer, same, reader;
static char name[32];

static void setup(void)
{
	struct mq_attr attr = { .mq_maxmsg = 3, .mq_msgsize = 16 };

	snprintf(name, sizeof(name), "/crshim-%d", (int)getpid());
	writer = mq_open(name, O_CREAT | O_EXCL | O_WRONLY, 0600, &attr);
	if (writer < 0)
		needs("POSIX message queues");
	same = dup(writer);
	reader = mq_open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	check(same >= 0 && reader >= 0);
	check_eq(mq_send(writer, "first", 6, 1), 0);
}

/* original tells the process that made a self checkpoint from the restored one. */
static int original(int cycle)
{
	return !scenario_external && access(path("saved", cycle), F_OK) != 0;
}

static void verify(int cycle)
{
	struct mq_attr attr;
	char text[16];
	unsigned priority;

	check_eq(fcntl(same, F_GETFD), 0);
	check_eq(fcntl(reader, F_GETFD), FD_CLOEXEC);
	check_eq(fcntl(writer, F_GETFL) & O_ACCMODE, O_WRONLY);
	check_eq(fcntl(reader, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDONLY | O_NONBLOCK);
	check_eq(mq_receive(reader, text, sizeof(text), &priority), 6);
	check(priority == 1 && !strcmp(text, "first"));
	check_eq(mq_receive(reader, text, sizeof(text), NULL), -1);
	check_eq(errno, EAGAIN);
	check_eq(mq_send(writer, "first", 6, 1), 0);
	/* One open file, with one set of flags. */
	attr.mq_flags = cycle % 2 ? O_NONBLOCK : 0;
	check_eq(mq_setattr(writer, &attr, NULL), 0);
	check_eq(mq_getattr(same, &attr), 0);
	check_eq(attr.mq_flags, cycle % 2 ? O_NONBLOCK : 0);
	check(attr.mq_maxmsg == 3 && attr.mq_msgsize == 16 && attr.mq_curmsgs == 1);
	if (cycle == 3 && !original(cycle))
		check_eq(mq_unlink(name), 0);
}

SCENARIOS(
	{ "open", BOTH, setup, verify, NULL, 0 },
)
