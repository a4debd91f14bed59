package resource

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
)

type msgQueueRecord struct {
	IPCOwner
	Messages uint32 `doc:"how many follow"`
	Limit    uint64 `doc:"bytes that it takes, msg_qbytes"`
}

type messageRecord struct {
	Type int64
	Data []byte
}

type savedQueue struct {
	msgQueueRecord
	messages []messageRecord
}

// maxMessage is what a record holds of a message, and maxMessages how many bytes
// of them are gathered before they are written.
const (
	maxMessage  = 32000
	maxMessages = 256 << 20
)

// msgDesc is equivalent to struct msqid64_ds of <asm-generic/msgbuf.h>.
type msgDesc struct {
	ipcPerm
	STime, RTime, CTime    int64
	Bytes, Messages, Limit uint64
	LSPID, LRPID           int32
	_                      [2]uint64
}

func (i *Namespaces) askQueues() error {
	found, err := i.list(&sysvMsg)
	if err != nil {
		return err
	}
	var total uint64
	for _, o := range found {
		desc, err := parseIPC[msgDesc](o.raw)
		if err != nil {
			return err
		}
		q := &savedQueue{msgQueueRecord: msgQueueRecord{IPCOwner: sysvMsg.owner(o.id, &desc.ipcPerm), Messages: uint32(desc.Messages), Limit: desc.Limit}}
		if total += desc.Bytes; total > maxMessages || desc.Messages > maxMessages {
			return i.refuse(sysvMsg.name(&q.IPCOwner), nil, "%d bytes in %d messages", desc.Bytes, desc.Messages)
		}
		if err := i.copyMessages(q, desc.Bytes); err != nil {
			return err
		}
		i.queues = append(i.queues, q)
	}
	return nil
}

// copyMessages reads the messages of a queue without taking them from it (MSG_COPY
// of msgrcv(2)), several by one program.
func (i *Namespaces) copyMessages(q *savedQueue, total uint64) error {
	const msgCopy = 0o40000
	name := sysvMsg.name(&q.IPCOwner)
	room := 8 + min(total, maxMessage)
	batch := max(1, int((256<<10)/room))
	for at := 0; at < int(q.Messages); at += batch {
		n := min(batch, int(q.Messages)-at)
		p := i.s.Remote.Program()
		rows, bufs := make([]*tracer.Row, n), make([]tracer.Addr, n)
		for k := range rows {
			bufs[k] = p.Buffer(room)
			rows[k] = p.Call(unix.SYS_MSGRCV, tracer.Imm(uint64(q.ID)), tracer.Ptr(bufs[k]), tracer.Imm(room-8), tracer.Int(at+k), tracer.Imm(msgCopy|unix.IPC_NOWAIT))
		}
		err := p.Run()
		for k, row := range rows {
			if errors.Is(row.Err(), unix.ENOSYS) {
				return i.refuse(name, row.Err(), "the kernel was built without CONFIG_CHECKPOINT_RESTORE")
			} else if err != nil {
				return i.asked(name, err)
			}
			raw := make([]byte, 8+row.Result())
			if err := i.s.Remote.ReadMem(bufs[k], raw); err != nil {
				return err
			}
			q.messages = append(q.messages, messageRecord{int64(binary.LittleEndian.Uint64(raw)), raw[8:]})
		}
	}
	return nil
}

func (i *Namespaces) dumpQueues() error {
	for _, q := range i.queues {
		if err := i.s.W.Put(0, &q.msgQueueRecord); err != nil {
			return err
		}
		for k := range q.messages {
			if err := i.s.W.Put(q.ID, &q.messages[k]); err != nil {
				return err
			}
		}
	}
	return nil
}

func loadMsgQueue(b *Builder, to into) error {
	rec, name, err := expectOwned(b, &sysvMsg, func(r *msgQueueRecord) *IPCOwner { return &r.IPCOwner })
	if err != nil {
		return err
	}
	set := func(perm ipcPerm) error {
		p := b.Remote.Program()
		sysvMsg.set(p, &rec.IPCOwner, msgDesc{ipcPerm: perm, Limit: rec.Limit})
		return b.makeIPC(p, name)
	}
	if to.make {
		uid, gid, err := b.madeAs()
		if err == nil {
			err = sysvMsg.create(b, &rec.IPCOwner, unix.SYS_MSGGET, rec.makeMode())
		}
		if err == nil { // it may have to take more than a new one does
			err = set(ipcPerm{UID: uid, GID: gid, Mode: rec.Mode | 0o600})
		}
		if err != nil {
			return err
		}
	}
	for k := range rec.Messages {
		m, _, err := image.Expect[messageRecord](b.R)
		if err != nil {
			return err
		}
		if m.Type <= 0 {
			return badImage(fault.ImageValue, name, "a message of type %d", m.Type)
		}
		if !to.make {
			continue
		}
		p := b.Remote.Program()
		text := append(binary.LittleEndian.AppendUint64(nil, uint64(m.Type)), m.Data...)
		p.Call(unix.SYS_MSGSND, tracer.Imm(uint64(rec.ID)), tracer.Ptr(p.Bytes(text)), tracer.Int(len(m.Data)), tracer.Imm(unix.IPC_NOWAIT))
		if err := b.makeIPC(p, fmt.Sprintf("message %d of %s", k, name)); err != nil {
			return err
		}
	}
	if !to.make {
		return sysvMsg.expect(b, &rec.IPCOwner)
	}
	return set(rec.perm())
}
