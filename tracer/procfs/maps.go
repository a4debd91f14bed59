package procfs

import (
	"bytes"
	"fmt"
	"strings"
)

const deletedSuffix = " (deleted)"

// mapsExpect and smapsExpect are first guesses at the size of the file; the
// buffer doubles from there.
const (
	mapsExpect  = 8 << 10
	smapsExpect = 32 << 10
)

// Maps lists the mappings from /proc/PID/maps in rising order, without what
// only smaps knows (Flags, RSS, ...). It does not walk page tables.
func (p *Proc) Maps() ([]Mapping, error) {
	return readExpect(p, "maps", mapsExpect, parseMaps)
}

// Mappings lists the mappings from /proc/PID/smaps in rising order. The
// kernel walks all page tables for it, so that it costs with the memory in
// use, not just with the number of mappings.
func (p *Proc) Mappings() ([]Mapping, error) {
	return readExpect(p, "smaps", smapsExpect, parseSmaps)
}

// MapFile reads the link /proc/PID/map_files/START-END: the path of the file
// mapped at exactly r, unescaped. It needs CAP_CHECKPOINT_RESTORE or
// CAP_SYS_ADMIN in the initial user namespace.
func (p *Proc) MapFile(r Range) (string, error) { return p.Link(MapFileName(r)) }

// MapFileName is the name of that link, for StatLink or for an open by the
// task itself.
func MapFileName(r Range) string {
	return fmt.Sprintf("map_files/%x-%x", uint64(r.Start), uint64(r.End))
}

func parseMaps(data []byte) ([]Mapping, error) {
	out := make([]Mapping, 0, bytes.Count(data, []byte{'\n'}))
	err := lines(data, func(n int, line []byte) error {
		m, err := parseMapsLine(line)
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if out, err = appendMapping(out, m); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// appendMapping keeps the list in order and free of overlaps. The kernel
// hands out a page of text at a time and goes on from the end of the last
// mapping in it. If that one has been joined to its neighbour since, the next
// line begins where an earlier one did, although filesystems/proc.rst
// promises otherwise (seen in 6.18): the later line is right.
func appendMapping(list []Mapping, m Mapping) ([]Mapping, error) {
	if n := len(list); n > 0 && m.End <= list[n-1].End {
		return nil, fmt.Errorf("mapping %v behind %v: %w", m.Range, list[n-1].Range, ErrFormat)
	}
	for n := len(list); n > 0 && list[n-1].End > m.Start; n = len(list) {
		last := &list[n-1]
		if last.Start < m.Start {
			last.End = m.Start
			break
		}
		list = list[:n-1]
	}
	return append(list, m), nil
}

// parseMapsLine parses "start-end perms offset major:minor inode   name", the
// line of show_map_vma(); only the name may hold blanks.
func parseMapsLine(line []byte) (Mapping, error) {
	var m Mapping
	span, rest := word(line)
	perms, rest := word(rest)
	offset, rest := word(rest)
	dev, rest := word(rest)
	inode, name := word(rest)

	start, end, ok := bytes.Cut(span, []byte{'-'})
	if !ok {
		return Mapping{}, malformed("address range", span)
	}
	var err error
	if m.Start, err = uintOf[Addr](start, 16); err != nil {
		return Mapping{}, err
	}
	if m.End, err = uintOf[Addr](end, 16); err != nil {
		return Mapping{}, err
	}
	if m.Empty() {
		return Mapping{}, malformed("empty address range", span)
	}
	if m.Perms, err = parsePerms(perms); err != nil {
		return Mapping{}, err
	}
	if m.Offset, err = hex64(offset); err != nil {
		return Mapping{}, err
	}
	major, minor, ok := bytes.Cut(dev, []byte{':'})
	if !ok {
		return Mapping{}, malformed("device", dev)
	}
	if m.Major, err = uintOf[uint32](major, 16); err != nil {
		return Mapping{}, err
	}
	if m.Minor, err = uintOf[uint32](minor, 16); err != nil {
		return Mapping{}, err
	}
	if m.Inode, err = decimal[uint64](inode); err != nil {
		return Mapping{}, err
	}
	m.Name = strings.ReplaceAll(string(name), `\012`, "\n")
	if m.Inode != 0 {
		m.Name, m.Deleted = strings.CutSuffix(m.Name, deletedSuffix)
	}
	return m, nil
}

func parsePerms(b []byte) (Perms, error) {
	if len(b) != 4 {
		return Perms{}, malformed("permissions", b)
	}
	var set [4]bool
	for i, letters := range []string{"r-", "w-", "x-", "sp"} {
		switch b[i] {
		case letters[0]:
			set[i] = true
		case letters[1]:
		default:
			return Perms{}, malformed("permissions", b)
		}
	}
	return Perms{Read: set[0], Write: set[1], Exec: set[2], Shared: set[3]}, nil
}

func parseSmaps(data []byte) ([]Mapping, error) {
	// A mapping takes about 700 bytes there.
	out := make([]Mapping, 0, len(data)/512)
	err := lines(data, func(n int, line []byte) error {
		first, value := word(line)
		key, isAttribute := bytes.CutSuffix(first, []byte{':'})
		if isAttribute {
			if len(out) == 0 {
				return fmt.Errorf("line %d: %w", n, malformed("attribute without mapping", line))
			}
			if err := out[len(out)-1].setAttribute(key, value); err != nil {
				return fmt.Errorf("line %d, %s: %w", n, key, err)
			}
			return nil
		}
		m, err := parseMapsLine(line)
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if out, err = appendMapping(out, m); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// smapsSizes are the attributes in kB.
var smapsSizes = map[string]func(*Mapping) *uint64{
	"KernelPageSize": func(m *Mapping) *uint64 { return &m.KernelPageSize },
	"Rss":            func(m *Mapping) *uint64 { return &m.RSS },
	"Pss":            func(m *Mapping) *uint64 { return &m.Pss },
	"Private_Clean":  func(m *Mapping) *uint64 { return &m.PrivateClean },
	"Private_Dirty":  func(m *Mapping) *uint64 { return &m.PrivateDirty },
	"Anonymous":      func(m *Mapping) *uint64 { return &m.Anonymous },
	"AnonHugePages":  func(m *Mapping) *uint64 { return &m.AnonHugePages },
	"Swap":           func(m *Mapping) *uint64 { return &m.SwapBytes },
	"Locked":         func(m *Mapping) *uint64 { return &m.Locked },
}

func (m *Mapping) setAttribute(key, value []byte) (err error) {
	if size, ok := smapsSizes[string(key)]; ok {
		*size(m), err = kilobytes(value)
		return err
	}
	switch string(key) {
	case "VmFlags":
		m.Flags, m.UnknownFlags = parseVMFlags(value)
	case "THPeligible":
		m.THPEligible, err = boolean(value)
	case "ProtectionKey":
		m.ProtectionKey, err = decimal[uint32](value)
	}
	return err
}
