package procfs

import (
	"bytes"
	"fmt"
	"strings"
)

// Cgroup is the place of a task in one hierarchy, cgroups(7).
type Cgroup struct {
	Hierarchy   int      // 0 is the unified one (version 2)
	Controllers []string // of version 1; "name=systemd" for a named hierarchy
	Path        string   // from the root of our cgroup namespace, "/../x" outside of it
	Deleted     bool     // the directory is gone, the zombie is still in it
}

// Cgroups lists the control groups of the task, one for each hierarchy.
func (p *Proc) Cgroups() ([]Cgroup, error) { return read(p, "cgroup", parseCgroups) }

func parseCgroups(data []byte) ([]Cgroup, error) {
	var out []Cgroup
	err := lines(data, func(n int, line []byte) error {
		id, rest, ok1 := bytes.Cut(line, []byte{':'})
		names, path, ok2 := bytes.Cut(rest, []byte{':'})
		if !ok1 || !ok2 || len(path) == 0 || path[0] != '/' {
			return fmt.Errorf("line %d: %w", n, malformed("control group", line))
		}
		var c Cgroup
		var err error
		if c.Hierarchy, err = count(id); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if len(names) > 0 {
			c.Controllers = strings.Split(string(names), ",")
		}
		c.Path, c.Deleted = strings.CutSuffix(string(path), deletedSuffix)
		out = append(out, c)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
