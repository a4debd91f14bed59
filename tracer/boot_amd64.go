package tracer

// The boot code makes one system call, whose number and arguments are in
// their registers, unmaps what that call has mapped, and gives the task back
// its own: the signal mask, all registers that a call may change or that carry
// its arguments, and the instruction pointer. The tracer stops the task behind
// the first call, and the task goes the rest of the way only if there is no
// tracer any more.
//
// From the label unmap on it does away with scratch memory at rdi.
//
//	data+0   signal mask
//	data+8   rax rcx rdx rsi rdi r8 r9 r10 r11 rip
//	data+88  length of scratch memory
//
// No instruction changes the flags.
const bootListing listing = `0f 05                   ; boot:     syscall
48 89 c7                ;           mov %rax, %rdi
48 8b 35 c4 00 00 00    ; unmap:    mov data+88(%rip), %rsi
b8 0b 00 00 00          ;           mov $11, %eax
0f 05                   ;           syscall
b8 0e 00 00 00          ;           mov $14, %eax
bf 02 00 00 00          ;           mov $2, %edi
48 8d 35 54 00 00 00    ;           lea data+0(%rip), %rsi
ba 00 00 00 00          ;           mov $0, %edx
41 ba 08 00 00 00       ;           mov $8, %r10d
0f 05                   ;           syscall
48 8b 05 48 00 00 00    ;           mov data+8(%rip), %rax
48 8b 0d 49 00 00 00    ;           mov data+16(%rip), %rcx
48 8b 15 4a 00 00 00    ;           mov data+24(%rip), %rdx
48 8b 35 4b 00 00 00    ;           mov data+32(%rip), %rsi
48 8b 3d 4c 00 00 00    ;           mov data+40(%rip), %rdi
4c 8b 05 4d 00 00 00    ;           mov data+48(%rip), %r8
4c 8b 0d 4e 00 00 00    ;           mov data+56(%rip), %r9
4c 8b 15 4f 00 00 00    ;           mov data+64(%rip), %r10
4c 8b 1d 50 00 00 00    ;           mov data+72(%rip), %r11
ff 25 52 00 00 00       ;           jmp *data+80(%rip)`

const (
	bootData   = 120 // data, 8-byte aligned behind the code
	bootLength = bootData + 88
	bootSize   = bootData + 96
)

var (
	bootCode  = bootListing.assemble()
	bootUnmap = Addr(bootListing.offset("unmap"))
)

// bootImage is the boot code with the state to give back.
func bootImage(r Regs, mask, length uint64) []byte {
	image := make([]byte, bootSize)
	copy(image, bootCode)
	copy(image[bootData:], words(mask, r.Rax, r.Rcx, r.Rdx, r.Rsi, r.Rdi, r.R8, r.R9, r.R10, r.R11, r.Rip, length))
	return image
}
