package resource

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
)

type mqueueRecord struct {
	MaxMsg   uint64 `doc:"how many messages it takes"`
	MsgSize  uint64 `doc:"bytes of the longest"`
	Mode     uint32 `fmt:"oct" doc:"permission bits"`
	UID      uint32
	GID      uint32
	Messages uint32 `doc:"how many follow"`
	Name     string `doc:"without the slash"`
}

type mqMessageRecord struct {
	Priority uint32
	_        [4]byte
	Data     []byte
}

type savedMqueue struct {
	mqueueRecord
	messages []mqMessageRecord
}

// mqAttr is struct mq_attr of <linux/mqueue.h>.
type mqAttr struct {
	Flags, MaxMsg, MsgSize, CurMsgs int64
	_                               [4]int64
}

// What one program moves: all messages of a queue are taken out and put back by
// one that ends also if we do.
const (
	maxMoved      = 256
	maxMovedBytes = 8 << 20
)

// mqueues is the directory of POSIX message queues of an IPC namespace: a file
// system that is mounted nowhere for that (mq_overview(7), fsmount(2)).
type mqueues struct {
	p    *tracer.Program
	rows []*tracer.Row
	dir  *tracer.Row
	undo []*tracer.Undo
}

func openMqueues(p *tracer.Program) *mqueues {
	const create = 6 // FSCONFIG_CMD_CREATE
	m := &mqueues{p: p}
	fs := m.open(p.Call(unix.SYS_FSOPEN, tracer.Ptr(p.String("mqueue")), tracer.Imm(unix.FSOPEN_CLOEXEC)))
	p.Call(unix.SYS_FSCONFIG, fs, tracer.Imm(create), tracer.Imm(0), tracer.Imm(0), tracer.Imm(0))
	mount := m.open(p.Call(unix.SYS_FSMOUNT, fs, tracer.Imm(unix.FSMOUNT_CLOEXEC), tracer.Imm(0)))
	m.dir = m.open(p.Openat(mount, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0))
	return m
}

// open notes a descriptor, which goes if the program does not come to its end.
func (m *mqueues) open(row *tracer.Row) *tracer.Row {
	m.rows, m.undo = append(m.rows, row), append(m.undo, row.Undo(unix.SYS_CLOSE, row))
	return row
}

func (m *mqueues) queue(name string, flags int) *tracer.Row {
	return m.open(m.p.Openat(m.dir, name, flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0))
}

// close closes all that was opened.
func (m *mqueues) close() {
	for i, row := range m.rows {
		m.p.Close(row)
		m.p.Forget(m.undo[i])
	}
}

// mqueueNames lists them.
func (i *Namespaces) mqueueNames() ([]string, error) {
	const room = 64 << 10
	p := i.s.Remote.Program()
	m := openMqueues(p)
	bufs, rows := make([]tracer.Addr, 8), make([]*tracer.Row, 8)
	for k := range rows {
		bufs[k] = p.Buffer(room)
		rows[k] = p.Call(unix.SYS_GETDENTS64, m.dir, tracer.Ptr(bufs[k]), tracer.Imm(room))
	}
	m.close()
	if err := p.Run(); err != nil {
		if errors.Is(m.rows[0].Err(), unix.ENODEV) {
			return nil, nil // a kernel without them
		}
		return nil, err
	}
	if rows[len(rows)-1].Result() != 0 {
		return nil, fmt.Errorf("list them: %w", unix.EFBIG)
	}
	var names []string
	for k, row := range rows {
		raw := make([]byte, row.Result())
		if err := i.s.Remote.ReadMem(bufs[k], raw); err != nil {
			return nil, err
		}
		for len(raw) > 0 {
			const header = 19 // of struct linux_dirent64
			n := int(binary.LittleEndian.Uint16(raw[16:]))
			if name := unix.ByteSliceToString(raw[header:n]); name != "." && name != ".." {
				names = append(names, name)
			}
			raw = raw[n:]
		}
	}
	return names, nil
}

