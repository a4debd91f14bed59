package tracer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer/procfs"
)

// Siblings are the other threads of a borrowed process: those that it has
// (Visit), or new ones (Spawn). Each runs a program of its own, all at the
// same time, in a region of memory that they share:
//
//	code | the word that all wait for, a timeout | a block for each
//
// The thread that is borrowed leads them by that word. If we end, it tells
// them, by the undo call that is registered for it, to end or to go on, and the
// region stays behind.
type Siblings struct {
	r        *Remote
	region   Range
	stride   uint64
	tasks    []*Tracee
	programs []*Program
	arenas   []arena
	lead     *Undo // of the word
}

// Values of the word.
const (
	siblingsWait  = 0
	siblingsRun   = 1
	siblingsEnd   = 2
	siblingsLeave = 3
)

const (
	siblingRows = 128     // that the program of a sibling may have
	siblingData = 2 << 10 // bytes of its data
	headOfWord  = 64      // bytes between the code page and the first block
)

// SiblingsSize is how much address space n siblings need, in bytes.
func SiblingsSize(n int) uint64 {
	size := procfs.PageSize + headOfWord + uint64(n)*blockSize()
	return (size + procfs.PageSize - 1) &^ (procfs.PageSize - 1)
}

func blockRows() uint64 { return (blockXstate + uint64(XstateSize()) + 4 + 63) &^ 63 }

func blockSize() uint64 { return (blockRows() + siblingRows*rowSize + siblingData + 63) &^ 63 }

// mapSiblings maps the region, at an address from choosePlace, and writes what
// is in it but for the blocks.
func (r *Remote) mapSiblings(at Addr, n int, word uint32) (*Siblings, error) {
	size := SiblingsSize(n)
	p := r.begin()
	m := p.Call(unix.SYS_MMAP, immediates(mmapArgs(at, size))...)
	if err := p.Run(); err != nil {
		return nil, mapError("memory of siblings", err)
	}
	s := &Siblings{r: r, region: Range{Start: Addr(m.Result()), End: Addr(m.Result() + size)}, stride: blockSize()}
	s.programs, s.arenas = make([]*Program, n), make([]arena, n)
	if err := s.fill(word); err != nil {
		return nil, errors.Join(err, s.unmap())
	}
	return s, nil
}

// fill writes the code and the head of the region.
func (s *Siblings) fill(word uint32) error {
	p := s.r.begin()
	p.Call(unix.SYS_MMAP, immediates(codeArgs(s.region.Start))...)
	if err := p.Run(); err != nil {
		return fmt.Errorf("map code of siblings: %w", err)
	}
	if err := s.r.e.pokeMem(s.region.Start, siblingCode); err != nil {
		return fmt.Errorf("write code of siblings: %w", err)
	}
	timeout := unix.NsecToTimespec(siblingPatience)
	return s.r.e.writeMem(s.word(), words(uint64(word), uint64(timeout.Sec), uint64(timeout.Nsec)))
}

func (s *Siblings) word() Addr    { return s.region.Start + Addr(procfs.PageSize) }
func (s *Siblings) timeout() Addr { return s.word() + 8 }
func (s *Siblings) block(i int) Addr {
	return s.word() + headOfWord + Addr(uint64(i)*s.stride)
}

// Region is where they have their memory.
func (s *Siblings) Region() Range { return s.region }

// Tasks are the threads, stopped after Visit and Settle.
func (s *Siblings) Tasks() []*Tracee { return s.tasks }

// Program begins the program of one sibling: at most 128 rows, whose arguments
// are immediate, and 2 KiB of data, which stay readable until Close.
func (s *Siblings) Program(i int) *Program {
	rows := s.block(i) + Addr(blockRows())
	data := Range{Start: rows + siblingRows*rowSize, End: s.block(i) + Addr(s.stride)}
	s.arenas[i] = arena{areas: []Range{data}, next: data.Start}
	s.programs[i] = &Program{r: s.r, area: &s.arenas[i]}
	return s.programs[i]
}

// telling are the arguments of a futex(2) that sets the word and wakes all who
// wait for it (FUTEX_WAKE_OP).
func (s *Siblings) telling(word uint32) []Arg {
	const wakeOp, all, never = 5, 1<<31 - 1, 0xfff
	return []Arg{Ptr(s.word()), Imm(wakeOp), Imm(all), Imm(all), Ptr(s.word()), Imm(uint64(word)<<12 | never)}
}

// write fills the blocks: what each is to run, and the state with which it goes
// on by itself.
func (s *Siblings) write(states []State) error {
	var parts []part
	for i, state := range states {
		block, p := s.block(i), s.programs[i]
		if p == nil {
			p = s.Program(i)
		}
		// The alternate stack is whatever it is when the rows have been run.
		p.Sigaltstack(0, block+blockContext+contextStack).Tolerate()
		switch {
		case p.err != nil:
			return p.err
		case len(p.rows) > siblingRows:
			return fmt.Errorf("program of %d rows: %w", len(p.rows), ErrFull)
		case len(p.undos) > 0:
			panic("tracer: Undo in the program of a sibling")
		}
		at := block + Addr(blockRows())
		table := make([]byte, len(p.rows)*rowSize)
		for k, row := range p.rows {
			row.addr = at + Addr(k*rowSize)
			row.encode(table[k*rowSize:])
			if row.ctl != 0 && row.ctl != ctlTolerate || binary.LittleEndian.Uint64(table[k*rowSize+rowCtl:])&0xff != 0 {
				panic("tracer: the program of a sibling is of plain calls")
			}
		}
		head := words(uint64(s.region.Start+siblingSpawned), uint64(s.word()), uint64(at), uint64(at)+uint64(len(table)),
			uint64(state.Regs.SP())-redZone, 0)
		parts = append(parts, part{block, head},
			part{block + blockContext, contextOf(state, block+blockXstate)},
			part{block + blockXstate, fpstateOf(state.Xstate)},
			part{at, table})
		parts = append(parts, p.data...)
	}
	return s.r.e.transfer(unix.ProcessVMWritev, parts)
}

