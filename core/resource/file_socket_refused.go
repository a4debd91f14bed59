package resource

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer/procfs"
)

// refusedSocket is every socket of which nothing is saved. It knows what to
// call it.
var refusedSocket = FileKind{
	Name:    "other sockets",
	Support: Refused,
	Note:    "Raw, packet, XDP and ping sockets, SMC, other families and netlink protocols are refused, each by name.",
	Match: func(v *View, f *procfs.FD) bool {
		s, err := v.socket(f)
		return err == nil && s != nil && s.domain != unix.AF_UNIX && standardOf(v, f) < 0
	},
	Refuse: func(v *View, f *procfs.FD) *fault.Error {
		s, err := v.socket(f)
		if err != nil {
			return &fault.Error{Code: fault.Socket, Detail: f.Target, Err: err}
		}
		code, name := s.refusal()
		return &fault.Error{Code: code, Detail: name}
	},
}

// families are those that a program may meet.
var families = map[int]struct {
	code fault.Code
	name string
}{
	unix.AF_PACKET:    {fault.SocketRaw, "packet socket"},
	unix.AF_XDP:       {fault.SocketRaw, "XDP socket"},
	unix.AF_SMC:       {fault.SocketLayer, "SMC socket"},
	unix.AF_VSOCK:     {fault.SocketFamily, "vsock socket"},
	unix.AF_ALG:       {fault.SocketFamily, "socket of the kernel's cryptography (AF_ALG)"},
	unix.AF_BLUETOOTH: {fault.SocketFamily, "bluetooth socket"},
	unix.AF_CAN:       {fault.SocketFamily, "CAN socket"},
	unix.AF_TIPC:      {fault.SocketFamily, "TIPC socket"},
	unix.AF_KCM:       {fault.SocketLayer, "KCM socket"},
	unix.AF_RDS:       {fault.SocketFamily, "RDS socket"},
	unix.AF_RXRPC:     {fault.SocketFamily, "RxRPC socket"},
	unix.AF_PPPOX:     {fault.SocketFamily, "PPP socket"},
	unix.AF_KEY:       {fault.SocketFamily, "key socket of IPsec"},
}

// refusal names a socket that cannot be saved.
func (s *socketView) refusal() (fault.Code, string) {
	if f, known := families[s.domain]; known {
		return f.code, f.name
	}
	switch {
	case s.domain == unix.AF_NETLINK:
		return fault.SocketNetlink, fmt.Sprintf("netlink protocol %d", s.protocol)
	case !s.isInternet():
		return fault.SocketFamily, fmt.Sprintf("address family %d", s.domain)
	case s.typ == unix.SOCK_RAW:
		return fault.SocketRaw, "raw socket"
	case s.protocol == unix.IPPROTO_ICMP || s.protocol == unix.IPPROTO_ICMPV6:
		return fault.SocketRaw, "ping socket"
	}
	return fault.SocketFamily, fmt.Sprintf("protocol %d of IP", s.protocol)
}
