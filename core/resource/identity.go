package resource

import (
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
)

// identity is what the task is, apart from what it has: its name, and the
// attributes that prctl(2) and personality(2) set.
var identity = Part{
	Name:    "task attributes",
	Support: Partial,
	Note: "Command name, personality, dumpable, no_new_privs, parent-death signal, timer slack, THP switch. no_new_privs, once set, " +
		"cannot be taken back: where the restarter has it, that is said.",
	Records: []image.Spec{
		image.Row[identityRecord](identityKind, "IDENTITY", image.InTask, "attributes of the task that the 2009 record lacks", image.Times(image.OncePerTask)),
	},
	Save:    func() Saving { return new(identitySave) },
	Restore: func() Restoring { return new(identityRestore) },
}

const identityKind image.Kind = 6101

// Bits of identityRecord.Flags.
const (
	savedItself  = 1 << 0 // a self-checkpoint: the call returns 0
	callsCaught  = 1 << 1 // the emulated calls were available to the task
	noNewPrivs   = 1 << 2
	thpDisabled  = 1 << 3
	identityMask = savedItself | callsCaught | noNewPrivs | thpDisabled
)

// identityRecord completes TASK.
type identityRecord struct {
	PID         int32  `doc:"process id in the supervisor's namespace"`
	PPID        int32  `doc:"parent"`
	Pgrp        int32  `doc:"process group"`
	Session     int32  `doc:"session"`
	UID         uint32 `doc:"effective user id; informational"`
	GID         uint32 `doc:"effective group id; informational"`
	Personality uint32 `fmt:"hex" doc:"personality(2)"`
	Flags       uint32 `fmt:"hex" doc:"1 saved itself, 2 emulated calls available, 4 no_new_privs, 8 THP disabled"`
	Dumpable    uint32 `doc:"PR_GET_DUMPABLE"`
	DeathSignal uint32 `doc:"PR_GET_PDEATHSIG"`
	TimerSlack  uint64 `doc:"PR_GET_TIMERSLACK, nanoseconds"`
}

// States of TASK as of 2009 (include/linux/sched.h of 2.6.28).
const (
	taskRunning       = 0
	taskInterruptible = 1
	taskStopped       = 0x84
)

type identitySave struct {
	nothingToRefuse
	dumpable, slack, thp *tracer.Row
	death                *answer
}

func (i *identitySave) Ask(s *Saver, p *tracer.Program) {
	i.death = s.answer(p, 4)
	p.Prctl(unix.PR_GET_PDEATHSIG, tracer.Ptr(i.death.at))
	i.dumpable = p.Prctl(unix.PR_GET_DUMPABLE)
	i.slack = p.Prctl(unix.PR_GET_TIMERSLACK)
	i.thp = p.Prctl(unix.PR_GET_THP_DISABLE, tracer.Imm(0), tracer.Imm(0), tracer.Imm(0), tracer.Imm(0))
}

func (i *identitySave) Dump(s *Saver) error {
	task := image.Task{State: taskInterruptible, ExitSignal: uint32(unix.SIGCHLD), CommLen: image.CommLen}
	switch {
	case s.Self:
		task.State = taskRunning
	case s.Stopped && !s.Suspended:
		task.State = taskStopped
	}
	if err := s.W.Put(0, &task); err != nil {
		return err
	}
	if err := s.W.Put(0, &image.Str{Text: s.Stat.Comm}); err != nil {
		return err
	}
	personality, err := s.Proc.Personality()
	if err != nil {
		return err
	}
	rec := identityRecord{
		PID: int32(s.PID), PPID: int32(s.Stat.PPid), Pgrp: int32(s.Stat.Pgrp), Session: int32(s.Stat.Session),
		UID: s.Status.Uid[1], GID: s.Status.Gid[1],
		Personality: personality,
		Dumpable:    uint32(i.dumpable.Result()),
		DeathSignal: binary.LittleEndian.Uint32(i.death.data),
		TimerSlack:  i.slack.Result(),
	}
	for bit, set := range map[uint32]bool{savedItself: s.Self, callsCaught: s.CallsCaught, noNewPrivs: s.Status.NoNewPrivs, thpDisabled: i.thp.Result() == 1} {
		if set {
			rec.Flags |= bit
		}
	}
	return s.W.Put(s.vpid(), &rec)
}

type identityRestore struct {
	identityRecord
	comm string
}

func (r *identityRestore) Load(b *Builder) error {
	task, _, err := image.Expect[image.Task](b.R)
	if err != nil {
		return err
	}
	if task.CommLen < 0 || task.CommLen > 4096 {
		return badImage(fault.ImageValue, "task", "name of %d bytes", task.CommLen)
	}
	comm, _, err := image.Expect[image.Str](b.R)
	if err != nil {
		return err
	}
	r.comm = comm.Text
	// A child that was stopped is, to its parent, a job that waits for SIGCONT.
	b.stopped = b.Policy.Stopped || b.parent != nil && task.State == taskStopped
	rec, _, err := image.Expect[identityRecord](b.R)
	if err != nil {
		return err
	}
	switch {
	case rec.Flags&^uint32(identityMask) != 0:
		return badImage(fault.ImageValue, "task", "flags %#x", rec.Flags)
	case rec.DeathSignal > 64:
		return badImage(fault.ImageValue, "task", "parent-death signal %d", rec.DeathSignal)
	case rec.Dumpable > 2:
		return badImage(fault.ImageValue, "task", "dumpable %d", rec.Dumpable)
	}
	if rec.Dumpable != 1 {
		// We could not finish what we have begun (ptrace_may_access of kernel/ptrace.c).
		may, err := tracesAll()
		if err != nil {
			return err
		}
		if !may {
			return &fault.Error{Code: fault.Identity, Object: "a process that is not dumpable", Detail: "takes CAP_SYS_PTRACE"}
		}
	}
	r.identityRecord = *rec
	b.LedGroup = rec.Pgrp == rec.PID
	b.Threads[0].deathSignal, b.Threads[0].noNewPrivs = rec.DeathSignal, rec.Flags&noNewPrivs != 0
	// 2 ("only root may look") can be inherited but not asked for (prctl(2)).
	if rec.Dumpable == 1 {
		b.dumpable = 1
	}
	if b.Caller.Status.NoNewPrivs && rec.Flags&noNewPrivs == 0 {
		b.Warn("no_new_privs is set, as it is for the restarter: programs that the process starts gain nothing by their set-user-id bit")
	}
	return nil
}

func (r *identityRestore) Commit(b *Builder, p *tracer.Program) error {
	p.Prctl(unix.PR_SET_NAME, tracer.Ptr(p.String(strings.TrimRight(r.comm, "\x00"))))
	p.Personality(r.Personality)
	p.Prctl(unix.PR_SET_TIMERSLACK, tracer.Imm(r.TimerSlack))
	var thp uint64
	if r.Flags&thpDisabled != 0 {
		thp = 1
	}
	p.Prctl(unix.PR_SET_THP_DISABLE, tracer.Imm(thp), tracer.Imm(0), tracer.Imm(0), tracer.Imm(0))
	if r.Flags&noNewPrivs != 0 {
		p.Prctl(unix.PR_SET_NO_NEW_PRIVS, tracer.Imm(1), tracer.Imm(0), tracer.Imm(0), tracer.Imm(0))
	}
	return nil
}
