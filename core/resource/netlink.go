package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer"
)

// netlinkTalk has a process talk rtnetlink(7) or the like, in its own network
// namespace and with its own rights.
type netlinkTalk struct {
	r        *tracer.Remote
	protocol int
}

const (
	netlinkReply   = 32 << 10 // bytes of one reply; the kernel sends no longer ones
	netlinkReplies = 16
)

// dump asks for a list, whose entries it returns.
func (n netlinkTalk) dump(kind uint16, body []byte) ([]syscall.NetlinkMessage, error) {
	return n.ask(netlinkMessage(kind, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, body))
}

// do has something made.
func (n netlinkTalk) do(kind, flags uint16, body []byte) error {
	_, err := n.ask(netlinkMessage(kind, unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags, body))
	return err
}

func netlinkMessage(kind, flags uint16, body []byte) []byte {
	m := binary.LittleEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	m = binary.LittleEndian.AppendUint16(m, kind)
	m = binary.LittleEndian.AppendUint16(m, flags)
	m = append(m, make([]byte, 8)...) // sequence and port: nobody else answers
	return append(m, body...)
}

func (n netlinkTalk) ask(request []byte) (entries []syscall.NetlinkMessage, err error) {
	p := n.r.Program()
	s := p.Call(unix.SYS_SOCKET, tracer.Imm(unix.AF_NETLINK), tracer.Imm(unix.SOCK_RAW|unix.SOCK_CLOEXEC), tracer.Int(n.protocol))
	undo := s.Undo(unix.SYS_CLOSE, s)
	to := p.Bytes(append(binary.LittleEndian.AppendUint16(nil, unix.AF_NETLINK), make([]byte, unix.SizeofSockaddrNetlink-2)...))
	p.Call(unix.SYS_SENDTO, s, tracer.Ptr(p.Bytes(request)), tracer.Int(len(request)), tracer.Imm(0), tracer.Ptr(to), tracer.Imm(unix.SizeofSockaddrNetlink))
	rows, at := make([]*tracer.Row, netlinkReplies), make([]tracer.Addr, netlinkReplies)
	for i := range rows {
		at[i] = p.Buffer(netlinkReply)
		rows[i] = p.Call(unix.SYS_RECVFROM, s, tracer.Ptr(at[i]), tracer.Imm(netlinkReply), tracer.Imm(unix.MSG_DONTWAIT|unix.MSG_TRUNC), tracer.Imm(0), tracer.Imm(0)).Tolerate()
	}
	p.Close(s)
	p.Forget(undo)
	if err := p.Run(); err != nil {
		return nil, err
	}
	for i, row := range rows {
		if err := row.Err(); err != nil {
			return nil, fmt.Errorf("read netlink: %w", err)
		}
		if row.Result() > netlinkReply {
			return nil, fmt.Errorf("read netlink: %w", unix.EMSGSIZE)
		}
		raw := make([]byte, row.Result())
		if err := n.r.ReadMem(at[i], raw); err != nil {
			return nil, err
		}
		messages, err := syscall.ParseNetlinkMessage(raw)
		if err != nil {
			return nil, fmt.Errorf("parse netlink: %w", err)
		}
		for _, m := range messages {
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				return entries, nil
			case unix.NLMSG_ERROR:
				if len(m.Data) < 4 {
					return nil, fmt.Errorf("parse netlink: %w", unix.EBADMSG)
				}
				if errno := -int32(binary.LittleEndian.Uint32(m.Data)); errno != 0 {
					return nil, fmt.Errorf("netlink: %w", unix.Errno(errno))
				}
				return entries, nil
			}
			entries = append(entries, m)
		}
	}
	return nil, errors.New("read netlink: there is too much")
}

// attribute appends a netlink attribute.
func attribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.LittleEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, -len(b)&3)...)
}

// attributesIn takes apart those that follow the first bytes of a message.
func attributesIn(data []byte, behind int) (map[uint16][]byte, error) {
	found := make(map[uint16][]byte)
	if len(data) < behind {
		return nil, unix.EBADMSG
	}
	for data = data[behind:]; len(data) >= unix.SizeofRtAttr; {
		n := int(binary.LittleEndian.Uint16(data))
		if n < unix.SizeofRtAttr || n > len(data) {
			return nil, unix.EBADMSG
		}
		const kindOnly = 0x3fff // NLA_TYPE_MASK
		found[binary.LittleEndian.Uint16(data[2:])&kindOnly] = data[unix.SizeofRtAttr:n]
		data = data[min((n+3)&^3, len(data)):]
	}
	return found, nil
}

func quad(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }
