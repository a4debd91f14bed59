package core

import (
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
)

// Kinds of records about the mounts of a container.
const (
	containerRootKind image.Kind = 6701
	mountKind         image.Kind = 6702
	mountSourceKind   image.Kind = 6703
	mountOptionsKind  image.Kind = 6704
	mountDataKind     image.Kind = 6705
)

// containerRootRecord stands before the mounts, of which there may be none.
type containerRootRecord struct {
	Path string `doc:"directory of the host that is the root, empty if the container sees that of the host"`
}

type mountRecord struct {
	Kind  uint32 `doc:"1 the root, 2 a file system of its own, 3 bound from the host, 4 bound from another mount of the image"`
	From  uint32 `doc:"of a mount bound from another: which, from 0"`
	Attr  uint64 `fmt:"hex" doc:"MOUNT_ATTR_*"`
	Flags uint32 `fmt:"flags" flags:"1=READONLY 2=DEEP 4=FILLED" doc:"the file system is read-only; with what is mounted below; MOUNT_DATA follow"`
	_     [4]byte
	Place string `doc:"in the container"`
}

const (
	mountReadOnly = 1 << iota
	mountDeep
	mountFilled
)

type mountSourceRecord struct{ Path string }

type mountOptionsRecord struct {
	Text string `doc:"type of the file system and, behind a blank, its options"`
}

// mountDataRecord is a piece of the contents of a file system.
type mountDataRecord struct {
	Mount uint32 `doc:"of which MOUNT, from 0"`
	_     [4]byte
	Data  []byte `fmt:"size" doc:"piece of an archive as pax(1) writes it"`
}

// pieceOfArchive fits one record.
const pieceOfArchive = 32<<10 - 512

var containerRecords = []image.Spec{
	image.Row[containerRootRecord](containerRootKind, "CONTAINER_ROOT", image.InTree, "the root of a container; its mounts follow", image.Times(image.AtMostOncePerImage)),
	image.Row[mountRecord](mountKind, "MOUNT", image.InTree, "a mount that a new container would not have, in the order in which they are to be made; MOUNT_SOURCE and MOUNT_OPTIONS follow"),
	image.Row[mountSourceRecord](mountSourceKind, "MOUNT_SOURCE", image.InTree, "what is mounted: a directory or file of the host or of another mount, or the name of a file system"),
	image.Row[mountOptionsRecord](mountOptionsKind, "MOUNT_OPTIONS", image.InTree, "type and options of a file system; empty for what is bound"),
	image.Row[mountDataRecord](mountDataKind, "MOUNT_DATA", image.InTree, "contents of a file system that ends with the container, behind everything else about it"),
}

func (c *Container) writeMounts(w *image.Writer) error {
	if err := w.Put(0, &containerRootRecord{Path: c.Rootfs}); err != nil {
		return err
	}
	for i := range c.Mounts {
		if err := c.Mounts[i].write(w); err != nil {
			return err
		}
	}
	return nil
}

func (m *Mount) write(w *image.Writer) error {
	rec := &mountRecord{Kind: uint32(m.Kind), From: m.From, Attr: m.Attr, Place: m.Place}
	for bit, set := range map[uint32]bool{mountReadOnly: m.ReadOnly, mountDeep: m.Deep, mountFilled: m.Filled} {
		if set {
			rec.Flags |= bit
		}
	}
	for _, r := range []any{rec, &mountSourceRecord{m.Source}, &mountOptionsRecord{strings.TrimSuffix(m.FSType+" "+m.Options, " ")}} {
		if err := w.Put(0, r); err != nil {
			return err
		}
	}
	return nil
}

