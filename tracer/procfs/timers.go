package procfs

import (
	"bytes"
	"fmt"
)

// Notify is how a POSIX timer tells of its expiry, sigevent(3type).
type Notify string

const (
	NotifySignal Notify = "signal"
	NotifyNone   Notify = "none"
	NotifyThread Notify = "thread"
)

// Timer is one POSIX timer of a process, timer_create(2), as
// show_timer() of fs/proc/base.c prints it. When it expires next is not told:
// only the process itself can ask, by timer_gettime(2).
type Timer struct {
	ID     int32
	Signal int32  // sigev_signo
	Value  uint64 // sigev_value
	Notify Notify // sigev_notify, without SIGEV_THREAD_ID
	// ToThread says that SIGEV_THREAD_ID was given: then Target is a thread,
	// else the process. In our pid namespace; 0 if it has ended.
	ToThread bool
	Target   PID
	Clock    int32 // CLOCK_*, negative for the CPU clock of some task
}

// Timers lists the POSIX timers of the process. The file needs
// CONFIG_CHECKPOINT_RESTORE and CONFIG_POSIX_TIMERS; without it the error
// wraps ENOENT.
func (p *Proc) Timers() ([]Timer, error) { return read(p, "timers", parseTimers) }

func parseTimers(data []byte) ([]Timer, error) {
	// Four lines per timer, always in this order.
	keys := [...]string{"ID", "signal", "notify", "ClockID"}
	var out []Timer
	var t Timer
	next := 0
	err := lines(data, func(n int, line []byte) error {
		key, value, ok := keyValue(line)
		if !ok || string(key) != keys[next] {
			return fmt.Errorf("line %d: want %s: %w", n, keys[next], malformed("timer line", line))
		}
		if err := t.set(keys[next], value); err != nil {
			return fmt.Errorf("line %d, %s: %w", n, key, err)
		}
		if next++; next == len(keys) {
			out, t, next = append(out, t), Timer{}, 0
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if next != 0 {
		return nil, fmt.Errorf("timer %d ends before %s: %w", t.ID, keys[next], ErrFormat)
	}
	return out, nil
}

func (t *Timer) set(key string, value []byte) (err error) {
	switch key {
	case "ID":
		t.ID, err = intOf[int32](value)
	case "signal":
		signo, ptr, ok := bytes.Cut(value, []byte{'/'})
		if !ok {
			return malformed("signal/value", value)
		}
		if t.Signal, err = intOf[int32](signo); err != nil {
			return err
		}
		t.Value, err = hex64(ptr)
	case "notify":
		return t.setNotify(value)
	case "ClockID":
		t.Clock, err = intOf[int32](value)
	}
	return err
}

// setNotify parses "signal/tid.123".
func (t *Timer) setNotify(value []byte) (err error) {
	how, whom, _ := bytes.Cut(value, []byte{'/'})
	kind, number, ok := bytes.Cut(whom, []byte{'.'})
	if !ok {
		return malformed("notification", value)
	}
	switch n := Notify(how); n {
	case NotifySignal, NotifyNone, NotifyThread:
		t.Notify = n
	default:
		return malformed("notification", value)
	}
	switch string(kind) {
	case "tid":
		t.ToThread = true
	case "pid":
	default:
		return malformed("notification target", value)
	}
	t.Target, err = intOf[PID](number)
	return err
}
