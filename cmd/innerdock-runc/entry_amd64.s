#include "textflag.h"

#define arch_prctl 158
#define ARCH_SET_FS 0x1002

// entry is where the kernel starts the program, with the stack that execve(2) makes.
// Compiled Go code wants a stack's lower end in the g that its thread's local storage
// points to, and that is all it wants as long as it stays on this stack.
TEXT ·entry(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MOVQ SP, BX
	LEAQ ·g(SB), R12
	LEAQ -(256*1024)(SP), AX
	MOVQ AX, 16(R12) // stackguard0
	MOVQ AX, 24(R12) // stackguard1
	LEAQ ·storage(SB), SI
	MOVQ R12, (SI)
	ADDQ $8, SI // g is at -8(FS)
	MOVQ $ARCH_SET_FS, DI
	MOVQ $arch_prctl, AX
	SYSCALL
	SUBQ $16, SP
	ANDQ $~15, SP
	MOVQ BX, 0(SP)
	CALL ·begin(SB)
	INT $3 // begin does not return
