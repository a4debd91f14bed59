package resource

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer/procfs"
)

// tcpConnectionRecord is what a socket has that was connected, and perhaps no
// longer is.
type tcpConnectionRecord struct {
	Flags  uint32 `fmt:"flags" flags:"1=INSIDE 2=SERVER 4=SENT_FIN 8=GOT_FIN 10=NO_READ 20=ERROR 40=REPAIR 80=OTHER_MPTCP" doc:"whether both ends are here, which of them listened, who has said that no more will come, whether the program wants to read no more, whether an error waits, whether a TCP_REPAIR follows, and whether the other end, if that is here, is an MPTCP socket"`
	Unread uint32 `doc:"bytes that the program has not read yet, in BUFFERs"`
	Unsent uint32 `doc:"bytes that the peer has not acknowledged, or within the program has not got, in BUFFERs behind those"`
	Other  uint16 `doc:"domain of the other end, if that is here"`
	V6Only uint16 `doc:"IPV6_V6ONLY of the other end"`
}

const (
	insideConnection = 1 << iota
	serverEnd
	sentFIN
	gotFIN
	noRead
	errorWaits
	hasRepair
	otherMPTCP
	connectionMask = otherMPTCP<<1 - 1
)

// mostQueued bounds what an image may say of a queue: net.ipv4.tcp_rmem and
// tcp_wmem go to some MiB.
const mostQueued = 1 << 30

// connection is a connection on its way into an image.
type connection struct {
	tcpConnectionRecord
	repair         *tcpRepairRecord
	unread, unsent []byte
}

// wasConnected tells a socket that has lost its connection from one that never
// had any: it is shut down in both directions (tcp_done of net/ipv4/tcp.c).
func wasConnected(fd int) (bool, error) {
	events, err := polled(fd)
	return events&unix.POLLRDHUP != 0, err
}

func polled(fd int) (int16, error) {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLPRI | unix.POLLRDHUP}}
	if _, err := unix.Poll(poll, 0); err != nil {
		return 0, fmt.Errorf("poll: %w", err)
	}
	return poll[0].Revents, nil
}

// describe reads what a socket that is or was connected has to say for itself.
func describeConnection(s *Saver, f *procfs.FD, sock *socketView, fd int) (*connection, error) {
	c := new(connection)
	events, err := polled(fd)
	if err != nil {
		return nil, err
	}
	switch sock.tcp.State {
	case unix.BPF_TCP_FIN_WAIT1, unix.BPF_TCP_FIN_WAIT2:
		c.Flags |= sentFIN
	case unix.BPF_TCP_CLOSE_WAIT:
		c.Flags |= gotFIN
	case unix.BPF_TCP_CLOSING, unix.BPF_TCP_LAST_ACK, unix.BPF_TCP_CLOSE:
		c.Flags |= sentFIN | gotFIN
	}
	if sock.isMPTCP() && sock.connected {
		if c.Flags, err = mptcpEnds(fd, events); err != nil {
			return nil, err
		}
	}
	if events&unix.POLLRDHUP != 0 && c.Flags&gotFIN == 0 {
		c.Flags |= noRead
	}
	if events&unix.POLLERR != 0 {
		c.Flags |= errorWaits
	}
	if other := s.otherEnd(sock); other != nil {
		c.Flags |= insideConnection
		if s.isServer(sock) {
			c.Flags |= serverEnd
		}
		if err = c.describeOther(s.View, other); err != nil {
			return nil, err
		}
		if err := c.readUnsent(s, f, sock, fd); err != nil {
			return nil, err
		}
	} else if sock.isTCP() && sock.tcp.State == unix.BPF_TCP_ESTABLISHED {
		if err := c.readRepair(s, f, fd); err != nil {
			return nil, err
		}
	}
	if c.unread == nil {
		if c.unread, err = readQueue(sock, fd); err != nil {
			return nil, err
		}
	}
	c.Unread, c.Unsent = uint32(len(c.unread)), uint32(len(c.unsent))
	return c, nil
}

// describeOther reads what must be known of the other end before it has its
// address.
func (c *connection) describeOther(v *View, f *procfs.FD) error {
	s, err := v.socket(f)
	if err != nil {
		return err
	}
	c.Other = uint16(s.domain)
	if s.isMPTCP() {
		c.Flags |= otherMPTCP
	}
	if s.domain != unix.AF_INET6 {
		return nil
	}
	fd, err := v.duplicate(f.Number)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	n, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	if err != nil {
		return fmt.Errorf("read IPV6_V6ONLY: %w", err)
	}
	c.V6Only = uint16(n)
	return nil
}

