package resource

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// timerfd is a timer, timerfd_create(2). fdinfo tells how it is set and how
// often it has expired unread (timerfd_show of fs/timerfd.c).
var timerfd = FileKind{
	Name:    "timerfd",
	Support: Full,
	Note: "Clock, interval, expirations that were not read, flags. It goes on with the time that was left; one that was set to a " +
		"date of the real-time clock expires at that date.",
	Records: []image.Spec{
		image.Row[timerfdRecord](timerfdKind, "FD_TIMERFD", image.InFiles, "a timerfd; its parent is the reference of the open file"),
	},
	Match: func(_ *View, f *procfs.FD) bool { return f.Target == "anon_inode:[timerfd]" },
	Refuse: func(v *View, f *procfs.FD) *fault.Error {
		if _, err := readTimerfd(f); err != nil {
			return &fault.Error{Code: fault.Timerfd, Err: err}
		}
		return refuseNameless(v, f)
	},
	Dump: dumpTimerfd,
	Kind: timerfdKind,
	Load: loadTimerfd,
}

const timerfdKind image.Kind = 6415

type timerfdRecord struct {
	Clock    uint32 `doc:"CLOCK_* of timerfd_create(2)"`
	Settime  uint32 `doc:"1 if Value is a date (TFD_TIMER_ABSTIME), 3 if it is also cancelled when the clock is set"`
	Value    int64  `doc:"nanoseconds until it expires, or the date; 0 if it is not armed"`
	Interval int64  `doc:"nanoseconds"`
	Ticks    uint64 `doc:"expirations that were not read"`
	Flags    uint32 `fmt:"oct" doc:"open flags"`
	_        [4]byte
}

const (
	timerAbstime     = 1          // TFD_TIMER_ABSTIME
	timerSettimeMask = 3          // and TFD_TIMER_CANCEL_ON_SET
	timerSetTicks    = 0x40085400 // TFD_IOC_SET_TICKS, CONFIG_CHECKPOINT_RESTORE
)

// readTimerfd reads the timer, with Value as the time that is left.
func readTimerfd(f *procfs.FD) (*timerfdRecord, error) {
	rec := &timerfdRecord{Flags: f.Flags &^ unix.O_CLOEXEC}
	clock, err := infoUint(f, "clockid", 10)
	if err != nil {
		return nil, err
	}
	settime, err := infoUint(f, "settime flags", 8)
	if err != nil {
		return nil, err
	}
	rec.Clock, rec.Settime = uint32(clock), uint32(settime)&timerSettimeMask
	if rec.Ticks, err = infoUint(f, "ticks", 10); err != nil {
		return nil, err
	}
	if rec.Value, err = infoTime(f, "it_value"); err != nil {
		return nil, err
	}
	rec.Interval, err = infoTime(f, "it_interval")
	return rec, err
}

// infoTime reads a time of fdinfo, which is as "(seconds, nanoseconds)".
func infoTime(f *procfs.FD, key string) (int64, error) {
	values := f.Values(key)
	if len(values) != 1 {
		return 0, fmt.Errorf("read %s in fdinfo: %w", key, unix.ENODATA)
	}
	var t unix.Timespec
	if _, err := fmt.Sscanf(values[0], "(%d, %d)", &t.Sec, &t.Nsec); err != nil {
		return 0, fmt.Errorf("read %s in fdinfo: %w", key, err)
	}
	return t.Nano(), nil
}

// dumpTimerfd has the kernel count the expirations of an interval since the
// last one first, which it does only for who asks (do_timerfd_gettime of
// fs/timerfd.c).
func dumpTimerfd(s *Saver, f *procfs.FD, ref object.Ref) error {
	if err := countTicks(s.View, f); err != nil {
		return err
	}
	now, err := s.Proc.FD(f.Number)
	if err != nil {
		return err
	}
	rec, err := readTimerfd(now)
	if err != nil {
		return err
	}
	if rec.Value == 0 && rec.Ticks > 0 {
		rec.Value = rec.Interval // not disarmed: it has expired again this moment
	}
	if rec.Settime&timerAbstime == 0 || !realTime(rec.Clock) || rec.Value == 0 {
		rec.Settime = 0
		return s.W.Put(uint32(ref), rec)
	}
	var date unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME, &date); err != nil {
		return fmt.Errorf("read clock: %w", err)
	}
	rec.Value += date.Nano()
	return s.W.Put(uint32(ref), rec)
}

func countTicks(v *View, f *procfs.FD) error {
	fd, err := v.duplicate(f.Number)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var left unix.ItimerSpec
	if err := unix.TimerfdGettime(fd, &left); err != nil {
		return fmt.Errorf("read timer: %w", err)
	}
	return nil
}

// realTime tells whether a clock shows dates, which mean the same after a
// restart.
func realTime(clock uint32) bool {
	return clock == unix.CLOCK_REALTIME || clock == unix.CLOCK_REALTIME_ALARM
}

func loadTimerfd(b *Builder, ref object.Ref) (*stagedOpen, error) {
	rec, head, err := image.Expect[timerfdRecord](b.R)
	if err != nil {
		return nil, err
	}
	if head.Parent != uint32(ref) || rec.Value < 0 || rec.Interval < 0 || rec.Settime&^timerSettimeMask != 0 {
		return nil, badImage(fault.ImageValue, fmt.Sprintf("open file %d", ref), "timer of %d ns", rec.Value)
	}
	p := b.Stage()
	open := b.nameless(p.Call(unix.SYS_TIMERFD_CREATE, tracer.Imm(rec.Clock), tracer.Imm(unix.O_CLOEXEC)), "timerfd")
	spec := p.Bytes(itimerspec(rec.Interval, rec.Value))
	b.Expect(p.Call(unix.SYS_TIMERFD_SETTIME, open.fd, tracer.Imm(rec.Settime), tracer.Ptr(spec), tracer.Imm(0)), fault.FileState, open.path)
	if rec.Ticks != 0 {
		ticks := p.Buffer(8)
		p.Store(ticks, tracer.Imm(rec.Ticks))
		b.Expect(p.Ioctl(open.fd, timerSetTicks, tracer.Ptr(ticks)), fault.FileState, open.path)
	}
	b.setFlags(open, rec.Flags)
	return open, nil
}

// itimerspec is struct itimerspec of two times in nanoseconds.
func itimerspec(interval, value int64) []byte {
	var raw []byte
	for _, ns := range []int64{interval, value} {
		t := unix.NsecToTimespec(ns)
		raw = binary.LittleEndian.AppendUint64(raw, uint64(t.Sec))
		raw = binary.LittleEndian.AppendUint64(raw, uint64(t.Nsec))
	}
	return raw
}
