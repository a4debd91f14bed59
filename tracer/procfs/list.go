package procfs

import (
	"fmt"
	"os"
	"strconv"
)

// List returns the process ids that /proc shows, in its order. Processes come
// and go while it is read.
func List() ([]PID, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []PID
	for _, name := range names {
		if n, err := strconv.ParseInt(name, 10, 32); err == nil {
			pids = append(pids, PID(n))
		}
	}
	return pids, nil
}
