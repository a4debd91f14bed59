package tracer

// The stub is the code page of scratch memory. It walks rows
//
//	{nr; a1..a6; ctl; result}
//
// of 72 bytes, for the tracer (entries run and rollback) or on its own if the
// tracer has ended (from parked on). It uses neither the stack nor vector
// registers. The header page follows the code page:
//
//	hdr+0    rows to run: next, end
//	hdr+16   undo rows: next, end
//	hdr+32   the signal to park with
//	hdr+40   signal mask to leave with
//	hdr+48   registers to leave with: rflags rsp rax rbx rcx rdx rsi rdi rbp
//	         r8..r15 rip
//	hdr+192  address of an xstate to leave with, or 0 to leave it alone
//
// In the walk rbx is the row, r13 the pair of cursors, r12 ctl, r14 the bytes
// that a full transfer has moved, r15 what to do at the end: 0 park, 1 leave.
// After parked nobody traces the task any more, or the kernel would not have
// let it past the signal.
//
// At leave the flags come first, because nothing after that changes them, and
// while signals are still blocked, because the stack is not one.
const stubListing listing = `4c 8d 2d f9 0f 00 00    ; run:      lea hdr+0(%rip), %r13
45 31 ff                ;           xor %r15d, %r15d
eb 0a                   ;           jmp walk
4c 8d 2d fd 0f 00 00    ; rollback: lea hdr+16(%rip), %r13
45 31 ff                ;           xor %r15d, %r15d
49 8b 5d 00             ; walk:     mov (%r13), %rbx
49 3b 5d 08             ;           cmp 8(%r13), %rbx
0f 83 c5 00 00 00       ;           jae done
48 8b 7b 08             ;           mov 8(%rbx), %rdi
48 8b 73 10             ;           mov 16(%rbx), %rsi
48 8b 53 18             ;           mov 24(%rbx), %rdx
4c 8b 53 20             ;           mov 32(%rbx), %r10
4c 8b 43 28             ;           mov 40(%rbx), %r8
4c 8b 4b 30             ;           mov 48(%rbx), %r9
4c 8b 63 38             ;           mov 56(%rbx), %r12
41 f6 c4 01             ;           test $1, %r12b
74 03                   ;           jz arg2
48 8b 3f                ;           mov (%rdi), %rdi
41 f6 c4 02             ; arg2:     test $2, %r12b
74 03                   ;           jz arg3
48 8b 36                ;           mov (%rsi), %rsi
41 f6 c4 04             ; arg3:     test $4, %r12b
74 03                   ;           jz arg4
48 8b 12                ;           mov (%rdx), %rdx
41 f6 c4 08             ; arg4:     test $8, %r12b
74 03                   ;           jz arg5
4d 8b 12                ;           mov (%r10), %r10
41 f6 c4 10             ; arg5:     test $16, %r12b
74 03                   ;           jz arg6
4d 8b 00                ;           mov (%r8), %r8
41 f6 c4 20             ; arg6:     test $32, %r12b
74 03                   ;           jz kind
4d 8b 09                ;           mov (%r9), %r9
45 31 f6                ; kind:     xor %r14d, %r14d
41 f7 c4 00 08 00 00    ;           test $0x800, %r12d
75 52                   ;           jnz store
48 8b 03                ; call:     mov (%rbx), %rax
0f 05                   ;           syscall
48 3d 01 f0 ff ff       ;           cmp $-4095, %rax
73 4d                   ;           jae fail
41 f7 c4 00 04 00 00    ;           test $0x400, %r12d
74 06                   ;           jz moved
48 85 c0                ;           test %rax, %rax
75 26                   ;           jnz keep
c3                      ;           ret
41 f7 c4 00 02 00 00    ; moved:    test $0x200, %r12d
74 1c                   ;           jz keep
49 01 c6                ;           add %rax, %r14
48 01 c6                ;           add %rax, %rsi
49 01 c2                ;           add %rax, %r10
48 29 c2                ;           sub %rax, %rdx
74 0b                   ;           jz whole
48 85 c0                ;           test %rax, %rax
75 c8                   ;           jnz call
4c 89 73 40             ;           mov %r14, 64(%rbx)
eb 29                   ;           jmp done
4c 89 f0                ; whole:    mov %r14, %rax
48 89 43 40             ; keep:     mov %rax, 64(%rbx)
48 83 c3 48             ;           add $72, %rbx
49 89 5d 00             ;           mov %rbx, (%r13)
e9 42 ff ff ff          ;           jmp walk
48 89 3e                ; store:    mov %rdi, (%rsi)
48 89 f8                ;           mov %rdi, %rax
eb e7                   ;           jmp keep
41 f7 c4 00 01 00 00    ; fail:     test $0x100, %r12d
75 de                   ;           jnz keep
48 89 43 40             ;           mov %rax, 64(%rbx)
45 85 ff                ; done:     test %r15d, %r15d
75 31                   ;           jnz leave
b8 27 00 00 00          ;           mov $39, %eax
0f 05                   ;           syscall
89 c7                   ;           mov %eax, %edi
b8 ba 00 00 00          ;           mov $186, %eax
0f 05                   ;           syscall
89 c6                   ;           mov %eax, %esi
8b 15 1a 0f 00 00       ;           mov hdr+32(%rip), %edx
b8 ea 00 00 00          ;           mov $234, %eax
0f 05                   ;           syscall
4c 8d 2d fc 0e 00 00    ; parked:   lea hdr+16(%rip), %r13
41 bf 01 00 00 00       ;           mov $1, %r15d
e9 f7 fe ff ff          ;           jmp walk
48 8b 3d 9a 0f 00 00    ; leave:    mov hdr+192(%rip), %rdi
48 85 ff                ;           test %rdi, %rdi
74 0e                   ;           jz flags
b8 ff ff ff ff          ;           mov $-1, %eax
ba ff ff ff ff          ;           mov $-1, %edx
48 0f ae 2f             ;           xrstor64 (%rdi)
48 8d 25 f0 0e 00 00    ; flags:    lea hdr+48(%rip), %rsp
9d                      ;           popfq
48 8b 25 f0 0e 00 00    ;           mov hdr+56(%rip), %rsp
b8 0e 00 00 00          ;           mov $14, %eax
bf 02 00 00 00          ;           mov $2, %edi
48 8d 35 cf 0e 00 00    ;           lea hdr+40(%rip), %rsi
ba 00 00 00 00          ;           mov $0, %edx
41 ba 08 00 00 00       ;           mov $8, %r10d
0f 05                   ;           syscall
48 8b 05 d3 0e 00 00    ;           mov hdr+64(%rip), %rax
48 8b 1d d4 0e 00 00    ;           mov hdr+72(%rip), %rbx
48 8b 0d d5 0e 00 00    ;           mov hdr+80(%rip), %rcx
48 8b 15 d6 0e 00 00    ;           mov hdr+88(%rip), %rdx
48 8b 35 d7 0e 00 00    ;           mov hdr+96(%rip), %rsi
48 8b 3d d8 0e 00 00    ;           mov hdr+104(%rip), %rdi
48 8b 2d d9 0e 00 00    ;           mov hdr+112(%rip), %rbp
4c 8b 05 da 0e 00 00    ;           mov hdr+120(%rip), %r8
4c 8b 0d db 0e 00 00    ;           mov hdr+128(%rip), %r9
4c 8b 15 dc 0e 00 00    ;           mov hdr+136(%rip), %r10
4c 8b 1d dd 0e 00 00    ;           mov hdr+144(%rip), %r11
4c 8b 25 de 0e 00 00    ;           mov hdr+152(%rip), %r12
4c 8b 2d df 0e 00 00    ;           mov hdr+160(%rip), %r13
4c 8b 35 e0 0e 00 00    ;           mov hdr+168(%rip), %r14
4c 8b 3d e1 0e 00 00    ;           mov hdr+176(%rip), %r15
ff 25 e3 0e 00 00       ;           jmp *hdr+184(%rip)
31 ff                   ; ended:    xor %edi, %edi
b8 e7 00 00 00          ;           mov $231, %eax
0f 05                   ;           syscall`

