package core

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"

	"github.com/crshim/crshim/tracer/procfs"
)

// mountTable is how the mounts of a namespace lie upon each other.
type mountTable struct {
	all []*mountinfo.Info
	top *mountinfo.Info
}

func readMountTable(p *procfs.Proc) (*mountTable, error) {
	text, err := p.ReadFile("mountinfo")
	if err != nil {
		return nil, err
	}
	all, err := mountinfo.GetMountsFromReader(bytes.NewReader(text), nil)
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	t := &mountTable{all: all}
	for _, m := range all {
		if !slices.ContainsFunc(all, func(o *mountinfo.Info) bool { return o != m && o.ID == m.Parent }) {
			t.top = m
			break
		}
	}
	if t.top == nil {
		return nil, fmt.Errorf("read mounts: none at the root of the namespace")
	}
	return t, nil
}

// at returns the mount that a path leads to: of several at one place the last.
func (t *mountTable) at(path string) *mountinfo.Info {
	now := t.top
	for {
		var next *mountinfo.Info
		for _, m := range t.all {
			if m.Parent == now.ID && m != now && within(path, m.Mountpoint) && (next == nil || len(m.Mountpoint) < len(next.Mountpoint)) {
				next = m
			}
		}
		if next == nil {
			return now
		}
		now = next
	}
}

// find returns a path that leads to a place in a file system, "" without one.
func (t *mountTable) find(dev device, place string) string {
	for _, m := range t.all {
		if deviceOf(m) != dev || !within(place, m.Root) {
			continue
		}
		if path := filepath.Join(m.Mountpoint, below(place, m.Root)); t.at(path) == m {
			return path
		}
	}
	return ""
}

func (t *mountTable) has(dev device) bool {
	return slices.ContainsFunc(t.all, func(m *mountinfo.Info) bool { return deviceOf(m) == dev })
}

// device is that of a file system.
type device struct{ major, minor int }

func deviceOf(m *mountinfo.Info) device { return device{m.Major, m.Minor} }

// within tells whether a path is dir or below it.
func within(path, dir string) bool {
	return dir == "/" || path == dir || strings.HasPrefix(path, dir) && path[len(dir)] == '/'
}

// below is the rest of a path that is within dir, with a slash before it.
func below(path, dir string) string {
	return "/" + strings.TrimPrefix(strings.TrimPrefix(path, dir), "/")
}
