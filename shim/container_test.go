package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// containerUsers are those as whom a container is tried.
func containerUsers() []int {
	if os.Geteuid() != 0 {
		return []int{os.Geteuid()}
	}
	return []int{0, 65534}
}

// eachContainerUser runs a test as root, who needs no user namespace, and as a user who does.
func eachContainerUser(t *testing.T, test func(t *testing.T, as *containerUser)) {
	for _, uid := range containerUsers() {
		t.Run(strconv.Itoa(uid), func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("", "crshim-container-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			if err := os.Chown(dir, uid, uid); err != nil {
				t.Fatal(err)
			}
			if uid != 0 && askUserNamespace().answer != yes {
				t.Skip("needs: user namespaces")
			}
			if uid == 0 && askCapability(unix.CAP_SYS_ADMIN).answer != yes {
				t.Skip("needs: CAP_SYS_ADMIN")
			}
			test(t, &containerUser{t, uid, dir})
		})
	}
}

// containerUser runs crshim as somebody, with a registry of his own.
type containerUser struct {
	t   *testing.T
	uid int
	dir string
}

func (u *containerUser) crshim(args ...string) *exec.Cmd {
	cmd := exec.Command(testProgram(u.t, "crshim.test"), args...)
	cmd.Env = append(os.Environ(), mainEnv, "XDG_RUNTIME_DIR="+u.dir)
	cmd.Dir = u.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if u.uid != os.Geteuid() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(u.uid), Gid: uint32(u.uid)}
	}
	return cmd
}

// run runs a container to its end.
func (u *containerUser) run(args ...string) (out string, status syscall.WaitStatus) {
	u.t.Helper()
	text, err := u.crshim(append([]string{"run", "--container"}, args...)...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		u.t.Fatal(err)
	}
	if exit != nil {
		status = exit.Sys().(syscall.WaitStatus)
	}
	return string(text), status
}

// expect runs one that ends with status 0, and wants its output to match.
func (u *containerUser) expect(pattern string, args ...string) {
	u.t.Helper()
	out, status := u.run(args...)
	if status != 0 || !regexp.MustCompile(`^(?:`+pattern+`)$`).MatchString(out) {
		u.t.Errorf("%q: status %#x, output %q, want %q", args, status, out, pattern)
	}
}

// listed is what crshim ps says.
func (u *containerUser) listed() []psEntry {
	u.t.Helper()
	out, err := u.crshim("ps", "--json").Output()
	if err != nil {
		u.t.Fatal(err)
	}
	var r psReport
	if err := json.Unmarshal(out, &r); err != nil {
		u.t.Fatalf("%v: %s", err, out)
	}
	return r.Containers
}

// startNamed starts a container that says "ready" and returns what is listed of it.
func (u *containerUser) startNamed(name string, args ...string) (*job, psEntry) {
	u.t.Helper()
	j := startJob(u.t, u.crshim(append([]string{"run", "--container", "--name", name}, args...)...))
	u.t.Cleanup(func() {
		_ = j.cmd.Process.Signal(unix.SIGKILL)
		for _, e := range u.listed() {
			if e.Name == name {
				_ = unix.Kill(e.PID, unix.SIGKILL)
				awaitEnd(u.t, e.PID)
			}
		}
	})
	if got := j.line(); got != "ready" {
		u.t.Fatalf("%q; standard error: %s", got, j.stderr.String())
	}
	for _, e := range u.listed() {
		if e.Name == name {
			return j, e
		}
	}
	u.t.Fatalf("%s is not listed", name)
	return nil, psEntry{}
}

