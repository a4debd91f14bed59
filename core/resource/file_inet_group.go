package resource

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
)

// inetGroupRecord is what a socket wants to hear of a multicast group.
type inetGroupRecord struct {
	Domain    uint16 `doc:"2 for IPv4, 10 for IPv6; an IPv6 socket may have both"`
	_         [2]byte
	Mode      uint32     `doc:"0 for all senders but the Sources, 1 for them alone"`
	Interface [16]byte   `fmt:"text"`
	Group     [16]byte   `doc:"IPv4 in the first four bytes"`
	Sources   [][16]byte `doc:"senders"`
}

// Offsets in struct group_filter of <linux/in.h>, and modes.
const (
	filterGroup   = 8 // behind the number of the interface
	filterMode    = filterGroup + storageSize
	filterCount   = filterMode + 4
	filterSources = filterCount + 4
	storageSize   = 128 // struct sockaddr_storage
	mostSources   = 500 // as many as IP_MSFILTER takes are fewer (igmp_max_msf, mld_max_msf)
	mcastExclude  = 0
	mcastInclude  = 1
	mcastMsfilter = 48
)

// groups returns the groups that a socket has joined. The kernel tells of a
// socket whether it is in a group (MCAST_MSFILTER), and of the namespace which
// groups there are.
func (s *Saver) groups(fd, domain int) ([]inetGroupRecord, error) {
	candidates, err := s.groupsOf("net/igmp", unix.AF_INET)
	if err != nil {
		return nil, err
	}
	if domain == unix.AF_INET6 {
		more, err := s.groupsOf("net/igmp6", unix.AF_INET6)
		if err != nil {
			return nil, err
		}
		candidates = append(candidates, more...)
	}
	var joined []inetGroupRecord
	for _, c := range candidates {
		filter := make([]byte, filterSources+mostSources*storageSize)
		putUint32(filter, c.index)
		copy(filter[filterGroup:], c.raw(c.Group))
		putUint32(filter[filterCount:], mostSources)
		_, err := sockopt(fd, c.level(), mcastMsfilter, filter)
		if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EINVAL) {
			continue // not this one
		}
		n := leUint32(filter[filterCount:])
		if err != nil || n > mostSources {
			return nil, fmt.Errorf("read senders of a multicast group, %d of them: %w", n, errors.Join(err, unix.E2BIG))
		}
		c.Mode = leUint32(filter[filterMode:])
		for i := range int(n) {
			c.Sources = append(c.Sources, c.ip(filter[filterSources+i*storageSize:]))
		}
		joined = append(joined, c.inetGroupRecord)
	}
	return joined, nil
}

type candidate struct {
	inetGroupRecord
	index uint32
}

// level is that of the group's socket options.
func (g *inetGroupRecord) level() int {
	if g.Domain == unix.AF_INET {
		return unix.SOL_IP
	}
	return unix.IPPROTO_IPV6
}

// raw is struct sockaddr_storage.
func (g *inetGroupRecord) raw(ip [16]byte) []byte {
	a := inetAddress{IP: ip}
	return append(a.raw(int(g.Domain)), make([]byte, storageSize)...)[:storageSize]
}

// ip is the address in a struct sockaddr_storage.
func (g *inetGroupRecord) ip(raw []byte) (ip [16]byte) {
	if g.Domain == unix.AF_INET {
		copy(ip[:4], raw[4:8])
	} else {
		copy(ip[:], raw[8:24])
	}
	return ip
}

