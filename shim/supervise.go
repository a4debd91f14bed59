package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/seccomp"
	"github.com/crshim/crshim/syscalls"
	"github.com/crshim/crshim/tracer/procfs"
)

// supervise is the stage __supervise: it serves the calls of CMD and all its descendants, until none is left.
func supervise(config *stageConfig, command []string) error {
	log, err := newLog(config.Log)
	if err != nil {
		return err
	}
	hand, theirs, err := socketPair()
	if err != nil {
		return err
	}
	next := *config
	next.Hand = theirs
	pid, err := spawn(stageParent, &next, command, nil)
	if err != nil {
		return err
	}
	theirs.close()
	config.Restart.release()
	if err := errors.Join(unix.Close(config.Front), config.Container.release()); err != nil {
		return fmt.Errorf("close pidfd: %w", err)
	}
	if err := detach(1); err != nil {
		return err
	}
	outliveSignals()

	r, fd, err := hand.receive()
	switch {
	case errors.Is(err, io.EOF), err == nil && r.Kind != noticeListener:
		return reapParent(pid) // CMD could not be started, and the front has been told why
	case err != nil:
		return err
	}
	listener, err := seccomp.NewListener(fd)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }()
	if err := hand.send(notice{Kind: noticeServed}); err != nil {
		return err
	}
	// Started: failures from here on are for the log, and the end of the front's line means the end of the parent.
	config.Report.close()
	var calls inFlight
	if config.Restart != nil && config.Restart.Detach {
		err = dropInherited(2)
	} else {
		go dropStderr(hand, log, &calls)
	}
	if err == nil {
		err = serve(listener, log, &calls)
	}
	if err != nil {
		log.Error(err)
		return errors.Join(listener.Close(), reapParent(pid))
	}
	return reapParent(pid)
}

// serve handles each call on a goroutine of its own until the last task under the filter has ended.
func serve(listener *seccomp.Listener, log *callLog, calls *inFlight) error {
	dispatcher := newDispatcher(log)
	defer calls.all.Wait()
	for {
		n, err := listener.Recv(context.Background())
		if errors.Is(err, seccomp.ErrHangup) {
			return nil
		}
		if err != nil {
			return err
		}
		done := calls.begin()
		go func() {
			defer done()
			dispatcher.Serve(requestOf(n))
		}()
	}
}

// inFlight counts the calls that are being handled.
type inFlight struct {
	all sync.WaitGroup

	mu  sync.Mutex
	now *sync.WaitGroup // of the calls begun since the latest drain; protected by mu
}

// begin counts a call; the function that it returns ends it.
func (f *inFlight) begin() (done func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now == nil {
		f.now = new(sync.WaitGroup)
	}
	f.all.Add(1)
	f.now.Add(1)
	since := f.now
	return func() {
		since.Done()
		f.all.Done()
	}
}

// drain waits for the calls begun so far, and not for those that begin meanwhile.
func (f *inFlight) drain() {
	f.mu.Lock()
	before := f.now
	f.now = nil
	f.mu.Unlock()
	if before != nil {
		before.Wait()
	}
}

// newDispatcher connects the table of calls with the log.
func newDispatcher(log *callLog) *syscalls.Dispatcher {
	return &syscalls.Dispatcher{Engine: newEngine(log.Warnf), Trace: log.trace(), Warn: log.warn}
}

// requestOf puts a notification into the words of package syscalls.
func requestOf(n *seccomp.Notification) syscalls.Request {
	arch := syscalls.X8664
	if n.Arch() == seccomp.I386 {
		arch = syscalls.I386
	}
	return syscalls.Request{
		TID:  procfs.PID(n.TID()),
		Arch: arch,
		NR:   n.NR(),
		Args: n.Args(),
		Answer: func(o syscalls.Outcome) error {
			if o.Errno != 0 {
				return n.Fail(o.Errno)
			}
			return n.Return(o.Value)
		},
		Valid: n.Valid,
	}
}

// dropStderr closes standard error when CMD has ended and background tasks keep us: whoever reads what CMD wrote must
// see its end. What is to be said of the calls that CMD made is said before. A trace to a file goes on.
func dropStderr(hand socket, log *callLog, calls *inFlight) {
	for {
		r, _, err := hand.receive()
		if err != nil {
			return // the parent has ended
		}
		if r.Kind != noticeEnded || !r.Remain {
			continue // without anybody left we end at once
		}
		calls.drain()
		if err := dropInherited(2); err != nil {
			log.Error(err)
		}
	}
}

// outliveSignals keeps a stage alive through the signals that ask the job to end: it ends after the job. A handler, not
// SIG_IGN, as that would go on to every program executed from here.
func outliveSignals() {
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2,
		unix.SIGALRM, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU)
}

// reapParent waits for the parent stage, which ends when the job has.
func reapParent(pid int) error {
	for {
		_, err := unix.Wait4(pid, nil, 0, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
