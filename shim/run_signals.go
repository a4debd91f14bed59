package shim

/*
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

struct sent {
	int32_t sig, code, pid;
};

static int sent_to = -1;

static void on_signal(int sig, siginfo_t *info, void *context)
{
	struct sent s = { sig, info->si_code, info->si_pid };
	int saved = errno;
	ssize_t n = write(sent_to, &s, sizeof s);

	(void)n; // a full pipe holds more signals than anybody sends
	(void)context;
	errno = saved;
}

static int catch_signal(int sig, int fd)
{
	struct sigaction action;

	memset(&action, 0, sizeof action);
	sent_to = fd;
	action.sa_sigaction = on_signal;
	action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
	sigfillset(&action.sa_mask);
	return sigaction(sig, &action, 0) ? errno : 0;
}
*/
import "C"

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// sentSignal is a signal with its sender, which os/signal does not tell.
type sentSignal struct {
	Sig  int32
	Code int32 // SI_ value of sigaction(2)
	PID  int32 // of the sender, if a process sent it
}

// byProcess tells that a process sent the signal (kill, tgkill, sigqueue), not the kernel for a key of the terminal.
func (s sentSignal) byProcess() bool { return s.Code <= 0 }

// notCaught are signals that are not for CMD: those about our own children, descriptors and faults, and the Go runtime's own.
// The numbers 32 and 33 belong to the C library.
var notCaught = map[unix.Signal]bool{
	unix.SIGKILL: true, unix.SIGSTOP: true, unix.SIGCHLD: true, unix.SIGPIPE: true, unix.SIGURG: true, unix.SIGPROF: true,
	unix.SIGSEGV: true, unix.SIGBUS: true, unix.SIGFPE: true, unix.SIGILL: true, unix.SIGTRAP: true, 32: true, 33: true,
}

// catchSignals directs all signals but those to the channel. One that was ignored when crshim started stays so, as CMD
// ignores it too; one that was blocked is caught nevertheless, and waits at CMD.
func catchSignals(start startState) (<-chan sentSignal, error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	// A signal handler must not wait; the reader may.
	if err := unix.SetNonblock(pipe[1], true); err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	for sig := unix.Signal(1); sig <= 64; sig++ {
		switch {
		case notCaught[sig]:
		case start.ignores(int(sig)):
			if _, err := setSigaction(sig, sigaction{handler: sigIgnore}); err != nil {
				return nil, err
			}
		default:
			if errno := C.catch_signal(C.int(sig), C.int(pipe[1])); errno != 0 {
				return nil, fmt.Errorf("catch signal %d: %w", sig, unix.Errno(errno))
			}
		}
	}
	sent := make(chan sentSignal)
	go readSignals(os.NewFile(uintptr(pipe[0]), "signals"), sent)
	return sent, nil
}

// readSignals passes signals on as long as the process lives.
func readSignals(pipe io.Reader, to chan<- sentSignal) {
	// This thread takes what the others have blocked since the start.
	runtime.LockOSThread()
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &unix.Sigset_t{}, nil)
	for {
		var s sentSignal
		if err := binary.Read(pipe, binary.NativeEndian, &s); err != nil {
			return
		}
		to <- s
	}
}
