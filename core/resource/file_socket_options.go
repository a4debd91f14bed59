package resource

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
)

// socketOption is one option of a socket, as getsockopt(2) tells it.
type socketOption struct {
	Level uint32
	Name  uint32   `doc:"SO_*, IP_*, TCP_* and the like"`
	Value [16]byte `doc:"of which the option has as many bytes as getsockopt(2) says"`
}

// option is a row of the table of options.
type option struct {
	level, name, size int
	of                sockets
	when              func(value []byte) bool // is to be saved; nil for always
	early             bool                    // counts for bind(2), or cannot be set after it
}

// sockets says which sockets have an option.
type sockets uint8

const (
	stream sockets = 1 << iota
	dgram
	netlink
	ipv6
	mptcp     // of those of a stream, the mptcpOptions
	anyNet    = stream | dgram
	anySocket = anyNet | netlink
)

// Defaults that are the same everywhere need not be saved. A default that a
// sysctl sets is saved as the value that it had.
func notZero(value []byte) bool  { return !allBytes(value, 0) }
func notMinus(value []byte) bool { return !allBytes(value, 0xff) }

func allBytes(value []byte, b byte) bool {
	return !slices.ContainsFunc(value, func(x byte) bool { return x != b })
}

// Options of <asm-generic/socket.h>, <linux/in.h>, <linux/in6.h>, <linux/tcp.h>
// and <linux/udp.h> that x/sys does not name.
const (
	soTimestampNew   = 63
	soTimestampNSNew = 64
	soTimestamping   = 65 // SO_TIMESTAMPING_NEW
	soBufLock        = 72
	soTxrehash       = 74
	soRcvMark        = 75
	soRcvPriority    = 82
	ipMulticastAll6  = 29
	ipRecvErrRFC6    = 31
	ipFlowInfo       = 11
	ipFlowInfoSend   = 33
	tcpTxDelay       = 37
	tcpRTOMax        = 44
	tcpRTOMin        = 45
	tcpDelackMax     = 46
	udpNoCheck6Tx    = 101
	udpNoCheck6Rx    = 102
)

