package tracer

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Memory reads the memory of one task from any goroutine, also beside the one
// that owns its tracer. What it reads stands still only while the task does.
type Memory struct {
	tid TID
	mem int // /proc/TID/mem
}

// Memory opens the task's memory for reading. It must be closed.
func (e *Tracee) Memory() (*Memory, error) {
	mem, err := unix.Open(fmt.Sprintf("/proc/%d/mem", e.tid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, e.fault("open memory of", err)
	}
	return &Memory{tid: e.tid, mem: mem}, nil
}

// Close ends the reading.
func (m *Memory) Close() error { return unix.Close(m.mem) }

// Read fills buf from addr on, whole or with an error. Pages that the task
// itself may not read are read as well, as a debugger does
// (process_vm_readv(2), and proc_pid_mem(5) for those).
func (m *Memory) Read(addr Addr, buf []byte) error {
	if len(buf) == 0 {
		return nil
	}
	local := []unix.Iovec{{Base: &buf[0]}}
	local[0].SetLen(len(buf))
	n, err := unix.ProcessVMReadv(int(m.tid), local, []unix.RemoteIovec{{Base: uintptr(addr), Len: len(buf)}}, 0)
	if err == nil && n == len(buf) {
		return nil
	}
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("read memory of task %d: %w", m.tid, ErrGone)
	}
	for rest, at := buf, addr; len(rest) > 0; {
		n, err := unix.Pread(m.mem, rest, int64(at))
		if err == nil && n == 0 {
			err = ErrGone // its memory has been given up
		}
		if err != nil {
			return fmt.Errorf("read %d bytes at %v of task %d: %w", len(buf), addr, m.tid, err)
		}
		rest, at = rest[n:], at+Addr(n)
	}
	return nil
}
