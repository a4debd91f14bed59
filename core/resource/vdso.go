package resource

import (
	"fmt"
	"os"
	"sync"

	"github.com/crshim/crshim/tracer/procfs"
)

// VDSO returns the code that the kernel maps into every 64-bit process, read
// from our own: in a task that we work in, a part of it is in use by us.
var VDSO = sync.OnceValues(func() ([]byte, error) {
	proc, err := procfs.Open(procfs.PID(os.Getpid()))
	if err != nil {
		return nil, fmt.Errorf("find own vdso: %w", err)
	}
	defer proc.Close()
	maps, err := proc.Maps()
	if err != nil {
		return nil, fmt.Errorf("find own vdso: %w", err)
	}
	for i := range maps {
		if maps[i].Special() != procfs.SpecialVDSO {
			continue
		}
		mem, err := os.Open("/proc/self/mem")
		if err != nil {
			return nil, fmt.Errorf("read own vdso: %w", err)
		}
		defer mem.Close()
		code := make([]byte, maps[i].Len())
		if _, err := mem.ReadAt(code, int64(maps[i].Start)); err != nil {
			return nil, fmt.Errorf("read own vdso: %w", err)
		}
		return code, nil
	}
	return nil, nil // a kernel without one
})
