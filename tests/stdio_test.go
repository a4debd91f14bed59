package tests

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// piped are the pipes of a program that somebody talks to.
type piped struct {
	*job
	in  *os.File
	out *bufio.Reader
}

// startPiped runs a command between two pipes.
func (e *env) startPiped(args ...string) *piped {
	e.Helper()
	in, toIn := e.pipe()
	fromOut, out := e.pipe()
	j := e.start(streams{In: in, Out: out}, args...)
	_ = in.Close() // the program has them
	_ = out.Close()
	return &piped{job: j, in: toIn, out: bufio.NewReader(fromOut)}
}

// pipe closes its ends with the test, if nobody has before.
func (e *env) pipe() (r, w *os.File) {
	e.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		e.Fatal(err)
	}
	e.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

func (p *piped) say(line, want string) {
	p.Helper()
	if _, err := p.in.WriteString(line + "\n"); err != nil {
		p.Fatal(err)
	}
	p.hear(want)
}

func (p *piped) hear(want string) {
	p.Helper()
	got, err := p.out.ReadString('\n')
	if err != nil || strings.TrimSpace(got) != want {
		p.Fatalf("heard %q (%v), want %q", got, err, want)
	}
}

// TestStandardPipes: a program between two pipes comes back between those of
// whoever restarts it, and what it waits to read comes out of the new one.
func TestStandardPipes(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		e := newEnv(t, u)
		talk := program(t, glibc, "callers", "talk")
		call := program(t, glibc, "callers", "call")

		// Two descriptors of one pipe, so that they must stay one open file.
		p := e.startPiped(e.crshim, "run", "sh", "-c", "exec "+talk+" pid 2>&1")
		p.say("hello", "line 1 was <hello>")
		pid, err := strconv.Atoi(strings.TrimSpace(e.read(e.path("pid"))))
		if err != nil {
			t.Fatal(err)
		}
		for n := range cycles {
			e.until("it waits for input", func() bool { return sleeping(pid) })
			img := e.nth("img", n)
			e.start(streams{}, e.crshim, "checkpoint", strconv.Itoa(pid), "-o", img).ends("exit status 0")
			p.say("on", "line "+strconv.Itoa(n+2)+" was <on>")
			e.signal(pid, unix.SIGKILL)
			p.ends("signal: killed")

			back := []string{e.crshim, "restart", img}
			if n == 1 {
				back = []string{e.crshim, "run", "sh", "-c", "exec " + call + " out restart 0 3 0 3<" + img}
			}
			p = e.startPiped(back...)
			p.say("again", "line "+strconv.Itoa(n+2)+" was <again>")
			for _, d := range descendants(p.pid()) {
				if d.comm == "talk" {
					pid = d.pid
				}
			}
		}
		if err := p.in.Close(); err != nil {
			t.Fatal(err)
		}
		p.ends("exit status 0") // at the end of its input
	})
}

// TestPipeOutside: a pipe that leads outside under another number is refused,
// and the program goes on.
func TestPipeOutside(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		e := newEnv(t, u)
		talk := program(t, glibc, "callers", "talk")
		p := e.startPiped("sh", "-c", "exec "+talk+" pid 7>&1 >log.program")
		e.until("it listens", func() bool { return exists(e.path("pid")) && sleeping(p.pid()) })
		j := e.start(streams{}, e.crshim, "checkpoint", strconv.Itoa(p.pid()), "-o", "img")
		j.ends("exit status 1")
		if text := j.output(); !strings.Contains(text, "CR1201") || strings.Count(text, "why:") != 1 {
			t.Errorf("refused with %q, want CR1201 alone", text)
		}
		if err := p.in.Close(); err != nil {
			t.Fatal(err)
		}
		p.ends("exit status 0")
	})
}

// TestFifoOutside: a named pipe that others have open, when the program is
// saved and when it is restarted.
func TestFifoOutside(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		e := newEnv(t, u)
		talk := program(t, glibc, "callers", "talk")
		p := e.startPiped("sh", "-c", "mkfifo fifo && exec 7<>fifo && printf abc >&7 && exec "+talk+" pid 2>log.program")
		e.until("it listens", func() bool { return exists(e.path("pid")) && sleeping(p.pid()) })
		save := func(args ...string) *job {
			return e.start(streams{}, append([]string{e.crshim, "checkpoint", strconv.Itoa(p.pid())}, args...)...)
		}
		save("-o", "img").ends("exit status 0")

		// The original has it open.
		j := e.start(streams{}, e.crshim, "restart", "img")
		j.ends("exit status 125")
		if text := j.output(); !strings.Contains(text, "CR2128") {
			t.Errorf("refused with %q, want CR2128", text)
		}

		hold := func() *piped {
			h := e.startPiped("sh", "-c", "exec 8<>fifo && echo has it && read line && dd bs=99 count=1 <&8 2>log.dd && echo")
			h.hear("has it")
			return h
		}
		held := hold()
		j = save("-o", "img.held")
		j.ends("exit status 1")
		if text := j.output(); strings.Count(text, "CR1223") != 1 || strings.Count(text, "why:") != 1 {
			t.Errorf("refused with %q, want CR1223 alone", text)
		}
		save("--external", "--kill", "-o", "img.held").ends("exit status 0")
		p.ends("signal: killed")

		p = e.startPiped(e.crshim, "restart", "--fd", "7=fifo", "img.held")
		p.say("hello", "line 1 was <hello>")
		held.say("out with it", "abc") // once: nothing was put in again
		if err := p.in.Close(); err != nil {
			t.Fatal(err)
		}
		p.ends("exit status 0")
		held.ends("exit status 0")

		// Nobody has it open now.
		p = e.startPiped(e.crshim, "restart", "img")
		p.say("hello", "line 1 was <hello>")
		held = hold()
		held.say("out with it", "abc")
		held.ends("exit status 0")
		if err := p.in.Close(); err != nil {
			t.Fatal(err)
		}
		p.ends("exit status 0")
	})
}
