package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ExecStart is when the task was last put on a CPU (or last accounted for
// while on it): se.exec_start of /proc/PID/sched, in nanoseconds of the
// scheduler's clock, which counts from boot without suspend and, where that
// is accounted, without interrupt and steal time. Unchanged between two reads
// means that the task did not run. It is false on a kernel without
// CONFIG_SCHED_DEBUG and for a task of a scheduling class that does not tell.
func (p *Proc) ExecStart() (time.Duration, bool, error) {
	start, err := read(p, "sched", parseSched)
	if errors.Is(err, unix.ENOENT) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	return start.at, start.told, nil
}

type execStart struct {
	at   time.Duration
	told bool
}

// parseSched takes one value out of "name   :   milliseconds.nanoseconds"
// lines. They stand below a ruler of dashes; above it is comm, unescaped,
// which may contain a newline but is too short to pose as the ruler.
func parseSched(data []byte) (execStart, error) {
	ruler := []byte("\n" + strings.Repeat("-", 20))
	i := bytes.Index(data, ruler)
	if i < 0 {
		return execStart{}, malformed("no ruler in", data)
	}
	var found execStart
	err := lines(data[i+1:], func(n int, line []byte) error {
		key, value, ok := keyValue(line)
		if !ok || string(bytes.TrimSpace(key)) != "se.exec_start" {
			return nil
		}
		at, err := splitNS(value)
		if err != nil {
			return fmt.Errorf("se.exec_start: %w", err)
		}
		found = execStart{at: at, told: true}
		return nil
	})
	if err != nil {
		return execStart{}, err
	}
	return found, nil
}

// splitNS undoes SPLIT_NS() of kernel/sched/debug.c: six digits follow the
// point.
func splitNS(b []byte) (time.Duration, error) {
	ms, ns, ok := bytes.Cut(b, []byte{'.'})
	if !ok || len(ns) != 6 {
		return 0, malformed("milliseconds", b)
	}
	whole, err := decimal[uint64](ms)
	if err != nil {
		return 0, err
	}
	part, err := decimal[uint64](ns)
	if err != nil {
		return 0, err
	}
	if whole > math.MaxInt64/1_000_000-1 {
		return 0, malformed("milliseconds", b)
	}
	return time.Duration(whole*1_000_000 + part), nil
}
