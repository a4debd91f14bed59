package core

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/image"
)

// Kinds of records about namespaces that a process opens for itself and those that
// descend from it.
const (
	nestedKind        image.Kind = 6708
	nestedMountKind   image.Kind = 6709
	nestedSourceKind  image.Kind = 6710
	nestedOptionsKind image.Kind = 6711
	nestedSettingKind image.Kind = 6712
)

// nested is what a process has for itself of namespaces that are not those of its
// parent.
type nested struct {
	own              uint32 // nestedMounts and the like
	hostname, domain string
	mounts           []nestedMount
	settings         []string // of IPC, name=value
}

// nestedMount is a mount that a copy of those of the parent does not have.
type nestedMount struct {
	Mount
	by int32 // number of the process that makes it: a /proc tells of the pid namespace of that one
}

// Bits of nested.own.
const (
	nestedMounts = 1 << iota
	nestedUTS
	nestedIPC
	nestedMask = 1<<iota - 1
)

// nestedKinds are the namespaces that a process may have for itself, by name and
// flag of clone(2).
var nestedKinds = []struct {
	name  string
	bit   uint32
	clone uint64
}{
	{"mnt", nestedMounts, unix.CLONE_NEWNS},
	{"uts", nestedUTS, unix.CLONE_NEWUTS},
	{"ipc", nestedIPC, unix.CLONE_NEWIPC},
}

type nestedRecord struct {
	Own        uint32   `fmt:"flags" flags:"1=MNT 2=UTS 4=IPC" doc:"namespaces that are not those of its parent"`
	Mounts     uint32   `doc:"how many PROCESS_MOUNTs follow"`
	Hostname   [64]byte `fmt:"text" doc:"as uname(2) has it"`
	Domainname [64]byte `fmt:"text" doc:"as uname(2) has it"`
}

type nestedMountRecord struct {
	Kind  uint32 `doc:"as in MOUNT: 2 a file system of its own, 3 bound from what the parent has, 4 bound from another mount of the process"`
	From  uint32 `doc:"of a mount bound from another: which, from 0"`
	Attr  uint64 `fmt:"hex" doc:"MOUNT_ATTR_*"`
	Flags uint32 `fmt:"flags" flags:"2=DEEP" doc:"with what is mounted below"`
	By    int32  `doc:"process id of who mounts it: that of the process, or of the first one of the pid namespace that a proc file system tells of"`
	Place string `doc:"as the process sees it"`
}

type nestedSourceRecord struct{ Path string }

type nestedOptionsRecord struct {
	Text string `doc:"type of the file system and, behind a blank, its options"`
}

type nestedSettingRecord struct {
	Text string `doc:"name=value"`
}

var nestedRecords = []image.Spec{
	image.Row[nestedRecord](nestedKind, "PROCESS_NAMESPACES", image.InTree, "behind PROCESS, of one that has namespaces for itself and its descendants"),
	image.Row[nestedMountRecord](nestedMountKind, "PROCESS_MOUNT", image.InTree, "a mount that the parent does not have; PROCESS_SOURCE and PROCESS_OPTIONS follow"),
	image.Row[nestedSourceRecord](nestedSourceKind, "PROCESS_SOURCE", image.InTree, "what is mounted, as MOUNT_SOURCE"),
	image.Row[nestedOptionsRecord](nestedOptionsKind, "PROCESS_OPTIONS", image.InTree, "type and options of a file system; empty for what is bound"),
	image.Row[nestedSettingRecord](nestedSettingKind, "PROCESS_SETTING", image.InTree, "a file below /proc/sys that belongs to an IPC namespace of the process"),
}

func (n *nested) write(w *image.Writer) error {
	if n == nil {
		return nil
	}
	rec := &nestedRecord{Own: n.own, Mounts: uint32(len(n.mounts))}
	copy(rec.Hostname[:], n.hostname)
	copy(rec.Domainname[:], n.domain)
	if err := w.Put(0, rec); err != nil {
		return err
	}
	for i := range n.mounts {
		m := &n.mounts[i]
		rec := &nestedMountRecord{Kind: uint32(m.Kind), From: m.From, Attr: m.Attr, By: m.by, Place: m.Place}
		if m.Deep {
			rec.Flags |= mountDeep
		}
		for _, r := range []any{rec, &nestedSourceRecord{m.Source}, &nestedOptionsRecord{strings.TrimSuffix(m.FSType+" "+m.Options, " ")}} {
			if err := w.Put(0, r); err != nil {
				return err
			}
		}
	}
	for _, text := range n.settings {
		if err := w.Put(0, &nestedSettingRecord{text}); err != nil {
			return err
		}
	}
	return nil
}

