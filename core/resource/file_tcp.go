package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// tcpSocket is a TCP socket over IPv4 or IPv6.
var tcpSocket = FileKind{
	Name:    "TCP socket",
	Support: Partial,
	Note: "Unconnected, bound, listening, connecting (which begins anew), with address, options, backlog. Connections within " +
		"the program are made anew, with what was on its way; those that lead outside are reset, behind what the program had " +
		"not read yet, or kept with `restart --tcp keep` where CAP_NET_ADMIN allows (docs/sockets.md). Those that wait " +
		"to be accepted are given up to 0.3 s to be, and are lost then; the restart says how many. The address must be free again: not the caller's own, and nobody " +
		"else's. Refused with a packet filter, IP options, urgent data, kernel TLS, or if another process has it, too; TCP-MD5 " +
		"and TCP-AO keys are not seen.",
	Records: []image.Spec{
		image.Row[tcpConnectionRecord](tcpConnectionKind, "TCP_CONNECTION", image.InFiles, "what a TCP socket has that was connected; BUFFERs follow"),
		image.Row[tcpRepairRecord](tcpRepairKind, "TCP_REPAIR", image.InFiles, "what makes a connection go on elsewhere"),
	},
	Match:  func(v *View, f *procfs.FD) bool { return isOwnInet(v, f, (*socketView).isTCP) },
	Refuse: refuseInet,
	Dump:   dumpTCP,
	Kind:   inetKind,
	Load:   loadInet,
	Skip:   skipInet,
}

const (
	tcpConnectionKind image.Kind = 6442
	tcpRepairKind     image.Kind = 6443
)

// refuseTCP names what of a TCP socket cannot be saved.
func refuseTCP(v *View, f *procfs.FD, s *socketView, fd int) *fault.Error {
	name := make([]byte, 16) // TCP_ULP_NAME_MAX
	n, err := sockopt(fd, unix.IPPROTO_TCP, unix.TCP_ULP, name)
	if layer := unix.ByteSliceToString(name[:n]); err != nil || n > 0 && !(s.isMPTCP() && layer == "mptcp") {
		return &fault.Error{Code: fault.SocketLayer, Detail: layer, Err: err}
	}
	if state := s.tcp.State; state == unix.BPF_TCP_LISTEN || state == unix.BPF_TCP_SYN_SENT {
		return nil
	}
	events, err := polled(fd)
	if err != nil || events&unix.POLLPRI != 0 {
		return &fault.Error{Code: fault.SocketPending, Detail: "urgent data", Err: err}
	}
	// Where it exists for TCP, reading without taking would move it.
	if offset, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF); err == nil && offset >= 0 {
		return &fault.Error{Code: fault.SocketOption, Detail: "SO_PEEK_OFF"}
	}
	if v.otherEnd(s) == nil || v.mayRepair() && s.isTCP() {
		return nil
	}
	unsent, err := unix.IoctlGetInt(fd, unix.SIOCOUTQNSD)
	if err != nil || unsent > 0 {
		return &fault.Error{Code: fault.SocketUnsent, Detail: fmt.Sprintf("%d bytes", unsent), Err: err}
	}
	return nil
}

// Unaccepted tells whether connections wait for the process to accept them. It is
// known once the process has been surveyed.
func (v *View) Unaccepted() bool {
	for _, s := range v.sockets {
		if s != nil && s.tcp != nil && s.tcp.State == unix.BPF_TCP_LISTEN && s.tcp.Unacked > 0 {
			return true
		}
	}
	return false
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
	connected := true
	switch rec.State {
	case unix.BPF_TCP_LISTEN:
		// tcp_get_info of net/ipv4/tcp.c
		rec.Backlog, rec.Waiting, connected = sock.tcp.Sacked, sock.tcp.Unacked, false
	case unix.BPF_TCP_SYN_SENT:
		connected = false
		if rec.Peer, err = connectingTo(s.View, f, sock.domain); err != nil {
			return err
		}
	case unix.BPF_TCP_CLOSE:
		if connected, err = wasConnected(fd); err != nil {
			return err
		}
	}
	if !connected {
		return s.W.Put(uint32(ref), rec)
	}
	rec.Connected = 1
	// Inherited from who listened; a connection has no use for it.
	rec.Options = slices.DeleteFunc(rec.Options, func(o socketOption) bool {
		return o.Level == unix.IPPROTO_TCP && o.Name == unix.TCP_FASTOPEN
	})
	if sock.isMPTCP() {
		rec.Options = withoutEarly(rec.Options)
	}
	c, err := describeConnection(s, f, sock, fd)
	if err != nil {
		return err
	}
	if err := s.W.Put(uint32(ref), rec); err != nil {
		return err
	}
	return c.put(s, ref)
}

