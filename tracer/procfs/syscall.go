package procfs

import (
	"bytes"
	"fmt"
)

// Syscall is /proc/PID/syscall: where a task waits.
type Syscall struct {
	// Running says that the task was on a CPU or ready for one; the other
	// fields are zero then.
	Running bool
	Nr      int64 // system call number, -1 if it is blocked outside of one
	Args    [6]uint64
	SP, IP  Addr // zero for a kernel thread
}

// Syscall wants PTRACE_MODE_ATTACH, more than the other files.
func (p *Proc) Syscall() (Syscall, error) { return read(p, "syscall", parseSyscall) }

func parseSyscall(data []byte) (Syscall, error) {
	data = bytes.TrimSuffix(data, []byte{'\n'})
	if string(data) == "running" {
		return Syscall{Running: true}, nil
	}
	words := bytes.Fields(data)
	if len(words) != 3 && len(words) != 9 {
		return Syscall{}, malformed("system call", data)
	}
	var s Syscall
	var err error
	if s.Nr, err = intOf[int64](words[0]); err != nil {
		return Syscall{}, err
	}
	// Arguments are printed exactly if there is a call.
	if (s.Nr == -1) != (len(words) == 3) {
		return Syscall{}, malformed("system call", data)
	}
	for i, w := range words[1 : len(words)-2] {
		if s.Args[i], err = hexOf[uint64](w); err != nil {
			return Syscall{}, fmt.Errorf("argument %d: %w", i+1, err)
		}
	}
	if s.SP, err = hexOf[Addr](words[len(words)-2]); err != nil {
		return Syscall{}, fmt.Errorf("stack pointer: %w", err)
	}
	if s.IP, err = hexOf[Addr](words[len(words)-1]); err != nil {
		return Syscall{}, fmt.Errorf("instruction pointer: %w", err)
	}
	return s, nil
}
