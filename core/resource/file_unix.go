package resource

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer/procfs"
)

// unixSocket is a unix(7) socket that leads nowhere out of the process: its
// peer is here as well, or closed, or it has none.
//
// Sockets are saved as a whole, all of the process behind the first of them,
// for each needs others to be made: the peer, and the listening socket that it
// was accepted from. What is on its way in them may hold further open files,
// and so comes behind the descriptor table.
var unixSocket = FileKind{
	Name:    "unix socket",
	Support: Partial,
	Note: "Stream, datagram and seqpacket, whose peer is in the process, or closed: what is in the queues with its bounds, open files " +
		"and credentials on their way, half-closed ends, abstract and path names with owner and mode, listening sockets and connections " +
		"that wait to be accepted, options. SO_PEERCRED shows the restarted process; the name of a peer that was closed is forgotten. " +
		"Refused if another process has it, too, as far as /proc shows, or if a message is from somebody else.",
	Records: []image.Spec{
		image.Row[unixOpenRecord](unixOpenKind, "FD_UNIX", image.InFiles, "an open unix socket; its parent is the reference of the open file"),
		image.Row[unixSocketRecord](unixSocketKind, "UNIX_SOCKET", image.InFiles, "a unix socket; a STRING follows with the directory that its name begins at, if it has a file"),
		image.Row[unixQueueRecord](unixQueueKind, "UNIX_QUEUE", image.InFiles, "behind the descriptor table: what one socket has yet to receive; UNIX_MESSAGEs follow"),
		image.Row[unixMessageRecord](unixMessageKind, "UNIX_MESSAGE", image.InFiles, "a message, or some bytes of a stream; BUFFERs follow, then UNIX_RIGHTs"),
		image.Row[unixRightRecord](unixRightKind, "UNIX_RIGHT", image.InFiles, "an open file in a message (SCM_RIGHTS); the records of the file follow where it is met first"),
	},
	Match:  matchUnix,
	Refuse: refuseUnix,
	Dump:   dumpUnix,
	Kind:   unixOpenKind,
	Load:   loadUnix,
}

const (
	unixOpenKind    image.Kind = 6430
	unixSocketKind  image.Kind = 6431
	unixQueueKind   image.Kind = 6432
	unixMessageKind image.Kind = 6433
	unixRightKind   image.Kind = 6434
)

type unixOpenRecord struct {
	Ino     uint64 `doc:"inode, by which the other records call the socket"`
	Flags   uint32 `fmt:"oct" doc:"open flags"`
	Sockets uint32 `doc:"how many UNIX_SOCKETs follow: all, behind the first"`
}

// The states of a unix socket.
const (
	unixAlone     = iota // neither connected nor listening
	unixListening        // listen(2)
	unixConnected        // to Peer
	unixOrphaned         // connected to one that was closed
	unixWaiting          // connected, and not accepted by Listener yet
	unixStates
)

// The kinds of names.
const (
	unixNoName   = iota
	unixAbstract // known to the kernel alone
	unixPath     // has a file
	unixDeleted  // had a file, which was removed
	unixNames
)

const sunPathSize = 108 // of struct sockaddr_un

type unixSocketRecord struct {
	Ino      uint64
	Peer     uint64   `doc:"inode of the socket that it is connected to"`
	Listener uint64   `doc:"inode of the listening socket that it was accepted from, or waits for"`
	Type     uint32   `doc:"1 stream, 2 datagram, 5 seqpacket"`
	State    uint32   `doc:"0 neither, 1 listening, 2 connected, 3 connected to one that was closed, 4 waits to be accepted"`
	Shutdown uint32   `fmt:"flags" flags:"1=RECEIVE 2=SEND"`
	Reset    uint32   `doc:"1 if ECONNRESET has yet to be reported"`
	Backlog  uint32   `doc:"of listen(2)"`
	Turn     uint32   `doc:"place among those that wait to be accepted"`
	PeerUID  uint32   `doc:"user in SO_PEERCRED"`
	PeerGID  uint32   `doc:"group in SO_PEERCRED"`
	Named    uint32   `doc:"0 without a name, 1 abstract, 2 with a file, 3 with a file that was deleted"`
	Mode     uint32   `fmt:"oct" doc:"permission bits of the file"`
	UID      uint32   `doc:"owner of the file"`
	GID      uint32   `doc:"group of the file"`
	Timeouts [4]int64 `doc:"SO_RCVTIMEO and SO_SNDTIMEO: seconds, microseconds"`
	NameLen  uint32
	Name     [sunPathSize]byte `fmt:"text" doc:"sun_path, without the NUL before or behind it"`
	Options  []unixOption      `doc:"options of level SOL_SOCKET that are not as in a new socket, and the two buffer sizes"`
}

func (r *unixSocketRecord) name() string { return string(r.Name[:r.NameLen]) }

// label is the name as people know it.
func (r *unixSocketRecord) label() string {
	switch r.Named {
	case unixNoName:
		return fmt.Sprintf("unix socket %d", r.Ino)
	case unixAbstract:
		return "@" + r.name()
	}
	return r.name()
}

type unixQueueRecord struct {
	Ino      uint64
	Messages uint32
	_        [4]byte
}

type unixMessageRecord struct {
	Sender uint64 `doc:"inode of the socket that sent it, if it has a name"`
	Bytes  uint32
	Rights uint32 `doc:"how many open files are in it"`
	Creds  uint32 `doc:"1 if it has credentials (SCM_CREDENTIALS): the process's own pid and these"`
	UID    uint32
	GID    uint32
	_      [4]byte
}

