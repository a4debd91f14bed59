package tracer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inject runs fn in a new target, which must be as before afterwards.
func inject(t *testing.T, kind string, opt InjectOptions, fn func(*Remote) error) {
	t.Helper()
	g := startTarget(t, nil, kind)
	before := g.view()
	g.stopped(func(e *Tracee) {
		regs, err := e.Regs()
		must(t, err)
		mask, err := e.Sigmask()
		must(t, err)
		xstate, err := e.Xstate()
		must(t, err)
		must(t, e.Inject(opt, fn))
		if e.gone {
			return
		}
		regs2, err := e.Regs()
		must(t, err)
		equal(t, "registers", regs2, regs)
		mask2, err := e.Sigmask()
		must(t, err)
		equal(t, "mask", mask2, mask)
		xstate2, err := e.Xstate()
		must(t, err)
		equal(t, "xstate", string(xstate2), string(xstate))
		vdso := make([]byte, bootSize)
		for _, slot := range e.boot {
			must(t, e.ReadMem(slot, vdso))
			equal(t, "boot slot", string(vdso), string(make([]byte, bootSize)))
		}
	})
	equal(t, "view", g.view(), before)
	if kind != "echo" {
		g.progress()
	} else {
		g.echo()
	}
}

// A program that checks all its registers notices nothing of a thousand loans.
func TestInjectUnnoticed(t *testing.T) {
	g := startTarget(t, nil, "spin")
	before := g.view()
	run(t, func(tr *Tracer) {
		e, err := tr.Seize(g.pid, Options{})
		must(t, err)
		for range 1000 {
			must(t, e.Interrupt())
			_, err := e.WaitStop(patience)
			must(t, err)
			must(t, e.Inject(InjectOptions{}, func(r *Remote) error {
				_, err := r.Syscall(unix.SYS_GETPID)
				return err
			}))
			must(t, e.Cont(0))
		}
	})
	g.progress()
	equal(t, "view", g.view(), before)
}

func TestProgram(t *testing.T) {
	inject(t, "spin", InjectOptions{}, func(r *Remote) error {
		p := r.Program()
		at := p.Bytes([]byte("content"))
		buf := p.Buffer(7)
		file := p.MemfdCreate("test", 0)
		written := p.Write(file, at, 7)
		p.Lseek(file, 0, unix.SEEK_SET)
		p.Call(unix.SYS_READ, file, Ptr(buf), written) // as long as was written
		missing := p.Openat(FD(unix.AT_FDCWD), "/no such file", 0, 0).Tolerate()
		p.Close(file)
		must(t, p.Run())
		equal(t, "written", written.Result(), 7)
		is(t, missing.Err(), unix.ENOENT)
		must(t, file.Err())
		got := make([]byte, 7)
		must(t, r.ReadMem(buf, got))
		equal(t, "content", string(got), "content")

		p = r.Program()
		p.Getpid()
		bad := p.Close(FD(1000))
		never := p.Getpid()
		err := p.Run()
		is(t, err, unix.EBADF)
		var call *CallError
		if !errors.As(err, &call) || call.Row != 1 || call.Name != "close" || call.Args[0] != 1000 {
			t.Errorf("error is %#v", err)
		}
		is(t, bad.Err(), unix.EBADF)
		is(t, never.Err(), errNotRun)

		_, err = r.Syscall(unix.SYS_CLOSE, 1000)
		is(t, err, unix.EBADF)
		return nil
	})
}

func TestManyRows(t *testing.T) {
	inject(t, "spin", InjectOptions{}, func(r *Remote) error {
		const n = 10_000
		p := r.Program()
		var rows []*Row
		first := p.Dup(FD(0))
		for i := range n {
			rows = append(rows, p.Dup3(first, FD(200+i%3), 0))
			p.String(strings.Repeat("x", 100)) // more than fits the first area
		}
		for i := range 3 {
			p.Close(rows[n-3+i])
		}
		p.Close(first)
		start := time.Now()
		must(t, p.Run())
		t.Logf("%d rows in %v", p.Len(), time.Since(start))
		for i, row := range rows {
			if row.Err() != nil || row.FD() != FD(200+i%3) {
				t.Fatalf("row %d: %v, %v", i, row.FD(), row.Err())
			}
		}
		if len(r.data.areas) < 2 {
			t.Error("data did not need another area")
		}
		// And if a late row fails:
		p = r.Program()
		for range n {
			p.Getpid()
		}
		p.Close(FD(1000))
		p.Getpid()
		var call *CallError
		if err := p.Run(); !errors.As(err, &call) || call.Row != n {
			t.Errorf("error is %v", err)
		}
		return nil
	})
}

func TestStoreAndCell(t *testing.T) {
	inject(t, "nap", InjectOptions{}, func(r *Remote) error {
		p := r.Program()
		cell := p.Buffer(8)
		pid := p.Getpid()
		p.Store(cell, pid)
		same := p.Call(unix.SYS_GETPGID, Cell(cell))
		own := p.Call(unix.SYS_GETPGID, Imm(0))
		must(t, p.Run())
		equal(t, "group", same.Result(), own.Result())
		var b [8]byte
		must(t, r.ReadMem(cell, b[:]))
		equal(t, "stored", binary.LittleEndian.Uint64(b[:]), pid.Result())
		return nil
	})
}