// TestContainerView looks at a container from within.
func TestContainerView(t *testing.T) {
	t.Parallel()
	eachContainerUser(t, func(t *testing.T, u *containerUser) {
		u.expect("2 1\n", "sh", "-c", `echo $$ $PPID`)
		u.expect("1\n", "--init", "none", "sh", "-c", `echo $$`)
		// Nobody else is there.
		u.expect("/proc/1 /proc/2\n", "sh", "-c", `echo /proc/[0-9]*`)
		// The init is as small as can be, and waits.
		u.expect("init\n3\n.*rt_sigtimedwait\n|init\n3\n128 .*\n", "sh", "-c", `cat /proc/1/comm; ls /proc/1/fd; cat /proc/1/syscall`)
		u.expect("elsewhere\n", "--hostname", "elsewhere", "hostname")
		host, err := os.Hostname()
		if err != nil {
			t.Fatal(err)
		}
		if host == "elsewhere" {
			t.Error("the host has got the host name of the container")
		}
		u.expect(regexp.QuoteMeta(host)+"\n", "hostname")
		u.expect("0\n", "id", "-u")
		u.expect(fmt.Sprintf("%d\n", u.uid), "--user", "keep", "id", "-u")
		u.expect("lo\n0\n", "--net", "none", "sh", "-c", netProbe)
		u.expect("lo\n1\n", "--net", "loopback", "sh", "-c", netProbe)
		u.expect("lo\n1\n", "--net", "loopback", "--user", "keep", "sh", "-c", netProbe)
		// Every namespace that was asked for is another one, and no other is.
		all := []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"}
		for _, test := range []struct {
			args []string
			more []string
		}{
			{nil, nil},
			{[]string{"--net", "none", "--cgroupns", "--timens", "--user", "root"}, []string{"net", "cgroup", "time", "user"}},
		} {
			want := append([]string{"ipc", "mnt", "pid", "uts"}, test.more...)
			if u.uid != 0 && !slices.Contains(want, "user") {
				want = append(want, "user")
			}
			out, status := u.run(append(test.args, "sh", "-c", "for n in "+strings.Join(all, " ")+"; do readlink /proc/self/ns/$n; done")...)
			if status != 0 {
				t.Fatalf("status %#x: %s", status, out)
			}
			for i, line := range strings.Fields(out) {
				ours, err := os.Readlink("/proc/self/ns/" + all[i])
				if err != nil {
					t.Fatal(err)
				}
				if other := ours != line; other != slices.Contains(want, all[i]) {
					t.Errorf("%v: namespace %s is another one: %v", test.args, all[i], other)
				}
			}
		}
		// What an ordinary user may do is what he could do before.
		if u.uid != 0 {
			u.expect("CapEff:\t0{16}\nCapAmb:\t0{16}\nNoNewPrivs:\t1\n", "--user", "keep", "grep", "-E", "CapEff|CapAmb|NoNewPrivs", "/proc/self/status")
			u.expect("CapEff:\t0*1ff[0-9a-f]+\n", "--user", "keep", "grep", "CapEff", "/proc/1/status") // the init sees what is in the namespaces
		}
	})
}

// netProbe prints the interfaces, and 1 if lo has its address.
const netProbe = `tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '; grep -q 127.0.0.1 /proc/net/fib_trie && echo 1 || echo 0`

