package resource

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// tcpRepairRecord is what makes an end of a connection go on elsewhere, as if
// nothing had been (TCP_REPAIR of <linux/tcp.h>).
type tcpRepairRecord struct {
	ReadSequence  uint32 `doc:"of the first byte that has not been read"`
	WriteSequence uint32 `doc:"of the first byte that has not been acknowledged"`
	MSS           uint32 `doc:"most bytes in a segment, as agreed"`
	Timestamp     uint32 `doc:"TCP_TIMESTAMP"`
	SendScale     uint8  `doc:"window scale of the peer"`
	ReceiveScale  uint8  `doc:"our own"`
	Agreed        uint8  `fmt:"flags" flags:"1=TIMESTAMPS 2=SACK 4=WSCALE 8=ECN" doc:"tcpi_options of struct tcp_info"`
	_             [1]byte
	SendBuffer    uint32 `doc:"sizes of the buffers, whoever chose them"`
	ReceiveBuffer uint32
	Window        [20]byte `doc:"struct tcp_repair_window"`
}

// Options of <linux/tcp.h>, and what they take.
const (
	tcpRepair        = 19
	tcpRepairQueue   = 20
	tcpQueueSeq      = 21
	tcpRepairOptions = 22
	tcpTimestamp     = 24
	tcpRepairWindow  = 29

	repairOn       = 1
	repairOff      = 0          // and ask the peer for its window
	repairOffQuiet = ^uint32(0) // TCP_REPAIR_OFF_NO_WP
	receiveQueue   = 1
	sendQueue      = 2

	optTimestamps = 1 // TCPI_OPT_*
	optSACK       = 2
	optWscale     = 4

	infoState   = 0 // offsets in struct tcp_info
	infoOptions = 5
	infoScales  = 6 // four bits each

	tcpoptMSS       = 2 // TCPOPT_* of <net/tcp.h>
	tcpoptWindow    = 3
	tcpoptSACK      = 4
	tcpoptTimestamp = 8
)

// mayRepair tells whether the process may put its sockets into repair mode.
func (v *View) mayRepair() bool { return v.Status.CapEff&(1<<capNetAdmin) != 0 }

// underRepair has the task itself, with its own rights, put a socket into
// repair mode, in which its queues can be read, and calls do. What the peer
// sends meanwhile is dropped, so that the peer sends it again, to whoever has
// the connection then. A task that is to be killed stays so if do agrees: its
// sockets vanish without a word to the peer. It is false if the task may not.
func (s *Saver) underRepair(f *procfs.FD, fd int, do func() (stay bool, err error)) (bool, error) {
	if !s.mayRepair() {
		return false, nil
	}
	reuse, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR)
	if err != nil {
		return false, fmt.Errorf("read SO_REUSEADDR: %w", err)
	}
	m := repairMode{remote: s.Remote, fd: tracer.FD(f.Number), reuse: uint64(reuse)}
	entered, err := m.enter()
	if err != nil {
		return false, err
	}
	stay := false
	if entered {
		if stay, err = do(); err != nil {
			return false, err // the undo calls leave it
		}
	}
	if stay && s.Doomed {
		return true, nil
	}
	return entered, m.leave()
}

// repairMode is a socket of the task in repair mode. Each step is taken back
// by the task itself if we fail or end. The values that those calls point to
// are in a page of their own, as they must stay.
type repairMode struct {
	remote *tracer.Remote
	fd     tracer.FD
	reuse  uint64 // SO_REUSEADDR, which repair mode takes over
	page   tracer.Addr

	unmap, detach, reset, off *tracer.Undo
	filter, repair            *tracer.Row
}

// Offsets of values in the page.
const (
	atOn = 8 * iota
	atOff
	atReuse
	atProgram // struct sock_fprog: how many instructions, and where
	atProgramAddress
	atInstruction
)

func (m *repairMode) enter() (bool, error) {
	p := m.remote.Program()
	page := p.Call(unix.SYS_MMAP, tracer.Imm(0), tracer.Imm(procfs.PageSize), tracer.Int(unix.PROT_READ|unix.PROT_WRITE),
		tracer.Int(unix.MAP_PRIVATE|unix.MAP_ANONYMOUS), tracer.Int(-1), tracer.Imm(0))
	m.unmap = page.Undo(unix.SYS_MUNMAP, page, tracer.Imm(procfs.PageSize))
	if err := p.Run(); err != nil {
		return false, fmt.Errorf("make room for values: %w", err)
	}
	m.page = tracer.Addr(page.Result())
	p = m.remote.Program()
	p.Store(m.page+atOn, tracer.Imm(repairOn))
	p.Store(m.page+atOff, tracer.Imm(repairOffQuiet))
	p.Store(m.page+atReuse, tracer.Imm(m.reuse))
	p.Store(m.page+atProgram, tracer.Imm(1)) // one instruction
	p.Store(m.page+atProgramAddress, tracer.Ptr(m.page+atInstruction))
	p.Store(m.page+atInstruction, tracer.Imm(unix.BPF_RET|unix.BPF_K)) // keep 0 bytes of a packet
	m.filter = p.Call(unix.SYS_SETSOCKOPT, m.call(unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, atProgram, 16)...).Tolerate()
	m.detach = m.filter.Undo(unix.SYS_SETSOCKOPT, m.call(unix.SOL_SOCKET, unix.SO_DETACH_FILTER, atOff, 4)...)
	m.repair = p.Call(unix.SYS_SETSOCKOPT, m.call(unix.IPPROTO_TCP, tcpRepair, atOn, 4)...).Tolerate()
	m.reset = m.repair.Undo(unix.SYS_SETSOCKOPT, m.call(unix.SOL_SOCKET, unix.SO_REUSEADDR, atReuse, 4)...)
	m.off = m.repair.Undo(unix.SYS_SETSOCKOPT, m.call(unix.IPPROTO_TCP, tcpRepair, atOff, 4)...)
	if err := p.Run(); err != nil {
		return false, fmt.Errorf("enter repair mode: %w", err)
	}
	return m.filter.Err() == nil && m.repair.Err() == nil, nil
}

