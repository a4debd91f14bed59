package seccomp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrHangup says that no task is left under the filter: there will be no notification any more.
	ErrHangup = errors.New("no task is left under the filter")
	// ErrAnswered says that a notification already has its answer.
	ErrAnswered = errors.New("notification already answered")
)

// Listener receives the calls that a filter caught.
type Listener struct {
	file  *os.File
	conn  syscall.RawConn
	sizes notifSizes
}

// NewListener takes over the descriptor of a listener.
func NewListener(fd int) (*Listener, error) {
	// Non-blocking, os.File lets the runtime wait for it without a thread, and a deadline end the wait.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("open listener: %w", err)
	}
	l := &Listener{file: os.NewFile(uintptr(fd), "seccomp listener")}
	var err error
	if l.sizes, err = getNotifSizes(); err != nil {
		return nil, errors.Join(fmt.Errorf("ask for notification sizes: %w", err), l.Close())
	}
	if l.conn, err = l.file.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("open listener: %w", err), l.Close())
	}
	return l, nil
}

// Close gives the listener up: the kernel answers every waiting caller with ENOSYS, now and later.
func (l *Listener) Close() error { return l.file.Close() }

// Recv waits for the next call. The error is ErrHangup once the last task under the filter has ended, or the
// cause of ctx.
func (l *Listener) Recv(ctx context.Context) (*Notification, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := l.file.SetReadDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("wait for notification: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = l.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		var n notif
		var err error
		waitErr := l.conn.Read(func(fd uintptr) (done bool) {
			n, done, err = l.poll(fd)
			return done
		})
		switch {
		case ctx.Err() != nil && waitErr != nil:
			return nil, context.Cause(ctx)
		case waitErr != nil:
			return nil, fmt.Errorf("wait for notification: %w", waitErr)
		// The caller was interrupted or killed between its call and our receiving it.
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, fmt.Errorf("receive notification: %w", err)
		}
		return &Notification{listener: l, n: n}, nil
	}
}

// poll receives if there is something to receive. SECCOMP_IOCTL_NOTIF_RECV waits even on a non-blocking descriptor, so
// it is asked only after poll(2) has promised a notification.
func (l *Listener) poll(fd uintptr) (n notif, done bool, err error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	_, err = unix.Poll(fds, 0)
	switch {
	case err != nil:
		return notif{}, true, err
	case fds[0].Revents&unix.POLLIN != 0:
		n, err = recv(fd, l.sizes.Notif)
		return n, true, err
	case fds[0].Revents&unix.POLLHUP != 0:
		return notif{}, true, ErrHangup
	case fds[0].Revents != 0:
		return notif{}, true, fmt.Errorf("poll events %#x", fds[0].Revents)
	}
	return notif{}, false, nil
}

// Arch is an AUDIT_ARCH_ value of <linux/audit.h>.
type Arch uint32

// The architectures whose calls a filter of Build catches.
const (
	X8664 Arch = unix.AUDIT_ARCH_X86_64
	I386  Arch = unix.AUDIT_ARCH_I386
)

// Notification is one call that waits for its answer.
type Notification struct {
	listener *Listener
	n        notif
	answered atomic.Bool
}

// TID is the thread that made the call, in the pid namespace of the receiver; 0 if it is not visible there.
func (n *Notification) TID() int { return int(n.n.PID) }

// Arch tells by which interface the call was made.
func (n *Notification) Arch() Arch { return Arch(n.n.Data.Arch) }

// NR is the number of the call.
func (n *Notification) NR() int { return int(n.n.Data.NR) }

// Args are the six argument registers.
func (n *Notification) Args() [6]uint64 { return n.n.Data.Args }

// Valid fails with ENOENT once the caller no longer waits.
func (n *Notification) Valid() error {
	if err := n.listener.control(func(fd uintptr) error { return idValid(fd, n.n.ID) }); err != nil {
		return fmt.Errorf("validate notification: %w", err)
	}
	return nil
}

// Return ends the call with a value. Like Fail it is good for one use, after which both return ErrAnswered; the error is
// ENOENT if the caller is gone.
func (n *Notification) Return(value int64) error { return n.answer(notifResp{Val: value}) }

// Fail ends the call with -errno. The kernel takes its internal errors too, such as 513, ERESTARTNOINTR.
func (n *Notification) Fail(errno unix.Errno) error { return n.answer(notifResp{Error: -int32(errno)}) }

func (n *Notification) answer(resp notifResp) error {
	if n.answered.Swap(true) {
		return ErrAnswered
	}
	resp.ID = n.n.ID
	err := n.listener.control(func(fd uintptr) error { return send(fd, n.listener.sizes.NotifResp, resp) })
	if err != nil {
		return fmt.Errorf("answer notification: %w", err)
	}
	return nil
}

// control runs f on the descriptor, which stays open meanwhile.
func (l *Listener) control(f func(fd uintptr) error) error {
	var err error
	if ctlErr := l.conn.Control(func(fd uintptr) { err = f(fd) }); ctlErr != nil {
		return ctlErr
	}
	return err
}
