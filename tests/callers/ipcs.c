/*
 * ipcs.c - has objects of System V and POSIX IPC, also by a child, and looks again and again
 * whether they are what they were, until the file "stop" is there. Then it takes
 * all messages, and ends with 7. Each look is a line in the file "out".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MSG_COPY
#define MSG_COPY 040000
#endif

#define check(x) do { if (!(x)) { printf("line %d: %s: errno %d\n", __LINE__, #x, errno); exit(1); } } while (0)

enum { KEY = 0x4d0001, SIZE = 5 * 4096 + 100, SEMS = 3 };

struct message { long type; char text[64]; };
union semun { int val; struct semid_ds *buf; unsigned short *array; };

static int shm, gone, attached, sem, msg, full;
static char *held;
static mqd_t mq;

/* A process that has taken one and given three, which the kernel takes back when it ends. */
static int undone;
static pid_t borrower;

static void borrow(void)
{
	struct sembuf ops[] = { { 0, -1, SEM_UNDO }, { 1, 3, SEM_UNDO }, { 2, -32767, SEM_UNDO } };
	unsigned short values[SEMS] = { 5, 0, 32767 };
	union semun all = { .array = values };
	int told[2];
	char c;

	check((undone = semget(IPC_PRIVATE, SEMS, 0600)) >= 0);
	check(semctl(undone, 0, SETALL, all) == 0);
	check(pipe(told) == 0);
	check((borrower = fork()) >= 0);
	if (borrower == 0) {
		check(semop(undone, ops, SEMS) == 0);
		check(close(told[0]) == 0 && write(told[1], "", 1) == 1 && close(told[1]) == 0);
		for (;;)
			pause();
	}
	check(close(told[1]) == 0 && read(told[0], &c, 1) == 1 && close(told[0]) == 0);
}

static void borrowed(void)
{
	unsigned short values[SEMS];
	union semun all = { .array = values };

	check(semctl(undone, 0, GETALL, all) == 0);
	check(values[0] == 4 && values[1] == 3 && values[2] == 0);
}

static void given_back(void)
{
	unsigned short values[SEMS];
	union semun all = { .array = values };

	check(kill(borrower, SIGKILL) == 0 && waitpid(borrower, NULL, 0) == borrower);
	check(semctl(undone, 0, GETALL, all) == 0);
	check(values[0] == 5 && values[1] == 0 && values[2] == 32767);
}

/* An id that is not the next one. */
static void setup(void)
{
	struct message m = { 0 };
	struct sembuf post = { 1, 1, 0 };
	unsigned short values[SEMS] = { 5, 0, 32767 };
	union semun all = { .array = values };
	struct mq_attr attr = { .mq_maxmsg = 4, .mq_msgsize = 32 };
	struct msqid_ds ds;
	char *p;

	check((gone = shmget(IPC_PRIVATE, 100, 0600)) >= 0);
	check((shm = shmget(KEY, SIZE, IPC_CREAT | IPC_EXCL | 0640)) >= 0);
	check(shmctl(gone, IPC_RMID, NULL) == 0);
	check((p = shmat(shm, NULL, 0)) != (void *)-1);
	strcpy(p + 10, "first");
	strcpy(p + SIZE - 10, "last");
	check(shmdt(p) == 0);
	check((attached = shmget(IPC_PRIVATE, 4096, 0600)) >= 0);
	check((held = shmat(attached, NULL, 0)) != (void *)-1);
	strcpy(held, "held");

	check((sem = semget(KEY, SEMS, IPC_CREAT | IPC_EXCL | 0600)) >= 0);
	check(semctl(sem, 0, SETALL, all) == 0);
	check(semop(sem, &post, 1) == 0);

	check((msg = msgget(KEY, IPC_CREAT | IPC_EXCL | 0600)) >= 0);
	check((full = msgget(IPC_PRIVATE, 0600)) >= 0);
	check(msgctl(msg, IPC_STAT, &ds) == 0);
	ds.msg_qbytes = 1000;
	check(msgctl(msg, IPC_SET, &ds) == 0);
	for (int i = 0; i < 3; i++) {
		m.type = 3 - i;
		memset(m.text, 'a' + i, sizeof m.text);
		check(msgsnd(msg, &m, 10 * i, 0) == 0);
	}

	mq_unlink("/crshim-test");
	check((mq = mq_open("/crshim-test", O_CREAT | O_EXCL | O_RDWR, 0600, &attr)) >= 0);
	check(mq_send(mq, "low", 3, 1) == 0);
	check(mq_send(mq, "high", 4, 9) == 0);
	check(mq_send(mq, "later", 5, 1) == 0);
}

