package resource

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
)

// addressRecord is an address, as RTM_GETADDR tells it.
type addressRecord struct {
	Index      uint32 `doc:"of the interface"`
	Family     uint8  `doc:"2 IPv4, 10 IPv6"`
	Prefix     uint8  `doc:"bits"`
	Scope      uint8
	_          uint8
	Attributes []byte `doc:"as RTM_NEWADDR takes them"`
}

var addressAttributes = []netAttribute{
	{unix.IFA_ADDRESS, 4, 16}, {unix.IFA_LOCAL, 4, 16}, {unix.IFA_LABEL, 1, unix.IFNAMSIZ}, {unix.IFA_BROADCAST, 4, 4},
	{unix.IFA_FLAGS, 4, 4}, {unix.IFA_RT_PRIORITY, 4, 4}, {ifaProto, 1, 1},
}

func (i *Namespaces) askAddresses() error {
	if !i.net {
		return nil
	}
	found, err := i.route().dump(unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg))
	if err != nil {
		return i.refuseNet(err, "addresses")
	}
	for _, m := range found {
		has, err := attributesIn(m.Data, unix.SizeofIfAddrmsg)
		if err != nil {
			return i.refuseNet(err, "addresses")
		}
		rec := &addressRecord{Index: binary.LittleEndian.Uint32(m.Data[4:]), Family: m.Data[0], Prefix: m.Data[1], Scope: m.Data[3]}
		address := net.IP(has[unix.IFA_ADDRESS])
		if address.IsLoopback() && rec.Index == 1 && bytes.Equal(loopbackAddress(rec), address) {
			continue // lo has it as soon as it is up
		}
		if life := has[unix.IFA_CACHEINFO]; len(life) >= 8 && binary.LittleEndian.Uint32(life[4:]) != ^uint32(0) {
			return i.refuseNet(nil, "address %v, which is valid for a time only", address)
		}
		delete(has, unix.IFA_CACHEINFO)
		var other []uint16
		if rec.Attributes, other = keep(has, addressAttributes); len(other) > 0 {
			return i.refuseNet(nil, "address %v: attributes %v", address, other)
		}
		i.addresses = append(i.addresses, rec)
	}
	return nil
}

// loopbackAddress is that which the kernel gives to lo.
func loopbackAddress(rec *addressRecord) []byte {
	switch {
	case rec.Family == unix.AF_INET && rec.Prefix == 8:
		return []byte{127, 0, 0, 1}
	case rec.Family == unix.AF_INET6 && rec.Prefix == 128:
		return net.IPv6loopback
	}
	return nil
}

func (i *Namespaces) dumpAddresses() error {
	for _, rec := range i.addresses {
		if err := i.s.W.Put(0, rec); err != nil {
			return err
		}
	}
	return nil
}

func loadAddress(b *Builder, to into) error {
	rec, _, err := image.Expect[addressRecord](b.R)
	if err != nil {
		return err
	}
	has, err := attributesIn(rec.Attributes, 0)
	object := fmt.Sprintf("address %v/%d", net.IP(has[unix.IFA_ADDRESS]), rec.Prefix)
	if err != nil || !only(rec.Attributes, addressAttributes) || rec.Family != unix.AF_INET && rec.Family != unix.AF_INET6 || !to.net {
		return badImage(fault.ImageValue, object, "family %d, %d bytes", rec.Family, len(rec.Attributes))
	}
	if !to.make {
		b.Warn("%s is not made: the network namespace stays as it is", object)
		return nil
	}
	flags := uint32(0)
	if v := has[unix.IFA_FLAGS]; len(v) == 4 {
		flags = binary.LittleEndian.Uint32(v) & addressFlags
	}
	message := func(flags uint32) []byte {
		body := append([]byte{rec.Family, rec.Prefix, 0, rec.Scope}, quad(rec.Index)...)
		has[unix.IFA_FLAGS] = quad(flags)
		for _, a := range addressAttributes {
			if v, ok := has[a.kind]; ok {
				body = attribute(body, a.kind, v)
			}
		}
		return body
	}
	if rec.Family == unix.AF_INET || flags&unix.IFA_F_NODAD != 0 {
		return b.makeNet(object, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, message(flags))
	}
	// The namespace is new, so nobody else can have it: it is to serve at once.
	err = b.makeNet(object, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, message(flags|unix.IFA_F_NODAD))
	if err == nil {
		err = b.makeNet(object, unix.RTM_NEWADDR, unix.NLM_F_REPLACE, message(flags))
	}
	return err
}

// addressFlags are those that can be asked for (inet_rtm_newaddr of net/ipv6/addrconf.c).
const addressFlags = unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_HOMEADDRESS | unix.IFA_F_NODAD | unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_MCAUTOJOIN

const ifaProto = 11 // IFA_PROTO of <linux/if_addr.h>, since Linux 5.18
