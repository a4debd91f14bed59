package tests

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// callSetup is a test's directory with the program that makes single calls.
type callSetup struct {
	*env
	call string
}

func newCalls(t *testing.T, u user) *callSetup {
	return &callSetup{newEnv(t, u), program(t, glibc, "callers", "call")}
}

// result is what a call gave.
type result struct {
	value int
	errno unix.Errno
}

func (r result) String() string {
	if r.value >= 0 {
		return strconv.Itoa(r.value)
	}
	return unix.ErrnoName(r.errno)
}

func failed(errno unix.Errno) result { return result{-1, errno} }

// results reads what the program has written down.
func (c *callSetup) results(out string) []result {
	c.Helper()
	var all []result
	for line := range strings.Lines(c.read(out)) {
		var r result
		var errno int
		if _, err := fmt.Sscan(line, &r.value, &errno); err != nil {
			c.Fatal(err)
		}
		r.errno = unix.Errno(errno)
		all = append(all, r)
	}
	return all
}

// sh runs a script under crshim run. $call is the program.
func (c *callSetup) sh(s streams, script string) *job {
	c.Helper()
	return c.start(s, c.crshim, "run", "sh", "-c", "call="+c.call+"\n"+script)
}

// sleeper starts a process to checkpoint, as some user.
func sleeper(e *env) int {
	e.Helper()
	j := e.start(streams{}, "sleep", "1000")
	e.until("sleep sleeps", func() bool { return sleeping(j.pid()) })
	return j.pid()
}

func eachUser(t *testing.T, fn func(*testing.T, user)) {
	for _, u := range users() {
		t.Run(u.name, func(t *testing.T) {
			t.Parallel()
			fn(t, u)
		})
	}
}

// TestCheckpointErrors: every wrong argument, and which of two comes first.
func TestCheckpointErrors(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		c := newCalls(t, u)
		pid := strconv.Itoa(sleeper(c.env))
		free := strconv.Itoa(freePID(t))
		rows := []struct {
			name, args string
			want       unix.Errno
		}{
			{"flag", "checkpoint self 3 1", unix.EINVAL},
			{"highest flag", "checkpoint self 3 0x8000000000000000", unix.EINVAL},
			{"flag before descriptor", "checkpoint self 99 1", unix.EINVAL},
			{"flag before process", "checkpoint " + free + " 3 4", unix.EINVAL},
			{"closed descriptor", "checkpoint self 99 0", unix.EBADF},
			{"negative descriptor", "checkpoint self -1 0", unix.EBADF},
			{"descriptor before process", "checkpoint " + free + " 99 0", unix.EBADF},
			{"pid 0", "checkpoint 0 3 0", unix.ESRCH},
			{"pid -1", "checkpoint -1 3 0", unix.ESRCH},
			{"smallest pid", "checkpoint -2147483648 3 0", unix.ESRCH},
			{"no such process", "checkpoint " + free + " 3 0", unix.ESRCH},
			{"pid too large", "checkpoint 2147483647 3 0", unix.ESRCH},
			{"read-only descriptor, self", "checkpoint self 4 0", unix.EBADF},
			{"read-only descriptor", "checkpoint " + pid + " 4 0", unix.EBADF},
			{"directory", "checkpoint " + pid + " 5 0", unix.EBADF},
			{"full device", "checkpoint " + pid + " 6 0", unix.ENOSPC},
			{"full device, self", "checkpoint self 6 0", unix.ENOSPC},
		}
		script := "echo x > readonly\n"
		for i := range rows {
			script += fmt.Sprintf("$call out.%d %s 3>img.%d 4<readonly 5<. 6>/dev/full\n", i, rows[i].args, i)
		}
		c.sh(streams{}, script+"true").ends("exit status 0")
		for i, r := range rows {
			if got := c.results(c.nth("out", i)); !slices.Equal(got, []result{failed(r.want)}) {
				t.Errorf("%s: %v, want %v", r.name, got, unix.ErrnoName(r.want))
			}
			if got := c.read(c.nth("img", i)); got != "" {
				t.Errorf("%s: %d bytes were written", r.name, len(got))
			}
		}
		// The target of the calls is as it was.
		if n, _ := strconv.Atoi(pid); !sleeping(n) {
			t.Error("the target does not sleep any more")
		}
	})
}