// TestContainerEnd compares the end of a container with that of its command.
func TestContainerEnd(t *testing.T) {
	t.Parallel()
	eachContainerUser(t, func(t *testing.T, u *containerUser) {
		for _, test := range []struct {
			args   []string
			status int // -signal for death by a signal
			says   string
		}{
			{args: []string{"true"}},
			{args: []string{"--", "sh", "-c", "exit 7"}, status: 7},
			{args: []string{"sh", "-c", "exit 255"}, status: 255},
			{args: []string{"--init", "none", "sh", "-c", "exit 7"}, status: 7},
			// Distinct from an exit with 128 and the number.
			{args: []string{"sh", "-c", "exit 143"}, status: 143},
			{args: []string{"sh", "-c", "kill -TERM $$"}, status: -int(unix.SIGTERM)},
			{args: []string{"sh", "-c", "kill -KILL $$"}, status: -int(unix.SIGKILL)},
			{args: []string{"sh", "-c", "ulimit -c 0; kill -SEGV $$"}, status: -int(unix.SIGSEGV)},
			// The init passes signals on.
			{args: []string{"sh", "-c", "trap 'exit 5' TERM; kill -TERM 1; while :; do sleep 0.01; done"}, status: 5},
			// What CMD leaves behind ends with it.
			{args: []string{"sh", "-c", "sleep 1000 & exit 3"}, status: 3},
			{args: []string{"no-such-command"}, status: 127, says: "CR5001"},
			{args: []string{"/etc/passwd"}, status: 126, says: "CR5002"},
			{args: []string{"--net=some", "true"}, status: 125, says: "--net"},
			{args: []string{"--user=some", "true"}, status: 125, says: "--user"},
			{args: []string{"--init=some", "true"}, status: 125, says: "--init"},
			{args: []string{"--name=12", "true"}, status: 125, says: "--name"},
			{args: []string{"--name=../x", "true"}, status: 125, says: "--name"},
			{args: []string{"--bind=/usr", "true"}, status: 125, says: "--bind"},
			{args: []string{"--bind=/usr:usr", "true"}, status: 125, says: "--bind"},
			{args: []string{"--bind=/usr:/", "true"}, status: 125, says: "--bind"},
			{args: []string{"--bind=/usr:/no/such/place", "true"}, status: 125, says: "CR3104 cannot mount /no/such/place"},
			{args: []string{"--rootfs=/no/such/root", "true"}, status: 125, says: "CR3106 cannot use /no/such/root"},
			{args: []string{"--rootfs=/usr", "true"}, status: 125, says: "CR3106 cannot use /usr"},
			{args: []string{"--hostname=" + strings.Repeat("x", 65), "true"}, status: 125, says: "--hostname"},
		} {
			out, ws := u.run(test.args...)
			status := ws.ExitStatus()
			if ws.Signaled() {
				status = -int(ws.Signal())
			}
			if status != test.status || !strings.Contains(out, test.says) || test.says == "" && out != "" {
				t.Errorf("%v: status %d, want %d; output %q, want %q", test.args, status, test.status, out, test.says)
			}
		}
		if left := u.listed(); len(left) != 0 {
			t.Errorf("listed: %+v", left)
		}
		if files, err := os.ReadDir(filepath.Join(u.dir, "crshim")); err != nil || len(files) != 0 {
			t.Errorf("left in the registry: %v, %v", files, err)
		}
	})
	out, err := crshim("run", "--net", "none", "true").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "--net needs --container") {
		t.Errorf("--net alone: %v: %s", err, out)
	}
}

// TestContainerReaps makes orphans and looks for zombies among them.
func TestContainerReaps(t *testing.T) {
	t.Parallel()
	eachContainerUser(t, func(t *testing.T, u *containerUser) {
		// Each orphan says so when the init has adopted it, and ends.
		orphan := filepath.Join(u.dir, "orphan")
		if err := os.WriteFile(orphan, []byte(`while [ "$(cut -d" " -f4 /proc/$$/stat)" != 1 ]; do :; done; echo adopted`), 0o644); err != nil {
			t.Fatal(err)
		}
		u.expect("(adopted\n){20}0\n", "sh", "-c", `
			for i in $(seq 20); do
				sh -c 'sh "$0" &' "$0"
			done
			while [ "$(ls /proc | grep -c "^[0-9]*$")" -gt 5 ]; do sleep 0.01; done
			grep -l "^State:.Z" /proc/[0-9]*/status 2>/dev/null | wc -l`, orphan)
	})
}

// TestContainerSignals sends signals to the front and to the init.
func TestContainerSignals(t *testing.T) {
	t.Parallel()
	eachContainerUser(t, func(t *testing.T, u *containerUser) {
		cmd := u.crshim("run", "--container", "--name", "signals", callerProgram(t), "signals")
		cmd.SysProcAttr.Setsid = true
		j := startJob(t, cmd)
		if got := j.line(); got != "ready" {
			t.Fatal(got, j.stderr.String())
		}
		init := u.listed()[0].PID
		for _, sig := range []syscall.Signal{unix.SIGUSR1, unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGTSTP} {
			kill(t, j.pid(), sig)
		}
		for line := j.line(); line != "1 1 1 1 1"; line = j.line() {
			if strings.Contains(line, "2") {
				t.Fatalf("CMD counted %q, want each once", line)
			}
		}
		kill(t, init, unix.SIGUSR1)
		if line := j.line(); line != "2 1 1 1 1" {
			t.Errorf("CMD counted %q after a signal to the init", line)
		}
		kill(t, init, unix.SIGUSR2)
		j.rest()
		if status := j.wait(); status != 0 {
			t.Errorf("status %#x", status)
		}
	})
}

