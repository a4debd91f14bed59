package resource

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
)

// signals is what the process does about signals, and which ones wait.
var signals = Part{
	Name:    "signals",
	Support: Full,
	Note:    "Handlers with flags and masks, the blocked set, the alternate stack, and pending signals with all their information.",
	Records: []image.Spec{
		image.Row[actionsRecord](actionsKind, "SIGACTION", image.InThread, "what is done about signals 1 to 64: handler, flags, restorer, mask of each", image.Times(image.OncePerTask)),
		image.Row[maskRecord](maskKind, "SIGMASK", image.InThread, "blocked signals and the alternate signal stack", image.Times(image.OncePerTask)),
		image.Row[pendingRecord](pendingKind, "SIGPENDING", image.InThread, "a signal that waits to be delivered"),
	},
	Save:    func() Saving { return new(signalsSave) },
	Restore: func() Restoring { return new(signalsRestore) },
}

// Our kinds for signals.
const (
	actionsKind image.Kind = 6501
	maskKind    image.Kind = 6502
	pendingKind image.Kind = 6503
)

const (
	nSignals      = 64 // _NSIG of x86
	sigactionSize = 32 // struct kernel_sigaction: handler, flags, restorer, mask
	siginfoSize   = 128
	stackSize     = 24 // stack_t
)

// actionsRecord holds four words for each signal, as rt_sigaction(2) gives them.
type actionsRecord struct {
	Words [4 * nSignals]uint64 `fmt:"hex"`
}

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

// changeable tells whether a signal has an action of its own.
func changeable(sig int) bool { return sig != int(unix.SIGKILL) && sig != int(unix.SIGSTOP) }

type signalsSave struct {
	nothingToRefuse
	actions, stack *answer
}

func (g *signalsSave) Ask(s *Saver, p *tracer.Program) {
	g.actions = s.answer(p, nSignals*sigactionSize)
	for sig := 1; sig <= nSignals; sig++ {
		if changeable(sig) {
			at := g.actions.at + tracer.Addr((sig-1)*sigactionSize)
			p.RtSigaction(unix.Signal(sig), 0, at)
		}
	}
	g.stack = s.answer(p, stackSize)
	p.Sigaltstack(0, g.stack.at)
}

func (g *signalsSave) Dump(s *Saver) error {
	var actions actionsRecord
	for i := range actions.Words {
		actions.Words[i] = binary.LittleEndian.Uint64(g.actions.data[8*i:])
	}
	if err := s.W.Put(s.vpid(), &actions); err != nil {
		return err
	}
	stack := g.stack.data
	mask := maskRecord{
		Blocked:  s.State.Sigmask,
		AltStack: binary.LittleEndian.Uint64(stack),
		AltFlags: binary.LittleEndian.Uint32(stack[8:]),
		AltSize:  binary.LittleEndian.Uint64(stack[16:]),
	}
	if err := s.W.Put(s.vpid(), &mask); err != nil {
		return err
	}
	for _, queue := range []struct {
		shared bool
		flag   uint32
	}{{true, 1}, {false, 0}} {
		infos, err := s.Tracee.PeekSiginfo(queue.shared)
		if err != nil {
			return fmt.Errorf("read pending signals: %w", err)
		}
		for _, info := range infos {
			rec := pendingRecord{Shared: queue.flag}
			copy(rec.Info[:], info[:])
			if err := s.W.Put(s.vpid(), &rec); err != nil {
				return err
			}
		}
	}
	return nil
}

type signalsRestore struct {
	actions *actionsRecord
	mask    *maskRecord
	pending []*pendingRecord
}

func (r *signalsRestore) Load(b *Builder) (err error) {
	if r.actions, _, err = image.Expect[actionsRecord](b.R); err != nil {
		return err
	}
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
	b.State.Sigmask = r.mask.Blocked
	if err := refuseOnAltStack(b); err != nil {
		return err
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

func (r *signalsRestore) Commit(b *Builder, p *tracer.Program) error {
	raw := make([]byte, 0, nSignals*sigactionSize)
	for _, w := range r.actions.Words {
		raw = binary.LittleEndian.AppendUint64(raw, w)
	}
	at := p.Bytes(raw)
	for sig := 1; sig <= nSignals; sig++ {
		if changeable(sig) {
			action := at + tracer.Addr((sig-1)*sigactionSize)
			p.RtSigaction(unix.Signal(sig), action, 0)
		}
	}
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
	// A process may send itself what it likes (kernel/signal.c,
	// do_rt_sigqueueinfo). They stay pending: everything is blocked until the end.
	pid := tracer.Imm(uint64(b.VPID))
	for _, rec := range r.pending {
		info := p.Bytes(rec.Info[:])
		sig := tracer.Imm(uint64(rec.signal()))
		if rec.Shared != 0 {
			p.Call(unix.SYS_RT_SIGQUEUEINFO, pid, sig, tracer.Imm(uint64(info))).Tolerate()
		} else {
			p.Call(unix.SYS_RT_TGSIGQUEUEINFO, pid, pid, sig, tracer.Imm(uint64(info))).Tolerate()
		}
	}
	return nil
}

// refuseOnAltStack refuses a caller that runs on its alternate signal stack:
// the kernel would not let it have another one (sigaltstack(2), EPERM).
func refuseOnAltStack(b *Builder) error {
	if err := b.Flush(); err != nil {
		return err
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
