package tracer

import "encoding/binary"

// siblingListing is what further threads of a borrowed process run, each with
// a block of its own at rbp (siblings.go). It is at no time traced by signals:
// the threads wait for each other by futex(2), and so know what to do if the
// tracer is gone.
//
//	block+0    where a thread begins that a row has cloned: spawned
//	block+8    address of the word that all wait for: 0 wait, 1 run the rows,
//	           2 end, 3 leave
//	block+16   rows to run: next, end
//	block+32   stack pointer for the time of the rows
//	block+40   1 once they have been run
//	block+48   thread id, as clone stores it
//	block+64   struct ucontext, for rt_sigreturn(2)
//	block+384  what its fpstate points to
//
// Rows are those of the stub, with immediate arguments only.
const siblingListing listing = `48 8d 6c 24 f8          ; spawned:  lea -8(%rsp), %rbp
48 8b 7d 08             ; enter:    mov 8(%rbp), %rdi
8b 17                   ;           mov (%rdi), %edx
83 fa 02                ;           cmp $2, %edx
74 18                   ;           je gone
85 d2                   ;           test %edx, %edx
75 20                   ;           jnz rows
be 00 00 00 00          ;           mov $0, %esi
41 ba 00 00 00 00       ;           mov $0, %r10d
b8 ca 00 00 00          ;           mov $202, %eax
0f 05                   ;           syscall
eb dd                   ;           jmp enter
bf 00 00 00 00          ; gone:     mov $0, %edi
b8 3c 00 00 00          ;           mov $60, %eax
0f 05                   ;           syscall
48 8b 65 20             ; rows:     mov 32(%rbp), %rsp
48 8b 5d 10             ; walk:     mov 16(%rbp), %rbx
48 3b 5d 18             ;           cmp 24(%rbp), %rbx
73 3c                   ;           jae ready
48 8b 7b 08             ;           mov 8(%rbx), %rdi
48 8b 73 10             ;           mov 16(%rbx), %rsi
48 8b 53 18             ;           mov 24(%rbx), %rdx
4c 8b 53 20             ;           mov 32(%rbx), %r10
4c 8b 43 28             ;           mov 40(%rbx), %r8
4c 8b 4b 30             ;           mov 48(%rbx), %r9
48 8b 03                ;           mov (%rbx), %rax
0f 05                   ;           syscall
48 89 43 40             ;           mov %rax, 64(%rbx)
48 3d 01 f0 ff ff       ;           cmp $-4095, %rax
72 09                   ;           jb next
f7 43 38 00 01 00 00    ;           testl $0x100, 56(%rbx)
74 0a                   ;           jz ready
48 83 c3 48             ; next:     add $72, %rbx
48 89 5d 10             ;           mov %rbx, 16(%rbp)
eb ba                   ;           jmp walk
c7 45 28 01 00 00 00    ; ready:    movl $1, 40(%rbp)
48 8d 7d 28             ;           lea 40(%rbp), %rdi
be 01 00 00 00          ;           mov $1, %esi
ba 01 00 00 00          ;           mov $1, %edx
b8 ca 00 00 00          ;           mov $202, %eax
0f 05                   ;           syscall
48 8b 7d 08             ; hold:     mov 8(%rbp), %rdi
8b 17                   ;           mov (%rdi), %edx
83 fa 01                ;           cmp $1, %edx
75 14                   ;           jne leave
be 00 00 00 00          ;           mov $0, %esi
41 ba 00 00 00 00       ;           mov $0, %r10d
b8 ca 00 00 00          ;           mov $202, %eax
0f 05                   ;           syscall
eb e1                   ;           jmp hold
48 8d 65 40             ; leave:    lea 64(%rbp), %rsp
b8 0f 00 00 00          ;           mov $15, %eax
0f 05                   ; once:     syscall
eb d4                   ;           jmp hold`

const (
	blockEntry   = 0
	blockGo      = 8
	blockRun     = 16
	blockStack   = 32
	blockReady   = 40
	blockTID     = 48
	blockContext = 64
	blockXstate  = 384 // 64-byte aligned, as xrstor needs it
)

var (
	siblingCode    = siblingListing.assemble()
	siblingEnter   = Addr(siblingListing.offset("enter"))
	siblingOnce    = Addr(siblingListing.offset("once"))
	siblingSpawned = Addr(siblingListing.offset("spawned"))
)

// Offsets in struct ucontext (arch/x86/include/uapi/asm/sigcontext.h).
const (
	contextStack   = 16 // stack_t
	contextRegs    = 40
	contextXstate  = 224
	contextSigmask = 296
	contextSize    = 304
)

const redZone = 128 // below the stack pointer, System V ABI

// contextOf is the ucontext from which rt_sigreturn(2) takes on a state, but
// for fs and gs base and an interrupted call that has time left: that one ends
// with EINTR. xstate is where contextXstateOf lies.
func contextOf(s State, xstate Addr) []byte {
	const (
		fpXstate, sigcontextSS, strictSS = 1, 2, 4 // UC_* of asm/ucontext.h
		siDisable                        = 2       // SS_DISABLE
	)
	r := s.Regs.settled()
	b := make([]byte, contextSize)
	binary.LittleEndian.PutUint64(b, fpXstate|sigcontextSS|strictSS)
	binary.LittleEndian.PutUint32(b[contextStack+8:], siDisable)
	copy(b[contextRegs:], words(r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15,
		r.Rdi, r.Rsi, r.Rbp, r.Rbx, r.Rdx, r.Rax, r.Rcx, r.Rsp, r.Rip, r.Eflags&^trapFlag,
		userCS|userSS<<48))
	copy(b[contextXstate:], words(uint64(xstate)))
	copy(b[contextSigmask:], words(s.Sigmask))
	return b
}

const userSS = 0x2b // __USER_DS

// fpstateOf is an xstate as it stands in a signal frame: with a description in
// its software-reserved bytes, and a mark behind it (struct _fpx_sw_bytes).
func fpstateOf(xstate []byte) []byte {
	const magic1, magic2 = 0x46505853, 0x46505845
	b := make([]byte, XstateSize()+4)
	copy(b, xstate)
	if XstateSize() < xstateMin {
		return b
	}
	sw := b[xstateReserved:xstateHeader]
	clear(sw)
	binary.LittleEndian.PutUint32(sw, magic1)
	binary.LittleEndian.PutUint32(sw[4:], uint32(len(b)))
	binary.LittleEndian.PutUint64(sw[8:], XFeatures())
	binary.LittleEndian.PutUint32(sw[16:], uint32(XstateSize()))
	binary.LittleEndian.PutUint32(b[XstateSize():], magic2)
	return b
}

// resting returns the registers of a thread that waits in code for what it is
// told, on its own stack.
func (r Regs) resting(code, block Addr) Regs {
	r.Rip, r.Rbp, r.Orig_rax = uint64(code+siblingEnter), uint64(block), noSyscall
	r.Eflags &^= trapFlag
	return r
}

// once returns the registers of a resting thread that makes one system call.
func (r Regs) once(code, block Addr, nr uint64, args ...uint64) Regs {
	r = r.calling(code+siblingOnce, nr, args...)
	r.Rbp = uint64(block)
	return r
}