func (m *repairMode) call(level, name, at int, size uint64) []tracer.Arg {
	return []tracer.Arg{m.fd, tracer.Int(level), tracer.Int(name), tracer.Ptr(m.page + tracer.Addr(at)), tracer.Imm(size)}
}

// leave takes back what enter has done.
func (m *repairMode) leave() error {
	p := m.remote.Program()
	if m.repair.Err() == nil {
		p.Call(unix.SYS_SETSOCKOPT, m.call(unix.IPPROTO_TCP, tcpRepair, atOff, 4)...)
		p.Forget(m.off)
		p.Call(unix.SYS_SETSOCKOPT, m.call(unix.SOL_SOCKET, unix.SO_REUSEADDR, atReuse, 4)...)
		p.Forget(m.reset)
	}
	if m.filter.Err() == nil {
		p.Call(unix.SYS_SETSOCKOPT, m.call(unix.SOL_SOCKET, unix.SO_DETACH_FILTER, atOff, 4)...)
		p.Forget(m.detach)
	}
	p.Munmap(procfs.Range{Start: m.page, End: m.page + tracer.Addr(procfs.PageSize)})
	p.Forget(m.unmap)
	if err := p.Run(); err != nil {
		return fmt.Errorf("leave repair mode: %w", err)
	}
	return nil
}

// readSendQueue reads what the other end has not got, of a connection within
// the process.
func (c *connection) readSendQueue(s *Saver, f *procfs.FD, fd, n int) error {
	ok, err := s.underRepair(f, fd, func() (bool, error) {
		err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, tcpRepairQueue, sendQueue)
		if err == nil {
			c.unsent, err = peek(fd, n)
		}
		return false, err
	})
	if err == nil && !ok {
		err = &fault.Error{Code: fault.SocketUnsent, Detail: fmt.Sprintf("%d bytes", n)}
	}
	return err
}

// readRepair reads all that makes the connection go on elsewhere, if the task
// may.
func (c *connection) readRepair(s *Saver, f *procfs.FD, fd int) error {
	ok, err := s.underRepair(f, fd, func() (bool, error) {
		info := make([]byte, infoScales+1)
		_, err := sockopt(fd, unix.IPPROTO_TCP, unix.TCP_INFO, info)
		if err != nil || info[infoState] != unix.BPF_TCP_ESTABLISHED {
			return false, err // it has come to an end meanwhile
		}
		c.repair = &tcpRepairRecord{Agreed: info[infoOptions], SendScale: info[infoScales] & 15, ReceiveScale: info[infoScales] >> 4}
		return true, c.readRepaired(fd)
	})
	if err == nil && ok && c.repair != nil {
		c.Flags |= hasRepair
	}
	return err
}

// readRepaired reads a socket in repair mode. Only going there takes a right.
func (c *connection) readRepaired(fd int) (err error) {
	r := c.repair
	for _, o := range []struct {
		level, name int
		to          *uint32
	}{
		{unix.IPPROTO_TCP, unix.TCP_MAXSEG, &r.MSS},
		{unix.IPPROTO_TCP, tcpTimestamp, &r.Timestamp},
		{unix.SOL_SOCKET, unix.SO_SNDBUF, &r.SendBuffer},
		{unix.SOL_SOCKET, unix.SO_RCVBUF, &r.ReceiveBuffer},
	} {
		n, err := unix.GetsockoptInt(fd, o.level, o.name)
		if err != nil {
			return fmt.Errorf("read option %d of a connection: %w", o.name, err)
		}
		*o.to = uint32(n)
	}
	if _, err := sockopt(fd, unix.IPPROTO_TCP, tcpRepairWindow, r.Window[:]); err != nil {
		return fmt.Errorf("read TCP_REPAIR_WINDOW: %w", err)
	}
	if r.ReadSequence, c.unread, err = readRepairQueue(fd, receiveQueue, unix.TIOCINQ); err != nil {
		return err
	}
	r.WriteSequence, c.unsent, err = readRepairQueue(fd, sendQueue, unix.TIOCOUTQ)
	return err
}

// readRepairQueue returns what is in a queue and the sequence number of its
// first byte; the kernel tells that behind the last.
func readRepairQueue(fd, queue int, length uint) (uint32, []byte, error) {
	n, err := unix.IoctlGetInt(fd, length)
	if err != nil {
		return 0, nil, fmt.Errorf("read length of queue: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, tcpRepairQueue, queue); err != nil {
		return 0, nil, fmt.Errorf("choose queue: %w", err)
	}
	sequence, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, tcpQueueSeq)
	if err != nil {
		return 0, nil, fmt.Errorf("read sequence number: %w", err)
	}
	data, err := peek(fd, n)
	return uint32(sequence) - uint32(n), data, err
}
