package tracer

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// An Undo is a call registered to take another one back.
type Undo struct {
	r     *Remote
	nr    uint64
	args  []Arg
	below Addr // where its row begins, counted down from the end of the table
	gen   int  // of the table's content
}

// harmless stands in the row of an Undo that must not be made.
const harmless = unix.SYS_GETPID

// Undo registers a system call to be made, its errors ignored, when fn fails
// or we end. The last one registered is made first. The error is ErrFull if
// there are too many.
func (r *Remote) Undo(nr uintptr, args ...uint64) error {
	if err := r.ready(); err != nil {
		return err
	}
	addr, err := r.reserveUndo(1)
	if err != nil {
		return err
	}
	return r.e.fault("register undo in", r.e.transfer(unix.ProcessVMWritev, r.undoParts(addr, undoRow(uint64(nr), args))))
}

// reserveUndo returns the address of the lowest of n new rows.
func (r *Remote) reserveUndo(n int) (Addr, error) {
	need := Addr(n * rowSize)
	if r.undo-r.at.undo.Start < need {
		return 0, fmt.Errorf("register undo: %w", ErrFull)
	}
	return r.undo - need, nil
}

// undoParts puts rows at addr into the table. The cursor is moved behind
// them, in one go, such that the task never sees half a row.
func (r *Remote) undoParts(addr Addr, rows []byte) []part {
	r.undo = addr
	return []part{{addr, rows}, {r.at.header.Start + headerUndo, words(uint64(addr), uint64(r.undoEnd))}}
}

func undoRow(nr uint64, args []uint64) []byte {
	row := make([]byte, rowSize)
	binary.LittleEndian.PutUint64(row, nr)
	for i, a := range args {
		binary.LittleEndian.PutUint64(row[rowArgs+8*i:], a)
	}
	binary.LittleEndian.PutUint64(row[rowCtl:], ctlTolerate)
	return row
}

// Keep drops all registered undo calls: what was done so far stays.
func (r *Remote) Keep() error {
	if err := r.ready(); err != nil {
		return err
	}
	return r.e.fault("keep changes of", r.keep())
}

func (r *Remote) keep() error {
	if r.undo == r.at.undo.End {
		return nil
	}
	err := r.e.writeMem(r.at.header.Start+headerUndo, words(uint64(r.at.undo.End)))
	if err == nil {
		r.dropUndo()
		r.data.loosen()
	}
	return err
}

// rollback has the task make the undo calls. The stub drops each as it goes.
func (r *Remote) rollback() error {
	if r.undo == r.at.undo.End {
		return nil
	}
	r.trace1("undo")
	if err := r.run(stubRollback); err != nil {
		return fmt.Errorf("undo: %w", err)
	}
	r.dropUndo()
	r.data.undone()
	return nil
}

// dropUndo notes that the table in the task is empty.
func (r *Remote) dropUndo() {
	r.undo, r.undoEnd = r.at.undo.End, r.at.undo.End
	r.undoGen++
}

// Undo registers a call that takes this one back; see Remote.Undo. Its
// arguments may be this row or others of the program. It counts only once
// this row has succeeded, from that very moment. Call it before the next row
// is added.
func (row *Row) Undo(nr uintptr, args ...Arg) *Undo {
	p := row.p
	u := &Undo{r: p.r, nr: uint64(nr), args: args, gen: p.r.undoGen}
	p.undos = append(p.undos, u)
	for i, a := range args {
		if _, immediate := a.(Imm); !immediate {
			p.add(&Row{nr: rowStore, args: []Arg{a, undoField{u, rowArgs + 8*i}}, ctl: ctlStore})
		}
	}
	p.add(&Row{nr: rowStore, args: []Arg{Imm(nr), undoField{u, 0}}, ctl: ctlStore})
	return u
}

// Forget drops one registered call, from this place of the program on: it
// belongs right behind the call that makes it wrong. After Keep or Become
// there is nothing to drop.
func (p *Program) Forget(u *Undo) {
	if u.gen != p.r.undoGen {
		return
	}
	p.add(&Row{nr: rowStore, args: []Arg{Imm(harmless), undoField{u, 0}}, ctl: ctlStore})
}

// undoField is the address of a word of an undo row.
type undoField struct {
	u      *Undo
	offset int
}

func (f undoField) word() (uint64, bool) {
	return uint64(f.u.r.at.undo.End-f.u.below) + uint64(f.offset), false
}