// TestContainerStops stops and continues CMD, whose parent is the init; the front follows by the same signal.
func TestContainerStops(t *testing.T) {
	t.Parallel()
	eachContainerUser(t, func(t *testing.T, u *containerUser) {
		cmd := u.crshim("run", "--container", "--name", "stops", "sh", "-c", "echo ready; read line; exit 4")
		cmd.SysProcAttr.Setpgid = true
		input, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		j := startJob(t, cmd)
		j.line()
		command := u.listed()[0].Command
		for _, sig := range []syscall.Signal{unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN} {
			for range 5 {
				kill(t, command, sig)
				if status := j.wait(); !status.Stopped() || status.StopSignal() != sig {
					t.Fatalf("status %#x, want stopped by %v", status, sig)
				}
				kill(t, command, unix.SIGCONT)
				if status := j.wait(); !status.Continued() {
					t.Fatalf("status %#x, want continued", status)
				}
			}
		}
		// The front alone is continued: CMD is, too.
		kill(t, command, unix.SIGSTOP)
		j.wait()
		kill(t, j.pid(), unix.SIGCONT)
		j.wait()
		if err := input.Close(); err != nil {
			t.Fatal(err)
		}
		status := j.wait()
		for status.Stopped() || status.Continued() {
			status = j.wait()
		}
		if status.ExitStatus() != 4 {
			t.Errorf("status %#x, want exit 4; standard error %q", status, j.stderr.String())
		}
	})
}

// TestContainerKilled kills each process that a container rests on; nothing is left of it.
func TestContainerKilled(t *testing.T) {
	t.Parallel()
	eachContainerUser(t, func(t *testing.T, u *containerUser) {
		for _, victim := range []string{"supervisor", "parent", "init", "command"} {
			for _, init := range []string{"own", "none"} {
				j, entry := u.startNamed("killed", "--init", init, "sh", "-c", "sleep 1000 & echo ready; wait")
				supervisor := j.onlyChild(j.pid())
				parent := j.onlyChild(supervisor)
				sleeper := j.onlyChild(entry.Command)
				if init == "own" && (j.onlyChild(parent) != entry.PID || j.onlyChild(entry.PID) != entry.Command) {
					t.Fatalf("the parent of %d is not %d", entry.Command, entry.PID)
				}
				kill(t, map[string]int{"supervisor": supervisor, "parent": parent, "init": entry.PID, "command": entry.Command}[victim], unix.SIGKILL)
				j.rest()
				status := j.wait()
				if victim != "parent" && (!status.Signaled() || status.Signal() != unix.SIGKILL) {
					t.Errorf("%s killed, init %s: status %#x", victim, init, status)
				}
				if victim == "supervisor" {
					// What it wrote is copied to us by and by.
					for deadline := time.Now().Add(patience); !strings.Contains(j.stderr.String(), "CR3108"); time.Sleep(time.Millisecond) {
						if time.Now().After(deadline) {
							t.Fatalf("supervisor killed: %q lacks CR3108", j.stderr.String())
						}
					}
				}
				for _, pid := range []int{supervisor, parent, entry.PID, entry.Command, sleeper} {
					awaitEnd(t, pid)
				}
				if left := u.listed(); len(left) != 0 {
					t.Errorf("%s killed: still listed: %+v", victim, left)
				}
			}
		}
	})
}

