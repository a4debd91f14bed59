package resource

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
)

// control is the controlling terminal of a process, which is that of its
// session. One whose master is in the tree is made that again by the leader of
// the session; of any other it is noted how it was.
var control = Part{
	Name:    "controlling terminal",
	Support: Partial,
	Note: "One whose master is in the tree, as that of tmux or script, is the controlling terminal of its session again, with its " +
		"foreground process group. Any other is that of whoever restarts the tree; `crshim restart` gives it the settings that " +
		"the old one had, and to the process the group that it led. Refused: the first process's own, if it has the master itself, " +
		"and one from outside of a further session.",
	Records: []image.Spec{
		image.Row[controlRecord](controlKind, "CONTROL", image.InTask, "the controlling terminal of a task that has one", image.Times(image.AtMostOncePerTask)),
	},
	Save:    func() Saving { return controlSave{} },
	Restore: func() Restoring { return new(controlRestore) },
}

const controlKind image.Kind = 6446

type controlRecord struct {
	Terminal   uint32   `doc:"reference of the terminal, 0 of one from outside"`
	Foreground int32    `doc:"its foreground process group, 0 if nobody is in that who was saved"`
	Known      uint32   `doc:"1 if what follows is known: for the first task, of a terminal from outside"`
	InputMode  uint32   `fmt:"oct" doc:"c_iflag of termios(3)"`
	OutputMode uint32   `fmt:"oct" doc:"c_oflag"`
	Local      uint32   `fmt:"oct" doc:"c_lflag"`
	Chars      [19]byte `fmt:"hex" doc:"c_cc"`
	_          [5]byte
}

// controlIndex is the number in /dev/pts of the controlling terminal, if its
// master is in the tree.
func (v *View) controlIndex() (int, bool) {
	index := slaveIndexOf(uint64(uint32(v.Stat.TTY)))
	if v.Stat.TTY == 0 || index < 0 {
		return -1, false
	}
	return index, v.masterInside(index)
}

func (v *View) masterInside(index int) bool {
	for _, o := range v.together() {
		if masterOf(o, index) >= 0 {
			return true
		}
	}
	return false
}

type controlSave struct{ nothingToAsk }

func (controlSave) Survey(v *View) fault.List {
	if v.Stat.TTY == 0 || v.External {
		return nil
	}
	root := v.together()[0]
	if _, inside := v.controlIndex(); inside || v.Stat.Session == root.Stat.Session {
		return nil // what of the tree's own cannot be saved the terminal is asked about
	}
	return fault.List{{Code: fault.ControlOutside, Object: v.Name(), Detail: fmt.Sprintf("session %d", v.Stat.Session)}}
}

// Answered refuses what the terminal has not been saved of, by now: it would be
// one without its session.
func (controlSave) Answered(s *Saver) error {
	index, inside := s.controlIndex()
	if inside && s.tree.savers[s.together()[0]].ptys[index] == nil {
		return &fault.Error{Code: fault.ControlOutside, Object: s.Name(), Detail: fmt.Sprintf("/dev/pts/%d is not saved itself", index)}
	}
	return nil
}

func (controlSave) Dump(s *Saver) error {
	if s.Stat.TTY == 0 {
		return nil
	}
	rec := controlRecord{Foreground: s.foreground()}
	if index, inside := s.controlIndex(); inside {
		ref, _ := s.Objects.Add(object.Inode, ptyID(index)) // saved with the first process
		rec.Terminal = uint32(ref)
	} else if s.Stat.Session != s.together()[0].Stat.Session {
		return nil // saved as external
	} else if s.View == s.together()[0] {
		if err := rec.look(s.View); err != nil {
			return fmt.Errorf("look at the controlling terminal: %w", err)
		}
	}
	return s.W.Put(s.vpid(), &rec)
}

// foreground is the number, in the pid namespace of the first process, of the
// foreground process group of its terminal.
func (v *View) foreground() int32 {
	all := v.together()
	level := len(all[0].Status.NStgid) - 1
	for _, o := range all {
		if o.Stat.Pgrp == v.Stat.TPgid {
			return int32(o.Status.NSpgid[level])
		}
	}
	return 0
}

