package core

import (
	"fmt"

	"github.com/crshim/crshim/core/resource"
	"github.com/crshim/crshim/tracer/procfs"
)

// Foreground is what a terminal from outside was like, if a group of the
// processes was in its foreground.
type Foreground struct {
	Group    PID // that group as it is now
	Settings *resource.TerminalSettings
}

// leadGroup makes the first process the leader of a process group, as it was
// one, if it is to have the restarter's terminal: a shell takes itself for that.
func (r *restart) leadGroup() error {
	root := r.plants[0]
	if r.regrouped || r.onTerminal == nil || !root.builder.LedGroup || root.builder.Outside() == nil {
		return nil
	}
	r.regrouped = true
	return root.join(0)
}

// foreground puts the groups that were in the foreground of terminals of the
// tree there again. A group that has ended leaves its place to the session's
// leader.
func (r *restart) foreground() error {
	for _, p := range r.plants[1:] {
		if group := r.groups[p.builder.Foreground()].to(p); p.leads && group != 0 {
			if err := p.builder.SetForeground(group); err != nil {
				return err
			}
		}
	}
	return nil
}

// tellForeground tells who has the terminal what belongs there.
func (r *restart) tellForeground() error {
	settings := r.plants[0].builder.Outside()
	if r.onTerminal == nil || settings == nil {
		return nil
	}
	for _, p := range r.plants {
		if len(r.plants) > 1 && p.VPgrp != settings.Foreground {
			continue
		}
		proc, err := procfs.Open(p.tracee.TID())
		if err != nil {
			return err
		}
		stat, err := proc.Stat()
		proc.Close()
		if err != nil {
			return fmt.Errorf("look for the foreground process group: %w", err)
		}
		return r.onTerminal(Foreground{Group: stat.Pgrp, Settings: settings})
	}
	return nil // a hostile image: nobody is in that group
}
