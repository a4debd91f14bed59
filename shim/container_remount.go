package shim

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core"
	"github.com/crshim/crshim/core/fault"
)

// remount is the making of the mounts of an image, by the process that becomes the first one of the container.
type remount struct {
	config *containerConfig
	root   *root
	from   *mountSource
	mounts []core.Mount
	source []int // descriptors of what is bound from the host, -1 without one
	at     []int // the roots of mounts that are there
	placed []bool
}

// remountAll makes what was mounted in a container that is restored, in the order in which the image has it.
func (c *containerConfig) remountAll() error {
	feed := os.NewFile(uintptr(c.Feed), "mounts")
	defer func() { _ = feed.Close() }() // only read from
	m := &remount{config: c, from: &mountSource{in: feed}}
	err := m.all()
	if errors.Is(err, errFeedEnded) {
		os.Exit(statusSelf) // the front says why
	}
	return err
}

func (m *remount) all() (err error) {
	if m.mounts, err = m.from.plan(); err != nil {
		return err
	}
	// The names of the host are those of now: what is mounted in a moment may cover them.
	if err := m.openSources(); err != nil {
		return err
	}
	if m.root, err = openRoot(m.config.Rootfs); err != nil {
		return err
	}
	defer unix.Close(m.root.fd)
	unix.Umask(0) // of this stage alone: the image has that of each process
	m.at, m.placed = make([]int, len(m.mounts)), make([]bool, len(m.config.Binds))
	for i := range m.mounts {
		if err := m.mount(i); err != nil {
			return err
		}
	}
	for i, b := range m.config.Binds {
		if !m.placed[i] {
			if err := m.root.bind(b); err != nil {
				return err
			}
		}
	}
	for i := range m.mounts {
		if m.mounts[i].Kind == core.MountRoot {
			if err := m.setAttr(i); err != nil {
				return err
			}
		}
		_ = unix.Close(m.at[i])     // a place
		_ = unix.Close(m.source[i]) // and none of ours has done more with them than mount
	}
	if m.config.Rootfs == "" {
		return nil
	}
	return m.root.enter()
}

