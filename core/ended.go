package core

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
)

// end brings about the processes that had ended, and that nobody had waited for.
// What they used of the processor is lost.
func (r *restart) end() error {
	for i := range r.forest.ended {
		z := &r.forest.ended[i]
		parent := r.plants[z.parent]
		child := r.leaders[z.VPID]
		delete(r.leaders, z.VPID)
		if child == nil {
			var err error
			if child, err = r.fork(parent, z.numbers(), unix.Signal(z.ExitSignal), r.forest.cloned(z)); err != nil {
				return err
			}
		}
		if err := r.endOne(child, z); err != nil {
			return errors.Join(fmt.Errorf("end process %d: %w", z.VPID, err), child.Kill())
		}
		if err := parent.dropSignal(unix.Signal(z.ExitSignal)); err != nil {
			return err
		}
	}
	return nil
}

// endOne lets a process end in the way that is told by its status (wait(2)).
func (r *restart) endOne(child *tracer.Tracee, z *process) error {
	status := unix.WaitStatus(z.ExitCode)
	if status>>16 != 0 || !status.Exited() && !status.Signaled() {
		return badEnd(z)
	}
	var group uint64
	for _, p := range r.plants {
		if p.VPgrp == z.VPgrp && p.VPgrp == p.VPID {
			group = r.groups[p.VPgrp].at(len(z.levels))
		}
	}
	err := child.Inject(tracer.InjectOptions{}, func(rem *tracer.Remote) error {
		p := rem.Program()
		p.Prctl(unix.PR_SET_NAME, tracer.Ptr(p.String(strings.TrimRight(string(z.Name[:]), "\x00"))))
		if z.VSession == z.VPID {
			p.Call(unix.SYS_SETSID).Tolerate() // which it may lead already
		} else if group != 0 || z.VPgrp == z.VPID {
			p.Call(unix.SYS_SETPGID, tracer.Imm(0), tracer.Imm(group)).Tolerate() // of another session perhaps
		}
		if status.Signaled() {
			p.Call(unix.SYS_PRLIMIT64, tracer.Imm(0), tracer.Imm(unix.RLIMIT_CORE), tracer.Ptr(p.Bytes(make([]byte, 16))), tracer.Imm(0))
			byDefault := p.Bytes(make([]byte, 32)) // struct sigaction of the kernel
			switch s := status.Signal(); s {
			case unix.SIGKILL, unix.SIGSTOP:
			default:
				p.Call(unix.SYS_RT_SIGACTION, tracer.Imm(uint64(s)), tracer.Ptr(byDefault), tracer.Imm(0), tracer.Imm(8))
			}
			return p.Run()
		}
		p.Call(unix.SYS_EXIT_GROUP, tracer.Imm(uint64(status.ExitStatus())))
		return p.Run()
	})
	switch {
	case errors.Is(err, tracer.ErrGone) && status.Exited():
		return nil
	case err != nil:
		return err
	}
	err = child.EndBy(status.Signal())
	if errors.Is(err, unix.EINVAL) {
		return badEnd(z)
	}
	return err
}

func badEnd(z *process) error {
	return &fault.Error{Code: fault.ImageValue, Object: fmt.Sprintf("process %d", z.VPID), Detail: fmt.Sprintf("ended with %#x", z.ExitCode)}
}

// dropSignal takes back the signal by which the end of a child is told: it had
// been told before.
func (p *plant) dropSignal(signal unix.Signal) error {
	if signal == 0 {
		return nil
	}
	bit := uint64(1) << (signal - 1)
	if (p.view.Status.SigPnd|p.view.Status.ShdPnd)&bit != 0 {
		return nil
	}
	prog := p.remote.Program()
	set := prog.Bytes(binary.LittleEndian.AppendUint64(nil, bit))
	now := prog.Bytes(make([]byte, 16))
	prog.Call(unix.SYS_RT_SIGTIMEDWAIT, tracer.Ptr(set), tracer.Imm(0), tracer.Ptr(now), tracer.Imm(8)).Tolerate()
	return prog.Run()
}
