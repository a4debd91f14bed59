package shim

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer/procfs"
)

// front is the process that was started as `crshim run` or `crshim restart`. CMD stays in its process group, so what the terminal does
// to the group it does to both; the front passes on what is sent to it alone, and stops and ends as CMD does.
type front struct {
	report  socket
	parent  int32      // pid of the stage __parent
	pid     procfs.PID // of CMD
	pidfd   int        // of CMD, -1 before it has started
	signals <-chan sentSignal

	restart  *restart  // nil in a run
	terminal *terminal // nil if it is not CMD's affair
	pending  bool      // how the restart went is not known yet
	settled  bool      // CMD is what it is to be
	served   bool      // a supervisor handles the calls of CMD
	name     string    // of the container, if CMD is in one

	// While CMD is stopped by a signal, what the front's action for it was.
	stoppedBy unix.Signal
	action    sigaction
}

// runCommand runs CMD, in a container if there is to be one, and returns its wait status.
func runCommand(log logConfig, container *containerConfig, command []string) (unix.WaitStatus, error) {
	if container != nil {
		if err := container.list(command[0]); err != nil {
			return 0, err
		}
	}
	return launch(&stageConfig{Start: stateAtStart(), Log: log, Container: container}, command, nil)
}

// launch starts the stages and returns the wait status of CMD, which in a restart the image is to fill.
func launch(config *stageConfig, command []string, r *restart) (unix.WaitStatus, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return 0, err
	}
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return 0, fmt.Errorf("open pidfd: %w", err)
	}
	config.Report, config.Front = theirs, self
	first, lastNull := stageSupervise, 1
	if r != nil {
		if !config.filtered() {
			first = stageParent
		}
		if config.Restart.Detach {
			lastNull = 0 // the process id is to be printed
		}
	}
	signals, err := catchSignals(config.Start)
	if err != nil {
		return 0, err
	}
	child, err := spawn(first, config, command, nil)
	if err != nil {
		return 0, err
	}
	theirs.close()
	config.Restart.release()
	if err := errors.Join(unix.Close(self), config.Container.release(), dropInherited(lastNull)); err != nil {
		return 0, err
	}
	f := &front{report: ours, pidfd: -1, signals: signals, restart: r, pending: r != nil, settled: r == nil, served: config.filtered()}
	if config.Container != nil {
		f.name = config.Container.Name
	}
	if r != nil {
		f.terminal = r.terminal
		go r.run()
	}
	return f.mirror(child)
}

// mirror does as CMD does until CMD has ended.
func (f *front) mirror(child int) (unix.WaitStatus, error) {
	reports := make(chan arrival)
	go receiveAll(f.report, reports)
	waited := make(chan unix.WaitStatus, 1)
	go awaitChild(child, waited)

	var failed fault.List
	var ended *notice
	for {
		select {
		case a := <-reports:
			switch {
			case a.err != nil:
				// With nothing left of the job the stages end too, and nothing of ours outlives this process.
				if waited != nil {
					f.noteEnd(<-waited)
				}
				if f.pending {
					failed = append(failed, f.settle(<-f.restart.done)...)
				}
				switch {
				case failed != nil:
					return 0, failed
				case ended == nil:
					return 0, &fault.Error{Code: fault.SupervisorLost, Object: "the command", Err: a.err}
				case !f.settled && ended.Status.Exited():
					return 0, &fault.Error{Code: fault.LaunchFailed, Object: "the blank process", Err: endWith(ended.Status.ExitStatus())}
				}
				return ended.Status, nil
			case a.Kind == noticeFailed:
				failed = append(failed, a.Failure.err())
			case a.Kind == noticeEnded:
				ended = &a.notice
				if ended.Lost && waited != nil {
					f.noteEnd(<-waited) // else it would be left open which of the two is heard of first
					waited = nil
				}
			default:
				if err := f.handle(a); err != nil {
					return 0, err
				}
			}
			if ended != nil && ended.Remain && f.settled {
				return ended.Status, failed.Err()
			}
		case o := <-f.whenRestarted():
			failed = append(failed, f.settle(o)...)
			if f.settled && f.restart.config.Detach && failed == nil {
				return 0, nil
			}
		case sent := <-f.whenStarted():
			if sig := unix.Signal(sent.Sig); f.pending && asksToEnd[sig] {
				// The image may come from a pipe that nothing comes from, and until all of it has come CMD takes no signal.
				return unix.WaitStatus(sig), unix.PidfdSendSignal(f.pidfd, unix.SIGKILL, nil, 0)
			}
			if err := f.pass(sent); err != nil {
				return 0, err
			}
		case status := <-waited:
			waited = nil
			f.noteEnd(status)
		}
	}
}

// noteEnd says so if the supervisor was killed: the calls of CMD fail without another reason.
func (f *front) noteEnd(supervisor unix.WaitStatus) {
	switch {
	case !supervisor.Signaled() || !f.served:
	case f.name != "":
		printError(os.Stderr, &fault.Error{Code: fault.ContainerLost, Object: f.name})
	default:
		printError(os.Stderr, &fault.Error{Code: fault.SupervisorLost, Object: fmt.Sprintf("pid %d", f.pid)})
	}
}

