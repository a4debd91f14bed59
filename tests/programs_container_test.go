package tests

import (
	"path/filepath"
	"slices"
	"testing"
)

// startContained starts one of the programs in a container.
func startContained(t *testing.T, u user, options []string, script string, args ...string) *working {
	t.Helper()
	needsContainers(t, u)
	e := envWith(t, u, script)
	j := e.inContainer(streams{}, slices.Concat([]string{"--name", "work", "--net", "loopback"}, options, args)...)
	return &working{j, j.pid()}
}

// throughContainers takes the container through its cycles.
func (w *working) throughContainers() {
	w.Helper()
	for n := 1; n <= cycles; n++ {
		w.proceeds()
		image := w.nth("img", n)
		w.verb("checkpoint", "--kill", "work", "-o", image).ends("exit status 0")
		w.ends("signal: killed")
		w.job = w.verb("restart", "--name", "work", image)
	}
	w.finish()
}

// TestServersInContainer has servers in a container together with their clients,
// none of which notices anything.
func TestServersInContainer(t *testing.T) {
	for name, command := range map[string]func(t *testing.T) []string{
		"pgbench": func(t *testing.T) []string {
			installed(t, "pgbench")
			return []string{filepath.Dir(installed(t, "initdb")), "5432"}
		},
		"nginx": func(t *testing.T) []string {
			installed(t, "wrk")
			return []string{installedIn(t, "/usr/sbin", "nginx"), "8080"}
		},
		"redis": func(t *testing.T) []string {
			installed(t, "redis-benchmark")
			return []string{redisProgram(t), "6379", "6380"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			args := command(t)
			for i, u := range users() {
				if u.id == 0 && name == "pgbench" || i == 0 && len(users()) > 1 && !*everyWay {
					continue // PostgreSQL refuses to be root
				}
				t.Run(u.name, func(t *testing.T) {
					t.Parallel()
					script := name + ".sh"
					startContained(t, u, []string{"--user", "keep"}, script, append([]string{installed(t, "sh"), script}, args...)...).throughContainers()
				})
			}
		})
	}
}
