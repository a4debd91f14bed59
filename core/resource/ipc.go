package resource

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
)

// The objects of a namespace belong to no process. They are saved with a
// container, whose namespace ends with it, by what its first process can see of
// them, and made by the first process of the new one before any other is there.
// Segments that a process has attached are the matter of that process.

// Namespaces is what is in the IPC and network namespaces of a frozen container.
type Namespaces struct {
	s         *Saver
	net       bool // it has a network of its own
	settings  []settingRecord
	segments  []*unattached
	sets      []*semSetRecord
	queues    []*savedQueue
	posix     []*savedMqueue
	links     []*linkRecord
	addresses []*addressRecord
	routes    []*routeRecord
}

// into says what becomes of what an image has of namespaces.
type into struct {
	make bool // it is made; else it is only read
	net  bool // there is a network of its own
}

// namespacePart is how one kind of object is saved and made again.
type namespacePart struct {
	kind image.Kind // of its first record
	ask  func(*Namespaces) error
	dump func(*Namespaces) error
	// load reads the records of one object, checks them, and has the process make it.
	load func(*Builder, into) error
}

// namespaceParts is the table of them, in the order of the image. Settings come first, as they limit the others.
var namespaceParts = []namespacePart{
	{settingKind, (*Namespaces).askSettings, (*Namespaces).dumpSettings, loadSetting},
	{segmentKind, (*Namespaces).askSegments, (*Namespaces).dumpSegments, loadUnattached},
	{semSetKind, (*Namespaces).askSets, (*Namespaces).dumpSets, loadSemSet},
	{msgQueueKind, (*Namespaces).askQueues, (*Namespaces).dumpQueues, loadMsgQueue},
	{mqueueKind, (*Namespaces).askMqueues, (*Namespaces).dumpMqueues, loadMqueue},
	{linkKind, (*Namespaces).askLinks, (*Namespaces).dumpLinks, loadLinks},
	{addressKind, (*Namespaces).askAddresses, (*Namespaces).dumpAddresses, loadAddress},
	{routeKind, (*Namespaces).askRoutes, (*Namespaces).dumpRoutes, loadRoute},
}

// ipcRecords are the rows that they add to the image format.
var ipcRecords = []image.Spec{
	image.Row[settingRecord](settingKind, "SETTING", image.InTree, "a file below /proc/sys that belongs to a namespace of the container"),
	image.Row[segmentRecord](segmentKind, "IPC_SHM", image.InTree, "System V shared memory that no process has attached; FILE_DATA follow"),
	image.Row[semSetRecord](semSetKind, "IPC_SEM", image.InTree, "a set of System V semaphores"),
	image.Row[msgQueueRecord](msgQueueKind, "IPC_MSG", image.InTree, "a System V message queue; IPC_MESSAGEs follow, in their order"),
	image.Row[messageRecord](messageKind, "IPC_MESSAGE", image.InTree, "a message of a System V message queue"),
	image.Row[mqueueRecord](mqueueKind, "MQUEUE", image.InTree, "a POSIX message queue; MQUEUE_MESSAGEs follow, in the order in which they are received"),
	image.Row[mqMessageRecord](mqMessageKind, "MQUEUE_MESSAGE", image.InTree, "a message of a POSIX message queue"),
}

// Kinds of records about namespaces.
const (
	settingKind image.Kind = 6720 + iota
	segmentKind
	semSetKind
	msgQueueKind
	messageKind
	mqueueKind
	mqMessageKind
)

// AskNamespaces looks at the IPC namespace of the process, and at the network one
// if it has one of its own, and refuses what cannot be kept of them.
func (s *Saver) AskNamespaces(net bool) (*Namespaces, error) {
	i := &Namespaces{s: s, net: net}
	if net {
		if err := i.askOddities(); err != nil {
			return nil, err
		}
	}
	for _, part := range namespaceParts {
		if err := part.ask(i); err != nil {
			return nil, err
		}
	}
	return i, nil
}

// Dump writes the records.
func (i *Namespaces) Dump() error {
	for _, part := range namespaceParts {
		if err := part.dump(i); err != nil {
			return err
		}
	}
	return nil
}

// Settings are those of the IPC namespace, name=value each.
func (i *Namespaces) Settings() (texts []string) {
	for _, s := range i.settings {
		texts = append(texts, s.Text)
	}
	return texts
}

// Objects tells whether there is anything in the IPC namespace.
func (i *Namespaces) Objects() bool {
	return len(i.segments)+len(i.sets)+len(i.queues)+len(i.posix) > 0
}

// LoadNamespaces reads them, and fills the namespaces of the process, which are
// new, without fill they stay as they are; net tells whether the network is one.
func (b *Builder) LoadNamespaces(fill, net bool) error {
	b.madeIPC = fill
	for {
		next, err := b.R.Peek()
		if err != nil {
			return err
		}
		var part *namespacePart
		for n := range namespaceParts {
			if namespaceParts[n].kind == next {
				part = &namespaceParts[n]
			}
		}
		if part == nil {
			return nil
		}
		if err := part.load(b, into{fill, net}); err != nil {
			return err
		}
	}
}

