package core

import (
	"errors"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
)

// dump writes the image. Its reader learns from the stream itself if it fails.
func (c *checkpoint) dump() (err error) {
	out, err := imageWriter(c.req.Out, c.process)
	if err != nil {
		return err
	}
	var resident uint64
	for _, m := range c.members {
		resident += m.view.Resident()
	}
	trim := reserve(c.req.Out, resident)
	defer func() { err = errors.Join(err, trim()) }()
	w := image.NewWriter(out, Records)
	var unkept error
	err = c.borrow(func() error {
		if err := c.write(w); err != nil {
			return err
		}
		if c.req.Saved != nil {
			unkept = c.req.Saved() // here, since a doomed target goes on if this fails
		}
		return unkept
	})
	c.bytes = w.Offset()
	if err == nil || unkept != nil {
		return err
	}
	err = writeError(err)
	if c.bytes == 0 {
		return err // refused, as by the survey
	}
	_ = w.Fail(image.Error{Errno: int32(fault.Errno(err)), Text: err.Error()}) // the first error counts
	return err
}

// write asks every process about itself, and then saves one after the other.
func (c *checkpoint) write(w *image.Writer) (err error) {
	root := c.members[0]
	if len(c.members) > 1 {
		if err := c.tree.Gather(root.remote); err != nil {
			return err
		}
		if err := c.tree.Survey().Err(); err != nil {
			return err
		}
		if err := c.checkAccepted(); err != nil {
			return err
		}
	}
	if err := c.describe(); err != nil {
		return err
	}
	in := readback(c.req.Out)
	if in != nil {
		defer func() { _ = in.Close() }() // only read from
	}
	for _, m := range c.members {
		if err := c.prepare(m, w, in); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, m.saver.Close()) }()
	}
	c.tree.Index()
	defer c.tree.Close()
	for _, m := range c.members {
		if err := m.saver.Ask(); err != nil {
			return err
		}
	}
	for _, m := range c.members { // which have worked at it together
		if err := m.saver.Answered(); err != nil {
			return err
		}
	}
	if err := c.askContainer(); err != nil {
		return err
	}
	if err := c.askNested(); err != nil {
		return err
	}
	if err := c.writeHead(w); err != nil {
		return err
	}
	for _, m := range c.members {
		if err := m.saver.Dump(); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	for _, m := range c.members {
		if err := m.takeBack(); err != nil {
			return err
		}
	}
	return c.tree.Return(root.remote)
}
