package resource

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer/procfs"
)

// udpSocket is a socket of UDP over IPv4 or IPv6.
var udpSocket = FileKind{
	Name:    "UDP socket",
	Support: Partial,
	Note: "Address, peer, options, buffer sizes that the program chose, multicast groups with their sources. Datagrams and " +
		"errors that wait are lost, as the network may lose them; the restart says how many bytes. Refused with a packet " +
		"filter, IP options, a datagram that UDP_CORK holds back, or if another process has it, too.",
	Records: []image.Spec{
		image.Row[inetRecord](inetKind, "FD_INET", image.InFiles, "a UDP or TCP socket; its parent is the reference of the open file; INET_GROUPs follow"),
		image.Row[inetGroupRecord](inetGroupKind, "INET_GROUP", image.InFiles, "a multicast group that a socket has joined"),
	},
	Match:  func(v *View, f *procfs.FD) bool { return isOwnInet(v, f, (*socketView).isUDP) },
	Refuse: refuseInet,
	Dump:   dumpUDP,
	Kind:   inetKind,
	Load:   loadInet,
	Skip:   skipInet,
}

const (
	inetKind      image.Kind = 6440
	inetGroupKind image.Kind = 6441
)

type inetRecord struct {
	Domain    uint16 `doc:"2 for IPv4, 10 for IPv6"`
	Type      uint16 `doc:"1 for TCP, 2 for UDP, 262 for MPTCP"`
	State     uint16 `doc:"TCP_* of <netinet/tcp.h>; of UDP 1 if it has a peer, else 7"`
	Connected uint16 `doc:"1 if it is or was connected by TCP: a TCP_CONNECTION follows"`
	Flags     uint32 `fmt:"oct" doc:"open flags"`
	UID       uint32 `doc:"owner, who may share a port by SO_REUSEPORT"`
	GID       uint32
	Backlog   uint32 `doc:"how many connections may wait, of listen(2)"`
	Waiting   uint32 `doc:"bytes of datagrams, or connections, that waited when it was saved; informational"`
	Groups    uint32 `doc:"how many INET_GROUPs follow"`
	Local     inetAddress
	Peer      inetAddress
	Options   []socketOption
}

// isOwnInet tells whether a socket is to be made again. One that somebody gave
// the program as its standard input, output or error is that of the restarter.
func isOwnInet(v *View, f *procfs.FD, is func(*socketView) bool) bool {
	s, err := v.socket(f)
	if err != nil || s == nil || !is(s) {
		return false
	}
	if standardOf(v, f) < 0 {
		return true
	}
	holders, err := v.elsewhere(f.Target)
	return err == nil && len(holders) == 0 && !(s.connected && v.otherEnd(s) == nil)
}

// ends are the addresses of a connection as one of its ends has them, both in
// the form of IPv6: the other end may be a socket of the other family.
type ends struct{ local, peer inetAddress }

// otherEnd returns the socket of the process that is the other end of a TCP
// connection, nil if that is elsewhere.
func (v *View) otherEnd(s *socketView) *procfs.FD {
	if !s.connected || !s.overTCP() {
		return nil
	}
	if v.connections == nil {
		v.connections = make(map[ends]*procfs.FD)
		for i := range v.FDs {
			if o, err := v.socket(&v.FDs[i]); err == nil && o.overTCP() && o.connected {
				v.connections[o.ends()] = &v.FDs[i]
			}
		}
	}
	return v.connections[s.ends().turned()]
}

func (s *socketView) ends() ends {
	return ends{s.local.mapped(s.domain), s.peer.mapped(s.domain)}
}

func (e ends) turned() ends { return ends{e.peer, e.local} }

