package syscalls

import (
	"errors"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core"
)

// ErrAnswered says that the caller already has its answer.
var ErrAnswered = errors.New("call already answered")

// Context is one call being handled.
type Context struct {
	Request
	Call *Call
	// Engine is what does the work of checkpoint and restart; simple calls need none.
	Engine *core.Engine

	crids    *crids
	answered atomic.Bool
	lost     atomic.Bool // the answer found nobody waiting
}

// Int reads argument i as an int or pid_t: its low 32 bits, with their sign.
func (c *Context) Int(i int) int { return int(int32(c.Args[i])) }

// Ulong reads argument i as an unsigned long of the caller: 32 bits wide on i386.
func (c *Context) Ulong(i int) uint64 {
	if c.Arch == I386 {
		return uint64(uint32(c.Args[i]))
	}
	return c.Args[i]
}

// Answer ends the caller's wait with -errno, before the handler returns. Its first use is the only one: later ones
// return ErrAnswered. With Valid and TID it is what core needs to know of a caller.
func (c *Context) Answer(errno unix.Errno) error { return c.answer(Fail(errno)) }

// errRestartNoIntr is ERESTARTNOINTR of include/linux/errno.h: the kernel makes the call again, and user space sees nothing.
const errRestartNoIntr = unix.Errno(513)

func (c *Context) answer(o Outcome) error {
	if c.answered.Swap(true) {
		return ErrAnswered
	}
	err := c.Request.Answer(o)
	if errors.Is(err, unix.ENOENT) {
		c.lost.Store(true)
	}
	return err
}

// Answered tells whether the caller has its answer.
func (c *Context) Answered() bool { return c.answered.Load() }

// Valid fails once the caller no longer waits: it was killed, or has its answer.
func (c *Context) Valid() error { return c.Request.Valid() }

// Remember keeps crid as the last one that the calling process was given.
func (c *Context) Remember(crid int) error { return c.crids.remember(c.TID, crid) }

// LastCRID returns the last crid that the calling process was given, 0 if none.
func (c *Context) LastCRID() (int, error) { return c.crids.last(c.TID) }
