package core

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer/procfs"
)

// What an archive says in extended headers of its own, beside those that tar(1)
// knows: a socket is a fifo with that type; a file with holes has the data of
// its extents alone, which are "offset,length" each, and its whole size.
const (
	ArchiveType    = "CRSHIM.type"
	ArchiveExtents = "CRSHIM.extents"
	ArchiveSize    = "CRSHIM.size"
	ArchiveXattr   = "SCHILY.xattr."

	ArchiveSocket = "socket"
)

// MaxExtents bounds how finely the holes of a file are told.
const MaxExtents = 4096

// maxAttributes bounds the extended attributes of a file, in bytes: readers of
// archives take no more than a megabyte of such headers.
const maxAttributes = 512 << 10

// ids are the users and groups that a container knows.
type ids struct{ uids, gids procfs.IDs }

// all tells whether they are called within as they are without.
func (i ids) all() bool {
	whole := procfs.IDs{{Count: 1<<32 - 1}}
	return slices.Equal(i.uids, whole) && slices.Equal(i.gids, whole)
}

// archive is a file system on its way into an image.
type archive struct {
	*tar.Writer
	ids   ids
	place string
	links map[uint64]string // names of files that have several, by inode
}

// archiveMount writes all that is on a mount, without what is mounted upon it.
func archiveMount(out io.Writer, root int, ids ids, place string) error {
	a := &archive{tar.NewWriter(out), ids, strings.TrimSuffix(place, "/"), make(map[uint64]string)}
	fd, err := unix.Openat(root, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return a.wrong(".", err)
	}
	head, _, err := a.head(fd, "", "./")
	if err == nil {
		err = a.WriteHeader(head)
	}
	if err != nil {
		_ = unix.Close(fd) // only read from
		return err
	}
	if err := a.directory(fd, "."); err != nil {
		return err
	}
	return a.Close()
}

func (a *archive) wrong(name string, err error) error {
	return fmt.Errorf("%s/%s: %w", a.place, strings.TrimPrefix(name, "./"), err)
}

// directory writes what is in a directory, and closes it.
func (a *archive) directory(fd int, name string) error {
	dir := os.NewFile(uintptr(fd), name)
	defer func() { _ = dir.Close() }() // only read from
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return a.wrong(name, err)
	}
	slices.Sort(names)
	for _, entry := range names {
		if err := a.entry(fd, entry, name+"/"+entry); err != nil {
			return err
		}
	}
	return nil
}

// entry writes one entry of a directory, and what is below it.
func (a *archive) entry(dir int, base, name string) error {
	head, st, err := a.head(dir, base, name)
	if err != nil {
		return err
	}
	if st.Nlink > 1 && head.Typeflag != tar.TypeDir {
		if first, known := a.links[st.Ino]; known {
			return a.WriteHeader(&tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: first, Format: tar.FormatPAX})
		}
		a.links[st.Ino] = name
	}
	switch head.Typeflag {
	case tar.TypeReg:
		return a.file(dir, base, head)
	case tar.TypeDir:
		if err := a.WriteHeader(head); err != nil {
			return a.wrong(name, err)
		}
		fd, err := openQuietly(dir, base, unix.O_DIRECTORY)
		if err != nil {
			return a.wrong(name, err)
		}
		return a.directory(fd, name)
	}
	if err := a.WriteHeader(head); err != nil {
		return a.wrong(name, err)
	}
	return nil
}

// openQuietly opens for reading, without leaving a time of access where that is permitted.
func openQuietly(dir int, base string, flags int) (int, error) {
	flags |= unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, base, flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		fd, err = unix.Openat(dir, base, flags, 0)
	}
	return fd, err
}

func (a *archive) owner(st *unix.Statx_t, name string) (uid, gid int, err error) {
	u, uOK := a.ids.uids.In(st.Uid)
	g, gOK := a.ids.gids.In(st.Gid)
	if !uOK || !gOK {
		return 0, 0, a.wrong(name, fmt.Errorf("its owner, %d:%d, is none of the container", st.Uid, st.Gid))
	}
	return int(u), int(g), nil
}

// lostAttributes are flags of a file that a new one would not have (ioctl_iflags(2)).
const lostAttributes = unix.STATX_ATTR_IMMUTABLE | unix.STATX_ATTR_APPEND | unix.STATX_ATTR_NODUMP | unix.STATX_ATTR_VERITY