// freePID is a number that no process has, nor will soon.
func freePID(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/kernel/pid_max")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return n + 1
}

// TestRestartErrors: wrong arguments of restart; the caller goes on.
func TestRestartErrors(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		c := newCalls(t, u)
		rows := []struct {
			name, args string
			want       unix.Errno
		}{
			{"flag", "restart 0 3 1", unix.EINVAL},
			{"highest flag", "restart 0 3 0x8000000000000000", unix.EINVAL},
			{"flag before descriptor", "restart self 99 1", unix.EINVAL},
			{"closed descriptor", "restart 0 99 0", unix.EBADF},
			{"write-only descriptor", "restart 0 4 0", unix.EBADF},
			{"not a crid", "restart -5 3 0", unix.EINVAL},
			{"a crid of nobody", "restart 2147483647 3 0", unix.EINVAL},
			{"a process that does not restart", fmt.Sprintf("restart %d 3 0", os.Getpid()), unix.EINVAL},
			{"crid that is not in memory", "restart 12345 -1 0", unix.EINVAL},
			{"empty file", "restart 0 5 0", unix.EPIPE},
			{"nothing", "restart self 6 0", unix.EPIPE},
			{"zeros", "restart self 7 0", unix.EINVAL},
			{"directory", "restart self 8 0", unix.EISDIR},
			{"something else", "restart self 3 0", unix.EINVAL},
		}
		script := "yes text | head -c 100000 > text; : > empty\n"
		for i := range rows {
			script += fmt.Sprintf("$call out.%d %s 3<text 4>writeonly 5<empty 6</dev/null 7</dev/zero 8<.\n", i, rows[i].args)
		}
		c.sh(streams{}, script+"true").ends("exit status 0")
		for i, r := range rows {
			if got := c.results(c.nth("out", i)); !slices.Equal(got, []result{failed(r.want)}) {
				t.Errorf("%s: %v, want %v", r.name, got, unix.ErrnoName(r.want))
			}
		}
	})
}

// TestCallsWithoutCrshim: the numbers are free in an unmodified kernel.
func TestCallsWithoutCrshim(t *testing.T) {
	c := newCalls(t, users()[0])
	c.start(streams{}, c.call, "out", "checkpoint", "self", "1", "0").ends("exit status 1")
	c.start(streams{}, c.call, "out", "restart", "0", "0", "0").ends("exit status 1")
	if got := c.results(c.path("out")); !slices.Equal(got, []result{failed(unix.ENOSYS), failed(unix.ENOSYS)}) {
		t.Errorf("without crshim: %v", got)
	}
}

