package tests

import (
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// placed is what stands behind the descriptors of callers/places.c.
type placed map[int]string

// numbered is the inode in the name of a pipe, or the number of a terminal: another one is made at restart.
var numbered = regexp.MustCompile(`(/dev/pts)/\d+|:\[\d+\]`)

func (e *env) placed() placed {
	e.Helper()
	p := placed{}
	for line := range strings.Lines(e.read(e.path("report"))) {
		number, what, _ := strings.Cut(strings.TrimSpace(line), " ")
		fd, err := strconv.Atoi(number)
		if err != nil {
			e.Fatal(err)
		}
		words := strings.Fields(numbered.ReplaceAllString(what, "$1"))
		slices.Sort(words[1:]) // watches come in the order of addresses in the kernel
		p[fd] = strings.ReplaceAll(strings.Join(words, " "), e.dir, "DIR")
	}
	e.remove(e.path("report"))
	return p
}

// but returns p with changes.
func (p placed) but(changes placed) placed {
	p = maps.Clone(p)
	maps.Copy(p, changes)
	return p
}

// open returns p without the descriptors of which it says nothing.
func (p placed) open() placed {
	p = maps.Clone(p)
	maps.DeleteFunc(p, func(_ int, what string) bool { return what == "" })
	return p
}

// TestReplaced: a restart puts something else behind descriptors of every kind,
// and of what led outside it has to be told what.
func TestReplaced(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		e := newEnv(t, u)
		e.write(e.path("data"), "0123456789")
		e.write(e.path("other"), "abcdefghijkl")
		p := e.startPiped("sh", "-c", "exec "+program(t, glibc, "callers", "places")+" "+e.dir+" 7<&0 8>&1 9>&1 0</dev/null 1>/dev/null")
		e.until("it is there", func() bool { return exists(e.path("pid")) || p.ended() })

		save := func(args ...string) *job {
			return e.start(streams{}, append([]string{e.crshim, "checkpoint", strconv.Itoa(p.pid()), "-o", "img"}, args...)...)
		}
		j := save()
		j.ends("exit status 1")
		if text := j.output(); strings.Count(text, "CR1201") != 3 || strings.Contains(text, "CR12") && strings.Count(text, "CR1") != 3 {
			t.Errorf("refused with %q, want CR1201 for three descriptors", text)
		}
		save("--external").ends("exit status 0")
		e.write(e.path("go"), "")
		p.ends("exit status 0")
		was := e.placed()
		null := "/dev/null flags:0100000 pos:0"
		if len(was) != 20 || was[0] != null {
			t.Fatalf("placed %v", was)
		}

		j = e.start(streams{}, e.crshim, "restart", "--fd", "8=null", "img")
		j.ends("exit status 125")
		if text := j.output(); strings.Count(text, "CR2125") != 1 || !strings.Contains(text, "fd 7") {
			t.Errorf("refused with %q, want CR2125 for the pipe of fd 7", text)
		}
		j = e.start(streams{}, e.crshim, "restart", "--fd", "3=null", "--fd", "0=close", "img")
		j.ends("exit status 125")
		if text := j.output(); strings.Count(text, "CR2125") != 2 || strings.Count(text, "CR2126") != 1 {
			t.Errorf("refused with %q, want CR2125 for two pipes and CR2126 for fd 3", text)
		}
		j = e.start(streams{}, e.crshim, "restart", "--fd", "8=inherit", "--fd", "7=null", "img")
		j.ends("exit status 125")
		if text := j.output(); !strings.Contains(text, "CR2127") {
			t.Errorf("refused with %q, want CR2127", text)
		}

		// The call has no way to be told.
		call := program(t, glibc, "callers", "call")
		e.start(streams{}, "sh", "-c", "exec "+e.crshim+" run "+call+" answer restart 0 3 0 3<img").ends("exit status 1")
		if got, want := e.read(e.path("answer")), fmt.Sprintf("-1 %d\n", unix.EBADF); got != want {
			t.Errorf("restart(2) gives %q, want %q", got, want)
		}

		closed := placed{7: "", 8: "", 9: "", 17: "anon_inode:[eventpoll] flags:02 pos:0 tfd:13events:19 tfd:15events:19"}
		for _, test := range []struct {
			name string
			args string
			want placed
			says string // in the log
		}{
			{"closed", "", closed, ""},
			// The pipe to read from, under two numbers of which one is told.
			{"null", "--fd 7=null --fd 8=null", closed.but(placed{7: null, 8: "/dev/null flags:0100001 pos:0", 9: "/dev/null flags:0100001 pos:0 shared"}), "fd 7"},
			{"each", "--fd 8=null --fd 9=other", closed.but(placed{8: "/dev/null flags:0100001 pos:0", 9: "DIR/other flags:0100001 pos:0"}), ""},
			{"regular", "--fd 10=other --fd 12=null", closed.but(placed{
				10: "DIR/other flags:0100002 pos:5", 11: "DIR/other flags:0100002 pos:5 shared",
				12: "/dev/null flags:0102002 pos:0",
			}), ""},
			{"second", "--fd 11=other", closed.but(placed{11: "DIR/other flags:0100002 pos:5"}), ""},
			{"shared", "--fd 10=close", closed.but(placed{10: "", 11: ""}), ""},
			{"missing", "--fd 10=other --fd 12=other", closed.but(placed{
				10: "DIR/other flags:0100002 pos:5", 11: "DIR/other flags:0100002 pos:5 shared", 12: "DIR/other flags:0102002 pos:7",
			}), ""},
			{"nameless", "--fd 13=null --fd 15=close --fd 16=other", closed.but(placed{
				13: null, 15: "", 16: "DIR/other flags:0100002 pos:0", 17: "anon_inode:[eventpoll] flags:02 pos:0",
			}), "fd 13"},
			{"pipes", "--fd 13=close --fd 17=null", closed.but(placed{13: "", 17: "/dev/null flags:0100002 pos:0"}), ""},
			{"rest", "--fd 14=close --fd 18=other --fd 19=/", closed.but(placed{14: "", 18: "DIR/other flags:0100001 pos:0", 19: "/ flags:0300000 pos:0"}), ""},
			{"socket", "--fd 23=close", closed.but(placed{23: ""}), ""},
			{"sockets", "--fd 24=null --fd 23=other", closed.but(placed{23: "DIR/other flags:0100002 pos:0", 24: "/dev/null flags:0100002 pos:0"}), ""},
			{"master", "--fd 25=close", closed.but(placed{25: "", 26: "/dev/pts (deleted) flags:0100002 pos:0"}), ""},
			{"slave", "--fd 26=null", closed.but(placed{26: "/dev/null flags:0100002 pos:0"}), ""},
			{"standard", "--fd 0=other --fd 1=close --fd 2=null", closed.but(placed{0: "DIR/other flags:0100000 pos:0", 1: "", 2: "/dev/null flags:0102001 pos:0"}), ""},
		} {
			args := test.args
			for _, fd := range []string{"7", "8", "9"} {
				if !strings.Contains(args, " "+fd+"=") && (fd != "9" || !strings.Contains(args, " 8=")) {
					args += " --fd " + fd + "=close"
				}
			}
			if test.name == "missing" {
				e.remove(e.path("data"))
			}
			// Out of a pipe nothing can be read twice.
			j := e.start(streams{}, "sh", "-c", "cat img | "+e.crshim+" restart "+args+" -")
			j.ends("exit status 0")
			want := was.but(test.want)
			if test.name != "standard" {
				want = want.but(placed{2: was[2]})
			}
			if diff := cmp.Diff(want.open(), e.placed()); diff != "" {
				t.Errorf("%s: %s (-want +got):\n%s", test.name, args, diff)
			}
			if text := j.output(); strings.Contains(text, "epoll") != (test.says != "") || !strings.Contains(text, test.says) {
				t.Errorf("%s: says %q, want something about %q", test.name, text, test.says)
			}
			if test.name == "missing" {
				e.write(e.path("data"), "0123456789")
			}
		}
	})
}

