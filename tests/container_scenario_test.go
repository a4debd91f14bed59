package tests

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// inContainers are the scenarios that are run in a container also without
// -every-way: it has rights over itself only, and its first process is another.
var inContainers = []string{"inet udp-options", "inet netlink", "tcp big", "kin owners", "kin desk"}

// contained: the tool saves the whole container.
var contained = way{"container", scenarioExternal, false, runContained}

func (s scenario) contained() bool {
	return *everyWay || slices.Contains(inContainers, filepath.Base(s.program)+" "+s.name)
}

// runContained: somebody else checkpoints the container that the program is in.
func runContained(e *env, s scenario, _ way) {
	if s.is(scenarioBlocks) || s.is(scenarioRefused) || s.is(scenarioWake) {
		e.Skip("needs: a program that waits for the harness, whose number is known outside")
	}
	needsContainers(e, e.user)
	j := e.inContainer(streams{}, "--name", "one", "--net", "loopback", s.program, s.name, "external", e.dir, strconv.Itoa(cycles))
	for n := 1; n <= cycles; n++ {
		e.announced(j, "ready", n)
		img := e.nth("img", n)
		e.verb("checkpoint", "--kill", "one", "-o", img).ends("exit status 0")
		j.ends("signal: killed")
		j = e.verb("restart", "--name", "one", img)
		e.write(e.nth("go", n), "")
	}
	j.ends("exit status 0")
	e.passed()
	if text := strings.TrimSpace(j.output()); text != "" {
		e.Logf("restart says %q", text)
	}
}