// Offsets in the header page.
const (
	headerRun    = 0
	headerUndo   = 16
	headerSignal = 32
	headerMask   = 40
	headerRegs   = 48
	headerXstate = 192
	headerSize   = 200
)

// A row, as the stub reads it.
const (
	rowSize   = 72
	rowArgs   = 8
	rowCtl    = 56
	rowResult = 64

	ctlTolerate = 1 << 8  // go on after an error
	ctlFull     = 1 << 9  // repeat until a3 bytes have moved; a2 and a4 advance
	ctlSpawn    = 1 << 10 // a clone whose child returns to what its stack begins with
	ctlStore    = 1 << 11 // no call: store a1 in the word at a2
)

var (
	stubCode     = stubListing.assemble()
	stubRun      = Addr(stubListing.offset("run"))
	stubRollback = Addr(stubListing.offset("rollback"))
	stubCall     = Addr(stubListing.offset("call") + 3) // its syscall instruction
	stubParked   = Addr(stubListing.offset("parked"))
	stubEnded    = Addr(stubListing.offset("ended")) // where a child begins that nobody takes over
)

// leaveRegs encodes what the stub loads at leave.
func leaveRegs(r Regs) []byte {
	return words(r.Eflags&^trapFlag, r.Rsp, r.Rax, r.Rbx, r.Rcx, r.Rdx, r.Rsi, r.Rdi, r.Rbp,
		r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15, r.Rip)
}
