package procfs

import "fmt"

// IDRange is a run of user or group ids that a user namespace knows,
// user_namespaces(7).
type IDRange struct {
	Inside  uint32 // the first, as the namespace has it
	Outside uint32 // the same one outside: for us, or for its parent if we are in it
	Count   uint32
}

// IDs are the ids of a user namespace.
type IDs []IDRange

// UIDs are the user ids that the task's user namespace knows.
func (p *Proc) UIDs() (IDs, error) { return read(p, "uid_map", parseIDs) }

// GIDs are the group ids that the task's user namespace knows.
func (p *Proc) GIDs() (IDs, error) { return read(p, "gid_map", parseIDs) }

// MaySetGroups says whether setgroups(2) is allowed in the task's user
// namespace at all.
func (p *Proc) MaySetGroups() (bool, error) {
	return read(p, "setgroups", onlyLine(allowed))
}

// Has says whether the namespace knows an id.
func (ids IDs) Has(inside uint32) bool {
	for _, r := range ids {
		if inside-r.Inside < r.Count {
			return true
		}
	}
	return false
}

// In returns what an id that we see is called inside.
func (ids IDs) In(outside uint32) (inside uint32, ok bool) {
	for _, r := range ids {
		if n := outside - r.Outside; n < r.Count {
			return r.Inside + n, true
		}
	}
	return 0, false
}

func parseIDs(data []byte) (IDs, error) {
	var ids IDs
	err := lines(data, func(n int, line []byte) error {
		words, err := list(line, decimal[uint32])
		if err == nil && len(words) != 3 {
			err = malformed("range of ids", line)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		ids = append(ids, IDRange{words[0], words[1], words[2]})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return ids, nil
}

func allowed(b []byte) (bool, error) {
	switch string(b) {
	case "allow":
		return true, nil
	case "deny":
		return false, nil
	}
	return false, malformed("allow or deny", b)
}
