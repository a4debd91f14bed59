package core

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
)

// Commands of shmctl(2), semctl(2) and msgctl(2) that tell how many objects
// there are in the namespace, and the place of the number in the answer, in
// integers (struct shm_info, seminfo and msginfo).
var sysvCounts = []struct {
	what    string
	nr      uintptr
	args    []tracer.Arg
	command int
	at      int
}{
	{"shared memory", unix.SYS_SHMCTL, []tracer.Arg{tracer.Imm(0)}, 14, 0},             // SHM_INFO: used_ids
	{"semaphores", unix.SYS_SEMCTL, []tracer.Arg{tracer.Imm(0), tracer.Imm(0)}, 19, 7}, // SEM_INFO: semusz
	{"message queues", unix.SYS_MSGCTL, []tracer.Arg{tracer.Imm(0)}, 12, 0},            // MSG_INFO: msgpool
}

const (
	countSize   = 128    // holds any of these
	utsSize     = 6 * 65 // struct new_utsname
	utsNode     = 65     // nodename in it
	utsDomain   = 5 * 65 // domainname
	queuesSize  = 4096   // of names of message queues; that there is one is enough
	direntShort = 24     // of a name of up to two bytes: . and ..
)

// askContainer has the first process tell of its host name and of what lives in
// its IPC namespace, and refuses that.
func (c *checkpoint) askContainer() error {
	if c.within == nil {
		return nil
	}
	root := c.members[0]
	p := root.remote.Program()
	uts := p.Buffer(utsSize)
	p.Call(unix.SYS_UNAME, tracer.Ptr(uts))
	counts := make([]tracer.Addr, len(sysvCounts))
	rows := make([]*tracer.Row, len(sysvCounts))
	for i, of := range sysvCounts {
		counts[i] = p.Buffer(countSize)
		rows[i] = p.Call(of.nr, append(of.args[:len(of.args):len(of.args)], tracer.Int(of.command), tracer.Ptr(counts[i]))...).Tolerate()
	}
	names := p.Buffer(queuesSize)
	queues := askQueues(p, names)
	if err := p.Run(); err != nil {
		return fmt.Errorf("ask for namespaces of %s: %w", root.view.Name(), err)
	}
	raw := make([]byte, utsSize)
	if err := root.remote.Tracee().ReadMem(uts, raw); err != nil {
		return err
	}
	c.within.Hostname = unix.ByteSliceToString(raw[utsNode : 2*utsNode])
	c.within.Domainname = unix.ByteSliceToString(raw[utsDomain:])
	var list fault.List
	refuse := func(what string, err error) {
		list = append(list, &fault.Error{Code: fault.ContainerIPC, Object: "the IPC namespace of " + root.view.Name(), Detail: what, Err: err})
	}
	for i, of := range sysvCounts {
		err := rows[i].Err()
		if errors.Is(err, unix.ENOSYS) {
			continue // a kernel without System V IPC
		}
		raw := make([]byte, countSize)
		if err == nil {
			err = root.remote.Tracee().ReadMem(counts[i], raw)
		}
		if n := binary.LittleEndian.Uint32(raw[4*of.at:]); err != nil || n > 0 {
			refuse(fmt.Sprintf("%s: %d", of.what, n), err)
		}
	}
	if n, err := queues(); err != nil || n > 2*direntShort {
		refuse("POSIX message queues", err)
	}
	return list.Err()
}

// askQueues has a process list the POSIX message queues of its IPC namespace:
// they are the files of a file system that is mounted nowhere for that
// (mq_overview(7), fsmount(2)). What it returns tells how many bytes of names
// there are, once the program has run.
func askQueues(p *tracer.Program, names tracer.Addr) (answer func() (uint64, error)) {
	const create = 6 // FSCONFIG_CMD_CREATE
	fs := p.Call(unix.SYS_FSOPEN, tracer.Ptr(p.String("mqueue")), tracer.Imm(unix.FSOPEN_CLOEXEC)).Tolerate()
	made := p.Call(unix.SYS_FSCONFIG, fs, tracer.Imm(create), tracer.Imm(0), tracer.Imm(0), tracer.Imm(0)).Tolerate()
	mount := p.Call(unix.SYS_FSMOUNT, fs, tracer.Imm(unix.FSMOUNT_CLOEXEC), tracer.Imm(0)).Tolerate()
	dir := p.Call(unix.SYS_OPENAT, mount, tracer.Ptr(p.String(".")), tracer.Imm(unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC), tracer.Imm(0)).Tolerate()
	list := p.Call(unix.SYS_GETDENTS64, dir, tracer.Ptr(names), tracer.Imm(queuesSize)).Tolerate()
	for _, row := range []*tracer.Row{dir, mount, fs} {
		p.Call(unix.SYS_CLOSE, row).Tolerate() // what could not be opened is no descriptor
	}
	return func() (uint64, error) {
		if errors.Is(fs.Err(), unix.ENODEV) {
			return 0, nil // a kernel without them
		}
		for _, row := range []*tracer.Row{fs, made, mount, dir, list} {
			if err := row.Err(); err != nil {
				return 0, err
			}
		}
		return list.Result(), nil
	}
}
