package resource

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// inetSocket is an internet socket of the image in the making.
type inetSocket struct {
	*inetRecord
	kind     sockets
	rows     []*option // of rec.Options
	name     string    // in messages
	open     *stagedOpen
	protocol int  // to make it by; 0 for TCP or UDP
	kept     bool // in repair mode until the commit
	floating bool // its address may be another one now
}

func loadInet(b *Builder, ref object.Ref) (*stagedOpen, error) {
	s, err := readInet(b, ref)
	if err != nil {
		return nil, err
	}
	if s.kind&stream != 0 {
		err = s.loadTCP(b, ref)
	} else {
		err = s.loadUDP(b, ref)
	}
	if err != nil {
		return nil, err
	}
	b.setFlags(s.open, s.Flags)
	s.open.verify = func(f *procfs.FD) error { return s.verify(b, f) }
	return s.open, nil
}

// skipInet reads what another descriptor takes the place of.
func skipInet(b *Builder, ref object.Ref) (*stagedOpen, error) {
	s, err := readInet(b, ref)
	if err != nil {
		return nil, err
	}
	if s.Connected != 0 {
		if _, err := readConnection(b, ref); err != nil {
			return nil, err
		}
	}
	for range s.Groups {
		if _, _, err := image.Expect[inetGroupRecord](b.R); err != nil {
			return nil, err
		}
	}
	return &stagedOpen{fd: nothing, path: s.name, flags: s.Flags}, nil
}

// readInet reads and checks the record of a socket.
func readInet(b *Builder, ref object.Ref) (*inetSocket, error) {
	rec, head, err := image.Expect[inetRecord](b.R)
	if err != nil {
		return nil, err
	}
	s := &inetSocket{inetRecord: rec, kind: dgram, name: fmt.Sprintf("socket %v", addressText(rec.Domain, &rec.Local))}
	switch {
	case head.Parent != uint32(ref) || rec.Connected > 1 || rec.Connected != 0 && rec.Type == unix.SOCK_DGRAM:
		return nil, badImage(fault.ImageValue, s.name, "owner %d, type %d", head.Parent, rec.Type)
	case rec.Domain != unix.AF_INET && rec.Domain != unix.AF_INET6, len(rec.Options) > len(socketOptions):
		return nil, badImage(fault.ImageValue, s.name, "domain %d, %d options", rec.Domain, len(rec.Options))
	}
	switch rec.Type {
	case unix.SOCK_DGRAM:
	case unix.SOCK_STREAM:
		s.kind = stream
	case protocolMPTCP:
		s.kind = stream | mptcp
	default:
		return nil, badImage(fault.ImageValue, s.name, "type %d", rec.Type)
	}
	if rec.Domain == unix.AF_INET6 {
		s.kind |= ipv6
	}
	for i := range rec.Options {
		row, err := rowOf(&rec.Options[i], s.kind)
		if err != nil {
			return nil, err
		}
		s.rows = append(s.rows, row)
	}
	return s, nil
}

// make stages the making of the socket.
func (s *inetSocket) make(b *Builder) {
	typ := unix.SOCK_DGRAM
	if s.kind&stream != 0 {
		typ = unix.SOCK_STREAM
	}
	s.open = &stagedOpen{fd: b.newSocket(int(s.Domain), typ|unix.SOCK_NONBLOCK, s.protocol, s.name), path: s.name, flags: s.Flags}
}

// newSocket stages the making of a socket.
func (b *Builder) newSocket(domain, typ, protocol int, name string) tracer.FD {
	row := b.Stage().Call(unix.SYS_SOCKET, tracer.Int(domain), tracer.Int(typ|unix.SOCK_CLOEXEC), tracer.Int(protocol))
	b.Expect(row, fault.SocketState, name)
	return b.fds.take(row)
}

// set stages the options that want takes.
func (s *inetSocket) set(b *Builder, want func(o *option) bool) {
	s.eachOption(func(o *option, value []byte) {
		if want(o) {
			b.Expect(b.setOption(b.Stage(), s.open.fd, o, value), fault.SocketState, s.name)
		}
	})
}

func (s *inetSocket) eachOption(do func(o *option, value []byte)) {
	for i, o := range s.rows {
		do(o, s.Options[i].Value[:])
	}
}

