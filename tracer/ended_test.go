package tracer

import (
	"os/signal"
	"testing"

	"golang.org/x/sys/unix"
)

func TestEnded(t *testing.T) {
	signal.Ignore(unix.SIGHUP) // which the process inherits
	defer signal.Reset(unix.SIGHUP)
	for _, status := range []unix.WaitStatus{0, 7 << 8, 255 << 8, unix.WaitStatus(unix.SIGHUP), unix.WaitStatus(unix.SIGKILL), unix.WaitStatus(unix.SIGSEGV), 64} {
		file, err := Ended(status, unix.PIDFD_NONBLOCK)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.PidfdSendSignal(int(file.Fd()), 0, nil, 0); err != unix.ESRCH {
			t.Errorf("status %#x: send a signal: %v, want %v", int(status), err, unix.ESRCH)
		}
		info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
		if err := unix.IoctlPidfdInfo(int(file.Fd()), &info); err == nil && info.Mask&unix.PIDFD_INFO_EXIT != 0 && info.Exit_code != int32(status) {
			t.Errorf("ended with %#x, want %#x", info.Exit_code, int(status))
		}
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, status := range []unix.WaitStatus{unix.WaitStatus(unix.SIGCHLD), unix.WaitStatus(unix.SIGSTOP), 65} {
		if file, err := Ended(status, 0); err == nil {
			t.Errorf("status %#x: %v, want none", int(status), file.Name())
		}
	}
}
