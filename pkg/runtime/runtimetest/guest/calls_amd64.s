#include "textflag.h"

// func compared(number, a, b, c uintptr) (result uintptr)
//
// What a system call looks like that gVisor's patch-tested.patch patches.
TEXT ·compared(SB), NOSPLIT, $0-40
	MOVQ number+0(FP), AX
	MOVQ a+8(FP), DI
	MOVQ b+16(FP), SI
	MOVQ c+24(FP), DX
	SYSCALL
	CMPQ AX, $0xfffffffffffff001
	JLS  fine
	NEGQ AX
	ORQ  $0x10000, AX
fine:
	MOVQ AX, result+32(FP)
	RET

// func compiled() (address *[64]byte)
//
// A function's value is that of a wrapper, where it is in assembly.
TEXT ·compiled(SB), NOSPLIT, $0-8
	MOVQ $·compared(SB), AX
	MOVQ AX, address+0(FP)
	RET
