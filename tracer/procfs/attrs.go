package procfs

import (
	"bytes"
	"fmt"

	"golang.org/x/sys/unix"
)

// Files of one value.

// Comm is the name of the task, at most 15 bytes (kernel threads: 63), any
// byte but NUL.
func (p *Proc) Comm() (string, error) { return read(p, "comm", parseComm) }

// Cmdline is the arguments as the memory of the process holds them now. It is
// empty for zombies and kernel threads.
func (p *Proc) Cmdline() ([]string, error) { return read(p, "cmdline", parseStrings) }

// Environ is the environment that the process was started with, as its
// memory holds it now.
func (p *Proc) Environ() ([]string, error) { return read(p, "environ", parseStrings) }

// Auxv is the auxiliary vector, getauxval(3): pairs of words of the machine,
// up to AT_NULL.
func (p *Proc) Auxv() ([]byte, error) { return p.readFile("auxv", 1024) }

// Personality is the execution domain, personality(2). It wants
// PTRACE_MODE_ATTACH.
func (p *Proc) Personality() (uint32, error) {
	return read(p, "personality", onlyLine(hex32))
}

// CoredumpFilter is the mask of core(5). It belongs to the memory: a zombie
// and a kernel thread give ESRCH.
func (p *Proc) CoredumpFilter() (uint32, error) {
	const name = "coredump_filter"
	data, err := p.readFile(name, 64)
	if err != nil {
		return 0, err
	}
	if len(data) == 0 { // the kernel prints nothing then
		return 0, p.fault("read", name, unix.ESRCH)
	}
	mask, err := onlyLine(hex32)(data)
	if err != nil {
		return 0, fmt.Errorf("parse %s/%s: %w", p.in, name, err)
	}
	return mask, nil
}

// OOMScoreAdj is -1000 to 1000, proc_pid_oom_score_adj(5).
func (p *Proc) OOMScoreAdj() (int, error) {
	v, err := read(p, "oom_score_adj", onlyLine(intOf[int16]))
	return int(v), err
}

// Timerslack is in nanoseconds, PR_SET_TIMERSLACK(2const). For another task
// than the caller it wants CAP_SYS_NICE.
func (p *Proc) Timerslack() (uint64, error) {
	return read(p, "timerslack_ns", onlyLine(decimal[uint64]))
}

// Wchan is the kernel function that the task sleeps in, "0" if it runs or the
// caller may not know.
func (p *Proc) Wchan() (string, error) { return read(p, "wchan", text) }

// NS is the inode number of a namespace of the task: two tasks are in the
// same one if the numbers agree. The kind is a name of /proc/PID/ns, "pid" or
// "pid_for_children".
func (p *Proc) NS(kind string) (uint64, error) {
	name := "ns/" + kind
	target, err := p.Link(name)
	if err != nil {
		return 0, err
	}
	ino, err := parseNS([]byte(target))
	if err != nil {
		return 0, fmt.Errorf("parse %s/%s: %w", p.in, name, err)
	}
	return ino, nil
}

// parseNS parses "pid:[4026531836]".
func parseNS(b []byte) (uint64, error) {
	_, number, ok := bytes.Cut(b, []byte(":["))
	number, closed := bytes.CutSuffix(number, []byte{']'})
	if !ok || !closed {
		return 0, malformed("namespace", b)
	}
	return decimal[uint64](number)
}

// onlyLine parses a file of one line.
func onlyLine[T any](parse func([]byte) (T, error)) func([]byte) (T, error) {
	return func(b []byte) (T, error) { return parse(bytes.TrimSuffix(b, []byte{'\n'})) }
}

func hex32(b []byte) (uint32, error) { return uintOf[uint32](b, 16) }

// parseComm takes off the newline that the kernel adds, and none of comm's.
func parseComm(b []byte) (string, error) {
	name, ok := bytes.CutSuffix(b, []byte{'\n'})
	if !ok {
		return "", malformed("comm", b)
	}
	return string(name), nil
}