func TestFull(t *testing.T) {
	read, write, err := os.Pipe()
	must(t, err)
	defer read.Close()
	const size = 300_000 // several times what a pipe holds
	want := make([]byte, size)
	for i := range want {
		want[i] = byte(i * i >> 7)
	}
	go func() {
		for part := want; len(part) > 0; {
			n := min(len(part), 7001)
			if _, err := write.Write(part[:n]); err != nil {
				break // the reader will be short, and say so
			}
			part = part[n:]
		}
		write.Close()
	}()
	inject(t, "spin", InjectOptions{ScratchSize: 2 << 20}, func(r *Remote) error {
		fd, err := r.SendFD(read)
		must(t, err)
		flags, err := r.Syscall(unix.SYS_FCNTL, uint64(fd), unix.F_GETFD)
		must(t, err)
		equal(t, "close-on-exec", flags, unix.FD_CLOEXEC)
		// os.Pipe's ends do not block, and the task's should.
		_, err = r.Syscall(unix.SYS_FCNTL, uint64(fd), unix.F_SETFL, 0)
		must(t, err)
		p := r.Program()
		buf := p.Buffer(size)
		head := p.Read(fd, buf, size-1000).Full()
		empty := p.Read(fd, buf, 0).Full()
		rest := p.Read(fd, buf+size-1000, 2000).Full()
		never := p.Getpid()
		err = p.Run()
		is(t, err, ErrShort)
		equal(t, "head", head.Result(), size-1000)
		must(t, empty.Err())
		equal(t, "rest", rest.Result(), 1000)
		is(t, rest.Err(), ErrShort)
		is(t, never.Err(), errNotRun)
		got := make([]byte, size)
		must(t, r.ReadMem(buf, got))
		if string(got) != string(want) {
			t.Error("content differs")
		}

		p = r.Program()
		file := p.MemfdCreate("full", 0)
		out := p.Pwrite(file, buf, size, 100).Full()
		in := p.Pread(file, buf, size-5, 105).Full()
		p.Close(file)
		p.Close(fd)
		must(t, p.Run())
		equal(t, "written", out.Result(), size)
		equal(t, "read", in.Result(), size-5)
		must(t, r.ReadMem(buf, got))
		if string(got[:size-5]) != string(want[5:]) {
			t.Error("content of the file differs")
		}
		return nil
	})
}

func TestUndo(t *testing.T) {
	stop := errors.New("stop")
	g := startTarget(t, nil, "echo")
	before := g.view()
	g.stopped(func(e *Tracee) {
		// The calls are told apart by what they leave: the last one made wins.
		err := e.Inject(InjectOptions{}, func(r *Remote) error {
			must(t, r.Undo(unix.SYS_UMASK, 0o11))
			must(t, r.Undo(unix.SYS_CLOSE, 12345))
			must(t, r.Undo(unix.SYS_UMASK, 0o22))
			p := r.Program()
			p.Umask(0o33).Undo(unix.SYS_UMASK, Imm(0o44))
			must(t, p.Run())
			return stop
		})
		is(t, err, stop)
		equal(t, "umask", g.status().Umask, 0o11)

		// Only what has been done is undone.
		err = e.Inject(InjectOptions{}, func(r *Remote) error {
			p := r.Program()
			p.Dup3(FD(0), FD(150), 0) // stays
			dup := p.Dup3(FD(0), FD(151), 0)
			dup.Undo(unix.SYS_CLOSE, dup)
			third := p.Dup3(FD(0), FD(152), 0)
			undo := third.Undo(unix.SYS_CLOSE, FD(152))
			p.Forget(undo) // stays
			failing := p.Dup3(FD(1000), FD(153), 0)
			failing.Undo(unix.SYS_CLOSE, FD(150)) // never comes to count
			err := p.Run()
			is(t, err, unix.EBADF)
			return err
		})
		is(t, err, unix.EBADF)
		equal(t, "descriptors", g.view().FDs, sorted(before.FDs, "150", "152"))

		// Keep ends it, success too; and a panic counts as failure.
		must(t, e.Inject(InjectOptions{}, func(r *Remote) error {
			p := r.Program()
			p.Close(FD(150)).Undo(unix.SYS_DUP3, FD(0), FD(150), Imm(0))
			return p.Run()
		}))
		is(t, e.Inject(InjectOptions{}, func(r *Remote) error {
			p := r.Program()
			p.Close(FD(152)).Undo(unix.SYS_DUP3, FD(0), FD(152), Imm(0))
			must(t, p.Run())
			must(t, r.Keep())
			return stop
		}), stop)
		func() {
			defer func() { equal(t, "panic", recover(), any(stop)) }()
			_ = e.Inject(InjectOptions{}, func(r *Remote) error {
				must(t, r.Undo(unix.SYS_UMASK, 0o22))
				panic(stop)
			})
		}()
		is(t, e.Inject(InjectOptions{ScratchSize: 1}, func(r *Remote) error {
			for {
				if err := r.Undo(unix.SYS_GETPID); err != nil {
					return err
				}
			}
		}), ErrFull)
	})
	equal(t, "umask", g.status().Umask, 0o22)
	after := g.view()
	equal(t, "view", after, before)
	g.echo()
}

