package tests

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	ctrlC = "\x03"
	ctrlZ = "\x1a"
)

// resize makes the window another one.
func (t *terminal) resize(rows, columns uint16) {
	t.Helper()
	if err := control(t.master, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	}); err != nil {
		t.Fatal(err)
	}
}

// leaves saves and kills a process on the terminal, with all below it.
func (t *terminal) leaves(pid int) (image string) {
	t.Helper()
	image = t.path("img")
	t.start(streams{}, t.crshim, "checkpoint", "--kill", strconv.Itoa(pid), "-o", image).ends("exit status 0")
	t.buriedAll(image)
	return image
}

// withJobs makes a shell with a job in the background, one that is stopped, and
// one in the foreground.
func (t *terminal) withJobs() {
	t.Helper()
	t.send("PS1='in''> '\n")
	t.expect(`in> $`)
	t.send("sleep 1000 &\n")
	t.expect(`\[1\] \d+`)
	t.send("sleep 2000\n")
	t.until("the second job runs", func() bool { return t.foreground("sleep") })
	t.send(ctrlZ)
	t.expect(`Stopped +sleep 2000`)
	t.send("cat\n")
	t.until("the third job runs", func() bool { return t.foreground("cat") })
	t.send("one\n")
	t.expect(`one\r\none\r\n`)
}

