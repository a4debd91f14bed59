package resource

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
)

// routeRecord is a route, as RTM_GETROUTE tells it.
type routeRecord struct {
	Family     uint8 `doc:"2 IPv4, 10 IPv6"`
	DstBits    uint8
	SrcBits    uint8
	TOS        uint8
	Table      uint8
	Protocol   uint8 `doc:"who has made it: 3 by hand, 4 static"`
	Scope      uint8
	Type       uint8  `doc:"1 to others, 6 blackhole, 7 unreachable, 8 prohibit"`
	Attributes []byte `doc:"as RTM_NEWROUTE takes them"`
}

var routeAttributes = []netAttribute{
	{unix.RTA_DST, 4, 16}, {unix.RTA_SRC, 4, 16}, {unix.RTA_OIF, 4, 4}, {unix.RTA_GATEWAY, 4, 16}, {unix.RTA_VIA, 6, 18},
	{unix.RTA_PRIORITY, 4, 4}, {unix.RTA_PREFSRC, 4, 16}, {unix.RTA_TABLE, 4, 4}, {unix.RTA_PREF, 1, 1}, {unix.RTA_METRICS, 4, 256},
}

func (i *Namespaces) askRoutes() error {
	if !i.net {
		return nil
	}
	found, err := i.route().dump(unix.RTM_GETROUTE, make([]byte, unix.SizeofRtMsg))
	if err != nil {
		return i.refuseNet(err, "routes")
	}
	for _, m := range found {
		has, err := attributesIn(m.Data, unix.SizeofRtMsg)
		if err != nil {
			return i.refuseNet(err, "routes")
		}
		d := m.Data
		rec := &routeRecord{Family: d[0], DstBits: d[1], SrcBits: d[2], TOS: d[3], Table: d[4], Protocol: d[5], Scope: d[6], Type: d[7]}
		if rec.Protocol == unix.RTPROT_KERNEL || d[9]&(unix.RTM_F_CLONED>>8) != 0 {
			continue // comes with the addresses
		}
		delete(has, unix.RTA_CACHEINFO)
		var other []uint16
		if rec.Attributes, other = keep(has, routeAttributes); len(other) > 0 || !isInet(rec.Family) {
			return i.refuseNet(nil, "route to %v/%d: attributes %v", net.IP(has[unix.RTA_DST]), rec.DstBits, other)
		}
		i.routes = append(i.routes, rec)
	}
	return nil
}

func isInet(family uint8) bool { return family == unix.AF_INET || family == unix.AF_INET6 }

func (i *Namespaces) dumpRoutes() error {
	for _, rec := range i.routes {
		if err := i.s.W.Put(0, rec); err != nil {
			return err
		}
	}
	return nil
}

func loadRoute(b *Builder, to into) error {
	rec, _, err := image.Expect[routeRecord](b.R)
	if err != nil {
		return err
	}
	has, err := attributesIn(rec.Attributes, 0)
	object := fmt.Sprintf("route to %v/%d", net.IP(has[unix.RTA_DST]), rec.DstBits)
	if err != nil || !only(rec.Attributes, routeAttributes) || !isInet(rec.Family) || !to.net {
		return badImage(fault.ImageValue, object, "family %d, %d bytes", rec.Family, len(rec.Attributes))
	}
	if !to.make {
		b.Warn("%s is not made: the network namespace stays as it is", object)
		return nil
	}
	body := []byte{rec.Family, rec.DstBits, rec.SrcBits, rec.TOS, rec.Table, rec.Protocol, rec.Scope, rec.Type, 0, 0, 0, 0}
	return b.makeNet(object, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, append(body, rec.Attributes...))
}
