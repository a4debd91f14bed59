package syscalls

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core"
	"github.com/crshim/crshim/core/fault"
)

// Dispatcher takes requests to their handlers. The zero value is ready; its fields are set before the first Serve.
type Dispatcher struct {
	// Engine is handed to every Context.
	Engine *core.Engine
	// Trace, if set, is given one line for each call that has ended. It may be called by several goroutines at once.
	Trace func(line string)
	// Warn, if set, is given each failure once: the call as text, who made it, and the error. Likewise concurrent.
	Warn func(c *Context, call string, err error)

	crids crids
	turns turns
}

// Serve handles one request to its end. It returns when the caller has its result.
func (d *Dispatcher) Serve(r Request) {
	call, ok := Lookup(r.NR)
	if !ok {
		call = &Call{Number: r.NR, Name: fmt.Sprintf("syscall_%d", r.NR), Handle: handleUnknown}
	}
	d.serve(call, r)
}

func (d *Dispatcher) serve(call *Call, r Request) {
	defer d.turns.take(r.TID)()
	start := time.Now()
	c := &Context{Request: r, Call: call, Engine: d.Engine, crids: &d.crids}
	value, err := d.handle(c)
	result := Return(value)
	if err != nil {
		result = Fail(fault.Errno(err))
	}
	if answerErr := c.answer(result); answerErr != nil && !errors.Is(answerErr, ErrAnswered) && !c.lost.Load() {
		err = errors.Join(err, fmt.Errorf("answer %s: %w", call.Name, answerErr))
	}
	// The trouble with a caller that was killed while it waited is that it is dead.
	if err != nil && d.Warn != nil && !c.lost.Load() {
		d.Warn(c, c.signature(), err)
	}
	if d.Trace != nil {
		d.Trace(traceLine(c, result, time.Since(start)))
	}
}

// handle runs the handler. A bug in one call must not end the calls of others, so a panic becomes an error.
func (d *Dispatcher) handle(c *Context) (value int64, err error) {
	defer func() {
		if p := recover(); p != nil {
			value, err = 0, fmt.Errorf("%s panicked: %v: %w\n%s", c.Call.Name, p, unix.ENOSYS, debug.Stack())
		}
	}()
	return c.Call.Handle(c)
}

// handleUnknown is for a number that the filter caught and Table does not hold: it fails as it would without us.
func handleUnknown(*Context) (int64, error) {
	return 0, unix.ENOSYS
}
