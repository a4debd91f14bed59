package resource

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// mptcpSocket is a TCP socket that may use several paths at once. The peer of
// one that was accepted speaks MPTCP, too: for any other, accept(2) gives a
// plain TCP socket (mptcp_stream_accept of net/mptcp/protocol.c).
var mptcpSocket = FileKind{
	Name:    "MPTCP socket",
	Support: Partial,
	Note: "As TCP sockets, and as one where the kernel of the restart has no MPTCP, which it says. A connection that leads outside " +
		"is reset; it cannot be kept. Those within the program are made anew, unless data waits that the receiver has no room for. " +
		"Of a connection, the options that count before it is made (SO_BINDTODEVICE, SO_REUSEADDR and the like) are not kept.",
	Match:  func(v *View, f *procfs.FD) bool { return isOwnInet(v, f, (*socketView).isMPTCP) },
	Refuse: refuseInet,
	Dump:   dumpTCP,
	Kind:   inetKind,
	Load:   loadInet,
	Skip:   skipInet,
}

// protocolMPTCP is IPPROTO_MPTCP, since Linux 5.6; the type of its sockets is
// that of TCP, and so it stands for both in the image.
const protocolMPTCP = 262

func (s *socketView) isMPTCP() bool {
	return s.isInternet() && s.typ == unix.SOCK_STREAM && s.protocol == protocolMPTCP
}

// overTCP tells whether a socket has the calls and options of TCP.
func (s *socketView) overTCP() bool { return s.isTCP() || s.isMPTCP() }

// readTCPInfo reads the state of a socket. Of MPTCP it is that of the first
// path, or nothing when that is gone; settleState puts it right.
func (s *socketView) readTCPInfo(fd int) (err error) {
	s.tcp, err = unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if s.isMPTCP() && errors.Is(err, unix.EINVAL) {
		s.tcp, err = new(unix.TCPInfo), nil
	}
	return err
}

// settleState makes the state that of the MPTCP socket itself, which the kernel
// tells by mptcp_diag alone, a module that few have: whether it is connected.
// Which end has said its last, mptcpEnds finds.
func (s *socketView) settleState() {
	switch {
	case !s.isMPTCP():
	case s.connected:
		s.tcp.State = unix.BPF_TCP_ESTABLISHED
	case s.tcp.State != unix.BPF_TCP_LISTEN && s.tcp.State != unix.BPF_TCP_SYN_SENT:
		s.tcp.State = unix.BPF_TCP_CLOSE
	}
}

// mptcpEnds tells which ends of a connection have said that no more will come.
// Sending nothing fails after shutdown(2), and is not noticed before.
func mptcpEnds(fd int, events int16) (flags uint32, err error) {
	if events&unix.POLLRDHUP != 0 {
		flags |= gotFIN
	}
	if events&unix.POLLERR != 0 {
		return flags, nil // the call would take the error away
	}
	err = unix.Sendto(fd, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, nil)
	switch {
	case errors.Is(err, unix.EPIPE):
		return flags | sentFIN, nil
	case err != nil && !errors.Is(err, unix.EAGAIN):
		return 0, fmt.Errorf("ask whether a connection is shut down: %w", err)
	}
	return flags, nil
}