// TestContainerFrontKilled kills the front: the container goes on, and is listed.
func TestContainerFrontKilled(t *testing.T) {
	t.Parallel()
	eachContainerUser(t, func(t *testing.T, u *containerUser) {
		stop := filepath.Join(u.dir, "stop")
		j, entry := u.startNamed("orphan", callerProgram(t), "loop", stop)
		kill(t, j.pid(), unix.SIGKILL)
		j.wait()
		if left := u.listed(); len(left) != 1 {
			t.Errorf("listed: %+v", left)
		}
		if err := os.WriteFile(stop, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if got := j.rest(); !slices.Equal(got, []string{"0 done"}) {
			t.Errorf("output %q", got)
		}
		awaitEnd(t, entry.PID)
	})
}

// TestContainerNames: a name is taken once, and free again when its container has ended.
func TestContainerNames(t *testing.T) {
	t.Parallel()
	eachContainerUser(t, func(t *testing.T, u *containerUser) {
		for range 2 {
			j, entry := u.startNamed("one", "sh", "-c", "echo ready; sleep 1000", "x y")
			if want := []string{"sh", "-c", "echo ready; sleep 1000", "x y"}; !slices.Equal(entry.Args, want) || entry.State != "running" {
				t.Errorf("listed: %+v", entry)
			}
			out, status := u.run("--name", "one", "true")
			if status.ExitStatus() != statusSelf || !strings.Contains(out, "CR3109") {
				t.Errorf("a second one: status %#x, %q", status, out)
			}
			if out, err := u.crshim("ps").Output(); err != nil || !regexp.MustCompile(`(?m)^NAME .*\none +\d+ +\d+ +running .* sh -c 'echo ready; sleep 1000' 'x y'$`).Match(out) {
				t.Errorf("%v: %q", err, out)
			}
			kill(t, j.pid(), unix.SIGTERM)
			j.wait()
		}
		out, err := u.crshim("checkpoint", "-o", "img", "one").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "CR3110 cannot find one") {
			t.Errorf("checkpoint of what has ended: %v: %s", err, out)
		}
	})
}

// TestContainerTransparent compares what CMD inherits in a container with what it inherits without one.
func TestContainerTransparent(t *testing.T) {
	t.Parallel()
	program := callerProgram(t)
	for _, setup := range []string{
		"",
		"exec 7<testdata 9>/dev/null",
		"exec <&-",
		"trap '' HUP INT TERM TSTP PIPE USR1 CHLD",
		"ulimit -n 100; ulimit -c 0; umask 027",
	} {
		run := func(prefix string) string {
			cmd := exec.Command("bash", "-c", setup+"\nexec "+prefix+" "+program+" state -- -x 'a b' >&2")
			cmd.Env = append(os.Environ(), mainEnv, "XDG_RUNTIME_DIR="+t.TempDir())
			file, err := os.CreateTemp(t.TempDir(), "")
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			cmd.Stderr = file
			if err := cmd.Run(); err != nil {
				text, _ := os.ReadFile(file.Name())
				t.Fatalf("%s: %v: %s", cmd, err, text)
			}
			text, err := os.ReadFile(file.Name())
			if err != nil {
				t.Fatal(err)
			}
			// Session and process group lie outside.
			text = regexp.MustCompile(`XDG_RUNTIME_DIR=\S+|session \d+`).ReplaceAll(text, nil)
			return strings.ReplaceAll(string(text), file.Name(), "OUT")
		}
		if askCapability(unix.CAP_SYS_ADMIN).answer != yes {
			t.Skip("needs: CAP_SYS_ADMIN")
		}
		want, got := run(testBinary(t)+" run"), run(testBinary(t)+" run --container --name transparent")
		if want != got {
			t.Errorf("%s: without a container:\n%s\nwith one:\n%s", setup, want, got)
		}
	}
}

// TestContainerTerminal uses a shell in a container as a person would.
func TestContainerTerminal(t *testing.T) {
	for _, shell := range []string{"dash", "bash --norc --noprofile"} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			if askCapability(unix.CAP_SYS_ADMIN).answer != yes {
				t.Skip("needs: CAP_SYS_ADMIN")
			}
			c := startConsole(t, crshim(append([]string{"run", "--container"}, append(strings.Fields(shell), "-i")...)...))
			c.useShell()
			c.say("exit 5")
			// dash gives the terminal back to the process group that it was started in, which has no number in the container.
			if status := c.end(); status.ExitStatus() != 5 && shell != "dash" {
				t.Errorf("status %#x, want exit 5; output %q", status, c.out.String())
			}
		})
	}
}