// readNested reads it, if there is one.
func (p *process) readNested(r *image.Reader) error {
	if next, err := r.Peek(); err != nil || next != nestedKind {
		return err
	}
	rec, _, err := image.Expect[nestedRecord](r)
	if err != nil {
		return err
	}
	n := &nested{own: rec.Own, hostname: unix.ByteSliceToString(rec.Hostname[:]), domain: unix.ByteSliceToString(rec.Domainname[:])}
	switch {
	case n.own == 0 || n.own&^nestedMask != 0, n.own&nestedMounts == 0 && rec.Mounts > 0, rec.Mounts > maxMounts,
		p.State == image.ProcessEnded, n.own&nestedMounts != 0 && p.Shares&image.SharesFS != 0:
		return badForest("process %d with namespaces %#x, %d mounts", p.VPID, n.own, rec.Mounts)
	}
	p.nested = n
	before := &Container{} // what checkMount goes by
	for range rec.Mounts {
		m, err := readNestedMount(r)
		if err != nil {
			return err
		}
		if err := before.checkMount(&m.Mount); err != nil {
			return err
		}
		if m.Kind == MountRoot || m.by <= 0 || m.by != p.VPID && m.FSType != "proc" {
			return badMount("%s of process %d by %d", m.Place, p.VPID, m.by)
		}
		before.Mounts = append(before.Mounts, m.Mount)
		n.mounts = append(n.mounts, *m)
	}
	for {
		next, err := r.Peek()
		if err != nil || next != nestedSettingKind {
			return err
		}
		rec, _, err := image.Expect[nestedSettingRecord](r)
		if err != nil {
			return err
		}
		if n.own&nestedIPC == 0 || len(n.settings) == maxSettings {
			return badForest("process %d with %s", p.VPID, rec.Text)
		}
		n.settings = append(n.settings, rec.Text)
	}
}

// maxSettings is more than there are.
const maxSettings = 64

func readNestedMount(r *image.Reader) (*nestedMount, error) {
	rec, _, err := image.Expect[nestedMountRecord](r)
	if err != nil {
		return nil, err
	}
	source, _, err := image.Expect[nestedSourceRecord](r)
	if err != nil {
		return nil, err
	}
	options, _, err := image.Expect[nestedOptionsRecord](r)
	if err != nil {
		return nil, err
	}
	m := &nestedMount{by: rec.By}
	m.Mount = Mount{Place: rec.Place, Kind: MountKind(rec.Kind), Attr: rec.Attr, From: rec.From, Source: source.Path, Deep: rec.Flags&mountDeep != 0}
	m.FSType, m.Options, _ = strings.Cut(options.Text, " ")
	m.Filled = m.Kind == MountNew && fileSystems[m.FSType].filled // with nothing
	if rec.Flags&^uint32(mountDeep) != 0 {
		return nil, badMount("%s: flags %#x", m.Place, rec.Flags)
	}
	return m, nil
}

// findMounters checks that who is made by a sibling has the namespaces of both, and that all mounts are made by the process whose they are or by one
// that has them of it.
func (f *forest) findMounters() error {
	for i := range f.living {
		p := &f.living[i]
		if p.maker != p.parent && (p.nested != nil || f.living[p.maker].nested != nil || len(p.levels) != len(f.living[p.maker].levels) || f.opensLevel(p)) {
			return badForest("process %d is made by %d", p.VPID, f.living[p.maker].VPID)
		}
		if p.nested == nil {
			continue
		}
		for _, m := range p.nested.mounts {
			at := slices.IndexFunc(f.living, func(o process) bool { return o.VPID == m.by })
			if at != i && (at < 0 || f.mounterOf(at) != i || !f.opensLevel(&f.living[at])) {
				return badForest("%s of process %d by %d", m.Place, p.VPID, m.by)
			}
		}
	}
	return nil
}

// mounterOf is the place of who has opened the mount namespace of a process, 0 if that is that of the
// first one.
func (f *forest) mounterOf(i int) int {
	for ; i > 0; i = f.living[i].parent {
		if n := f.living[i].nested; n != nil && n.own&nestedMounts != 0 {
			return i
		}
	}
	return 0
}
