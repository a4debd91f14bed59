package tests

import (
	"os/exec"
	"strings"
	"testing"
)

// network makes one within a container, and shows it.
const network = `
	ip link add left address 02:00:00:00:00:01 mtu 1400 type veth peer name right && ip link set left up && ip link set right up &&
	ip address add 10.1.2.3/24 dev left && ip address add 10.9.9.9/32 dev lo && ip route add 10.7.0.0/16 via 10.1.2.9 metric 5 &&
	ip route add blackhole 10.8.0.0/16 && ip -6 address add fd00::5/64 dev right nodad && ip -6 route add fd01::/64 via fd00::9 &&
	echo 1 >/proc/sys/net/ipv4/ip_forward && echo 80 >/proc/sys/net/ipv4/ip_unprivileged_port_start && echo 777 >/proc/sys/net/core/somaxconn || exit 2`

const showNetwork = `
	ip -o address | sed 's/valid_lft.*//; s/ tentative//'; ip -o link | sed 's/qlen.*link/link/; s/ state [A-Z]*//; s/qdisc [a-z]*//'; { ip route; ip -6 route; } | sort
	cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/core/somaxconn`

// TestContainerNet saves a container with a network of its own, and two processes
// in it that talk by TCP over one of its addresses: all of it is there again.
func TestContainerNet(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		needsContainers(t, u)
		if _, err := exec.LookPath("ip"); err != nil {
			t.Skip("needs: ip")
		}
		e := newEnv(t, u)
		probe := e.inContainer(streams{}, "--net", "loopback", "sh", "-c", network)
		if probe.end() != "exit status 0" {
			t.Skip("needs: veth and IPv6: ", probe.output())
		}
		j := e.inContainer(streams{}, "--name", "one", "--net", "loopback", "sh", "-c",
			network+"; { "+showNetwork+"; } >before; "+program(t, glibc, "callers", "chat")+" 10.9.9.9 || end=$?; { "+showNetwork+"; } >after; exit $end")
		for i := range 2 {
			e.until("it talks", func() bool {
				if j.ended() {
					t.Fatal(j.output())
				}
				return e.count() > 0
			})
			e.goesOn()
			j = e.containerAgain(j, e.nth("img", i))
		}
		e.write(e.path("stop"), "")
		j.ends("exit status 7")
		if text := j.output(); text != "" {
			t.Errorf("restart says %q", text)
		}
		before, after := e.read(e.path("before")), e.read(e.path("after"))
		if before != after || !strings.Contains(before, "left") || !strings.Contains(before, "fd01::/64") {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	})
}
