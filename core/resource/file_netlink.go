package resource

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// netlinkSocket is a socket to talk to the kernel with, netlink(7), of those
// protocols where the kernel remembers nothing of it between two messages.
var netlinkSocket = FileKind{
	Name:    "netlink socket",
	Support: Partial,
	Note: "Routing, generic, uevents, socket diagnosis, user: port, peer, groups, options, buffer sizes that the program chose. The port must be " +
		"free again. Refused while messages wait. Events of the time between checkpoint and restart are lost, and so is " +
		"what a family of generic netlink has registered for the port.",
	Records: []image.Spec{
		image.Row[netlinkRecord](netlinkKind, "FD_NETLINK", image.InFiles, "a netlink socket; its parent is the reference of the open file; NETLINK_GROUPS follows"),
		image.Row[netlinkGroupsRecord](netlinkGroupsKind, "NETLINK_GROUPS", image.InFiles, "the groups that a netlink socket hears"),
	},
	Match: func(v *View, f *procfs.FD) bool {
		s, err := v.socket(f)
		return err == nil && s != nil && s.domain == unix.AF_NETLINK && slices.Contains(netlinkProtocols, s.protocol) && standardOf(v, f) < 0
	},
	Refuse: refuseNetlink,
	Dump:   dumpNetlink,
	Kind:   netlinkKind,
	Load:   loadNetlink,
	Skip: func(b *Builder, ref object.Ref) (*stagedOpen, error) {
		rec, _, _, err := readNetlink(b, ref)
		if err != nil {
			return nil, err
		}
		return &stagedOpen{fd: nothing, path: "netlink socket", flags: rec.Flags}, nil
	},
}

const (
	netlinkKind       image.Kind = 6444
	netlinkGroupsKind image.Kind = 6445
)

var netlinkProtocols = []int{unix.NETLINK_ROUTE, unix.NETLINK_USERSOCK, unix.NETLINK_SOCK_DIAG, unix.NETLINK_KOBJECT_UEVENT, unix.NETLINK_GENERIC}

type netlinkRecord struct {
	Protocol  uint16 `doc:"NETLINK_* of netlink(7)"`
	Type      uint16 `doc:"2 or 3, which is the same"`
	Flags     uint32 `fmt:"oct" doc:"open flags"`
	UID       uint32 `doc:"owner"`
	GID       uint32
	Port      uint32 `doc:"nl_pid of its address; 0 if it has none"`
	PeerPort  uint32 `doc:"nl_pid of connect(2)"`
	PeerGroup uint32 `fmt:"hex" doc:"nl_groups of connect(2)"`
	_         [4]byte
	Options   []socketOption
}

type netlinkGroupsRecord struct {
	Groups []uint32 `doc:"numbers, from 1 on"`
}

func refuseNetlink(v *View, f *procfs.FD) *fault.Error {
	if refusal := refuseNameless(v, f); refusal != nil {
		return refusal // asked before we have it as well
	}
	fd, err := v.duplicate(f.Number)
	if err != nil {
		return &fault.Error{Code: fault.Socket, Detail: f.Target, Err: err}
	}
	defer unix.Close(fd)
	if refusal := refuseSocket(v, f, fd); refusal != nil {
		return refusal
	}
	return nothingWaits(fd)
}

func nothingWaits(fd int) *fault.Error {
	if n, err := receiveMemory(fd); err != nil || n > 0 {
		return &fault.Error{Code: fault.SocketPending, Detail: fmt.Sprintf("netlink, %d bytes", n), Err: err}
	}
	return nil
}

func dumpNetlink(s *Saver, f *procfs.FD, ref object.Ref) error {
	fd, err := s.duplicate(f.Number)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := s.sameNamespace(fd); err != nil {
		return err
	}
	if refusal := nothingWaits(fd); refusal != nil {
		return refusal // it came since the survey
	}
	sock, err := s.socket(f)
	if err != nil {
		return err
	}
	rec := netlinkRecord{Protocol: uint16(sock.protocol), Type: uint16(sock.typ), Flags: f.Flags &^ unix.O_CLOEXEC}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("read owner: %w", err)
	}
	rec.UID, rec.GID = st.Uid, st.Gid
	own, err := netlinkName(fd, unix.Getsockname)
	if err != nil {
		return err
	}
	peer, err := netlinkName(fd, unix.Getpeername)
	if err != nil {
		return err
	}
	rec.Port, rec.PeerPort, rec.PeerGroup = own.Pid, peer.Pid, peer.Groups
	if rec.Options, err = readOptions(fd, netlink); err != nil {
		return err
	}
	groups, err := netlinkGroups(fd)
	if err != nil {
		return err
	}
	if err := s.W.Put(uint32(ref), &rec); err != nil {
		return err
	}
	return s.W.Put(uint32(ref), &netlinkGroupsRecord{Groups: groups})
}

