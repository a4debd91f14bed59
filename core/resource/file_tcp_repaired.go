package resource

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
)

// maxTCPWindow is the most that TCP_MAXSEG takes (MAX_TCP_WINDOW of <net/tcp.h>).
const maxTCPWindow = 32767

// loadKept stages an end of a connection that goes on where it was. Nothing
// of it is seen outside before the commit takes it out of repair mode, and
// nothing if it is closed before.
func (s *inetSocket) loadKept(b *Builder, c *connection) error {
	r := c.repair
	if r == nil {
		return &fault.Error{Code: fault.ConnectionKeep, Object: s.name, Detail: "the program lacked CAP_NET_ADMIN when it was saved", Err: unix.EPERM}
	}
	s.make(b)
	s.own(b)
	fd := s.open.fd
	expect := func(row *tracer.Row) { b.Expect(row, fault.ConnectionKeep, s.name) }
	set := func(level, name int, words ...uint32) {
		p := b.Stage()
		var value []byte
		for _, w := range words {
			value = binary.LittleEndian.AppendUint32(value, w)
		}
		expect(setsockopt(p, fd, level, name, value))
	}
	queue := func(which uint32) { set(unix.IPPROTO_TCP, tcpRepairQueue, which) }

	set(unix.IPPROTO_TCP, tcpRepair, repairOn)
	s.set(b, func(o *option) bool { return o.early && !o.is(unix.SOL_SOCKET, unix.SO_REUSEADDR) })
	s.bind(b)
	queue(receiveQueue)
	set(unix.IPPROTO_TCP, tcpQueueSeq, r.ReadSequence)
	queue(sendQueue)
	set(unix.IPPROTO_TCP, tcpQueueSeq, r.WriteSequence)
	// The kernel computes the size of segments at the connect and then only if
	// the route changes: what is agreed below would come too late for it.
	set(unix.IPPROTO_TCP, unix.TCP_MAXSEG, min(r.MSS, maxTCPWindow))
	expect(s.connect(b.Stage(), fd, &s.Peer))
	set(unix.IPPROTO_TCP, unix.TCP_MAXSEG, 0)
	set(unix.IPPROTO_TCP, tcpRepairOptions, r.options()...)
	if r.Agreed&optTimestamps != 0 {
		set(unix.IPPROTO_TCP, tcpTimestamp, r.Timestamp)
	}
	buffers := func(send, receive uint32) { // the kernel doubles what it is given (socket(7))
		sndbuf, rcvbuf := unix.SO_SNDBUF, unix.SO_RCVBUF
		if b.mayForceBuffers() {
			sndbuf, rcvbuf = unix.SO_SNDBUFFORCE, unix.SO_RCVBUFFORCE
		}
		set(unix.SOL_SOCKET, sndbuf, send/2)
		set(unix.SOL_SOCKET, rcvbuf, receive/2)
	}
	buffers(max(r.SendBuffer, 2*c.Unsent), max(r.ReceiveBuffer, 2*c.Unread)) // to fill them at once
	// What has been sent and what has not is all put back as sent: what the
	// peer does not acknowledge is sent again.
	queue(receiveQueue)
	if err := s.fill(b, fd, c.unread); err != nil {
		return err
	}
	queue(sendQueue)
	if err := s.fill(b, fd, c.unsent); err != nil {
		return err
	}
	buffers(r.SendBuffer, r.ReceiveBuffer)
	expect(setsockopt(b.Stage(), fd, unix.IPPROTO_TCP, tcpRepairWindow, r.Window[:]))
	set(unix.SOL_SOCKET, soBufLock, 0)
	s.set(b, isLate)
	if c.Flags&noRead != 0 {
		expect(b.Stage().Call(unix.SYS_SHUTDOWN, fd, tracer.Int(unix.SHUT_RD)))
	}
	s.kept = true
	b.tcp = append(b.tcp, s)
	return nil
}

// options are an array of struct tcp_repair_opt.
func (r *tcpRepairRecord) options() []uint32 {
	options := []uint32{tcpoptMSS, r.MSS}
	if r.Agreed&optWscale != 0 {
		options = append(options, tcpoptWindow, uint32(r.SendScale)|uint32(r.ReceiveScale)<<16)
	}
	if r.Agreed&optSACK != 0 {
		options = append(options, tcpoptSACK, 0)
	}
	if r.Agreed&optTimestamps != 0 {
		options = append(options, tcpoptTimestamp, 0)
	}
	return options
}

// commitTCP lets the connections that are kept go on. The task has the right,
// as it had when it entered repair mode: what it becomes had it as well.
func (b *Builder) commitTCP(p *tracer.Program) {
	for _, s := range b.tcp {
		if !s.kept {
			continue
		}
		setsockopt(p, s.open.fd, unix.IPPROTO_TCP, tcpRepair, []byte{repairOff, 0, 0, 0})
		// Repair mode leaves it switched off.
		s.eachOption(func(o *option, value []byte) {
			if o.is(unix.SOL_SOCKET, unix.SO_REUSEADDR) {
				b.setOption(p, s.open.fd, o, value)
			}
		})
	}
}

// fill stages the writing of bytes to a socket.
func (s *inetSocket) fill(b *Builder, fd tracer.Arg, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	p := b.Stage()
	b.Expect(p.Write(fd, p.Bytes(data), uint64(len(data))).Full(), fault.SocketData, s.name)
	return b.filled(len(data))
}
