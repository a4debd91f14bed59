package shim

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// sleeper starts a process that only waits, with further descriptors from 3 on.
func sleeper(t *testing.T, files ...*os.File) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.Dir = "/"
	cmd.ExtraFiles = files
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

var codes = regexp.MustCompile(`CR\d{4}`)

// Check names what a checkpoint refuses, in the same order, and exits with 1.
func TestCheckNamesWhatCheckpointRefuses(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	fanotify, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_REPORT_FID, 0)
	if err != nil {
		t.Fatal(err) // ordinary users may have one with FAN_REPORT_FID since Linux 5.13
	}
	other := os.NewFile(uintptr(fanotify), "another descriptor")
	defer other.Close()
	pid := strconv.Itoa(sleeper(t, r, other).Process.Pid)
	status, out, errs := cli("check", pid)
	if status != statusNo || errs != "" || !strings.Contains(out, "CR1201 cannot save fd 3 of pid "+pid) || !strings.Contains(out, "  try: ") {
		t.Errorf("status %d, stdout %q, stderr %q", status, out, errs)
	}
	_, _, refusal := cli("checkpoint", "-o", filepath.Join(t.TempDir(), "img"), pid)
	if got, want := codes.FindAllString(out, -1), codes.FindAllString(refusal, -1); !slices.Equal(got, want) {
		t.Errorf("check says %v, checkpoint %v", got, want)
	}
	status, out, _ = cli("check", "--json", pid)
	var report checkReport
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	first := report.Blockers[0]
	if status != statusNo || report.OK || strconv.Itoa(report.PID) != pid || first.Code != "CR1201" || first.Errno != "EBADF" ||
		strconv.Itoa(first.PID) != pid || first.Why == "" || first.Try == "" || first.Object == "" {
		t.Errorf("status %d, %+v", status, report)
	}
	if status, out, _ := cli("check", "--external", pid); strings.Contains(out, "CR1201") {
		t.Errorf("with --external: status %d, %q", status, out)
	}
}

func TestCheckFindsNothing(t *testing.T) {
	cmd := sleeper(t)
	status, out, errs := cli("check", strconv.Itoa(cmd.Process.Pid))
	if status != statusOK || !strings.HasPrefix(out, "nothing keeps pid ") || errs != "" {
		t.Errorf("status %d, stdout %q, stderr %q", status, out, errs)
	}
	if err := cmd.Process.Signal(unix.Signal(0)); err != nil {
		t.Error(err)
	}
}

func TestCheckNoProcess(t *testing.T) {
	if status, _, errs := cli("check", "0"); status != statusUsage || !strings.Contains(errs, "not a process id") {
		t.Errorf("status %d, stderr %q", status, errs)
	}
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	if status, _, errs := cli("check", strconv.Itoa(gone.Process.Pid)); status != statusNo || !strings.Contains(errs, "no such process") {
		t.Errorf("status %d, stderr %q", status, errs)
	}
}
