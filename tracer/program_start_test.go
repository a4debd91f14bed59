package tracer

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Two tasks that wait for each other: neither program could be run before the other.
func TestProgramsOverlap(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	must(t, unix.Mkfifo(fifo, 0o666))
	reader, writer := startTarget(t, nil, "spin"), startTarget(t, nil, "spin")
	run(t, func(tr *Tracer) {
		var loans []*Remote
		for _, g := range []*target{reader, writer} {
			r, err := seize(t, tr, g.pid).Borrow(InjectOptions{})
			must(t, err)
			loans = append(loans, r)
		}
		var programs []*Program
		var rows []*Row
		for i, flags := range []int{unix.O_RDONLY, unix.O_WRONLY} {
			p := loans[i].Program()
			row := p.Openat(FD(unix.AT_FDCWD), fifo, flags, 0)
			p.Close(row)
			must(t, p.Start())
			programs, rows = append(programs, p), append(rows, row)
		}
		for i, p := range programs {
			is(t, rows[i].Err(), errNotRun)
			must(t, p.Finish())
			must(t, rows[i].Err())
			must(t, p.Finish()) // as often as one likes
		}
		for _, r := range loans {
			must(t, r.GiveBack(false))
			must(t, r.Tracee().Detach(0))
		}
	})
	reader.progress()
	writer.progress()
}

// What else is done with a loan waits for a program that runs, whose error is told
// by Finish alone.
func TestStartedProgramIsWaitedFor(t *testing.T) {
	inject(t, "spin", InjectOptions{}, func(r *Remote) error {
		begin := func() (*Program, *Row) {
			p := r.Program()
			p.Call(unix.SYS_NANOSLEEP, Ptr(p.Bytes(words(0, 20e6))), Imm(0))
			last := p.Getpid()
			p.Close(FD(1000))
			must(t, p.Start())
			return p, last
		}
		for name, use := range map[string]func(){
			"read":  func() { must(t, r.ReadMem(r.Scratch().Start, make([]byte, 8))) },
			"call":  func() { _, err := r.Syscall(unix.SYS_GETPID); must(t, err) },
			"begin": func() { p := r.Program(); p.Getpid(); must(t, p.Run()) },
		} {
			p, last := begin()
			use()
			if last.Err() != nil || last.Result() != uint64(r.self) {
				t.Errorf("%s: %d, %v", name, last.Result(), last.Err())
			}
			is(t, p.Finish(), unix.EBADF)
		}
		begin() // and what nobody finishes is waited for at the end
		return nil
	})
}
