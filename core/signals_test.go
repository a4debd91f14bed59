package core

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// counted gets signals with numbers, from a child of its own, and says in the end
// whether all have come, in their order.
const counted = `
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
static volatile int last, wrong;
static void value(int sig, siginfo_t *info, void *context)
{
	if (info->si_value.sival_int != last + 1)
		wrong++;
	last++;
}
int main(int argc, char **argv)
{
	int n = atoi(argv[1]), status;
	struct sigaction a = { .sa_sigaction = value, .sa_flags = SA_SIGINFO | SA_RESTART };
	FILE *f;

	sigaction(SIGRTMIN, &a, 0);
	if (!fork()) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (int i = 1; i <= n; i++) {
			union sigval v = { .sival_int = i };

			while (sigqueue(getppid(), SIGRTMIN, v) && errno == EAGAIN)
				;
			if (i % 16 == 0) /* so that few wait to be saved */
				usleep(100);
		}
		_exit(0);
	}
	while (wait(&status) < 0)
		;
	f = fopen(argv[2], "w");
	fprintf(f, "%d %d\n", last, wrong);
	fclose(f);
	for (;;)
		pause();
}
`

// TestCheckpointAmidSignals: one that a process takes just before it is stopped is
// neither lost nor late.
func TestCheckpointAmidSignals(t *testing.T) {
	const signals = 30000
	out := filepath.Join(t.TempDir(), "out")
	pid := start(t, build(t, counted), strconv.Itoa(signals), out)
	var engine Engine
	image := filepath.Join(t.TempDir(), "image")
	n := 0
	for ; !exists(out); n++ {
		save(t, &engine, pid, image)
		time.Sleep(time.Millisecond)
	}
	waitLines(t, out, 1)
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if want := strconv.Itoa(signals) + " 0\n"; string(text) != want {
		t.Errorf("after %d checkpoints %q, want %q", n, text, want)
	}
}
