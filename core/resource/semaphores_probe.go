package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer"
)

// What the kernel would do to a semaphore when a process ends cannot be read, but
// an operation with SEM_UNDO that would bring it out of its range, -32768 to 32767,
// fails with ERANGE. So operations are tried that end with one that can never be done:
// semop(2) does all or none. Those before it move the adjustment, and not the value:
// each with SEM_UNDO is followed by its opposite without. ERANGE tells that the
// adjustment is beyond a bound, EAGAIN that it is not, and in either case nothing has
// happened (ipc/sem.c, perform_atomic_semop_slow).
//
// Others may change the value meanwhile, if they are not frozen: so the steps leave
// it room, upwards or downwards. In the end both bounds are asked about, and only
// ERANGE counts: EAGAIN can also come of a value that has changed by thousands.

// semProbe asks about the adjustment of a semaphore.
type semProbe struct {
	number, value int
	above         bool // whether it is above the bound, else below
	bound         int
}

// ops are the operations.
func (q semProbe) ops() (ops []semOp) {
	const step = 8000
	add := func(by int, flags int16) {
		ops = append(ops, semOp{uint16(q.number), by, unix.IPC_NOWAIT | flags})
	}
	move, sign := q.bound+semMost+1, 1 // below: adjustment - move < -32768
	if q.above {
		move, sign = semMost-q.bound, -1 // above: adjustment + move > 32767
	}
	for ; move > 0; move -= step {
		by := sign * min(move, step)
		if up := q.value <= semMost/2; up == (by > 0) {
			add(by, semUndo)
			add(-by, 0)
		} else {
			add(-by, 0)
			add(by, semUndo)
		}
	}
	add(-semMost, 0) // no value is so large
	add(-1, 0)       // that both can be done
	return ops
}

// semBatch is how much is asked by one program.
const semBatch = 64

// probe asks, and tells what is so for sure.
func (s *Saver) probe(id uint32, asked []semProbe) ([]bool, error) {
	beyond := make([]bool, len(asked))
	for from := 0; from < len(asked); from += semBatch {
		batch := asked[from:min(from+semBatch, len(asked))]
		p := s.Remote.Program()
		rows := make([]*tracer.Row, len(batch))
		for i, q := range batch {
			ops := q.ops()
			rows[i] = p.Call(unix.SYS_SEMOP, tracer.Imm(uint64(id)), tracer.Ptr(p.Bytes(semOps(ops))), tracer.Int(len(ops))).Tolerate()
		}
		if err := p.Run(); err != nil {
			return nil, err
		}
		for i, row := range rows {
			switch err := row.Err(); {
			case errors.Is(err, unix.ERANGE):
				beyond[from+i] = true
			case !errors.Is(err, unix.EAGAIN):
				return nil, fmt.Errorf("semop: %w", err)
			}
		}
	}
	return beyond, nil
}

// fetch reads the values of semaphores.
func (s *Saver) fetch(set semSet, ranges []*semRange) error {
	const getAll = 13
	p := s.Remote.Program()
	buf := p.Buffer(2 * uint64(set.size))
	sysvSem.control(p, tracer.Imm(uint64(set.ID)), getAll, tracer.Ptr(buf))
	if err := p.Run(); err != nil {
		return err
	}
	raw := make([]byte, 2*set.size)
	if err := s.Remote.ReadMem(buf, raw); err != nil {
		return err
	}
	for _, r := range ranges {
		r.value, r.least = int(binary.LittleEndian.Uint16(raw[2*r.number:])), 0
	}
	return nil
}

// adjustments finds those of a set that are not 0.
func (s *Saver) adjustments(set semSet) (*semUndoRecord, error) {
	if set.size > maxSems {
		return nil, fmt.Errorf("%d semaphores", set.size)
	}
	rec := &semUndoRecord{ID: set.ID, Key: set.Key}
	all := make([]*semRange, set.size)
	for i := range all {
		all[i] = &semRange{number: i}
	}
	// What others have changed too much meanwhile is asked about again.
	for left := 8; len(all) > 0; left-- {
		if left == 0 {
			return nil, fmt.Errorf("semaphore %d: others use it all the time", all[0].number)
		}
		if err := s.fetch(set, all); err != nil {
			return nil, err
		}
		adjusted, err := s.notExactly(set.ID, all)
		if err != nil {
			return nil, err
		}
		if err := s.search(set.ID, adjusted); err != nil {
			return nil, err
		}
		if all, err = s.notExactly(set.ID, adjusted); err != nil {
			return nil, err
		}
		for _, r := range adjusted {
			if r.least != 0 && !slices.Contains(all, r) {
				rec.Adjustments = append(rec.Adjustments, semAdjustment{Number: uint16(r.number), Value: uint16(r.value), By: int16(r.least)})
			}
		}
	}
	if n := len(rec.Adjustments); n > maxAdjustments {
		return nil, fmt.Errorf("%d adjustments", n)
	}
	slices.SortFunc(rec.Adjustments, func(a, b semAdjustment) int { return int(a.Number) - int(b.Number) })
	return rec, nil
}

// search narrows the ranges down to one number each.
func (s *Saver) search(id uint32, ranges []*semRange) error {
	for _, r := range ranges {
		r.least, r.most = -semMost-1, semMost
	}
	for range 16 { // halves of 65536
		var asked []semProbe
		for _, r := range ranges {
			asked = append(asked, semProbe{r.number, r.value, false, r.middle()})
		}
		below, err := s.probe(id, asked)
		if err != nil {
			return err
		}
		for i, r := range ranges {
			if below[i] {
				r.most = r.middle() - 1
			} else {
				r.least = r.middle()
			}
		}
	}
	return nil
}

// semRange is where the adjustment of a semaphore lies.
type semRange struct{ number, value, least, most int }

func (r *semRange) middle() int { return r.least + (r.most-r.least+1)/2 }

// notExactly are those whose adjustment is another one, or is not known to be the least
// of its range.
func (s *Saver) notExactly(id uint32, ranges []*semRange) (others []*semRange, err error) {
	var asked []semProbe
	for _, r := range ranges {
		asked = append(asked, semProbe{r.number, r.value, false, r.least + 1}, semProbe{r.number, r.value, true, r.least - 1})
	}
	is, err := s.probe(id, asked)
	if err != nil {
		return nil, err
	}
	for i, r := range ranges {
		if !is[2*i] || !is[2*i+1] {
			others = append(others, r)
		}
	}
	return others, nil
}
