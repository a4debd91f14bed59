package syscalls

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// traceLine shows a call that has ended as strace would:
//
//	[pid 3493] checkpoint(3493, 1, 0) = 1 <0.002>
//	[pid 3493] checkpoint(3493, 7, 0) = -1 EBADF (Bad file descriptor) <0.000>
//
// A caller that went away while it waited has no result, "= ?"; nor has a restart into a task that was in a call which
// the kernel now makes again.
func traceLine(c *Context, result Outcome, took time.Duration) string {
	return fmt.Sprintf("[pid %d] %s = %s <%.3f>", c.TID, c.signature(), c.resultText(result), took.Seconds())
}

// signature is the call as C would write it, with the arguments' values.
func (c *Context) signature() string {
	args := make([]string, len(c.Call.Args))
	for i, arg := range c.Call.Args {
		switch arg.Type {
		case Ulong:
			args[i] = fmt.Sprintf("%#x", c.Ulong(i))
			if c.Ulong(i) == 0 {
				args[i] = "0"
			}
		default:
			args[i] = fmt.Sprint(c.Int(i))
		}
	}
	return c.Call.Name + "(" + strings.Join(args, ", ") + ")"
}

// The kernel's own results for "make the call again", ERESTARTSYS to ERESTART_RESTARTBLOCK (include/linux/errno.h): a task
// never sees them.
const restartSys, restartBlock = 512, 516

func (c *Context) resultText(result Outcome) string {
	switch {
	case c.lost.Load(), result.Errno == 0 && result.Value <= -restartSys && result.Value >= -restartBlock:
		return "?"
	case result.Errno == 0:
		return fmt.Sprint(result.Value)
	}
	name := unix.ErrnoName(result.Errno)
	if name == "" {
		name = fmt.Sprintf("errno %d", int(result.Errno))
	}
	text := result.Errno.Error()
	return fmt.Sprintf("-1 %s (%s)", name, strings.ToUpper(text[:1])+text[1:])
}
