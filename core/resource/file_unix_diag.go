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

// unixDiagLeast are the least lengths of the attributes.
var unixDiagLeast = [...]int{unixDiagVFS: 8, unixDiagPeer: 4, unixDiagRQLen: 8, unixDiagShutdown: 1}

// errNotTold says that the kernel does not know the socket in this network
// namespace, or has no unix_diag.
var errNotTold = errors.New("the kernel does not tell about it")

// readUnixFacts asks about all sockets of the network namespace, by inode. What
// others open and close meanwhile may hide one; askUnix asks about that alone.
func readUnixFacts(diag *os.File) (map[uint64]*unixFact, error) {
	if err := sendUnixRequest(diag, 0, unix.NLM_F_DUMP); err != nil {
		return nil, fmt.Errorf("ask unix_diag: %w", err)
	}
	facts := make(map[uint64]*unixFact)
	for {
		answer, err := receiveUnix(diag)
		for err == nil && len(answer) > 0 {
			var ino uint64
			var fact *unixFact
			if ino, fact, answer, err = parseUnixFact(answer); err == nil && fact == nil {
				return facts, nil
			}
			facts[ino] = fact
		}
		if errors.Is(err, errNotTold) {
			return facts, nil // no module: whoever needs one is told so
		}
		if err != nil {
			return nil, fmt.Errorf("ask unix_diag: %w", err)
		}
	}
}

// askUnix asks about one socket.
func askUnix(diag *os.File, ino uint64) (*unixFact, error) {
	err := sendUnixRequest(diag, ino, 0)
	var answer []byte
	if err == nil {
		answer, err = receiveUnix(diag)
	}
	var fact *unixFact
	if err == nil {
		_, fact, _, err = parseUnixFact(answer)
	}
	if err == nil && fact == nil {
		err = errNotTold
	}
	if err != nil {
		return nil, fmt.Errorf("ask unix_diag about inode %d: %w", ino, err)
	}
	return fact, nil
}

func sendUnixRequest(diag *os.File, ino uint64, flags uint16) error {
	request := make([]byte, unix.SizeofNlMsghdr, 40)
	binary.NativeEndian.PutUint32(request, 40)
	binary.NativeEndian.PutUint16(request[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|flags)
	request = append(request, unix.AF_UNIX, 0, 0, 0) // struct unix_diag_req
	for _, word := range []uint32{^uint32(0), uint32(ino), unixShow, ^uint32(0), ^uint32(0)} {
		request = binary.NativeEndian.AppendUint32(request, word)
	}
	return unix.Sendto(int(diag.Fd()), request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// receiveUnix does not wait: the kernel answers within the calls.
func receiveUnix(diag *os.File) ([]byte, error) {
	answer := make([]byte, unixAnswer)
	n, _, flags, _, err := unix.Recvmsg(int(diag.Fd()), answer, nil, unix.MSG_DONTWAIT)
	if err == nil && flags&unix.MSG_TRUNC != 0 {
		err = unix.EMSGSIZE
	}
	return answer[:max(n, 0)], err
}

// parseUnixFact takes one message off an answer; the end of all is no fact.
func parseUnixFact(b []byte) (ino uint64, fact *unixFact, rest []byte, err error) {
	malformed := fmt.Errorf("malformed answer: %w", unix.EBADMSG)
	if len(b) < unix.SizeofNlMsghdr {
		return 0, nil, nil, malformed
	}
	size, kind := int64(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint16(b[4:])
	if size > int64(len(b)) || size < unix.SizeofNlMsghdr {
		return 0, nil, nil, malformed
	}
	rest = b[min((size+3)&^3, int64(len(b))):]
	b = b[unix.SizeofNlMsghdr:size]
	switch {
	case kind == unix.NLMSG_DONE:
		return 0, nil, nil, nil
	case kind == unix.NLMSG_ERROR && len(b) >= 4:
		if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(b))); errno != unix.ENOENT {
			return 0, nil, nil, errno
		}
		return 0, nil, nil, errNotTold
	case kind != sockDiagByFamily || len(b) < unixDiagMsgSize:
		return 0, nil, nil, malformed
	}
	ino, fact = uint64(binary.NativeEndian.Uint32(b[4:])), &unixFact{State: b[2]}
	for b = b[unixDiagMsgSize:]; len(b) > 0; {
		if len(b) < unix.SizeofRtAttr {
			return 0, nil, nil, malformed
		}
		size, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if size < unix.SizeofRtAttr || size > len(b) {
			return 0, nil, nil, malformed
		}
		if err := fact.attribute(kind, b[unix.SizeofRtAttr:size]); err != nil {
			return 0, nil, nil, err
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return ino, fact, rest, nil
}

func (f *unixFact) attribute(kind uint16, b []byte) error {
	word := func(i int) uint32 { return binary.NativeEndian.Uint32(b[4*i:]) }
	if int(kind) < len(unixDiagLeast) && len(b) < unixDiagLeast[kind] {
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
