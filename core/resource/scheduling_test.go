package resource

import (
	"os"
	"slices"
	"testing"
)

func TestMaySchedule(t *testing.T) {
	usual, nicer := schedAttr{}, schedAttr{Nice: 5}
	for _, x := range []struct {
		name           string
		from, to       schedAttr
		nice, priority uint64
		may            bool
	}{
		{"the same", usual, usual, 0, 0, true},
		{"less", usual, nicer, 0, 0, true},
		{"more", nicer, usual, 0, 0, false},
		{"more, by the limit", nicer, usual, 20, 0, true},
		{"more than the limit", nicer, usual, 19, 0, false},
		{"batch", usual, schedAttr{Policy: schedBatch}, 0, 0, true},
		{"idle", usual, schedAttr{Policy: schedIdle}, 0, 0, true},
		{"no more idle", schedAttr{Policy: schedIdle}, usual, 0, 0, false},
		{"no more idle, by the limit", schedAttr{Policy: schedIdle}, usual, 20, 0, true},
		{"real-time", usual, schedAttr{Policy: schedFIFO, Priority: 3}, 0, 0, false},
		{"real-time, by the limit", usual, schedAttr{Policy: schedRR, Priority: 3}, 0, 3, true},
		{"more real-time than the limit", usual, schedAttr{Policy: schedRR, Priority: 4}, 0, 3, false},
		{"less real-time", schedAttr{Policy: schedFIFO, Priority: 9}, schedAttr{Policy: schedFIFO, Priority: 8}, 0, 0, true},
		{"a deadline", usual, schedAttr{Policy: schedDeadline, Runtime: 1 << 20}, 40, 99, false},
		{"reset on fork", usual, schedAttr{Flags: schedResetOnFork}, 0, 0, true},
		{"no more reset on fork", schedAttr{Flags: schedResetOnFork}, usual, 40, 99, false},
	} {
		if may := maySchedule(&x.from, &x.to, x.nice, x.priority); may != x.may {
			t.Errorf("%s: %v", x.name, may)
		}
	}
}

func TestParseCPUs(t *testing.T) {
	for list, want := range map[string]cpuSet{"0": {1}, "0-1": {3}, "1,3-5\n": {0x3a}, "64": {0, 1}, "63-64": {1 << 63, 1}} {
		if got, err := parseCPUs(list); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %x, %v", list, got, err)
		}
	}
	for _, list := range []string{"", "a", "3-1", "0-8192", "1-", "0,,1", "99999999999"} {
		if got, err := parseCPUs(list); err == nil {
			t.Errorf("%q: %x", list, got)
		}
	}
}

// TestOnlineCPUs holds what /proc/stat says of the processors to what /sys does.
func TestOnlineCPUs(t *testing.T) {
	text, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		t.Skip("needs: /sys")
	}
	want, err := parseCPUs(string(text))
	if err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := parseCPUs(cpusOfStat(string(stat))); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v by /proc/stat, %v by /sys (%v)", got, want, err)
	}
	if got := cpusOfStat("cpu  1 2\ncpu0 1 2\ncpu3 4 5\nintr 5\n"); got != "0,3" {
		t.Errorf("list %q", got)
	}
}
