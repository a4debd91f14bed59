package tests

import (
	"strconv"
	"strings"
	"testing"
)

// TestTerminal: a program that waits for input on its terminal comes back on
// the terminal where it is restarted, and the read goes on.
func TestTerminal(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		e := newEnv(t, u)
		rstr := mustSamples(t).path("rstr")
		talk := program(t, glibc, "callers", "talk")

		// The original, in an interactive shell.
		first := e.openTerminal(e.crshim, "run", "sh", "-i")
		first.expect(`\$ `)
		first.send(talk + " pid\n")
		first.send("hello\n")
		first.expect(`line 1 was <hello>`)
		pid, err := strconv.Atoi(strings.TrimSpace(e.read(e.path("pid"))))
		if err != nil {
			t.Fatal(err)
		}
		e.until("it waits for input", func() bool { return sleeping(pid) })
		e.start(streams{}, e.crshim, "checkpoint", strconv.Itoa(pid), "-o", "img").ends("exit status 0")
		first.send("more\n")
		first.expect(`line 2 was <more>`)
		first.press("\x03")
		if got := first.status(); got != "130" {
			t.Errorf("the interrupted original ended as %s", got)
		}

		// In place of rstr, in the same shell.
		first.send(rstr + " < img\n")
		e.until("rstr has become talk", func() bool {
			for _, p := range descendants(first.pid()) {
				if p.comm == "talk" && sleeping(p.pid) {
					return true
				}
			}
			return false
		})
		first.send("again\n")
		first.expect(`line 2 was <again>`)
		first.press("\x04")
		if got := first.status(); got != "0" {
			t.Errorf("the restarted program ended as %s at the end of its input:\n%s", got, first.text())
		}
		first.send("exit\n")
		first.ends("exit status 0")

		// By the tool, on another terminal.
		second := e.openTerminal(e.crshim, "restart", "img")
		e.until("the tool has made it", func() bool {
			for _, p := range descendants(second.pid()) {
				if p.comm == "talk" && sleeping(p.pid) {
					return true
				}
			}
			return false
		})
		second.send("elsewhere\n")
		second.expect(`line 2 was <elsewhere>`)
		second.send("\x04")
		second.ends("exit status 0")
	})
}
