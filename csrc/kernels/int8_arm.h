/*
 * int8_arm.h - the two Arm instructions that multiply int8 and add to int32.
 *
 * As assembly, since the intrinsics ask for more than the instruction does: those of gcc before 14 can only be inlined into
 * functions for exactly armv8.2-a, whatever the rest is compiled for, and those of clang before 16 only exist when
 * everything is compiled for machines that have them.
 */
#ifndef BNC_INT8_ARM_H
#define BNC_INT8_ARM_H

#include "base.h"

#include <arm_neon.h>

/*
 * Who tells the assembler that the instruction is meant: clang by the function's target. gcc names the architecture that all
 * is compiled for, and GNU as knows these extensions from armv8.2-a on.
 */
#if defined(__clang__)
#define BNC_DOTPROD BNC_TARGET("dotprod")
#define BNC_I8MM BNC_TARGET("i8mm")
#define BNC_ALLOW(extension)
#else
#define BNC_DOTPROD
#define BNC_I8MM
#if defined(__ARM_FEATURE_DOTPROD) || defined(__ARM_FEATURE_SVE)
#define BNC_ALLOW(extension) ".arch_extension " extension "\n\t"
#else
#define BNC_ALLOW(extension) ".arch armv8.2-a+" extension "\n\t"
#endif
#endif

/* sum[i] += the sum over k < 4 of a[4 i + k] * b[4 i + k] */
BNC_DOTPROD BNC_INLINE int32x4_t bnc_sdot(int32x4_t sum, int8x16_t a, int8x16_t b) {
    __asm__(BNC_ALLOW("dotprod") "sdot %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(a), "w"(b));
    return sum;
}

/* sum[2 i + j] += the sum over k < 8 of a[8 i + k] * b[8 j + k]: two rows times two rows */
BNC_I8MM BNC_INLINE int32x4_t bnc_smmla(int32x4_t sum, int8x16_t a, int8x16_t b) {
    __asm__(BNC_ALLOW("i8mm") "smmla %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(a), "w"(b));
    return sum;
}

#endif
