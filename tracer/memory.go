package tracer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// maxIovecs is UIO_MAXIOV of <linux/uio.h>.
const maxIovecs = 1024

// A part is bytes of ours and where they are, or are to be, in the task.
type part struct {
	addr Addr
	data []byte
}

// ReadMem fills buf from the task's memory at addr, whole or with an error
// (EFAULT where a page is missing or may not be read).
func (e *Tracee) ReadMem(addr Addr, buf []byte) error {
	err := e.ready()
	if err == nil {
		err = e.readMem(addr, buf)
	}
	return e.fault(fmt.Sprintf("read %d bytes at %v of", len(buf), addr), err)
}

// WriteMem writes all of buf to the task's memory at addr. Where a page may
// not be written the error is EFAULT, and what lies before it is written.
func (e *Tracee) WriteMem(addr Addr, buf []byte) error {
	err := e.ready()
	if err == nil {
		err = e.writeMem(addr, buf)
	}
	return e.fault(fmt.Sprintf("write %d bytes at %v of", len(buf), addr), err)
}

// ReadV fills buf with the content of the ranges, one behind the other.
func (e *Tracee) ReadV(ranges []Range, buf []byte) error {
	err := e.ready()
	parts := make([]part, 0, len(ranges))
	for _, r := range ranges {
		n := r.Len()
		if n > uint64(len(buf)) {
			err = errors.Join(err, fmt.Errorf("buffer is too short for %v", r))
			break
		}
		parts = append(parts, part{r.Start, buf[:n]})
		buf = buf[n:]
	}
	if err == nil {
		err = e.transfer(unix.ProcessVMReadv, parts)
	}
	return e.fault("read memory of", err)
}

// PokeMem writes buf even to pages that the task itself may not write, as a
// debugger sets breakpoints: a private page is copied first, a shared one is
// refused with EFAULT, as is a missing one.
func (e *Tracee) PokeMem(addr Addr, buf []byte) error {
	err := e.ready()
	if err == nil {
		err = e.pokeMem(addr, buf)
	}
	return e.fault(fmt.Sprintf("poke %d bytes at %v of", len(buf), addr), err)
}

func (e *Tracee) readMem(addr Addr, buf []byte) error {
	return e.transfer(unix.ProcessVMReadv, []part{{addr, buf}})
}

func (e *Tracee) writeMem(addr Addr, buf []byte) error {
	return e.transfer(unix.ProcessVMWritev, []part{{addr, buf}})
}

// transfer moves all parts, in their order, with as few calls of
// process_vm_readv or process_vm_writev as their limits allow.
func (e *Tracee) transfer(call func(int, []unix.Iovec, []unix.RemoteIovec, uint) (int, error), parts []part) error {
	for len(parts) > 0 {
		var local []unix.Iovec
		var remote []unix.RemoteIovec
		for _, p := range parts[:min(len(parts), maxIovecs)] {
			if len(p.data) > 0 {
				iov := unix.Iovec{Base: &p.data[0]}
				iov.SetLen(len(p.data))
				local = append(local, iov)
				remote = append(remote, unix.RemoteIovec{Base: uintptr(p.addr), Len: len(p.data)})
			}
		}
		moved := 0
		if len(local) > 0 {
			if beforeRequest != nil {
				beforeRequest()
			}
			var err error
			moved, err = call(int(e.tid), local, remote, 0)
			runtime.KeepAlive(parts)
			if err != nil {
				return err
			}
			if moved == 0 {
				return unix.EFAULT
			}
		}
		parts = advance(parts, moved)
	}
	return nil
}

// advance drops the first n bytes, and parts that are empty after that.
func advance(parts []part, n int) []part {
	for len(parts) > 0 {
		p := parts[0]
		if n < len(p.data) {
			parts[0] = part{p.addr + Addr(n), p.data[n:]}
			return parts
		}
		n -= len(p.data)
		parts = parts[1:]
	}
	return nil
}

func (e *Tracee) pokeMem(addr Addr, buf []byte) error {
	if beforeRequest != nil {
		beforeRequest()
	}
	mem, err := unix.Open(fmt.Sprintf("/proc/%d/mem", e.tid), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return e.pokeWords(addr, buf)
	}
	defer unix.Close(mem)
	for len(buf) > 0 {
		n, err := unix.Pwrite(mem, buf, int64(addr))
		if err != nil || n == 0 {
			return e.pokeWords(addr, buf)
		}
		addr, buf = addr+Addr(n), buf[n:]
	}
	return nil
}

// pokeWords is for kernels that were built or booted without forced writes by
// way of /proc/PID/mem (CONFIG_PROC_MEM_NO_FORCE): a tracer has another way.
func (e *Tracee) pokeWords(addr Addr, buf []byte) error {
	for len(buf) > 0 {
		var word [8]byte
		if len(buf) < len(word) {
			if err := e.readMem(addr, word[:]); err != nil {
				return err
			}
		}
		n := copy(word[:], buf)
		err := ptraceValue(unix.PTRACE_POKEDATA, e.tid, uintptr(addr), uintptr(binary.LittleEndian.Uint64(word[:])))
		if errors.Is(err, unix.EIO) {
			err = unix.EFAULT // as the other ways call it
		}
		if err != nil {
			return err
		}
		addr, buf = addr+Addr(n), buf[n:]
	}
	return nil
}
