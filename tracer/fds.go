package tracer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// pidfd opens the task's process.
func (e *Tracee) pidfd() (int, error) {
	leader, err := e.Leader()
	if err != nil {
		return -1, err
	}
	fd, err := unix.PidfdOpen(int(leader), 0)
	if err != nil {
		return -1, fmt.Errorf("pidfd_open %d: %w", leader, err)
	}
	return fd, nil
}

// TakeFD returns a descriptor of ours for the open file that is fd in the
// task (pidfd_getfd(2)). It wraps EBADF if there is none.
func (e *Tracee) TakeFD(fd FD) (*os.File, error) {
	e.t.check()
	taken, err := e.takeFD(fd)
	if err != nil {
		return nil, e.fault(fmt.Sprintf("take fd %d of", fd), err)
	}
	return os.NewFile(uintptr(taken), fmt.Sprintf("fd %d of task %d", fd, e.tid)), nil
}

func (e *Tracee) takeFD(fd FD) (int, error) {
	pidfd, err := e.pidfd()
	if err != nil {
		return -1, err
	}
	defer unix.Close(pidfd)
	return unix.PidfdGetfd(pidfd, int(fd), 0)
}

// TakeFD is Tracee.TakeFD.
func (r *Remote) TakeFD(fd FD) (*os.File, error) { return r.e.TakeFD(fd) }

// Offsets in the memory that receives a descriptor: struct msghdr, struct
// iovec, one byte of data, a control message of one descriptor. See recvmsg(2)
// and cmsg(3).
const (
	msgHeader  = 0
	msgIovec   = 56
	msgByte    = 72
	msgControl = 80
	msgFD      = msgControl + unix.SizeofCmsghdr
	msgSize    = msgFD + 8
	controlLen = unix.SizeofCmsghdr + 8 // CMSG_SPACE(sizeof(int))
)

// SendFD gives the task a descriptor, close-on-exec, for the open file that
// is host here. An Undo is registered that closes it again.
func (r *Remote) SendFD(host *os.File) (FD, error) {
	if err := r.ready(); err != nil {
		return -1, err
	}
	fd, err := r.sendFD(host)
	runtime.KeepAlive(host)
	if err != nil {
		return -1, r.e.fault("send "+host.Name()+" to", err)
	}
	return fd, nil
}

func (r *Remote) sendFD(host *os.File) (FD, error) {
	p := r.Program()
	pair := p.Buffer(16)
	p.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0, pair)
	// A descriptor's 4 bytes are the low half of the cell.
	theirs, ours := Cell(pair), Cell(pair+4)
	undo1 := p.rows[0].Undo(unix.SYS_CLOSE, theirs)
	undo2 := p.rows[0].Undo(unix.SYS_CLOSE, ours)
	if err := p.Run(); err != nil {
		return -1, err
	}
	err := r.sendThrough(pair+4, host)
	// Whatever became of it, the pair goes.
	message, merr := r.alloc(msgSize)
	p = r.begin()
	var got *Row
	if err = errors.Join(err, merr); err == nil {
		p.data = []part{{message, receiver(message)}}
		got = p.Recvmsg(theirs, message+msgHeader, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT).Tolerate()
		got.Undo(unix.SYS_CLOSE, Cell(message+msgFD))
	}
	p.Close(theirs).Tolerate()
	p.Forget(undo1)
	p.Close(ours).Tolerate()
	p.Forget(undo2)
	err = errors.Join(err, p.Run())
	if err == nil {
		err = got.Err()
	}
	if err != nil {
		return -1, err
	}
	var word [4]byte
	if err := r.e.readMem(message+msgFD, word[:]); err != nil {
		return -1, err
	}
	fd := FD(int32(binary.LittleEndian.Uint32(word[:])))
	if fd < 0 {
		return -1, fmt.Errorf("no descriptor arrived: %w", unix.EMFILE)
	}
	return fd, nil
}

// sendThrough sends host through the task's socket whose number is at addr.
func (r *Remote) sendThrough(addr Addr, host *os.File) error {
	var word [4]byte
	if err := r.e.readMem(addr, word[:]); err != nil {
		return err
	}
	socket, err := r.e.takeFD(FD(int32(binary.LittleEndian.Uint32(word[:]))))
	if err != nil {
		return fmt.Errorf("take socket: %w", err)
	}
	defer unix.Close(socket)
	conn, err := host.SyscallConn() // Fd would take away its O_NONBLOCK
	if err != nil {
		return err
	}
	cerr := conn.Control(func(fd uintptr) {
		err = unix.Sendmsg(socket, []byte{0}, unix.UnixRights(int(fd)), nil, unix.MSG_DONTWAIT)
	})
	if err = errors.Join(cerr, err); err != nil {
		return fmt.Errorf("sendmsg: %w", err)
	}
	return nil
}

// receiver is a struct msghdr at base with all that it leads to. The place
// for the descriptor holds -1, which is what stays if none comes.
func receiver(base Addr) []byte {
	b := words(0, 0, uint64(base+msgIovec), 1, uint64(base+msgControl), controlLen, 0, // msghdr
		uint64(base+msgByte), 1, // iovec
		0) // data
	b = append(b, make([]byte, unix.SizeofCmsghdr)...)
	return append(b, words(^uint64(0))...)
}