func isEarly(o *option) bool { return o.early }
func isLate(o *option) bool  { return !o.early }

// bind stages bind(2), if the socket had a port.
func (s *inetSocket) bind(b *Builder) {
	if s.Local.Port == 0 {
		return
	}
	local := s.Local
	if s.boundByConnect() {
		local.IP = [16]byte{}
	}
	b.Expect(addressed(b.Stage(), unix.SYS_BIND, s.open.fd, int(s.Domain), &local), fault.SocketAddress, s.name)
}

// boundByConnect tells whether an IPv6 socket has its address from connect(2):
// bind(2) to any but :: makes it IPV6_V6ONLY (__inet6_bind of
// net/ipv6/af_inet6.c).
func (s *inetSocket) boundByConnect() bool {
	return s.Domain == unix.AF_INET6 && s.State != unix.BPF_TCP_CLOSE && !s.v6Only()
}

func (s *inetSocket) v6Only() bool { return s.isSet(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY) }

// isSet tells whether the socket had an option switched on.
func (s *inetSocket) isSet(level, name uint32) bool {
	return slices.ContainsFunc(s.Options, func(o socketOption) bool {
		return o.Level == level && o.Name == name && o.Value[0] != 0
	})
}

// connect adds connect(2).
func (s *inetSocket) connect(p *tracer.Program, fd tracer.Arg, to *inetAddress) *tracer.Row {
	return addressed(p, unix.SYS_CONNECT, fd, int(s.Domain), to)
}

// addressed adds a call that takes a socket and an address.
func addressed(p *tracer.Program, nr uintptr, fd tracer.Arg, domain int, a *inetAddress) *tracer.Row {
	raw := a.raw(domain)
	return p.Call(nr, fd, tracer.Ptr(p.Bytes(raw)), tracer.Int(len(raw)))
}

func (s *inetSocket) own(b *Builder) { b.ownSocket(s.open, s.UID, s.GID) }

func (s *inetSocket) loadUDP(b *Builder, ref object.Ref) error {
	s.make(b)
	s.own(b)
	s.set(b, isEarly)
	s.set(b, isLate)
	s.bind(b)
	if err := s.join(b, ref); err != nil {
		return err
	}
	switch s.State {
	case unix.BPF_TCP_CLOSE:
	case unix.BPF_TCP_ESTABLISHED:
		b.Expect(s.connect(b.Stage(), s.open.fd, &s.Peer), fault.SocketConnect, s.name)
	default:
		return badImage(fault.ImageValue, s.name, "state %d", s.State)
	}
	if s.Waiting > 0 {
		b.Warn("%s: %d bytes of datagrams that waited are lost", s.name, s.Waiting)
	}
	return nil
}

// verify looks at what the kernel has made of it all. A connection that is
// gone, or is yet to come, may have another address.
func (s *inetSocket) verify(b *Builder, f *procfs.FD) error {
	err := b.withSocket(tracer.FD(f.Number), func(fd int) error {
		same := func(o *option) bool { return !s.kept || !o.is(unix.SOL_SOCKET, unix.SO_REUSEADDR) } // not in repair mode
		if err := sameOptions(fd, s.kind, s.Options, same); err != nil || s.floating {
			return err
		}
		if err := s.sameProtocol(fd); err != nil {
			return err
		}
		return s.sameName(fd)
	})
	if err != nil {
		return &fault.Error{Code: fault.SocketState, Object: s.name, Err: err}
	}
	return nil
}

// sameProtocol makes sure that it is an MPTCP socket if it was one. The other
// end of a connection may have had it fall back to TCP.
func (s *inetSocket) sameProtocol(fd int) error {
	if s.protocol == 0 || s.Connected != 0 {
		return nil
	}
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err == nil && protocol != s.protocol {
		err = fmt.Errorf("protocol is %d: %w", protocol, unix.EPROTONOSUPPORT)
	}
	return err
}

func (s *inetSocket) sameName(fd int) error {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	if now := inetAddressOf(name); now != s.Local {
		return fmt.Errorf("address is %s: %w", addressText(s.Domain, &now), unix.EADDRNOTAVAIL)
	}
	return nil
}
