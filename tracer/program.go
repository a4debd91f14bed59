package tracer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// A Program is a list of system calls that the task makes in one go. It ends
// at the first error that is not tolerated.
//
// Strings, bytes and buffers lie in scratch memory. They stay until the
// program has run and another one is begun (or SendFD called). Move moves
// none of them.
type Program struct {
	r     *Remote
	rows  []*Row
	undos []*Undo
	data  []part
	err   error
	ran   bool
	last  *rowTable // once it has been started, what comes last of it
	inner bool
	area  *arena // where its data lies, nil for the loan's own
}

// Program begins a program. Run it, once; until then programs begun in
// between share scratch memory with it.
func (r *Remote) Program() *Program {
	if r.dead {
		panic("tracer: Remote used after its Inject")
	}
	r.settleRun()
	if r.unrun == 0 {
		r.data.reset()
	}
	r.unrun++
	return &Program{r: r}
}

// begin is Program for a program of our own that holds no data.
func (r *Remote) begin() *Program { return &Program{r: r, inner: true} }

func (p *Program) add(row *Row) *Row {
	row.p = p
	p.rows = append(p.rows, row)
	return row
}

// Call adds a system call with up to six arguments.
func (p *Program) Call(nr uintptr, args ...Arg) *Row {
	if len(args) > 6 {
		panic("tracer: more than six arguments")
	}
	return p.add(&Row{nr: uint64(nr), args: args})
}

// Store adds a row that makes no call, but stores what into the 8 bytes at
// to: a descriptor into a structure that a later call is given, say.
func (p *Program) Store(to Addr, what Arg) *Row {
	return p.add(&Row{nr: rowStore, args: []Arg{what, Ptr(to)}, ctl: ctlStore})
}

// Len is the number of rows added so far.
func (p *Program) Len() int { return len(p.rows) }

// Buffer reserves n bytes of undefined content, aligned to 16. After Run read
// them with Remote.ReadMem. If memory for them cannot be had, Run says so.
func (p *Program) Buffer(n uint64) Addr {
	if p.area != nil {
		addr, ok := p.area.take(n)
		if !ok {
			p.err = errors.Join(p.err, fmt.Errorf("data of %d bytes: %w", n, ErrFull))
		}
		return addr
	}
	addr, err := p.r.alloc(n)
	if err != nil {
		p.err = errors.Join(p.err, err)
	}
	return addr
}

// Bytes places a copy of b in the task, aligned to 16.
func (p *Program) Bytes(b []byte) Addr {
	addr := p.Buffer(uint64(len(b)))
	if p.err != nil {
		return 0
	}
	if n := len(p.data); n > 0 {
		last := &p.data[n-1]
		if gap := uint64(addr) - uint64(last.addr) - uint64(len(last.data)); gap < dataAlign {
			last.data = append(append(last.data, make([]byte, gap)...), b...)
			return addr
		}
	}
	p.data = append(p.data, part{addr, slices.Clone(b)})
	return addr
}

// String places s and a zero byte in the task.
func (p *Program) String(s string) Addr { return p.Bytes(append([]byte(s), 0)) }

// Run has the task make the calls. The error is that of the first row that
// failed (see Row.Err), ErrGone, a *FaultError, or says why the program could
// not be run at all. A program that does not fit the row table is run in
// pieces; the task stops in between.
func (p *Program) Run() error {
	if err := p.Start(); err != nil {
		return err
	}
	return p.Finish()
}

// Start is Run that does not wait for the end, so that other tasks can be worked
// on meanwhile. Finish must follow, and returns the error of Run; what else is done
// with the Remote waits for the end by itself, and takes the place of its buffers.
func (p *Program) Start() error {
	p.err = p.start()
	return p.err
}

func (p *Program) start() error {
	r := p.r
	if p.ran || p.area != nil {
		panic("tracer: Program run twice, or by another thread than its own")
	}
	p.ran = true
	if !p.inner {
		r.unrun--
		if err := r.ready(); err != nil {
			return err
		}
	}
	if p.err != nil {
		return p.err
	}
	before, err := p.prepare()
	if err != nil {
		return err
	}
	fit := int(r.at.rows.Len() / rowSize)
	rows := p.rows
	for ; len(rows) > fit; rows, before = rows[fit:], nil {
		part := &rowTable{rows: rows[:fit]}
		err := part.start(r, before)
		if err == nil {
			err = part.finish(r)
		}
		if err != nil {
			return r.e.fault("run program in", err)
		}
	}
	if len(rows) == 0 {
		return nil
	}
	p.last = &rowTable{rows: rows}
	if err := p.last.start(r, before); err != nil {
		return r.e.fault("run program in", err)
	}
	r.running = p
	return nil
}