// TestCheckpointOthers: whose processes may be saved.
func TestCheckpointOthers(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		c := newCalls(t, u)
		check := func(what string, pid int, want unix.Errno) {
			t.Helper()
			c.remove(c.path("out"))
			c.sh(streams{}, fmt.Sprintf("$call out checkpoint %d 3 0 3>img", pid)).ends("exit status 1")
			if got := c.results(c.path("out")); !slices.Equal(got, []result{failed(want)}) {
				t.Errorf("%s: %v, want %v", what, got, unix.ErrnoName(want))
			}
		}

		tracer := program(t, glibc, "callers", "trace")
		target := sleeper(c.env)
		trace := c.start(streams{}, tracer, "attached", strconv.Itoa(target))
		c.until("the debugger attaches", func() bool { return exists(c.path("attached")) })
		check("traced process", target, unix.EBUSY)
		trace.killTree()
		<-trace.done
		c.sh(streams{}, fmt.Sprintf("$call out2 checkpoint %d 3 0 3>img", target)).ends("exit status 0")

		// A zombie: its parent does not wait for it, once that is no shell any more.
		parent := c.start(streams{}, "sh", "-c", "while [ ! -e end ]; do sleep 0.05; done & echo $! > zombie; exec sleep 1000")
		var zombie int
		c.until("the shell has become another program", func() bool {
			text, err := os.ReadFile(c.path("zombie"))
			if err != nil {
				return false
			}
			zombie, err = strconv.Atoi(strings.TrimSpace(string(text)))
			child, ok := lookup(zombie)
			if err != nil || !ok {
				return false
			}
			p, ok := lookup(child.ppid)
			return ok && p.comm == "sleep"
		})
		if err := os.WriteFile(c.path("end"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		c.until("there is a zombie", func() bool {
			p, ok := lookup(zombie)
			return ok && p.state == "Z"
		})
		check("zombie", zombie, unix.EAGAIN)
		parent.killTree()

		if u.id == os.Getuid() {
			return
		}
		// Processes of root, for an ordinary user.
		roots := newEnv(t, users()[0])
		target = sleeper(roots)
		check("somebody else's process", target, unix.EPERM)
		check("pid 1", 1, unix.EPERM)
		if !sleeping(target) {
			t.Error("somebody else's process does not sleep any more")
		}
	})
}

// restores runs an image of the call program and expects it to come back.
func (c *callSetup) restores(image, out string) {
	c.Helper()
	before := len(c.results(out))
	c.sh(streams{}, "$call ignored restart 0 3 0 3<"+image).ends("exit status 7")
	if got := c.results(out); len(got) != before+1 || got[before] != (result{0, 0}) {
		c.Errorf("after the restart: %v", got)
	}
}

// TestImageOutput: an image goes to whatever is behind the descriptor.
func TestImageOutput(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		c := newCalls(t, u)
		pid := strconv.Itoa(sleeper(c.env))

		// Into a file, from an offset on; what is behind it stays.
		c.sh(streams{}, `printf 0123456789 > img
			$call out checkpoint self 3 0 3>>img && tail -c +11 img > tail`).ends("exit status 0")
		c.restores("tail", c.path("out"))

		// Into a pipe, and back out of one; the reader sees the end.
		c.sh(streams{}, "$call piped checkpoint "+pid+" 3 0 3>&1 >/dev/null | cat > img.pipe").ends("exit status 0")
		if got := c.results(c.path("piped")); len(got) != 1 || got[0].value <= 0 {
			t.Fatalf("into a pipe: %v", got)
		}
		c.sh(streams{}, "$call file checkpoint "+pid+" 3 0 3>img.file").ends("exit status 0")
		if a, b := len(c.read(c.path("img.pipe"))), len(c.read(c.path("img.file"))); a == 0 || b == 0 {
			t.Errorf("image of %d bytes in a pipe, %d in a file", a, b)
		}
		c.start(streams{}, c.crshim, "verify", "img.pipe").ends("exit status 0")

		// Into a socket.
		ours, theirs := socketPair(t)
		got := make(chan []byte, 1)
		go func() {
			defer ours.Close()
			image, _ := io.ReadAll(ours) // short: verify will say so
			got <- image
		}()
		j := c.start(streams{Out: theirs}, c.crshim, "run", c.call, "socket", "checkpoint", pid, "1", "0")
		if err := theirs.Close(); err != nil {
			t.Fatal(err)
		}
		j.ends("exit status 0")
		c.write(c.path("img.socket"), string(<-got))
		c.start(streams{}, c.crshim, "verify", "img.socket").ends("exit status 0")

		// A pipe that nobody reads: SIGPIPE, and EPIPE for who ignores it.
		for _, ignore := range []bool{false, true} {
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := read.Close(); err != nil {
				t.Fatal(err)
			}
			script := "$call closed checkpoint " + pid + " 1 0"
			want := "exit status 141"
			if ignore {
				script, want = "trap '' PIPE; "+script, "exit status 1"
			}
			j := c.sh(streams{Out: write}, script+"; exit $?")
			if err := write.Close(); err != nil {
				t.Fatal(err)
			}
			j.ends(want)
		}
		if got := c.results(c.path("closed")); !slices.Equal(got, []result{failed(unix.EPIPE)}) {
			t.Errorf("into a closed pipe: %v", got)
		}

		// A limit on the size of files: SIGXFSZ, and EFBIG for who ignores it.
		c.sh(streams{}, "ulimit -f 8; trap '' XFSZ; $call limited checkpoint "+pid+" 3 0 3>img.limited; exit $?").ends("exit status 1")
		if got := c.results(c.path("limited")); !slices.Equal(got, []result{failed(unix.EFBIG)}) {
			t.Errorf("into a file with a limit: %v", got)
		}

		if n, _ := strconv.Atoi(pid); !sleeping(n) {
			t.Error("the target does not sleep any more")
		}
	})
}

