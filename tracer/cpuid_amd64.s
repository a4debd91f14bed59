#include "textflag.h"

// func cpuid(leaf, sub uint32) (a, b, c, d uint32)
TEXT ·cpuid(SB), NOSPLIT, $0-24
	MOVL leaf+0(FP), AX
	MOVL sub+4(FP), CX
	CPUID
	MOVL AX, a+8(FP)
	MOVL BX, b+12(FP)
	MOVL CX, c+16(FP)
	MOVL DX, d+20(FP)
	RET

// func xgetbv() uint64
TEXT ·xgetbv(SB), NOSPLIT, $0-8
	MOVL $0, CX
	XGETBV
	SHLQ $32, DX
	ORQ  DX, AX
	MOVQ AX, ret+0(FP)
	RET

// func fxsaveMask(area *[528]byte) uint32
TEXT ·fxsaveMask(SB), NOSPLIT, $0-12
	MOVQ area+0(FP), AX
	ADDQ $15, AX
	ANDQ $~15, AX
	FXSAVE (AX)
	MOVL 28(AX), CX
	MOVL CX, ret+8(FP)
	RET
