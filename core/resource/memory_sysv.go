package resource

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// sysvSegment is System V shared memory (shmget(2)) that is attached. It is a
// thing of the IPC namespace, with an id and most often a key by which others
// may find it.
var sysvSegment = InodeKind{
	Match:  func(m *procfs.Mapping) bool { return m.Special() == procfs.SpecialSysV },
	Code:   fault.MemorySysV,
	Refuse: func(*View, *contents, string) error { return nil },
	Shared: sharedSegment,
	Dump:   dumpSegment,
	Kind:   sysvKind,
	Load:   loadSegment,
}

const sysvKind image.Kind = 6205

// sysvRecord is what IPC_STAT of shmctl(2) tells.
type sysvRecord struct {
	ID    uint32 `doc:"as shmget(2) returned it"`
	Key   uint32 `fmt:"hex" doc:"by which it was made; 0 IPC_PRIVATE"`
	Size  uint64 `doc:"bytes"`
	CTime int64  `doc:"time of its last change, seconds since the epoch"`
	Mode  uint32 `fmt:"oct" doc:"permission bits; 1000 removed, 2000 locked"`
	UID   uint32
	GID   uint32
	CUID  uint32 `doc:"uid of its maker"`
	CGID  uint32
	CPID  int32 `doc:"pid of its maker"`
}

// Bits of shm_perm.mode (include/linux/shm.h).
const (
	shmDest   = 0o1000
	shmLocked = 0o2000
)

// shmDesc is equivalent to struct shmid64_ds of <asm/shmbuf.h>.
type shmDesc struct {
	Key, UID, GID, CUID, CGID, Mode uint32
	Seq                             uint16
	_                               [6]byte
	_                               [2]uint64
	Size                            uint64
	ATime, DTime, CTime             int64
	CPID, LPID                      int32
	NAttch                          uint64
	_                               [2]uint64
}

const shmDescSize = 112

func parseShmDesc(raw []byte) (d shmDesc, err error) {
	return d, binary.Read(bytes.NewReader(raw), binary.LittleEndian, &d)
}

// sharedSegment refuses a segment that is attached elsewhere, too: each mapping
// of the processes that are saved counts once. While they run they may fork.
func sharedSegment(v *View, m *procfs.Mapping) error {
	if own, err := v.ownIPC(); err != nil || !own {
		return err // the task itself tells (Answered)
	}
	attached, err := attaches(m.Inode)
	if err != nil || v.Running && len(v.together()) > 1 {
		return err
	}
	return v.alone(m.Inode, attached)
}

// alone refuses a segment that is attached more often than by the processes that
// are saved.
func (v *View) alone(id, attached uint64) error {
	var own uint64
	for _, o := range v.together() {
		own += o.ownAttaches(id)
	}
	if attached > own {
		return fmt.Errorf("attached %d times by other processes", attached-own)
	}
	return nil
}

// ownAttaches is how many mappings the process has of a segment.
func (v *View) ownAttaches(id uint64) (n uint64) {
	for i := range v.Mappings {
		if m := &v.Mappings[i]; m.Special() == procfs.SpecialSysV && m.Inode == id {
			n++
		}
	}
	return n
}

// attaches reads how often a segment of our own IPC namespace is attached.
func attaches(id uint64) (uint64, error) {
	table, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil {
		return 0, err
	}
	// key shmid perms size cpid lpid nattch ...
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 7 && f[1] == strconv.FormatUint(id, 10) {
			return strconv.ParseUint(f[6], 10, 64)
		}
	}
	return 0, fmt.Errorf("segment %d is not in /proc/sysvipc/shm", id)
}

// askSegments has the task tell of the segments that it has attached.
func (s *memorySave) askSegments(d *Saver, p *tracer.Program) {
	s.segments = make(map[uint64]*segmentAnswer)
	for i := range d.Mappings {
		m := &d.Mappings[i]
		if m.Special() != procfs.SpecialSysV || s.segments[m.Inode] != nil {
			continue
		}
		a := &segmentAnswer{answer: d.answer(p, shmDescSize)}
		a.row = p.Call(unix.SYS_SHMCTL, tracer.Imm(m.Inode), tracer.Imm(unix.IPC_STAT), tracer.Imm(uint64(a.at))).Tolerate()
		s.segments[m.Inode] = a
	}
	d.segments = s.segments
}

type segmentAnswer struct {
	*answer
	row *tracer.Row
}

// Answered refuses a segment that the task may not look at, or that others have
// attached as well.
func (s *memorySave) Answered(d *Saver) error {
	for id, a := range s.segments {
		err := a.row.Err()
		if err == nil {
			var desc shmDesc
			if desc, err = parseShmDesc(a.data); err == nil {
				err = d.alone(id, desc.NAttch)
			}
		}
		if err != nil {
			return &fault.Error{Code: fault.MemorySysV, Object: fmt.Sprintf("segment %d of %s", id, d.Name()), Err: err}
		}
	}
	return nil
}

func dumpSegment(s *Saver, c *contents, ref object.Ref, name string) error {
	st, err := c.stat()
	if err != nil {
		return err
	}
	c.size = st.Size
	desc, err := parseShmDesc(s.segments[st.Ino].data)
	if err != nil {
		return err
	}
	key, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(name, "/SYSV"), deletedSuffix), 16, 32)
	if err != nil {
		return fmt.Errorf("key of %s: %w", name, err)
	}
	rec := sysvRecord{
		ID: uint32(st.Ino), Key: uint32(key), Size: desc.Size, CTime: desc.CTime, Mode: desc.Mode & (0o777 | shmDest | shmLocked),
		UID: desc.UID, GID: desc.GID, CUID: desc.CUID, CGID: desc.CGID, CPID: desc.CPID,
	}
	if err := s.W.Put(uint32(ref), &rec); err != nil {
		return err
	}
	return c.dump(s.W, uint32(ref))
}

// ownIPC tells whether the process is in our own IPC namespace.
func (v *View) ownIPC() (bool, error) {
	return v.InOurs("ipc")
}
