package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
)

// pair is a connection made anew over the loopback device.
type pair struct {
	server, client tracer.FD
	floating       bool // the addresses are not those that it had
}

// patience bounds what cannot last on the loopback device, unless a firewall
// swallows it.
const patience = 5

// plainBuffer is what fits the buffers that the kernel gives to anyone.
const plainBuffer = 32 << 10

// timeWaitReuse is after how long the kernel lets a new connection take the
// place of one in TIME_WAIT (net.ipv4.tcp_tw_reuse_delay, 1 s).
const timeWaitReuse = 1100 * time.Millisecond

// endAddress is where an end of a connection belongs.
type endAddress struct {
	domain int
	inetAddress
	v6Only   bool
	protocol int // 0, or that of MPTCP
}

// connectAnew makes a connection: the server has its address if it is free,
// and the client as well if one is given.
func (b *Builder) connectAnew(s *inetSocket, server endAddress, client *endAddress, room uint32) (*pair, error) {
	listener, err := b.listenAt(s, &server, room)
	if err != nil {
		return nil, err
	}
	defer func() {
		b.Stage().Close(listener)
		b.fds.drop(listener)
	}()
	fd, err := b.connectTo(s, &server, client)
	if err != nil {
		return nil, err
	}
	b.wait(listener, unix.POLLIN)
	row := b.Stage().Call(unix.SYS_ACCEPT4, listener, tracer.Imm(0), tracer.Imm(0), tracer.Int(unix.SOCK_CLOEXEC))
	b.Expect(row, fault.SocketConnect, s.name)
	made := &pair{server: b.fds.take(row), client: fd}
	b.renew(s, made.server, server.protocol)
	b.renew(s, made.client, clientProtocol(&server, client))
	if err := b.Flush(); err != nil {
		return nil, err
	}
	return made, b.sameConnection(s, made)
}

// renew stages the taking back of what the making has asked for. A connection
// of MPTCP takes less: its buffers stay as large as they were made, and the
// options that count before it is made are not kept (withoutEarly).
func (b *Builder) renew(s *inetSocket, end tracer.FD, protocol int) {
	options := []struct{ level, name, size int }{
		{unix.SOL_SOCKET, unix.SO_RCVTIMEO, 16},
		{unix.SOL_SOCKET, soBufLock, 4},
		{unix.SOL_IP, unix.IP_LOCAL_PORT_RANGE, 4},
		{unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 4},
	}
	if protocol == protocolMPTCP {
		options = options[:1]
	} else {
		b.setInt(end, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, s.name)
	}
	for _, o := range options {
		b.Expect(setsockopt(b.Stage(), end, o.level, o.name, make([]byte, o.size)), fault.SocketState, s.name)
	}
	setTimeout(b.Stage(), end)
}

// clientProtocol is what a client speaks: as the server does if it is ours alone.
func clientProtocol(server, client *endAddress) int {
	if client == nil {
		return server.protocol
	}
	return client.protocol
}

// wait stages poll(2), with patience: what follows fails if that was in vain.
func (b *Builder) wait(fd tracer.FD, events uint32) {
	p := b.Stage()
	poll := binary.LittleEndian.AppendUint32(nil, uint32(fd)) // struct pollfd
	poll = binary.LittleEndian.AppendUint32(poll, events)
	p.Call(unix.SYS_POLL, tracer.Ptr(p.Bytes(poll)), tracer.Imm(1), tracer.Imm(patience*1000))
}

// sameConnection makes sure that nobody came between: any program may connect
// to a port that listens.
func (b *Builder) sameConnection(s *inetSocket, p *pair) error {
	client, err := b.nameOf(p.client, unix.Getsockname)
	if err != nil {
		return err
	}
	peer, err := b.nameOf(p.server, unix.Getpeername)
	if err != nil {
		return err
	}
	if client != peer {
		return &fault.Error{Code: fault.SocketConnect, Object: s.name, Detail: "another program connected first", Err: unix.EADDRINUSE}
	}
	return nil
}

// nameOf asks for an address of a staged socket, in the form of IPv6.
func (b *Builder) nameOf(fd tracer.FD, ask func(int) (unix.Sockaddr, error)) (a inetAddress, err error) {
	err = b.withSocket(fd, func(fd int) error {
		name, err := ask(fd)
		if err == nil {
			if a = inetAddressOf(name); isIPv4(name) {
				a = a.mapped(unix.AF_INET)
			}
		}
		return err
	})
	return a, err
}

func isIPv4(name unix.Sockaddr) bool {
	_, ok := name.(*unix.SockaddrInet4)
	return ok
}

// withSocket calls do with a descriptor of ours for a staged socket.
func (b *Builder) withSocket(fd tracer.FD, do func(fd int) error) error {
	file, err := b.Tracee.TakeFD(fd)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // only looked at
	conn, err := file.SyscallConn()     // Fd would take away its O_NONBLOCK
	if err != nil {
		return err
	}
	cerr := conn.Control(func(fd uintptr) { err = do(int(fd)) })
	return errors.Join(cerr, err)
}

