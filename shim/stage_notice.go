package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
)

// notice is one message between the stages.
type notice struct {
	Kind    noticeKind
	Seq     uint64          `json:",omitempty"` // which stop
	Signal  unix.Signal     `json:",omitempty"` // of a stop
	Status  unix.WaitStatus `json:",omitempty"` // of an end
	Remain  bool            `json:",omitempty"` // at an end: other tasks live on
	Lost    bool            `json:",omitempty"` // at an end: the supervisor had ended before, and CMD was ended for that
	PID     int             `json:",omitempty"` // of CMD
	Parent  int             `json:",omitempty"` // of the sender of noticeStarted
	Groups  []string        `json:",omitempty"` // control groups that end with the container
	Failure *failure        `json:",omitempty"`
}

type noticeKind string

const (
	noticeFailed    noticeKind = "failed"    // any stage to the front: the launch has failed
	noticeStarted   noticeKind = "started"   // parent to front: PID and Parent, with the pidfd of CMD
	noticeStopped   noticeKind = "stopped"   // parent to front: CMD has stopped
	noticeReady     noticeKind = "ready"     // front to parent: let me stop likewise
	noticeContinued noticeKind = "continued" // parent to front: CMD goes on
	noticeEnded     noticeKind = "ended"     // parent to front and supervisor: CMD has ended
	noticeListener  noticeKind = "listener"  // __exec to supervisor, with the listener
	noticeServed    noticeKind = "served"    // supervisor to __exec: the calls are being served
	noticeBlank     noticeKind = "blank"     // parent or __exec to front: PID waits to become a blank process
	noticeGroups    noticeKind = "groups"    // front to parent of a container: Groups have been made for it
	noticeRestored  noticeKind = "restored"  // front to parent of a container: PID is CMD, with the eventfd of the init
	noticeAdopted   noticeKind = "adopted"   // the answer: CMD is being watched
	noticeSeized    noticeKind = "seized"    // front to that process: become one
)

// failure is a fault.Error on its way to the front, which prints it.
type failure struct {
	Code   fault.Code
	Object string     `json:",omitempty"`
	Detail string     `json:",omitempty"`
	Cause  string     `json:",omitempty"`
	Errno  unix.Errno `json:",omitempty"`
}

// faultsOf returns the blockers in err; what is not a fault becomes a failed launch.
func faultsOf(err error) fault.List {
	faults := fault.Flatten(err)
	if err != nil && len(faults) == 0 {
		faults = fault.List{{Code: fault.LaunchFailed, Err: err}}
	}
	return faults
}

// failuresOf describes err, each blocker of a refusal by itself.
func failuresOf(err error) []*failure {
	var out []*failure
	for _, f := range faultsOf(err) {
		failure := &failure{Code: f.Code, Object: f.Object, Detail: f.Detail}
		if f.Err != nil {
			failure.Cause, failure.Errno = f.Err.Error(), fault.Errno(f.Err)
		}
		out = append(out, failure)
	}
	return out
}

func (f *failure) err() *fault.Error {
	e := &fault.Error{Code: f.Code, Object: f.Object, Detail: f.Detail}
	if f.Cause != "" {
		e.Err = &remoteError{text: f.Cause, errno: f.Errno}
	}
	return e
}

// remoteError is an error that happened in another stage.
type remoteError struct {
	text  string
	errno unix.Errno
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.errno }

// maxNotice bounds a message; the longest holds a path in an error twice, in JSON six bytes for each of 4096.
const maxNotice = 64 << 10

// socketPair makes two connected sockets, close-on-exec. Messages stay whole and in order, whoever holds the ends.
func socketPair() (ours, theirs socket, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, fmt.Errorf("make socket pair: %w", err)
	}
	return socket(pair[0]), socket(pair[1]), nil
}

// send sends a report, and descriptors with it.
func (s socket) send(r notice, fds ...int) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("report %s: %w", r.Kind, err)
	}
	if len(text) > maxNotice {
		return fmt.Errorf("report %s: %d bytes are too many", r.Kind, len(text))
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(int(s), text, rights, nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("report %s: %w", r.Kind, err)
	}
	return nil
}

// receive returns the next report and the descriptor that came with it, -1 if none did. It is io.EOF once nobody holds
// the other end.
func (s socket) receive() (notice, int, error) {
	buf := make([]byte, maxNotice)
	oob := make([]byte, unix.CmsgSpace(4))
	var n, oobn int
	for {
		var err error
		n, oobn, _, _, err = unix.Recvmsg(int(s), buf, oob, unix.MSG_CMSG_CLOEXEC)
		if err == nil {
			break
		}
		// ECONNRESET says, once, that the other end was closed with messages of ours unread. Its own are still in the queue.
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNRESET) {
			return notice{}, -1, fmt.Errorf("receive report: %w", err)
		}
	}
	if n == 0 {
		return notice{}, -1, io.EOF
	}
	fd := -1
	if oobn > 0 {
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return notice{}, -1, fmt.Errorf("receive report: %w", err)
		}
		for i := range messages {
			fds, err := unix.ParseUnixRights(&messages[i])
			if err != nil {
				return notice{}, -1, fmt.Errorf("receive report: %w", err)
			}
			fd = fds[0]
		}
	}
	var r notice
	if err := json.Unmarshal(buf[:n], &r); err != nil {
		return notice{}, fd, fmt.Errorf("receive report: %w", err)
	}
	return r, fd, nil
}

// close gives up one end.
func (s *socket) close() {
	if *s > 0 {
		_ = unix.Close(int(*s))
		*s = 0
	}
}