// siblingPatience is how long the borrowed thread waits for a sibling before we
// look whether that has stopped for a signal, in nanoseconds.
const siblingPatience = 20e6

// await lets the borrowed thread wait until all siblings have run their rows,
// and reads the results. Signals that stop one meanwhile are held back.
func (s *Siblings) await() error {
	for {
		p := s.r.begin()
		for i := range s.tasks {
			const wait = 0
			p.Call(unix.SYS_FUTEX, Ptr(s.block(i)+blockReady), Imm(wait), Imm(0), Ptr(s.timeout())).Tolerate()
		}
		if err := p.Run(); err != nil {
			return err
		}
		ready := make([]part, len(s.tasks))
		for i := range ready {
			ready[i] = part{s.block(i) + blockReady, make([]byte, 4)}
		}
		if err := s.r.e.transfer(unix.ProcessVMReadv, slices.Clone(ready)); err != nil {
			return err
		}
		done := true
		for i, e := range s.tasks {
			if ready[i].data[0] != 0 {
				continue
			}
			done = false
			if err := s.pass(e); err != nil {
				return err
			}
		}
		if done {
			return s.results()
		}
	}
}

// pass lets a sibling that has stopped for a signal go on without it.
func (s *Siblings) pass(e *Tracee) error {
	stop, ok, err := e.poll(unix.WNOHANG)
	switch {
	case err != nil || !ok:
		return err
	case stop.Gone():
		return ErrGone
	}
	if err := s.hold(e, stop); err != nil {
		return err
	}
	return e.resume(unix.PTRACE_CONT, 0)
}

// hold takes note of the signal that a sibling has stopped for, if it has.
func (s *Siblings) hold(e *Tracee, stop Stop) error {
	if stop.Kind != SignalStop {
		return nil
	}
	info, err := e.getSiginfo()
	if err != nil {
		return err
	}
	if info.Code() > 0 && synchronous(stop.Signal) {
		ip, err := e.peekUser(offsetRIP)
		return errors.Join(&FaultError{Signal: stop.Signal, IP: Addr(ip)}, err)
	}
	s.r.held = append(s.r.held, info)
	return nil
}

// results reads what the rows have returned. The error is that of the first
// row that failed.
func (s *Siblings) results() error {
	tables := make([]part, 0, 2*len(s.tasks))
	for i := range s.tasks {
		rows := s.programs[i].rows
		tables = append(tables, part{s.block(i) + blockRun, make([]byte, 8)},
			part{rows[0].addr, make([]byte, len(rows)*rowSize)})
	}
	if err := s.r.e.transfer(unix.ProcessVMReadv, slices.Clone(tables)); err != nil {
		return err
	}
	var errs []error
	for i, e := range s.tasks {
		rows := s.programs[i].rows
		table := tables[2*i+1].data
		done := int(binary.LittleEndian.Uint64(tables[2*i].data)-uint64(rows[0].addr)) / rowSize
		for k, row := range rows[:min(done+1, len(rows))] {
			row.result = binary.LittleEndian.Uint64(table[k*rowSize+rowResult:])
			row.state = rowDone
			if k == done {
				row.state = rowFailed
			}
		}
		if done < len(rows) {
			errs = append(errs, e.fault("run program in", rows[done].Err()))
		}
	}
	return errors.Join(errs...)
}

// halt brings all siblings to a stop where they wait.
func (s *Siblings) halt() error {
	for _, e := range s.tasks {
		if err := ptraceValue(unix.PTRACE_INTERRUPT, e.tid, 0, 0); err != nil {
			return e.fault("interrupt", err)
		}
	}
	for _, e := range s.tasks {
		for {
			stop, err := e.waitNext(-1)
			if err != nil || stop.Gone() {
				return errors.Join(err, ErrGone)
			}
			if stop.Kind == EventStop {
				break
			}
			if err := errors.Join(s.hold(e, stop), e.Interrupt(), e.resume(unix.PTRACE_CONT, 0)); err != nil {
				return err
			}
		}
	}
	return nil
}

// give gives each sibling the state with which it goes on. Until its
// registers are set, each would take it on by itself.
func (s *Siblings) give(states []State, xstate bool) error {
	for i, e := range s.tasks {
		if xstate && states[i].Xstate != nil {
			if err := e.SetXstate(states[i].Xstate); err != nil {
				return err
			}
		}
		err := e.setSigmask(states[i].Sigmask)
		if err == nil {
			err = e.setRegs(states[i].Regs)
		}
		if err != nil {
			return e.fault("give state to", err)
		}
	}
	return nil
}

// unmap gives the region back.
func (s *Siblings) unmap() error {
	p := s.r.begin()
	p.Munmap(s.region)
	return p.Run()
}