// refuseIPC says that an object cannot be kept.
func (i *Namespaces) refuse(object string, err error, format string, args ...any) error {
	return &fault.Error{Code: fault.ContainerIPC, Object: object + " of " + i.s.Name(), Detail: fmt.Sprintf(format, args...), Err: err}
}

// asked is the error of a program that looked at an object.
func (i *Namespaces) asked(object string, err error) error {
	var call *tracer.CallError
	if errors.As(err, &call) {
		return i.refuse(object, err, "")
	}
	return err
}

// makeIPC has the process make calls of which each is needed for the object.
func (b *Builder) makeIPC(p *tracer.Program, object string) error {
	err := p.Run()
	var call *tracer.CallError
	if errors.As(err, &call) {
		return &fault.Error{Code: fault.IPCFailed, Object: object, Err: err}
	}
	return err
}

// sysvClass is one of the three kinds of System V IPC (sysvipc(7)).
type sysvClass struct {
	what       string
	nr         uintptr // of the control call
	info, stat int     // its commands SHM_INFO and SHM_STAT_ANY, or the like
	size       int     // of what stat tells
	next       string  // where the id of the next one can be chosen
}

var (
	sysvShm = sysvClass{"System V shared memory", unix.SYS_SHMCTL, 14, 15, shmDescSize, "/proc/sys/kernel/shm_next_id"}
	sysvSem = sysvClass{"System V semaphores", unix.SYS_SEMCTL, 19, 20, 104, "/proc/sys/kernel/sem_next_id"}
	sysvMsg = sysvClass{"System V message queues", unix.SYS_MSGCTL, 12, 13, 120, "/proc/sys/kernel/msg_next_id"}
)

// ipcPerm is equivalent to struct ipc64_perm of <asm-generic/ipcbuf.h>.
type ipcPerm struct {
	Key, UID, GID, CUID, CGID, Mode uint32
	Seq                             uint16
	_                               [6]byte
	_                               [2]uint64
}

// IPCOwner is what records have of it.
type IPCOwner struct {
	ID   uint32 `doc:"as the program knows it"`
	Key  uint32 `fmt:"hex" doc:"by which it was made; 0 IPC_PRIVATE"`
	Mode uint32 `fmt:"oct" doc:"permission bits"`
	UID  uint32
	GID  uint32
	CUID uint32 `doc:"uid of its maker"`
	CGID uint32
}

func (c *sysvClass) owner(id uint32, perm *ipcPerm) IPCOwner {
	return IPCOwner{id, perm.Key, perm.Mode & 0o777, perm.UID, perm.GID, perm.CUID, perm.CGID}
}

func (c *sysvClass) name(o *IPCOwner) string {
	return fmt.Sprintf("%s %d, key %#x", c.what, o.ID, o.Key)
}

// control adds a control call; that for semaphores has an argument more.
func (c *sysvClass) control(p *tracer.Program, id tracer.Arg, command int, arg tracer.Arg) *tracer.Row {
	args := []tracer.Arg{id, tracer.Int(command), arg}
	if c.nr == unix.SYS_SEMCTL {
		args = []tracer.Arg{id, tracer.Imm(0), tracer.Int(command), arg}
	}
	return p.Call(c.nr, args...)
}

// sysvObject is one of the namespace.
type sysvObject struct {
	id  uint32
	raw []byte // as stat tells it
}

// list has the process tell of all objects of a class, whether or not it may use
// them.
func (i *Namespaces) list(c *sysvClass) (found []sysvObject, err error) {
	rem := i.s.Remote
	p := rem.Program()
	row := c.control(p, tracer.Imm(0), c.info, tracer.Ptr(p.Buffer(128))).Tolerate()
	if err := p.Run(); err != nil {
		return nil, err
	}
	if errors.Is(row.Err(), unix.ENOSYS) {
		return nil, nil // a kernel without them
	}
	if err := row.Err(); err != nil {
		return nil, i.refuse(c.what, err, "")
	}
	const batch = 256
	for at, highest := 0, int(row.Result()); at <= highest; at += batch {
		n := min(batch, highest-at+1)
		p := rem.Program()
		buf := p.Buffer(uint64(n * c.size))
		rows := make([]*tracer.Row, n)
		for k := range rows {
			rows[k] = c.control(p, tracer.Int(at+k), c.stat, tracer.Ptr(buf+tracer.Addr(k*c.size))).Tolerate()
		}
		if err := p.Run(); err != nil {
			return nil, err
		}
		raw := make([]byte, n*c.size)
		if err := rem.ReadMem(buf, raw); err != nil {
			return nil, err
		}
		for k, row := range rows {
			switch err := row.Err(); {
			case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EIDRM): // nothing in this place
			case err != nil:
				return nil, i.refuse(c.what, err, "")
			default:
				found = append(found, sysvObject{uint32(row.Result()), raw[k*c.size : (k+1)*c.size]})
			}
		}
	}
	return found, nil
}

