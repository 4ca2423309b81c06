/*
 * fields_avx2.h - what the ternary products on 256-bit registers share: the fields of packed bytes as unsigned operands.
 *
 * One 32-byte load holds 128 weights, 2 bits each; field k of every byte is one register of 32 unsigned codes:
 *
 *     I2_S    field k, byte p = weight 32 k + p    bits 7:6, 5:4, 3:2, 1:0 for k = 0..3    value = code - 1
 *     QK256   field k, byte p = weight 4 p + k     bits 1:0, 3:2, 5:4, 7:6 for k = 0..3    value = {-2,-1,1,2}[code]
 *
 * QK256's activations are arranged so that its field k meets 32 adjacent bytes too. The unsigned operand is value + bias
 * (bias 1: the code itself; bias 2: 0, 1, 3, 4 from a table), and bias * sum(q) is taken off once at the end.
 */
#ifndef BNC_FIELDS_AVX2_H
#define BNC_FIELDS_AVX2_H

#include "base.h"
#include "fields.h"

#include <immintrin.h>

enum { GROUP = 128, GROUP_BYTES = 32 };

/* Field k of 32 packed bytes as unsigned operands. Bits that a 16-bit shift drags in from the neighbour are masked off. */
BNC_AVX2 BNC_INLINE __m256i field(__m256i packed, int k, format f) {
    const __m256i codes =
        _mm256_and_si256(_mm256_srli_epi16(packed, f.first_shift + k * f.shift_step), _mm256_set1_epi8(3));
    /* gcc 12 makes 5 % fewer instructions of gemm with this than with the four bytes in set1_epi32. */
    const __m256i table = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    return f.bias == 1 ? codes : _mm256_shuffle_epi8(table, codes);
}

#endif
