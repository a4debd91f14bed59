package core

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/resource"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// profile is the revision of the calls that images are written for.
const profile = 13

// arch is how images call this architecture.
const arch = "x86_64"

// writeHead writes all that comes before the first task.
func (c *checkpoint) writeHead(w *image.Writer) error {
	head, err := newHead()
	if err != nil {
		return err
	}
	machine, err := ThisMachine()
	if err != nil {
		return err
	}
	if !c.members[0].view.CallsCaught {
		machine.CallProfile = 0
	}
	fpu := image.HeadArch{HasFXSR: 1, HasXsave: 1, XstateSize: uint16(machine.XsaveSize)}
	for _, rec := range []any{head, &fpu, machine, &image.Tree{Tasks: uint32(len(c.members))}} {
		if err := w.Put(0, rec); err != nil {
			return err
		}
	}
	var pids []image.PIDs
	level := c.level()
	for _, m := range c.members {
		vpid := int32(m.view.Status.NStgid[level])
		entry := image.PIDs{VPID: vpid, VTGID: vpid, VPPID: int32(m.view.Stat.PPid)}
		if parent := c.placeOf(m.Parent); parent >= 0 {
			entry.VPPID = int32(c.members[parent].view.Status.NStgid[level])
		}
		pids = append(pids, entry)
	}
	if err := w.Raw(image.EncodePIDs(pids)); err != nil {
		return err
	}
	if err := c.writeForest(w); err != nil {
		return err
	}
	return c.writeContainer(w)
}

func newHead() (*image.Head, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return nil, fmt.Errorf("read kernel name: %w", err)
	}
	head := &image.Head{
		Magic: image.MagicHead, Rev: image.Revision, Flags: image.FlagCkpt,
		Time: uint64(time.Now().Unix()),
	}
	head.Major, head.Minor, head.Patch = kernelVersion(unix.ByteSliceToString(uts.Release[:]))
	copy(head.Release[:], uts.Release[:64])
	copy(head.Version[:], uts.Version[:64])
	copy(head.Machine[:], uts.Machine[:64])
	return head, nil
}

// kernelVersion takes a release such as 6.18.4-amd64 apart; what it lacks is 0.
func kernelVersion(release string) (major, minor, patch uint16) {
	var numbers [3]uint16
	for i, part := range strings.SplitN(release, ".", 3) {
		digits := strings.IndexFunc(part, func(r rune) bool { return r < '0' || r > '9' })
		if digits >= 0 {
			part = part[:digits]
		}
		if n, err := strconv.ParseUint(part, 10, 16); err == nil {
			numbers[i] = uint16(n)
		}
	}
	return numbers[0], numbers[1], numbers[2]
}

// ThisMachine says what an image that is written here depends on.
func ThisMachine() (*image.Machine, error) {
	m := &image.Machine{
		PageSize:    uint32(procfs.PageSize),
		XsaveSize:   uint32(tracer.XstateSize()),
		XFeatures:   tracer.XFeatures(),
		CallProfile: profile,
	}
	copy(m.Arch[:], arch)
	code, err := resource.VDSO()
	if err != nil {
		return nil, err
	}
	m.VdsoSize, m.VdsoSum = uint32(len(code)), xxhash.Sum64(code)
	return m, nil
}

// readHead reads all that comes before the first task and returns what the
// image says of its machine and its processes.
func readHead(r *image.Reader) (fpu *image.HeadArch, machine *image.Machine, forest *forest, within *Container, err error) {
	if _, _, err = image.Expect[image.Head](r); err != nil {
		return
	}
	if fpu, _, err = image.Expect[image.HeadArch](r); err != nil {
		return
	}
	if machine, _, err = image.Expect[image.Machine](r); err != nil {
		return
	}
	tree, _, err := image.Expect[image.Tree](r)
	if err != nil {
		return
	}
	raw, err := r.RawHeld(int(tree.Tasks) * binary.Size(image.PIDs{}))
	if err != nil {
		return
	}
	pids, err := image.DecodePIDs(raw)
	if err == nil {
		forest, err = readForest(r, pids)
	}
	if err == nil {
		if forest.rewritten {
			raw = image.EncodePIDs(forest.saved(pids))
		}
		err = r.Settle(raw)
	}
	if err == nil {
		within, err = readContainer(r, forest)
	}
	return
}

// CheckMachine refuses an image that this machine cannot run, without looking
// at more than its head.
func CheckMachine(fpu *image.HeadArch, m, own *image.Machine) error {
	wrong := func(code fault.Code, format string, args ...any) error {
		return &fault.Error{Code: code, Object: "image", Detail: fmt.Sprintf(format, args...)}
	}
	switch {
	case unix.ByteSliceToString(m.Arch[:]) != arch:
		return wrong(fault.ImageArch, "%s", unix.ByteSliceToString(m.Arch[:]))
	case m.PageSize != own.PageSize:
		return wrong(fault.ImagePageSize, "%d bytes", m.PageSize)
	case m.CallProfile != 0 && m.CallProfile != profile:
		return wrong(fault.ImageProfile, "v%d", m.CallProfile)
	case m.XFeatures&^own.XFeatures != 0:
		return wrong(fault.ImageXsave, "state components %#x", m.XFeatures&^own.XFeatures)
	case fpu.HasFXSR != 1 || fpu.HasXsave != 1 || uint32(fpu.XstateSize) != m.XsaveSize:
		return wrong(fault.ImageXsave, "%d bytes", fpu.XstateSize)
	case m.VdsoSize != own.VdsoSize || m.VdsoSum != own.VdsoSum:
		return wrong(fault.ImageVdso, "of %d bytes, here %d", m.VdsoSize, own.VdsoSize)
	}
	return nil
}
