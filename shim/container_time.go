package shim

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// clocks are what CLOCK_MONOTONIC and CLOCK_BOOTTIME are to show first in a time namespace; zero for what they show here.
type clocks struct {
	Monotonic, Boottime time.Duration
}

// offsets is what /proc/self/timens_offsets takes to have them so now (time_namespaces(7)), "" for zero.
func (c clocks) offsets() (string, error) {
	if c == (clocks{}) {
		return "", nil
	}
	text := ""
	for _, clock := range []struct {
		id    int32
		name  string
		shows time.Duration
	}{{unix.CLOCK_MONOTONIC, "monotonic", c.Monotonic}, {unix.CLOCK_BOOTTIME, "boottime", c.Boottime}} {
		// The offset is to that of the first time namespace, which ours need not be; ours shows the difference.
		var now unix.Timespec
		if err := unix.ClockGettime(clock.id, &now); err != nil {
			return "", fmt.Errorf("read CLOCK_%s: %w", clock.name, err)
		}
		own, err := ownOffset(clock.name)
		if err != nil {
			return "", err
		}
		offset := clock.shows - time.Duration(now.Nano()) + own
		sec := offset / time.Second
		if offset%time.Second < 0 {
			sec-- // the nanoseconds are not negative
		}
		text += fmt.Sprintf("%s %d %d\n", clock.name, sec, offset-sec*time.Second)
	}
	return text, nil
}

// ownOffset reads that of the time namespace that we are in.
func ownOffset(clock string) (time.Duration, error) {
	text, err := os.ReadFile("/proc/self/timens_offsets")
	if err != nil {
		return 0, fmt.Errorf("read time namespace: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		var name string
		var sec, nsec int64
		if n, _ := fmt.Sscan(line, &name, &sec, &nsec); n == 3 && name == clock {
			return time.Duration(sec)*time.Second + time.Duration(nsec), nil
		}
	}
	return 0, fmt.Errorf("read time namespace: no offset of %s", clock)
}
