package tests

import (
	"flag"
	"fmt"
	"strconv"
	"testing"
	"time"
)

var restless = flag.Int("restless", 4, "how often TestRestless saves each of its trees")

// TestRestless saves trees that change all the time, at moments that nobody chose,
// and restarts every tenth image and the last one (as root: they know each other by
// number). They judge themselves.
func TestRestless(t *testing.T) {
	for _, kind := range []string{"forks", "execs", "threads", "stops", "signals"} {
		t.Run(kind, func(t *testing.T) {
			each := eachUser
			if kind == "execs" && !*everyWay {
				// An ordinary user is now and then refused (CR1002) while a thread executes a program.
				each = func(t *testing.T, run func(*testing.T, user)) { run(t, users()[0]) }
			}
			each(t, func(t *testing.T, u user) {
				e := newEnv(t, u)
				e.deadline = e.deadline.Add(time.Duration(*restless) * time.Second)
				j := e.start(streams{}, program(t, glibc, "callers", "restless"), kind, e.dir)
				pid := e.announced(j, "ready", 1)
				for n := 1; n <= *restless; n++ {
					time.Sleep(time.Duration(n*7%13) * time.Millisecond) // any moment will do
					if u.id == 0 && (n%10 == 0 || n == *restless) {
						j, pid = e.comeBack(n, j, pid, nil, []string{"--pids", "keep"})
						continue
					}
					e.start(streams{}, e.crshim, "checkpoint", strconv.Itoa(pid), "-o", fmt.Sprintf("img.%d", n)).ends("exit status 0")
					e.remove(e.nth("img", n))
				}
				e.write(e.nth("go", 1), "")
				j.ends("exit status 0")
			})
		})
	}
}
