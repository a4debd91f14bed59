package shim

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// containerParent is what a stage __parent knows of a container: CMD is not its child, the first process is.
type containerParent struct {
	config  *containerConfig
	first   *firstProcess
	command unix.WaitStatus // how CMD has ended, 0 before; protected by parent.mu
	adopted chan struct{}   // of a restart: closed when the front has told all
	groups  []string        // control groups that end with it; known then
}

// watch hears what becomes of CMD from the init, which is its parent.
func (p *parent) watch() {
	for {
		ready := []unix.PollFd{{Fd: int32(p.container.first.reports), Events: unix.POLLIN}}
		if _, err := unix.Poll(ready, -1); err != nil && !errors.Is(err, unix.EINTR) {
			p.fail(fmt.Errorf("wait for init: %w", err))
			return
		}
		p.mu.Lock()
		p.hearInit()
		p.mu.Unlock()
	}
}

// hearInit takes in what the init has reported since it was asked last. mu is held.
func (p *parent) hearInit() {
	c := p.container
	if c == nil || c.first.reports < 0 {
		return
	}
	var sum [8]byte
	n, err := unix.Read(c.first.reports, sum[:])
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return // nothing new, or the next poll tells
	}
	if err != nil || n != len(sum) {
		p.fail(errors.Join(fmt.Errorf("hear init: %d bytes", n), err))
		return
	}
	report := tracer.InitReport(binary.NativeEndian.Uint64(sum[:]))
	c.command |= report.Status()
	stopped := isStopped(procfs.PID(p.pid))
	switch sig := report.StopSignal(); {
	case stopped && report.Changes() == 1 && sig != 0:
		p.stop(sig)
	case stopped:
		p.stop(unix.SIGSTOP) // which of several it was last is not known
	case p.stopped != 0:
		p.goOn()
	}
}

// status is how CMD has ended, by how its container has. An init that has ended by itself tells by which signal CMD was killed;
// one that was killed has taken CMD with it.
func (p *parent) status(first unix.WaitStatus) unix.WaitStatus {
	p.hearInit()
	if p.container == nil || p.container.first.reports < 0 || first.Signaled() {
		return first
	}
	return p.container.command
}

// endWithSupervisor ends the container when the supervisor does: nobody would answer its calls.
func (p *parent) endWithSupervisor() {
	for {
		gone := []unix.PollFd{{Fd: int32(p.hand)}} // POLLHUP needs not be asked for
		n, err := unix.Poll(gone, -1)
		if n == 0 || errors.Is(err, unix.EINTR) {
			continue
		}
		p.lost.Store(true)
		_ = unix.PidfdSendSignal(p.container.first.own, unix.SIGKILL, nil, 0) // it may have ended
		return
	}
}

// fail tells the front of a failure.
func (p *parent) fail(err error) {
	for _, failure := range failuresOf(err) {
		p.tell(notice{Kind: noticeFailed, Failure: failure})
	}
}
