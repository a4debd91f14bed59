package shim

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core"
)

// unpacking is the filling of a file system that has just been mounted. Its archive may say anything: nothing is looked up but below
// the root of the mount, and no link is followed.
type unpacking struct {
	root int
	dirs []unfinished // until nothing is made in them any more

	dir     string // the directory that was looked up last
	dirFile int    // -1 without one
}

// unfinished is a directory, with what changes or passes on to what is made in it.
type unfinished struct {
	name  string
	times []unix.Timespec
	acl   string // the default one, "" without
}

const defaultACL = "system.posix_acl_default"

// maxUnfinished bounds how many directories of an archive are remembered.
const maxUnfinished = 1 << 20

func unpack(archive io.Reader, root int) error {
	u := &unpacking{root: root, dirFile: -1}
	defer func() { u.leave() }()
	r := tar.NewReader(archive)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = u.entry(h, r)
		}
		if err != nil {
			if h != nil {
				err = fmt.Errorf("%q: %w", h.Name, err)
			}
			return err
		}
	}
	if _, err := io.Copy(io.Discard, archive); err != nil {
		return err
	}
	for i := range u.dirs {
		if err := u.complete(&u.dirs[i]); err != nil {
			return fmt.Errorf("%q: %w", u.dirs[i].name, err)
		}
	}
	return nil
}

func (u *unpacking) complete(d *unfinished) error {
	fd, err := u.find(d.name, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	if d.acl != "" {
		err = unix.Setxattr(place(fd), defaultACL, []byte(d.acl), 0)
	}
	return errors.Join(err, unix.UtimesNanoAt(unix.AT_FDCWD, place(fd), d.times, 0), unix.Close(fd))
}

// find opens what is below the root.
func (u *unpacking) find(name string, flags uint64) (int, error) {
	if name == "." {
		return unix.FcntlInt(uintptr(u.root), unix.F_DUPFD_CLOEXEC, 0)
	}
	return unix.Openat2(u.root, name, &unix.OpenHow{
		Flags:   flags | unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
}

func (u *unpacking) leave() {
	if u.dirFile >= 0 {
		_ = unix.Close(u.dirFile) // only a place
	}
	u.dirFile = -1
}

// enter opens the directory of a name and returns it with the last part.
func (u *unpacking) enter(name string) (dir int, base string, err error) {
	parent, base := path.Split(name)
	parent = path.Clean("./" + parent)
	if base == "" || base == "." || base == ".." {
		return -1, "", fmt.Errorf("%q is no name of a file", base)
	}
	if u.dirFile >= 0 && u.dir == parent {
		return u.dirFile, base, nil
	}
	u.leave()
	if u.dirFile, err = u.find(parent, unix.O_DIRECTORY); err != nil {
		u.dirFile = -1
		return -1, "", fmt.Errorf("open its directory: %w", err)
	}
	u.dir = parent
	return u.dirFile, base, nil
}

// entry makes one file.
func (u *unpacking) entry(h *tar.Header, data io.Reader) error {
	name := path.Clean(strings.TrimSuffix(h.Name, "/"))
	if name == "." && h.Typeflag == tar.TypeDir {
		return u.finish(u.root, name, h)
	}
	dir, base, err := u.enter(name)
	if err != nil {
		return err
	}
	mode := uint32(h.Mode) & 0o7777
	switch h.Typeflag {
	case tar.TypeReg:
		return u.file(dir, base, h, data)
	case tar.TypeLink:
		return u.link(dir, base, path.Clean(h.Linkname))
	case tar.TypeDir:
		err = unix.Mkdirat(dir, base, 0o700)
	case tar.TypeSymlink:
		err = unix.Symlinkat(h.Linkname, dir, base)
	case tar.TypeFifo:
		kind := uint32(unix.S_IFIFO)
		if h.PAXRecords[core.ArchiveType] == core.ArchiveSocket {
			kind = unix.S_IFSOCK
		}
		err = unix.Mknodat(dir, base, kind|mode, 0)
	case tar.TypeChar:
		err = unix.Mknodat(dir, base, unix.S_IFCHR|mode, deviceOf(h))
	case tar.TypeBlock:
		err = unix.Mknodat(dir, base, unix.S_IFBLK|mode, deviceOf(h))
	default:
		err = fmt.Errorf("type %q", h.Typeflag)
	}
	if err != nil {
		return err
	}
	fd, err := u.find(name, 0)
	if err != nil {
		return err
	}
	return errors.Join(u.finish(fd, name, h), unix.Close(fd))
}

func deviceOf(h *tar.Header) int { return int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))) }

