package shim

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer"
)

// victim is a process of no importance on which the tracer is tried, once, when the first probe asks.
type victim struct {
	once      sync.Once
	err       error // it could not be started, caught, worked in or ended
	caught    bool
	suspended bool
	rseq      error
	xstate    int
	xstateErr error
}

// try starts it, does with it what a checkpoint does, and ends it.
func (v *victim) try() {
	v.once.Do(func() {
		_, v.err = tracer.Run(func(t *tracer.Tracer) (none struct{}, err error) {
			e, err := t.Blank(tracer.BlankOptions{})
			if err != nil {
				return none, err
			}
			defer func() {
				if killErr := e.Kill(); err == nil {
					err = killErr
				}
			}()
			v.caught = true
			v.suspended = e.SeccompSuspended()
			_, v.rseq = e.Rseq()
			state, err := e.Xstate()
			v.xstate, v.xstateErr = len(state), err
			// A call made by somebody else is what everything rests on.
			return none, e.Inject(tracer.InjectOptions{}, func(r *tracer.Remote) error {
				_, err := r.Syscall(unix.SYS_GETPID)
				return err
			})
		})
	})
}

func (v *victim) askPtrace() finding {
	v.try()
	return judge(v.err, "")
}

func (v *victim) askRseq() finding {
	if v.try(); !v.caught {
		return finding{unknown, "no process to try it on"}
	}
	return judge(v.rseq, "", unix.EIO, unix.EINVAL)
}

func (v *victim) askXstate() finding {
	if v.try(); !v.caught {
		return finding{unknown, "no process to try it on"}
	}
	return judge(v.xstateErr, fmt.Sprintf("%d bytes, components %#x", v.xstate, tracer.XFeatures()), unix.ENODEV, unix.EIO, unix.EINVAL)
}

func (v *victim) askSuspendSeccomp() finding {
	if v.try(); !v.caught {
		return finding{unknown, "no process to try it on"}
	}
	return answered(v.suspended)
}