func socketPair(t *testing.T) (net.Conn, *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "socket")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return conn, os.NewFile(uintptr(fds[1]), "socket")
}

// TestFullDisk: no space, seen through a file system and not a device.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs: CAP_SYS_ADMIN (mount)")
	}
	t.Parallel()
	c := newCalls(t, users()[0])
	pid := strconv.Itoa(sleeper(c.env))
	disk := c.path("disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", disk, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("needs: CAP_SYS_ADMIN (mount): %v", err)
	}
	defer func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	}()
	c.sh(streams{}, "$call out checkpoint "+pid+" 3 0 3>disk/img; exit $?").ends("exit status 1")
	if got := c.results(c.path("out")); !slices.Equal(got, []result{failed(unix.ENOSPC)}) {
		t.Errorf("on a full disk: %v", got)
	}
}

// TestImageInput: restart reads front to back, up to the end of the image and
// not a byte further, from a file and from a pipe.
func TestImageInput(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		c := newCalls(t, u)
		c.sh(streams{}, "$call out checkpoint self 3 0 3>img").ends("exit status 0")
		c.sh(streams{}, `
			printf 'checkpoint id 1\n' >> img
			{ $call x restart 0 0 0; echo $? > status.file; cat > rest.file; } < img
			cat img | { $call x restart 0 0 0; echo $? > status.pipe; cat > rest.pipe; }
			{ printf 0123456789; cat img; } > later
			{ dd bs=1 count=10 of=first 2>/dev/null; $call x restart 0 0 0; echo $? > status.later; cat > rest.later; } < later
		`).ends("exit status 0")
		for _, from := range []string{"file", "pipe", "later"} {
			if got := c.read(c.path("status." + from)); got != "7\n" {
				t.Errorf("from a %s: status %q", from, got)
			}
			if got := c.read(c.path("rest." + from)); got != "checkpoint id 1\n" {
				t.Errorf("from a %s: %d bytes are left: %.40q", from, len(got), got)
			}
		}
		if got := c.results(c.path("out")); !slices.Equal(got, []result{{1, 0}, {0, 0}, {0, 0}, {0, 0}}) {
			t.Errorf("one checkpoint, three restarts: %v", got)
		}
	})
}