func TestScratchPlace(t *testing.T) {
	at := Addr(0x123456000)
	inject(t, "spin", InjectOptions{At: at}, func(r *Remote) error {
		equal(t, "place", r.Scratch(), Range{Start: at, End: at + defaultScratch})
		_, err := r.Syscall(unix.SYS_GETPID)
		return err
	})
	avoid := []Range{{Start: 1 << 30, End: 1 << 46}, {Start: 1<<46 + 1<<45, End: taskSize}}
	inject(t, "spin", InjectOptions{Avoid: avoid}, func(r *Remote) error {
		for _, a := range avoid {
			equal(t, "overlap", r.Scratch().Overlaps(a), false)
		}
		_, err := r.Syscall(unix.SYS_GETPID)
		return err
	})
	g := startTarget(t, nil, "spin")
	before := g.view()
	g.stopped(func(e *Tracee) {
		is(t, e.Inject(InjectOptions{At: 0x400000}, func(*Remote) error { return nil }), unix.EEXIST)
		is(t, e.Inject(InjectOptions{Avoid: []Range{{Start: 0, End: taskSize}}}, func(*Remote) error { return nil }), ErrNoPlace)
	})
	equal(t, "view", g.view(), before)
	g.progress()
}

func TestMove(t *testing.T) {
	stop := errors.New("stop")
	g := startTarget(t, nil, "spin")
	before := g.view()
	g.stopped(func(e *Tracee) {
		is(t, e.Inject(InjectOptions{}, func(r *Remote) error {
			p := r.Program()
			p.String(strings.Repeat("x", 2<<20))
			undo := p.Dup3(FD(0), FD(150), 0).Undo(unix.SYS_CLOSE, FD(150))
			p.Dup3(FD(0), FD(151), 0).Undo(unix.SYS_CLOSE, FD(151))
			must(t, p.Run())
			old := r.Scratch()
			is(t, r.Move(old.Start), unix.EEXIST)
			is(t, r.Move(12345), unix.EINVAL)
			for _, to := range []Addr{0x70000000, 0x72000000} {
				must(t, r.Move(to))
				equal(t, "place", r.Scratch(), Range{Start: to, End: to + Addr(old.Len())})
				if strings.Contains(g.view().Maps, fmt.Sprintf("%x-", uint64(old.Start))) {
					t.Error("the old place is still mapped")
				}
				old = r.Scratch()
			}
			p = r.Program()
			p.Close(FD(150))
			p.Forget(undo)
			p.Dup3(FD(0), FD(150), 0) // no longer ours to close
			must(t, p.Run())
			return stop
		}), stop)
		equal(t, "descriptors", g.view().FDs, sorted(before.FDs, "150"))
		must(t, e.Inject(InjectOptions{}, func(r *Remote) error {
			_, err := r.Syscall(unix.SYS_CLOSE, 150)
			return err
		}))
	})
	equal(t, "view", g.view(), before)
	g.progress()
}

func TestFDs(t *testing.T) {
	g := startTarget(t, nil, "echo")
	host, err := os.CreateTemp(t.TempDir(), "")
	must(t, err)
	defer host.Close()
	before := g.view()
	g.stopped(func(e *Tracee) {
		must(t, e.Inject(InjectOptions{}, func(r *Remote) error {
			fd, err := r.SendFD(host)
			must(t, err)
			back, err := r.TakeFD(fd)
			must(t, err)
			defer back.Close()
			a, err := host.Stat()
			must(t, err)
			b, err := back.Stat()
			must(t, err)
			equal(t, "same file", os.SameFile(a, b), true)
			_, err = r.TakeFD(1000)
			is(t, err, unix.EBADF)
			_, err = r.Syscall(unix.SYS_CLOSE, uint64(fd))
			return err
		}))
		is(t, e.Inject(InjectOptions{}, func(r *Remote) error {
			_, err := r.SendFD(host)
			must(t, err)
			return unix.EDOM // closes it again
		}), unix.EDOM)
	})
	equal(t, "view", g.view(), before)
	g.echo()
}

func TestTrace(t *testing.T) {
	g := startTarget(t, nil, "spin")
	var lines []string
	run(t, func(tr *Tracer) {
		tr.Trace = func(line string) { lines = append(lines, line) }
		e := seize(t, tr, g.pid)
		must(t, e.Inject(InjectOptions{}, func(r *Remote) error {
			_, err := r.Syscall(unix.SYS_CLOSE, 1000)
			is(t, err, unix.EBADF)
			return nil
		}))
	})
	want := fmt.Sprintf("[pid %d] close(1000) = -1 EBADF (bad file descriptor)", g.pid)
	if !strings.Contains(strings.Join(lines, "\n"), want) {
		t.Errorf("trace is\n%s", strings.Join(lines, "\n"))
	}
}
