package procfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestFDsOfChild(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	c := start(t, "wait", func(c *exec.Cmd) {
		c.ExtraFiles = []*os.File{r}
	})
	p := openProc(t, c.pid())
	mine, err := self(t).FD(int32(r.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := p.FD(3)
	if err != nil {
		t.Fatal(err)
	}
	if mine.Ino != theirs.Ino || mine.Dev != theirs.Dev || theirs.Target != fmt.Sprintf("pipe:[%d]", mine.Ino) ||
		theirs.Type() != unix.S_IFIFO || !mine.CloseOnExec() || theirs.CloseOnExec() {
		t.Errorf("one pipe here and there: %+v, %+v", mine, theirs)
	}
	list, err := p.FDs()
	if err != nil || len(list) < 4 || list[0].Number != 0 || list[3].Number != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	if diff := cmp.Diff(*theirs, list[3]); diff != "" {
		t.Error(diff)
	}
	if _, err := p.FD(1 << 20); !errors.Is(err, unix.EBADF) || errors.Is(err, ErrGone) {
		t.Errorf("FD of no descriptor: %v", err)
	}
	if _, err := p.FD(-1); !errors.Is(err, unix.EBADF) {
		t.Errorf("FD(-1): %v", err)
	}
}

// descriptor makes one of a kind; check must hold for what is read of it.
type descriptor struct {
	name  string
	make  func() (int, error)
	check func(*FD) bool
}

func descriptors(dir string) []descriptor {
	file := func(flags int) func() (int, error) {
		return func() (int, error) { return unix.Open(dir+"/f", flags, 0o600) }
	}
	return []descriptor{
		{"file", func() (int, error) {
			fd, err := file(unix.O_RDWR | unix.O_CREAT | unix.O_APPEND)()
			if err == nil {
				_, err = unix.Write(fd, []byte("hello"))
			}
			return fd, err
		}, func(f *FD) bool {
			return f.Target == dir+"/f" && f.Size == 5 && f.Pos == 5 && f.Nlink == 1 && !f.CloseOnExec() &&
				f.Flags&unix.O_APPEND != 0 && f.Flags&unix.O_ACCMODE == unix.O_RDWR
		}},
		{"path", file(unix.O_PATH | unix.O_CLOEXEC), func(f *FD) bool {
			return f.Flags&unix.O_PATH != 0 && f.CloseOnExec() && f.Type() == unix.S_IFREG
		}},
		{"lock", func() (int, error) {
			fd, err := file(unix.O_RDWR)()
			if err == nil {
				err = unix.Flock(fd, unix.LOCK_EX)
			}
			return fd, err
		}, func(f *FD) bool {
			v := f.Values("lock")
			return len(v) == 1 && strings.Contains(v[0], "FLOCK  ADVISORY  WRITE")
		}},
		{"deleted", func() (int, error) {
			fd, err := unix.Open(dir+"/x\n", unix.O_RDONLY|unix.O_CREAT, 0o600)
			return fd, errors.Join(err, unix.Unlink(dir+"/x\n"))
		}, func(f *FD) bool { return f.Target == dir+"/x\n (deleted)" && f.Nlink == 0 }},
		{"null", func() (int, error) { return unix.Open("/dev/null", unix.O_RDONLY, 0) },
			func(f *FD) bool { return f.Type() == unix.S_IFCHR && f.Rdev == unix.Mkdev(1, 3) }},
		{"eventfd", func() (int, error) { return unix.Eventfd(42, unix.EFD_SEMAPHORE) },
			func(f *FD) bool {
				return f.Target == "anon_inode:[eventfd]" && slices.Equal(f.Values("eventfd-count"), []string{"2a"})
			}},
		{"inotify", func() (int, error) {
			fd, err := unix.InotifyInit1(0)
			if err == nil {
				_, err = unix.InotifyAddWatch(fd, dir, unix.IN_CREATE)
			}
			return fd, err
		}, func(f *FD) bool { v := f.Values("inotify"); return len(v) == 1 && strings.HasPrefix(v[0], "wd:1 ino:") }},
		{"timerfd", func() (int, error) { return unix.TimerfdCreate(unix.CLOCK_MONOTONIC, 0) },
			func(f *FD) bool {
				return slices.Equal(f.Values("clockid"), []string{"1"}) && len(f.Values("it_value")) == 1
			}},
		{"signalfd", func() (int, error) { return unix.Signalfd(-1, &unix.Sigset_t{Val: [16]uint64{1 << 9}}, 0) },
			func(f *FD) bool { return slices.Equal(f.Values("sigmask"), []string{"0000000000000200"}) }},
		{"socket", func() (int, error) { return unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0) },
			func(f *FD) bool { return f.Target == fmt.Sprintf("socket:[%d]", f.Ino) && f.Type() == unix.S_IFSOCK }},
		{"pidfd", func() (int, error) { return unix.PidfdOpen(os.Getpid(), 0) },
			func(f *FD) bool { return slices.Equal(f.Values("Pid"), []string{strconv.Itoa(os.Getpid())}) }},
	}
}

func TestFDKinds(t *testing.T) {
	p := self(t)
	for _, d := range descriptors(t.TempDir()) {
		t.Run(d.name, func(t *testing.T) {
			fd, err := d.make()
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			f, err := p.FD(int32(fd))
			if err != nil {
				t.Fatal(err)
			}
			if f.Number != int32(fd) || f.MntID <= 0 || !d.check(f) {
				t.Errorf("%+v", f)
			}
		})
	}
}

func TestEpollTargets(t *testing.T) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ep)
	ev, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ev)
	p := self(t)
	f, err := p.FD(int32(ep))
	if err != nil || f.Target != "anon_inode:[eventpoll]" || f.Values("tfd") != nil {
		t.Errorf("%+v, %v", f, err)
	}
	err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, ev, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: 7, Pad: 8})
	if err != nil {
		t.Fatal(err)
	}
	f, err = p.FD(int32(ep))
	if err != nil {
		t.Fatal(err)
	}
	v := f.Values("tfd")
	if len(v) != 1 || !strings.HasPrefix(v[0], strconv.Itoa(ev)+" ") || !strings.Contains(v[0], "800000007") {
		t.Errorf("one watched descriptor: %q", v)
	}
}

