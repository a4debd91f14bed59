package resource

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// sibling is what a thread is that is not the first of its process: of that
// one, the same stands in TASK and IDENTITY.
var sibling = Part{
	Name:    "threads",
	Support: Full,
	Note: "Any number, each with its name, timer slack, parent-death signal and no_new_privs, and with working directory and umask " +
		"where it has its own. They keep their ids where " +
		"the process keeps its pid. With new ones, the C library's own note of the id is put right (glibc, musl); an id that " +
		"the program or a locked mutex holds is not.",
	Records: []image.Spec{
		image.Row[siblingRecord](siblingKind, "THREAD_TASK", image.InThread, "a thread that is not the first of its task", image.Times(image.AtMostOncePerThread)),
		image.Row[threadPlace](threadPlaceKind, "THREAD_FS", image.InThread, "where such a thread stands, if not where its task does", image.Times(image.AtMostOncePerThread)),
	},
	SaveThread:    func() ThreadSaving { return new(siblingSave) },
	RestoreThread: func() ThreadRestoring { return new(siblingRestore) },
}

const siblingKind image.Kind = 6508

type siblingRecord struct {
	TID         int32  `doc:"thread id in its own pid namespace"`
	DeathSignal uint32 `doc:"PR_GET_PDEATHSIG"`
	TimerSlack  uint64 `doc:"PR_GET_TIMERSLACK, nanoseconds"`
	Flags       uint32 `fmt:"hex" doc:"4 no_new_privs"`
	_           [4]byte
	Comm        string `doc:"name"`
}

type siblingSave struct {
	slack *tracer.Row
	death *answer
}

func (*siblingSave) Survey(*View, *procfs.Status) fault.List { return nil }

func (g *siblingSave) Ask(_ *Saver, t *SavedThread, p *tracer.Program) {
	if t.leader() {
		return
	}
	g.death = t.answer(p, 4)
	p.Prctl(unix.PR_GET_PDEATHSIG, tracer.Ptr(g.death.at))
	g.slack = p.Prctl(unix.PR_GET_TIMERSLACK)
}

func (g *siblingSave) Dump(s *Saver, t *SavedThread) error {
	if t.leader() {
		return nil
	}
	rec := siblingRecord{
		TID:         int32(t.Status.NSpid[len(t.Status.NSpid)-1]),
		DeathSignal: binary.LittleEndian.Uint32(g.death.data),
		TimerSlack:  g.slack.Result(),
		Comm:        t.Status.Name,
	}
	if t.Status.NoNewPrivs {
		rec.Flags |= noNewPrivs
	}
	if err := s.W.Put(t.owner(), &rec); err != nil {
		return err
	}
	return t.dumpPlace(s)
}

type siblingRestore struct {
	*siblingRecord
	place *stagedPlace // nil if it is that of the process
}

func (r *siblingRestore) Load(b *Builder, t *LoadedThread) (err error) {
	if b.leads(t) {
		return nil
	}
	if r.siblingRecord, _, err = image.Expect[siblingRecord](b.R); err != nil {
		return err
	}
	switch {
	case r.TID <= 0:
		return badImage(fault.ImageValue, "thread", "id %d", r.TID)
	case r.DeathSignal > nSignals:
		return badImage(fault.ImageValue, "thread", "parent-death signal %d", r.DeathSignal)
	case r.Flags&^uint32(noNewPrivs) != 0:
		return badImage(fault.ImageValue, "thread", "flags %#x", r.Flags)
	case len(r.Comm) >= image.CommLen:
		return badImage(fault.ImageValue, "thread", "name of %d bytes", len(r.Comm))
	}
	t.Saved, t.deathSignal, t.noNewPrivs = procfs.PID(r.TID), r.DeathSignal, r.Flags&noNewPrivs != 0
	r.place, err = loadThreadPlace(b)
	return err
}

func (r *siblingRestore) Commit(b *Builder, t *LoadedThread, p *tracer.Program) error {
	if b.leads(t) {
		return nil
	}
	if r.place != nil {
		r.place.commit(b, p)
	}
	p.Prctl(unix.PR_SET_NAME, tracer.Ptr(p.String(r.Comm)))
	p.Prctl(unix.PR_SET_TIMERSLACK, tracer.Imm(r.TimerSlack))
	if r.Flags&noNewPrivs != 0 {
		p.Prctl(unix.PR_SET_NO_NEW_PRIVS, tracer.Imm(1), tracer.Imm(0), tracer.Imm(0), tracer.Imm(0))
	}
	return nil
}
