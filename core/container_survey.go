package core

import (
	"bytes"

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

// survey looks at what the first process shows of its mounts and its network,
// and takes note of the latter.
func (c *Container) survey(v *resource.View) (list fault.List, err error) {
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
	if same, err := v.InOurs("net"); err != nil || same {
		return list, err
	}
	up, err := loopbackUp(v.Proc)
	if err != nil {
		return nil, err
	}
	c.Net = NetNone
	if up {
		c.Net = NetLoopback
	}
	return list, nil
}

// loopbackUp tells whether lo is up in the network namespace of a process: it has
// its address then.
func loopbackUp(p *procfs.Proc) (bool, error) {
	text, err := p.ReadFile("net/fib_trie")
	return bytes.Contains(text, []byte("|-- 127.0.0.1\n")), err
}
