package shim

/*
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>

static uint64_t start_ignored, start_blocked;
static unsigned int start_closed;

// Runs before the Go runtime, which installs handlers of its own and opens /dev/null in the place of closed stdio.
__attribute__((constructor)) static void note_start(void)
{
	struct sigaction action;
	sigset_t mask;

	sigemptyset(&mask);
	sigprocmask(SIG_BLOCK, 0, &mask);
	for (int sig = 1; sig <= 64; sig++) {
		uint64_t bit = (uint64_t)1 << (sig - 1);

		if (sigaction(sig, 0, &action) == 0 && action.sa_handler == SIG_IGN)
			start_ignored |= bit;
		if (sigismember(&mask, sig) == 1)
			start_blocked |= bit;
	}
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) == -1)
			start_closed |= 1u << fd;
}

static uint64_t ignored_at_start(void) { return start_ignored; }
static uint64_t blocked_at_start(void) { return start_blocked; }
static unsigned int closed_at_start(void) { return start_closed; }
*/
import "C"

// startState is what a process inherits beside its descriptors and that the Go runtime changes. CMD is given it back.
type startState struct {
	Ignored uint64 `json:",omitzero"` // signals with SIG_IGN; bit n-1 for signal n
	Blocked uint64 `json:",omitzero"` // signal mask
	Closed  uint   `json:",omitzero"` // which of descriptors 0, 1, 2 were closed; bit n for n
}

func stateAtStart() startState {
	return startState{
		Ignored: uint64(C.ignored_at_start()),
		Blocked: uint64(C.blocked_at_start()),
		Closed:  uint(C.closed_at_start()),
	}
}

func (s startState) ignores(sig int) bool { return s.Ignored&(1<<(sig-1)) != 0 }
