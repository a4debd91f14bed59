package tracer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// An Arg is an argument of a system call in a program: an Imm, an FD, a *Row
// (what that earlier call returned) or a Cell.
type Arg interface {
	// word returns what stands in the row, and whether that is the address
	// of the argument and not the argument.
	word() (w uint64, cell bool)
}

// Imm is an argument that is known beforehand.
type Imm uint64

// Cell is the address of 8 bytes in the task that will hold the argument. A
// call that takes an int looks at the first 4 of them.
type Cell Addr

// Int is Imm for a signed number.
func Int(v int) Imm { return Imm(int64(v)) }

// Ptr is Imm for an address.
func Ptr(a Addr) Imm { return Imm(a) }

func (i Imm) word() (uint64, bool) { return uint64(i), false }

func (f FD) word() (uint64, bool) { return uint64(int64(f)), false }

func (c Cell) word() (uint64, bool) { return uint64(c), true }

func (row *Row) word() (uint64, bool) {
	if row.state == rowDone {
		return row.result, false
	}
	return uint64(row.addr + rowResult), true
}

func immediates(words []uint64) []Arg {
	args := make([]Arg, len(words))
	for i, w := range words {
		args[i] = Imm(w)
	}
	return args
}

// A Row is one system call of a program.
type Row struct {
	p      *Program
	nr     uint64
	args   []Arg
	ctl    uint64
	addr   Addr // in the row table, while its part of the program runs
	state  rowState
	result uint64
}

type rowState uint8

const (
	rowPending rowState = iota
	rowDone
	rowFailed
)

// rowStore stands for the number of a row that makes no call.
const rowStore = ^uint64(0)

var errNotRun = errors.New("call has not been made")

// Tolerate lets the program go on if this call fails. Err tells.
func (row *Row) Tolerate() *Row {
	row.ctl |= ctlTolerate
	return row
}

// Full repeats a call of the shape of read, write, pread64 or pwrite64 (buffer
// second, length third, offset fourth) with what remains until all bytes have
// moved. If it returns 0 before that the program ends with ErrShort.
func (row *Row) Full() *Row {
	row.ctl |= ctlFull
	return row
}

// Result is what the call returned: of a full transfer the sum of bytes.
// It is 0 before the program has run.
func (row *Row) Result() uint64 { return row.result }

// FD is Result as a descriptor.
func (row *Row) FD() FD { return FD(int32(row.result)) }

// Err is nil if the call was made and succeeded, else a *CallError, ErrShort,
// or an error that says that the program did not come this far.
func (row *Row) Err() error {
	switch {
	case row.state == rowPending:
		return errNotRun
	case row.ctl&ctlStore != 0:
		return nil
	}
	if errno := callErrno(row.result); errno != nil {
		return row.callError(errno.(unix.Errno))
	}
	if row.state == rowFailed {
		return fmt.Errorf("%s of %d bytes, %d done: %w", syscallName(row.nr), row.rawArg(2), row.result, ErrShort)
	}
	return nil
}

func (row *Row) callError(errno unix.Errno) error {
	args := make([]uint64, len(row.args))
	for i := range args {
		args[i] = row.rawArg(i)
	}
	return &CallError{NR: row.nr, Name: syscallName(row.nr), Args: args, Row: slices.Index(row.p.rows, row), Errno: errno}
}

func (row *Row) rawArg(i int) uint64 {
	if i >= len(row.args) {
		return 0
	}
	w, _ := row.args[i].word()
	return w
}

// encode writes the row as the stub reads it. Results of calls that have been
// made are known by now.
func (row *Row) encode(b []byte) {
	ctl := row.ctl
	if ctl&ctlStore == 0 {
		binary.LittleEndian.PutUint64(b, row.nr)
	}
	for i, a := range row.args {
		w, cell := a.word()
		if cell {
			ctl |= 1 << i
		}
		binary.LittleEndian.PutUint64(b[rowArgs+8*i:], w)
	}
	binary.LittleEndian.PutUint64(b[rowCtl:], ctl)
}