func (m *remount) openSources() error {
	m.source = make([]int, len(m.mounts))
	for i := range m.mounts {
		m.source[i] = -1
		if o := &m.mounts[i]; o.Kind == core.MountHost && m.config.boundAt(o.Place) == nil && !m.config.underBind(o) {
			fd, err := unix.Open(o.Source, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err != nil {
				return &fault.Error{Code: fault.MountPlace, Object: o.Source, Err: err}
			}
			m.source[i] = fd
		}
	}
	return nil
}

// mount makes one of them.
func (m *remount) mount(i int) error {
	o := &m.mounts[i]
	m.at[i] = -1
	replaced := false
	for n, b := range m.config.Binds {
		if b.Target == o.Place && o.Kind != core.MountRoot {
			if !m.placed[n] {
				if err := m.root.bind(b); err != nil {
					return err
				}
			}
			m.placed[n], replaced = true, true
		}
	}
	if m.config.underBind(o) {
		return nil // another one is there, with what is below it
	}
	var err error
	switch {
	case replaced || o.Kind == core.MountRoot:
	case o.Kind == core.MountNew:
		err = m.root.mount(o.Source, o.Place, o.FSType, flagsOf(o.Attr&^unix.MOUNT_ATTR_RDONLY), o.Options)
		if err != nil && o.FSType == "proc" {
			err = m.config.procFault(m.root.path+o.Place, err)
		}
	case o.Kind == core.MountHost:
		err = m.bindFrom(m.source[i], o)
	case o.Kind == core.MountInside:
		var fd int
		if fd, err = m.inside(o); err == nil {
			err = errors.Join(m.bindFrom(fd, o), unix.Close(fd))
		}
	}
	if err != nil {
		return err
	}
	if m.at[i], err = m.root.open(o.Place); err != nil {
		return err
	}
	if o.Filled && !replaced {
		m.from.open(i)
		if err := unpack(m.from, m.at[i]); err != nil {
			if errors.Is(err, errFeedEnded) {
				return err
			}
			return &fault.Error{Code: fault.ContainerUnpack, Object: o.Place, Err: err}
		}
	}
	if o.ReadOnly && !replaced {
		if err := unix.Mount("", place(m.at[i]), "", unix.MS_REMOUNT|unix.MS_RDONLY|flagsOf(o.Attr), o.Options); err != nil {
			return mountFault(m.root.path+o.Place, err)
		}
	}
	if replaced || o.Kind == core.MountRoot {
		return nil
	}
	return m.setAttr(i)
}

// inside opens what is bound from another mount.
func (m *remount) inside(o *core.Mount) (int, error) {
	fd, err := unix.Openat2(m.at[o.From], "./"+strings.TrimPrefix(o.Source, "/"), &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return -1, &fault.Error{Code: fault.MountPlace, Object: m.mounts[o.From].Place + o.Source, Err: err}
	}
	return fd, nil
}

func (m *remount) bindFrom(fd int, o *core.Mount) error {
	flags := uintptr(unix.MS_BIND)
	if o.Deep {
		flags |= unix.MS_REC
	}
	return m.root.mount(place(fd), o.Place, "", flags, "")
}

// setAttr gives a mount the attributes that it had. Only what differs is set: in a user namespace some cannot be taken away, nor be
// set again.
func (m *remount) setAttr(i int) error {
	o := &m.mounts[i]
	var st unix.Statfs_t
	if err := unix.Fstatfs(m.at[i], &st); err != nil {
		return mountFault(m.root.path+o.Place, fmt.Errorf("statfs: %w", err))
	}
	const times = unix.MOUNT_ATTR__ATIME
	now := attrOf(st.Flags)
	if o.Kind == core.MountNew && !o.ReadOnly {
		now &^= unix.MOUNT_ATTR_RDONLY
	}
	attr := unix.MountAttr{Attr_set: (o.Attr &^ now) &^ times, Attr_clr: (now &^ o.Attr) &^ times}
	if now&times != o.Attr&times {
		attr.Attr_set, attr.Attr_clr = attr.Attr_set|o.Attr&times, attr.Attr_clr|times
	}
	if attr.Attr_set == 0 && attr.Attr_clr == 0 {
		return nil
	}
	flags := uint(unix.AT_EMPTY_PATH)
	if o.Deep && attr.Attr_set == unix.MOUNT_ATTR_RDONLY && attr.Attr_clr == 0 {
		flags |= unix.AT_RECURSIVE
	}
	if err := unix.MountSetattr(m.at[i], "", flags, &attr); err != nil {
		return mountFault(m.root.path+o.Place, fmt.Errorf("mount_setattr: %w", err))
	}
	return nil
}

// ST_ of linux/statfs.h; the others are in the table.
const (
	stNoatime  = 0x400
	stRelatime = 0x1000
)

// attributes are what statfs(2), mount(2) and mount_setattr(2) call the same. A mount without one of those about times of access keeps
// them strictly; MOUNT_ATTR_RELATIME is 0.
var attributes = []struct {
	st    int64
	flags uintptr
	attr  uint64
}{
	{0x1, unix.MS_RDONLY, unix.MOUNT_ATTR_RDONLY},
	{0x2, unix.MS_NOSUID, unix.MOUNT_ATTR_NOSUID},
	{0x4, unix.MS_NODEV, unix.MOUNT_ATTR_NODEV},
	{0x8, unix.MS_NOEXEC, unix.MOUNT_ATTR_NOEXEC},
	{0x800, unix.MS_NODIRATIME, unix.MOUNT_ATTR_NODIRATIME},
	{stNoatime, unix.MS_NOATIME, unix.MOUNT_ATTR_NOATIME},
	{0x2000, unix.MS_NOSYMFOLLOW, unix.MOUNT_ATTR_NOSYMFOLLOW},
}

func attrOf(st int64) (attr uint64) {
	for _, a := range attributes {
		if st&a.st != 0 {
			attr |= a.attr
		}
	}
	if st&(stNoatime|stRelatime) == 0 {
		attr |= unix.MOUNT_ATTR_STRICTATIME
	}
	return attr
}

func flagsOf(attr uint64) (flags uintptr) {
	for _, a := range attributes {
		if attr&a.attr != 0 {
			flags |= a.flags
		}
	}
	if attr&unix.MOUNT_ATTR_STRICTATIME != 0 {
		flags |= unix.MS_STRICTATIME
	}
	return flags
}