// loadTCP stages a TCP socket. While sockets are made all may have their ports
// together: connections hold that of the server, and those of the dead process
// still do (TIME_WAIT). What the program had said of SO_REUSEADDR, and who
// listens, follows when all are there.
func (s *inetSocket) loadTCP(b *Builder, ref object.Ref) (err error) {
	if s.protocol, err = b.protocolOf(s.kind&mptcp != 0); err != nil {
		return err
	}
	if s.Connected != 0 {
		return s.loadConnection(b, ref)
	}
	if err := s.endTimeWait(b); err != nil {
		return err
	}
	s.make(b)
	s.own(b)
	s.set(b, isEarly)
	s.reuse(b, 1)
	switch s.State {
	case unix.BPF_TCP_CLOSE:
		s.bind(b)
	case unix.BPF_TCP_SYN_SENT:
		s.floating = true
	case unix.BPF_TCP_LISTEN:
		s.bind(b)
		if s.Waiting > 0 {
			b.Warn("%s: %d connections that waited to be accepted are lost", s.name, s.Waiting)
		}
	default:
		return badImage(fault.ImageValue, s.name, "state %d", s.State)
	}
	s.set(b, isLate)
	b.tcp = append(b.tcp, s)
	return nil
}

func (s *inetSocket) loadConnection(b *Builder, ref object.Ref) error {
	c, err := readConnection(b, ref)
	if err != nil {
		return err
	}
	switch {
	case c.Flags&insideConnection != 0:
		return s.loadInside(b, c)
	case b.Policy.TCP != KeepTCP || s.State == unix.BPF_TCP_CLOSE:
		return s.loadBroken(b, c)
	case s.kind&mptcp != 0 && c.Flags&(sentFIN|gotFIN) == 0:
		return &fault.Error{Code: fault.MPTCPKeep, Object: s.name}
	case s.kind&mptcp == 0 && s.State == unix.BPF_TCP_ESTABLISHED:
		return s.loadKept(b, c)
	}
	b.Warn("%s: connection is about to end and is not kept", s.name)
	return s.loadBroken(b, c)
}

// reuse stages the setting of SO_REUSEADDR.
func (s *inetSocket) reuse(b *Builder, value uint32) {
	b.setInt(s.open.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, value, s.name)
}

// setInt stages an option of the size of an int.
func (b *Builder) setInt(fd tracer.Arg, level, name int, value uint32, object string) {
	b.Expect(setsockopt(b.Stage(), fd, level, name, binary.LittleEndian.AppendUint32(nil, value)), fault.SocketState, object)
}

func setsockopt(p *tracer.Program, fd tracer.Arg, level, name int, value []byte) *tracer.Row {
	return p.Call(unix.SYS_SETSOCKOPT, fd, tracer.Int(level), tracer.Int(name), tracer.Ptr(p.Bytes(value)), tracer.Int(len(value)))
}

// finishTCP stages what has to wait until all sockets have their addresses.
func (b *Builder) finishTCP() error {
	if err := b.finishPairs(); err != nil {
		return err
	}
	for _, s := range b.tcp {
		if s.State == unix.BPF_TCP_LISTEN {
			b.Expect(b.Stage().Call(unix.SYS_LISTEN, s.open.fd, tracer.Imm(s.Backlog)), fault.SocketAddress, s.name)
		}
	}
	for _, s := range b.tcp {
		if !s.kept {
			s.set(b, func(o *option) bool { return o.is(unix.SOL_SOCKET, unix.SO_REUSEADDR) })
		}
	}
	return b.connectAgain()
}

// connectAgain begins anew what the program waits for. It comes last, since
// others see it.
func (b *Builder) connectAgain() error {
	begun := make(map[*inetSocket]*tracer.Row)
	for _, s := range b.tcp {
		if s.State == unix.BPF_TCP_SYN_SENT {
			p := b.Stage()
			p.Fcntl(s.open.fd, unix.F_SETFL, tracer.Imm(unix.O_NONBLOCK))
			begun[s] = s.connect(p, s.open.fd, &s.Peer).Tolerate()
			b.setFlags(s.open, s.Flags)
		}
	}
	if len(begun) == 0 {
		return nil
	}
	if err := b.Flush(); err != nil {
		return err
	}
	for s, row := range begun {
		if err := row.Err(); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			return &fault.Error{Code: fault.SocketConnect, Object: s.name, Err: err}
		}
	}
	return nil
}