// listenAt opens a socket that listens at an address, or, where that is taken,
// at any, which it then stores there.
func (b *Builder) listenAt(s *inetSocket, at *endAddress, room uint32) (tracer.FD, error) {
	var bind, listen *tracer.Row
	for _, bound := range []bool{true, false} {
		fd := b.plainSocket(at.domain, at.v6Only, at.protocol, s.name)
		p := b.Stage()
		p.Fcntl(fd, unix.F_SETFL, tracer.Imm(unix.O_NONBLOCK)) // accept(2) of MPTCP knows no SO_RCVTIMEO
		if room > 0 {                                          // it counts from the first segment on, by the window scale
			name := unix.SO_RCVBUF
			if b.mayForceBuffers() {
				name = unix.SO_RCVBUFFORCE
			}
			b.setInt(fd, unix.SOL_SOCKET, name, min(room, mostQueued/4)*2, s.name)
		}
		if bound {
			bind = addressed(p, unix.SYS_BIND, fd, at.domain, at.toBind()).Tolerate()
		}
		listen = p.Call(unix.SYS_LISTEN, fd, tracer.Imm(1)).Tolerate()
		if err := b.Flush(); err != nil {
			return -1, err
		}
		if listen.Err() == nil {
			if bind.Err() == nil && bound {
				return fd, nil
			}
			name, err := b.nameOf(fd, unix.Getsockname)
			at.inetAddress = name.in(at.domain)
			return fd, err
		}
		b.Stage().Close(fd)
		b.fds.drop(fd)
	}
	return -1, &fault.Error{Code: fault.SocketConnect, Object: s.name, Err: listen.Err()}
}

// connectTo opens a socket that is connected to an address, from another one
// if that is given and free. IP_LOCAL_PORT_RANGE of one port (Linux 6.3) has
// the kernel choose it as it has done before: it may be that of a connection
// to another address, or of the dead process's own, a second after its end.
func (b *Builder) connectTo(s *inetSocket, to, from *endAddress) (tracer.FD, error) {
	domain, only, protocol := to.domain, false, clientProtocol(to, from)
	if from != nil {
		domain, only = from.domain, from.v6Only
	}
	address := to.mapped(to.domain).in(domain)
	for attempt := 0; ; attempt++ {
		fd := b.plainSocket(domain, only, protocol, s.name)
		p := b.Stage()
		setTimeout(p, fd)
		if from != nil {
			b.nameClient(s, p, fd, *from)
		}
		row := addressed(p, unix.SYS_CONNECT, fd, domain, &address).Tolerate()
		if err := b.Flush(); err != nil {
			return -1, err
		}
		err := row.Err()
		if err == nil {
			return fd, nil
		}
		b.Stage().Close(fd)
		b.fds.drop(fd)
		switch {
		case from == nil || !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.EADDRINUSE):
			return -1, &fault.Error{Code: fault.SocketConnect, Object: s.name, Err: err}
		case attempt == 0:
			time.Sleep(timeWaitReuse)
		default:
			from = nil
		}
	}
}

// nameClient stages the choice of an address for a socket that will connect.
func (b *Builder) nameClient(s *inetSocket, p *tracer.Program, fd tracer.FD, from endAddress) {
	if low, high := localPorts(); low <= from.Port && from.Port <= high {
		port := uint32(from.Port)
		b.setInt(fd, unix.SOL_IP, unix.IP_LOCAL_PORT_RANGE, port<<16|port, s.name)
		b.setInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1, s.name)
		from.Port = 0
	}
	if address := from.toBind(); *address != (inetAddress{}) {
		addressed(p, unix.SYS_BIND, fd, from.domain, address).Tolerate() // it then gets another one
	}
}

// toBind is the address for bind(2), which makes an IPv6 socket IPV6_V6ONLY
// unless it is ::.
func (a *endAddress) toBind() *inetAddress {
	address := a.inetAddress
	if a.domain == unix.AF_INET6 && !a.v6Only {
		address.IP, address.Scope = [16]byte{}, 0
	}
	return &address
}

// plainSocket stages a socket that waits, and that may have an address together
// with others.
func (b *Builder) plainSocket(domain int, v6Only bool, protocol int, name string) tracer.FD {
	fd := b.newSocket(domain, unix.SOCK_STREAM, protocol, name)
	if domain == unix.AF_INET6 {
		only := uint32(0)
		if v6Only {
			only = 1
		}
		b.setInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only, name)
	}
	b.setInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, name)
	return fd
}

// localPorts are those that the kernel gives to whom asks for none.
func localPorts() (low, high uint16) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 32768, 60999
	}
	if _, err := fmt.Sscan(string(text), &low, &high); err != nil {
		return 32768, 60999
	}
	return low, high
}

// setTimeout stages a bound on how long the socket waits to connect or write.
func setTimeout(p *tracer.Program, fd tracer.FD) {
	setsockopt(p, fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, []byte{patience, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
}
