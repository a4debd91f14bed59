package core

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
)

// enterNested has a process that has just been made open the namespaces that it had for
// itself, and mount what only it can. It ends if the restart fails, and they with it.
func (r *restart) enterNested(i int, p *plant) error {
	if n := p.nested; n != nil {
		if err := p.open(n); err != nil {
			return err
		}
	}
	of := r.forest.mounterOf(i)
	if of == 0 {
		return nil
	}
	mounts := r.forest.living[of].nested.mounts
	if of != i && slices.ContainsFunc(mounts, func(m nestedMount) bool { return m.by == p.VPID }) {
		for _, o := range r.plants { // who still looks for names finds them as they are
			if o.builder == nil {
				continue
			}
			if err := o.builder.Settle(); err != nil {
				return err
			}
		}
	}
	return p.mountOwn(mounts)
}

// refuseNested says that a namespace cannot be made.
func (p *plant) refuseNested(what string, err error) error {
	if err == nil {
		return nil
	}
	return &fault.Error{Code: fault.NestedMake, Object: fmt.Sprintf("process %d", p.VPID), Detail: what, Err: err}
}

// open leaves the namespaces of the parent. What is mounted there is copied, and shared
// with nobody.
func (p *plant) open(n *nested) error {
	var flags uint64
	var what string
	for _, kind := range nestedKinds {
		if n.own&kind.bit != 0 {
			flags |= kind.clone
			what += " " + kind.name
		}
	}
	prog := p.remote.Program()
	prog.Call(unix.SYS_UNSHARE, tracer.Imm(flags))
	if n.own&nestedMounts != 0 {
		none := prog.String("none")
		prog.Call(unix.SYS_MOUNT, tracer.Ptr(none), tracer.Ptr(prog.String("/")), tracer.Imm(0), tracer.Imm(unix.MS_REC|unix.MS_PRIVATE), tracer.Imm(0))
	}
	if n.own&nestedUTS != 0 {
		prog.Call(unix.SYS_SETHOSTNAME, tracer.Ptr(prog.String(n.hostname)), tracer.Imm(uint64(len(n.hostname))))
		prog.Call(unix.SYS_SETDOMAINNAME, tracer.Ptr(prog.String(n.domain)), tracer.Imm(uint64(len(n.domain))))
	}
	return p.refuseNested("namespaces"+what, prog.Run())
}

// mountOwn makes those mounts of a namespace that are for the process to make, in their
// order. What is bound is opened before: what is mounted in a moment may cover it.
func (p *plant) mountOwn(all []nestedMount) error {
	var err error
	sources := make([]uint64, len(all))
	prog := p.remote.Program()
	for i := range all {
		if m := &all[i]; m.by == p.VPID && m.Kind == MountHost {
			if sources[i], err = p.openTree(m.Source, m.Deep); err != nil {
				return p.refuseNested(m.Source, err)
			}
			prog.Close(tracer.Imm(sources[i]))
		}
	}
	for i := range all {
		m := &all[i]
		if m.by != p.VPID {
			continue
		}
		err := error(nil)
		switch m.Kind {
		case MountNew:
			err = p.mountNew(&m.Mount)
		case MountInside:
			var fd uint64
			if fd, err = p.openTree(all[m.From].Place+m.Source, m.Deep); err == nil {
				err = p.moveMount(fd, m.Place)
				prog.Close(tracer.Imm(fd))
			}
		default:
			err = p.moveMount(sources[i], m.Place)
		}
		if err == nil {
			err = p.setMountAttr(&m.Mount)
		}
		if err != nil {
			return p.refuseNested(m.Place, err)
		}
	}
	return prog.Run()
}

func (p *plant) openTree(path string, deep bool) (uint64, error) {
	flags := uint64(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if deep {
		flags |= unix.AT_RECURSIVE
	}
	prog := p.remote.Program()
	fd := prog.Call(unix.SYS_OPEN_TREE, tracer.Int(unix.AT_FDCWD), tracer.Ptr(prog.String(path)), tracer.Imm(flags))
	err := prog.Run()
	return fd.Result(), err
}

func (p *plant) moveMount(fd uint64, place string) error {
	prog := p.remote.Program()
	prog.Call(unix.SYS_MOVE_MOUNT, tracer.Imm(fd), tracer.Ptr(prog.String("")), tracer.Int(unix.AT_FDCWD), tracer.Ptr(prog.String(place)),
		tracer.Imm(unix.MOVE_MOUNT_F_EMPTY_PATH))
	return prog.Run()
}

func (p *plant) mountNew(m *Mount) error {
	const common = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC // MOUNT_ATTR_* have the same bits
	prog := p.remote.Program()
	prog.Call(unix.SYS_MOUNT, tracer.Ptr(prog.String(m.Source)), tracer.Ptr(prog.String(m.Place)), tracer.Ptr(prog.String(m.FSType)),
		tracer.Imm(m.Attr&common&^unix.MS_RDONLY), tracer.Ptr(prog.String(m.Options)))
	return prog.Run()
}

// setMountAttr gives a mount the attributes that it had, mount_setattr(2).
func (p *plant) setMountAttr(m *Mount) error {
	attr := func(prog *tracer.Program, set, clr uint64) tracer.Arg {
		var raw []byte // struct mount_attr of <linux/mount.h>
		for _, word := range []uint64{set, clr, 0, 0} {
			raw = binary.LittleEndian.AppendUint64(raw, word)
		}
		return tracer.Ptr(prog.Bytes(raw))
	}
	prog := p.remote.Program()
	place := tracer.Ptr(prog.String(m.Place))
	const size = unix.MOUNT_ATTR_SIZE_VER0
	prog.Call(unix.SYS_MOUNT_SETATTR, tracer.Int(unix.AT_FDCWD), place, tracer.Imm(0),
		attr(prog, m.Attr, knownAttrs&^m.Attr&^unix.MOUNT_ATTR__ATIME|unix.MOUNT_ATTR__ATIME), tracer.Imm(size))
	if m.Deep && m.Attr&unix.MOUNT_ATTR_RDONLY != 0 {
		prog.Call(unix.SYS_MOUNT_SETATTR, tracer.Int(unix.AT_FDCWD), place, tracer.Imm(unix.AT_RECURSIVE), attr(prog, unix.MOUNT_ATTR_RDONLY, 0), tracer.Imm(size))
	}
	return prog.Run()
}