// parseIPC takes apart what the kernel tells.
func parseIPC[T any](raw []byte) (*T, error) {
	d := new(T)
	if err := binary.Read(bytes.NewReader(raw), binary.LittleEndian, d); err != nil {
		return nil, fmt.Errorf("parse IPC_STAT: %w", err)
	}
	return d, nil
}

// check refuses what no checkpoint writes.
func (o *IPCOwner) check(name string) error {
	if o.ID > 1<<31-1 || o.Mode&^0o777 != 0 {
		return badImage(fault.ImageValue, name, "id %d, mode %#o", o.ID, o.Mode)
	}
	return nil
}

// expectOwned reads the record of an object, and returns its name in messages.
func expectOwned[R any](b *Builder, c *sysvClass, owner func(*R) *IPCOwner) (*R, string, error) {
	rec, _, err := image.Expect[R](b.R)
	if err != nil {
		return nil, "", err
	}
	name := c.name(owner(rec))
	return rec, name, owner(rec).check(name)
}

// create makes an object by its key, with the id that it had: programs have it in
// their memory. To choose it takes CAP_CHECKPOINT_RESTORE.
func (c *sysvClass) create(b *Builder, o *IPCOwner, nr uintptr, args ...tracer.Arg) error {
	name := c.name(o)
	p := b.Remote.Program()
	next := p.Openat(tracer.Int(unix.AT_FDCWD), c.next, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	text := fmt.Sprint(o.ID)
	p.Write(next, p.Bytes([]byte(text)), uint64(len(text)))
	p.Close(next)
	row := p.Call(nr, append([]tracer.Arg{tracer.Imm(uint64(o.Key))}, args...)...)
	if err := b.makeIPC(p, name); err != nil {
		return err
	}
	if row.Result() != uint64(o.ID) {
		return &fault.Error{Code: fault.IPCFailed, Object: name, Detail: fmt.Sprintf("its id would be %d", row.Result())}
	}
	uid, gid, err := b.madeAs()
	if err != nil {
		return err
	}
	if o.CUID != uid || o.CGID != gid {
		b.Warn("the maker of %s is the first process of the container now, no longer user %d, group %d", name, o.CUID, o.CGID)
	}
	return nil
}

// madeAs is whose everything is that the process makes.
func (b *Builder) madeAs() (uid, gid uint32, err error) {
	c, ok, err := b.Caller.credentials(b.Caller.Status)
	if err == nil && !ok {
		err = &fault.Error{Code: fault.IdentityUnmapped, Object: "the identity of the caller"}
	}
	if err != nil {
		return 0, 0, err
	}
	return c.uid[effectiveID], c.gid[effectiveID], nil
}

// expect refuses an object that is not there, where the namespace is one that
// stays as it is.
func (c *sysvClass) expect(b *Builder, o *IPCOwner) error {
	p := b.Remote.Program()
	at := p.Buffer(uint64(c.size))
	const ipcStat = 2 // IPC_STAT
	row := c.control(p, tracer.Imm(uint64(o.ID)), ipcStat, tracer.Ptr(at)).Tolerate()
	if err := p.Run(); err != nil {
		return err
	}
	key := make([]byte, 4)
	switch err := row.Err(); {
	case errors.Is(err, unix.EACCES): // there is one
		return nil
	case err != nil:
		return &fault.Error{Code: fault.IPCMissing, Object: c.name(o), Err: err}
	}
	if err := b.Remote.ReadMem(at, key); err != nil {
		return err
	}
	if now := binary.LittleEndian.Uint32(key); now != o.Key {
		return &fault.Error{Code: fault.IPCMissing, Object: c.name(o), Detail: fmt.Sprintf("the one with this id has key %#x", now)}
	}
	return nil
}

// makeMode are the permissions that an object is made with, so that it can be
// filled.
func (o *IPCOwner) makeMode() tracer.Imm {
	return tracer.Imm(unix.IPC_CREAT | unix.IPC_EXCL | uint64(o.Mode) | 0o600)
}

// perm is what IPC_SET takes of it.
func (o *IPCOwner) perm() ipcPerm { return ipcPerm{UID: o.UID, GID: o.GID, Mode: o.Mode} }

// set gives an object its owner and permissions.
func (c *sysvClass) set(p *tracer.Program, o *IPCOwner, desc any) {
	var raw bytes.Buffer
	_ = binary.Write(&raw, binary.LittleEndian, desc) // takes everything
	c.control(p, tracer.Imm(uint64(o.ID)), unix.IPC_SET, tracer.Ptr(p.Bytes(raw.Bytes())))
}
