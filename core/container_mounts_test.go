package core

import (
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
)

// TestMountsHostile has an image name mounts that we would not write.
func TestMountsHostile(t *testing.T) {
	tmpfs := Mount{Place: "/tmp", Kind: MountNew, FSType: "tmpfs", Options: "size=4k,uid=0", Filled: true}
	good := []Mount{
		{Place: "/", Kind: MountRoot}, tmpfs,
		{Place: "/tmp/x", Kind: MountInside, From: 1, Source: "/y"},
		{Place: "/usr", Kind: MountHost, Source: "/usr", Attr: knownAttrs},
	}
	c := &Container{}
	for i := range good {
		if err := c.checkMount(&good[i]); err != nil {
			t.Errorf("%+v: %v", good[i], err)
		}
		c.Mounts = append(c.Mounts, good[i])
	}
	change := func(m Mount, f func(*Mount)) Mount { f(&m); return m }
	for name, m := range map[string]Mount{
		"kind":              {Place: "/x", Kind: 9},
		"second root":       {Place: "/", Kind: MountRoot},
		"upon the root":     change(tmpfs, func(m *Mount) { m.Place = "/" }),
		"relative place":    change(tmpfs, func(m *Mount) { m.Place = "tmp" }),
		"dots":              change(tmpfs, func(m *Mount) { m.Place = "/tmp/../x" }),
		"long":              change(tmpfs, func(m *Mount) { m.Place = "/" + strings.Repeat("x", 5000) }),
		"type":              change(tmpfs, func(m *Mount) { m.FSType, m.Filled = "ext4", false }),
		"option":            change(tmpfs, func(m *Mount) { m.Options = "size=4k,context=x" }),
		"not filled":        change(tmpfs, func(m *Mount) { m.Filled = false }),
		"attribute":         change(tmpfs, func(m *Mount) { m.Attr = 1 << 20 }),
		"filled bind":       {Place: "/x", Kind: MountHost, Source: "/usr", Filled: true},
		"type of a bind":    {Place: "/x", Kind: MountHost, Source: "/usr", FSType: "tmpfs"},
		"relative source":   {Place: "/x", Kind: MountHost, Source: "usr"},
		"from itself":       {Place: "/x", Kind: MountInside, From: 4, Source: "/y"},
		"dots in the other": {Place: "/x", Kind: MountInside, From: 1, Source: "/../.."},
	} {
		if err := c.checkMount(&m); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	for len(c.Mounts) < maxMounts {
		c.Mounts = append(c.Mounts, tmpfs)
	}
	if c.checkMount(&tmpfs) == nil {
		t.Errorf("%d mounts are taken", maxMounts+1)
	}
}

// TestMountTable finds out which mount a path leads to, and by which path one
// comes to a place in a file system.
func TestMountTable(t *testing.T) {
	const text = `20 1 8:1 / / rw - ext4 /dev/a rw
21 20 0:30 / /tmp rw - tmpfs none rw
22 21 0:31 / /tmp/a rw - tmpfs none rw
23 20 8:1 /home/me /mnt rw - ext4 /dev/a rw
24 21 0:32 / /tmp rw - tmpfs none rw
25 20 8:2 /sub /srv rw - ext4 /dev/b rw
`
	all, err := mountinfo.GetMountsFromReader(strings.NewReader(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	table := &mountTable{all: all, top: all[0]}
	for path, id := range map[string]int{"/": 20, "/tmp": 24, "/tmp/a": 24, "/tmpx": 20, "/mnt/x": 23, "/srv": 25} {
		if got := table.at(path).ID; got != id {
			t.Errorf("%s leads to mount %d, want %d", path, got, id)
		}
	}
	for _, c := range []struct {
		dev         device
		place, want string
	}{
		{device{8, 1}, "/usr/lib", "/usr/lib"}, {device{8, 1}, "/tmp/x", ""}, {device{8, 1}, "/mnt/x", ""},
		{device{8, 1}, "/home/me/x", "/home/me/x"}, {device{8, 2}, "/sub/x", "/srv/x"}, {device{8, 2}, "/other", ""}, {device{0, 31}, "/", ""},
	} {
		if got := table.find(c.dev, c.place); got != c.want {
			t.Errorf("%v %s is found at %q, want %q", c.dev, c.place, got, c.want)
		}
	}
}
