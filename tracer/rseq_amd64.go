package tracer

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// RseqConfig is the restartable sequences area that a thread has registered.
// Pointer 0 means none.
type RseqConfig struct {
	Pointer   Addr
	Size      uint32
	Signature uint32
	Flags     uint32
}

// Offsets in struct rseq and struct rseq_cs of <linux/rseq.h>.
const (
	rseqCSPointer = 8
	rseqCSSize    = 32
)

// Rseq asks the kernel (since Linux 5.13) for the thread's registration.
func (e *Tracee) Rseq() (RseqConfig, error) {
	if err := e.ready(); err != nil {
		return RseqConfig{}, e.fault("read rseq of", err)
	}
	c, err := e.getRseq()
	return c, e.fault("read rseq of", err)
}

// RobustList is the head of the thread's list of robust futexes and its
// length in bytes, 0 if it has none (get_robust_list(2)).
func (e *Tracee) RobustList() (head Addr, length uint64, err error) {
	e.t.check()
	head, length, err = getRobustList(e.tid)
	return head, length, e.fault("read robust list of", err)
}

// abortRseq does what the kernel does on the way back to user space: a thread
// inside a critical section goes to the section's abort handler. The kernel
// decides by the instruction pointer, which we are about to borrow, and would
// miss it. The pointer is moved first: if we end between the two steps, the
// kernel clears rseq_cs by itself.
func (e *Tracee) abortRseq() error {
	c, err := e.getRseq()
	if errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) {
		return nil // no such request before Linux 5.13
	}
	if err != nil || c.Pointer == 0 {
		return err
	}
	var word [8]byte
	if err := e.readMem(c.Pointer+rseqCSPointer, word[:]); err != nil {
		return ignoreFault(err)
	}
	cs := Addr(binary.LittleEndian.Uint64(word[:]))
	if cs == 0 {
		return nil
	}
	var section [rseqCSSize]byte
	if err := e.readMem(cs, section[:]); err != nil {
		return ignoreFault(err)
	}
	start := binary.LittleEndian.Uint64(section[8:])
	length := binary.LittleEndian.Uint64(section[16:])
	abort := binary.LittleEndian.Uint64(section[24:])
	regs, err := e.getRegs()
	if err != nil || regs.Rip-start >= length {
		return err
	}
	regs.Rip, regs.Orig_rax = abort, noSyscall
	if err := e.setRegs(regs); err != nil {
		return err
	}
	if err := e.writeMem(c.Pointer+rseqCSPointer, make([]byte, 8)); err != nil {
		return fmt.Errorf("clear rseq_cs: %w", err)
	}
	return nil
}

// ignoreFault drops a pointer that leads nowhere: the kernel will end the
// task for it, which is between the two of them.
func ignoreFault(err error) error {
	if errors.Is(err, unix.EFAULT) {
		return nil
	}
	return err
}