// look asks a terminal from outside, by any descriptor of it.
func (rec *controlRecord) look(v *View) error {
	for _, o := range v.together() {
		for i := range o.FDs {
			f := &o.FDs[i]
			if !isTerminal(f) || f.Rdev != uint64(uint32(v.Stat.TTY)) || f.Flags&unix.O_PATH != 0 {
				continue
			}
			fd, err := o.duplicate(f.Number)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			settings, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
			if err != nil {
				return nil // it has been hung up: nobody will miss the settings
			}
			rec.Known = 1
			rec.InputMode, rec.OutputMode, rec.Local, rec.Chars = settings.Iflag, settings.Oflag, settings.Lflag, settings.Cc
			return nil
		}
	}
	return nil
}

type controlRestore struct{}

// loadedControl is what the image says of the controlling terminal.
type loadedControl struct {
	controlRecord
	pty *stagedPty // nil of one from outside
}

func (*controlRestore) Load(b *Builder) error {
	next, err := b.R.Peek()
	if err != nil || next != controlKind {
		return err
	}
	rec, _, err := image.Expect[controlRecord](b.R)
	if err != nil {
		return err
	}
	if rec.Foreground < 0 || rec.Known > 1 || rec.Terminal != 0 && b.parent == nil {
		return badImage(fault.ImageValue, "controlling terminal", "%d, foreground group %d", rec.Terminal, rec.Foreground)
	}
	loaded := &loadedControl{controlRecord: *rec}
	if rec.Terminal != 0 {
		loaded.pty, err = sharedInode(b, object.Ref(rec.Terminal), func(ref object.Ref) (*stagedPty, error) {
			return nil, badImage(fault.ImageValue, "controlling terminal", "%d is not in the image", ref)
		})
		if err != nil {
			return err
		}
	}
	b.control = loaded
	return nil
}

func (*controlRestore) Commit(*Builder, *tracer.Program) error { return nil }

// TakeTerminal makes the terminal of the tree that was the controlling terminal
// of a process that of its session, which it must have begun to lead. Children
// have it from then on.
func (b *Builder) TakeTerminal() error {
	if b.control == nil || b.control.pty == nil {
		return nil
	}
	return b.onTerminal(b.control.pty, unix.TIOCSCTTY, tracer.Imm(0))
}

// InheritTerminal adjusts what a new process has from the one whose session it is in:
// it may have given up its terminal (TIOCNOTTY).
func (b *Builder) InheritTerminal(leader *Builder) error {
	if leader.control == nil || leader.control.pty == nil || b.control != nil {
		return nil
	}
	return b.onTerminal(leader.control.pty, unix.TIOCNOTTY, tracer.Imm(0))
}

// Foreground is the process group that was in the foreground of the terminal of
// the tree that a process controls, 0 if it is not known.
func (b *Builder) Foreground() int32 {
	if b.control == nil || b.control.pty == nil {
		return 0
	}
	return b.control.Foreground
}

// TerminalSettings is what the terminal of the first process was like, when a
// group of the tree had its foreground.
type TerminalSettings struct {
	Foreground int32 // that group, as it was
	Known      bool  // and so are the fields of termios(3), as far as they are not about a line
	InputMode  uint32
	OutputMode uint32
	Local      uint32
	Chars      [19]byte
}

// Outside returns the settings of the terminal from outside, nil if there was
// none, or if the tree was in the background.
func (b *Builder) Outside() *TerminalSettings {
	c := b.control
	if c == nil || c.pty != nil || c.controlRecord.Foreground == 0 {
		return nil
	}
	return &TerminalSettings{c.controlRecord.Foreground, c.Known != 0, c.InputMode, c.OutputMode, c.Local, c.Chars}
}

// SetForeground puts a group of the session into the foreground.
func (b *Builder) SetForeground(group uint64) error {
	var number [4]byte
	binary.LittleEndian.PutUint32(number[:], uint32(group))
	p := b.Stage()
	b.Expect(p.Ioctl(b.control.pty.slave.fd, unix.TIOCSPGRP, tracer.Ptr(p.Bytes(number[:]))), fault.ControlFailed, b.control.pty.slave.path)
	return b.Flush()
}

func (b *Builder) onTerminal(t *stagedPty, request uint64, arg tracer.Arg) error {
	b.Expect(b.Stage().Ioctl(t.slave.fd, request, arg), fault.ControlFailed, t.slave.path)
	return b.Flush()
}
