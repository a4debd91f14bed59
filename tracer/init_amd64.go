package tracer

// initListing is the first process of a pid namespace: InitProgram says what
// it does. Every signal is blocked when it begins. At (%rsp) are name and wait
// status, at 8 the set of signals and the report, at 16 the siginfo.
const initListing listing = `48 81 ec 00 01 00 00    ; init:     sub $0x100, %rsp
48 c7 04 24 69 6e 69 74 ;           movq $0x74696e69, (%rsp)       # "init"
48 89 e6                ;           mov %rsp, %rsi
bf 0f 00 00 00          ;           mov $15, %edi
b8 9d 00 00 00          ;           mov $157, %eax                 # prctl(PR_SET_NAME)
0f 05                   ;           syscall
48 c7 44 24 08 ff ff ff ff ; next:     movq $-1, 8(%rsp)            # every signal
48 8d 7c 24 08          ;           lea 8(%rsp), %rdi
48 8d 74 24 10          ;           lea 16(%rsp), %rsi
31 d2                   ;           xor %edx, %edx
41 ba 08 00 00 00       ;           mov $8, %r10d
b8 80 00 00 00          ;           mov $128, %eax                 # rt_sigtimedwait
0f 05                   ;           syscall
83 f8 11                ;           cmp $17, %eax                  # SIGCHLD
74 1b                   ;           je reap
85 c0                   ;           test %eax, %eax
7e d5                   ;           jle next
83 7c 24 18 00          ;           cmpl $0, 24(%rsp)              # si_code: above 0 it is from the kernel
7f ce                   ;           jg next
89 c6                   ;           mov %eax, %esi
bf 02 00 00 00          ;           mov $2, %edi
b8 3e 00 00 00          ;           mov $62, %eax                  # kill
0f 05                   ;           syscall
eb be                   ;           jmp next
bf ff ff ff ff          ; reap:     mov $-1, %edi
48 89 e6                ;           mov %rsp, %rsi
ba 0b 00 00 40          ;           mov $0x4000000b, %edx          # __WALL | WCONTINUED | WUNTRACED | WNOHANG
45 31 d2                ;           xor %r10d, %r10d
b8 3d 00 00 00          ;           mov $61, %eax                  # wait4
0f 05                   ;           syscall
85 c0                   ;           test %eax, %eax
7e a3                   ;           jle next
83 f8 02                ;           cmp $2, %eax
75 e0                   ;           jne reap
bb ff ff ff ff          ;           mov $-1, %ebx
ba 01 00 00 00          ;           mov $1, %edx
48 c1 e2 20             ;           shl $32, %rdx                  # one change
0f b7 04 24             ;           movzwl (%rsp), %eax
3d ff ff 00 00          ;           cmp $0xffff, %eax              # continued
74 20                   ;           je tell
3c 7f                   ;           cmp $0x7f, %al                 # stopped
74 13                   ;           je halted
48 09 c2                ;           or %rax, %rdx
0f b6 dc                ;           movzbl %ah, %ebx
83 e0 7f                ;           and $0x7f, %eax
74 11                   ;           je tell
8d 98 80 00 00 00       ;           lea 128(%rax), %ebx
eb 09                   ;           jmp tell
0f b6 c4                ; halted:   movzbl %ah, %eax
c1 e0 10                ;           shl $16, %eax
48 09 c2                ;           or %rax, %rdx
48 89 54 24 08          ; tell:     mov %rdx, 8(%rsp)
bf 03 00 00 00          ;           mov $3, %edi
48 8d 74 24 08          ;           lea 8(%rsp), %rsi
ba 08 00 00 00          ;           mov $8, %edx
b8 01 00 00 00          ;           mov $1, %eax                   # write
0f 05                   ;           syscall
85 db                   ;           test %ebx, %ebx
78 88                   ;           js reap
89 df                   ;           mov %ebx, %edi
b8 e7 00 00 00          ;           mov $231, %eax                 # exit_group
0f 05                   ;           syscall
f4                      ;           hlt
`

func initELF() []byte { return executable(initListing.assemble()) }
