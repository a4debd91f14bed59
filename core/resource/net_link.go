package resource

import (
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
)

// linkRecord is an interface, as RTM_GETLINK tells it.
type linkRecord struct {
	Index uint32
	Peer  uint32 `doc:"of a veth(4), the index of its other end"`
	Kind  uint32 `doc:"1 loopback, 2 veth, 3 dummy"`
	Flags uint32 `fmt:"hex" doc:"of netdevice(7), those that can be set"`
	MTU   uint32
	MAC   [6]byte `fmt:"hex"`
	_     [6]byte
	Name  string
}

// Values of linkRecord.Kind.
const (
	linkLoopback = 1 + iota
	linkVeth
	linkDummy
)

var linkKinds = map[string]uint32{"veth": linkVeth, "dummy": linkDummy}

const (
	linkFlags   = unix.IFF_UP | unix.IFF_NOARP | unix.IFF_MULTICAST | unix.IFF_ALLMULTI | unix.IFF_PROMISC
	loopbackMTU = 65536
)

func (i *Namespaces) askLinks() error {
	if !i.net {
		return nil
	}
	found, err := i.route().dump(unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg))
	if err != nil {
		return i.refuseNet(err, "interfaces")
	}
	for _, m := range found {
		has, err := attributesIn(m.Data, unix.SizeofIfInfomsg)
		if err != nil {
			return i.refuseNet(err, "interfaces")
		}
		link, err := parseLink(m.Data, has)
		switch {
		case err != nil:
			return i.refuseNet(err, "")
		case link.Kind == linkLoopback && link.MTU == loopbackMTU:
			continue
		}
		i.links = append(i.links, link)
	}
	for _, link := range i.links {
		if link.Kind == linkVeth && !i.hasLink(link.Peer, link.Index) {
			return i.refuseNet(nil, "interface %s, a veth whose other end is outside", link.Name)
		}
	}
	return nil
}

func (i *Namespaces) hasLink(index, peer uint32) bool {
	for _, l := range i.links {
		if l.Index == index && l.Peer == peer {
			return true
		}
	}
	return false
}

// parseLink takes an interface apart, and refuses those that are not kept.
func parseLink(data []byte, has map[uint16][]byte) (*linkRecord, error) {
	link := &linkRecord{
		Index: binary.LittleEndian.Uint32(data[4:]), Flags: binary.LittleEndian.Uint32(data[8:]),
		Name: unix.ByteSliceToString(has[unix.IFLA_IFNAME]),
	}
	if v := has[unix.IFLA_MTU]; len(v) == 4 {
		link.MTU = binary.LittleEndian.Uint32(v)
	}
	copy(link.MAC[:], has[unix.IFLA_ADDRESS])
	kind := ""
	if info := has[unix.IFLA_LINKINFO]; info != nil {
		inner, err := attributesIn(info, 0)
		if err != nil {
			return nil, err
		}
		kind = unix.ByteSliceToString(inner[unix.IFLA_INFO_KIND])
	}
	if link.Flags&unix.IFF_LOOPBACK != 0 {
		link.Kind = linkLoopback
	} else if link.Kind = linkKinds[kind]; link.Kind == 0 {
		return nil, fmt.Errorf("interface %s is of the kind %q", link.Name, kind)
	}
	link.Flags &= linkFlags
	if link.Kind == linkVeth && has[unix.IFLA_LINK_NETNSID] == nil {
		if v := has[unix.IFLA_LINK]; len(v) == 4 {
			link.Peer = binary.LittleEndian.Uint32(v)
		}
	}
	for attr, what := range map[uint16]string{unix.IFLA_MASTER: "belongs to another one", unix.IFLA_XDP: "has a program"} {
		if v := has[attr]; v != nil && (attr != unix.IFLA_XDP || xdpAttached(v)) {
			return nil, fmt.Errorf("interface %s %s", link.Name, what)
		}
	}
	if n := len(has[unix.IFLA_ADDRESS]); n != len(link.MAC) {
		return nil, fmt.Errorf("interface %s has an address of %d bytes", link.Name, n)
	}
	return link, nil
}

func xdpAttached(info []byte) bool {
	inner, err := attributesIn(info, 0)
	v := inner[unix.IFLA_XDP_ATTACHED]
	return err != nil || len(v) != 1 || v[0] != 0
}

func (i *Namespaces) dumpLinks() error {
	for _, link := range i.links {
		if err := i.s.W.Put(0, link); err != nil {
			return err
		}
	}
	return nil
}

// infomsg is struct ifinfomsg of <linux/rtnetlink.h>.
func infomsg(index, flags, change uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.LittleEndian.PutUint32(b[4:], index)
	binary.LittleEndian.PutUint32(b[8:], flags)
	binary.LittleEndian.PutUint32(b[12:], change)
	return b
}

// message is what RTM_NEWLINK takes of it.
func (l *linkRecord) message() []byte {
	b := attribute(infomsg(l.Index, 0, 0), unix.IFLA_IFNAME, append([]byte(l.Name), 0))
	b = attribute(b, unix.IFLA_MTU, quad(l.MTU))
	return attribute(b, unix.IFLA_ADDRESS, l.MAC[:])
}

func loadLinks(b *Builder, to into) error {
	rec, _, err := image.Expect[linkRecord](b.R)
	if err != nil {
		return err
	}
	object := "interface " + rec.Name
	switch {
	case rec.Kind < linkLoopback || rec.Kind > linkDummy || rec.Flags&^linkFlags != 0 || rec.Index == 0 || rec.Index > 1<<31-1,
		rec.Name == "" || len(rec.Name) >= unix.IFNAMSIZ || strings.ContainsAny(rec.Name, "/ \x00"), (rec.Peer != 0) != (rec.Kind == linkVeth),
		!to.net:
		return badImage(fault.ImageValue, object, "index %d, kind %d, flags %#x", rec.Index, rec.Kind, rec.Flags)
	}
	if !to.make {
		b.Warn("%s is not made: the network namespace stays as it is", object)
		return nil
	}
	switch rec.Kind {
	case linkVeth:
		// The other end comes later, and both are made then.
		peer := b.veths[rec.Peer]
		if peer == nil {
			if b.veths == nil {
				b.veths = make(map[uint32]*linkRecord)
			}
			b.veths[rec.Index] = rec
			return nil
		}
		const vethInfoPeer = 1
		other := attribute(nil, vethInfoPeer, peer.message())
		info := attribute(attribute(nil, unix.IFLA_INFO_KIND, []byte("veth\x00")), unix.IFLA_INFO_DATA, other)
		if err := b.makeNet(object, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, attribute(rec.message(), unix.IFLA_LINKINFO, info)); err != nil {
			return err
		}
		if err := b.setLink(peer); err != nil {
			return err
		}
	case linkDummy:
		info := attribute(nil, unix.IFLA_INFO_KIND, []byte("dummy\x00"))
		if err := b.makeNet(object, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, attribute(rec.message(), unix.IFLA_LINKINFO, info)); err != nil {
			return err
		}
	case linkLoopback:
		return b.makeNet(object, unix.RTM_NEWLINK, 0, attribute(infomsg(rec.Index, 0, 0), unix.IFLA_MTU, quad(rec.MTU)))
	}
	return b.setLink(rec)
}

// setLink gives an interface its flags.
func (b *Builder) setLink(l *linkRecord) error {
	return b.makeNet("interface "+l.Name, unix.RTM_NEWLINK, 0, infomsg(l.Index, l.Flags, linkFlags))
}
