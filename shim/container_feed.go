package shim

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core"
	"github.com/crshim/crshim/core/fault"
)

// The stage that becomes the first process of a restored container is told by a pipe what to mount, and what was in it: frames of
// two numbers, a mount of the list and a length, and as many bytes. The list itself comes first, an empty frame ends each archive.
type frame struct {
	Mount  uint32
	Length uint32
}

const (
	planFrame = 1<<32 - 1 // instead of a mount: the list
	maxPlan   = 64 << 20
)

// mountFeed is the front's end of the pipe.
type mountFeed struct {
	out *os.File
	at  int // whose archive has begun, -1 for none
}

func (f *mountFeed) frame(mount uint32, data []byte) error {
	buf := binary.NativeEndian.AppendUint32(nil, mount)
	buf = binary.NativeEndian.AppendUint32(buf, uint32(len(data)))
	_, err := f.out.Write(append(buf, data...))
	return err
}

// piece is a piece of an archive.
func (f *mountFeed) piece(mount int, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if mount != f.at {
		if err := f.end(); err != nil {
			return err
		}
		f.at = mount
	}
	return f.frame(uint32(mount), data)
}

func (f *mountFeed) end() error {
	if f.at < 0 {
		return nil
	}
	return f.frame(uint32(f.at), nil)
}

// feedMounts tells the stage what to mount and what belongs into it, as it reads that from the image.
func (r *restart) feedMounts() error {
	if r.feed == nil {
		return nil
	}
	f := &mountFeed{out: r.feed, at: -1}
	text, err := json.Marshal(r.opened.Container.Mounts)
	if err == nil {
		err = f.frame(planFrame, text)
	}
	if err == nil {
		err = r.opened.Contents(f.piece)
	}
	if err == nil {
		err = f.end()
	}
	err = errors.Join(err, r.feed.Close())
	if errors.Is(err, unix.EPIPE) {
		return errNotStarted // the stage says why
	}
	return err
}

// mountSource is the stage's end of the pipe.
type mountSource struct {
	in    *os.File
	mount int    // whose archive is read
	left  uint32 // of the frame that is being read
	ended bool
}

var _ io.Reader = (*mountSource)(nil)

// errFeedEnded says that the front has given up, and tells why itself.
var errFeedEnded = errors.New("the list of mounts has ended")

func (s *mountSource) next() (head frame, err error) {
	if err = binary.Read(s.in, binary.NativeEndian, &head); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errFeedEnded
	}
	return head, err
}

func (s *mountSource) plan() (mounts []core.Mount, err error) {
	head, err := s.next()
	if err == nil && (head.Mount != planFrame || head.Length > maxPlan) {
		err = fmt.Errorf("frame of %d bytes for mount %d is not the list", head.Length, head.Mount)
	}
	if err != nil {
		return nil, err
	}
	text := make([]byte, head.Length)
	if _, err := io.ReadFull(s.in, text); err != nil {
		return nil, errors.Join(errFeedEnded, err)
	}
	return mounts, json.Unmarshal(text, &mounts)
}

// open begins with the archive of a mount.
func (s *mountSource) open(mount int) { s.mount, s.left, s.ended = mount, 0, false }

// Read reads from that archive.
func (s *mountSource) Read(b []byte) (int, error) {
	for s.left == 0 && !s.ended {
		head, err := s.next()
		switch {
		case err != nil:
			return 0, err
		case int(head.Mount) != s.mount:
			return 0, fmt.Errorf("contents of mount %d instead of those of %d", head.Mount, s.mount)
		}
		s.left, s.ended = head.Length, head.Length == 0
	}
	if s.ended {
		return 0, io.EOF
	}
	n, err := s.in.Read(b[:min(uint64(len(b)), uint64(s.left))])
	s.left -= uint32(n)
	if errors.Is(err, io.EOF) {
		err = errFeedEnded
	}
	return n, err
}

// checkMounts names all places and sources that are missing, before anything is made. What lies in another mount of the list cannot be
// looked at before that is there.
func (c *containerConfig) checkMounts(mounts []core.Mount) error {
	var list fault.List
	missing := func(path string, err error) {
		list = append(list, &fault.Error{Code: fault.MountPlace, Object: path, Err: err})
	}
	dir := "/"
	if c.Rootfs != "" {
		dir = c.Rootfs
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fault.Error{Code: fault.ContainerRoot, Object: dir, Err: err}
	}
	r := &root{fd: fd, path: c.Rootfs}
	defer unix.Close(r.fd)
	look := func(place string) {
		fd, err := r.find(place)
		if err != nil {
			missing(filepath.Join(dir, place), err)
			return
		}
		_ = unix.Close(fd) // only looked for
	}
	for i := range mounts {
		m := &mounts[i]
		b := c.boundAt(m.Place)
		if m.Kind == core.MountHost && b == nil && !c.underBind(m) {
			if _, err := os.Lstat(m.Source); err != nil {
				missing(m.Source, errors.Unwrap(err))
			}
		}
		if m.Kind != core.MountRoot && !underAny(mounts[:i], m.Place) && !c.underBind(m) {
			look(m.Place)
		}
	}
	for i := range c.Binds {
		b := &c.Binds[i]
		if _, err := os.Lstat(b.Source); err != nil {
			missing(b.Source, errors.Unwrap(err))
		}
		if !underAny(mounts, b.Target) {
			look(b.Target)
		}
	}
	return list.Err()
}

// underAny tells whether a place is in one of the mounts beside the root.
func underAny(mounts []core.Mount, place string) bool {
	for i := range mounts {
		if m := &mounts[i]; m.Kind != core.MountRoot && isBelow(place, m.Place) {
			return true
		}
	}
	return false
}

// isBelow tells whether a path is below another one, or the same.
func isBelow(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// boundAt is what the command line of a restart says should be there.
func (c *containerConfig) boundAt(place string) *bind {
	for i := range c.Binds {
		if c.Binds[i].Target == place {
			return &c.Binds[i]
		}
	}
	return nil
}

// underBind tells whether a mount is bound from the host below a place for which the command line has something else, with all that
// is below that.
func (c *containerConfig) underBind(m *core.Mount) bool {
	for i := range c.Binds {
		if to := c.Binds[i].Target; m.Kind == core.MountHost && m.Place != to && isBelow(m.Place, to) {
			return true
		}
	}
	return false
}
