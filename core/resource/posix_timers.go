package resource

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// posixTimers are those of timer_create(2). /proc/PID/timers tells what they
// are, and the process itself how they are set. Their numbers are the
// program's handles; a new timer can be given its number since Linux 6.15
// (PR_TIMER_CREATE_RESTORE_IDS of prctl(2)).
var posixTimers = Part{
	Name:    "POSIX timers",
	Support: Partial,
	Note: "Number, clock, notification, interval, and the time that was left, also of one that was set to a date. " +
		"timer_getoverrun(2) begins anew. Refused before Linux 6.15, on the CPU clock of another process or thread, and on that of " +
		"a thread where there are several.",
	Records: []image.Spec{
		image.Row[posixTimerRecord](posixTimerKind, "POSIX_TIMER", image.InThread, "a timer of timer_create(2)", image.MinLen(timerWithoutThread)),
	},
	Save:    func() Saving { return new(posixTimersSave) },
	Restore: func() Restoring { return new(posixTimersRestore) },
}

const posixTimerKind image.Kind = 6507

type posixTimerRecord struct {
	ID       int32  `doc:"number"`
	Clock    int32  `doc:"CLOCK_*; -6 and -2 are the CPU clocks of the process and of the thread"`
	Notify   uint32 `doc:"sigev_notify of sigevent(3type): signal 0, none 1, thread 2, signal to the thread 4"`
	Signal   int32  `doc:"sigev_signo"`
	Sigval   uint64 `fmt:"hex" doc:"sigev_value"`
	Value    int64  `doc:"nanoseconds until it expires; 0 if it is not armed"`
	Interval int64  `doc:"nanoseconds"`
	Thread   int32  `doc:"of notification 4: the thread, by its id in its own pid namespace; 0 is the first"`
	_        [4]byte
}

const timerWithoutThread = 40 // bytes of the record before Thread

// The values of sigev_notify (include/uapi/asm-generic/siginfo.h).
const (
	sigevSignal   = 0
	sigevNone     = 1
	sigevThread   = 2
	sigevThreadID = 4
)

// timerClocks are the clocks of a timer as the kernel has them: CPU clocks
// negative, with 0 as the process that means oneself (posix-timers_types.h).
var timerClocks = []int32{
	unix.CLOCK_REALTIME, unix.CLOCK_MONOTONIC, unix.CLOCK_PROCESS_CPUTIME_ID, unix.CLOCK_THREAD_CPUTIME_ID,
	unix.CLOCK_BOOTTIME, unix.CLOCK_REALTIME_ALARM, unix.CLOCK_BOOTTIME_ALARM, unix.CLOCK_TAI, -6, -2,
}

// threadClock is the CPU clock of the thread that made the timer.
const threadClock = -2

// keepsTimerIDs tells whether timers can be given their numbers again.
func keepsTimerIDs() bool {
	return unix.Prctl(unix.PR_TIMER_CREATE_RESTORE_IDS, unix.PR_TIMER_CREATE_RESTORE_IDS_GET, 0, 0, 0) == nil
}

type posixTimersSave struct{ specs *answer }

const itimerspecSize = 32 // struct itimerspec: interval and value, seconds and nanoseconds each

func (*posixTimersSave) Survey(v *View) fault.List {
	var list fault.List
	keeps := len(v.Timers) == 0 || keepsTimerIDs()
	for _, t := range v.Timers {
		detail := ""
		switch {
		case !keeps:
			detail = "needs Linux 6.15"
		case t.ToThread && v.StatusOf(t.Target) == nil && len(v.Siblings) == v.Status.Threads-1: // else it was but a glance
			detail = fmt.Sprintf("tells thread %d, which has ended", t.Target)
		case t.Clock == threadClock && v.Status.Threads > 1:
			detail = "on the CPU clock of a thread, the kernel does not tell of which" // __posix_timers_show_clock has 0 for its pid
		case !slices.Contains(timerClocks, t.Clock):
			detail = fmt.Sprintf("clock %d", t.Clock)
		default:
			continue
		}
		list = append(list, &fault.Error{Code: fault.PosixTimers, Object: v.Name(), Detail: fmt.Sprintf("timer %d, %s", t.ID, detail)})
	}
	return list
}

func (t *posixTimersSave) Ask(s *Saver, p *tracer.Program) {
	if len(s.Timers) == 0 {
		return
	}
	t.specs = s.answer(p, itimerspecSize*len(s.Timers))
	for i, timer := range s.Timers {
		at := t.specs.at + tracer.Addr(i*itimerspecSize)
		p.Call(unix.SYS_TIMER_GETTIME, tracer.Int(int(timer.ID)), tracer.Ptr(at))
	}
}

func (t *posixTimersSave) Dump(s *Saver) error {
	for i, timer := range s.Timers {
		spec := t.specs.data[i*itimerspecSize:]
		rec := posixTimerRecord{
			ID: timer.ID, Clock: timer.Clock, Notify: notifyOf(&timer), Signal: timer.Signal, Sigval: timer.Value,
			Interval: timespecOf(spec), Value: timespecOf(spec[itimerspecSize/2:]),
		}
		if timer.ToThread && timer.Target != s.PID {
			status := s.StatusOf(timer.Target) // it is there, says Survey
			rec.Thread = int32(status.NSpid[len(status.NSpid)-1])
		}
		if err := s.W.Put(s.vpid(), &rec); err != nil {
			return err
		}
	}
	return nil
}

