package core

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// writeContents writes what the file systems that end with the container have
// in them. It is read with the rights of the first process, file by file and
// straight into the image.
func (c *checkpoint) writeContents(w *image.Writer) (err error) {
	roots, err := c.openMounts()
	defer func() {
		for _, fd := range roots {
			_ = unix.Close(fd) // only read from
		}
	}()
	if err != nil || len(roots) == 0 {
		return err
	}
	plan := c.within.plan
	return withRightsOf(c.members[0].view.Status, func() error {
		for i := range plan.list {
			fd, filled := roots[i]
			if !filled {
				continue
			}
			out := &pieces{w: w, mount: uint32(i)}
			place := plan.list[i].Place
			err := archiveMount(out, fd, ids{plan.uids, plan.gids}, place)
			if out.err == nil && err != nil {
				return &fault.Error{Code: fault.ContainerContents, Object: place, Err: err}
			}
			if err := out.flush(); err != nil {
				return err
			}
		}
		return nil
	})
}

// openMounts opens the roots of file systems, by their places in the list. What is
// mounted upon them would hide some of it, so the first process makes another
// mount of each, which is nowhere in its tree (open_tree(2)).
func (c *checkpoint) openMounts() (map[int]int, error) {
	const cloned = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_SYMLINK_NOFOLLOW
	root := c.members[0]
	plan := c.within.plan
	p := root.remote.Program()
	rows, undo := make(map[int]*tracer.Row), make(map[int]*tracer.Undo)
	for i := range plan.list {
		if m := &plan.list[i]; m.Filled {
			rows[i] = p.Call(unix.SYS_OPEN_TREE, tracer.Int(unix.AT_FDCWD), tracer.Ptr(p.String(m.Place)), tracer.Imm(cloned)).Tolerate()
			undo[i] = rows[i].Undo(unix.SYS_CLOSE, rows[i])
		}
	}
	if len(rows) == 0 {
		return nil, nil
	}
	if err := p.Run(); err != nil {
		return nil, fmt.Errorf("open mounts of %s: %w", root.view.Name(), err)
	}
	pidfd, err := unix.PidfdOpen(int(root.view.PID), 0)
	if err != nil {
		return nil, fmt.Errorf("open pidfd of %s: %w", root.view.Name(), err)
	}
	defer unix.Close(pidfd)
	fds := make(map[int]int)
	back := root.remote.Program()
	for i, row := range rows {
		var fd int
		err := row.Err()
		if err == nil {
			back.Close(tracer.FD(row.Result()))
			back.Forget(undo[i])
			fd, err = unix.PidfdGetfd(pidfd, int(row.Result()), 0)
		}
		if err != nil {
			return fds, errors.Join(&fault.Error{Code: fault.ContainerContents, Object: plan.list[i].Place, Err: err}, back.Run())
		}
		fds[i] = fd
	}
	return fds, back.Run()
}

// pieces writes records of an archive.
type pieces struct {
	w     *image.Writer
	mount uint32
	buf   []byte
	err   error // why the image could not be written
}

func (p *pieces) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		room := min(pieceOfArchive-len(p.buf), len(b))
		p.buf, b = append(p.buf, b[:room]...), b[room:]
		if len(p.buf) == pieceOfArchive {
			if err := p.flush(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

func (p *pieces) flush() error {
	if len(p.buf) > 0 && p.err == nil {
		p.err = p.w.Put(0, &mountDataRecord{Mount: p.mount, Data: p.buf})
		p.buf = p.buf[:0]
	}
	return p.err
}

// withRightsOf has do run with the rights to files that a process has, on a
// thread that ends with it.
func withRightsOf(s *procfs.Status, do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: nothing else runs with these rights
		err := takeRights(s)
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}

// takeRights gives the thread the user, the groups and no more of the
// capabilities than the process has.
func takeRights(s *procfs.Status) error {
	groups, err := unix.Getgroups()
	if err != nil {
		return err
	}
	uid, gid := os.Geteuid(), os.Getegid()
	same := len(groups) == len(s.Groups)
	for i := range groups {
		same = same && slices.Contains(s.Groups, uint32(groups[i]))
	}
	if !same {
		if err := setThreadGroups(s.Groups); err != nil {
			return fmt.Errorf("take the groups of the process: %w", err)
		}
	}
	for _, id := range []struct {
		own  int
		want uint32
		set  func(int) (int, error)
	}{{gid, s.Gid[3], unix.SetfsgidRetGid}, {uid, s.Uid[3], unix.SetfsuidRetUid}} {
		if id.own == int(id.want) {
			continue
		}
		_, err := id.set(int(id.want))
		now, nowErr := id.set(-1) // what it is: setfsuid(2) tells in no other way
		if err = errors.Join(err, nowErr); err != nil || now != int(id.want) {
			return errors.Join(fmt.Errorf("take the user of the process: %d is still %d", id.want, now), err)
		}
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&head, &caps[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	caps[0].Effective &= uint32(s.CapEff)
	caps[1].Effective &= uint32(s.CapEff >> 32)
	if err := unix.Capset(&head, &caps[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}
