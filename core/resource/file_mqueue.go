package resource

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// mqueue is an open POSIX message queue (mq_overview(7)): a file of a file system
// that need not be mounted anywhere, found by its name in the IPC namespace.
var mqueue = FileKind{
	Name:    "POSIX message queue",
	Support: Partial,
	Note: "Opened again by name, with its flags. The queue is there with what is in it: a container brings it along, else it stays where it is. " +
		"Refused: one whose name is gone, one of which somebody is to be notified (mq_notify(3)), and without a container one that does not belong to our IPC namespace.",
	Records: []image.Spec{
		image.Row[openMqueueRecord](openMqueueKind, "FD_MQUEUE", image.InFiles, "an open POSIX message queue; its parent is the reference of the open file"),
	},
	Match:  func(v *View, f *procfs.FD) bool { return isMqueue(v, f) },
	Refuse: refuseMqueue,
	Dump: func(s *Saver, f *procfs.FD, ref object.Ref) error {
		return s.W.Put(uint32(ref), &openMqueueRecord{Flags: f.Flags &^ unix.O_CLOEXEC, Name: strings.TrimPrefix(f.Target, "/")})
	},
	Kind: openMqueueKind,
	Load: loadOpenMqueue,
}

const openMqueueKind image.Kind = 6730

type openMqueueRecord struct {
	Flags uint32 `fmt:"oct" doc:"open flags"`
	_     [4]byte
	Name  string `doc:"without the slash"`
}

// isMqueue asks the file system, of those files alone that may be one: their
// device has no driver, and their names no directory.
func isMqueue(v *View, f *procfs.FD) bool {
	if f.Type() != unix.S_IFREG || unix.Major(f.Dev) != 0 || strings.LastIndexByte(f.Target, '/') != 0 {
		return false
	}
	var fs unix.Statfs_t
	const mqueueMagic = 0x19800202 // ipc/mqueue.c
	return unix.Statfs(procPath(v.PID, "fd", strconv.Itoa(int(f.Number))), &fs) == nil && fs.Type == mqueueMagic
}

func refuseMqueue(v *View, f *procfs.FD) *fault.Error {
	if f.Nlink == 0 || f.Flags&unix.O_PATH != 0 {
		return &fault.Error{Code: fault.Mqueue, Detail: f.Target + ": no name leads to it"}
	}
	text := make([]byte, 128)
	own, err := openQuietly(procPath(v.PID, "fd", strconv.Itoa(int(f.Number))))
	if errors.Is(err, unix.EACCES) {
		own, err = v.duplicate(f.Number)
	}
	n := 0
	if err == nil {
		n, err = unix.Pread(own, text, 0)
		_ = unix.Close(own) // only read from
	}
	if err != nil {
		return &fault.Error{Code: fault.Mqueue, Detail: f.Target + ": who is to be notified cannot be seen", Err: os.NewSyscallError("read", err)}
	}
	if notified(string(text[:n])) {
		return &fault.Error{Code: fault.Mqueue, Detail: f.Target + ": a process waits to be notified by mq_notify(3)"}
	}
	return nil
}

func loadOpenMqueue(b *Builder, ref object.Ref) (*stagedOpen, error) {
	rec, head, err := image.Expect[openMqueueRecord](b.R)
	if err != nil {
		return nil, err
	}
	if head.Parent != uint32(ref) || !isQueueName(rec.Name) {
		return nil, badImage(fault.ImageValue, fmt.Sprintf("open file %d", ref), "message queue %q", rec.Name)
	}
	p := b.Stage()
	flags := rec.Flags & (unix.O_ACCMODE | unix.O_NONBLOCK)
	// The descriptor is closed on exec in any case; O_CLOEXEC would stay in the flags of the open file.
	row := p.Call(unix.SYS_MQ_OPEN, tracer.Ptr(p.String(rec.Name)), tracer.Imm(uint64(flags)), tracer.Imm(0), tracer.Imm(0))
	b.Expect(row, fault.FileOpen, mqueueObject(rec.Name))
	return &stagedOpen{fd: b.fds.take(row), path: "/" + rec.Name, flags: rec.Flags}, nil
}