// socketOptions is the table of options that are kept, in the order in which
// they are set: the type of service also sets the priority.
var socketOptions = []option{
	{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 4, anyNet | ipv6, nil, true},
	{unix.SOL_SOCKET, unix.SO_REUSEADDR, 4, anyNet, nil, true},
	{unix.SOL_SOCKET, unix.SO_REUSEPORT, 4, anyNet, notZero, true},
	{unix.SOL_SOCKET, unix.SO_BINDTODEVICE, 16, anyNet, notZero, true},
	{unix.SOL_SOCKET, unix.SO_MARK, 4, anySocket, notZero, true},
	{unix.SOL_IP, unix.IP_FREEBIND, 4, anyNet, notZero, true},
	{unix.SOL_IP, unix.IP_TRANSPARENT, 4, anyNet, notZero, true},
	{unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 4, anyNet, notZero, true},
	{unix.SOL_IP, unix.IP_LOCAL_PORT_RANGE, 4, anyNet, notZero, true},
	{unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 4, stream, notZero, true},

	{unix.SOL_SOCKET, unix.SO_SNDBUF, 4, anySocket, notZero, false}, // notZero: if the program chose it
	{unix.SOL_SOCKET, unix.SO_RCVBUF, 4, anySocket, notZero, false},
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 4, anyNet, notZero, false},
	{unix.SOL_SOCKET, unix.SO_OOBINLINE, 4, anyNet, notZero, false},
	{unix.SOL_SOCKET, unix.SO_LINGER, 8, anyNet, notZero, false},
	{unix.SOL_SOCKET, unix.SO_BROADCAST, 4, anyNet, notZero, false},
	{unix.SOL_SOCKET, unix.SO_DONTROUTE, 4, anyNet, notZero, false},
	{unix.SOL_SOCKET, unix.SO_RCVLOWAT, 4, anySocket, nil, false},
	{unix.SOL_SOCKET, unix.SO_RCVTIMEO, 16, anySocket, notZero, false},
	{unix.SOL_SOCKET, unix.SO_SNDTIMEO, 16, anySocket, notZero, false},
	{unix.SOL_SOCKET, unix.SO_TIMESTAMP, 4, anySocket, notZero, false},
	{unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 4, anySocket, notZero, false},
	{unix.SOL_SOCKET, soTimestampNew, 4, anySocket, notZero, false},
	{unix.SOL_SOCKET, soTimestampNSNew, 4, anySocket, notZero, false},
	{unix.SOL_SOCKET, soTimestamping, 8, anyNet, notZero, false},
	{unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 4, anySocket, notZero, false},
	{unix.SOL_SOCKET, unix.SO_NO_CHECK, 4, dgram, notZero, false},
	{unix.SOL_SOCKET, unix.SO_PEEK_OFF, 4, anyNet, notMinus, false},
	{unix.SOL_SOCKET, unix.SO_SELECT_ERR_QUEUE, 4, anyNet, notZero, false},
	{unix.SOL_SOCKET, unix.SO_BUSY_POLL, 4, anyNet, notZero, false},
	{unix.SOL_SOCKET, unix.SO_PREFER_BUSY_POLL, 4, anyNet, notZero, false},
	{unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, 8, anyNet, notMinus, false},
	{unix.SOL_SOCKET, unix.SO_ZEROCOPY, 4, anyNet, notZero, false},
	{unix.SOL_SOCKET, unix.SO_TXTIME, 8, dgram, notZero, false},
	{unix.SOL_SOCKET, unix.SO_RESERVE_MEM, 4, anyNet, notZero, false},
	{unix.SOL_SOCKET, soTxrehash, 4, stream, nil, false},
	{unix.SOL_SOCKET, soRcvMark, 4, anyNet, notZero, false},
	{unix.SOL_SOCKET, soRcvPriority, 4, anyNet, notZero, false},

	{unix.SOL_IP, unix.IP_TOS, 4, anyNet, notZero, false},
	{unix.SOL_IP, unix.IP_TTL, 4, anyNet, nil, false},
	{unix.SOL_IP, unix.IP_MTU_DISCOVER, 4, anyNet, nil, false},
	{unix.SOL_IP, unix.IP_RECVERR, 4, anyNet, notZero, false},
	{unix.SOL_IP, unix.IP_RECVERR_RFC4884, 4, anyNet, notZero, false},
	{unix.SOL_IP, unix.IP_PKTINFO, 4, anyNet, notZero, false},
	{unix.SOL_IP, unix.IP_RECVTTL, 4, anyNet, notZero, false},
	{unix.SOL_IP, unix.IP_RECVTOS, 4, anyNet, notZero, false},
	{unix.SOL_IP, unix.IP_RECVOPTS, 4, anyNet, notZero, false},
	{unix.SOL_IP, unix.IP_RETOPTS, 4, anyNet, notZero, false},
	{unix.SOL_IP, unix.IP_PASSSEC, 4, anyNet, notZero, false},
	{unix.SOL_IP, unix.IP_RECVORIGDSTADDR, 4, anyNet, notZero, false},
	{unix.SOL_IP, unix.IP_CHECKSUM, 4, anyNet, notZero, false},
	{unix.SOL_IP, unix.IP_RECVFRAGSIZE, 4, dgram, notZero, false},
	{unix.SOL_IP, unix.IP_MINTTL, 4, anyNet, notZero, false},
	{unix.SOL_IP, unix.IP_UNICAST_IF, 4, dgram, notZero, false},
	{unix.SOL_IP, unix.IP_MULTICAST_TTL, 4, dgram, nil, false},
	{unix.SOL_IP, unix.IP_MULTICAST_LOOP, 4, dgram, nil, false},
	{unix.SOL_IP, unix.IP_MULTICAST_IF, 4, dgram, notZero, false},
	{unix.SOL_IP, unix.IP_MULTICAST_ALL, 4, dgram, nil, false},

	{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 4, anyNet | ipv6, nil, false},
	{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 4, dgram | ipv6, nil, false},
	{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 4, dgram | ipv6, nil, false},
	{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, 4, dgram | ipv6, notZero, false},
	{unix.IPPROTO_IPV6, ipMulticastAll6, 4, dgram | ipv6, nil, false},
	{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_IF, 4, dgram | ipv6, notZero, false},
	{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, 4, anyNet | ipv6, nil, false},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 4, anyNet | ipv6, notZero, false},
	{unix.IPPROTO_IPV6, ipRecvErrRFC6, 4, anyNet | ipv6, notZero, false},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 4, anyNet | ipv6, notZero, false},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 4, anyNet | ipv6, notZero, false},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 4, anyNet | ipv6, notZero, false},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVRTHDR, 4, anyNet | ipv6, notZero, false},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVHOPOPTS, 4, anyNet | ipv6, notZero, false},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVDSTOPTS, 4, anyNet | ipv6, notZero, false},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVPATHMTU, 4, dgram | ipv6, notZero, false},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVORIGDSTADDR, 4, anyNet | ipv6, notZero, false},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVFRAGSIZE, 4, dgram | ipv6, notZero, false},
	{unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 4, anyNet | ipv6, notZero, false},
	{unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 4, dgram | ipv6, notZero, false},
	{unix.IPPROTO_IPV6, ipFlowInfo, 4, anyNet | ipv6, notZero, false},
	{unix.IPPROTO_IPV6, ipFlowInfoSend, 4, anyNet | ipv6, notZero, false},
	{unix.IPPROTO_IPV6, unix.IPV6_AUTOFLOWLABEL, 4, anyNet | ipv6, nil, false},
	{unix.IPPROTO_IPV6, unix.IPV6_ADDR_PREFERENCES, 4, anyNet | ipv6, nil, false},
	{unix.IPPROTO_IPV6, unix.IPV6_MINHOPCOUNT, 4, anyNet | ipv6, notZero, false},

	{unix.IPPROTO_TCP, unix.TCP_NODELAY, 4, stream, notZero, false},
	{unix.IPPROTO_TCP, unix.TCP_CORK, 4, stream, notZero, false},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 4, stream, nil, false},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 4, stream, nil, false},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4, stream, nil, false},
	{unix.IPPROTO_TCP, unix.TCP_SYNCNT, 4, stream, nil, false},
	{unix.IPPROTO_TCP, unix.TCP_LINGER2, 4, stream, nil, false},
	{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 4, stream, notZero, false},
	{unix.IPPROTO_TCP, unix.TCP_CONGESTION, 16, stream, nil, false},
	{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 4, stream, notZero, false},
	{unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 4, stream, notZero, false},
	{unix.IPPROTO_TCP, unix.TCP_FASTOPEN_NO_COOKIE, 4, stream, notZero, false},
	{unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 4, stream, notZero, false},
	{unix.IPPROTO_TCP, unix.TCP_THIN_LINEAR_TIMEOUTS, 4, stream, notZero, false},
	{unix.IPPROTO_TCP, unix.TCP_SAVE_SYN, 4, stream, notZero, false},
	{unix.IPPROTO_TCP, unix.TCP_INQ, 4, stream, notZero, false},
	{unix.IPPROTO_TCP, tcpTxDelay, 4, stream, notZero, false},
	{unix.IPPROTO_TCP, tcpRTOMax, 4, stream, nil, false},
	{unix.IPPROTO_TCP, tcpRTOMin, 4, stream, nil, false},
	{unix.IPPROTO_TCP, tcpDelackMax, 4, stream, nil, false},

	{unix.IPPROTO_UDP, unix.UDP_CORK, 4, dgram, notZero, false},
	{unix.IPPROTO_UDP, unix.UDP_ENCAP, 4, dgram, notZero, false},
	{unix.IPPROTO_UDP, udpNoCheck6Tx, 4, dgram, notZero, false},
	{unix.IPPROTO_UDP, udpNoCheck6Rx, 4, dgram, notZero, false},
	{unix.IPPROTO_UDP, unix.UDP_SEGMENT, 4, dgram, notZero, false},
	{unix.IPPROTO_UDP, unix.UDP_GRO, 4, dgram, notZero, false},

	{unix.SOL_SOCKET, unix.SO_PASSCRED, 4, netlink, notZero, false},
	{unix.SOL_NETLINK, unix.NETLINK_PKTINFO, 4, netlink, notZero, false},
	{unix.SOL_NETLINK, unix.NETLINK_BROADCAST_ERROR, 4, netlink, notZero, false},
	{unix.SOL_NETLINK, unix.NETLINK_NO_ENOBUFS, 4, netlink, notZero, false},
	{unix.SOL_NETLINK, unix.NETLINK_LISTEN_ALL_NSID, 4, netlink, notZero, false},
	{unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 4, netlink, notZero, false},
	{unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 4, netlink, notZero, false},
	{unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 4, netlink, notZero, false},

	{unix.SOL_SOCKET, unix.SO_PRIORITY, 4, anySocket, notZero, false},
}