type unixRightRecord struct {
	File uint32 `doc:"reference of the open file"`
	_    [4]byte
}

// unixView is what a view knows about unix sockets.
type unixView struct {
	facts map[uint64]*unixFact // by inode; nil before they were asked for
	// refused are those that can be seen not to be saveable, by inode; nil before
	// it was looked for.
	refused map[uint64]*fault.Error
	// stopped has all unix sockets of the process once it was stopped and
	// looked at, in the order of the image.
	stopped []*savedUnix
	// extra are descriptors that the process has from us, for open files that
	// are on their way in messages.
	extra map[int32]bool
}

// isUnix tells whether a descriptor is a unix socket.
func (v *View) isUnix(f *procfs.FD) bool {
	s, err := v.socket(f)
	return err == nil && s != nil && s.domain == unix.AF_UNIX
}

// unixFact returns what the kernel tells of a socket, nil if nothing. Of a
// running process only sockets of our own network namespace are told about;
// whoever needs more asks when the process stands.
func (v *View) unixFact(ino uint64) *unixFact {
	if v.unix.facts == nil {
		v.unix.facts = make(map[uint64]*unixFact)
		if facts, err := v.ownUnixFacts(); err == nil {
			v.unix.facts = facts
		}
	}
	return v.unix.facts[ino]
}

func (v *View) ownUnixFacts() (map[uint64]*unixFact, error) {
	own, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	if theirs, err := v.Proc.Link("ns/net"); err != nil || theirs != own {
		return nil, errNotTold
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("open socket for unix_diag: %w", err)
	}
	diag := os.NewFile(uintptr(fd), "unix_diag")
	defer func() { _ = diag.Close() }() // only asked
	return readUnixFacts(diag)
}

// socketOf returns the descriptor of a socket of the process, nil if it has none.
func (v *View) socketOf(ino uint64) *procfs.FD {
	for i := range v.FDs {
		if f := &v.FDs[i]; f.Ino == ino && f.Type() == unix.S_IFSOCK {
			return f
		}
	}
	return nil
}

// outsideUnix tells whether the peer is known to be no socket of the process.
func (v *View) outsideUnix(f *procfs.FD) bool {
	fact := v.unixFact(f.Ino)
	return fact != nil && fact.Peer != 0 && v.socketOf(fact.Peer) == nil
}

// matchUnix leaves to the inherited files what somebody gave the process as
// standard input, output or error and has, or talks through, himself.
func matchUnix(v *View, f *procfs.FD) bool {
	if !v.isUnix(f) {
		return false
	}
	if standardOf(v, f) < 0 {
		return true
	}
	if v.unixFact(f.Ino) == nil || v.outsideUnix(f) {
		return false
	}
	pid, err := v.sharedWith(f)
	return err == nil && pid == 0
}

// refuseUnix says what can be seen without touching the socket. The rest is
// decided when the process stands: see lookAtUnix.
func refuseUnix(v *View, f *procfs.FD) *fault.Error {
	if v.isImage(f) {
		return &fault.Error{Code: fault.UnixPeer, Detail: "the image goes into it"}
	}
	if refusal := refuseNameless(v, f); refusal != nil {
		return refusal
	}
	if v.External && v.outsideUnix(f) { // even if the other end may be in a message
		return v.unixPeerElsewhere(v.unixFact(f.Ino).Peer)
	}
	return v.surveyUnix()[f.Ino]
}

// anyUnixQueue tells whether there is anything on its way in a unix socket of
// the process: a socket, perhaps.
func (v *View) anyUnixQueue() bool {
	for i := range v.FDs {
		if v.covered[v.FDs[i].Number] || !v.isUnix(&v.FDs[i]) {
			continue
		}
		fd, err := v.duplicate(v.FDs[i].Number)
		if err != nil {
			continue
		}
		n, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
		unix.Close(fd)
		if err == nil && n > 0 {
			return true
		}
	}
	return false
}

// unixPeerElsewhere names who has the other end, if it can be found.
func (v *View) unixPeerElsewhere(peer uint64) *fault.Error {
	target := fmt.Sprintf("socket:[%d]", peer)
	refusal := &fault.Error{Code: fault.UnixPeer, Detail: "to " + target}
	pid, err := holderOf(target)
	switch {
	case err != nil:
		refusal.Err = err
	case pid != 0:
		refusal.Detail += fmt.Sprintf(", pid %d", pid)
	}
	return refusal
}

// holderOf returns a process that has a descriptor with that link, 0 if none
// is known.
func holderOf(target string) (procfs.PID, error) {
	pids, err := procfs.List()
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		names, err := os.ReadDir(dir)
		if err != nil {
			continue // not ours to look into, or gone
		}
		for _, name := range names {
			if link, err := os.Readlink(filepath.Join(dir, name.Name())); err == nil && link == target {
				return pid, nil
			}
		}
	}
	return 0, nil
}

func dumpUnix(s *Saver, f *procfs.FD, ref object.Ref) error {
	_, first := s.Objects.Add(object.Inode, "unix sockets")
	rec := unixOpenRecord{Ino: f.Ino, Flags: f.Flags &^ unix.O_CLOEXEC}
	if first {
		rec.Sockets = uint32(len(s.unix.stopped))
	}
	if err := s.W.Put(uint32(ref), &rec); err != nil || !first {
		return err
	}
	for _, u := range s.unix.stopped {
		if err := s.W.Put(uint32(ref), &u.rec); err != nil {
			return err
		}
		if u.rec.Named < unixPath {
			continue
		}
		if err := s.W.Put(uint32(ref), &image.Str{Text: u.dir}); err != nil {
			return err
		}
	}
	return nil
}
