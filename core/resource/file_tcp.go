package resource

import (
	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// tcpSocket is a TCP socket over IPv4 or IPv6.
var tcpSocket = FileKind{
	Name:    "TCP socket",
	Support: Partial,
	Note: "Unconnected, bound, listening, with address, options, backlog. Connections that wait to be accepted are " +
		"lost; the restart says how many. The address must be free again: not the caller's own, and nobody else's.",
	Match:  func(v *View, f *procfs.FD) bool { return isOwnInet(v, f, (*socketView).isTCP) },
	Refuse: refuseInet,
	Dump:   dumpTCP,
	Kind:   inetKind,
	Load:   loadInet,
	Skip:   skipInet,
}

// refuseTCP names what of a TCP socket cannot be saved.
func refuseTCP(v *View, f *procfs.FD, s *socketView, fd int) *fault.Error {
	name := make([]byte, 16) // TCP_ULP_NAME_MAX
	if n, err := sockopt(fd, unix.IPPROTO_TCP, unix.TCP_ULP, name); err != nil || n > 0 {
		return &fault.Error{Code: fault.SocketLayer, Detail: unix.ByteSliceToString(name[:n]), Err: err}
	}
	if state := s.tcp.State; state != unix.BPF_TCP_CLOSE && state != unix.BPF_TCP_LISTEN {
		return &fault.Error{Code: fault.Socket, Detail: "TCP connection"}
	}
	return nil
}

func dumpTCP(s *Saver, f *procfs.FD, ref object.Ref) error {
	fd, err := s.duplicate(f.Number)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	sock, rec, err := describeInet(s, f, fd)
	if err != nil {
		return err
	}
	rec.State = uint16(sock.tcp.State)
	if rec.State == unix.BPF_TCP_LISTEN {
		// tcp_get_info of net/ipv4/tcp.c
		rec.Backlog, rec.Waiting = sock.tcp.Sacked, sock.tcp.Unacked
	}
	return s.W.Put(uint32(ref), rec)
}

// loadTCP stages a socket with its address. While sockets are made all may
// have their ports together: connections hold that of the server, and those
// of the dead process still do (TIME_WAIT). What the program had said of
// SO_REUSEADDR, and who listens, follows when all are there.
func (s *inetSocket) loadTCP(b *Builder) error {
	s.set(b, isEarly)
	s.reuse(b, 1)
	s.bind(b)
	s.set(b, isLate)
	switch s.State {
	case unix.BPF_TCP_CLOSE:
	case unix.BPF_TCP_LISTEN:
		if s.Waiting > 0 {
			b.Warn("%s: %d connections that waited to be accepted are lost", s.name, s.Waiting)
		}
	default:
		return badImage(fault.ImageValue, s.name, "state %d", s.State)
	}
	b.tcp = append(b.tcp, s)
	return nil
}

// reuse stages the setting of SO_REUSEADDR.
func (s *inetSocket) reuse(b *Builder, value uint32) {
	b.setInt(s.open.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, value, s.name)
}

// setInt stages an option of the size of an int.
func (b *Builder) setInt(fd tracer.Arg, level, name int, value uint32, object string) {
	p := b.Stage()
	at := p.Bytes([]byte{0, 0, 0, 0, 0, 0, 0, 0})
	p.Store(at, tracer.Imm(value))
	b.Expect(p.Call(unix.SYS_SETSOCKOPT, fd, tracer.Int(level), tracer.Int(name), tracer.Ptr(at), tracer.Imm(4)), fault.SocketState, object)
}

// finishTCP stages what has to wait until all sockets have their addresses.
func (b *Builder) finishTCP() error {
	for _, s := range b.tcp {
		if s.State == unix.BPF_TCP_LISTEN {
			b.Expect(b.Stage().Call(unix.SYS_LISTEN, s.open.fd, tracer.Imm(s.Backlog)), fault.SocketAddress, s.name)
		}
	}
	for _, s := range b.tcp {
		s.set(b, func(o *option) bool { return o.is(unix.SOL_SOCKET, unix.SO_REUSEADDR) })
	}
	return nil
}