// groupsOf lists the groups that anyone in the process's network namespace has
// joined. net/igmp has a line for each interface and indented ones for its
// groups, each as the number that its bytes are to the processor; net/igmp6 has
// one line for each group, its bytes in order.
func (s *Saver) groupsOf(name string, domain uint16) ([]candidate, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", s.PID, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // a kernel without IPv6
	}
	if err != nil {
		return nil, err
	}
	var all []candidate
	var index uint32
	var device string
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		switch {
		case len(words) < 3 || words[0] == "Idx":
			continue
		case domain == unix.AF_INET6 || line[0] != '\t':
			if _, err := fmt.Sscanf(line, "%d %s", &index, &device); err != nil {
				return nil, fmt.Errorf("parse %s: %w", name, err)
			}
			if domain == unix.AF_INET {
				continue
			}
			words = words[2:]
		}
		b, err := hex.DecodeString(words[0])
		if err != nil || domain == unix.AF_INET && len(b) != 4 || domain == unix.AF_INET6 && len(b) != 16 {
			return nil, fmt.Errorf("parse %s: group %q: %w", name, words[0], errors.Join(err, unix.EINVAL))
		}
		c := candidate{inetGroupRecord{Domain: domain}, index}
		if domain == unix.AF_INET {
			binary.NativeEndian.PutUint32(c.Group[:], binary.BigEndian.Uint32(b))
		} else {
			copy(c.Group[:], b)
		}
		copy(c.Interface[:], device)
		all = append(all, c)
	}
	return all, nil
}

// join reads the records of the groups and stages joining them.
func (s *inetSocket) join(b *Builder, ref object.Ref) error {
	for range s.Groups {
		g, head, err := image.Expect[inetGroupRecord](b.R)
		if err != nil {
			return err
		}
		if head.Parent != uint32(ref) || g.Mode > mcastInclude || len(g.Sources) > mostSources ||
			g.Domain != unix.AF_INET && (g.Domain != unix.AF_INET6 || s.kind&ipv6 == 0) {
			return badImage(fault.ImageValue, s.name, "group of %d, domain %d, mode %d, %d senders", head.Parent, g.Domain, g.Mode, len(g.Sources))
		}
		s.joinGroup(b, g)
		if err := b.filled(len(g.Sources) * storageSize); err != nil {
			return err
		}
	}
	return nil
}

// struct ifreq of <net/if.h>, and the number of an interface in it.
const (
	ifreqSize  = 40
	ifreqIndex = 16
)

// joinGroup has the task look up the interface by name, since its number may
// be another one now.
func (s *inetSocket) joinGroup(b *Builder, g *inetGroupRecord) {
	device, _, _ := bytes.Cut(g.Interface[:15], []byte{0})
	name := fmt.Sprintf("%s: group %v on %s", s.name, addressText(g.Domain, &inetAddress{IP: g.Group}), device)
	expect := func(row *tracer.Row) { b.Expect(row, fault.SocketState, name) }
	p := b.Stage()
	query := append(bytes.Clone(device), make([]byte, ifreqSize)...)[:ifreqSize]
	index := p.Bytes(query)
	expect(p.Ioctl(s.open.fd, unix.SIOCGIFINDEX, tracer.Ptr(index)))
	index += ifreqIndex
	request := p.Bytes(append(make([]byte, filterGroup), g.raw(g.Group)...)) // struct group_req
	p.Store(request, tracer.Cell(index))
	expect(p.Call(unix.SYS_SETSOCKOPT, s.open.fd, tracer.Int(g.level()), tracer.Int(unix.MCAST_JOIN_GROUP), tracer.Ptr(request), tracer.Imm(filterGroup+storageSize)))
	if g.Mode == mcastExclude && len(g.Sources) == 0 {
		return
	}
	filter := append(make([]byte, filterGroup), g.raw(g.Group)...)
	filter = binary.LittleEndian.AppendUint32(filter, g.Mode)
	filter = binary.LittleEndian.AppendUint32(filter, uint32(len(g.Sources)))
	for _, source := range g.Sources {
		filter = append(filter, g.raw(source)...)
	}
	at := p.Bytes(filter)
	p.Store(at, tracer.Cell(index))
	expect(p.Call(unix.SYS_SETSOCKOPT, s.open.fd, tracer.Int(g.level()), tracer.Int(mcastMsfilter), tracer.Ptr(at), tracer.Int(len(filter))))
}

// addressText is how messages call an address.
func addressText(domain uint16, a *inetAddress) string {
	ip := netip.AddrFrom16(a.IP)
	if domain == unix.AF_INET {
		ip = netip.AddrFrom4([4]byte(a.IP[:4]))
	}
	if a.Port == 0 {
		return ip.String()
	}
	return netip.AddrPortFrom(ip, a.Port).String()
}