func notifyOf(t *procfs.Timer) uint32 {
	switch {
	case t.ToThread:
		return sigevThreadID
	case t.Notify == procfs.NotifyNone:
		return sigevNone
	case t.Notify == procfs.NotifyThread:
		return sigevThread
	}
	return sigevSignal
}

// timespecOf reads a struct timespec as nanoseconds.
func timespecOf(raw []byte) int64 {
	t := unix.Timespec{Sec: int64(binary.LittleEndian.Uint64(raw)), Nsec: int64(binary.LittleEndian.Uint64(raw[8:]))}
	return t.Nano()
}

type posixTimersRestore struct{ recs []*posixTimerRecord }

func (t *posixTimersRestore) Load(b *Builder) error {
	for {
		kind, err := b.R.Peek()
		if err != nil {
			return err
		}
		if kind != posixTimerKind {
			break
		}
		rec, _, err := image.Expect[posixTimerRecord](b.R)
		if err != nil {
			return err
		}
		if err := rec.check(b.Caller); err != nil {
			return err
		}
		t.recs = append(t.recs, rec)
	}
	return nil
}

func (rec *posixTimerRecord) check(caller *View) error {
	name := fmt.Sprintf("timer %d", rec.ID)
	switch {
	case rec.ID < 0 || rec.Value < 0 || rec.Interval < 0:
		return badImage(fault.ImageValue, name, "%d ns, every %d ns", rec.Value, rec.Interval)
	case !slices.Contains(timerClocks, rec.Clock):
		return badImage(fault.ImageValue, name, "clock %d", rec.Clock)
	case rec.Notify != sigevSignal && rec.Notify != sigevNone && rec.Notify != sigevThread && rec.Notify != sigevThreadID:
		return badImage(fault.ImageValue, name, "notification %d", rec.Notify)
	case slices.ContainsFunc(caller.Timers, func(own procfs.Timer) bool { return own.ID == rec.ID }):
		return &fault.Error{Code: fault.CallerTimers, Object: caller.Name(), Detail: name}
	}
	return nil
}

// Spawned makes the timers, and does not arm them. It asks for each by its
// number. What is still to be taken back
// if the stage fails is registered before it is done: to delete a timer that
// was not made does no harm.
func (t *posixTimersRestore) Spawned(b *Builder) error {
	if len(t.recs) == 0 {
		return nil
	}
	for _, rec := range t.recs {
		if err := b.Remote.Undo(unix.SYS_TIMER_DELETE, uint64(rec.ID)); err != nil {
			return err
		}
	}
	if err := b.Remote.Undo(unix.SYS_PRCTL, unix.PR_TIMER_CREATE_RESTORE_IDS, unix.PR_TIMER_CREATE_RESTORE_IDS_OFF); err != nil {
		return err
	}
	p := b.Stage()
	b.Expect(p.Prctl(unix.PR_TIMER_CREATE_RESTORE_IDS, tracer.Imm(unix.PR_TIMER_CREATE_RESTORE_IDS_ON)), fault.TimerState, "numbers of timers")
	for _, rec := range t.recs {
		thread, err := b.threadOf(rec)
		if err != nil {
			return err
		}
		event, id := p.Bytes(rec.sigevent(thread)), p.Buffer(8)
		p.Store(id, tracer.Imm(rec.ID))
		row := p.Call(unix.SYS_TIMER_CREATE, tracer.Int(int(rec.Clock)), tracer.Ptr(event), tracer.Ptr(id))
		b.Expect(row, fault.TimerState, fmt.Sprintf("timer %d", rec.ID))
	}
	p.Prctl(unix.PR_TIMER_CREATE_RESTORE_IDS, tracer.Imm(unix.PR_TIMER_CREATE_RESTORE_IDS_OFF))
	return b.Flush()
}

// threadOf is the present number of the thread that a timer tells.
func (b *Builder) threadOf(rec *posixTimerRecord) (procfs.PID, error) {
	if rec.Thread == 0 {
		return b.VPID, nil
	}
	for _, t := range b.Threads {
		if t.Saved == procfs.PID(rec.Thread) {
			return t.TID, nil
		}
	}
	return 0, badImage(fault.ImageValue, fmt.Sprintf("timer %d", rec.ID), "thread %d", rec.Thread)
}

// sigevent is struct sigevent: value, signal, notification, thread.
func (rec *posixTimerRecord) sigevent(thread procfs.PID) []byte {
	raw := binary.LittleEndian.AppendUint64(nil, rec.Sigval)
	raw = binary.LittleEndian.AppendUint32(raw, uint32(rec.Signal))
	raw = binary.LittleEndian.AppendUint32(raw, rec.Notify)
	raw = binary.LittleEndian.AppendUint32(raw, uint32(thread))
	return append(raw, make([]byte, 64-len(raw))...)
}

// Commit deletes the caller's own timers, whose signals would hit a program
// that knows nothing of them, and arms those of the image.
func (t *posixTimersRestore) Commit(b *Builder, p *tracer.Program) error {
	for _, own := range b.Caller.Timers {
		p.Call(unix.SYS_TIMER_DELETE, tracer.Int(int(own.ID)))
	}
	for _, rec := range t.recs {
		spec := p.Bytes(itimerspec(rec.Interval, rec.Value))
		p.Call(unix.SYS_TIMER_SETTIME, tracer.Int(int(rec.ID)), tracer.Imm(0), tracer.Ptr(spec), tracer.Imm(0))
	}
	return nil
}