// readMounts reads the mounts, if the image has them.
func (c *Container) readMounts(r *image.Reader) error {
	if next, err := r.Peek(); err != nil || next != containerRootKind {
		return err
	}
	root, _, err := image.Expect[containerRootRecord](r)
	if err != nil {
		return err
	}
	c.Rootfs, c.OwnMounts = root.Path, true
	if c.Rootfs != "" && !cleanPath(c.Rootfs) {
		return badMount("root %q", c.Rootfs)
	}
	for {
		next, err := r.Peek()
		if err != nil {
			return err
		}
		if next != mountKind {
			break
		}
		m, err := readMount(r)
		if err != nil {
			return err
		}
		if err := c.checkMount(m); err != nil {
			return err
		}
		c.Mounts = append(c.Mounts, *m)
	}
	if hasRoot := len(c.Mounts) > 0 && c.Mounts[0].Kind == MountRoot; hasRoot != (c.Rootfs != "") {
		return badMount("the root is not the first mount")
	}
	return nil
}

func readMount(r *image.Reader) (*Mount, error) {
	rec, _, err := image.Expect[mountRecord](r)
	if err != nil {
		return nil, err
	}
	source, _, err := image.Expect[mountSourceRecord](r)
	if err != nil {
		return nil, err
	}
	options, _, err := image.Expect[mountOptionsRecord](r)
	if err != nil {
		return nil, err
	}
	m := &Mount{Place: rec.Place, Kind: MountKind(rec.Kind), Attr: rec.Attr, From: rec.From, Source: source.Path,
		ReadOnly: rec.Flags&mountReadOnly != 0, Deep: rec.Flags&mountDeep != 0, Filled: rec.Flags&mountFilled != 0}
	m.FSType, m.Options, _ = strings.Cut(options.Text, " ")
	if rec.Flags&^(mountReadOnly|mountDeep|mountFilled) != 0 {
		return nil, badMount("%s: flags %#x", m.Place, rec.Flags)
	}
	return m, nil
}

// knownAttrs are the attributes that we write.
var knownAttrs = func() (all uint64) {
	all = unix.MOUNT_ATTR_STRICTATIME
	for _, attr := range mountAttrs {
		all |= attr
	}
	return all
}()

// checkMount checks the next one of the list.
func (c *Container) checkMount(m *Mount) error {
	good := cleanPath(m.Place) && m.Attr&^knownAttrs == 0 && len(c.Mounts) < maxMounts
	switch m.Kind {
	case MountRoot:
		good = good && len(c.Mounts) == 0 && m.Place == "/"
	case MountNew:
		good = good && checkOptions(m.FSType, m.Options) && len(m.Source) < unix.PathMax && m.Filled == fileSystems[m.FSType].filled
	case MountHost:
		good = good && cleanPath(m.Source)
	case MountInside:
		good = good && cleanPath(m.Source) && int(m.From) < len(c.Mounts)
	default:
		good = false
	}
	if !good || m.Kind != MountRoot && m.Place == "/" || m.Kind != MountNew && (m.Filled || m.ReadOnly || m.FSType != "") {
		return badMount("mount %d at %q", len(c.Mounts), m.Place)
	}
	return nil
}

func cleanPath(p string) bool { return path.IsAbs(p) && path.Clean(p) == p && len(p) < unix.PathMax }

func badMount(format string, args ...any) error {
	return &fault.Error{Code: fault.ImageValue, Object: "image", Detail: fmt.Sprintf(format, args...)}
}

// contents reads what the file systems of the container have in them: pieces of
// an archive for each that is filled, in the order of the list.
func (r *restart) contents(piece func(mount int, data []byte) error) error {
	last := -1
	for {
		next, err := r.reader.Peek()
		if err != nil || next != mountDataKind {
			return err
		}
		data, _, err := image.Expect[mountDataRecord](r.reader)
		if err != nil {
			return err
		}
		i := int(data.Mount)
		if r.within == nil || i < last || i >= len(r.within.Mounts) || !r.within.Mounts[i].Filled {
			return badMount("contents of mount %d", i)
		}
		last = i
		if err := piece(i, data.Data); err != nil {
			return err
		}
	}
}

// Contents reads what the file systems of the container have in them, before
// Into: pieces of an archive for each Mount that is Filled, in their order.
func (o *Opened) Contents(piece func(mount int, data []byte) error) error {
	return imageError(o.r.contents(piece))
}
