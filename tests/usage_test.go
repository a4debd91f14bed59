package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The walk-through of the 2009 documentation, line by line, with the programs
// of 2009 where a saved copy of their mail is at hand, and with our own.

// defaultOutput is where the programs of 2009 write, always.
const defaultOutput = "/tmp/cr-test.out"

// usage is one run of the walk-through.
type usage struct {
	*env
	samples samples
	out     string   // the counting program's file
	args    string   // its arguments
	in      []string // flags of a container in which it all happens
}

func newUsage(t *testing.T, u user, s samples, plain bool) *usage {
	if plain {
		lockDefaultOutput(t)
	}
	e := newEnv(t, u)
	r := &usage{env: e, samples: s, out: e.path("out"), args: " " + e.path("out") + " 100"}
	if plain {
		r.out, r.args = defaultOutput, ""
		r.forget()
		t.Cleanup(r.forget)
	}
	// As in the documentation, the programs are in the working directory.
	for _, name := range []string{"ckpt", "rstr", "self", "test"} {
		if err := os.Symlink(s.path(name), e.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// lockDefaultOutput keeps other tests off until the test ends, also those of other
// runs on the machine. What is locked is the directory: nothing is left behind.
func lockDefaultOutput(t *testing.T) {
	t.Helper()
	dir, err := os.Open(filepath.Dir(defaultOutput))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() }) // and so unlocked
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
}

func (r *usage) forget() {
	r.Helper()
	r.remove(r.out)
	r.remove(r.out + ".orig")
}

// forEach runs a walk-through with each set of programs and each user.
func forEach(t *testing.T, fn func(*testing.T, *usage)) {
	run := func(name string, build func() (samples, error), plain bool) {
		for _, u := range users() {
			t.Run(name+"/"+u.name, func(t *testing.T) {
				t.Parallel()
				s, err := build()
				if err != nil {
					t.Fatal(err)
				}
				fn(t, newUsage(t, u, s, plain))
			})
		}
	}
	run("ours", ourSamples, false)
	if seedMail() == "" {
		t.Log("no saved copy of the mail of 2009 beside the repository: our own programs take the place of its four")
		run("ours-plain", ourSamples, true)
		return
	}
	run("originals", originalSamples, true)
}

// wait is shell: until FILE holds N numbered lines.
const wait = `
wait_lines() {
	tries=0
	until [ "$(grep -cE '^(count|xxxx) ' "$1" 2>/dev/null)" -ge "$2" ]; do
		tries=$((tries + 1))
		[ $tries -lt 400 ] || { echo "$1 never had $2 lines"; exit 1; }
		sleep 0.05
	done
}
name_of() { cat /proc/$1/comm; ps -o comm= -p $1; }
`

func (r *usage) shell(script string) *job {
	args := append([]string{"env", "XDG_RUNTIME_DIR=" + r.dir, r.crshim, "run"}, r.in...)
	return r.start(streams{}, append(args, "sh", "-c", wait+"OUT="+r.out+"\n"+script)...)
}

// TestUsageExternal: a program is stopped, checkpointed, goes on, and a second
// one comes out of the image beside it.
func TestUsageExternal(t *testing.T) { forEach(t, walkExternal) }

func walkExternal(t *testing.T, r *usage) {
	r.shell(`
			./test` + r.args + ` &
			test=$!
			wait_lines $OUT 2
			kill -STOP $test
			./ckpt $test > ckpt.image || exit 1
			mv $OUT $OUT.orig
			cp $OUT.orig $OUT
			kill -CONT $test
			./rstr < ckpt.image &
			rstr=$!
			wait_lines $OUT.orig 4
			wait_lines $OUT 4
			name_of $rstr > names
			kill -KILL $test $rstr
			wait $test
			echo $? > status
			wait $rstr
			echo $? >> status
		`).ends("exit status 0")
	r.compareExternal(2)
	if got := r.read(r.path("names")); got != "test\ntest\n" {
		t.Errorf("the restarted program is called %q", got)
	}
	if got := r.read(r.path("status")); got != "137\n137\n" {
		t.Errorf("killed programs ended as %q", got)
	}
	if got := r.read(r.path("ckpt.image")); !strings.HasSuffix(got, "checkpoint id 1\n") {
		t.Errorf("the image does not end in ckpt's own line")
	}
}

// TestUsageSelf: a program checkpoints itself; the lines that the restarted
// one writes can be told from those before.
func TestUsageSelf(t *testing.T) { forEach(t, walkSelf) }

func walkSelf(t *testing.T, r *usage) {
	r.shell(`
			./self` + r.args + ` > self.image &
			self=$!
			wait_lines $OUT 4
			mv $OUT $OUT.orig
			cp $OUT.orig $OUT
			sed -i 's/count/xxxx/g' $OUT
			./rstr < self.image &
			rstr=$!
			wait_lines $OUT.orig 6
			wait_lines $OUT 6
			name_of $rstr > names
			kill -KILL $self $rstr
			wait $self $rstr
			true
		`).ends("exit status 0")
	r.compareSelf()
	if got := r.read(r.path("names")); got != "self\nself\n" {
		t.Errorf("the restarted program is called %q", got)
	}
}

// TestUsageInteractive is the same at the prompt of an interactive shell, on
// a terminal, with the restarted program in the foreground and Ctrl-C.
func TestUsageInteractive(t *testing.T) {
	forEach(t, func(t *testing.T, r *usage) {
		s := r.openTerminal(r.crshim, "run", "sh", "-i")
		s.expect(`\$ `)
		s.send("./test" + r.args + " &\n")
		s.send("echo 'pi'd=$!\n")
		test, err := strconv.Atoi(s.expect(`pid=(\d+)`))
		if err != nil {
			t.Fatal(err)
		}
		r.lines(r.out, 2)
		s.run(fmt.Sprintf("kill -STOP %d", test))
		if got := s.run(fmt.Sprintf("./ckpt %d > ckpt.image", test)); got != "0" {
			t.Fatalf("ckpt ended as %s:\n%s", got, s.text())
		}
		if got := s.run(fmt.Sprintf("mv %[1]s %[1]s.orig; cp %[1]s.orig %[1]s", r.out)); got != "0" {
			t.Fatalf("mv or cp ended as %s:\n%s", got, s.text())
		}
		if state, ok := lookup(test); !ok || state.state != "T" {
			t.Fatalf("the stopped program is in state %q after the checkpoint", state.state)
		}
		s.run(fmt.Sprintf("kill -CONT %d", test))

		s.send("./rstr < ckpt.image\n")
		r.lines(r.out+".orig", 4)
		r.lines(r.out, 4)
		s.press("\x03")
		if got := s.status(); got != "130" {
			t.Errorf("interrupted program ended as %s:\n%s", got, s.text())
		}
		r.compareExternal(2)

		// Ctrl-Z and the shell's own words work on a restarted program.
		s.send("./rstr < ckpt.image\n")
		r.until("the restarted program rests", func() bool {
			for _, p := range descendants(s.pid()) {
				if p.comm == "test" && p.pid != test && sleeping(p.pid) {
					return true
				}
			}
			return false
		})
		s.press("\x1a")
		if got := s.status(); got != "148" {
			t.Errorf("stopped program gave %s:\n%s", got, s.text())
		}
		s.run("kill -KILL %2")
		s.run("kill -KILL %1")
		s.send("exit\n")
		s.send("exit\n") // "you have stopped jobs" may come first
		s.end()
	})
}

// count is the number of counted lines in a file.
func (r *usage) count(name string) int {
	text, err := os.ReadFile(name)
	if err != nil {
		return 0
	}
	return len(regexp.MustCompile(`(?m)^(count|xxxx) `).FindAll(text, -1))
}

func (r *usage) lines(name string, n int) {
	r.Helper()
	r.until(fmt.Sprintf("%s has %d lines", name, n), func() bool { return r.count(name) >= n })
}

// both returns the lines of the original's and the restarted program's file,
// as many as both have whole.
func (r *usage) both() (orig, restarted []string) {
	r.Helper()
	whole := func(name string) []string {
		lines := strings.Split(r.read(name), "\n")
		return lines[:len(lines)-1]
	}
	orig, restarted = whole(r.out+".orig"), whole(r.out)
	n := min(len(orig), len(restarted))
	return orig[:n], restarted[:n]
}

// compareExternal: both files agree, number by number, beyond the point.
func (r *usage) compareExternal(point int) {
	r.Helper()
	orig, restarted := r.both()
	if len(orig) < point+2 {
		r.Fatalf("only %d lines to compare", len(orig))
	}
	for i := range orig {
		if orig[i] != restarted[i] {
			r.Errorf("line %d: original %q, restarted %q", i+1, orig[i], restarted[i])
		}
	}
}

// compareSelf: the same, but for what checkpoint() returned, and with what
// was there before the restart marked by sed.
func (r *usage) compareSelf() {
	r.Helper()
	orig, restarted := r.both()
	marked, fresh := 0, 0
	for i := range orig {
		switch {
		case strings.HasPrefix(orig[i], "checkpoint ret: "):
			// "xxxx" is shorter than "count": the restarted program writes at its
			// old offset, three bytes further in the shortened file.
			if orig[i] != "checkpoint ret: 1" || restarted[i] != "checheckpoint ret: 0" {
				r.Errorf("original %q, restarted %q", orig[i], restarted[i])
			}
			continue
		case strings.HasPrefix(restarted[i], "xxxx "):
			marked++
		case strings.HasPrefix(restarted[i], "count "):
			fresh++
		}
		if orig[i] != strings.Replace(restarted[i], "xxxx", "count", 1) {
			r.Errorf("line %d: original %q, restarted %q", i+1, orig[i], restarted[i])
		}
	}
	if marked != 3 || fresh < 2 {
		r.Errorf("%d lines from before the restart, %d after:\n%s", marked, fresh, strings.Join(restarted, "\n"))
	}
}

// TestUsageStopped: a target that was stopped is stopped afterwards, one that
// ran runs on.
func TestUsageStopped(t *testing.T) {
	for _, u := range users() {
		t.Run(u.name, func(t *testing.T) {
			t.Parallel()
			r := newUsage(t, u, mustSamples(t), false)
			test := r.start(streams{}, r.crshim, "run", "sh", "-c", "exec ./test"+r.args)
			r.lines(r.out, 1)
			var pid int
			for _, p := range descendants(test.pid()) {
				if p.comm == "test" {
					pid = p.pid
				}
			}
			if pid == 0 {
				t.Fatal("no test below crshim run:", descendants(test.pid()))
			}
			r.signal(pid, unix.SIGSTOP)
			r.until("stopped", func() bool { p, ok := lookup(pid); return ok && p.state == "T" })
			r.start(streams{}, r.crshim, "checkpoint", strconv.Itoa(pid), "-o", "img").ends("exit status 0")
			if p, _ := lookup(pid); p.state != "T" {
				t.Errorf("state %q after the checkpoint of a stopped program", p.state)
			}
			r.signal(pid, unix.SIGCONT)
			n := r.count(r.out)
			r.lines(r.out, n+1)
			r.start(streams{}, r.crshim, "checkpoint", strconv.Itoa(pid), "-o", "img").ends("exit status 0")
			n = r.count(r.out)
			r.lines(r.out, n+1)
			r.signal(pid, unix.SIGKILL)
			test.ends("signal: killed")
		})
	}
}
