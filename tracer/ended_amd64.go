package tracer

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// endingListing ends by SIGNAL, whatever was inherited for that, and if it does
// not end by it with STATUS. It leaves no core. Below the stack pointer of a
// new program everything is zero.
const endingListing listing = `bf 04 00 00 00          ;           mov $4, %edi (PR_SET_DUMPABLE)
31 f6                   ;           xor %esi, %esi
b8 9d 00 00 00          ;           mov $157, %eax (prctl)
0f 05                   ;           syscall
bf 00 00 00 00          ;           mov $SIGNAL, %edi
48 8d b4 24 00 ff ff ff ;           lea -256(%rsp), %rsi (SIG_DFL, an empty mask)
31 d2                   ;           xor %edx, %edx
41 ba 08 00 00 00       ;           mov $8, %r10d
b8 0d 00 00 00          ;           mov $13, %eax (rt_sigaction)
0f 05                   ;           syscall
bf 02 00 00 00          ;           mov $2, %edi (SIG_SETMASK)
b8 0e 00 00 00          ;           mov $14, %eax (rt_sigprocmask)
0f 05                   ;           syscall
b8 27 00 00 00          ;           mov $39, %eax (getpid)
0f 05                   ;           syscall
89 c7                   ;           mov %eax, %edi
be 00 00 00 00          ;           mov $SIGNAL, %esi
b8 3e 00 00 00          ;           mov $62, %eax (kill)
0f 05                   ;           syscall
bf 00 00 00 00          ;           mov $STATUS, %edi
b8 e7 00 00 00          ;           mov $231, %eax (exit_group)
0f 05                   ;           syscall
f4                      ;           hlt
`

// Where the numbers stand in it.
var (
	endingSignals = []int{15, 64}
	endingStatus  = 76
)

// endingELF is a program that ends with that status.
func endingELF(status unix.WaitStatus) []byte {
	code := slices.Clone(endingListing.assemble())
	if status.Signaled() {
		for _, at := range endingSignals {
			binary.LittleEndian.PutUint32(code[at:], uint32(status.Signal()))
		}
	} else {
		binary.LittleEndian.PutUint32(code[endingStatus:], uint32(status.ExitStatus()))
	}
	return executable(code)
}
