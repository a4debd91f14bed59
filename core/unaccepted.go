package core

import (
	"errors"
	"time"

	"github.com/crshim/crshim/core/resource"
	"github.com/crshim/crshim/core/task"
)

// A connection that waits to be accepted can be neither read nor made again. Who
// listens takes it soon, as a rule: the processes are let go for a moment, and
// stopped again. A server that does not accept has its connections reset.

const (
	acceptTries = 30
	acceptPause = 10 * time.Millisecond
)

// errUnaccepted says that there are such connections. It comes before the first
// byte of an image.
var errUnaccepted = errors.New("connections wait to be accepted")

// checkAccepted is for when all sockets have been looked at.
func (c *checkpoint) checkAccepted() error {
	if c.self() || c.pauses == acceptTries {
		return nil
	}
	for _, m := range c.members {
		accepts := !m.view.Stopped && m.PID != c.process && !m.Held()
		if accepts && m.view.Unaccepted() {
			return errUnaccepted
		}
	}
	return nil
}

// letAccept lets the processes run for a moment.
func (c *checkpoint) letAccept() error {
	for _, m := range c.members {
		m.view.Close()
	}
	frozen := c.frozen
	c.members, c.places, c.tree, c.relatives, c.frozen, c.within, c.forest, c.inside = nil, nil, nil, nil, nil, nil, nil, nil
	if err := frozen.Thaw(); err != nil {
		return err
	}
	c.pauses++
	time.Sleep(acceptPause)
	pids, err := task.Descendants(c.req.Target)
	c.asleep = resource.Sleepers(pids)
	return err
}
