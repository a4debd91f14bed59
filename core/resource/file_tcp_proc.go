package resource

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// tcpLine is a line of /proc/PID/net/tcp or tcp6.
type tcpLine struct {
	local, peer inetAddress
	state       uint8
	inode       uint64
}

// tcpLines reads what TCP has in the network namespace of a process, of IPv4 or
// IPv6. An address stands there as the numbers that its bytes are to the
// processor, by four (get_tcp4_sock of net/ipv4/tcp_ipv4.c).
func tcpLines(pid procfs.PID, domain int) ([]tcpLine, error) {
	name := fmt.Sprintf("/proc/%d/net/tcp", pid)
	if domain == unix.AF_INET6 {
		name += "6"
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var lines []tcpLine
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < 10 || words[0] == "sl" {
			continue
		}
		local, err1 := tcpAddress(words[1])
		peer, err2 := tcpAddress(words[2])
		state, err3 := strconv.ParseUint(words[3], 16, 8)
		inode, err4 := strconv.ParseUint(words[9], 10, 64)
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			return nil, fmt.Errorf("parse %s: %w", name, err)
		}
		lines = append(lines, tcpLine{local, peer, uint8(state), inode})
	}
	return lines, nil
}

func tcpAddress(word string) (a inetAddress, err error) {
	address, port, _ := strings.Cut(word, ":")
	ip, err1 := hex.DecodeString(address)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if err := errors.Join(err1, err2); err != nil || len(ip) > len(a.IP) || len(ip)%4 != 0 {
		return a, fmt.Errorf("address %q: %w", word, errors.Join(err, unix.EINVAL))
	}
	for i := 0; i < len(ip); i += 4 {
		slices.Reverse(ip[i : i+4])
	}
	copy(a.IP[:], ip)
	a.Port = uint16(n)
	return a, nil
}

// connectingTo returns whom a socket is about to connect to, which the socket
// itself does not tell.
func connectingTo(v *View, f *procfs.FD, domain int) (inetAddress, error) {
	lines, err := tcpLines(v.PID, domain)
	if err != nil {
		return inetAddress{}, err
	}
	i := slices.IndexFunc(lines, func(l tcpLine) bool { return l.inode == f.Ino })
	if i < 0 {
		return inetAddress{}, fmt.Errorf("find socket %d in /proc/%d/net/tcp: %w", f.Ino, v.PID, unix.ENOENT)
	}
	return lines[i].peer, nil
}

// SOCK_DESTROY of <linux/sock_diag.h>, and the size of struct inet_diag_req_v2.
const (
	sockDestroy     = 21
	diagRequestSize = 56
)

// endTimeWait has the task end the connections in TIME_WAIT that hold the
// address of a socket, if it may: they are those of the dead process, whose
// server had not set SO_REUSEADDR. Without the right, bind(2) says it.
func (s *inetSocket) endTimeWait(b *Builder) error {
	if s.Local.Port == 0 || !b.capable(capNetAdmin) || s.isSet(unix.SOL_SOCKET, unix.SO_REUSEADDR) {
		return nil
	}
	var requests [][]byte
	for _, domain := range []int{unix.AF_INET, unix.AF_INET6} {
		lines, err := tcpLines(b.Caller.PID, domain)
		if errors.Is(err, os.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return err
		}
		own := s.Local.mapped(int(s.Domain)).in(domain)
		for _, l := range lines {
			if l.state == unix.BPF_TCP_TIME_WAIT && l.local.Port == own.Port && (l.local.IP == own.IP || s.Local.isAny()) {
				requests = append(requests, l.destroy(domain))
			}
		}
	}
	if len(requests) == 0 {
		return nil
	}
	p := b.Stage()
	row := p.Call(unix.SYS_SOCKET, tracer.Int(unix.AF_NETLINK), tracer.Int(unix.SOCK_RAW|unix.SOCK_CLOEXEC), tracer.Int(unix.NETLINK_SOCK_DIAG))
	fd := b.nameless(row, "netlink socket").fd
	for _, request := range requests {
		p.Write(fd, p.Bytes(request), uint64(len(request))).Tolerate() // it may have ended
	}
	p.Close(fd)
	b.fds.drop(fd)
	return nil
}

func (a *inetAddress) isAny() bool { return a.IP == [16]byte{} }

// destroy is a message for the kernel: struct nlmsghdr, struct inet_diag_req_v2.
func (l *tcpLine) destroy(domain int) []byte {
	size := 4
	if domain == unix.AF_INET6 {
		size = 16
	}
	m := binary.LittleEndian.AppendUint32(nil, unix.SizeofNlMsghdr+diagRequestSize)
	m = binary.LittleEndian.AppendUint16(m, sockDestroy)
	m = binary.LittleEndian.AppendUint16(m, unix.NLM_F_REQUEST)
	m = append(m, make([]byte, 8)...)                                           // sequence, port
	m = append(m, byte(domain), unix.IPPROTO_TCP, 0, 0, 0xff, 0xff, 0xff, 0xff) // of any state
	m = binary.BigEndian.AppendUint16(m, l.local.Port)
	m = binary.BigEndian.AppendUint16(m, l.peer.Port)
	m = append(append(m, l.local.IP[:size]...), make([]byte, 16-size)...)
	m = append(append(m, l.peer.IP[:size]...), make([]byte, 16-size)...)
	m = append(m, 0, 0, 0, 0) // interface
	return append(m, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
}
