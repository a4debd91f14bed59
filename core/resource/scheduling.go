package resource

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// scheduling is when and where a thread runs.
var scheduling = Part{
	Name:    "scheduling",
	Support: Full,
	Note: "Of each thread policy, nice value, real-time priority, deadline, slice and utilization clamps, the processors that it is bound to, and its I/O priority. " +
		"Refused if the restarter may not have them, or with --limits caller left as the restarter's. Of processors that are not there the rest remains, which is said. " +
		"The control group, its cpuset and the autogroup are the restarter's.",
	Records: []image.Spec{
		image.Row[schedulingRecord](schedulingKind, "SCHEDULING", image.InThread, "when and where the thread runs", image.Times(image.AtMostOncePerThread)),
	},
	SaveThread:    func() ThreadSaving { return new(schedulingSave) },
	RestoreThread: func() ThreadRestoring { return new(schedulingRestore) },
}

const schedulingKind image.Kind = 6104

type schedulingRecord struct {
	Policy   uint32 `doc:"SCHED_OTHER 0, FIFO 1, RR 2, BATCH 3, IDLE 5, DEADLINE 6"`
	Nice     int32  `doc:"getpriority(2)"`
	Priority uint32 `doc:"of FIFO and RR"`
	Flags    uint32 `fmt:"hex" doc:"1 reset on fork, 2 reclaim, 4 tell of overruns"`
	Runtime  uint64 `doc:"of a deadline, or a slice, nanoseconds; 0 for the usual slice"`
	Deadline uint64
	Period   uint64
	UtilMin  uint32 `doc:"utilization clamps"`
	UtilMax  uint32
	IOPrio   uint32 `fmt:"hex" doc:"ioprio_get(2)"`
	Unbound  uint32 `doc:"1 if it might run on every processor that there was"`
	CPUs     string `doc:"processors that it is bound to, as 0-3,8"`
}

// An ioprio_get(2) value, linux/ioprio.h.
const (
	ioWhoProcess = 1
	ioClassShift = 13
	ioRealtime   = 1
	ioIdle       = 3
)

type schedulingSave struct {
	attr         *answer
	nice, ioprio *tracer.Row
}

func (*schedulingSave) Survey(*View, *procfs.Status) fault.List { return nil }

func (g *schedulingSave) Ask(_ *Saver, t *SavedThread, p *tracer.Program) {
	g.attr = t.answer(p, schedAttrSize)
	g.nice, g.ioprio = askScheduling(p, g.attr.at)
}

// askScheduling adds the calls by which a thread tells its scheduling.
func askScheduling(p *tracer.Program, attr tracer.Addr) (nice, ioprio *tracer.Row) {
	p.Call(unix.SYS_SCHED_GETATTR, tracer.Imm(0), tracer.Ptr(attr), tracer.Imm(schedAttrSize), tracer.Imm(0))
	nice = p.Call(unix.SYS_GETPRIORITY, tracer.Imm(unix.PRIO_PROCESS), tracer.Imm(0))
	return nice, p.Call(unix.SYS_IOPRIO_GET, tracer.Imm(ioWhoProcess), tracer.Imm(0))
}

// niceOf is the nice value that a plain getpriority(2) tells: 1 to 40.
func niceOf(row *tracer.Row) int32 { return 20 - int32(row.Result()) }

func (g *schedulingSave) Dump(s *Saver, t *SavedThread) error {
	a := decodeSched(g.attr.data, niceOf(g.nice))
	if a.Policy == schedExt {
		return &fault.Error{Code: fault.Scheduling, Object: t.name(s.View), Detail: "sched_ext"}
	}
	rec := schedulingRecord{
		Policy: a.Policy, Nice: a.Nice, Priority: a.Priority, Flags: a.Flags, Runtime: a.Runtime, Deadline: a.Deadline, Period: a.Period,
		UtilMin: a.UtilMin, UtilMax: a.UtilMax, IOPrio: uint32(g.ioprio.Result()), CPUs: t.Status.CpusAllowedList,
	}
	set, err := parseCPUs(rec.CPUs)
	if err != nil {
		return err
	}
	online, err := s.tree.online.get()
	if err != nil {
		return err
	}
	if set.unbound(online) {
		rec.Unbound = 1
	}
	return s.W.Put(t.owner(), &rec)
}