func (i *Namespaces) askMqueues() error {
	names, err := i.mqueueNames()
	if err != nil {
		return i.asked("POSIX message queues", err)
	}
	for _, name := range names {
		q, err := i.lookAtMqueue(name)
		if err == nil {
			err = i.peekMqueue(q)
		}
		if err != nil {
			return i.asked(mqueueObject(name), err)
		}
		i.posix = append(i.posix, q)
	}
	return nil
}

func mqueueObject(name string) string { return "POSIX message queue /" + name }

func (i *Namespaces) lookAtMqueue(name string) (*savedMqueue, error) {
	const line = 128
	rem := i.s.Remote
	p := rem.Program()
	m := openMqueues(p)
	fd := m.queue(name, unix.O_RDONLY)
	attr, stat, text := p.Buffer(64), p.Buffer(statSize), p.Buffer(line)
	p.Call(unix.SYS_MQ_GETSETATTR, fd, tracer.Imm(0), tracer.Ptr(attr))
	p.Fstat(fd, stat)
	told := p.Pread(fd, text, line, 0)
	m.close()
	if err := p.Run(); err != nil {
		return nil, err
	}
	raw := make([]byte, 64+statSize+line)
	for _, part := range []struct {
		at  tracer.Addr
		buf []byte
	}{{attr, raw[:64]}, {stat, raw[64 : 64+statSize]}, {text, raw[64+statSize:]}} {
		if err := rem.ReadMem(part.at, part.buf); err != nil {
			return nil, err
		}
	}
	a, err := parseIPC[mqAttr](raw[:64])
	if err != nil {
		return nil, err
	}
	st := raw[64:]
	q := &savedMqueue{mqueueRecord: mqueueRecord{
		MaxMsg: uint64(a.MaxMsg), MsgSize: uint64(a.MsgSize), Messages: uint32(a.CurMsgs), Name: name,
		// Of struct stat of <asm/stat.h>.
		Mode: binary.LittleEndian.Uint32(st[24:]) & 0o777, UID: binary.LittleEndian.Uint32(st[28:]), GID: binary.LittleEndian.Uint32(st[32:]),
	}}
	if notified(string(raw[64+statSize:][:told.Result()])) {
		return nil, i.refuse(mqueueObject(name), nil, "a process waits to be notified by mq_notify(3)")
	}
	if moved := a.CurMsgs * max(a.MsgSize, 1); a.CurMsgs > maxMoved || moved > maxMovedBytes || a.CurMsgs > 0 && a.MsgSize > maxMessage {
		return nil, i.refuse(mqueueObject(name), nil, "%d messages of up to %d bytes", a.CurMsgs, a.MsgSize)
	}
	return q, nil
}

// notified tells by what can be read from a queue whether somebody is to be
// notified (mqueue_read_file of ipc/mqueue.c).
func notified(line string) bool {
	_, pid, found := strings.Cut(line, "NOTIFY_PID:")
	return !found || strings.TrimSpace(pid) != "0"
}

const statSize = 144 // struct stat of x86-64

// peekMqueue reads the messages of a queue. There is no way to look at them, but
// who takes all of them can put them back, and nobody sees that: the container
// is frozen, and the program that does it runs to its end whatever becomes of us.
func (i *Namespaces) peekMqueue(q *savedMqueue) error {
	n := int(q.Messages)
	if n == 0 {
		return nil
	}
	rem := i.s.Remote
	p := rem.Program()
	m := openMqueues(p)
	fd := m.queue(q.Name, unix.O_RDWR)
	taken, back := make([]*tracer.Row, n), make([]*tracer.Row, n)
	texts, priorities := make([]tracer.Addr, n), make([]tracer.Addr, n)
	for k := range n {
		texts[k], priorities[k] = p.Buffer(max(q.MsgSize, 1)), p.Bytes(make([]byte, 8))
		taken[k] = p.Call(unix.SYS_MQ_TIMEDRECEIVE, fd, tracer.Ptr(texts[k]), tracer.Imm(q.MsgSize), tracer.Ptr(priorities[k]), tracer.Imm(0)).Tolerate()
	}
	for k := range n { // what could not be taken has no length either
		back[k] = p.Call(unix.SYS_MQ_TIMEDSEND, fd, tracer.Ptr(texts[k]), taken[k], tracer.Cell(priorities[k]), tracer.Imm(0)).Tolerate()
	}
	m.close()
	err := p.Run()
	for k := 0; k < n && err == nil; k++ {
		if err = errors.Join(taken[k].Err(), back[k].Err()); err != nil {
			break
		}
		raw, priority := make([]byte, taken[k].Result()), make([]byte, 8)
		if err = errors.Join(rem.ReadMem(texts[k], raw), rem.ReadMem(priorities[k], priority)); err == nil {
			q.messages = append(q.messages, mqMessageRecord{Priority: binary.LittleEndian.Uint32(priority), Data: raw})
		}
	}
	return err
}

