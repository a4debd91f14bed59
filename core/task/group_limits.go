package task

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/crshim/crshim/tracer/procfs"
)

// Group is a control group that limits what is in it.
type Group struct {
	Controllers string   // of version 1, as in /proc/PID/cgroup; "" for version 2
	Path        string   // in its hierarchy
	Limits      []string // "file value"
}

// String names it and its limits.
func (g *Group) String() string {
	name := g.Path
	if g.Controllers != "" {
		name = g.Controllers + ":" + g.Path
	}
	if len(g.Limits) == 0 {
		return name
	}
	return name + " (" + strings.Join(g.Limits, ", ") + ")"
}

// unlimited are the files of a control group that limit or weigh, with what they
// say if they do not (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1). Those
// that come first may have to be written first.
var unlimited = []struct{ file, value string }{
	{"memory.max", "max"}, {"memory.high", "max"}, {"memory.min", "0"}, {"memory.low", "0"}, {"memory.swap.max", "max"},
	{"memory.swap.high", "max"}, {"memory.zswap.max", "max"}, {"memory.oom.group", "0"},
	{"cpu.max", "max 100000"}, {"cpu.max.burst", "0"}, {"cpu.weight", "100"}, {"cpu.idle", "0"},
	{"cpuset.cpus", ""}, {"cpuset.mems", ""}, {"io.max", ""}, {"io.weight", "default 100"},
	{"pids.max", "max"}, // of both versions
	{"cgroup.max.depth", "max"}, {"cgroup.max.descendants", "max"},
	{"memory.limit_in_bytes", "9223372036854771712"}, {"memory.memsw.limit_in_bytes", "9223372036854771712"},
	{"memory.soft_limit_in_bytes", "9223372036854771712"},
	{"cpu.cfs_period_us", "100000"}, {"cpu.cfs_quota_us", "-1"}, {"cpu.shares", "1024"},
}

// maxLimit bounds what a file of the list says.
const maxLimit = 4096

// LimitsOf returns the control groups of a process, from the outermost to its own,
// in each hierarchy in which any of them limits it.
func LimitsOf(p *procfs.Proc) ([]Group, error) {
	own, err := p.Cgroups()
	if err != nil {
		return nil, fmt.Errorf("find control groups of pid %d: %w", p.PID(), err)
	}
	var all []Group
	for i := range own {
		g := Group{Controllers: strings.Join(own[i].Controllers, ","), Path: own[i].Path}
		top, err := g.hierarchy()
		if err != nil {
			return nil, err
		}
		if own[i].Deleted || top == "" {
			continue // it has nothing to limit, or cannot be seen
		}
		if strings.HasPrefix(filepath.Base(g.Path), suspendPrefix) {
			g.Path = filepath.Dir(g.Path) // crshim freeze has put it there for a while
		}
		var chain []Group
		limited := false
		for path := g.Path; path != "/"; path = filepath.Dir(path) {
			up := Group{Controllers: g.Controllers, Path: path}
			if err := up.read(filepath.Join(top, path), filepath.Join(top, filepath.Dir(path))); err != nil {
				return nil, err
			}
			limited = limited || len(up.Limits) > 0
			chain = append(chain, up)
		}
		slices.Reverse(chain)
		if limited {
			all = append(all, chain...)
		}
	}
	return all, nil
}

// hierarchy is the directory of the outermost group that we see, "" if none.
func (g *Group) hierarchy() (string, error) {
	mounts, err := cgroupMounts()
	if err != nil {
		return "", err
	}
	for _, m := range mounts {
		if m.Root != "/" {
			continue
		}
		if g.Controllers == "" && m.FSType == "cgroup2" {
			return m.Mountpoint, nil
		}
		options := strings.Split(m.VFSOptions, ",")
		missing := func(name string) bool { return !slices.Contains(options, name) }
		if g.Controllers != "" && m.FSType == "cgroup" && !slices.ContainsFunc(strings.Split(g.Controllers, ","), missing) {
			return m.Mountpoint, nil
		}
	}
	return "", nil
}

// read takes the limits of a group. What it has from the group above it is none.
func (g *Group) read(dir, above string) error {
	for _, u := range unlimited {
		text, err := os.ReadFile(filepath.Join(dir, u.file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read limit of %s: %w", g, err)
		}
		value := strings.TrimSpace(string(text))
		if value == u.value || len(value) > maxLimit {
			continue
		}
		if strings.HasPrefix(u.file, "cpuset.") {
			if inherited, err := os.ReadFile(filepath.Join(above, u.file)); err == nil && strings.TrimSpace(string(inherited)) == value {
				continue
			}
		}
		g.Limits = append(g.Limits, u.file+" "+value)
	}
	return nil
}

// Check tells whether a group of an image is such as we write.
func (g *Group) Check() bool {
	good := filepath.IsAbs(g.Path) && filepath.Clean(g.Path) == g.Path && g.Path != "/"
	for _, limit := range g.Limits {
		file, _, ok := strings.Cut(limit, " ")
		known := false
		for _, u := range unlimited {
			known = known || u.file == file
		}
		good = good && ok && known && len(limit) < 2*maxLimit
	}
	return good
}

// Holds tells whether a process is in the group already, or below it.
func (g *Group) Holds(p *procfs.Proc) (bool, error) {
	own, err := p.Cgroups()
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(own, func(o procfs.Cgroup) bool {
		return strings.Join(o.Controllers, ",") == g.Controllers && (o.Path == g.Path || strings.HasPrefix(o.Path, g.Path+"/"))
	}), nil
}

// Make makes the group where it is not there, below one that is, and limits it.
// It tells the directory if it has been made.
func (g *Group) Make() (made string, err error) {
	top, err := g.hierarchy()
	if err != nil || top == "" {
		return "", errors.Join(errors.New("its hierarchy cannot be seen"), err)
	}
	dir := filepath.Join(top, g.Path)
	if err := os.Mkdir(dir, 0o755); errors.Is(err, fs.ErrExist) {
		return "", nil // with limits of its own
	} else if err != nil {
		return "", err
	}
	if err := g.limit(dir); err != nil {
		return "", errors.Join(err, os.Remove(dir))
	}
	return dir, nil
}

// limit writes the limits of a group that has just been made.
func (g *Group) limit(dir string) error {
	above := filepath.Dir(dir)
	if strings.Contains(g.Controllers, "cpuset") {
		// Version 1 takes nobody in where these are empty.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			text, err := os.ReadFile(filepath.Join(above, file))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, file), text, 0)
			}
			if err != nil {
				return err
			}
		}
	}
	for _, limit := range g.Limits {
		file, value, _ := strings.Cut(limit, " ")
		path := filepath.Join(dir, file)
		if _, err := os.Lstat(path); g.Controllers == "" && errors.Is(err, fs.ErrNotExist) {
			controller, _, _ := strings.Cut(file, ".")
			if err := os.WriteFile(filepath.Join(above, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
				return err
			}
		}
		if err := os.WriteFile(path, []byte(value), 0); err != nil {
			return err
		}
	}
	return nil
}

// Join moves a process into the group.
func (g *Group) Join(pid procfs.PID) error {
	top, err := g.hierarchy()
	if err != nil || top == "" {
		return errors.Join(errors.New("its hierarchy cannot be seen"), err)
	}
	return os.WriteFile(filepath.Join(top, g.Path, "cgroup.procs"), []byte(strconv.Itoa(int(pid))), 0)
}
