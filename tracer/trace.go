package tracer

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// trace prints a call as strace(1) would.
func (r *Remote) trace(nr uint64, args []uint64, result uint64, err error) {
	t := r.e.t
	if t.Trace == nil {
		return
	}
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = formatArg(a)
	}
	outcome := formatArg(result)
	if err != nil {
		var errno unix.Errno
		if outcome = err.Error(); errors.As(err, &errno) {
			outcome = fmt.Sprintf("-1 %s (%v)", unix.ErrnoName(errno), errno)
		}
	}
	t.tracef("[pid %d] %s(%s) = %s", r.e.tid, syscallName(nr), strings.Join(words, ", "), outcome)
}

func (r *Remote) trace1(what string) { r.e.t.tracef("[pid %d] %s", r.e.tid, what) }