// link gives a file another name.
func (u *unpacking) link(dir int, base, to string) error {
	toDir, toBase := path.Split(to)
	if toBase == "" || toBase == "." || toBase == ".." {
		return fmt.Errorf("link to %q", to)
	}
	from, err := u.find(path.Clean("./"+toDir), unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("open directory of %q: %w", to, err)
	}
	return errors.Join(unix.Linkat(from, toBase, dir, base, 0), unix.Close(from))
}

// finish gives a file, which may be a place without contents, its owner, its mode, its attributes and its times.
func (u *unpacking) finish(fd int, name string, h *tar.Header) error {
	if err := unix.Fchownat(fd, "", h.Uid, h.Gid, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("change owner to %d:%d: %w", h.Uid, h.Gid, err)
	}
	self := place(fd)
	if h.Typeflag != tar.TypeSymlink {
		if err := unix.Fchmodat(unix.AT_FDCWD, self, uint32(h.Mode)&0o7777, 0); err != nil {
			return fmt.Errorf("change mode to %#o: %w", h.Mode&0o7777, err)
		}
	}
	for key, value := range h.PAXRecords {
		attr, ok := strings.CutPrefix(key, core.ArchiveXattr)
		if !ok || attr == defaultACL && h.Typeflag == tar.TypeDir {
			continue
		}
		if err := unix.Setxattr(self, attr, []byte(value), 0); err != nil {
			return fmt.Errorf("set attribute %s: %w", attr, err)
		}
	}
	times := []unix.Timespec{timespec(h.AccessTime), timespec(h.ModTime)}
	if h.Typeflag == tar.TypeDir {
		if len(u.dirs) == maxUnfinished {
			return fmt.Errorf("more than %d directories", maxUnfinished)
		}
		u.dirs = append(u.dirs, unfinished{name, times, h.PAXRecords[core.ArchiveXattr+defaultACL]})
		return nil
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, self, times, 0); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

func timespec(t time.Time) unix.Timespec {
	if t.IsZero() {
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

// file makes a regular file and fills it.
func (u *unpacking) file(dir int, base string, h *tar.Header, data io.Reader) error {
	fd, err := unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	if err = fill(f, h, data); err == nil {
		err = u.finish(fd, "", h)
	}
	return errors.Join(err, f.Close())
}

// fill writes what is not a hole. The archive has the data of the extents alone.
func fill(f *os.File, h *tar.Header, data io.Reader) error {
	size, text := h.Size, fmt.Sprintf("0,%d", h.Size)
	if whole, sparse := h.PAXRecords[core.ArchiveSize]; sparse {
		if _, err := fmt.Sscan(whole, &size); err != nil || size < h.Size {
			return fmt.Errorf("size %q", whole)
		}
		text = h.PAXRecords[core.ArchiveExtents]
	}
	extents := strings.Fields(text)
	if len(extents) > core.MaxExtents {
		return fmt.Errorf("%d extents", len(extents))
	}
	end, left := int64(0), h.Size
	for _, e := range extents {
		var from, n int64
		if _, err := fmt.Sscanf(e, "%d,%d", &from, &n); err != nil || from < end || n < 0 || n > left || from > size-n {
			return fmt.Errorf("extent %q of %d bytes", e, size)
		}
		if n > 0 {
			if _, err := f.Seek(from, io.SeekStart); err != nil {
				return err
			}
			if _, err := io.CopyN(f, data, n); err != nil {
				return err
			}
		}
		end, left = from+n, left-n
	}
	if left != 0 {
		return fmt.Errorf("%d bytes are in no extent", left)
	}
	return f.Truncate(size)
}