// head describes a file: base in dir, or dir itself.
func (a *archive) head(dir int, base, name string) (*tar.Header, *unix.Statx_t, error) {
	st := new(unix.Statx_t)
	if err := unix.Statx(dir, base, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, st); err != nil {
		return nil, nil, a.wrong(name, err)
	}
	if st.Attributes&lostAttributes != 0 {
		return nil, nil, a.wrong(name, fmt.Errorf("flags of chattr(1), %#x", st.Attributes&lostAttributes))
	}
	uid, gid, err := a.owner(st, name)
	if err != nil {
		return nil, nil, err
	}
	stamp := func(t unix.StatxTimestamp) time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }
	h := &tar.Header{Name: name, Mode: int64(st.Mode &^ unix.S_IFMT), Uid: uid, Gid: gid,
		ModTime: stamp(st.Mtime), AccessTime: stamp(st.Atime), Format: tar.FormatPAX, PAXRecords: make(map[string]string)}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, int64(st.Size)
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, strings.TrimSuffix(name, "/")+"/"
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(dir, base, buf)
		if err != nil {
			return nil, nil, a.wrong(name, err)
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, string(buf[:n])
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFSOCK:
		h.Typeflag, h.PAXRecords[ArchiveType] = tar.TypeFifo, ArchiveSocket
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(st.Rdev_major), int64(st.Rdev_minor)
	}
	return h, st, a.attributes(dir, base, name, h)
}

// attributes takes the extended attributes of a file.
func (a *archive) attributes(dir int, base, name string, h *tar.Header) error {
	path := fmt.Sprintf("/proc/self/fd/%d", dir)
	list, get := unix.Listxattr, unix.Getxattr
	if base != "" {
		path += "/" + base
		list, get = unix.Llistxattr, unix.Lgetxattr
	}
	names := make([]byte, 1<<16) // XATTR_LIST_MAX
	n, err := list(path, names)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return a.wrong(name, err)
	}
	total := 0
	for attr := range strings.SplitSeq(string(names[:n]), "\x00") {
		switch {
		case attr == "", strings.HasPrefix(attr, "security.") && attr != "security.capability":
			continue // labels of the security modules come by the rules of the host
		case !strings.HasPrefix(attr, "user.") && !a.ids.all() || strings.Contains(attr, "="):
			// It may name users, or be another one's to set.
			return a.wrong(name, fmt.Errorf("extended attribute %s", attr))
		}
		value := make([]byte, 1<<16) // XATTR_SIZE_MAX
		n, err := get(path, attr, value)
		if err != nil {
			return a.wrong(name, err)
		}
		if total += len(attr) + n; total > maxAttributes {
			return a.wrong(name, fmt.Errorf("more than %d bytes of extended attributes", maxAttributes))
		}
		h.PAXRecords[ArchiveXattr+attr] = string(value[:n])
	}
	return nil
}

// extent is a range of a file that is not a hole.
type extent struct{ from, to int64 }

// file writes a regular file, without its holes.
func (a *archive) file(dir int, base string, h *tar.Header) error {
	fd, err := openQuietly(dir, base, 0)
	if err != nil {
		return a.wrong(h.Name, err)
	}
	f := os.NewFile(uintptr(fd), h.Name)
	defer func() { _ = f.Close() }() // only read from
	extents, err := extentsOf(fd, h.Size)
	if err != nil {
		return a.wrong(h.Name, err)
	}
	if len(extents) != 1 || extents[0] != (extent{0, h.Size}) {
		var text bytes.Buffer
		h.PAXRecords[ArchiveSize] = fmt.Sprint(h.Size)
		h.Size = 0
		for _, e := range extents {
			h.Size += e.to - e.from
			fmt.Fprintf(&text, "%d,%d ", e.from, e.to-e.from)
		}
		h.PAXRecords[ArchiveExtents] = text.String()
	}
	if err := a.WriteHeader(h); err != nil {
		return a.wrong(h.Name, err)
	}
	for _, e := range extents {
		if n, err := io.Copy(a, io.NewSectionReader(f, e.from, e.to-e.from)); err != nil || n != e.to-e.from {
			return a.wrong(h.Name, errors.Join(err, fmt.Errorf("read %d of %d bytes at %d", n, e.to-e.from, e.from)))
		}
	}
	return nil
}

// extentsOf finds what is not a hole. Of too many the small holes are taken for data.
func extentsOf(fd int, size int64) ([]extent, error) {
	const seekData, seekHole = 3, 4
	for least := int64(1); ; least *= 8 {
		var found []extent
		for at := int64(0); at < size && len(found) <= MaxExtents; {
			from, err := unix.Seek(fd, at, seekData)
			if errors.Is(err, unix.ENXIO) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("find data from %d on: %w", at, err)
			}
			to, err := unix.Seek(fd, from, seekHole)
			if err != nil {
				return nil, fmt.Errorf("find hole from %d on: %w", from, err)
			}
			to = min(to, size)
			if n := len(found); n > 0 && from-found[n-1].to < least {
				found[n-1].to = to
			} else if from < size {
				found = append(found, extent{from, to})
			}
			at = to
		}
		if len(found) <= MaxExtents {
			return found, nil
		}
	}
}