func (o *option) is(level, name int) bool { return o.level == level && o.name == name }

// fits tells whether a socket has the option.
func (o *option) fits(s sockets) bool {
	return o.of&s&anySocket != 0 && (o.of&ipv6 == 0 || s&ipv6 != 0) && (s&mptcp == 0 || o.ofMPTCP())
}

// The flags of SO_BUF_LOCK.
const (
	sndbufLock = 1
	rcvbufLock = 2
)

// readOptions reads all options of a socket of ours that are to be saved. The
// sizes of buffers are saved only where the program chose them: the kernel
// chooses others as it goes.
func readOptions(fd int, kind sockets) ([]socketOption, error) {
	locks, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, soBufLock)
	if err != nil {
		return nil, fmt.Errorf("read SO_BUF_LOCK: %w", err)
	}
	var options []socketOption
	for i := range socketOptions {
		o := &socketOptions[i]
		switch {
		case !o.fits(kind),
			o.is(unix.SOL_SOCKET, unix.SO_SNDBUF) && locks&sndbufLock == 0,
			o.is(unix.SOL_SOCKET, unix.SO_RCVBUF) && locks&rcvbufLock == 0:
			continue
		}
		saved := socketOption{Level: uint32(o.level), Name: uint32(o.name)}
		value, err := o.read(fd)
		if errors.Is(err, unix.ENOPROTOOPT) || errors.Is(err, unix.EOPNOTSUPP) {
			continue // newer than this kernel, or not for this socket
		}
		if err != nil {
			return nil, err
		}
		if o.when == nil || o.when(value) {
			copy(saved.Value[:], value)
			options = append(options, saved)
		}
	}
	return options, nil
}

