package resource

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// What lies on the page that the undo calls of ExpectChildren read.
const (
	undoNoTime  = 0                          // struct timespec: do not wait
	undoActions = undoNoTime + 16            // struct sigaction: the caller's for SIGCHLD, and the default one
	undoMasks   = undoActions + 2*actionSize // a set of one signal for each
	actionSize  = 4 * 8                      // of the kernel's: handler, flags, restorer, mask
)

// saNoCldWait has children that end leave no zombie (sigaction(2)).
const saNoCldWait = 2

// ExpectChildren prepares a caller for children that it did not make: those that
// end when the stage is undone must leave no signal behind, and those that are
// to be zombies must not vanish because the caller ignores SIGCHLD. The signals
// are those by which the end of a child is told, 0 for none, of each child. It
// comes before the first child.
func (b *Builder) ExpectChildren(signals []unix.Signal) error {
	at, err := b.lastingPage("what the end of children leaves")
	if err != nil {
		return err
	}
	if err := b.heedChildren(at.Start); err != nil {
		return fmt.Errorf("prepare %s for children: %w", b.Caller.Name(), err)
	}
	masks := make([]byte, 0, 8*nSignals)
	for sig := range nSignals {
		masks = binary.LittleEndian.AppendUint64(masks, 1<<sig)
	}
	if err := b.Tracee.WriteMem(at.Start+undoMasks, masks); err != nil {
		return err
	}
	pending := b.Caller.Status.SigPnd | b.Caller.Status.ShdPnd
	seen := uint64(0)
	for _, sig := range append(signals, unix.SIGCHLD) { // that of orphans, too
		bit := uint64(1) << (sig - 1)
		const firstQueued = 32 // those below are pending once, however often they are sent
		if sig == 0 || (pending|seen)&bit != 0 {
			continue
		}
		if sig < firstQueued {
			seen |= bit
		}
		set := uint64(at.Start) + undoMasks + 8*uint64(sig-1)
		if err := b.Remote.Undo(unix.SYS_RT_SIGTIMEDWAIT, set, 0, uint64(at.Start)+undoNoTime, 8); err != nil {
			return err
		}
	}
	return nil
}

// heedChildren gives SIGCHLD its default effect if the caller's has ended
// children vanish.
func (b *Builder) heedChildren(page tracer.Addr) error {
	now, byDefault := page+undoActions, page+undoActions+actionSize
	if _, err := b.Remote.Syscall(unix.SYS_RT_SIGACTION, uint64(unix.SIGCHLD), 0, uint64(now), 8); err != nil {
		return err
	}
	var action [actionSize]byte
	if err := b.Tracee.ReadMem(now, action[:]); err != nil {
		return err
	}
	const ignore = 1 // SIG_IGN
	if binary.LittleEndian.Uint64(action[:]) != ignore && binary.LittleEndian.Uint64(action[8:])&saNoCldWait == 0 {
		return nil
	}
	if err := b.Remote.Undo(unix.SYS_RT_SIGACTION, uint64(unix.SIGCHLD), uint64(now), 0, 8); err != nil {
		return err
	}
	_, err := b.Remote.Syscall(unix.SYS_RT_SIGACTION, uint64(unix.SIGCHLD), uint64(byDefault), 0, 8)
	return err
}

// lastingPage maps a page for what undo calls read: it must outlast every
// program. It goes with the stage, or at the end of the commit.
func (b *Builder) lastingPage(object string) (procfs.Range, error) {
	at, ok := b.Layout.Find(procfs.PageSize, 0, procfs.PageSize)
	if !ok {
		return at, &fault.Error{Code: fault.StageRoom, Object: b.Caller.Name()}
	}
	b.Layout.Occupy(at)
	b.lasting = append(b.lasting, at)
	b.Expect(b.Stage().Mmap(at, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE, tracer.FD(-1), 0),
		fault.StageMemory, object)
	return at, b.Flush()
}
