package tracer

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// A stop takes 20 to 70 us to come. wait4 has no timeout, so look again and
// again, sleeping a little longer each time. Looking without sleeping would
// keep the task from a processor: measured on two busy ones, it made some
// stops last milliseconds.
const (
	firstSleep = 10 * time.Microsecond
	lastSleep  = time.Millisecond
)

// WaitStop waits for the next stop of the task, or for its end. A negative
// timeout waits for ever. The error is ErrTimeout if nothing came.
//
// At an EventStop a restartable sequence that the task was in has been
// aborted, as the kernel itself would do when the task goes on (rseq(2)).
func (e *Tracee) WaitStop(timeout time.Duration) (Stop, error) {
	e.t.check()
	if e.gone {
		return Stop{}, e.fault("wait for", ErrGone)
	}
	stop, err := e.waitNext(timeout)
	if err == nil && stop.Kind == EventStop {
		err = e.abortRseq()
	}
	return stop, e.fault("wait for", err)
}

// waitNext is WaitStop without its care for restartable sequences.
func (e *Tracee) waitNext(timeout time.Duration) (Stop, error) {
	if beforeRequest != nil {
		beforeRequest()
	}
	if timeout < 0 {
		stop, _, err := e.poll(0)
		return stop, err
	}
	start := time.Now()
	for sleep := firstSleep; ; sleep = min(2*sleep, lastSleep) {
		stop, ok, err := e.poll(unix.WNOHANG)
		if ok || err != nil {
			return stop, err
		}
		left := timeout - time.Since(start)
		if left <= 0 {
			return Stop{}, ErrTimeout
		}
		// A timer of the runtime would hand this thread over and back.
		ts := unix.NsecToTimespec(int64(min(sleep, left)))
		_ = unix.Nanosleep(&ts, nil) // woken early by a signal: just look again
	}
}

// poll asks for the task's next stop, once.
func (e *Tracee) poll(flags int) (Stop, bool, error) {
	var status unix.WaitStatus
	for {
		tid, err := unix.Wait4(int(e.tid), &status, flags|unix.WALL|unix.WNOTHREAD, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECHILD):
			return Stop{}, false, ErrGone
		case err != nil:
			return Stop{}, false, err
		case tid == 0:
			return Stop{}, false, nil
		}
		break
	}
	e.stop = decodeStop(uint32(status))
	e.stopped = !e.stop.Gone()
	switch e.stop.Kind {
	case Exited, Killed:
		e.forget()
	case CloneStop, ForkStop, VforkStop:
		tid, err := e.eventMessage()
		if err != nil {
			return Stop{}, false, err
		}
		e.stop.NewTID = TID(tid)
	case ExecStop:
		e.boot = nil // new memory
	}
	return e.stop, true, nil
}

// waitDead waits until a killed task has ended.
func (e *Tracee) waitDead() {
	for {
		stop, _, err := e.poll(0)
		if err != nil || stop.Gone() {
			e.gone, e.stopped = true, false
			return
		}
		// It was on its way to a stop when the signal came, which ends that
		// stop too.
	}
}

// reap gives a dead task back to its parent. Without it a zombie would stay
// ours until the thread ends.
func (e *Tracee) reap() {
	if e.t.tracees[e.tid] == e && e.gone {
		_, _, _ = e.poll(unix.WNOHANG)
	}
}
