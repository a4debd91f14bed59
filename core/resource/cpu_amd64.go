package resource

import (
	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// cpu is the registers, and the call that the task was in.
var cpu = Part{
	Name:    "registers",
	Support: Full,
	Note: "General registers, the whole XSAVE state (x87, SSE, AVX, AVX-512, PKRU as the machine has them), fs and gs base. " +
		"A call that was interrupted is made again, also where the kernel would have it fail with EINTR (signal(7)); a sleep goes on for what was left of it. " +
		"Times of sigtimedwait, semtimedop and epoll_pwait2, and those of sockets (SO_RCVTIMEO, SO_SNDTIMEO), begin anew, also in the process that goes on.",
	Records: []image.Spec{
		image.Row[sleepRecord](sleepKind, "SLEEP", image.InThread, "what is left of the call that the task sleeps in", image.Times(image.AtMostOncePerThread)),
	},
	SaveThread:    func() ThreadSaving { return cpuSave{} },
	RestoreThread: func() ThreadRestoring { return new(cpuRestore) },
}

type cpuSave struct{}

func (cpuSave) Survey(*View, *procfs.Status) fault.List { return nil }

func (cpuSave) Ask(*Saver, *SavedThread, *tracer.Program) {}

func (cpuSave) Dump(s *Saver, t *SavedThread) error {
	r := t.State.Regs
	rec := image.CPU{
		R15: r.R15, R14: r.R14, R13: r.R13, R12: r.R12, BP: r.Rbp, BX: r.Rbx, R11: r.R11, R10: r.R10, R9: r.R9, R8: r.R8,
		AX: r.Rax, CX: r.Rcx, DX: r.Rdx, SI: r.Rsi, DI: r.Rdi, OrigAX: r.Orig_rax, IP: r.Rip, CS: r.Cs, Flags: r.Eflags,
		SP: r.Rsp, SS: r.Ss, DS: r.Ds, ES: r.Es, FS: r.Fs_base, GS: r.Gs_base,
		UsedMath: 1,
	}
	if t.Called {
		rec.AX = 0 // what checkpoint() returns after a restart
	}
	if sleep, ok := t.sleepingCall(); ok {
		if err := s.W.Put(t.owner(), &sleep); err != nil {
			return err
		}
	}
	if err := s.W.Put(t.owner(), &rec); err != nil {
		return err
	}
	return s.W.Raw(t.State.Xstate)
}

type cpuRestore struct{}

func (*cpuRestore) Load(b *Builder, t *LoadedThread) error {
	if kind, err := b.R.Peek(); err != nil {
		return err
	} else if kind == sleepKind {
		if t.Interrupted, err = loadSleep(b); err != nil {
			return err
		}
	}
	c, _, err := image.Expect[image.CPU](b.R)
	if err != nil {
		return err
	}
	if c.UsedMath != 1 {
		return badImage(fault.ImageValue, "registers", "used_math %d", c.UsedMath)
	}
	r := &t.State.Regs
	r.R15, r.R14, r.R13, r.R12, r.Rbp, r.Rbx, r.R11, r.R10, r.R9, r.R8 = c.R15, c.R14, c.R13, c.R12, c.BP, c.BX, c.R11, c.R10, c.R9, c.R8
	r.Rax, r.Rcx, r.Rdx, r.Rsi, r.Rdi, r.Orig_rax, r.Rip, r.Cs, r.Eflags = c.AX, c.CX, c.DX, c.SI, c.DI, c.OrigAX, c.IP, c.CS, c.Flags
	r.Rsp, r.Ss, r.Ds, r.Es, r.Fs_base, r.Gs_base = c.SP, c.SS, c.DS, c.ES, c.FS, c.GS
	if err := tracer.ValidateRegs(*r); err != nil {
		return &fault.Error{Code: fault.ImageRegisters, Object: "registers", Err: err}
	}
	if t.State.Xstate, err = b.R.Raw(b.XstateSize); err != nil {
		return err
	}
	if err := tracer.ValidateXstate(t.State.Xstate); err != nil {
		return &fault.Error{Code: fault.ImageXsave, Object: "registers", Err: err}
	}
	return nil
}

// Commit sets the bases of fs and gs, which a return from a signal frame does
// not: they matter if the task has to finish the commit without us.
func (*cpuRestore) Commit(_ *Builder, t *LoadedThread, p *tracer.Program) error {
	const archSetGS, archSetFS = 0x1001, 0x1002 // arch_prctl(2)
	p.ArchPrctl(archSetFS, t.State.Regs.Fs_base)
	p.ArchPrctl(archSetGS, t.State.Regs.Gs_base)
	return nil
}

// muslTID is where musl notes the thread id, in the structure that fs_base
// points to (src/internal/pthread_impl.h, struct pthread).
func (t *SavedThread) muslTID() uint64 {
	if t.State.Regs.Fs_base == 0 {
		return 0
	}
	return t.State.Regs.Fs_base + 48
}
