package tracer

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer/procfs"
)

// facts are the few lines of /proc/TID/status that a loan begins with.
// procfs.Status has them all, at a multiple of the time.
type facts struct {
	leader   TID
	self     TID // leader in the task's own pid namespace
	tracer   TID // 0 without one
	ended    bool
	pending  uint64
	caught   uint64
	filtered bool // by seccomp
}

func (e *Tracee) facts() (facts, error) {
	file, err := unix.Open(fmt.Sprintf("/proc/%d/status", e.tid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return facts{}, ErrGone
	}
	if err != nil {
		return facts{}, fmt.Errorf("open status: %w", err)
	}
	defer unix.Close(file)
	buf := make([]byte, 8192) // about 1,500 bytes, and more with many groups
	size := 0
	for {
		if size == len(buf) {
			buf = append(buf, make([]byte, len(buf))...)
		}
		n, err := unix.Read(file, buf[size:])
		if err != nil {
			return facts{}, fmt.Errorf("read status: %w", err)
		}
		if n == 0 {
			return parseFacts(buf[:size])
		}
		size += n
	}
}

// parseFacts reads the format of fs/proc/array.c, proc_pid_status.
func parseFacts(status []byte) (f facts, err error) {
	number := func(field []byte, base int) (n uint64) {
		n, perr := strconv.ParseUint(string(field), base, 64)
		err = errors.Join(err, perr)
		return n
	}
	for line := range bytes.Lines(status) {
		key, value, _ := bytes.Cut(line, []byte(":\t"))
		value = bytes.TrimSpace(value)
		switch string(key) {
		case "Tgid":
			f.leader = TID(number(value, 10))
			f.self = f.leader
		case "NStgid": // the innermost namespace last
			f.self = TID(number(value[bytes.LastIndexByte(value, '\t')+1:], 10))
		case "State":
			f.ended = len(value) > 0 && (value[0] == 'Z' || value[0] == 'X')
		case "TracerPid":
			f.tracer = TID(number(value, 10))
		case "SigPnd", "ShdPnd":
			f.pending |= number(value, 16)
		case "SigCgt":
			f.caught = number(value, 16)
		case "Seccomp":
			f.filtered = string(value) != "0"
		}
	}
	if err == nil && f.leader == 0 {
		err = procfs.ErrFormat
	}
	if err != nil {
		return facts{}, fmt.Errorf("parse status: %w", err)
	}
	return f, nil
}
