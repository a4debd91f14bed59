package resource

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
)

// inside is a connection within the image: one end has been read, and the
// other is open and waits for its record.
type inside struct {
	first *inetSocket
	queue *connection // of first
	other tracer.FD
}

// loadInside stages an end of a connection of which the image has both. The
// first one read makes the connection, the second completes it.
func (s *inetSocket) loadInside(b *Builder, c *connection) error {
	domain := int(s.Domain)
	own := ends{s.Local.mapped(domain), s.Peer.mapped(domain)}
	if waiting, ok := b.inside[own.turned()]; ok {
		if waiting.queue.Other != s.Domain || waiting.queue.Flags&serverEnd == c.Flags&serverEnd ||
			waiting.queue.Flags&otherMPTCP != 0 != (s.kind&mptcp != 0) {
			return badImage(fault.ImageValue, s.name, "the two ends of the connection disagree")
		}
		delete(b.inside, own.turned())
		s.open = &stagedOpen{fd: waiting.other, path: s.name, flags: s.Flags}
		s.own(b)
		s.floating = waiting.first.floating
		b.pairs = append(b.pairs, &completePair{waiting.first, s, waiting.queue, c})
		b.tcp = append(b.tcp, s)
		return nil
	}
	if _, twice := b.inside[own]; twice {
		return badImage(fault.ImageValue, s.name, "connection is there twice")
	}
	protocol, err := b.protocolOf(c.Flags&otherMPTCP != 0)
	if err != nil {
		return err
	}
	client := endAddress{domain, s.Local, s.v6Only(), s.protocol}
	server := endAddress{int(c.Other), own.peer.in(int(c.Other)), c.V6Only != 0, protocol}
	if c.Flags&serverEnd != 0 {
		server, client = client, server
	}
	made, err := b.connectAnew(s, server, &client, 0)
	if err != nil {
		return err
	}
	if err := b.sameNames(made, &server, &client); err != nil {
		return err
	}
	ours, other := made.client, made.server
	if c.Flags&serverEnd != 0 {
		ours, other = other, ours
	}
	s.open = &stagedOpen{fd: ours, path: s.name, flags: s.Flags}
	s.floating = made.floating
	s.own(b)
	if b.inside == nil {
		b.inside = make(map[ends]*inside)
	}
	b.inside[own] = &inside{s, c, other}
	b.tcp = append(b.tcp, s)
	return nil
}

// sameNames says if a connection within the image has other addresses than it
// had: without CAP_NET_ADMIN nothing can take those that others hold.
func (b *Builder) sameNames(made *pair, server, client *endAddress) error {
	for _, end := range []struct {
		fd   tracer.FD
		want *endAddress
	}{{made.server, server}, {made.client, client}} {
		now, err := b.nameOf(end.fd, unix.Getsockname)
		if err != nil {
			return err
		}
		if want := end.want.mapped(end.want.domain); now != want {
			made.floating = true
			b.Warn("connection within the program: the end that was %s is now %s, as the address is taken",
				addressText(unix.AF_INET6, &want), addressText(unix.AF_INET6, &now))
		}
	}
	return nil
}

// completePair is a connection with both ends where they will be.
type completePair struct {
	a, b           *inetSocket
	aQueue, bQueue *connection
}

// finishPairs puts the data back, and then all that depends on it.
func (b *Builder) finishPairs() error {
	for _, p := range b.pairs {
		for _, x := range []struct {
			s    *inetSocket
			data []byte
		}{{p.a, append(p.bQueue.unread, p.aQueue.unsent...)}, {p.b, append(p.aQueue.unread, p.bQueue.unsent...)}} {
			b.Stage().Fcntl(x.s.open.fd, unix.F_SETFL, tracer.Imm(0)) // wait, with patience
			if err := x.s.fillFar(b, x.data); err != nil {
				return err
			}
			if x.s.protocol == 0 { // of MPTCP there is none
				b.setInt(x.s.open.fd, unix.SOL_SOCKET, soBufLock, 0, x.s.name)
			}
		}
		p.a.settle(b, p.aQueue)
		p.b.settle(b, p.bQueue)
	}
	// The other end of a pair of which another descriptor took the place.
	for _, left := range b.inside {
		b.abort(left.other)
		left.first.settle(b, left.queue)
	}
	return nil
}

