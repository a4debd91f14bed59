package shim

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
)

// firstProcess is a container that has been started.
type firstProcess struct {
	pid     int // of its first process
	own     int // pidfd of that
	command int // of CMD, in our namespace; the same without an init
	pidfd   int // of CMD; where that is the first process, a second one
	reports int // eventfd of the init, -1 without one
}

// begin gives the first process its ids, lets it go on, and hears of CMD; known says to others who they are, before CMD starts.
func (f *firstProcess) begin(c *containerConfig, forks bool, ours socket, known func() error) (err error) {
	if c.User != userNone {
		if err := writeIDMaps(f.pid, c.User); err != nil {
			return err
		}
	}
	if err := giveWord(ours); err != nil {
		return err
	}
	f.command, f.pidfd = f.pid, f.own
	if forks {
		if f.pidfd, err = hear(ours); err != nil {
			return err
		}
		if f.command, err = pidOf(f.pidfd); err != nil {
			return err
		}
	} else if f.pidfd, err = unix.FcntlInt(uintptr(f.own), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return err
	}
	if err := known(); err != nil {
		return err
	}
	if err := giveWord(ours); err != nil {
		return err
	}
	// Both have been executed when nobody holds the other end.
	if _, err := hear(ours); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func giveWord(s socket) error {
	if err := unix.Sendto(int(s), []byte{0}, unix.MSG_NOSIGNAL, nil); err != nil {
		return fmt.Errorf("start first process: %w", err)
	}
	return nil
}

// hear receives a struct said, and returns the pidfd that came with it. It is io.EOF once nobody holds the other end.
func hear(s socket) (int, error) {
	said, oob := make([]byte, 8), make([]byte, unix.CmsgSpace(4))
	var n, oobn int
	var err error
	for {
		n, oobn, _, _, err = unix.Recvmsg(int(s), said, oob, unix.MSG_CMSG_CLOEXEC)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	switch {
	case err != nil:
		return -1, fmt.Errorf("hear first process: %w", err)
	case n == 0:
		return -1, io.EOF
	case n != len(said):
		return -1, fmt.Errorf("hear first process: %d bytes", n)
	}
	if step := int(binary.NativeEndian.Uint32(said)); step != 0 {
		errno := unix.Errno(binary.NativeEndian.Uint32(said[4:]))
		return -1, &fault.Error{Code: fault.ContainerSetup, Object: "container", Err: fmt.Errorf("%s: %w", steps[min(step, len(steps)-1)], errno)}
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err == nil && len(messages) == 1 {
		var fds []int
		if fds, err = unix.ParseUnixRights(&messages[0]); err == nil && len(fds) == 1 {
			return fds[0], nil
		}
	}
	return -1, errors.Join(errors.New("hear first process: no pidfd"), err)
}

// pidOf returns the process that a pidfd is about (proc_pid_fdinfo(5)).
func pidOf(pidfd int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", pidfd))
	if err != nil {
		return 0, err
	}
	pid := 0
	if _, after, ok := bytes.Cut(text, []byte("\nPid:")); ok {
		_, err = fmt.Sscan(string(after), &pid)
	}
	if pid <= 0 || err != nil {
		return 0, errors.Join(errors.New("start command: it has ended"), err)
	}
	return pid, nil
}

// writeIDMaps says who the user of the first process is in its user namespace (user_namespaces(7)). Who may set any id keeps
// them all; everybody else has one.
func writeIDMaps(pid int, user userChoice) error {
	uid, gid := os.Geteuid(), os.Getegid()
	all := askCapability(unix.CAP_SETUID).answer == yes && askCapability(unix.CAP_SETGID).answer == yes
	line := func(id int) string {
		switch {
		case all:
			return "0 0 4294967295\n"
		case user == userKeep:
			return fmt.Sprintf("%d %d 1\n", id, id)
		}
		return fmt.Sprintf("0 %d 1\n", id)
	}
	files := []struct{ name, text string }{{"uid_map", line(uid)}, {"setgroups", "deny"}, {"gid_map", line(gid)}}
	if all {
		files[1].text = "allow"
	}
	for _, file := range files {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/%s", pid, file.name), []byte(file.text), 0); err != nil {
			return &fault.Error{Code: fault.NamespacesForbidden, Object: "user namespace", Err: err}
		}
	}
	return nil
}
