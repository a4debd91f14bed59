package resource

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer/procfs"
)

// pty is a pseudo terminal of which the process has both sides, pty(7): that
// which programs run on, and the master, which plays the terminal.
var pty = FileKind{
	Name:    "pseudo terminal of the process's own",
	Support: Partial,
	Note: "Both sides: settings, window size, what has been typed and printed and not been read (whole lines, a line that is not " +
		"finished, the end of file), packet mode, lock, exclusive use, flags of each open file. Its number in /dev/pts is " +
		"another one after restart, also where it was opened as /dev/tty. Refused if a process outside has it open, if only " +
		"the master is open, if output is stopped, with another line discipline than the usual, and as the controlling terminal " +
		"of the first process or of a session outside.",
	Records: []image.Spec{
		image.Row[ptyOpenRecord](ptyOpenKind, "FD_PTY", image.InFiles, "an open file of a pseudo terminal; its parent is the reference of the open file"),
		image.Row[ptyRecord](ptyKind, "PTY", image.InFiles, "a pseudo terminal, behind the open file that is met first; its parent is the reference of the terminal; BUFFERs follow: what the master has not read, what was typed ahead of each end of file, and what was typed behind"),
	},
	Match: func(v *View, f *procfs.FD) bool {
		if _, ok := masterIndex(f); ok {
			return true
		}
		return slaveIndex(f) >= 0 && masterOf(v, slaveIndex(f)) >= 0
	},
	Refuse: refusePty,
	Dump:   dumpPty,
	Kind:   ptyOpenKind,
	Load:   loadPty,
}

const (
	ptyOpenKind image.Kind = 6475
	ptyKind     image.Kind = 6476
)

type ptyOpenRecord struct {
	Terminal uint32 `doc:"reference of the terminal"`
	Slave    uint32 `doc:"1 of the side that programs run on, 0 of the master"`
	Flags    uint32 `fmt:"oct" doc:"open flags"`
	_        [4]byte
}

type ptyRecord struct {
	Number     uint32 `doc:"its number in /dev/pts; informational"`
	Mode       uint32 `fmt:"oct" doc:"permissions of its name there"`
	Output     uint32 `doc:"bytes that the master has not read"`
	Input      uint32 `doc:"bytes that have been typed and not been read"`
	Ends       uint32 `doc:"how many ends of file are among them"`
	Locked     uint8  `doc:"1 if unlockpt(3) has not been called"`
	Packet     uint8  `doc:"1 in packet mode"`
	Exclusive  uint8  `doc:"1 if nobody else may open it (TIOCEXCL)"`
	_          [1]byte
	Rows       uint16   `doc:"height of the window in lines"`
	Columns    uint16   `doc:"width in characters"`
	Width      uint16   `doc:"width in pixels"`
	Height     uint16   `doc:"height in pixels"`
	InputMode  uint32   `fmt:"oct" doc:"c_iflag of termios(3)"`
	OutputMode uint32   `fmt:"oct" doc:"c_oflag"`
	Control    uint32   `fmt:"oct" doc:"c_cflag"`
	Local      uint32   `fmt:"oct" doc:"c_lflag"`
	Chars      [19]byte `fmt:"hex" doc:"c_cc"`
	Discipline uint8    `doc:"c_line"`
	InputRate  uint32   `doc:"c_ispeed"`
	OutputRate uint32   `doc:"c_ospeed"`
	_          [4]byte
	Path       string `doc:"the name by which a master is opened"`
}

// masterIndex returns the number in /dev/pts of the terminal whose master this
// is.
func masterIndex(f *procfs.FD) (int, bool) {
	if f.Type() != unix.S_IFCHR || f.Rdev != unix.Mkdev(5, 2) || len(f.Values("tty-index")) != 1 {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSpace(f.Values("tty-index")[0]))
	return n, err == nil
}

// slaveIndex is the number in /dev/pts of the other side, -1 of anything else:
// 256 of them to a major number (UNIX98_PTY_SLAVE_MAJOR).
func slaveIndex(f *procfs.FD) int {
	if f.Type() != unix.S_IFCHR {
		return -1
	}
	return slaveIndexOf(f.Rdev)
}

func slaveIndexOf(rdev uint64) int {
	major := unix.Major(rdev)
	if major < 136 || major > 143 {
		return -1
	}
	return int(major-136)*256 + int(unix.Minor(rdev))
}

func ptyIndex(f *procfs.FD) int {
	if n, ok := masterIndex(f); ok {
		return n
	}
	return slaveIndex(f)
}

// masterOf returns the process's descriptor of the master, -1 without one.
func masterOf(v *View, index int) int32 {
	i := slices.IndexFunc(v.FDs, func(o procfs.FD) bool {
		n, ok := masterIndex(&o)
		return ok && n == index
	})
	if i < 0 {
		return -1
	}
	return v.FDs[i].Number
}

// slaveBy returns the process's descriptor by which the other side can be read
// or written, -1 without one.
func slaveBy(v *View, index int, not uint32) int32 {
	found := int32(-1)
	for i := range v.FDs {
		o := &v.FDs[i]
		if slaveIndex(o) != index || o.Flags&unix.O_PATH != 0 || o.Flags&unix.O_ACCMODE == not {
			continue
		}
		if !asControlling(o) {
			return o.Number
		}
		found = o.Number // better than none
	}
	return found
}