// Finish waits for the end of a program that has been started.
func (p *Program) Finish() error {
	if p.r.running == p {
		p.r.running = nil
		p.err = p.r.e.fault("run program in", p.last.finish(p.r))
	}
	return p.err
}

// prepare returns what is to be written ahead of the first rows: undo rows,
// disarmed, and data.
func (p *Program) prepare() ([]part, error) {
	if len(p.undos) == 0 {
		return p.data, nil
	}
	addr, err := p.r.reserveUndo(len(p.undos))
	if err != nil {
		return nil, err
	}
	var rows []byte
	for i, u := range slices.Backward(p.undos) { // the last one lowest
		u.below = p.r.at.undo.End - addr - Addr((len(p.undos)-1-i)*rowSize)
		args := make([]uint64, len(u.args))
		for j, a := range u.args {
			if imm, ok := a.(Imm); ok {
				args[j] = uint64(imm)
			}
		}
		rows = append(rows, undoRow(harmless, args)...)
	}
	return append(p.r.undoParts(addr, rows), p.data...), nil
}

// rowTable is rows that fit the table, on their way.
type rowTable struct {
	rows   []*Row
	table  []byte
	cursor []byte
}

// start lets the task begin with them, when the parts have been written.
func (t *rowTable) start(r *Remote, parts []part) error {
	t.table = make([]byte, len(t.rows)*rowSize)
	for i, row := range t.rows {
		row.addr = r.at.rows.Start + Addr(i*rowSize)
		row.encode(t.table[i*rowSize:])
		if row.nr == unix.SYS_MREMAP {
			r.moved = true
		}
	}
	end := r.at.rows.Start + Addr(len(t.table))
	t.cursor = words(uint64(r.at.rows.Start), uint64(end))
	parts = append(slices.Clip(parts), part{r.at.rows.Start, t.table}, part{r.at.header.Start + headerRun, t.cursor})
	if err := r.e.transfer(unix.ProcessVMWritev, parts); err != nil {
		return err
	}
	return r.start(stubRun)
}

// finish waits for the task and reads what it has done.
func (t *rowTable) finish(r *Remote) error {
	if err := r.await(unix.PTRACE_CONT); err != nil {
		return err
	}
	rows, table, cursor := t.rows, t.table, t.cursor
	parts := []part{{r.at.header.Start + headerRun, cursor[:8]}, {r.at.rows.Start, table}}
	if err := r.e.transfer(unix.ProcessVMReadv, parts); err != nil {
		return err
	}
	done := int(binary.LittleEndian.Uint64(cursor)-uint64(r.at.rows.Start)) / rowSize
	if done < 0 || done > len(rows) {
		return fmt.Errorf("row cursor is damaged: %w", unix.ENOTRECOVERABLE)
	}
	for i, row := range rows[:min(done+1, len(rows))] {
		row.result = binary.LittleEndian.Uint64(table[i*rowSize+rowResult:])
		row.state = rowDone
		if i == done {
			row.state = rowFailed
		}
		r.traceRow(row)
	}
	if done < len(rows) {
		return rows[done].Err()
	}
	return nil
}

// Syscall is a program of one call.
func (r *Remote) Syscall(nr uintptr, args ...uint64) (uint64, error) {
	if err := r.ready(); err != nil {
		return 0, err
	}
	p := r.begin()
	row := p.Call(nr, immediates(args)...)
	err := p.Run()
	return row.Result(), err
}

func (r *Remote) traceRow(row *Row) {
	if r.e.t.Trace == nil || row.ctl&ctlStore != 0 {
		return
	}
	args := make([]uint64, len(row.args))
	for i := range args {
		args[i] = row.rawArg(i)
	}
	r.trace(row.nr, args, row.result, callErrno(row.result))
}
