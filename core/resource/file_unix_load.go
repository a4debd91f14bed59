package resource

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// unixRestore is all unix sockets of the image, in the caller.
type unixRestore struct {
	sockets []*stagedUnix
	byIno   map[uint64]*stagedUnix
	files   []*unixFile
	texts   procfs.Range // memory for the file names that undo calls need
	sent    []sentMessage
	wide    map[*stagedOpen]bool // those with room for all that they send
	helper  *stagedOpen          // sends datagrams whose sender has no name
}

// stagedUnix is one of them.
type stagedUnix struct {
	rec    *unixSocketRecord
	open   *stagedOpen
	ghost  *stagedOpen // in the place of a peer that was closed
	file   *unixFile   // of its name
	taken  bool        // by an open file of the image
	filled bool
}

// peer returns the socket that it is connected to and that is connected to it.
func (r *unixRestore) peer(u *stagedUnix) *stagedUnix {
	if p := r.byIno[u.rec.Peer]; p != nil && p.rec.Peer == u.rec.Ino && u.rec.State == unixConnected && p.rec.State == unixConnected {
		return p
	}
	return nil
}

func loadUnix(b *Builder, ref object.Ref) (*stagedOpen, error) {
	rec, head, err := image.Expect[unixOpenRecord](b.R)
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("open file %d", ref)
	if head.Parent != uint32(ref) || (b.unix == nil) != (rec.Sockets > 0) {
		return nil, badImage(fault.ImageValue, what, "owner %d, %d sockets", head.Parent, rec.Sockets)
	}
	if b.unix == nil {
		b.unix = &unixRestore{byIno: make(map[uint64]*stagedUnix), wide: make(map[*stagedOpen]bool)}
		if err := b.unix.load(b, rec.Sockets); err != nil {
			return nil, err
		}
	}
	u := b.unix.byIno[rec.Ino]
	if u == nil || u.taken {
		return nil, badImage(fault.ImageValue, what, "socket %d is missing or taken", rec.Ino)
	}
	u.taken, u.open.flags = true, rec.Flags
	b.setFlags(u.open, rec.Flags)
	return u.open, nil
}

// load reads all the sockets and makes them.
func (r *unixRestore) load(b *Builder, n uint32) error {
	for range n {
		rec, _, err := image.Expect[unixSocketRecord](b.R)
		if err != nil {
			return err
		}
		if err := rec.check(); err != nil {
			return err
		}
		if r.byIno[rec.Ino] != nil {
			return rec.bad("twice")
		}
		u := &stagedUnix{rec: rec}
		r.sockets, r.byIno[rec.Ino] = append(r.sockets, u), u
		if rec.Named < unixPath {
			continue
		}
		dir, _, err := image.Expect[image.Str](b.R)
		if err != nil {
			return err
		}
		u.file = &unixFile{u: u, begin: dir.Text}
		r.files = append(r.files, u.file)
	}
	for _, u := range r.sockets {
		if err := r.checkRelations(u); err != nil {
			return err
		}
	}
	r.tell(b)
	if err := r.openFiles(b); err != nil {
		return err
	}
	r.make(b)
	for _, u := range r.sockets {
		if u.rec.Named != unixNoName && u.rec.Listener == 0 || u.rec.State == unixWaiting && u.rec.Named != unixNoName {
			if err := r.bind(b, u); err != nil {
				return err
			}
		}
	}
	return r.connect(b)
}

func (r *unixSocketRecord) bad(format string, args ...any) error {
	return badImage(fault.ImageValue, r.label(), format, args...)
}

