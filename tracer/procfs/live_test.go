package procfs

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// onThread runs check on a thread of its own, which ends with it.
func onThread(t *testing.T, check func(t *testing.T)) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		check(t)
	}()
	<-done
}

func TestStatusAndStatOfSelf(t *testing.T) {
	p := self(t)
	st, err := p.Status()
	if err != nil {
		t.Fatal(err)
	}
	stat, err := p.Stat()
	if err != nil {
		t.Fatal(err)
	}
	pid, ppid := PID(os.Getpid()), PID(os.Getppid())
	if st.Pid != pid || st.Tgid != pid || st.PPid != ppid || stat.PID != pid || stat.PPid != ppid {
		t.Errorf("pid %d, parent %d: %+v, %+v", pid, ppid, st, stat)
	}
	if st.NSpid[0] != pid || st.NStgid[0] != pid || st.Threads < 2 {
		t.Errorf("%+v", st)
	}
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, g := range st.Groups {
		got = append(got, int(g))
	}
	slices.Sort(groups)
	slices.Sort(got)
	if !slices.Equal(groups, got) {
		t.Errorf("groups %v, want %v", got, groups)
	}
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	if st.Uid[1] != uid || st.Gid[1] != gid {
		t.Errorf("ids %v, %v; want %d, %d", st.Uid, st.Gid, uid, gid)
	}
	pgrp, err := unix.Getpgid(0)
	if err != nil {
		t.Fatal(err)
	}
	sid, err := unix.Getsid(0)
	if err != nil {
		t.Fatal(err)
	}
	if stat.Pgrp != PID(pgrp) || stat.Session != PID(sid) || st.NSpgid[0] != stat.Pgrp || st.NSsid[0] != stat.Session {
		t.Errorf("group %d, session %d: %+v", pgrp, sid, stat)
	}
	if stat.ExitSignal != int32(unix.SIGCHLD) || stat.StartCode == 0 || stat.EnvStart < stat.ArgStart {
		t.Errorf("%+v", stat)
	}
	comm, err := p.Comm()
	if err != nil || comm != st.Name || comm != stat.Comm {
		t.Errorf("comm %q, %v; %q, %q", comm, err, st.Name, stat.Comm)
	}
	// Go catches SIGURG, to preempt.
	if st.SigCgt&(1<<(unix.SIGURG-1)) == 0 || st.VmRSS == 0 || st.VmSize < st.VmRSS {
		t.Errorf("%+v", st)
	}
}

func TestThreadWithOddName(t *testing.T) {
	onThread(t, func(t *testing.T) {
		tid := PID(unix.Gettid())
		p, err := OpenThread(PID(os.Getpid()), tid)
		if err != nil {
			t.Error(err)
			return
		}
		defer p.Close()
		for _, name := range []string{"a) R 1 (b", "x\ny\\n", "\\", " sp ace ", "\nTgid:\t1", "\xff\xfe)", "",
			"\nse.exec_start:"} {
			if err := setComm(name); err != nil {
				t.Error(err)
				continue
			}
			comm, err1 := p.Comm()
			st, err2 := p.Status()
			stat, err3 := p.Stat()
			_, told, err4 := p.ExecStart()
			if err := errors.Join(err1, err2, err3, err4); err != nil {
				t.Errorf("thread %q: %v", name, err)
				continue
			}
			if comm != name || st.Name != name || stat.Comm != name {
				t.Errorf("thread %q is called %q, %q, %q", name, comm, st.Name, stat.Comm)
			}
			if st.Pid != tid || st.Tgid != PID(os.Getpid()) || stat.PID != tid || !told {
				t.Errorf("thread %q: %+v, %+v, told %v", name, st, stat, told)
			}
		}
	})
}

func TestThreads(t *testing.T) {
	onThread(t, func(t *testing.T) {
		list, err := self(t).Threads()
		tid := PID(unix.Gettid())
		if err != nil || !slices.Contains(list, tid) || list[0] != PID(os.Getpid()) {
			t.Errorf("threads %v, %v; one is %d", list, err, tid)
		}
	})
}

func TestChildren(t *testing.T) {
	one, two := start(t, "wait"), start(t, "wait")
	two.kill(t) // a zombie is a child as well
	want := []PID{one.pid(), two.pid()}
	slices.Sort(want)
	p := self(t)
	for name, list := range map[string]func() ([]PID, error){"Children": p.Children, "a scan": p.childrenScan} {
		got, err := list()
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v; want %v", name, got, err, want)
		}
	}
	threads, err := p.Threads()
	if err != nil {
		t.Fatal(err)
	}
	files, told, err := p.childrenFiles(threads)
	if err != nil || told && !slices.Equal(files, want) {
		t.Errorf("the files: %v, %v; want %v", files, err, want)
	}
	if got, err := openProc(t, one.pid()).Children(); err != nil || len(got) != 0 {
		t.Errorf("children of a child: %v, %v", got, err)
	}
}

func TestLimitsOfSelf(t *testing.T) {
	list, err := self(t).Limits()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		var want unix.Rlimit
		if err := unix.Prlimit(0, l.Resource, nil, &want); err != nil {
			t.Fatal(err)
		}
		if l.Soft != want.Cur || l.Hard != want.Max {
			t.Errorf("%+v, want %+v", l, want)
		}
	}
}

