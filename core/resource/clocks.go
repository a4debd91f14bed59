package resource

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
)

// clocks are those that count from the start of the machine. They cannot be
// set; a process of before a reboot, or of another machine, sees them run
// backwards, against their definition (clock_gettime(2)).
var clocks = Part{
	Name:    "clocks since boot",
	Support: Partial,
	Note: "CLOCK_MONOTONIC and CLOCK_BOOTTIME are those of the machine, or time namespace, of the restart. Where they are behind " +
		"what the process has seen already, the restart says so.",
	Records: []image.Spec{
		image.Row[clocksRecord](clocksKind, "CLOCKS", image.InThread, "what the task has seen of the clocks since boot", image.Times(image.AtMostOncePerTask)),
	},
	Save:    func() Saving { return new(clocksSave) },
	Restore: func() Restoring { return clocksRestore{} },
}

const clocksKind image.Kind = 6509

type clocksRecord struct {
	Monotonic int64 `diff:"-" doc:"CLOCK_MONOTONIC, nanoseconds"`
	Boottime  int64 `diff:"-" doc:"CLOCK_BOOTTIME, nanoseconds"`
}

const timespecSize = 16

// askClocks has the task itself read them, in its own time namespace.
func askClocks(p *tracer.Program, at tracer.Addr) {
	for i, clock := range []int{unix.CLOCK_MONOTONIC, unix.CLOCK_BOOTTIME} {
		p.Call(unix.SYS_CLOCK_GETTIME, tracer.Int(clock), tracer.Ptr(at+tracer.Addr(i*timespecSize)))
	}
}

type clocksSave struct {
	nothingToRefuse
	now *answer
}

func (c *clocksSave) Ask(s *Saver, p *tracer.Program) {
	c.now = s.answer(p, 2*timespecSize)
	askClocks(p, c.now.at)
}

func (c *clocksSave) Dump(s *Saver) error {
	return s.W.Put(s.vpid(), &clocksRecord{Monotonic: timespecOf(c.now.data), Boottime: timespecOf(c.now.data[timespecSize:])})
}

type clocksRestore struct{}

// Load compares, and warns.
func (clocksRestore) Load(b *Builder) error {
	if kind, err := b.R.Peek(); err != nil || kind != clocksKind {
		return err // an image from before this record
	}
	rec, _, err := image.Expect[clocksRecord](b.R)
	if err != nil {
		return err
	}
	if rec.Monotonic < 0 || rec.Boottime < 0 {
		return badImage(fault.ImageValue, "clocks", "%d and %d ns", rec.Monotonic, rec.Boottime)
	}
	now, err := b.clocks()
	if err != nil {
		return err
	}
	for i, clock := range []struct {
		name string
		then int64
	}{{"CLOCK_MONOTONIC", rec.Monotonic}, {"CLOCK_BOOTTIME", rec.Boottime}} {
		if behind := time.Duration(clock.then - timespecOf(now[i*timespecSize:])); behind > 0 {
			b.Warn("%s is %v behind what the process has seen already: it runs backwards for it", clock.name, behind.Round(time.Millisecond))
		}
	}
	return nil
}

// clocks asks for the time as it is where the caller is. Children have the same
// clocks.
func (b *Builder) clocks() ([]byte, error) {
	if b.forked() && b.parent.now != nil {
		b.now = b.parent.now
		return b.now, nil
	}
	p := b.Stage()
	at := p.Buffer(2 * timespecSize)
	askClocks(p, at)
	if err := b.Flush(); err != nil {
		return nil, err
	}
	now := make([]byte, 2*timespecSize)
	if err := b.Remote.ReadMem(at, now); err != nil {
		return nil, err
	}
	b.now = now
	return now, nil
}

func (clocksRestore) Commit(*Builder, *tracer.Program) error { return nil }