func (o *option) read(fd int) ([]byte, error) {
	value := make([]byte, o.size)
	if _, err := sockopt(fd, o.level, o.name, value); err != nil {
		return nil, fmt.Errorf("read socket option %d of level %d: %w", o.name, o.level, err)
	}
	if o.is(unix.SOL_SOCKET, unix.SO_RCVLOWAT) && leUint32(value) == 0 {
		putUint32(value, 1) // the same (sock_rcvlowat of <net/sock.h>); 0 has who was accepted by MPTCP
	}
	return value, nil
}

// rowOf finds the row of an option of an image.
func rowOf(saved *socketOption, kind sockets) (*option, error) {
	i := slices.IndexFunc(socketOptions, func(o option) bool {
		return o.is(int(saved.Level), int(saved.Name)) && o.fits(kind)
	})
	if i < 0 || !allBytes(saved.Value[socketOptions[i].size:], 0) {
		return nil, badImage(fault.ImageValue, "socket", "option %d of level %d", saved.Name, saved.Level)
	}
	return &socketOptions[i], nil
}

// setOption stages the setting of one option.
func (b *Builder) setOption(p *tracer.Program, fd tracer.Arg, o *option, value []byte) *tracer.Row {
	name := o.name
	value = slices.Clone(value[:o.size])
	if o.is(unix.SOL_SOCKET, unix.SO_SNDBUF) || o.is(unix.SOL_SOCKET, unix.SO_RCVBUF) {
		// The kernel doubles what it is given (socket(7)).
		n := leUint32(value) / 2
		putUint32(value, n)
		if b.mayForceBuffers() { // more than the sysctl allows
			name = map[int]int{unix.SO_SNDBUF: unix.SO_SNDBUFFORCE, unix.SO_RCVBUF: unix.SO_RCVBUFFORCE}[name]
		}
	}
	return setsockopt(p, fd, o.level, name, value)
}

// mayForceBuffers tells whether the caller may give sockets more room than the
// host allows. It takes CAP_NET_ADMIN over the machine, also in a network
// namespace of its own (sockopt_capable of net/core/sock.c).
func (b *Builder) mayForceBuffers() bool { return b.overMachine && b.capable(capNetAdmin) }

// sameOptions compares what the kernel has made of those options that count.
func sameOptions(fd int, kind sockets, want []socketOption, counts func(*option) bool) error {
	for i := range want {
		o, err := rowOf(&want[i], kind)
		if err != nil {
			return err
		}
		if !counts(o) {
			continue
		}
		value, err := o.read(fd)
		if err != nil {
			return err
		}
		if !bytes.Equal(value, want[i].Value[:o.size]) {
			return fmt.Errorf("option %d of level %d is %x, not %x: %w", o.name, o.level, value, want[i].Value[:o.size], unix.ENOTSUP)
		}
	}
	return nil
}
