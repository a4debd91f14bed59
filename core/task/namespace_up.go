package task

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer/procfs"
)

// nsGetParent is NS_GET_PARENT of ioctl_ns(2), since Linux 4.9.
const nsGetParent = 0xb702

// namespaceAt returns the pid namespace that lies up levels above that of the
// process, by its inode number.
func namespaceAt(p *procfs.Proc, up int) (uint64, error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/pid", p.PID()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open pid namespace of %d: %w", p.PID(), err)
	}
	for range up {
		parent, err := unix.IoctlRetInt(fd, nsGetParent)
		_ = unix.Close(fd) // only read from
		if err != nil {
			return 0, fmt.Errorf("find parent namespace of %d: %w", p.PID(), err)
		}
		fd = parent
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	return st.Ino, nil
}