// TestReplacedByOwn: what the restarter inherited takes the place of a pipe.
func TestReplacedByOwn(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		e := newEnv(t, u)
		talk := program(t, glibc, "callers", "talk")
		p := e.startPiped(talk, "pid")
		p.say("hello", "line 1 was <hello>")
		e.until("it waits for input", func() bool { return sleeping(p.pid()) })
		e.start(streams{}, e.crshim, "checkpoint", "--kill", strconv.Itoa(p.pid()), "-o", "img").ends("exit status 0")
		p.ends("signal: killed")

		e.write(e.path("in"), "again\n")
		for _, how := range []string{"--fd 1=out img", "--fd 1=inherit img 1>out", "--fd 0=in --fd 1=out img </dev/null", "img >out"} {
			e.write(e.path("out"), "")
			in, to := e.pipe()
			j := e.start(streams{In: in}, "sh", "-c", "exec "+e.crshim+" restart "+how)
			_ = in.Close() // the program has it
			if _, err := io.WriteString(to, "again\n"); err != nil && !strings.Contains(how, "--fd 0=") {
				t.Fatal(err)
			}
			if err := to.Close(); err != nil {
				t.Fatal(err)
			}
			j.ends("exit status 0")
			if got := e.read(e.path("out")); got != "line 2 was <again>\n" {
				t.Errorf("restart %s: wrote %q", how, got)
			}
		}
	})
}