// TestCrids: one more for each success, none for a failure; side by side.
func TestCrids(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		c := newCalls(t, u)
		c.sh(streams{}, `
			$call out checkpoint self 3 0 3>img
			$call out checkpoint self 99 0
			$call out checkpoint self 3 0 3>img
			$call out checkpoint self 3 7 3>img
			$call out checkpoint self 3 0 3>img
		`).ends("exit status 0")
		want := []result{{1, 0}, failed(unix.EBADF), {2, 0}, failed(unix.EINVAL), {3, 0}}
		if got := c.results(c.path("out")); !slices.Equal(got, want) {
			t.Errorf("crids %v, want %v", got, want)
		}

		const many = 24
		c.sh(streams{}, fmt.Sprintf("$call many checkpoint self 0 0 %d", many)).ends("exit status 0")
		var crids []int
		for _, r := range c.results(c.path("many")) {
			crids = append(crids, r.value)
		}
		slices.Sort(crids)
		for i, crid := range crids {
			if crid != i+1 {
				t.Fatalf("crids of %d calls side by side: %v", many, crids)
			}
		}
		images, err := filepath.Glob(c.path("many.img.*"))
		if err != nil || len(images) != many || len(crids) != many {
			t.Fatalf("%d images, %d crids: %v", len(images), len(crids), err)
		}
		for _, image := range images[:4] {
			c.restores(image, c.path("many"))
		}
	})
}

// TestPIDNamespace: pids are those that the caller sees.
func TestPIDNamespace(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs: CAP_SYS_ADMIN (unshare)")
	}
	t.Parallel()
	c := newCalls(t, users()[0])
	// In a namespace of its own, pid 1 starts pid 2 and waits in the fifo.
	j := c.sh(streams{}, `
		mkfifo hold
		unshare --pid --fork --mount-proc sh -c '
			sleep 1000 </dev/null >/dev/null 2>&1 &
			echo $! > inner
			'$call' inside checkpoint $! 3 0 3>img.inside
			'$call' absent checkpoint 77777 3 0 3>img.absent
			: > up
			read line < hold
			kill -KILL $!
			wait $!
		' &
		until [ -e up ] || ! kill -0 $!; do sleep 0.05; done
		for pid in $(cat /proc/$!/task/*/children); do
			for inner in $(cat /proc/$pid/task/*/children); do
				$call outside checkpoint $inner 3 0 3>img.outside
			done
		done
		echo > hold
		wait $!
		true
	`)
	j.ends("exit status 0")
	if got := c.read(c.path("inner")); got != "2\n" {
		t.Fatalf("the inner process has pid %q there", got)
	}
	for name, want := range map[string]result{
		"inside":  {1, 0},
		"absent":  failed(unix.ESRCH),
		"outside": failed(unix.EINVAL), // in a nested namespace and not its init
	} {
		if got := c.results(c.path(name)); !slices.Equal(got, []result{want}) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// program32 is the calling program for i386, whose calls arrive by int 0x80.
func program32(t *testing.T) string {
	t.Helper()
	l := libc{"i386", []string{"cc", "-m32", "-static"}}
	probe := filepath.Join(work, "bin", "probe32")
	source := filepath.Join(work, "bin", "probe32.c")
	if err := os.WriteFile(source, []byte("#include <stdio.h>\nint main(void) { return !printf(\"i386\"); }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if command(".", "cc", "-m32", "-static", "-o", probe, source) != nil {
		t.Skip("needs: a compiler and C library for i386 (gcc-multilib)")
	}
	if command(".", probe) != nil {
		t.Skip("needs: CONFIG_IA32_EMULATION")
	}
	return program(t, l, "callers", "call")
}

// TestOtherArchitecture: calls of an i386 program arrive; it cannot be saved.
func TestOtherArchitecture(t *testing.T) {
	c := newCalls(t, users()[0])
	c.call = program32(t)
	c.sh(streams{}, `
		$call out checkpoint self 3 1 3>img
		$call out checkpoint self 99 0 3>img
		$call out checkpoint self 3 0 3>img
		$call out restart 0 3 1 3<img
	`+"true").ends("exit status 0")
	want := []result{failed(unix.EINVAL), failed(unix.EBADF), failed(unix.EOPNOTSUPP), failed(unix.EINVAL)}
	if got := c.results(c.path("out")); !slices.Equal(got, want) {
		t.Errorf("an i386 program: %v, want %v", got, want)
	}
}
