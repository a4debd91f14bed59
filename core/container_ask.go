package core

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
)

const (
	utsSize   = 6 * 65 // struct new_utsname
	utsNode   = 65     // nodename in it
	utsDomain = 5 * 65 // domainname
)

// names asks a process for the host and domain name of its UTS namespace.
func (m *member) names() (host, domain string, err error) {
	p := m.remote.Program()
	uts := p.Buffer(utsSize)
	p.Call(unix.SYS_UNAME, tracer.Ptr(uts))
	if err := p.Run(); err != nil {
		return "", "", fmt.Errorf("ask for namespaces of %s: %w", m.view.Name(), err)
	}
	raw := make([]byte, utsSize)
	if err := m.remote.ReadMem(uts, raw); err != nil {
		return "", "", err
	}
	return unix.ByteSliceToString(raw[utsNode : 2*utsNode]), unix.ByteSliceToString(raw[utsDomain:]), nil
}

// askContainer has the first process tell of its host name and of what lives in
// its IPC namespace.
func (c *checkpoint) askContainer() (err error) {
	if c.within == nil {
		return nil
	}
	root := c.members[0]
	if c.within.Hostname, c.within.Domainname, err = root.names(); err != nil {
		return err
	}
	if c.within.Time {
		if err := c.askClocks(); err != nil {
			return err
		}
	}
	c.inside, err = root.saver.AskNamespaces(c.within.Net != NetHost)
	return err
}

// writeContainer writes what is known of the container.
func (c *checkpoint) writeContainer(w *image.Writer) error {
	if c.within == nil {
		return nil
	}
	if err := w.Put(0, c.within.record()); err != nil {
		return err
	}
	if err := c.within.writeClocks(w); err != nil {
		return err
	}
	if err := c.within.writeMounts(w); err != nil {
		return err
	}
	if err := c.within.writeGroups(w); err != nil {
		return err
	}
	if err := c.writeContents(w); err != nil {
		return err
	}
	return c.inside.Dump()
}