static void look(void)
{
	unsigned short values[SEMS];
	union semun all = { .array = values };
	struct shmid_ds sds;
	struct semid_ds eds;
	struct msqid_ds ds;
	struct mq_attr attr;
	struct stat st;
	struct message m;
	char *p;

	check(shmget(KEY, 0, 0) == shm);
	check(shmctl(shm, IPC_STAT, &sds) == 0 && sds.shm_segsz == SIZE && sds.shm_perm.mode == 0640);
	check((p = shmat(shm, NULL, 0)) != (void *)-1);
	check(!strcmp(p + 10, "first") && !strcmp(p + SIZE - 10, "last") && !p[4096]);
	check(shmdt(p) == 0);
	check(!strcmp(held, "held"));
	check(shmctl(attached, IPC_STAT, &sds) == 0 && sds.shm_nattch == 1);

	all.array = values;
	check(semget(KEY, 0, 0) == sem && semctl(sem, 0, GETALL, all) == 0);
	check(values[0] == 5 && values[1] == 1 && values[2] == 32767);
	all.buf = &eds;
	check(semctl(sem, 0, IPC_STAT, all) == 0 && eds.sem_otime && eds.sem_perm.mode == 0600);

	check(msgget(KEY, 0) == msg && msgctl(msg, IPC_STAT, &ds) == 0);
	check(ds.msg_qnum == 3 && ds.msg_qbytes == 1000);
	check(msgrcv(msg, &m, sizeof m.text, 2, MSG_COPY | IPC_NOWAIT) == 20 && m.type == 1 && m.text[19] == 'c');
	check(msgctl(full, IPC_STAT, &ds) == 0 && ds.msg_qnum == 0 && ds.msg_qbytes > 1000);

	check(mq_getattr(mq, &attr) == 0 && attr.mq_curmsgs == 3 && attr.mq_maxmsg == 4 && attr.mq_msgsize == 32 && !attr.mq_flags);
	check(fstat(mq, &st) == 0 && (st.st_mode & 0777) == 0600 && st.st_nlink == 1);
}

static void take(void)
{
	struct message m;
	char text[32];
	unsigned prio;

	for (int i = 0; i < 3; i++)
		check(msgrcv(msg, &m, sizeof m.text, 0, IPC_NOWAIT) == 10 * i && m.type == 3 - i && (!i || m.text[0] == 'a' + i));
	check(mq_receive(mq, text, sizeof text, &prio) == 4 && prio == 9 && !memcmp(text, "high", 4));
	check(mq_receive(mq, text, sizeof text, &prio) == 3 && prio == 1 && !memcmp(text, "low", 3));
	check(mq_receive(mq, text, sizeof text, &prio) == 5 && prio == 1);
	check(mq_unlink("/crshim-test") == 0);
}

int main(void)
{
	setbuf(stdout, NULL);
	borrow();
	setup();
	while (access("stop", F_OK)) {
		look();
		borrowed();
		int fd = open("out", O_WRONLY | O_CREAT | O_APPEND, 0600);
		check(fd >= 0 && write(fd, "\n", 1) == 1 && close(fd) == 0);
		usleep(20000);
	}
	take();
	given_back();
	return 7;
}
