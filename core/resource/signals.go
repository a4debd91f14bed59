package resource

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// signals is which signals a thread blocks, where it handles them, and which
// ones wait.
var signals = Part{
	Name:    "signals",
	Support: Full,
	Note:    "Of each thread the blocked set and the alternate stack; pending signals of threads and of the process with all their information.",
	Records: []image.Spec{
		image.Row[maskRecord](maskKind, "SIGMASK", image.InThread, "blocked signals and the alternate signal stack", image.Times(image.OncePerThread)),
		image.Row[pendingRecord](pendingKind, "SIGPENDING", image.InThread, "a signal that waits to be delivered"),
	},
	SaveThread:    func() ThreadSaving { return new(signalsSave) },
	RestoreThread: func() ThreadRestoring { return new(signalsRestore) },
}

// Our kinds for signals.
const (
	maskKind    image.Kind = 6502
	pendingKind image.Kind = 6503
)

const (
	siginfoSize = 128
	stackSize   = 24 // stack_t
)

type maskRecord struct {
	Blocked  uint64 `fmt:"hex" doc:"bit n-1 is signal n"`
	AltStack uint64 `fmt:"hex" doc:"address of the alternate stack"`
	AltSize  uint64 `doc:"its bytes"`
	AltFlags uint32 `fmt:"hex" doc:"SS_DISABLE 2, SS_AUTODISARM 80000000"`
	_        [4]byte
}

// pendingRecord is one siginfo_t.
type pendingRecord struct {
	Shared uint32 `doc:"1 if it was sent to the process, 0 to the thread"`
	_      [4]byte
	Info   [siginfoSize]byte `fmt:"size"`
}

type signalsSave struct{ stack *answer }

func (*signalsSave) Survey(*View, *procfs.Status) fault.List { return nil }

func (g *signalsSave) Ask(_ *Saver, t *SavedThread, p *tracer.Program) {
	g.stack = t.answer(p, stackSize)
	p.Sigaltstack(0, g.stack.at)
}

func (g *signalsSave) Dump(s *Saver, t *SavedThread) error {
	stack := g.stack.data
	mask := maskRecord{
		Blocked:  t.State.Sigmask,
		AltStack: binary.LittleEndian.Uint64(stack),
		AltFlags: binary.LittleEndian.Uint32(stack[8:]),
		AltSize:  binary.LittleEndian.Uint64(stack[16:]),
	}
	if err := s.W.Put(t.owner(), &mask); err != nil {
		return err
	}
	if t.leader() {
		if err := dumpPending(s, t, true, 1); err != nil {
			return err
		}
	}
	return dumpPending(s, t, false, 0)
}

// dumpPending writes the signals that wait: those of the process, or of the
// thread alone.
func dumpPending(s *Saver, t *SavedThread, shared bool, flag uint32) error {
	infos, err := t.Tracee.PeekSiginfo(shared)
	if err != nil {
		return fmt.Errorf("read pending signals: %w", err)
	}
	for _, info := range infos {
		rec := pendingRecord{Shared: flag}
		copy(rec.Info[:], info[:])
		if err := s.W.Put(t.owner(), &rec); err != nil {
			return err
		}
	}
	return nil
}

type signalsRestore struct {
	mask    *maskRecord
	pending []*pendingRecord
}

