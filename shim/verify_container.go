package shim

import (
	"path/filepath"
	"strconv"
	"strings"
)

// containerFiles tells where on the host the files of a container are.
type containerFiles struct {
	root   string // of the host that is the root of the container, "" for none of its own
	mounts []containerMount
}

// containerMount is a mount of the container. What is not of the host comes from the image.
type containerMount struct {
	place, source string
	ofHost        bool
}

// add takes one record.
func (c *containerFiles) add(rec *inspected) {
	field := func(name string) string {
		for _, f := range rec.Fields {
			if f.Name == name {
				if text, err := strconv.Unquote(f.Value); err == nil {
					return text
				}
				return f.Value
			}
		}
		return ""
	}
	switch rec.Name {
	case "CONTAINER_ROOT":
		c.root = field("Path")
	case "MOUNT":
		const root, host = "1", "3" // mountRecord.Kind
		kind := field("Kind")
		c.mounts = append(c.mounts, containerMount{place: field("Place"), source: c.root, ofHost: kind == root || kind == host})
	case "MOUNT_SOURCE":
		if m := len(c.mounts) - 1; m >= 0 && c.mounts[m].place != "/" {
			c.mounts[m].source = field("Path")
		}
	}
}

// onHost returns the name on the host for that of a file in the container, "" if it comes from the image.
func (c *containerFiles) onHost(path string) string {
	for i := len(c.mounts) - 1; i >= 0; i-- { // the last one covers those before it
		m := &c.mounts[i]
		if m.place != "/" && !isBelow(path, m.place) {
			continue
		}
		if !m.ofHost {
			return ""
		}
		return filepath.Join(m.source, strings.TrimPrefix(path, m.place))
	}
	return path
}