// isServer tells which end of a connection within the process has been
// accepted: that whose port the process listens on, or else the lower one.
func (v *View) isServer(s *socketView) bool {
	listens := func(port uint16) bool {
		return slices.ContainsFunc(v.FDs, func(f procfs.FD) bool {
			l, err := v.socket(&f)
			return err == nil && l.overTCP() && l.tcp.State == unix.BPF_TCP_LISTEN && l.local.Port == port
		})
	}
	if ours, theirs := listens(s.local.Port), listens(s.peer.Port); ours != theirs {
		return ours
	}
	ends := s.ends()
	return ends.local.Port < ends.peer.Port || ends.local.Port == ends.peer.Port && string(ends.local.IP[:]) < string(ends.peer.IP[:])
}

// readQueue copies what waits to be read and leaves it there.
func readQueue(sock *socketView, fd int) ([]byte, error) {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return nil, fmt.Errorf("read length of queue: %w", err)
	}
	if sock.isMPTCP() {
		return peekMPTCP(fd, n)
	}
	return peek(fd, n)
}

func peek(fd, n int) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	data := make([]byte, n)
	got, _, err := unix.Recvfrom(fd, data, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if err == nil && got != n {
		err = unix.EIO
	}
	if err != nil {
		return nil, fmt.Errorf("read %d bytes of queue, got %d: %w", n, got, err)
	}
	return data, nil
}

// readUnsent reads what the other end of a connection within the process has
// not got. What is on its way there is there: the loopback device is not slow,
// and only the acknowledgement may take a moment (delayed by at most
// TCP_DELACK_MAX, 200 ms).
func (c *connection) readUnsent(s *Saver, f *procfs.FD, sock *socketView, fd int) error {
	for waited := time.Duration(0); ; waited += delackStep {
		unacked, err := unix.IoctlGetInt(fd, unix.TIOCOUTQ)
		if err != nil {
			return fmt.Errorf("read length of queue: %w", err)
		}
		unsent, err := unix.IoctlGetInt(fd, unix.SIOCOUTQNSD)
		if err != nil {
			return fmt.Errorf("read length of queue: %w", err)
		}
		switch {
		case unacked == 0:
			return nil
		case unacked == unsent && sock.isMPTCP(): // it has no repair mode
			return &fault.Error{Code: fault.SocketUnsent, Detail: fmt.Sprintf("%d bytes, by MPTCP", unsent)}
		case unacked == unsent:
			return c.readSendQueue(s, f, fd, unacked)
		case waited > delackMost:
			return &fault.Error{Code: fault.SocketUnsent, Detail: fmt.Sprintf("%d bytes on their way", unacked-unsent)}
		}
		time.Sleep(delackStep)
	}
}

const (
	delackStep = 5 * time.Millisecond
	delackMost = time.Second
)

// put writes the records of a connection.
func (c *connection) put(s *Saver, ref object.Ref) error {
	if err := s.W.Put(uint32(ref), &c.tcpConnectionRecord); err != nil {
		return err
	}
	if c.repair != nil {
		if err := s.W.Put(uint32(ref), c.repair); err != nil {
			return err
		}
	}
	for _, data := range [][]byte{c.unread, c.unsent} {
		for piece := range slices.Chunk(data, pieceOfPipe) {
			if err := s.W.Put(0, &image.Buffer{Data: piece}); err != nil {
				return err
			}
		}
	}
	return nil
}

// readConnection reads them again.
func readConnection(b *Builder, ref object.Ref) (*connection, error) {
	rec, head, err := image.Expect[tcpConnectionRecord](b.R)
	if err != nil {
		return nil, err
	}
	c := &connection{tcpConnectionRecord: *rec}
	if head.Parent != uint32(ref) || rec.Flags&^uint32(connectionMask) != 0 || rec.V6Only > 1 ||
		rec.Flags&insideConnection != 0 && rec.Other != unix.AF_INET && rec.Other != unix.AF_INET6 || rec.Unread > mostQueued || rec.Unsent > mostQueued {
		return nil, badImage(fault.ImageValue, "connection", "owner %d, flags %#x, %d bytes and %d", head.Parent, rec.Flags, rec.Unread, rec.Unsent)
	}
	if rec.Flags&hasRepair != 0 {
		if c.repair, _, err = image.Expect[tcpRepairRecord](b.R); err != nil {
			return nil, err
		}
	}
	if c.unread, err = readBuffers(b, rec.Unread); err != nil {
		return nil, err
	}
	c.unsent, err = readBuffers(b, rec.Unsent)
	return c, err
}

// readBuffers reads so many bytes, of BUFFERs of which none is longer.
func readBuffers(b *Builder, n uint32) ([]byte, error) {
	var data []byte
	for uint32(len(data)) < n {
		piece, _, err := image.Expect[image.Buffer](b.R)
		if err != nil {
			return nil, err
		}
		if len(piece.Data) == 0 || uint32(len(piece.Data)) > n-uint32(len(data)) {
			return nil, badImage(fault.ImageValue, "connection", "piece of %d bytes", len(piece.Data))
		}
		data = append(data, piece.Data...)
	}
	return data, nil
}