// peekMPTCP copies what waits to be read, of which the kernel says n: that
// counts the end of the stream as a byte. Reading where nothing is would take
// away an error that waits.
func peekMPTCP(fd, n int) ([]byte, error) {
	memory, err := receiveMemory(fd)
	if err != nil || memory == 0 {
		return nil, err
	}
	data := make([]byte, n)
	got, _, err := unix.Recvfrom(fd, data, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if err == nil && got < n-1 {
		err = unix.EIO
	}
	if err != nil {
		return nil, fmt.Errorf("read %d bytes of queue, got %d: %w", n, got, err)
	}
	return data[:got], nil
}

// awaitEnd stages the waiting for the end of a connection that the other end
// has reset or closed: a worker of the kernel takes note of it. One that knows
// of it has no peer, as before.
func (s *inetSocket) awaitEnd(b *Builder) { b.wait(s.open.fd, unix.POLLRDHUP) }

// optionName tells one option from all others.
type optionName struct{ level, name int }

// mptcpOptions are those that MPTCP takes (net/mptcp/sockopt.c). After it has
// fallen back to TCP the kernel tells all those of TCP, but a socket that is
// made anew does not take them.
var mptcpOptions = []optionName{
	{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY},
	{unix.SOL_SOCKET, unix.SO_REUSEADDR},
	{unix.SOL_SOCKET, unix.SO_REUSEPORT},
	{unix.SOL_SOCKET, unix.SO_BINDTODEVICE},
	{unix.SOL_SOCKET, unix.SO_MARK},
	{unix.SOL_SOCKET, unix.SO_SNDBUF},
	{unix.SOL_SOCKET, unix.SO_RCVBUF},
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE},
	{unix.SOL_SOCKET, unix.SO_LINGER},
	{unix.SOL_SOCKET, unix.SO_RCVLOWAT},
	{unix.SOL_SOCKET, unix.SO_RCVTIMEO},
	{unix.SOL_SOCKET, unix.SO_SNDTIMEO},
	{unix.SOL_SOCKET, unix.SO_TIMESTAMP},
	{unix.SOL_SOCKET, unix.SO_TIMESTAMPNS},
	{unix.SOL_SOCKET, soTimestampNew},
	{unix.SOL_SOCKET, soTimestampNSNew},
	{unix.SOL_SOCKET, soTimestamping},
	{unix.SOL_SOCKET, unix.SO_BUSY_POLL},
	{unix.SOL_SOCKET, unix.SO_PREFER_BUSY_POLL},
	{unix.SOL_SOCKET, unix.SO_PRIORITY},
	{unix.SOL_IP, unix.IP_FREEBIND},
	{unix.SOL_IP, unix.IP_TRANSPARENT},
	{unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT},
	{unix.SOL_IP, unix.IP_LOCAL_PORT_RANGE},
	{unix.SOL_IP, unix.IP_TOS},
	{unix.IPPROTO_TCP, unix.TCP_NODELAY},
	{unix.IPPROTO_TCP, unix.TCP_CORK},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
	{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT},
	{unix.IPPROTO_TCP, unix.TCP_CONGESTION},
	{unix.IPPROTO_TCP, unix.TCP_FASTOPEN},
	{unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT},
	{unix.IPPROTO_TCP, unix.TCP_FASTOPEN_NO_COOKIE},
	{unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT},
	{unix.IPPROTO_TCP, unix.TCP_INQ},
}

func (o *option) ofMPTCP() bool {
	return slices.Contains(mptcpOptions, optionName{o.level, o.name})
}

// beforeMPTCP tells of an option that a connection of MPTCP no longer takes.
func (o *option) beforeMPTCP() bool {
	taken := o.is(unix.SOL_SOCKET, unix.SO_MARK) || o.is(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY) // by whom it is made
	return o.early && !taken || o.is(unix.IPPROTO_TCP, unix.TCP_FASTOPEN_NO_COOKIE)
}

// withoutEarly drops from the options of a connection those that it would not
// take when it is made again.
func withoutEarly(options []socketOption) []socketOption {
	return slices.DeleteFunc(options, func(saved socketOption) bool {
		return slices.ContainsFunc(socketOptions, func(o option) bool {
			return o.is(int(saved.Level), int(saved.Name)) && o.beforeMPTCP()
		})
	})
}

// hasMPTCP has the task find out whether it may make sockets of MPTCP: the
// kernel may be built without, and net.mptcp.enabled is that of its network
// namespace.
func (b *Builder) hasMPTCP() (bool, error) {
	if b.mptcp != nil {
		return *b.mptcp, nil
	}
	if err := b.Flush(); err != nil {
		return false, err
	}
	p := b.Remote.Program()
	socket := p.Call(unix.SYS_SOCKET, tracer.Int(unix.AF_INET), tracer.Int(unix.SOCK_STREAM|unix.SOCK_CLOEXEC), tracer.Imm(protocolMPTCP)).Tolerate()
	p.Close(socket).Tolerate()
	if err := p.Run(); err != nil {
		return false, fmt.Errorf("ask for MPTCP: %w", err)
	}
	has := socket.Err() == nil
	if err := socket.Err(); err != nil && !errors.Is(err, unix.ENOPROTOOPT) && !errors.Is(err, unix.EPROTONOSUPPORT) {
		return false, &fault.Error{Code: fault.SocketState, Object: "a socket of MPTCP", Err: err}
	}
	if !has {
		b.Warn("there is no MPTCP here (net.mptcp.enabled): TCP takes its place")
	}
	b.mptcp = &has
	return has, nil
}

// protocolOf is what socket(2) is asked for: 0 is TCP or UDP, by the type.
func (b *Builder) protocolOf(wantsMPTCP bool) (int, error) {
	if !wantsMPTCP {
		return 0, nil
	}
	has, err := b.hasMPTCP()
	if err != nil || !has {
		return 0, err
	}
	return protocolMPTCP, nil
}
