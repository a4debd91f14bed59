package tracer

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

// Tracer owns the tracees of one operation. It belongs to one thread: see Run.
type Tracer struct {
	// Trace, if set, is given one line for each system call made in a task.
	Trace func(string)

	owner    int
	tracees  map[TID]*Tracee
	suspends bool             // what Tracee.suspended was last
	boots    map[bootKey]bool // boot slots in use
}

// A Panic carries a panic of Run's function to the goroutine that called Run.
type Panic struct {
	Value any
	Stack []byte // where it happened
}

func (p *Panic) Error() string { return fmt.Sprintf("%v\n\n%s", p.Value, p.Stack) }

// Unwrap is the value, if it is an error.
func (p *Panic) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}

// exited is what Run panics with when fn ended its goroutine.
var errGoexit = errors.New("tracer: the function ended its goroutine")

// Run calls fn with a new Tracer, on an OS thread of its own that ends with
// it, and waits for fn. Whatever is still attached when fn returns is
// detached, or killed if it was to be killed with us. A panic of fn comes out
// of Run as a *Panic.
//
// The Tracer and all that comes from it may only be used inside fn and on its
// goroutine.
func Run[T any](fn func(*Tracer) (T, error)) (T, error) {
	var (
		value T
		err   error
		died  = &Panic{Value: errGoexit}
		done  = make(chan struct{})
	)
	go onNewThread(done, func() {
		t := &Tracer{owner: unix.Gettid(), tracees: map[TID]*Tracee{}, boots: map[bootKey]bool{}}
		defer func() {
			if v := recover(); v != nil {
				died = &Panic{Value: v, Stack: debug.Stack()}
			}
			t.release()
		}()
		value, err = fn(t)
		died = nil
	})
	<-done
	if died != nil {
		panic(died)
	}
	return value, err
}

// onNewThread runs fn on a thread that is never used again, and then closes
// done. The main thread does not end with its goroutine (the runtime parks
// it), and its tracees would stay attached: so it must not be that one.
func onNewThread(done chan struct{}, fn func()) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		inner := make(chan struct{})
		go onNewThread(inner, fn)
		<-inner
		runtime.UnlockOSThread()
		close(done)
		return
	}
	defer close(done)
	// By default a sleep lasts 50 us longer than asked for (prctl(2)). This
	// is a matter of the thread, and of speed alone.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	quiet()
	fn()
}

// check panics on a thread that does not own the tracees: the kernel would
// answer ESRCH there, as if the task were gone.
func (t *Tracer) check() {
	if unix.Gettid() != t.owner {
		panic("tracer: used outside of its thread")
	}
}

// release lets go of what is still attached. Errors have nobody left to go
// to; the end of the thread detaches in any case.
func (t *Tracer) release() {
	for _, e := range t.tracees {
		if e.opt.ExitKill && !e.gone {
			_ = e.Kill()
			continue
		}
		if !e.gone && !e.stopped {
			if e.Interrupt() == nil {
				_, _ = e.WaitStop(releaseTime)
			}
		}
		if e.stopped {
			_ = e.Detach(0)
		}
		e.reap()
	}
}

// releaseTime bounds the wait for a tracee that was left running: one in an
// uninterruptible sleep may not stop for long, and needs no stop to go on.
const releaseTime = 100 * time.Millisecond

func (t *Tracer) tracef(format string, args ...any) {
	if t.Trace != nil {
		t.Trace(fmt.Sprintf(format, args...))
	}
}
