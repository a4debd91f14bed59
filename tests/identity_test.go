package tests

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// savedOnce starts a scenario, saves it as img and ends it.
func savedOnce(e *env, t *testing.T, name, scenario string) {
	t.Helper()
	j := e.start(streams{}, program(t, glibc, "scenarios", name), scenario, "external", e.dir, "1")
	pid := e.announced(j, "ready", 1)
	e.checkpoint(pid, "img", way{})
	e.signal(pid, unix.SIGKILL)
	j.ends("signal: killed")
}

// refusedRestart tries a restart by a command line, and wants this code.
func refusedRestart(e *env, code string, args ...string) {
	e.Helper()
	j := e.start(streams{}, args...)
	j.ends("exit status 125")
	if text := j.output(); !strings.Contains(text, code+" ") {
		e.Errorf("%v failed with %q, want %s", args, text, code)
	}
}

// TestIdentityRefused: an ordinary user does not become root by an image, or
// takes on groups and capabilities; it may run it as itself.
func TestIdentityRefused(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs: root")
	}
	for _, scenario := range []string{"daemon", "caps"} {
		t.Run(scenario, func(t *testing.T) {
			e := newEnv(t, user{"root", 0})
			savedOnce(e, t, "creds", scenario)
			for _, name := range []string{".", "img", "log.program"} {
				if err := os.Chmod(e.path(name), 0o777); err != nil {
					t.Fatal(err)
				}
			}
			e.user = user{"user", 65534}
			refusedRestart(e, "CR2301", e.crshim, "restart", "img")
			// It says that it is not who it was.
			j := e.start(streams{}, e.crshim, "restart", "--ids", "caller", "--limits", "caller", "img")
			e.write(e.nth("go", 1), "")
			j.ends("exit status 1")
			if verdict := e.read(e.path("result")); !strings.Contains(verdict, "65534") {
				t.Errorf("it says %q", verdict)
			}
		})
	}
}

// TestLimitRefused: a hard limit is not raised by an image.
func TestLimitRefused(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		e := newEnv(t, u)
		savedOnce(e, t, "limits", "all")
		lower := func(args ...string) []string {
			return append([]string{"/bin/sh", "-c", `ulimit -n 100 && exec "$0" "$@"`, e.crshim, "restart"}, args...)
		}
		if u.id == 0 && mayRaiseLimits(t) {
			e.write(e.nth("go", 1), "")
			e.start(streams{}, lower("img")...).ends("exit status 0")
			e.passed()
			return
		}
		refusedRestart(e, "CR2303", lower("img")...)
		j := e.start(streams{}, lower("--limits", "caller", "img")...)
		e.write(e.nth("go", 1), "")
		j.ends("exit status 1")
		if verdict := e.read(e.path("result")); !strings.Contains(verdict, "rlim_") {
			t.Errorf("it says %q", verdict)
		}
	})
}

// mayRaiseLimits tells whether this process has CAP_SYS_RESOURCE.
func mayRaiseLimits(t *testing.T) bool {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:\t"); ok {
			hex = strings.TrimSpace(hex)
			return len(hex) == 16 && strings.ContainsRune("13579bdf", rune(hex[len(hex)-7]))
		}
	}
	t.Fatal("no CapEff")
	return false
}
