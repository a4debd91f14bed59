package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
)

// What a network namespace of a container has beside what a new one has. It is
// read and made by rtnetlink(7), by the first process of the container. That of
// the kernel's own making comes again by itself, and is left out.

const (
	linkKind image.Kind = 6731 + iota
	addressKind
	routeKind
)

var netRecords = []image.Spec{
	image.Row[linkRecord](linkKind, "NET_LINK", image.InTree, "a network interface beside lo, or lo if its MTU is another"),
	image.Row[addressRecord](addressKind, "NET_ADDRESS", image.InTree, "an address of an interface"),
	image.Row[routeRecord](routeKind, "NET_ROUTE", image.InTree, "a route"),
}

// netAttribute is an attribute of a message that is kept, and how long it may be.
type netAttribute struct {
	kind     uint16
	from, to int
}

// keep returns those of the attributes that are kept, as a message has them, and
// the kinds of all others.
func keep(has map[uint16][]byte, known []netAttribute) (kept []byte, other []uint16) {
	for _, a := range known {
		if v, ok := has[a.kind]; ok && len(v) >= a.from && len(v) <= a.to {
			kept = attribute(kept, a.kind, v)
			delete(has, a.kind)
		}
	}
	for kind := range has {
		other = append(other, kind)
	}
	return kept, other
}

// only tells whether attributes of an image are such as are kept: the others could
// be about something outside of the namespace.
func only(raw []byte, known []netAttribute) bool {
	has, err := attributesIn(raw, 0)
	if err != nil {
		return false
	}
	again, other := keep(has, known)
	return len(other) == 0 && len(again) == len(raw)
}

func (i *Namespaces) route() netlinkTalk { return netlinkTalk{i.s.Remote, unix.NETLINK_ROUTE} }

func (i *Namespaces) refuseNet(err error, format string, args ...any) error {
	return &fault.Error{Code: fault.ContainerNet, Object: "the network of " + i.s.Name(), Detail: fmt.Sprintf(format, args...), Err: err}
}

// askOddities refuses what is not kept and can be seen: rules of netfilter, of
// policy routing, and neighbours that somebody has entered.
func (i *Namespaces) askOddities() error {
	rules, err := i.route().dump(unix.RTM_GETRULE, make([]byte, 12))
	if err != nil {
		return i.refuseNet(err, "policy routing")
	}
	for _, m := range rules {
		has, err := attributesIn(m.Data, 12)
		if err != nil {
			return i.refuseNet(err, "policy routing")
		}
		var priority uint32
		if v := has[unix.FRA_PRIORITY]; len(v) == 4 {
			priority = binary.LittleEndian.Uint32(v)
		}
		if !slices.Contains([]uint32{0, 32766, 32767}, priority) {
			return i.refuseNet(nil, "policy routing rule %d", priority)
		}
	}
	neighbours, err := i.route().dump(unix.RTM_GETNEIGH, make([]byte, 12))
	if err != nil {
		return i.refuseNet(err, "neighbours")
	}
	for _, m := range neighbours {
		if len(m.Data) >= 12 && binary.LittleEndian.Uint16(m.Data[8:])&unix.NUD_PERMANENT != 0 {
			return i.refuseNet(nil, "a permanent neighbour of interface %d", binary.LittleEndian.Uint32(m.Data[4:]))
		}
	}
	const getTable = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETTABLE
	tables, err := netlinkTalk{i.s.Remote, unix.NETLINK_NETFILTER}.dump(getTable, make([]byte, 4))
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP): // a kernel without them
	case err != nil:
		return i.refuseNet(err, "nftables")
	case len(tables) > 0:
		return i.refuseNet(nil, "%d tables of nftables", len(tables))
	}
	return i.askTables()
}

// askTables refuses tables of the older netfilter, which are there once they have
// been used. What tells of them belongs to user 0 of the namespace; where there is
// none nobody in it can have made any.
func (i *Namespaces) askTables() error {
	p := i.s.Remote.Program()
	names := []string{"ip_tables_names", "ip6_tables_names", "arp_tables_names"}
	opened, read := make([]*tracer.Row, len(names)), make([]*tracer.Row, len(names))
	for k, name := range names {
		opened[k] = p.Openat(tracer.Int(unix.AT_FDCWD), "/proc/net/"+name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0).Tolerate()
		read[k] = p.Read(opened[k], p.Buffer(64), 64).Tolerate()
		p.Close(opened[k]).Tolerate()
	}
	if err := p.Run(); err != nil {
		return err
	}
	users, err := i.s.Proc.ReadFile("uid_map")
	if err != nil {
		return err
	}
	root := strings.Fields(string(users))
	rootless := len(root) > 0 && root[0] != "0"
	for k, name := range names {
		switch err := opened[k].Err(); {
		case errors.Is(err, unix.ENOENT): // a kernel without it
		case errors.Is(err, unix.EACCES) && rootless:
		case err != nil || read[k].Err() != nil:
			return i.refuseNet(errors.Join(err, read[k].Err()), "/proc/net/%s", name)
		case read[k].Result() > 0:
			return i.refuseNet(nil, "rules of %s", strings.TrimSuffix(name, "_names"))
		}
	}
	return nil
}

// makeNet has the process make something of the network.
func (b *Builder) makeNet(object string, kind, flags uint16, body []byte) error {
	err := netlinkTalk{b.Remote, unix.NETLINK_ROUTE}.do(kind, flags, body)
	if err == nil || errors.Is(err, unix.EEXIST) {
		return nil // the kernel may have been faster
	}
	return &fault.Error{Code: fault.NetFailed, Object: object, Err: err}
}