// foreground tells whether a process of that name is alone in the foreground.
func (t *terminal) foreground(name string) bool {
	t.Helper()
	var group int
	if err := control(t.master, func(fd int) (err error) {
		group, err = unix.IoctlGetInt(fd, unix.TIOCGPGRP)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	p, ok := lookup(group)
	return ok && p.comm == name
}

// useJobs looks whether the shell still knows them.
func (t *terminal) useJobs() {
	t.Helper()
	t.send("two\n")
	t.expect(`two\r\ntwo\r\n`)
	t.send(ctrlC)
	t.expect(`in> $`)
	t.send("jobs\n")
	t.expect(`\[1\]. +Running +sleep 1000`)
	t.expect(`\[2\]. +Stopped +sleep 2000`)
	t.send("fg %2\n")
	t.until("the stopped job goes on", func() bool { return t.foreground("sleep") })
	t.send(ctrlZ)
	t.expect(`Stopped +sleep 2000`)
	t.send("kill %1 %2; wait; echo 'wai'ted\n")
	t.expect(`waited`)
	t.send("sh -c 'exit 3'; echo 'sta'tus=$?\n")
	t.expect(`status=3`)
	t.expect(`in> $`)
}

// TestTerminalShell: an interactive shell goes on with its jobs on another
// terminal, as a job of the shell there.
func TestTerminalShell(t *testing.T) {
	bash := installed(t, "bash")
	needsNumbers(t)
	e := newEnv(t, users()[0])
	first := e.openTerminal(bash, "--norc", "--noprofile", "-i")
	first.expect(`\$ `)
	first.withJobs()
	image := first.leaves(first.pid())

	second := e.openTerminal(bash, "--norc", "--noprofile", "-i")
	second.expect(`\$ `)
	second.resize(31, 117)
	second.send(e.crshim + " restart --pids keep " + image + "\n")
	second.until("cat has the terminal", func() bool { return second.foreground("cat") })
	second.useJobs()
	second.send("stty size\n")
	second.expect(`31 117`)
	// It stops, and goes on in the foreground.
	second.send("suspend\n")
	second.expect(`Stopped .* restart`)
	second.expect(`\$ $`)
	second.send("fg\n")
	second.expect(`restart --pids keep`)
	second.expect(`in> $`)
	second.send("echo ba'ck'\n")
	second.expect(`back\r\n`)
	second.send("exit 7\n")
	if got := second.status(); got != "7" {
		t.Errorf("the shell ended as %s, want 7", got)
	}
	second.send("exit\n")
	second.ends("exit status 0")
}

// TestTerminalContainer: so does one in a container, of which the tool is all
// that the terminal has.
func TestTerminalContainer(t *testing.T) {
	bash := installed(t, "bash")
	eachUser(t, func(t *testing.T, u user) {
		e := newEnv(t, u)
		if j := e.start(streams{}, e.crshim, "run", "--container", "true"); j.end() != "exit status 0" {
			t.Skip("needs: namespaces:", j.output())
		}
		name := "terminal-" + strconv.Itoa(os.Getpid()) + "-" + u.name
		first := e.openTerminal(e.crshim, "run", "--container", "--name", name, bash, "--norc", "--noprofile", "-i")
		first.expect(`\$ `)
		first.withJobs()
		image := e.path("img")
		e.start(streams{}, e.crshim, "checkpoint", "--kill", name, "-o", image).ends("exit status 0")
		first.ends("signal: killed")

		second := e.openTerminal(e.crshim, "restart", "--name", name+"-again", image)
		second.until("cat has the terminal", func() bool { return second.foreground("cat") })
		second.useJobs()
		second.send("exit 7\n")
		second.ends("exit status 7")
	})
}

// editor is vim, under the name of one of the packages that have it.
func editor(t *testing.T) string {
	t.Helper()
	const tiny = "/usr/bin/vim.tiny"
	if exists(tiny) {
		return tiny
	}
	return installed(t, "vim")
}

// TestTerminalFullScreen: programs that draw on the whole screen do so again, in
// a window of another size, and the terminal is afterwards as it was.
func TestTerminalFullScreen(t *testing.T) {
	for _, p := range []struct {
		name  string
		args  []string
		ready string // it has drawn
		begin string // is typed before
		again string // how it draws in a window of 9 lines
		end   string // ends it
		want  string // what is in the file "text" then
	}{
		{"vim", []string{"-u", "NONE", "-N", "-i", "NONE", "-n", "text"}, `line 20`, "ionce ", `line 8\W`, " more \x1b:wq\n", "once  more line 1\n"},
		{"less", []string{"text"}, `line 20`, "", `line 8\s`, "q", "line 1\n"},
		{"top", []string{"-d", "600"}, `load average`, "", `load average`, "q", "line 1\n"},
	} {
		t.Run(p.name, func(t *testing.T) {
			program := ""
			if p.name == "vim" {
				program = editor(t)
			} else {
				program = installed(t, p.name)
			}
			eachUser(t, func(t *testing.T, u user) {
				e := newEnv(t, u)
				var text strings.Builder
				for i := range 100 {
					text.WriteString("line " + strconv.Itoa(i+1) + "\n")
				}
				e.write(e.path("text"), text.String())
				first := e.openTerminal(append([]string{"env", "TERM=xterm", program}, p.args...)...)
				first.expect(p.ready)
				first.send(p.begin)
				first.expect(strings.TrimPrefix(p.begin, "i"))
				e.until("it has read what was typed", func() bool { return sleeping(first.pid()) })
				image := first.leaves(first.pid())

				second := e.openTerminal("sh", "-c", "stty cols 60 rows 9; "+e.crshim+" restart "+image+"; echo sta'tus'=$?; stty -a")
				second.expect(p.again)
				second.send(p.end)
				second.expect(`status=0`)
				second.expect(`[^-]icanon`)
				second.ends("exit status 0")
				if got := e.read(e.path("text")); !strings.HasPrefix(got, p.want) {
					t.Errorf("the file begins with %.20q, want %q", got, p.want)
				}

				// Killed, it cannot put the terminal in order.
				third := e.openTerminal("sh", "-c", e.crshim+" restart --pidfile pid "+image+"; echo sta'tus'=$?; stty -a")
				third.expect(p.ready)
				e.signal(e.pidIn(third.job, e.path("pid")), unix.SIGKILL)
				third.expect(`status=137`)
				third.expect(`[^-]icanon`)
				third.ends("exit status 0")
			})
		})
	}
}

// TestTerminalTmux: the server comes back with what runs in its windows, and a
// client attaches to it and goes on.
func TestTerminalTmux(t *testing.T) {
	tmux, vim := installed(t, "tmux"), editor(t)
	needsNumbers(t)
	e := newEnv(t, users()[0])
	socket := e.path("socket")
	call := func(args ...string) string {
		t.Helper()
		j := e.start(streams{}, append([]string{tmux, "-S", socket, "-f", "/dev/null"}, args...)...)
		j.ends("exit status 0")
		return j.output()
	}
	s := startServer(e, tmux, "-S", socket, "-f", "/dev/null", "-D")
	e.until("the server is there", func() bool { s.running(); return exists(socket) })
	call("new-session", "-d", "-x", "80", "-y", "24", vim+" -u NONE -N -i NONE text")
	call("new-window", "-d", "less /etc/passwd")
	shows := func(window, pattern string) {
		t.Helper()
		re := regexp.MustCompile(pattern)
		e.until("window "+window+" shows "+pattern, func() bool { return re.MatchString(call("capture-pane", "-p", "-t", window)) })
	}
	shows(":0", `text`)
	shows(":1", `root:`)
	call("send-keys", "-t", ":0", "i0")
	for n := 1; n <= cycles; n++ {
		shows(":0", `^0`+strings.Repeat("1", n-1))
		s.again(n)
		call("send-keys", "-t", ":0", "1")
	}
	client := e.openTerminal("env", "TERM=xterm", tmux, "-S", socket, "attach")
	client.expect(`0111`)
	// One thing after the other: an escape that something follows at once is a key of its own to tmux and vim.
	client.send("2")
	shows(":0", `^01112`)
	client.send("\x1b")
	e.until("vim is in command mode", func() bool { return !strings.Contains(call("capture-pane", "-p", "-t", ":0"), "INSERT") })
	client.send(":wq\r")
	e.until("vim has written", func() bool { return exists(e.path("text")) && e.read(e.path("text")) == "01112\n" })
	shows(":1", `root:`)
	client.expect(`root:`) // the other window takes its place
	client.send("q")
	client.expect(`\[exited\]`)
	client.ends("exit status 0")
}

// TestTerminalInterrupt: a key that ends the program ends the script that has
// restarted it, though the program is in a process group of its own.
func TestTerminalInterrupt(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		e := newEnv(t, u)
		first := e.openTerminal("cat")
		first.send("one\n")
		first.expect(`one\r\none\r\n`)
		image := first.leaves(first.pid())
		second := e.openTerminal("sh", "-c", e.crshim+" restart "+image+"; echo 'not''reached'")
		second.until("cat has the terminal", func() bool { return second.foreground("cat") })
		second.send("two\n")
		second.expect(`two\r\ntwo\r\n`)
		second.send(ctrlC)
		second.ends("signal: interrupt")
	})
}

// TestTerminalGroup: who was in the process group of the first process has the
// terminal with it.
func TestTerminalGroup(t *testing.T) {
	e := newEnv(t, users()[0])
	first := e.openTerminal("sh", "-c", "cat; echo 'ca''t' has ended")
	first.send("one\n")
	first.expect(`one\r\none\r\n`)
	image := first.leaves(first.pid())
	second := e.openTerminal("sh", "-c", e.crshim+" restart "+image+"; echo the rest")
	second.until("the shell has the terminal", func() bool { return second.foreground("sh") })
	second.send("two\n")
	second.expect(`two\r\ntwo\r\n`)
	second.send("\x04")
	second.expect(`cat has ended\r\nthe rest`)
	second.ends("exit status 0")
}
