package resource

import "encoding/binary"

// event is struct epoll_event, which is packed on x86-64 alone
// (include/uapi/linux/eventpoll.h).
func (w *epollWatchRecord) event() []byte {
	raw := binary.LittleEndian.AppendUint32(nil, w.Events)
	return binary.LittleEndian.AppendUint64(raw, w.Data)
}
