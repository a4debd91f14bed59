package shim

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/seccomp"
	"github.com/crshim/crshim/syscalls"
)

// listenerAnswer is what the probe's supervisor returns and its caller must see: a number that nothing else gives.
const listenerAnswer = 4711

// askListener does in small what `crshim run` does: one thread loads the filter and makes an emulated call, another
// receives and answers it. A filter binds the thread that loads it alone, and that thread ends, so nothing of it stays.
func askListener() finding {
	// A probe that hangs would be the worst answer.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()

	type loaded struct {
		fd  int
		err error
	}
	ready, result := make(chan loaded, 1), make(chan int64, 1)
	go onSpareThread(func() {
		filter, err := seccomp.Build([]int{syscalls.NRCheckpoint})
		fd := -1
		if err == nil {
			fd, err = filter.Load()
		}
		ready <- loaded{fd, err}
		if err != nil {
			return
		}
		r, _, errno := unix.Syscall(syscalls.NRCheckpoint, 0, 0, 0)
		if errno != 0 {
			result <- -int64(errno)
			return
		}
		result <- int64(r)
	})

	l := <-ready
	switch {
	case errors.Is(l.err, seccomp.ErrTooOld), errors.Is(l.err, seccomp.ErrNested), errors.Is(l.err, seccomp.ErrUnsupported), errors.Is(l.err, seccomp.ErrPrivileges):
		return finding{no, l.err.Error()}
	case l.err != nil:
		return judge(l.err, "")
	}
	listener, err := seccomp.NewListener(l.fd)
	if err != nil {
		unix.Close(l.fd)
		return finding{unknown, err.Error()}
	}
	defer listener.Close() // an unanswered call then ends with ENOSYS, and its thread with it
	n, err := listener.Recv(ctx)
	if err != nil {
		return finding{unknown, fmt.Sprintf("receive: %v", err)}
	}
	if err := n.Return(listenerAnswer); err != nil {
		return finding{unknown, fmt.Sprintf("answer: %v", err)}
	}
	if got := <-result; got != listenerAnswer {
		return finding{no, fmt.Sprintf("the call returned %d instead of %d", got, listenerAnswer)}
	}
	return finding{yes, ""}
}

// onSpareThread runs fn on a thread that ends with it. The main thread would not: the runtime parks it for good, here
// with a filter on it.
func onSpareThread(fn func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		fn()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		onSpareThread(fn)
	}()
	<-done
	runtime.UnlockOSThread()
}
