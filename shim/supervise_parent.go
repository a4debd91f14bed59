package shim

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core"
	"github.com/crshim/crshim/tracer/procfs"
)

// parent is the parent process of CMD. The kernel lets a parent see the stops and the end of a child undisturbed only
// if the tracer is another process (wait_consider_task() in kernel/exit.c), so the supervisor cannot be it.
type parent struct {
	report socket
	hand   socket
	front  int // pidfd
	job    int // the process group of the front, if CMD may have another one in that session; else 0
	pid    int // of CMD; protected by mu once that is in use
	child  int // the same, but for the first process of a container

	container *containerParent // nil without
	lost      atomic.Bool      // the supervisor has ended, and the container for that

	mu      sync.Mutex
	stops   uint64      // how often CMD has stopped; protected by mu
	stopped unix.Signal // by what CMD is stopped, 0 while it runs; protected by mu
}

// beParent is the stage __parent: it starts CMD and waits until neither CMD nor any orphan of it is left.
func beParent(config *stageConfig, command []string) error {
	// Orphans become our children, not init's: the supervisor stays an ancestor of every task, as Yama's ptrace_scope=1
	// demands of a tracer, and when no child is left, nothing of the job is.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	p := &parent{report: config.Report, hand: config.Hand, front: config.Front}
	next := *config
	next.Front = 0
	var restored socket
	if config.Restart != nil {
		restored, config.Restart.Adopt = config.Restart.Adopt, 0
	}
	pid, pidfd, err := p.startCommand(&next, command)
	if err != nil {
		return err
	}
	p.pid = pid
	if err := p.report.send(notice{Kind: noticeStarted, PID: pid, Parent: os.Getpid()}, pidfd); err != nil {
		return err
	}
	if !config.filtered() && config.Container == nil {
		if err := config.Restart.Hold.send(notice{Kind: noticeBlank, PID: pid}); err != nil {
			return err
		}
	}
	config.Restart.release()
	if err := unix.Close(pidfd); err != nil {
		return fmt.Errorf("close pidfd: %w", err)
	}
	if err := p.leave(config); err != nil {
		return err
	}
	outliveSignals()
	go p.obey()
	if p.container == nil {
		return p.wait()
	}
	switch {
	case restored > 0:
		p.container.adopted = make(chan struct{})
		go p.adopt(restored)
	case p.container.first.reports >= 0:
		go p.watch()
	}
	if p.hand > 0 {
		go p.endWithSupervisor()
	}
	err = p.wait()
	core.ForgetFrozen(procfs.PID(p.container.first.pid))
	if p.container.adopted != nil {
		<-p.container.adopted
		err = errors.Join(err, p.container.removeGroups())
	}
	return errors.Join(err, p.container.config.unlist(p.container.first))
}

// startCommand starts the process that becomes CMD.
func (p *parent) startCommand(config *stageConfig, command []string) (pid, pidfd int, err error) {
	switch {
	case config.Container != nil:
		p.container = &containerParent{config: config.Container}
		alone := *config.Container
		alone.Listed, config.Container = 0, &alone
		first, err := startContainer(config, command, func(f *firstProcess) error {
			if config.Restart != nil {
				return nil // who is in it is known later
			}
			return p.container.config.tell(f, command)
		})
		if err != nil {
			return 0, -1, errors.Join(err, p.container.config.unlist(&firstProcess{}))
		}
		p.container.first, p.child = first, first.pid
		return first.command, first.pidfd, nil
	case config.Restart != nil:
		pid, pidfd, err = startBlank(config)
	default:
		pid, err = spawn(stageExec, config, command, &syscall.SysProcAttr{PidFD: &pidfd})
	}
	p.child = pid
	return pid, pidfd, err
}