func refuseInet(v *View, f *procfs.FD) *fault.Error {
	s, err := v.socket(f)
	if err != nil {
		return &fault.Error{Code: fault.Socket, Detail: f.Target, Err: err}
	}
	if refusal := refuseNameless(v, f); refusal != nil {
		return refusal // asked before we have it as well
	}
	fd, err := v.duplicate(f.Number)
	if err != nil {
		return &fault.Error{Code: fault.Socket, Detail: f.Target, Err: err}
	}
	defer unix.Close(fd)
	if refusal := refuseSocket(v, f, fd); refusal != nil {
		return refusal
	}
	if what, err := variableOption(fd, s); err != nil || what != "" {
		return &fault.Error{Code: fault.SocketOption, Detail: what, Err: err}
	}
	if s.overTCP() {
		return refuseTCP(v, f, s, fd)
	}
	corked, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_CORK)
	if err != nil {
		return &fault.Error{Code: fault.SocketPending, Detail: f.Target, Err: err}
	}
	if corked == 0 {
		return nil
	}
	pending, err := unix.IoctlGetInt(fd, unix.TIOCOUTQ)
	if err != nil || pending > 0 {
		return &fault.Error{Code: fault.SocketPending, Detail: fmt.Sprintf("UDP_CORK, %d bytes", pending), Err: err}
	}
	return nil
}

// variableOption names a header option that the socket sends with its packets.
func variableOption(fd int, s *socketView) (string, error) {
	for _, o := range []struct {
		domain, level, name int
		what                string
	}{
		{unix.AF_INET, unix.SOL_IP, unix.IP_OPTIONS, "IP_OPTIONS"},
		{unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_HOPOPTS, "IPV6_HOPOPTS"},
		{unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_RTHDRDSTOPTS, "IPV6_RTHDRDSTOPTS"},
		{unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_RTHDR, "IPV6_RTHDR"},
		{unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, "IPV6_DSTOPTS"},
	} {
		if o.domain != s.domain {
			continue
		}
		n, err := sockopt(fd, o.level, o.name, make([]byte, 2048))
		if s.isMPTCP() && errors.Is(err, unix.EOPNOTSUPP) {
			continue // it takes none of them
		}
		if err != nil {
			return "", fmt.Errorf("read %s: %w", o.what, err)
		}
		if n > 0 {
			return o.what, nil
		}
	}
	return "", nil
}

// describeInet fills what all internet sockets have in common.
func describeInet(s *Saver, f *procfs.FD, fd int) (*socketView, *inetRecord, error) {
	sock, err := s.socket(f)
	if err != nil {
		return nil, nil, err
	}
	if err := s.sameNamespace(fd); err != nil {
		return nil, nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, nil, fmt.Errorf("read owner: %w", err)
	}
	options, err := readOptions(fd, sock.options())
	if err != nil {
		return nil, nil, err
	}
	typ := sock.typ
	if sock.isMPTCP() {
		typ = protocolMPTCP
	}
	return sock, &inetRecord{
		Domain: uint16(sock.domain), Type: uint16(typ), State: unix.BPF_TCP_CLOSE, Flags: f.Flags &^ unix.O_CLOEXEC,
		UID: st.Uid, GID: st.Gid,
		Local: sock.local, Peer: sock.peer, Options: options,
	}, nil
}

func dumpUDP(s *Saver, f *procfs.FD, ref object.Ref) error {
	fd, err := s.duplicate(f.Number)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	sock, rec, err := describeInet(s, f, fd)
	if err != nil {
		return err
	}
	if sock.connected {
		rec.State = unix.BPF_TCP_ESTABLISHED
	}
	waiting, err := receiveMemory(fd)
	if err != nil {
		return err
	}
	rec.Waiting = waiting
	groups, err := s.groups(fd, sock.domain)
	if err != nil {
		return err
	}
	rec.Groups = uint32(len(groups))
	if err := s.W.Put(uint32(ref), rec); err != nil {
		return err
	}
	for i := range groups {
		if err := s.W.Put(uint32(ref), &groups[i]); err != nil {
			return err
		}
	}
	return nil
}

// receiveMemory is how much memory what waits to be read takes (SO_MEMINFO).
func receiveMemory(fd int) (uint32, error) {
	info := make([]byte, 9*4)
	if _, err := sockopt(fd, unix.SOL_SOCKET, unix.SO_MEMINFO, info); err != nil {
		return 0, fmt.Errorf("read SO_MEMINFO: %w", err)
	}
	return leUint32(info), nil // SK_MEMINFO_RMEM_ALLOC
}