func netlinkName(fd int, ask func(int) (unix.Sockaddr, error)) (*unix.SockaddrNetlink, error) {
	name, err := ask(fd)
	if err != nil {
		return nil, fmt.Errorf("read address: %w", err)
	}
	a, ok := name.(*unix.SockaddrNetlink)
	if !ok {
		return nil, fmt.Errorf("read address: %w", unix.EAFNOSUPPORT)
	}
	return a, nil
}

// mostGroups bounds the groups of a socket: generic netlink makes new numbers
// as families come and go.
const mostGroups = 4096

// netlinkGroups reads the set of groups (NETLINK_LIST_MEMBERSHIPS).
func netlinkGroups(fd int) ([]uint32, error) {
	set := make([]byte, mostGroups/8)
	n, err := sockopt(fd, unix.SOL_NETLINK, unix.NETLINK_LIST_MEMBERSHIPS, set)
	if err != nil {
		return nil, fmt.Errorf("read groups: %w", err)
	}
	if n > len(set) {
		return nil, fmt.Errorf("read groups: %d bytes of them: %w", n, unix.E2BIG)
	}
	var groups []uint32
	for i := range uint32(n) * 8 {
		if set[i/8]&(1<<(i%8)) != 0 {
			groups = append(groups, i+1)
		}
	}
	return groups, nil
}

func readNetlink(b *Builder, ref object.Ref) (*netlinkRecord, []*option, []uint32, error) {
	rec, head, err := image.Expect[netlinkRecord](b.R)
	if err != nil {
		return nil, nil, nil, err
	}
	if head.Parent != uint32(ref) || !slices.Contains(netlinkProtocols, int(rec.Protocol)) || rec.Type != unix.SOCK_RAW && rec.Type != unix.SOCK_DGRAM {
		return nil, nil, nil, badImage(fault.ImageValue, "netlink socket", "owner %d, protocol %d, type %d", head.Parent, rec.Protocol, rec.Type)
	}
	var rows []*option
	for i := range rec.Options {
		row, err := rowOf(&rec.Options[i], netlink)
		if err != nil {
			return nil, nil, nil, err
		}
		rows = append(rows, row)
	}
	groups, _, err := image.Expect[netlinkGroupsRecord](b.R)
	if err != nil {
		return nil, nil, nil, err
	}
	if len(groups.Groups) > mostGroups {
		return nil, nil, nil, badImage(fault.ImageValue, "netlink socket", "%d groups", len(groups.Groups))
	}
	return rec, rows, groups.Groups, nil
}

func loadNetlink(b *Builder, ref object.Ref) (*stagedOpen, error) {
	rec, rows, groups, err := readNetlink(b, ref)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("netlink socket of port %d", rec.Port)
	p := b.Stage()
	row := p.Call(unix.SYS_SOCKET, tracer.Int(unix.AF_NETLINK), tracer.Imm(uint64(rec.Type)|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK), tracer.Imm(rec.Protocol))
	b.Expect(row, fault.SocketState, name)
	open := &stagedOpen{fd: b.fds.take(row), path: name, flags: rec.Flags}
	b.ownSocket(open, rec.UID, rec.GID)
	for i, o := range rows {
		b.Expect(b.setOption(p, open.fd, o, rec.Options[i].Value[:]), fault.SocketState, name)
	}
	address := func(nr uintptr, port, groups uint32) {
		raw := make([]byte, 12) // struct sockaddr_nl
		raw[0] = unix.AF_NETLINK
		putUint32(raw[4:], port)
		putUint32(raw[8:], groups)
		b.Expect(p.Call(nr, open.fd, tracer.Ptr(p.Bytes(raw)), tracer.Int(len(raw))), fault.SocketAddress, name)
	}
	if rec.Port != 0 {
		address(unix.SYS_BIND, rec.Port, 0)
	}
	for _, group := range groups {
		b.setInt(open.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group, name)
	}
	if rec.PeerPort != 0 || rec.PeerGroup != 0 {
		address(unix.SYS_CONNECT, rec.PeerPort, rec.PeerGroup)
	}
	b.setFlags(open, rec.Flags)
	open.verify = func(f *procfs.FD) error {
		err := b.withSocket(tracer.FD(f.Number), func(fd int) error {
			return sameOptions(fd, netlink, rec.Options, func(*option) bool { return true })
		})
		if err != nil {
			return &fault.Error{Code: fault.SocketState, Object: name, Err: err}
		}
		return nil
	}
	return open, nil
}

// ownSocket stages the change of owner, where the caller makes sockets as
// somebody else.
func (b *Builder) ownSocket(open *stagedOpen, uid, gid uint32) {
	if st := b.Caller.Status; uid != st.Uid[3] || gid != st.Gid[3] {
		b.Expect(b.Stage().Call(unix.SYS_FCHOWN, open.fd, tracer.Imm(uid), tracer.Imm(gid)), fault.SocketState, open.path)
	}
}