// leave is detach. If CMD may lead a process group in the session of the front we stay there, too, in a group of our own: as its
// parent, so that what the terminal stops can be continued.
func (p *parent) leave(config *stageConfig) error {
	if config.Restart == nil || !config.Restart.InJob {
		return detach(2)
	}
	p.job = unix.Getpgrp()
	if err := unix.Setpgid(0, 0); err != nil {
		return fmt.Errorf("leave process group: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("leave directory: %w", err)
	}
	return dropInherited(2)
}

// stopFront stops the front, and who else is in its job if CMD was alone in the foreground.
func (p *parent) stopFront(sig unix.Signal) {
	group, err := unix.Getpgid(p.pid)
	if p.job == 0 || err != nil || group == p.job || unix.PidfdSendSignal(p.front, 0, nil, 0) != nil {
		p.signalFront(sig)
		return
	}
	_ = unix.Kill(-p.job, sig) // as signalFront
}

// wait reaps until there is nothing left to reap.
func (p *parent) wait() error {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WUNTRACED|unix.WCONTINUED, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECHILD):
			return nil
		case err != nil:
			return fmt.Errorf("wait for %d: %w", p.pid, err)
		case pid != p.child:
			continue
		}
		p.mu.Lock()
		switch {
		case p.pid != p.child && (status.Stopped() || status.Continued()):
			// somebody has stopped the init; CMD runs on
		case status.Stopped():
			p.stop(status.StopSignal())
		case status.Continued():
			p.goOn()
		default:
			p.end(status)
		}
		p.mu.Unlock()
	}
}

// stop tells the front that CMD has stopped. The front answers that it is ready, and only then is sent the signal: its
// stop and the SIGCONT that ends it come from one sender, this one, and so in the right order.
//
// mu is held.
func (p *parent) stop(sig unix.Signal) {
	p.stops++
	p.stopped = sig
	p.tell(notice{Kind: noticeStopped, Signal: sig, Seq: p.stops})
}

// goOn tells the front that CMD goes on. mu is held.
func (p *parent) goOn() {
	p.stopped = 0
	p.signalFront(unix.SIGCONT)
	p.tell(notice{Kind: noticeContinued})
}

// obey stops the front when it is ready for it, unless CMD has gone on meanwhile, which wait may have yet to hear of.
func (p *parent) obey() {
	for {
		r, _, err := p.report.receive()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				p.fail(err)
			}
			return // the front is gone
		}
		p.mu.Lock()
		if r.Kind == noticeReady && r.Seq == p.stops && p.stopped != 0 && isStopped(procfs.PID(p.pid)) {
			p.stopFront(p.stopped)
		}
		p.mu.Unlock()
	}
}

// end tells everybody that CMD has ended, and whether other tasks go on. mu is held.
func (p *parent) end(status unix.WaitStatus) {
	r := notice{Kind: noticeEnded, Status: p.status(status), Remain: p.reap(), Lost: p.lost.Load()}
	// A supervisor that was killed needs not be told.
	if p.hand > 0 {
		_ = p.hand.send(r)
	}
	if p.stopped != 0 {
		p.stopped = 0
		p.signalFront(unix.SIGCONT)
	}
	p.tell(r)
	p.pid, p.child = -1, -1
}

// reap collects the orphans that have ended and tells whether others live on.
func (p *parent) reap() (remain bool) {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false
		}
		if err == nil && pid == 0 {
			return true
		}
	}
}

// tell reports to the front. If the front was killed there is nobody to tell, and the job goes on without it.
func (p *parent) tell(r notice) { _ = p.report.send(r) }

// signalFront likewise.
func (p *parent) signalFront(sig unix.Signal) { _ = unix.PidfdSendSignal(p.front, sig, nil, 0) }

// isStopped tells whether a process is stopped now, by a signal or by its tracer; one that is gone is not.
func isStopped(pid procfs.PID) bool {
	p, err := procfs.Open(pid)
	if err != nil {
		return false
	}
	defer func() { _ = p.Close() }()
	stat, err := p.Stat()
	return err == nil && (stat.State == 'T' || stat.State == 't')
}
