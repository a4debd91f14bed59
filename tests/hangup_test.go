package tests

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestHangup: streams that led to others are given to the program as such whose
// other end is gone, and stay so.
func TestHangup(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		e := newEnv(t, u)
		unixServer, err := net.Listen("unix", e.path("server"))
		if err != nil {
			t.Fatal(err)
		}
		defer unixServer.Close()
		if err := os.Chmod(e.path("server"), 0o777); err != nil {
			t.Fatal(err)
		}
		server, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		_, port, err := net.SplitHostPort(server.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		p := e.startPiped("sh", "-c", fmt.Sprintf("exec %s %s %s %s 7<&0 8>&1 0</dev/null 1>/dev/null",
			program(t, glibc, "callers", "hung"), e.dir, port, e.terminalName()))
		e.until("it is there", func() bool { return exists(e.path("ready")) || p.ended() })

		j, pid := p.job, p.pid()
		flags := []string{"--fd", "7=hangup", "--fd", "8=hangup", "--fd", "10=hangup", "--fd", "11=hangup", "--fd", "13=hangup", "--fd", "15=hangup"}
		for n := 1; n <= cycles; n++ {
			e.start(streams{}, e.crshim, "checkpoint", "--external", "--kill", strconv.Itoa(pid), "-o", e.nth("img", n)).ends("exit status 0")
			j.ends("signal: killed")
			if n == 1 {
				e.names(e.nth("img", n), []string{"7 pipe read", "8 pipe write", "10 socket read and write", "15 terminal read and write"})
				refused := e.start(streams{}, append(append([]string{e.crshim, "restart"}, flags...), "--fd", "14=hangup", e.nth("img", n))...)
				refused.ends("exit status 125")
				if text := refused.output(); !strings.Contains(text, "CR2131") || !strings.Contains(text, "fd 14") {
					t.Errorf("refused with %q, want CR2131 for fd 14", text)
				}
			} else {
				flags = []string{"--fd", "15=hangup"} // a terminal is not of the image; all others are now
			}
			j, pid = e.restartTool(n, flags)
		}
		e.write(e.path("go"), "")
		j.ends("exit status 0")
		want := []string{
			"7 end EBADF HUP flags 00",
			"8 EBADF EPIPE SIGPIPE ERR flags 01",
			"10 end EPIPE SIGPIPE HUP flags 04002",
			"11 end EPIPE SIGPIPE HUP flags 02",
			"13 EBADF EPIPE SIGPIPE ERR flags 01",
			"15 end EIO HUP ERR flags 0100002",
			"watched 7 HUP",
			"watched 10 HUP",
		}
		got := strings.Split(strings.TrimSpace(e.read(e.path("report"))), "\n")
		slices.Sort(got[len(got)-2:]) // the kernel may tell of the one or the other first
		slices.Sort(want[len(want)-2:])
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// names looks which descriptors verify and inspect say that --fd has to be about.
func (e *env) names(image string, want []string) {
	e.Helper()
	for _, verb := range []string{"verify", "inspect"} {
		out, err := exec.Command(e.crshim, verb, "--json", image).Output()
		if err != nil {
			e.Fatalf("%s: %v", verb, err)
		}
		var report struct {
			Outside []struct {
				FD           int
				What, Access string
				Say          []string `json:"say_fd"`
			}
		}
		if err := json.Unmarshal(out, &report); err != nil {
			e.Fatalf("%s: %v", verb, err)
		}
		var got []string
		for _, o := range report.Outside {
			if len(o.Say) > 0 {
				got = append(got, fmt.Sprintf("%d %s %s", o.FD, o.What, o.Access))
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			e.Errorf("%s (-want +got):\n%s", verb, diff)
		}
		text, err := exec.Command(e.crshim, verb, image).Output()
		if err != nil {
			e.Fatalf("%s: %v", verb, err)
		}
		for _, line := range []string{"crshim restart --fd 7=inherit|null|hangup|close|PATH", " TCP connection "} {
			if !strings.Contains(string(text), line) {
				e.Errorf("%s: %q is missing from:\n%s", verb, line, text)
			}
		}
	}
}

// terminalName makes a terminal that the test's user may open.
func (e *env) terminalName() string {
	e.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		e.Skipf("needs: pseudo-terminals: %v", err)
	}
	e.Cleanup(func() { _ = master.Close() })
	var n int
	if err := control(master, func(fd int) (err error) {
		if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err == nil {
			n, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		}
		return err
	}); err != nil {
		e.Fatal(err)
	}
	name := fmt.Sprintf("/dev/pts/%d", n)
	if err := os.Chown(name, e.user.id, -1); err != nil {
		e.Fatal(err)
	}
	return name
}
