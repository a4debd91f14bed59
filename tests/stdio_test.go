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
