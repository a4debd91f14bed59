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
	dispatcher := newDispatcher(log)
	var saved *savedJob
	if config.Restart != nil {
		if saved, err = openSaved(config.Restart, dispatcher.Engine); err != nil {
			return err
		}
		next.Restart = saved.stages()
	}
	pid, err := spawn(stageParent, &next, command, nil)
	if err != nil {
		return err
	}
	theirs.close()
	if err := unix.Close(config.Front); err != nil {
		return fmt.Errorf("close pidfd: %w", err)
	}
	if err := detach(1); err != nil {
		return err
	}
	outliveSignals()

	var listener *seccomp.Listener
	if next.filtered() {
		if listener, err = takeListener(hand); err == nil {
			defer func() { _ = listener.Close() }()
		}
	}
	if err == nil && saved != nil {
		err = saved.restore(hand, config.Report)
	}
	if err != nil {
		// __exec waits for us in vain, if it is still there.
		hand.close()
		if listener != nil {
			err = errors.Join(err, listener.Close())
		}
		err = errors.Join(err, reapParent(pid))
		if errors.Is(err, errNotStarted) {
			return nil // the front has been told why, or sees it in how CMD ended
		}
		return err
	}
	// Started: failures from here on are for the log, and the end of the front's line means the end of the parent.
	config.Report.close()
	var calls inFlight
	if saved != nil && config.Restart.Detach {
		err = dropInherited(2)
	} else {
		go dropStderr(hand, log, &calls)
	}
	if listener != nil && err == nil {
		err = serve(listener, dispatcher, &calls)
	}
	if err != nil {
		log.Error(err)
		if listener != nil {
			err = errors.Join(err, listener.Close())
		}
	}
	return errors.Join(err, reapParent(pid))
}

// errNotStarted says that CMD could not be started for a reason that is not the supervisor's.
var errNotStarted = errors.New("not started")

// takeListener receives the listener from __exec and tells it that its calls are served.
func takeListener(hand socket) (*seccomp.Listener, error) {
	r, fd, err := hand.receive()
	switch {
	case errors.Is(err, io.EOF), err == nil && r.Kind != noticeListener:
		return nil, errNotStarted
	case err != nil:
		return nil, err
	}
	listener, err := seccomp.NewListener(fd)
	if err != nil {
		return nil, err
	}
	if err := hand.send(notice{Kind: noticeServed}); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// serve handles each call on a goroutine of its own until the last task under the filter has ended.
func serve(listener *seccomp.Listener, dispatcher *syscalls.Dispatcher, calls *inFlight) error {
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
