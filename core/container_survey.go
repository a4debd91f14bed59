package core

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/resource"
	"github.com/crshim/crshim/tracer/procfs"
)

// surveyContainer refuses what a new container would not have. A process that
// saves itself comes back by restart(2), in namespaces that are there.
func (c *checkpoint) surveyContainer() error {
	root := c.members[0].view
	if c.self() {
		return nil
	}
	if c.within = c.engine.containerOf(root); c.within == nil {
		return nil
	}
	list, err := c.within.survey(root)
	if err != nil {
		return err
	}
	return list.Err()
}

func sameNamespace(kind string, a, b *procfs.Proc) (bool, error) {
	one, err := a.NS(kind)
	if err != nil {
		return false, err
	}
	other, err := b.NS(kind)
	return one == other, err
}

// survey looks at what the first process shows of its mounts and its network,
// and takes note of the latter.
func (c *Container) survey(v *resource.View) (list fault.List, err error) {
	self, err := procfs.Open(procfs.PID(os.Getpid()))
	if err != nil {
		return nil, err
	}
	defer self.Close()
	plan, err := planMounts(v, c.Rootfs)
	if err != nil {
		return nil, err
	}
	c.plan, c.Mounts, c.Rootfs, list = plan, plan.list, plan.rootfs, plan.refused
	if err := c.noteGroups(v); err != nil {
		return nil, err
	}
	if c.Net == NetHost {
		return list, nil
	}
	if same, err := sameNamespace("net", self, v.Proc); err != nil || same {
		return list, err
	}
	up, odd, err := network(v.Proc)
	if err != nil {
		return nil, err
	}
	for _, what := range odd {
		list = append(list, &fault.Error{Code: fault.ContainerNet, Object: "the network of " + v.Name(), Detail: what})
	}
	c.Net = NetNone
	if up {
		c.Net = NetLoopback
	}
	return list, nil
}

// network tells whether lo is up in the network namespace of a process, and
// what else there is.
func network(p *procfs.Proc) (up bool, odd []string, err error) {
	text, err := p.ReadFile("net/dev")
	if err != nil {
		return false, nil, err
	}
	for i, line := range strings.Split(string(text), "\n") {
		name, _, ok := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); i >= 2 && ok && name != "lo" {
			odd = append(odd, "interface "+name)
		}
	}
	if text, err = p.ReadFile("net/fib_trie"); err != nil {
		return false, nil, err
	}
	for line := range strings.Lines(string(text)) {
		_, address, leaf := strings.Cut(strings.TrimSpace(line), "|-- ")
		switch {
		case !leaf:
		case !slices.Contains(loopbackRoutes, address):
			odd = append(odd, "route "+address)
		default:
			up = true
		}
	}
	if text, err = p.ReadFile("net/if_inet6"); err != nil {
		if os.IsNotExist(err) {
			err = nil // without IPv6
		}
		return up, odd, err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 0 && f[0] != loopback6 {
			odd = append(odd, fmt.Sprintf("address %s", f[0]))
		}
	}
	return up, slices.Compact(odd), nil
}

// loopbackRoutes are those that the kernel makes when lo comes up.
var loopbackRoutes = []string{"0.0.0.0", "127.0.0.0", "127.0.0.1", "127.255.255.255"}

const loopback6 = "00000000000000000000000000000001"