// check looks at the record alone.
func (r *unixSocketRecord) check() error {
	stream := r.Type == unix.SOCK_STREAM || r.Type == unix.SOCK_SEQPACKET
	datagram := r.Type == unix.SOCK_DGRAM
	switch {
	case r.Ino == 0 || !stream && !datagram || r.State >= unixStates || r.Shutdown > rcvShutdown|sendShutdown || r.Reset > 1:
		return badImage(fault.ImageValue, fmt.Sprintf("unix socket %d", r.Ino), "type %d, state %d, shutdown %d", r.Type, r.State, r.Shutdown)
	case r.Named >= unixNames || r.NameLen > sunPathSize || (r.Named == unixNoName) != (r.NameLen == 0) && r.Named != unixAbstract ||
		r.Named == unixAbstract && r.NameLen >= sunPathSize || r.Named >= unixPath && strings.Contains(r.name(), "\x00"):
		return badImage(fault.ImageValue, fmt.Sprintf("unix socket %d", r.Ino), "name of %d bytes", r.NameLen)
	case datagram && (r.State == unixListening || r.State == unixWaiting || r.Listener != 0) || r.Reset != 0 && (datagram || r.State != unixOrphaned):
		return r.bad("state %d of type %d", r.State, r.Type)
	case r.Mode > 0o7777 || r.Backlog > 1<<31-1:
		return r.bad("mode %#o, backlog %d", r.Mode, r.Backlog)
	}
	for i := 0; i < len(r.Timeouts); i += 2 {
		if r.Timeouts[i] < 0 || r.Timeouts[i+1] < 0 || r.Timeouts[i+1] >= 1e6 {
			return r.bad("timeout of %d s, %d µs", r.Timeouts[i], r.Timeouts[i+1])
		}
	}
	for i, o := range r.Options {
		if !slices.ContainsFunc(unixOptions, func(k unixOption) bool { return k.Option == o.Option }) ||
			slices.ContainsFunc(r.Options[:i], func(k unixOption) bool { return k.Option == o.Option }) {
			return r.bad("option %d", o.Option)
		}
	}
	return nil
}

// checkRelations looks at the sockets that the record names.
func (r *unixRestore) checkRelations(u *stagedUnix) error {
	rec := u.rec
	if p := r.byIno[rec.Peer]; rec.State == unixConnected && (p == nil || p.rec.Type != rec.Type) {
		return rec.bad("connected to %d", rec.Peer)
	}
	mutual := r.peer(u)
	switch {
	case rec.State == unixConnected && mutual == nil && (rec.Type != unix.SOCK_DGRAM || r.byIno[rec.Peer].rec.Named == unixNoName):
		return rec.bad("connected to %d, and not back", rec.Peer)
	case mutual == u && rec.Type != unix.SOCK_DGRAM:
		return rec.bad("connected to itself")
	case rec.State == unixWaiting && rec.Listener == 0, rec.Listener != 0 && (rec.State == unixAlone || rec.State == unixListening):
		return rec.bad("listening socket %d", rec.Listener)
	}
	if rec.Listener == 0 {
		return nil
	}
	l := r.byIno[rec.Listener]
	if l == nil || l.rec.State != unixListening || l.rec.Type != rec.Type || l.rec.Named == unixNoName || mutual != nil && mutual.rec.Listener != 0 {
		return rec.bad("listening socket %d", rec.Listener)
	}
	return nil
}

// tell says that SO_PEERCRED will show another user than it did.
func (r *unixRestore) tell(b *Builder) {
	uid, gid := b.Caller.Status.Uid[1], b.Caller.Status.Gid[1]
	for _, u := range r.sockets {
		if u.rec.State != unixAlone && (u.rec.PeerUID != uid || u.rec.PeerGID != gid) {
			b.Warn("SO_PEERCRED of unix sockets shows user %d and group %d, which restarted them, not %d and %d", uid, gid, u.rec.PeerUID, u.rec.PeerGID)
			return
		}
	}
}

// make makes the sockets, those in pairs connected. One that listen(2) and
// accept(2) make is left out.
func (r *unixRestore) make(b *Builder) {
	for _, u := range r.sockets {
		peer := r.peer(u)
		switch {
		case u.open != nil: // by its peer
		case u.rec.State == unixOrphaned && u.rec.Listener != 0:
			u.ghost = b.unixSocket(u.rec)
		case u.rec.State == unixOrphaned:
			u.open, u.ghost = b.unixPair(u.rec)
		case peer == nil || peer == u:
			u.open = b.unixSocket(u.rec)
		case u.rec.Listener != 0: // by connect
		case peer.rec.Listener != 0:
			u.open = b.unixSocket(u.rec)
		default:
			u.open, peer.open = b.unixPair(u.rec)
		}
	}
}

const unixStageFlags = unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK

func (b *Builder) unixSocket(rec *unixSocketRecord) *stagedOpen {
	row := b.Stage().Call(unix.SYS_SOCKET, tracer.Imm(unix.AF_UNIX), tracer.Imm(uint64(rec.Type)|unixStageFlags), tracer.Imm(0))
	return b.nameless(row, rec.label())
}