func (r *signalsRestore) Load(b *Builder, t *LoadedThread) (err error) {
	if r.mask, _, err = image.Expect[maskRecord](b.R); err != nil {
		return err
	}
	const disable, minimum = 2, 2048 // SS_DISABLE, MINSIGSTKSZ
	if r.mask.AltFlags&disable == 0 {
		end, ok := tracer.Addr(r.mask.AltStack).Add(r.mask.AltSize)
		if !ok || r.mask.AltSize < minimum || end > addressSpace().End {
			return badImage(fault.ImageValue, "alternate signal stack", "%#x, %d bytes", r.mask.AltStack, r.mask.AltSize)
		}
	}
	t.State.Sigmask = r.mask.Blocked
	if b.leads(t) {
		if err := refuseOnAltStack(b); err != nil {
			return err
		}
	}
	for {
		kind, err := b.R.Peek()
		if err != nil || kind != pendingKind {
			return err
		}
		rec, _, err := image.Expect[pendingRecord](b.R)
		if err != nil {
			return err
		}
		if sig := rec.signal(); sig < 1 || sig > nSignals || !changeable(sig) {
			return badImage(fault.ImageValue, "pending signal", "number %d", sig)
		}
		if len(r.pending) == 1<<16 {
			return badImage(fault.ImageValue, "pending signals", "more than %d", len(r.pending))
		}
		r.pending = append(r.pending, rec)
	}
}

func (p *pendingRecord) signal() int { return int(int32(binary.LittleEndian.Uint32(p.Info[:]))) }

// Decide refuses more signals than the caller may have pending, of which its
// other processes have some as well: the rest would be lost.
func (r *signalsRestore) Decide(b *Builder, t *LoadedThread) error {
	b.queued += uint64(len(r.pending))
	if status := b.Caller.Status; len(r.pending) > 0 && status.SigQ+b.queued > status.SigQMax {
		return &fault.Error{Code: fault.SignalQueue, Object: "the pending signals", Detail: fmt.Sprintf("of %d, %d are taken", status.SigQMax, status.SigQ)}
	}
	return nil
}

func (r *signalsRestore) Commit(_ *Builder, _ *LoadedThread, p *tracer.Program) error {
	const settable, disable = 1<<31 | 2, 2 // SS_AUTODISARM, SS_DISABLE
	stack := binary.LittleEndian.AppendUint64(nil, r.mask.AltStack)
	stack = binary.LittleEndian.AppendUint64(stack, uint64(r.mask.AltFlags&settable))
	stack = binary.LittleEndian.AppendUint64(stack, r.mask.AltSize)
	if r.mask.AltFlags&disable != 0 {
		stack = binary.LittleEndian.AppendUint64(nil, 0)
		stack = binary.LittleEndian.AppendUint64(stack, disable)
		stack = binary.LittleEndian.AppendUint64(stack, 0)
	}
	p.Sigaltstack(p.Bytes(stack), 0)
	return nil
}

// Lead queues the pending signals. A process may send itself what it likes, if
// it is the leader that does so (kernel/signal.c, do_rt_tgsigqueueinfo). They
// stay pending: everything is blocked until the end.
func (r *signalsRestore) Lead(b *Builder, t *LoadedThread, p *tracer.Program) error {
	pid := tracer.Imm(uint64(b.VPID))
	for _, rec := range r.pending {
		info := p.Bytes(rec.Info[:])
		sig := tracer.Imm(uint64(rec.signal()))
		if rec.Shared != 0 {
			p.Call(unix.SYS_RT_SIGQUEUEINFO, pid, sig, tracer.Imm(uint64(info))).Tolerate()
		} else {
			p.Call(unix.SYS_RT_TGSIGQUEUEINFO, pid, tracer.Imm(uint64(t.TID)), sig, tracer.Imm(uint64(info))).Tolerate()
		}
	}
	return nil
}

// refuseOnAltStack refuses a caller that runs on its alternate signal stack:
// the kernel would not let it have another one (sigaltstack(2), EPERM). Its
// children run where it does.
func refuseOnAltStack(b *Builder) error {
	if b.forked() {
		return nil
	}
	p := b.Stage()
	at := p.Buffer(stackSize)
	p.Sigaltstack(0, at)
	if err := b.Flush(); err != nil {
		return err
	}
	stack := make([]byte, stackSize)
	if err := b.Remote.ReadMem(at, stack); err != nil {
		return err
	}
	const onStack = 1 // SS_ONSTACK
	if binary.LittleEndian.Uint32(stack[8:])&onStack != 0 {
		return &fault.Error{Code: fault.CallerAltStack, Object: b.Caller.Name()}
	}
	return nil
}
