package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDoctorVerdict(t *testing.T) {
	says := func(a answer) func() finding { return func() finding { return finding{a, "fact"} } }
	for _, test := range []struct {
		name           string
		needed, useful answer
		ok             bool
	}{
		{"all there", yes, yes, true},
		{"something useful missing", yes, no, true},
		{"something needed missing", no, yes, false},
		{"something needed unknown", unknown, yes, false},
	} {
		r := examine([]probe{
			{name: "n", needed: true, since: "5.19", serves: "life", try: "harder", ask: says(test.needed)},
			{name: "u", serves: "comfort", try: "softer", ask: says(test.useful)},
		})
		if r.OK != test.ok {
			t.Errorf("%s: ok is %v", test.name, r.OK)
		}
		for _, p := range r.Probes {
			if (p.Try == "") != (p.Answer == yes) {
				t.Errorf("%s: %s has the remedy %q", test.name, p.Name, p.Try)
			}
		}
		var b strings.Builder
		if err := r.write(&b); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), "All that is needed is here.") != test.ok {
			t.Errorf("%s:\n%s", test.name, b.String())
		}
	}
}

func TestJudge(t *testing.T) {
	for _, test := range []struct {
		err     error
		meansNo []unix.Errno
		want    answer
	}{
		{nil, nil, yes},
		{fmt.Errorf("kcmp: %w", unix.ENOSYS), nil, no},
		{unix.EPERM, nil, no},
		{unix.EINVAL, nil, unknown},
		{unix.EINVAL, []unix.Errno{unix.EINVAL}, no},
		{errors.New("odd"), nil, unknown},
	} {
		if got := judge(test.err, "", test.meansNo...).answer; got != test.want {
			t.Errorf("judge(%v, %v) = %q, want %q", test.err, test.meansNo, got, test.want)
		}
	}
}

func TestAtLeast(t *testing.T) {
	for release, want := range map[string]bool{"5.19.0": true, "5.18.19-generic": false, "6.1.0-10-amd64": true, "4.20": false} {
		if got, err := atLeast(release, 5, 19); err != nil || got != want {
			t.Errorf("atLeast(%q) = %v, %v", release, got, err)
		}
	}
	if _, err := atLeast("unknown", 5, 19); err == nil {
		t.Error("a release that is no number is accepted")
	}
}

// TestDoctorHere runs every probe on this machine. What must hold anywhere: each gives one of the three answers, the
// version of the running kernel bounds what it can have, and no process or descriptor stays.
func TestDoctorHere(t *testing.T) {
	before, filters := openDescriptors(t), filtersOfMainThread(t)
	status, out, errs := cli("doctor", "--json")
	if errs != "" {
		t.Fatalf("stderr: %s", errs)
	}
	var r doctorReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if r.OK != (status == 0) {
		t.Errorf("ok is %v, the status %d", r.OK, status)
	}
	for _, p := range r.Probes {
		if p.Answer != yes && p.Answer != no && p.Answer != unknown {
			t.Errorf("%s: answer %q", p.Name, p.Answer)
		}
		if p.Since == "" || p.Answer != yes {
			continue
		}
		var major, minor int
		if _, err := fmt.Sscanf(p.Since, "%d.%d", &major, &minor); err != nil {
			t.Errorf("%s: since %q", p.Name, p.Since)
		}
		if enough, err := atLeast(r.Kernel, major, minor); err == nil && !enough {
			t.Errorf("%s is there on %s, but the table says that it came with %s", p.Name, r.Kernel, p.Since)
		}
	}
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if after := filtersOfMainThread(t); after != filters {
		t.Errorf("the main thread is under %q before and %q after", filters, after)
	}
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err == nil {
		t.Errorf("child %d is left", pid)
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func filtersOfMainThread(t *testing.T) string {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "\nSeccomp_filters:")
	count, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(count)
}

// TestSpareThread starts from the main thread as well, where a locked goroutine would leave it unusable.
func TestSpareThread(t *testing.T) {
	for range 100 {
		tid := make(chan int)
		go onSpareThread(func() { tid <- unix.Gettid() })
		if got := <-tid; got == unix.Getpid() {
			t.Fatal("the main thread was used")
		}
	}
}