// asksToEnd are the signals that end a restart which is under way; others are for the program.
var asksToEnd = map[unix.Signal]bool{unix.SIGHUP: true, unix.SIGINT: true, unix.SIGQUIT: true, unix.SIGTERM: true}

// whenRestarted is the channel of the restart's outcome until that is known.
func (f *front) whenRestarted() <-chan outcome {
	if !f.pending {
		return nil
	}
	return f.restart.done
}

// settle takes note of how the restart went. Whatever fails, CMD ends.
func (f *front) settle(o outcome) fault.List {
	f.pending = false
	if errors.Is(o.err, errNotStarted) {
		return nil
	}
	f.settled = o.err == nil
	if f.settled {
		if f.terminal != nil {
			f.terminal.redraw()
		}
		if o.err = f.restart.announce(o.pid); o.err != nil && f.pidfd >= 0 {
			o.err = errors.Join(o.err, unix.PidfdSendSignal(f.pidfd, unix.SIGKILL, nil, 0))
		}
	}
	return faultsOf(o.err)
}

// arrival is a report, or the error that ends them.
type arrival struct {
	notice
	fd  int
	err error
}

func receiveAll(s socket, to chan<- arrival) {
	for {
		r, fd, err := s.receive()
		if errors.Is(err, io.EOF) {
			err = errors.New("the parent process of the command has ended")
		}
		to <- arrival{r, fd, err}
		if err != nil {
			return
		}
	}
}

func awaitChild(pid int, to chan<- unix.WaitStatus) {
	for {
		var status unix.WaitStatus
		if _, err := unix.Wait4(pid, &status, 0, nil); !errors.Is(err, unix.EINTR) {
			to <- status
			return
		}
	}
}

func (f *front) handle(a arrival) error {
	switch a.Kind {
	case noticeStarted:
		if f.pidfd >= 0 { // of a container, which was the blank process before
			if err := unix.Close(f.pidfd); err != nil {
				return fmt.Errorf("close pidfd: %w", err)
			}
		}
		f.parent, f.pid, f.pidfd = int32(a.Parent), procfs.PID(a.PID), a.fd
	case noticeStopped:
		// Our handler of the signal gives way, so that the parent's signal stops us by the very signal that stopped CMD.
		if a.Signal != unix.SIGSTOP && f.stoppedBy == 0 {
			old, err := setSigaction(a.Signal, sigaction{handler: sigDefault})
			if err != nil {
				return err
			}
			f.stoppedBy, f.action = a.Signal, old
		}
		if err := f.terminal.retake(); err != nil {
			return err
		}
		err := f.report.send(notice{Kind: noticeReady, Seq: a.Seq})
		if errors.Is(err, unix.EPIPE) {
			return nil // CMD has ended meanwhile, and its parent: the notice of that is on its way
		}
		return err
	case noticeContinued:
		if f.stoppedBy != 0 {
			if _, err := setSigaction(f.stoppedBy, f.action); err != nil {
				return err
			}
			f.stoppedBy = 0
		}
	}
	return nil
}

// whenStarted is the channel of signals once there is somebody to pass them to.
func (f *front) whenStarted() <-chan sentSignal {
	if f.pidfd < 0 {
		return nil
	}
	return f.signals
}

// pass gives CMD a signal that reached us and not it.
func (f *front) pass(s sentSignal) error {
	sig := unix.Signal(s.Sig)
	if sig == unix.SIGCONT {
		if err := f.terminal.resume(); err != nil {
			return err
		}
	}
	switch {
	case sig == unix.SIGHUP && !s.byProcess():
		// The end of a terminal is told to its session leader, in whose place CMD would be, and to the foreground group.
		if sid, err := unix.Getsid(0); err != nil || sid != os.Getpid() {
			return nil
		}
	case !s.byProcess():
		return nil // from a key of the terminal: the whole process group has had it, and CMD is in it
	case sig == unix.SIGCONT && s.PID == f.parent, sig == unix.SIGCONT && !isStopped(f.pid):
		return nil // CMD goes on already; a shell continues the whole group
	}
	err := f.send(sig)
	// It has ended, or has become another user: then the sender would not have been allowed either.
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EPERM) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pass %s on: %w", unix.SignalName(sig), err)
	}
	return nil
}

// send gives CMD a signal. That which continues a job is for all of its group, as a shell has it.
func (f *front) send(sig unix.Signal) error {
	if sig == unix.SIGCONT && f.terminal != nil {
		if group, err := unix.Getpgid(int(f.pid)); err == nil && group > 1 && group != f.terminal.own {
			return unix.Kill(-group, sig)
		}
	}
	return unix.PidfdSendSignal(f.pidfd, sig, nil, 0)
}

// dieBy kills this process by a signal that killed CMD, without a second core dump. It returns only if that fails.
func dieBy(sig unix.Signal) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("switch core dump off: %w", err)
	}
	if sig != unix.SIGKILL {
		if _, err := setSigaction(sig, sigaction{handler: sigDefault}); err != nil {
			return err
		}
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &unix.Sigset_t{}, nil); err != nil {
		return fmt.Errorf("unblock signals: %w", err)
	}
	if err := unix.Tgkill(os.Getpid(), unix.Gettid(), sig); err != nil {
		return fmt.Errorf("end by %s: %w", unix.SignalName(sig), err)
	}
	return nil
}
