package resource

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer/procfs"
)

// fileState is what a regular file was like when it was saved. What becomes of
// a file that is not as it was is the matter of Policy.Files.
type fileState struct {
	Size  uint64 `doc:"bytes"`
	Dev   uint64 `fmt:"hex" doc:"device number"`
	Inode uint64
	Birth int64 `doc:"when the inode was made, nanoseconds since the epoch; 0 if the file system does not tell"`
	MTime int64 `doc:"time of last modification; informational"`
}

const fileStateKind image.Kind = 6466

// stateOf asks statx(2) about an open file of a process.
func stateOf(pid procfs.PID, fd int32) (*fileState, error) {
	var st unix.Statx_t
	link := procPath(pid, "fd", strconv.Itoa(int(fd)))
	if err := unix.Statx(unix.AT_FDCWD, link, 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		return nil, fmt.Errorf("statx %s: %w", link, err)
	}
	nano := func(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }
	state := &fileState{Size: st.Size, Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Inode: st.Ino, MTime: nano(st.Mtime)}
	if st.Mask&unix.STATX_BTIME != 0 {
		state.Birth = nano(st.Btime)
	}
	return state, nil
}

// dumpState writes it, for a file whose size means something: not for the image
// itself, which is being written.
func dumpState(s *Saver, f *procfs.FD, ref object.Ref) error {
	if f.Type() != unix.S_IFREG || f.Flags&unix.O_PATH != 0 || ofKernel(f.Target) || s.isImage(f) {
		return nil
	}
	state, err := stateOf(s.PID, f.Number)
	if err != nil {
		return err
	}
	return s.W.Put(uint32(ref), state)
}

func (b *Builder) loadState(ref object.Ref) (*fileState, error) {
	kind, err := b.R.Peek()
	if err != nil || kind != fileStateKind {
		return nil, err
	}
	state, head, err := image.Expect[fileState](b.R)
	if err != nil {
		return nil, err
	}
	if head.Parent != uint32(ref) || state.Size > 1<<63-1 {
		return nil, badImage(fault.ImageValue, fmt.Sprintf("open file %d", ref), "owner %d, %d bytes", head.Parent, state.Size)
	}
	return state, nil
}

// is tells whether it is the same file, not another one under its name. The
// number of an inode is used again, the time of its birth is not.
func (st *fileState) is(now *fileState) bool {
	return st.Dev == now.Dev && st.Inode == now.Inode && st.Birth == now.Birth
}

// check compares the file that a name has led to with the one that was saved.
// A copy that was put back by hand is as good as the file itself, and that a
// file has grown since is the rule, not the exception.
func (st *fileState) check(b *Builder, o *stagedOpen, f *procfs.FD) error {
	policy := b.Policy.Files
	if policy == IgnoreFiles || policy == RollbackFiles && o.flags&unix.O_ACCMODE != unix.O_RDONLY {
		return nil
	}
	now, err := stateOf(b.Caller.PID, f.Number)
	if err != nil {
		return err
	}
	switch {
	case now.Size < st.Size:
		return &fault.Error{Code: fault.FileChanged, Object: o.path, Detail: fmt.Sprintf("%d bytes, was %d", now.Size, st.Size)}
	case now.Size == st.Size:
	case policy == TruncateFiles && o.flags&unix.O_ACCMODE != unix.O_RDONLY:
		b.lastly(fileChange{do: func(b *Builder) error { return b.cut(o, st.Size) }})
	case !st.is(now):
		b.Warn("%s is another file than the one that was open, and has %d bytes, not %d", o.path, now.Size, st.Size)
	}
	return nil
}

// cut takes off what was written after the checkpoint.
func (b *Builder) cut(o *stagedOpen, size uint64) error {
	p := b.Remote.Program()
	p.Ftruncate(o.fd, int64(size))
	if err := p.Run(); err != nil {
		return &fault.Error{Code: fault.FileRollback, Object: o.path, Err: err}
	}
	return nil
}

// fileChange is a change of a file outside of the process. It is made when all
// else is staged and checked, right before the commit: first what prepares any
// of them, and may meet a limit, then the changes themselves.
type fileChange struct {
	prepare func(*Builder) error // nil for nothing
	do      func(*Builder) error
}

func (b *Builder) lastly(c fileChange) { b.changes = append(b.changes, c) }

func (b *Builder) changeFiles() error {
	for _, c := range b.changes {
		if c.prepare == nil {
			continue
		}
		if err := c.prepare(b); err != nil {
			return err
		}
	}
	for _, c := range b.changes {
		if err := c.do(b); err != nil {
			return err
		}
	}
	return nil
}