func (b *Builder) unixPair(rec *unixSocketRecord) (first, second *stagedOpen) {
	p := b.Stage()
	numbers := p.Buffer(8)
	b.Expect(p.Socketpair(unix.AF_UNIX, int(rec.Type)|unixStageFlags, 0, numbers), fault.DescriptorLimit, rec.label())
	ends := b.fds.takePair(numbers)
	return &stagedOpen{fd: ends[0], path: rec.label()}, &stagedOpen{fd: ends[1], path: rec.label()}
}

// connect has the listening sockets listen, and connects what has its name
// from them, or waits for them. Nobody else can have come in between: that is
// looked at afterwards.
func (r *unixRestore) connect(b *Builder) error {
	p := b.Stage()
	listen := func(u *stagedUnix, backlog uint32) {
		b.Expect(p.Call(unix.SYS_LISTEN, u.open.fd, tracer.Imm(uint64(backlog))), fault.FileState, u.rec.label())
	}
	var waiting []*stagedUnix
	for _, u := range r.sockets {
		switch u.rec.State {
		case unixListening:
			listen(u, 1<<16)
		case unixWaiting:
			waiting = append(waiting, u)
		}
	}
	type accepted struct {
		u    *stagedUnix
		cred tracer.Addr
	}
	var all []accepted
	for _, u := range r.sockets {
		if u.rec.Listener == 0 || u.rec.State == unixWaiting {
			continue
		}
		client := u.ghost
		if peer := r.peer(u); peer != nil {
			client = peer.open
		}
		listener := r.byIno[u.rec.Listener]
		r.connectTo(b, client, listener)
		row := p.Call(unix.SYS_ACCEPT4, listener.open.fd, tracer.Imm(0), tracer.Imm(0), tracer.Imm(unixStageFlags))
		b.Expect(row, fault.UnixConnected, u.rec.label())
		u.open = &stagedOpen{fd: b.fds.take(row), path: u.rec.label()}
		cred, size := p.Buffer(unix.SizeofUcred), p.Bytes(binary.LittleEndian.AppendUint32(nil, unix.SizeofUcred))
		p.Call(unix.SYS_GETSOCKOPT, u.open.fd, tracer.Imm(unix.SOL_SOCKET), tracer.Imm(unix.SO_PEERCRED), tracer.Ptr(cred), tracer.Ptr(size))
		all = append(all, accepted{u, cred})
	}
	slices.SortStableFunc(waiting, func(a, b *stagedUnix) int { return int(int64(a.rec.Turn) - int64(b.rec.Turn)) })
	for _, u := range waiting {
		r.connectTo(b, u.open, r.byIno[u.rec.Listener])
	}
	for _, u := range r.sockets {
		if u.rec.State == unixListening {
			listen(u, u.rec.Backlog)
		}
	}
	if err := b.Flush(); err != nil {
		return err
	}
	for _, f := range r.files {
		if err := f.checkAside(b); err != nil {
			return err
		}
	}
	for _, a := range all {
		cred := make([]byte, unix.SizeofUcred)
		if err := b.Remote.ReadMem(a.cred, cred); err != nil {
			return err
		}
		if pid := procfs.PID(int32(binary.LittleEndian.Uint32(cred))); pid != b.VPID {
			return &fault.Error{Code: fault.UnixConnected, Object: a.u.rec.label(), Detail: fmt.Sprintf("pid %d came first", pid)}
		}
	}
	return nil
}

// connectTo connects a socket to one that has a name.
func (r *unixRestore) connectTo(b *Builder, open *stagedOpen, to *stagedUnix) {
	p := b.Stage()
	address := to.address()
	row := p.Call(unix.SYS_CONNECT, open.fd, tracer.Ptr(p.Bytes(address)), tracer.Imm(uint64(len(address))))
	b.Expect(row, fault.UnixConnected, to.rec.label())
}

// address is a struct sockaddr_un by which the stage reaches the socket. The
// directory of a file is open, so that the address holds wherever the caller
// stands.
func (u *stagedUnix) address() []byte {
	switch u.rec.Named {
	case unixNoName:
		return nil
	case unixAbstract:
		return unixAddress("\x00" + u.rec.name())
	}
	return unixAddress(u.file.link())
}

func unixAddress(name string) []byte {
	return append(binary.NativeEndian.AppendUint16(nil, unix.AF_UNIX), name...)
}