type schedulingRestore struct {
	*schedulingRecord // nil in images of before

	attr   schedAttr
	cpus   cpuSet // nil if nothing is to be changed
	set    bool   // attr
	clamps bool
	ioprio bool
}

// callerScheduling is what the stage asks of the caller.
type callerScheduling struct {
	online    onlineCPUs
	ioprio    *tracer.Row
	attr      schedAttr
	cpus      cpuSet
	deadlines int    // threads of the image that have one
	tried     string // processors
}

func (r *schedulingRestore) Load(b *Builder, t *LoadedThread) error {
	if kind, err := b.R.Peek(); err != nil || kind != schedulingKind {
		return err
	}
	rec, _, err := image.Expect[schedulingRecord](b.R)
	if err != nil {
		return err
	}
	bad := func(format string, args ...any) error {
		return badImage(fault.ImageValue, "scheduling", format, args...)
	}
	a := schedAttr{
		Policy: rec.Policy, Nice: rec.Nice, Priority: rec.Priority, Flags: rec.Flags, Runtime: rec.Runtime, Deadline: rec.Deadline,
		Period: rec.Period, UtilMin: rec.UtilMin, UtilMax: rec.UtilMax,
	}
	const ioLevels, ioClasses = 1 << ioClassShift, ioIdle + 1
	switch {
	case !slices.Contains([]uint32{schedNormal, schedFIFO, schedRR, schedBatch, schedIdle, schedDeadline}, a.Policy):
		return bad("policy %d", a.Policy)
	case a.Nice < -20 || a.Nice > 19 || a.realtime() != (a.Priority != 0) || a.Priority > 99:
		return bad("nice %d, priority %d", a.Nice, a.Priority)
	case a.Flags&^(schedResetOnFork|schedReclaim|schedOverrun) != 0 || a.Policy != schedDeadline && a.Flags&^schedResetOnFork != 0:
		return bad("flags %#x", a.Flags)
	case a.Policy != schedDeadline && (a.Deadline|a.Period) != 0:
		return bad("a deadline")
	case a.Policy == schedDeadline && (a.Runtime < 1024 || a.Runtime > a.Deadline || a.Deadline > a.Period || a.Period > 1<<62):
		return bad("deadline %d, %d, %d", a.Runtime, a.Deadline, a.Period)
	case !a.fair() && a.Policy != schedDeadline && a.Runtime != 0 || a.fair() && a.Runtime > 1<<40:
		return bad("a slice of %d", a.Runtime)
	case rec.IOPrio>>ioClassShift == 0 && rec.IOPrio != 0:
		return bad("I/O priority %#x", rec.IOPrio)
	case a.UtilMin > 1024 || a.UtilMax > 1024 || rec.IOPrio >= ioLevels*ioClasses || rec.Unbound > 1:
		return bad("clamps %d to %d, I/O priority %#x", a.UtilMin, a.UtilMax, rec.IOPrio)
	}
	if r.cpus, err = parseCPUs(rec.CPUs); err != nil {
		return bad("%v", err)
	}
	r.schedulingRecord, r.attr = rec, a
	if b.leads(t) {
		return b.ownScheduling()
	}
	return nil
}

// ownScheduling finds out that of the caller. A child has it from its parent,
// unless that wants none of it to be inherited.
func (b *Builder) ownScheduling() (err error) {
	if b.forked() && b.parent.sched.ioprio != nil && b.parent.sched.attr.Flags&schedResetOnFork == 0 {
		from := &b.parent.sched
		b.sched = callerScheduling{online: from.online, ioprio: from.ioprio, attr: from.attr, cpus: from.cpus}
		return nil
	}
	p := b.Stage()
	at := p.Buffer(schedAttrSize)
	var nice *tracer.Row
	nice, b.sched.ioprio = askScheduling(p, at)
	if err := b.Flush(); err != nil {
		return err
	}
	raw := make([]byte, schedAttrSize)
	if err := b.Remote.ReadMem(at, raw); err != nil {
		return err
	}
	b.sched.attr = decodeSched(raw, niceOf(nice))
	b.sched.cpus, err = parseCPUs(b.Caller.Status.CpusAllowedList)
	return err
}
