package resource

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// pidfd refers to a process, pidfd_open(2). That of the process itself refers to
// the one that takes its place; that of a process that has ended needs nobody.
var pidfd = FileKind{
	Name:    "pidfd",
	Support: Partial,
	Note: "Of the process itself, and of one that has ended, which is told as before (PIDFD_GET_INFO since Linux 6.15); a " +
		"zombie is as good as gone, since whose child it was is no longer its parent. That of another living process is refused.",
	Records: []image.Spec{
		image.Row[pidfdRecord](pidfdKind, "FD_PIDFD", image.InFiles, "a pidfd; its parent is the reference of the open file"),
	},
	Match:  func(_ *View, f *procfs.FD) bool { return f.Target == "anon_inode:[pidfd]" },
	Refuse: refusePidfd,
	Dump: func(s *Saver, f *procfs.FD, ref object.Ref) error {
		rec, err := readPidfd(s.View, f)
		if err != nil {
			return err
		}
		return s.W.Put(uint32(ref), rec)
	},
	Kind: pidfdKind,
	Load: loadPidfd,
}

const pidfdKind image.Kind = 6472

type pidfdRecord struct {
	Ended  uint32 `doc:"0 of the process itself, 1 of one that has ended"`
	Status uint32 `fmt:"hex" doc:"how it ended, as wait(2) gives it, if that is known"`
	Flags  uint32 `fmt:"oct" doc:"open flags; O_EXCL stands for PIDFD_THREAD"`
	_      [4]byte
}

var errAlive = errors.New("of another process, which is alive")

func refusePidfd(v *View, f *procfs.FD) *fault.Error {
	if _, err := readPidfd(v, f); err != nil {
		return &fault.Error{Code: fault.Pidfd, Err: err}
	}
	return refuseNameless(v, f)
}

// readPidfd goes by the number in fdinfo, which is -1 once the process has been
// waited for (pidfd_show_fdinfo of fs/pidfs.c).
func readPidfd(v *View, f *procfs.FD) (*pidfdRecord, error) {
	values := f.Values("Pid")
	if len(values) != 1 {
		return nil, fmt.Errorf("read Pid in fdinfo: %w", unix.ENODATA)
	}
	pid, err := strconv.ParseInt(strings.TrimSpace(values[0]), 10, 32)
	if err != nil {
		return nil, fmt.Errorf("read Pid in fdinfo: %w", err)
	}
	rec := &pidfdRecord{Flags: f.Flags &^ unix.O_CLOEXEC}
	switch {
	case procfs.PID(pid) == v.PID:
		return rec, nil
	case pid == -1:
		rec.Ended = 1
		rec.Status, err = toldStatus(v, f)
		return rec, err
	case pid <= 0:
		return nil, fmt.Errorf("%w, in another pid namespace", errAlive)
	}
	proc, err := procfs.Open(procfs.PID(pid))
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	stat, err := proc.Stat()
	if err != nil {
		return nil, err
	}
	if stat.State != 'Z' {
		return nil, fmt.Errorf("%w: pid %d (%s)", errAlive, pid, stat.Comm)
	}
	rec.Ended, rec.Status = 1, uint32(stat.ExitCode)
	return rec, nil
}

// toldStatus asks how a process has ended. Before Linux 6.15 nobody can know.
func toldStatus(v *View, f *procfs.FD) (uint32, error) {
	fd, err := v.duplicate(f.Number)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	err = unix.IoctlPidfdInfo(fd, &info)
	if err != nil || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return 0, nil
	}
	return uint32(info.Exit_code), nil
}

func loadPidfd(b *Builder, ref object.Ref) (*stagedOpen, error) {
	rec, head, err := image.Expect[pidfdRecord](b.R)
	if err != nil {
		return nil, err
	}
	status := unix.WaitStatus(rec.Status &^ 0x80) // no core was dumped this time
	if head.Parent != uint32(ref) || rec.Ended > 1 || rec.Status > 0xffff || !status.Exited() && !status.Signaled() {
		return nil, badImage(fault.ImageValue, fmt.Sprintf("open file %d", ref), "pidfd of %d, status %#x", head.Parent, rec.Status)
	}
	flags := int(rec.Flags) & (unix.PIDFD_THREAD | unix.PIDFD_NONBLOCK)
	if rec.Ended != 0 {
		return b.ended(status, flags)
	}
	p := b.Stage()
	open := b.nameless(p.PidfdOpen(p.Getpid(), flags), "pidfd")
	open.flags = rec.Flags
	return open, nil
}

// ended stages a pidfd of a process that has ended like this: one that is made
// for it, since of a process that is gone there is no way to get another.
func (b *Builder) ended(status unix.WaitStatus, flags int) (*stagedOpen, error) {
	if err := b.Flush(); err != nil {
		return nil, err
	}
	file, err := tracer.Ended(status, flags)
	if err != nil {
		return nil, &fault.Error{Code: fault.FileState, Object: "pidfd", Err: err}
	}
	defer func() { _ = file.Close() }() // only passed on
	fd, err := b.Remote.SendFD(file)
	if err != nil {
		return nil, &fault.Error{Code: fault.FileState, Object: "pidfd", Err: err}
	}
	b.fds.put(fd)
	return &stagedOpen{fd: fd, path: "pidfd", flags: unix.O_RDWR}, nil
}
