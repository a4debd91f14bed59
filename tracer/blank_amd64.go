package tracer

import "encoding/binary"

// blankListing waits at descriptor 3, on which nothing ever comes but the end
// of file, and then ends.
const blankListing listing = `bf 03 00 00 00          ; start:    mov $3, %edi
48 8d 74 24 f8          ;           lea -8(%rsp), %rsi
ba 01 00 00 00          ;           mov $1, %edx
b8 00 00 00 00          ;           mov $0, %eax
0f 05                   ;           syscall
48 83 f8 fc             ;           cmp $-4, %rax
74 e4                   ;           je start
bf 00 00 00 00          ;           mov $0, %edi
b8 e7 00 00 00          ;           mov $231, %eax
0f 05                   ;           syscall
f4                      ;           hlt
`

const blankBase = 0x10000 // the lowest address that vm.mmap_min_addr usually allows

func blankELF() []byte { return executable(blankListing.assemble()) }

// executable is a static program of one page (elf(5)). Its end is zeros.
func executable(code []byte) []byte {
	const (
		header  = 64
		program = 56
	)
	le := binary.LittleEndian
	elf := make([]byte, 4096)
	copy(elf, "\x7fELF\x02\x01\x01")
	le.PutUint16(elf[16:], 2)  // ET_EXEC
	le.PutUint16(elf[18:], 62) // EM_X86_64
	le.PutUint32(elf[20:], 1)  // EV_CURRENT
	le.PutUint64(elf[24:], blankBase+header+2*program)
	le.PutUint64(elf[32:], header) // e_phoff
	le.PutUint16(elf[52:], header)
	le.PutUint16(elf[54:], program)
	le.PutUint16(elf[56:], 2) // e_phnum

	load := elf[header:]
	le.PutUint32(load, 1)     // PT_LOAD
	le.PutUint32(load[4:], 5) // PF_R|PF_X
	le.PutUint64(load[16:], blankBase)
	le.PutUint64(load[24:], blankBase)
	le.PutUint64(load[32:], uint64(len(elf)))
	le.PutUint64(load[40:], uint64(len(elf)))
	le.PutUint64(load[48:], uint64(len(elf)))

	stack := elf[header+program:]
	le.PutUint32(stack, 0x6474e551) // PT_GNU_STACK
	le.PutUint32(stack[4:], 6)      // PF_R|PF_W
	copy(elf[header+2*program:], code)
	return elf
}
