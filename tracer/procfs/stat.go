package procfs

import (
	"bytes"
	"fmt"
)

// Stat is /proc/PID/stat, do_task_stat() of fs/proc/array.c; the numbers of
// the fields are those of proc_pid_stat(5). Without ptrace access to the task
// the kernel writes 0 (StartCode and EndCode: 1) for the addresses and for
// ExitCode, and no error.
type Stat struct {
	PID        PID
	Comm       string // may hold any byte but NUL
	State      byte
	PPid       PID
	Pgrp       PID
	Session    PID
	TTY        int32  // device number of the controlling terminal, 0 without
	TPgid      PID    // foreground process group of it, -1 without
	Flags      uint32 // PF_* of <linux/sched.h>
	MinFlt     uint64
	MajFlt     uint64
	UTime      uint64 // clock ticks, as all times here
	STime      uint64
	Priority   int64
	Nice       int32
	NumThreads int32
	StartTime  uint64 // since boot, in the time namespace of the reader
	VSize      uint64 // bytes
	RSS        int64  // pages
	RSSLim     uint64 // bytes
	StartCode  Addr
	EndCode    Addr
	StartStack Addr
	ExitSignal int32 // sent to the parent; -1 for a thread
	Processor  int32
	RTPriority uint32
	Policy     uint32 // SCHED_* of sched(7)
	StartData  Addr
	EndData    Addr
	StartBrk   Addr
	ArgStart   Addr
	ArgEnd     Addr
	EnvStart   Addr
	EnvEnd     Addr
	ExitCode   int32 // as wait(2) gives it
}

// statFields is the number of fields that Linux has printed since 3.5.
const statFields = 52

func parseStat(data []byte) (*Stat, error) {
	// comm stands unescaped between the first '(' and the last ')'. What
	// follows is numbers and one letter, so the last one is the right one.
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 1 || end < open {
		return nil, malformed("stat without (comm)", data)
	}
	s := &Stat{Comm: string(data[open+1 : end])}
	var err error
	if s.PID, err = intOf[PID](bytes.TrimSuffix(data[:open], []byte{' '})); err != nil {
		return nil, fmt.Errorf("field 1: %w", err)
	}
	words := bytes.Fields(data[end+1:])
	if len(words) < statFields-2 {
		return nil, malformed("too few fields after comm", data[end+1:])
	}
	f := statReader{words: words}
	if len(words[0]) != 1 {
		return nil, malformed("task state", words[0])
	}
	s.State = words[0][0]
	field(&f, 4, &s.PPid, intOf[PID])
	field(&f, 5, &s.Pgrp, intOf[PID])
	field(&f, 6, &s.Session, intOf[PID])
	field(&f, 7, &s.TTY, intOf[int32])
	field(&f, 8, &s.TPgid, intOf[PID])
	field(&f, 9, &s.Flags, decimal[uint32])
	field(&f, 10, &s.MinFlt, decimal[uint64])
	field(&f, 12, &s.MajFlt, decimal[uint64])
	field(&f, 14, &s.UTime, decimal[uint64])
	field(&f, 15, &s.STime, decimal[uint64])
	field(&f, 18, &s.Priority, intOf[int64])
	field(&f, 19, &s.Nice, intOf[int32])
	field(&f, 20, &s.NumThreads, intOf[int32])
	field(&f, 22, &s.StartTime, decimal[uint64])
	field(&f, 23, &s.VSize, decimal[uint64])
	field(&f, 24, &s.RSS, intOf[int64])
	field(&f, 25, &s.RSSLim, decimal[uint64])
	field(&f, 26, &s.StartCode, decimal[Addr])
	field(&f, 27, &s.EndCode, decimal[Addr])
	field(&f, 28, &s.StartStack, decimal[Addr])
	field(&f, 38, &s.ExitSignal, intOf[int32])
	field(&f, 39, &s.Processor, intOf[int32])
	field(&f, 40, &s.RTPriority, decimal[uint32])
	field(&f, 41, &s.Policy, decimal[uint32])
	field(&f, 45, &s.StartData, decimal[Addr])
	field(&f, 46, &s.EndData, decimal[Addr])
	field(&f, 47, &s.StartBrk, decimal[Addr])
	field(&f, 48, &s.ArgStart, decimal[Addr])
	field(&f, 49, &s.ArgEnd, decimal[Addr])
	field(&f, 50, &s.EnvStart, decimal[Addr])
	field(&f, 51, &s.EnvEnd, decimal[Addr])
	field(&f, 52, &s.ExitCode, intOf[int32])
	if f.err != nil {
		return nil, f.err
	}
	return s, nil
}

// statReader holds the fields from number 3 on and the first fault.
type statReader struct {
	words [][]byte
	err   error
}

func field[T any](f *statReader, n int, to *T, parse func([]byte) (T, error)) {
	if f.err != nil {
		return
	}
	v, err := parse(f.words[n-3])
	if err != nil {
		f.err = fmt.Errorf("field %d: %w", n, err)
		return
	}
	*to = v
}

// Stat reads /proc/PID/stat.
func (p *Proc) Stat() (*Stat, error) { return read(p, "stat", parseStat) }