func TestManyFDs(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	const many = 10000
	if limit.Cur < many+100 {
		t.Skipf("needs: RLIMIT_NOFILE of %d or more, it is %d", many, limit.Cur)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fds := make(map[int32]bool)
	defer func() {
		for fd := range fds {
			unix.Close(int(fd))
		}
	}()
	for range many {
		fd, err := unix.FcntlInt(null.Fd(), unix.F_DUPFD_CLOEXEC, 100)
		if err != nil {
			t.Fatal(err)
		}
		fds[int32(fd)] = true
	}
	list, err := self(t).FDs()
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for i, f := range list {
		if i > 0 && list[i-1].Number >= f.Number {
			t.Fatalf("descriptor %d behind %d", f.Number, list[i-1].Number)
		}
		if fds[f.Number] && f.Target == os.DevNull && f.CloseOnExec() {
			found++
		}
	}
	if found != many {
		t.Errorf("found %d of %d", found, many)
	}
}

func BenchmarkFDs(b *testing.B) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	for _, many := range []int{1000, 10000} {
		b.Run(strconv.Itoa(many), func(b *testing.B) {
			var fds []int
			defer func() {
				for _, fd := range fds {
					unix.Close(fd)
				}
			}()
			for range many {
				fd, err := unix.FcntlInt(null.Fd(), unix.F_DUPFD_CLOEXEC, 100)
				if err != nil {
					b.Fatal(err)
				}
				fds = append(fds, fd)
			}
			p := self(b)
			for b.Loop() {
				if list, err := p.FDs(); err != nil || len(list) < many {
					b.Fatal(len(list), err)
				}
			}
		})
	}
}