func TestTimersOfSelf(t *testing.T) {
	onThread(t, func(t *testing.T) {
		p := self(t)
		if _, err := p.ReadFile("timers"); errors.Is(err, unix.ENOENT) {
			t.Skip("needs: CONFIG_CHECKPOINT_RESTORE (/proc/PID/timers)")
		}
		pid, tid := PID(os.Getpid()), PID(unix.Gettid())
		want := map[int32]Timer{}
		for _, c := range []struct {
			clock int32
			ev    sigevent
			want  Timer
		}{
			{unix.CLOCK_REALTIME, sigevent{value: 0xdeadbeef00000001, signo: 35, notify: sigevSignal},
				Timer{Signal: 35, Value: 0xdeadbeef00000001, Notify: NotifySignal, Target: pid}},
			{unix.CLOCK_MONOTONIC, sigevent{signo: 36, notify: sigevSignal | sigevThreadID, tid: int32(tid)},
				Timer{Signal: 36, Notify: NotifySignal, ToThread: true, Target: tid, Clock: 1}},
			{unix.CLOCK_BOOTTIME, sigevent{signo: 37, notify: sigevNone},
				Timer{Signal: 37, Notify: NotifyNone, Target: pid, Clock: 7}},
		} {
			id, err := timerCreate(c.clock, &c.ev)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() {
				if err := timerDelete(id); err != nil {
					t.Error(err)
				}
			}()
			c.want.ID = id
			want[id] = c.want
		}
		list, err := p.Timers()
		if err != nil {
			t.Error(err)
			return
		}
		got := map[int32]Timer{}
		for _, timer := range list {
			got[timer.ID] = timer
		}
		for id := range want { // others may belong to Go's runtime
			if got[id] != want[id] {
				t.Errorf("timer %+v, want %+v", got[id], want[id])
			}
		}
	})
}

func TestSyscallOfChild(t *testing.T) {
	p, _ := stoppedArena(t)
	s, err := p.Syscall()
	if err != nil {
		t.Fatal(err)
	}
	if s.Running || s.SP == 0 || s.IP == 0 {
		t.Errorf("stopped: %+v", s)
	}
	onThread(t, func(t *testing.T) {
		me, err := OpenThread(PID(os.Getpid()), PID(unix.Gettid()))
		if err != nil {
			t.Error(err)
			return
		}
		defer me.Close()
		// Whoever reads this about itself is in read(2).
		if s, err := me.Syscall(); err != nil || s.Nr != unix.SYS_READ || s.Running {
			t.Errorf("own system call: %+v, %v", s, err)
		}
	})
}

func TestSmallFilesOfSelf(t *testing.T) {
	p := self(t)
	if args, err := p.Cmdline(); err != nil || !slices.Equal(args, os.Args) {
		t.Errorf("arguments %q, %v; want %q", args, err, os.Args)
	}
	if aux, err := p.Auxv(); err != nil || len(aux) == 0 || len(aux)%16 != 0 || !bytes.HasSuffix(aux, make([]byte, 16)) {
		t.Errorf("auxv %x, %v", aux, err)
	}
	c := start(t, "wait", func(c *exec.Cmd) { c.Env = append(c.Env, "ODD=a\nb=c") })
	if env, err := openProc(t, c.pid()).Environ(); err != nil || !slices.Contains(env, "ODD=a\nb=c") {
		t.Errorf("environment %q, %v", env, err)
	}
	for _, kind := range []string{"pid", "mnt", "user", "net", "uts", "ipc", "cgroup"} {
		st, err1 := p.StatLink("ns/" + kind)
		ino, err2 := p.NS(kind)
		if err := errors.Join(err1, err2); err != nil || ino != st.Ino || ino == 0 {
			t.Errorf("namespace %s: %d and %d, %v", kind, ino, st.Ino, err)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := p.Link("exe"); err != nil || got != exe {
		t.Errorf("exe %q, %v; want %q", got, err, exe)
	}
	if v, err := p.OOMScoreAdj(); err != nil || v < -1000 || v > 1000 {
		t.Errorf("oom_score_adj %d, %v", v, err)
	}
	got, err := p.Personality()
	want, _, errno := unix.Syscall(unix.SYS_PERSONALITY, 0xffffffff, 0, 0)
	if err != nil || errno != 0 || uintptr(got) != want {
		t.Errorf("personality %#x, %v; want %#x, %v", got, err, want, errno)
	}
	groups, err := p.Cgroups()
	if err != nil || len(groups) == 0 {
		t.Errorf("control groups %v, %v", groups, err)
	}
	before, told, err := p.ExecStart()
	if err != nil || told && before <= 0 {
		t.Errorf("exec_start %v, %v, %v", before, told, err)
	}
}

// TestExecStartOfStopped holds the promise that a task which does not run
// keeps its number.
func TestExecStartOfStopped(t *testing.T) {
	p, _ := stoppedArena(t)
	one, told, err := p.ExecStart()
	if err != nil || !told {
		t.Skipf("needs: CONFIG_SCHED_DEBUG (se.exec_start): %v", err)
	}
	runtime.Gosched()
	two, _, err := p.ExecStart()
	if err != nil || one != two || one == 0 {
		t.Errorf("%v, then %v, %v", one, two, err)
	}
}
