package procfs

import (
	"bytes"
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// Unlimited is RLIM_INFINITY.
const Unlimited uint64 = math.MaxUint64

// Limit is one resource limit, getrlimit(2).
type Limit struct {
	Resource int    // RLIMIT_*
	Name     string // the kernel's words, "Max open files"
	Soft     uint64 // Unlimited for none
	Hard     uint64
	Unit     string // "bytes", "files", ...; "" where the kernel names none
}

// limitNames are those of lnames[] in fs/proc/base.c by RLIMIT number.
var limitNames = [...]string{
	unix.RLIMIT_CPU:        "Max cpu time",
	unix.RLIMIT_FSIZE:      "Max file size",
	unix.RLIMIT_DATA:       "Max data size",
	unix.RLIMIT_STACK:      "Max stack size",
	unix.RLIMIT_CORE:       "Max core file size",
	unix.RLIMIT_RSS:        "Max resident set",
	unix.RLIMIT_NPROC:      "Max processes",
	unix.RLIMIT_NOFILE:     "Max open files",
	unix.RLIMIT_MEMLOCK:    "Max locked memory",
	unix.RLIMIT_AS:         "Max address space",
	unix.RLIMIT_LOCKS:      "Max file locks",
	unix.RLIMIT_SIGPENDING: "Max pending signals",
	unix.RLIMIT_MSGQUEUE:   "Max msgqueue size",
	unix.RLIMIT_NICE:       "Max nice priority",
	unix.RLIMIT_RTPRIO:     "Max realtime priority",
	unix.RLIMIT_RTTIME:     "Max realtime timeout",
}

// Limits lists the resource limits by RLIMIT number.
func (p *Proc) Limits() ([]Limit, error) { return read(p, "limits", parseLimits) }

func parseLimits(data []byte) ([]Limit, error) {
	found := make([]Limit, len(limitNames))
	err := lines(data, func(n int, line []byte) error {
		if n == 1 { // the heading
			return nil
		}
		for resource, name := range limitNames {
			rest, ok := bytes.CutPrefix(line, []byte(name+" "))
			if !ok {
				continue
			}
			l, err := parseLimit(rest)
			if err != nil {
				return fmt.Errorf("line %d, %s: %w", n, name, err)
			}
			l.Resource, l.Name = resource, name
			found[resource] = l
			return nil
		}
		return fmt.Errorf("line %d: %w", n, malformed("limit", line))
	})
	if err != nil {
		return nil, err
	}
	for resource, l := range found {
		if l.Name == "" {
			return nil, malformed("no limit", []byte(limitNames[resource]))
		}
	}
	return found, nil
}

// parseLimit parses what follows the name.
func parseLimit(b []byte) (Limit, error) {
	soft, b := word(b)
	hard, b := word(b)
	unit, _ := word(b)
	l := Limit{Unit: string(unit)}
	var err error
	if l.Soft, err = limitValue(soft); err != nil {
		return Limit{}, err
	}
	if l.Hard, err = limitValue(hard); err != nil {
		return Limit{}, err
	}
	return l, nil
}

func limitValue(b []byte) (uint64, error) {
	if string(b) == "unlimited" {
		return Unlimited, nil
	}
	return decimal[uint64](b)
}

// LimitOf is one resource limit of a process. Unlike prlimit(2) it may be
// asked of a process of any user.
func LimitOf(pid PID, resource int) (Limit, error) {
	p, err := Open(pid)
	if err != nil {
		return Limit{}, err
	}
	defer p.Close()
	limits, err := p.Limits()
	if err != nil {
		return Limit{}, err
	}
	return limits[resource], nil
}
