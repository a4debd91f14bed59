package core

import (
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
)

// askClocks has the first process read the clocks of its time namespace: a new
// one is made to show the same.
func (c *checkpoint) askClocks() error {
	const timespec = 16 // struct timespec
	r := c.members[0].remote
	p := r.Program()
	at := p.Buffer(2 * timespec)
	p.Call(unix.SYS_CLOCK_GETTIME, tracer.Imm(unix.CLOCK_MONOTONIC), tracer.Ptr(at))
	p.Call(unix.SYS_CLOCK_GETTIME, tracer.Imm(unix.CLOCK_BOOTTIME), tracer.Ptr(at+timespec))
	if err := p.Run(); err != nil {
		return fmt.Errorf("read the clocks of %s: %w", c.members[0].view.Name(), err)
	}
	raw := make([]byte, 2*timespec)
	if err := r.ReadMem(at, raw); err != nil {
		return err
	}
	of := func(raw []byte) time.Duration {
		return time.Duration(binary.LittleEndian.Uint64(raw))*time.Second + time.Duration(binary.LittleEndian.Uint64(raw[8:]))
	}
	c.within.Monotonic, c.within.Boottime = of(raw), of(raw[timespec:])
	return nil
}

func (c *Container) writeClocks(w *image.Writer) error {
	if !c.Time {
		return nil
	}
	return w.Put(0, &image.ContainerClocks{Monotonic: int64(c.Monotonic), Boottime: int64(c.Boottime)})
}

// readClocks reads them, if the image says what they showed. The kernel takes no
// offset of more than 146 years (proc_timens_set_offset of kernel/time/namespace.c).
func (c *Container) readClocks(r *image.Reader) error {
	if next, err := r.Peek(); err != nil || next != image.KindContainerClocks {
		return err
	}
	rec, _, err := image.Expect[image.ContainerClocks](r)
	if err != nil {
		return err
	}
	const most = 1 << 61
	if rec.Monotonic < 0 || rec.Boottime < 0 || rec.Monotonic > most || rec.Boottime > most {
		return &fault.Error{Code: fault.ImageValue, Object: "image", Detail: "CONTAINER_CLOCKS"}
	}
	c.Monotonic, c.Boottime = time.Duration(rec.Monotonic), time.Duration(rec.Boottime)
	return nil
}
