package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// unixFact is what the kernel tells about a unix socket by its inode: struct
// unix_diag_msg and attributes, <linux/unix_diag.h>, since Linux 3.3. It is the
// only interface that tells the peer.
type unixFact struct {
	State     uint8 // TCP_*, as for all sockets
	Shutdown  uint8 // RCV_SHUTDOWN, SEND_SHUTDOWN
	Name      []byte
	FileIno   uint32 // of the name in the file system, the low half
	FileDev   uint64
	HasFile   bool
	Connected bool   // it has, or had, a peer
	Peer      uint64 // inode; 0 if it was closed, or was not accepted yet
	Backlog   uint32 // of listen(2)
	Waiting   []uint64
}

const (
	sockDiagByFamily = 20 // SOCK_DIAG_BY_FAMILY, <linux/sock_diag.h>

	unixShow = 1 | 2 | 4 | 8 | 16 // UDIAG_SHOW_NAME, VFS, PEER, ICONS, RQLEN

	unixDiagName     = 0
	unixDiagVFS      = 1
	unixDiagPeer     = 2
	unixDiagIcons    = 3
	unixDiagRQLen    = 4
	unixDiagShutdown = 6

	unixDiagMsgSize = 16
	unixAnswer      = 64 << 10 // a backlog of 4096 takes 16 KiB

	tcpListen = 10
)

// errNotTold says that the kernel does not know the socket in this network
// namespace, or has no unix_diag.
var errNotTold = errors.New("the kernel does not tell about it")

// openUnixDiag opens a socket for unixFacts of our own network namespace.
func openUnixDiag() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("open socket for unix_diag: %w", err)
	}
	return os.NewFile(uintptr(fd), "unix_diag"), nil
}

// askUnix asks about one socket. The kernel answers within the call that asks.
func askUnix(diag *os.File, ino uint64) (*unixFact, error) {
	request := make([]byte, unix.SizeofNlMsghdr, 40)
	binary.NativeEndian.PutUint32(request, 40)
	binary.NativeEndian.PutUint16(request[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST)
	request = append(request, unix.AF_UNIX, 0, 0, 0) // struct unix_diag_req
	for _, word := range []uint32{^uint32(0), uint32(ino), unixShow, ^uint32(0), ^uint32(0)} {
		request = binary.NativeEndian.AppendUint32(request, word)
	}
	fd := int(diag.Fd())
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("ask unix_diag about inode %d: %w", ino, err)
	}
	answer := make([]byte, unixAnswer)
	n, _, flags, _, err := unix.Recvmsg(fd, answer, nil, unix.MSG_DONTWAIT)
	if err != nil {
		return nil, fmt.Errorf("read what unix_diag says about inode %d: %w", ino, err)
	}
	if flags&unix.MSG_TRUNC != 0 {
		return nil, fmt.Errorf("read what unix_diag says about inode %d: %w", ino, unix.EMSGSIZE)
	}
	fact, err := parseUnixFact(answer[:n])
	if err != nil {
		return nil, fmt.Errorf("ask unix_diag about inode %d: %w", ino, err)
	}
	return fact, nil
}

func parseUnixFact(b []byte) (*unixFact, error) {
	malformed := fmt.Errorf("malformed answer: %w", unix.EBADMSG)
	if len(b) < unix.SizeofNlMsghdr {
		return nil, malformed
	}
	size, kind := binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint16(b[4:])
	if int64(size) > int64(len(b)) || size < unix.SizeofNlMsghdr {
		return nil, malformed
	}
	b = b[unix.SizeofNlMsghdr:size]
	switch {
	case kind == unix.NLMSG_ERROR && len(b) >= 4:
		if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(b))); errno != unix.ENOENT {
			return nil, errno
		}
		return nil, errNotTold
	case kind != sockDiagByFamily || len(b) < unixDiagMsgSize:
		return nil, malformed
	}
	fact := &unixFact{State: b[2]}
	for b = b[unixDiagMsgSize:]; len(b) > 0; {
		if len(b) < unix.SizeofRtAttr {
			return nil, malformed
		}
		size, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if size < unix.SizeofRtAttr || size > len(b) {
			return nil, malformed
		}
		if err := fact.attribute(kind, b[unix.SizeofRtAttr:size]); err != nil {
			return nil, err
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return fact, nil
}

func (f *unixFact) attribute(kind uint16, b []byte) error {
	word := func(i int) uint32 { return binary.NativeEndian.Uint32(b[4*i:]) }
	least := map[uint16]int{unixDiagVFS: 8, unixDiagPeer: 4, unixDiagRQLen: 8, unixDiagShutdown: 1}[kind]
	if len(b) < least {
		return fmt.Errorf("attribute %d of %d bytes: %w", kind, len(b), unix.EBADMSG)
	}
	switch kind {
	case unixDiagName:
		f.Name = append([]byte(nil), b...)
	case unixDiagVFS:
		// A device as the kernel has it: 12 bits and 20.
		f.FileIno, f.FileDev, f.HasFile = word(0), unix.Mkdev(word(1)>>20, word(1)&(1<<20-1)), true
	case unixDiagPeer:
		f.Connected, f.Peer = true, uint64(word(0))
	case unixDiagIcons:
		for i := range len(b) / 4 {
			f.Waiting = append(f.Waiting, uint64(word(i)))
		}
	case unixDiagRQLen:
		if f.State == tcpListen {
			f.Backlog = word(1)
		}
	case unixDiagShutdown:
		f.Shutdown = b[0]
	}
	return nil
}
