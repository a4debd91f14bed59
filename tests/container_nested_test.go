package tests

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// TestContainerNested saves a container with namespaces in it three times, as
// tests/scenarios/nested.c makes and judges them.
func TestContainerNested(t *testing.T) {
	for _, name := range []string{"nested", "jails"} {
		t.Run(name, func(t *testing.T) {
			eachUser(t, func(t *testing.T, u user) { containerOf(t, u, name) })
		})
	}
}

func containerOf(t *testing.T, u user, name string) {
	needsContainers(t, u)
	e := newEnv(t, u)
	j := e.inContainer(streams{}, "--name", "one", program(t, libcs[0], "scenarios", "nested"), name, "external", e.dir, "3")
	for n := 1; n <= cycles; n++ {
		e.announced(j, "ready", n)
		e.verb("checkpoint", "--kill", "one", "-o", e.nth("img", n)).ends("exit status 0")
		j.ends("signal: killed")
		j = e.verb("restart", "--name", "one", e.nth("img", n))
		e.write(e.nth("go", n), "")
	}
	j.ends("exit status 0")
	if text := j.output(); text != "" {
		t.Errorf("restart says %q", text)
	}
	e.passed()
}

// TestContainerUnshare saves a container in which unshare(1) has started a shell
// with a pid namespace, a /proc and a UTS namespace of its own.
func TestContainerUnshare(t *testing.T) {
	if _, err := exec.LookPath("unshare"); err != nil {
		t.Skip("needs: unshare")
	}
	eachUser(t, func(t *testing.T, u user) {
		needsContainers(t, u)
		e := newEnv(t, u)
		j := e.inContainer(streams{}, "--name", "one", "unshare", "--pid", "--fork", "--mount-proc", "--uts", "sh", "-c", counting)
		for i := range 3 {
			e.goesOn()
			img := e.nth("img", i)
			e.verb("checkpoint", "--kill", "one", "-o", img).ends("exit status 0")
			j.ends("signal: killed")
			j = e.verb("restart", "--name", "one", img)
		}
		e.goesOn()
		e.write(e.path("stop"), "")
		j.ends("exit status 7")
		reader := ""
		for i, line := range strings.Split(strings.TrimSuffix(e.read(e.path("out")), "\n"), "\n") {
			word := strings.Fields(line)
			if len(word) != 5 || word[0] != "1" || word[1] != "0" || word[3] != strconv.Itoa(i+1) || reader != "" && word[4] != reader {
				t.Fatalf("line %d is %q, after process %s", i+1, line, reader)
			}
			reader = word[4]
		}
	})
}
