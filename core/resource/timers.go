package resource

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
)

// timers are the interval timers, alarm(2) among them. They go on with the
// time that was left.
var timers = Part{
	Name:    "interval timers",
	Support: Full,
	Note:    "ITIMER_REAL (alarm), VIRTUAL and PROF with the time that was left.",
	Records: []image.Spec{
		image.Row[itimersRecord](itimersKind, "ITIMERS", image.InThread, "interval timers real, virtual, prof", image.Times(image.OncePerTask)),
	},
	Save:    func() Saving { return new(timersSave) },
	Restore: func() Restoring { return new(timersRestore) },
}

const itimersKind image.Kind = 6504

const itimervalSize = 32 // struct itimerval: interval and value, seconds and microseconds each

// itimersRecord holds three struct itimerval.
type itimersRecord struct {
	Words [3 * itimervalSize / 8]int64
}

type timersSave struct {
	nothingToRefuse
	values *answer
}

func (t *timersSave) Ask(s *Saver, p *tracer.Program) {
	t.values = s.answer(p, 3*itimervalSize)
	for which := range 3 {
		p.Call(unix.SYS_GETITIMER, tracer.Imm(uint64(which)), tracer.Imm(uint64(t.values.at)+uint64(which*itimervalSize)))
	}
}

func (t *timersSave) Dump(s *Saver) error {
	var rec itimersRecord
	for i := range rec.Words {
		rec.Words[i] = int64(binary.LittleEndian.Uint64(t.values.data[8*i:]))
	}
	return s.W.Put(s.vpid(), &rec)
}

type timersRestore struct{ rec *itimersRecord }

func (t *timersRestore) Load(b *Builder) (err error) {
	if t.rec, _, err = image.Expect[itimersRecord](b.R); err != nil {
		return err
	}
	for i, w := range t.rec.Words {
		micro := i%2 == 1
		if w < 0 || micro && w >= 1e6 {
			return badImage(fault.ImageValue, "interval timer", "%d", w)
		}
	}
	t.rec.wind()
	return nil
}

// wind makes ITIMER_REAL go on that has fired while its signal still waits to be
// taken. The kernel sets it again only then (dequeue_signal of
// kernel/signal.c), so that nothing is left of its time; to set a timer to
// nothing would stop it for good. One that stands still because its signal was
// ignored when it fired fires once more.
func (r *itimersRecord) wind() {
	interval, value := r.Words[0:2], r.Words[2:4] // ITIMER_REAL is the first
	if value[0] == 0 && value[1] == 0 {
		copy(value, interval)
	}
}

func (t *timersRestore) Commit(_ *Builder, p *tracer.Program) error {
	for which := range 3 {
		var raw []byte
		for _, w := range t.rec.Words[4*which : 4*which+4] {
			raw = binary.LittleEndian.AppendUint64(raw, uint64(w))
		}
		p.Setitimer(which, p.Bytes(raw), 0)
	}
	return nil
}
