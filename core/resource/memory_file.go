package resource

import (
	"bytes"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// mapFile opens the file of a mapping once for all mappings that need it.
func (r *memoryRestore) mapFile(b *Builder, m *stagedMapping) (*stagedFile, error) {
	access := unix.O_RDONLY
	if !m.private() && m.vma.Flags&image.VMMayWrite != 0 {
		access = unix.O_RDWR
	}
	key := fmt.Sprintf("%d %s", access, m.path)
	f := r.files[key]
	if f == nil {
		var err error
		if f, err = b.openFile(m.path, access, fault.FileOpen); err != nil {
			return nil, err
		}
		r.files[key] = f
	}
	r.fromFiles = append(r.fromFiles, fileMapping{m, f})
	return f, nil
}

// fileMapping is a mapping and the file that it was made from.
type fileMapping struct {
	m *stagedMapping
	f *stagedFile
}

// checkFiles looks at what the names have led to, once all is mapped, and
// before the files are closed.
func (r *memoryRestore) checkFiles(b *Builder) error {
	if len(r.fromFiles) == 0 {
		return nil
	}
	if err := b.Flush(); err != nil {
		return err
	}
	seen := make(map[tracer.FD]*procfs.FD)
	for _, x := range r.fromFiles {
		now := seen[x.f.fd]
		if now == nil {
			var err error
			if now, err = b.Caller.Proc.FD(int32(x.f.fd)); err != nil {
				return fmt.Errorf("look at staged %s: %w", x.m.path, err)
			}
			seen[x.f.fd] = now
		}
		if err := x.m.sameFile(now); err != nil {
			return err
		}
		if x.m.more.IDLen > 0 && x.m.vma.Pgoff == 0 {
			if err := x.m.checkBuildID(b); err != nil {
				return err
			}
		}
	}
	return nil
}

// zeroDevice is /dev/zero: a private mapping of it is anonymous memory with a
// name (mmap_zero of drivers/char/mem.c), as programs before MAP_ANONYMOUS had it.
var zeroDevice = unix.Mkdev(1, 5)

// sameFile refuses a file that is not the one that was mapped: code or data
// that changed under a running program is a crash that comes later. A copy of
// the file passes if it has the same size and, for programs and libraries,
// the same build id, which is compared once the file is mapped.
func (m *stagedMapping) sameFile(now *procfs.FD) error {
	switch {
	case now.Type() == unix.S_IFCHR && now.Rdev == zeroDevice && m.private():
		return nil
	case now.Type() != unix.S_IFREG:
		return &fault.Error{Code: fault.FileTypeChanged, Object: m.path}
	case m.private() && uint64(now.Size) != m.more.Size:
		return &fault.Error{Code: fault.FileState, Object: m.path, Detail: fmt.Sprintf("%d bytes, was %d", now.Size, m.more.Size), Err: unix.ENOEXEC}
	case uint64(now.Size) < m.vma.Pgoff*procfs.PageSize:
		return &fault.Error{Code: fault.FileTooShort, Object: m.path}
	}
	return nil
}

// checkBuildID compares the mapped file's build id with the saved one. A
// mapping whose first page was written to keeps what the image says.
func (m *stagedMapping) checkBuildID(b *Builder) error {
	head := make([]byte, min(m.at.Len(), procfs.PageSize))
	if err := b.Tracee.ReadMem(m.at.Start, head); err != nil {
		return fmt.Errorf("read first page of %s: %w", m.path, err)
	}
	if want := m.more.BuildID[:m.more.IDLen]; !bytes.Equal(buildID(head), want) {
		return &fault.Error{Code: fault.FileState, Object: m.path, Detail: fmt.Sprintf("build id %x, was %x", buildID(head), want), Err: unix.ENOEXEC}
	}
	return nil
}
