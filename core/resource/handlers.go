package resource

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
)

// handlers is what the process does about signals.
var handlers = Part{
	Name:    "signal handlers",
	Support: Full,
	Note:    "Of each signal the handler with its flags, mask and restorer.",
	Records: []image.Spec{
		image.Row[actionsRecord](actionsKind, "SIGACTION", image.InThread, "what is done about signals 1 to 64: handler, flags, restorer, mask of each", image.Times(image.OncePerTask)),
	},
	Save:    func() Saving { return new(handlersSave) },
	Restore: func() Restoring { return new(handlersRestore) },
}

const actionsKind image.Kind = 6501

const (
	nSignals      = 64 // _NSIG of x86
	sigactionSize = 32 // struct kernel_sigaction: handler, flags, restorer, mask
)

// actionsRecord holds four words for each signal, as rt_sigaction(2) gives them.
type actionsRecord struct {
	Words [4 * nSignals]uint64 `fmt:"hex"`
}

// changeable tells whether a signal has an action of its own.
func changeable(sig int) bool { return sig != int(unix.SIGKILL) && sig != int(unix.SIGSTOP) }

type handlersSave struct {
	nothingToRefuse
	actions *answer
}

func (g *handlersSave) Ask(s *Saver, p *tracer.Program) {
	g.actions = s.answer(p, nSignals*sigactionSize)
	for sig := 1; sig <= nSignals; sig++ {
		if changeable(sig) {
			at := g.actions.at + tracer.Addr((sig-1)*sigactionSize)
			p.RtSigaction(unix.Signal(sig), 0, at)
		}
	}
}

func (g *handlersSave) Dump(s *Saver) error {
	var actions actionsRecord
	for i := range actions.Words {
		actions.Words[i] = binary.LittleEndian.Uint64(g.actions.data[8*i:])
	}
	return s.W.Put(s.vpid(), &actions)
}

type handlersRestore struct{ actions *actionsRecord }

func (r *handlersRestore) Load(b *Builder) (err error) {
	r.actions, _, err = image.Expect[actionsRecord](b.R)
	return err
}

func (r *handlersRestore) Commit(b *Builder, p *tracer.Program) error {
	if b.shares&image.SharesSighand != 0 {
		return nil // who has made it brings them back
	}
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
	return nil
}