func (i *Namespaces) dumpMqueues() error {
	for _, q := range i.posix {
		if err := i.s.W.Put(0, &q.mqueueRecord); err != nil {
			return err
		}
		for k := range q.messages {
			if err := i.s.W.Put(0, &q.messages[k]); err != nil {
				return err
			}
		}
	}
	return nil
}

func loadMqueue(b *Builder, to into) error {
	rec, _, err := image.Expect[mqueueRecord](b.R)
	if err != nil {
		return err
	}
	const most = 1 << 24 // HARD_MSGSIZEMAX of <linux/ipc_namespace.h>
	if !isQueueName(rec.Name) || rec.MaxMsg == 0 || rec.MaxMsg > most || rec.MsgSize > most || rec.Mode&^0o777 != 0 || rec.Messages > maxMoved {
		return badImage(fault.ImageValue, "message queue", "%+v", *rec)
	}
	var messages []*mqMessageRecord
	for range rec.Messages {
		m, _, err := image.Expect[mqMessageRecord](b.R)
		if err != nil {
			return err
		}
		messages = append(messages, m)
	}
	if !to.make {
		return b.expectMqueue(rec.Name)
	}
	uid, gid, err := b.madeAs()
	if err != nil {
		return err
	}
	var attr bytes.Buffer
	_ = binary.Write(&attr, binary.LittleEndian, mqAttr{MaxMsg: int64(rec.MaxMsg), MsgSize: int64(rec.MsgSize)}) // takes everything
	p := b.Remote.Program()
	fd := p.Call(unix.SYS_MQ_OPEN, tracer.Ptr(p.String(rec.Name)), tracer.Imm(unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC),
		tracer.Imm(0o600), tracer.Ptr(p.Bytes(attr.Bytes())))
	for _, m := range messages {
		p.Call(unix.SYS_MQ_TIMEDSEND, fd, tracer.Ptr(p.Bytes(m.Data)), tracer.Int(len(m.Data)), tracer.Imm(uint64(m.Priority)), tracer.Imm(0))
	}
	if rec.UID != uid || rec.GID != gid {
		p.Call(unix.SYS_FCHOWN, fd, tracer.Imm(uint64(rec.UID)), tracer.Imm(uint64(rec.GID)))
	}
	p.Call(unix.SYS_FCHMOD, fd, tracer.Imm(uint64(rec.Mode)))
	p.Close(fd)
	return b.makeIPC(p, mqueueObject(rec.Name))
}

// expectMqueue refuses a queue that is not there, as sysvClass.expect does.
func (b *Builder) expectMqueue(name string) error {
	p := b.Remote.Program()
	fd := p.Call(unix.SYS_MQ_OPEN, tracer.Ptr(p.String(name)), tracer.Imm(unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC), tracer.Imm(0), tracer.Imm(0)).Tolerate()
	p.Close(fd).Tolerate() // what could not be opened is no descriptor
	if err := p.Run(); err != nil {
		return err
	}
	if err := fd.Err(); err != nil && !errors.Is(err, unix.EACCES) {
		return &fault.Error{Code: fault.IPCMissing, Object: mqueueObject(name), Err: err}
	}
	return nil
}

// isQueueName tells whether mq_open(2) takes a name, and nothing else does.
func isQueueName(name string) bool {
	return name != "" && len(name) <= unix.NAME_MAX && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}
