package tests

import "testing"

// TestContainerIPC saves a container with objects of System V and POSIX IPC three
// times: ids, keys, contents, order and limits are what they were.
func TestContainerIPC(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		needsContainers(t, u)
		for _, options := range [][]string{nil, {"--user", "keep"}} {
			e := newEnv(t, u)
			j := e.inContainer(streams{}, append(append([]string{"--name", "one"}, options...), program(t, glibc, "callers", "ipcs"))...)
			for i := range 3 {
				e.goesOn()
				img := e.nth("img", i)
				e.verb("checkpoint", "--kill", "one", "-o", img).ends("exit status 0")
				j.ends("signal: killed")
				n := e.count()
				j = e.verb("restart", "--name", "one", img)
				e.until("it goes on", func() bool {
					if j.ended() {
						t.Fatal(j.output())
					}
					return e.count() > n+3
				})
			}
			e.write(e.path("stop"), "")
			j.ends("exit status 7")
			if text := j.output(); text != "" {
				t.Errorf("%v: %s", options, text)
			}
		}
	})
}
