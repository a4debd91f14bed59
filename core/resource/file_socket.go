package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// socketView is what a socket says of itself.
type socketView struct {
	domain, typ, protocol int
	tcp                   *unix.TCPInfo // of a TCP socket
	local                 inetAddress   // of an internet socket
	peer                  inetAddress
	connected             bool // has a peer
}

// socket asks a socket of the process what it is; nil if it is none.
func (v *View) socket(f *procfs.FD) (*socketView, error) {
	if f.Type() != unix.S_IFSOCK || !strings.HasPrefix(f.Target, "socket:[") {
		return nil, nil
	}
	if known, ok := v.sockets[f.Ino]; ok {
		return known, nil
	}
	fd, err := v.duplicate(f.Number)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	s, err := readSocket(fd)
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", v.FDName(f.Number), err)
	}
	if v.sockets == nil {
		v.sockets = make(map[uint64]*socketView)
	}
	v.sockets[f.Ino] = s
	return s, nil
}

func readSocket(fd int) (s *socketView, err error) {
	s = new(socketView)
	for name, to := range map[int]*int{unix.SO_DOMAIN: &s.domain, unix.SO_TYPE: &s.typ, unix.SO_PROTOCOL: &s.protocol} {
		if *to, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, name); err != nil {
			return nil, err
		}
	}
	if !s.overTCP() && !s.isUDP() {
		return s, nil
	}
	if s.overTCP() {
		if err := s.readTCPInfo(fd); err != nil {
			return nil, err
		}
	}
	defer s.settleState()
	name, err := unix.Getsockname(fd)
	if err != nil {
		return nil, err
	}
	s.local = inetAddressOf(name)
	name, err = unix.Getpeername(fd)
	if errors.Is(err, unix.ENOTCONN) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	s.connected, s.peer = true, inetAddressOf(name)
	return s, nil
}

func (s *socketView) isInternet() bool {
	return s != nil && (s.domain == unix.AF_INET || s.domain == unix.AF_INET6)
}

func (s *socketView) isTCP() bool {
	return s.isInternet() && s.typ == unix.SOCK_STREAM && s.protocol == unix.IPPROTO_TCP
}

func (s *socketView) isUDP() bool {
	return s.isInternet() && s.typ == unix.SOCK_DGRAM && s.protocol == unix.IPPROTO_UDP
}

// options says which options the socket has.
func (s *socketView) options() sockets {
	kind := dgram
	if s.typ == unix.SOCK_STREAM {
		kind = stream
	}
	if s.domain == unix.AF_INET6 {
		kind |= ipv6
	}
	if s.isMPTCP() {
		kind |= mptcp
	}
	return kind
}

// inetAddress is an address of IPv4 or IPv6, as the domain of the socket says.
type inetAddress struct {
	IP    [16]byte `doc:"IPv4 in the first four bytes"`
	Port  uint16
	_     [2]byte
	Scope uint32 `doc:"number of the interface, for addresses that are local to a link"`
}

func inetAddressOf(name unix.Sockaddr) (a inetAddress) {
	switch n := name.(type) {
	case *unix.SockaddrInet4:
		copy(a.IP[:], n.Addr[:])
		a.Port = uint16(n.Port)
	case *unix.SockaddrInet6:
		a.IP, a.Port, a.Scope = n.Addr, uint16(n.Port), n.ZoneId
	}
	return a
}

// mapped is the address in the form of IPv6, and in the way back.
func (a inetAddress) mapped(domain int) inetAddress {
	if domain == unix.AF_INET {
		a.IP = netip.AddrFrom4([4]byte(a.IP[:4])).As16()
	}
	return a
}

func (a inetAddress) in(domain int) inetAddress {
	if domain == unix.AF_INET {
		a.IP, a.Scope = [16]byte(append(a.IP[12:16:16], make([]byte, 12)...)), 0
	}
	return a
}

// raw is struct sockaddr_in or sockaddr_in6 of <netinet/in.h>.
func (a *inetAddress) raw(domain int) []byte {
	raw := binary.LittleEndian.AppendUint16(nil, uint16(domain))
	raw = binary.BigEndian.AppendUint16(raw, a.Port)
	if domain == unix.AF_INET {
		return append(append(raw, a.IP[:4]...), make([]byte, 8)...)
	}
	raw = append(append(raw, make([]byte, 4)...), a.IP[:]...)
	return binary.LittleEndian.AppendUint32(raw, a.Scope)
}

// namespaceCookie returns what the sockets of the process's own network
// namespace have in common (SO_NETNS_COOKIE, Linux 5.14), 0 if only the
// process itself could tell.
func (v *View) namespaceCookie() (uint64, error) {
	theirs, err := v.Proc.Link("ns/net")
	if err != nil {
		return 0, err
	}
	ours, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil || ours != theirs {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
}

// refuseSocket names what stands in the way of saving a socket of any family
// that is rebuilt: fd is our own descriptor of it.
func refuseSocket(v *View, f *procfs.FD, fd int) *fault.Error {
	own, err := v.namespaceCookie()
	if err != nil {
		return &fault.Error{Code: fault.SocketNamespace, Detail: f.Target, Err: err}
	}
	theirs, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil || own != 0 && own != theirs {
		return &fault.Error{Code: fault.SocketNamespace, Detail: f.Target, Err: err}
	}
	// SO_GET_FILTER counts instructions; of eBPF it tells nothing (EACCES).
	if n, err := sockopt(fd, unix.SOL_SOCKET, unix.SO_GET_FILTER, nil); err != nil || n > 0 {
		return &fault.Error{Code: fault.SocketFilter, Detail: f.Target, Err: err}
	}
	return nil
}

func leUint32(b []byte) uint32     { return binary.LittleEndian.Uint32(b) }
func putUint32(b []byte, n uint32) { binary.LittleEndian.PutUint32(b, n) }

// sameNamespace is the last word on what refuseSocket could not decide: of a
// process in another network namespace than ours.
func (s *Saver) sameNamespace(fd int) error {
	if s.netns == 0 {
		p := s.Remote.Program()
		cookie, size := p.Buffer(8), p.Bytes([]byte{8, 0, 0, 0})
		socket := p.Call(unix.SYS_SOCKET, tracer.Int(unix.AF_UNIX), tracer.Int(unix.SOCK_DGRAM|unix.SOCK_CLOEXEC), tracer.Imm(0))
		undo := socket.Undo(unix.SYS_CLOSE, socket)
		p.Call(unix.SYS_GETSOCKOPT, socket, tracer.Int(unix.SOL_SOCKET), tracer.Int(unix.SO_NETNS_COOKIE), tracer.Ptr(cookie), tracer.Ptr(size))
		p.Close(socket)
		p.Forget(undo)
		if err := p.Run(); err != nil {
			return fmt.Errorf("ask for the network namespace: %w", err)
		}
		answer := make([]byte, 8)
		if err := s.Remote.ReadMem(cookie, answer); err != nil {
			return err
		}
		s.netns = binary.LittleEndian.Uint64(answer)
	}
	of, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil || of != s.netns {
		return &fault.Error{Code: fault.SocketNamespace, Err: err}
	}
	return nil
}