// fillFar is fill, where the kernel allows with a buffer that holds all of it
// for that long.
func (s *inetSocket) fillFar(b *Builder, data []byte) error {
	if len(data) <= plainBuffer || !b.mayForceBuffers() || s.protocol != 0 {
		return s.fill(b, s.open.fd, data)
	}
	if err := b.Flush(); err != nil {
		return err
	}
	var size int
	err := b.withSocket(s.open.fd, func(fd int) (err error) {
		size, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
		return err
	})
	if err != nil {
		return fmt.Errorf("read size of buffer: %w", err)
	}
	b.setInt(s.open.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, max(uint32(size)/2, uint32(len(data))), s.name)
	if err := s.fill(b, s.open.fd, data); err != nil {
		return err
	}
	b.setInt(s.open.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, uint32(size)/2, s.name)
	return nil
}

// settle stages the end of the stream, if there is one, and the options.
func (s *inetSocket) settle(b *Builder, c *connection) {
	shutdown := func(how int) {
		b.Stage().Call(unix.SYS_SHUTDOWN, s.open.fd, tracer.Int(how)).Tolerate() // it may be over
	}
	if c.Flags&sentFIN != 0 {
		shutdown(unix.SHUT_WR)
	}
	if c.Flags&noRead != 0 {
		shutdown(unix.SHUT_RD)
	}
	b.Expect(setsockopt(b.Stage(), s.open.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, make([]byte, 16)), fault.SocketState, s.name)
	s.set(b, settableLate)
	b.setFlags(s.open, s.Flags)
}

// settableLate are the options of a connection; SO_REUSEADDR comes last of all.
func settableLate(o *option) bool {
	return !o.is(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY) && !o.is(unix.SOL_SOCKET, unix.SO_REUSEADDR)
}

// abort stages the closing of a socket by a reset.
func (b *Builder) abort(fd tracer.FD) {
	p := b.Stage()
	setsockopt(p, fd, unix.SOL_SOCKET, unix.SO_LINGER, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	p.Close(fd)
	b.fds.drop(fd)
}

// loadBroken stages a socket whose connection is gone: one that had been gone,
// or that led outside. It is a connection with another end of ours, which says
// what the peer had said, and then resets it.
func (s *inetSocket) loadBroken(b *Builder, c *connection) error {
	room := c.Unread
	if room <= plainBuffer {
		room = 0
	}
	made, err := b.connectAnew(s, endAddress{int(s.Domain), s.Local, s.v6Only(), s.protocol}, nil, room)
	if err != nil {
		return err
	}
	s.open = &stagedOpen{fd: made.server, path: s.name, flags: s.Flags}
	s.floating = true
	s.own(b)
	if err := s.fill(b, made.client, c.unread); err != nil {
		return err
	}
	if err := s.arrived(b, made.client, len(c.unread)); err != nil {
		return err
	}
	shutdown := func(fd tracer.FD) { b.Stage().Call(unix.SYS_SHUTDOWN, fd, tracer.Int(unix.SHUT_WR)).Tolerate() }
	over := s.State == unix.BPF_TCP_CLOSE
	if c.Flags&gotFIN != 0 && (!over || c.Flags&errorWaits == 0) {
		shutdown(made.client)
	}
	if c.Flags&sentFIN != 0 && (!over || c.Flags&errorWaits == 0) {
		shutdown(made.server)
	}
	if over && c.Flags&errorWaits == 0 {
		b.Stage().Close(made.client)
		b.fds.drop(made.client)
	} else {
		b.abort(made.client)
	}
	if s.protocol == protocolMPTCP {
		s.awaitEnd(b)
	}
	c.Flags &^= sentFIN
	s.settle(b, c)
	b.tcp = append(b.tcp, s)
	return nil
}

// arrived waits until all is through that was written: a reset would take the
// rest away.
func (s *inetSocket) arrived(b *Builder, from tracer.FD, all int) error {
	if all == 0 {
		return nil
	}
	if err := b.Flush(); err != nil {
		return err
	}
	return b.withSocket(from, func(fd int) error {
		for waited := time.Duration(0); ; waited += delackStep {
			left, err := unix.IoctlGetInt(fd, unix.TIOCOUTQ)
			if err != nil {
				return fmt.Errorf("read length of queue: %w", err)
			}
			if left == 0 {
				return nil
			}
			if waited > delackMost {
				b.Warn("%s: %d of %d bytes that were not yet read are lost", s.name, left, all)
				return nil
			}
			time.Sleep(delackStep)
		}
	})
}
