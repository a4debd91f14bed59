package tests

import "testing"

// TestContainerNested saves a container with pid namespaces in it three times, as
// tests/scenarios/nested.c makes and judges them.
func TestContainerNested(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		needsContainers(t, u)
		e := newEnv(t, u)
		j := e.inContainer(streams{}, "--name", "one", program(t, libcs[0], "scenarios", "nested"), "nested", "external", e.dir, "3")
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
	})
}