func refusePty(v *View, f *procfs.FD) *fault.Error {
	index := ptyIndex(f)
	if slaveBy(v, index, unix.O_WRONLY) < 0 || slaveBy(v, index, unix.O_RDONLY) < 0 {
		return &fault.Error{Code: fault.Pty, Detail: fmt.Sprintf("/dev/pts/%d is not open in the process to read and write, only its master", index)}
	}
	if v.Stat.TTY != 0 && index == slaveIndexOf(uint64(uint32(v.Stat.TTY))) {
		return &fault.Error{Code: fault.PtySession, Detail: f.Target}
	}
	pid, err := v.sharedWith(f)
	if err == nil && pid == 0 && slaveIndex(f) >= 0 && !asControlling(f) {
		pid, err = v.usesInode(f)
	}
	switch {
	case err != nil:
		return &fault.Error{Code: fault.Pty, Detail: f.Target, Err: err}
	case pid != 0:
		return &fault.Error{Code: fault.Pty, Detail: fmt.Sprintf("%s, pid %d has it, too", f.Target, pid)}
	}
	err = v.withPty(index, func(master, slave int) error { return checkPty(v, f, master, slave) })
	var known *fault.Error
	switch {
	case errors.As(err, &known):
		return known
	case err != nil:
		return &fault.Error{Code: fault.Pty, Detail: f.Target, Err: err}
	}
	return nil
}

// withPty duplicates both sides.
func (v *View) withPty(index int, do func(master, slave int) error) error {
	master, err := v.duplicate(masterOf(v, index))
	if err != nil {
		return err
	}
	defer unix.Close(master)
	slave, err := v.duplicate(slaveBy(v, index, unix.O_WRONLY))
	if err != nil {
		return err
	}
	defer unix.Close(slave)
	return do(master, slave)
}

// checkPty refuses a terminal whose state could not be brought back.
func checkPty(v *View, f *procfs.FD, master, slave int) error {
	refuse := func(format string, args ...any) error {
		return &fault.Error{Code: fault.Pty, Detail: f.Target + ": " + fmt.Sprintf(format, args...)}
	}
	if same, err := samePty(master, slave); err != nil || !same {
		return refuse("of another devpts than the master (%v)", err)
	}
	if session, err := unix.IoctlGetInt(master, unix.TIOCGSID); err == nil && !v.inside(procfs.PID(session)) {
		return &fault.Error{Code: fault.PtySession, Detail: fmt.Sprintf("%s, of session %d", f.Target, session)}
	}
	line, err := unix.IoctlGetInt(slave, unix.TIOCGETD)
	if err != nil || line != 0 { // N_TTY
		return refuse("line discipline %d", line)
	}
	settings, err := unix.IoctlGetTermios(slave, unix.TCGETS2)
	if err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	// With these, what is typed is not just bytes and lines.
	if settings.Lflag&unix.EXTPROC != 0 {
		return refuse("processed elsewhere (EXTPROC)")
	}
	// Asking what is ready also moves what is on its way to where it is counted.
	poll := []unix.PollFd{{Fd: int32(master), Events: unix.POLLIN | unix.POLLPRI}, {Fd: int32(slave), Events: unix.POLLIN | unix.POLLOUT}}
	if _, err := unix.Poll(poll, 0); err != nil {
		return fmt.Errorf("poll: %w", err)
	}
	switch {
	case poll[0].Revents&unix.POLLPRI != 0:
		return refuse("a change that the master has not been told of")
	case poll[1].Revents&unix.POLLOUT == 0:
		return refuse("output is stopped, or more than the master has room for")
	case poll[1].Revents&unix.POLLHUP != 0:
		return refuse("hung up")
	}
	if typed, err := unix.IoctlGetInt(slave, unix.TIOCINQ); err != nil || typed > ptyTyped {
		return refuse("%d bytes have been typed and not been read, more than %d (%v)", typed, ptyTyped, err)
	}
	return nil
}

// samePty tells whether two descriptors are the sides of one terminal: there
// may be more than one devpts, each with numbers of its own. The other side is
// open already, so that opening it once more does nothing to it; but to try
// that of a locked one would leave it unusable (pty_open of drivers/tty/pty.c).
// Then, or where it is for exclusive use, its number has to do.
func samePty(master, slave int) (bool, error) {
	if locked, err := unix.IoctlGetInt(master, unix.TIOCGPTLCK); err != nil || locked != 0 {
		return err == nil, err
	}
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC)
	switch {
	case errno == unix.EBUSY:
		return true, nil
	case errno != 0:
		return false, fmt.Errorf("open the other side: %w", errno)
	}
	defer unix.Close(int(peer))
	var want, have unix.Stat_t
	if err := errors.Join(unix.Fstat(int(peer), &want), unix.Fstat(slave, &have)); err != nil {
		return false, err
	}
	return want.Dev == have.Dev && want.Ino == have.Ino, nil
}
