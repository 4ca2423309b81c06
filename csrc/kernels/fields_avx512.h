/*
 * fields_avx512.h - what the ternary products on 512-bit registers share: the fields of packed bytes as unsigned operands.
 *
 * One 64-byte load holds 256 weights, 2 bits each; field k of every byte is one register of 64 unsigned codes:
 *
 *     I2_S    field k, byte p = weight 128 (p / 32) + 32 k + p % 32    bits 7:6, 5:4, 3:2, 1:0    operand = code
 *     QK256   field k, byte p = weight 4 p + k                         bits 1:0, 3:2, 5:4, 7:6    operand = 0, 1, 3, 4
 *
 * Activations are arranged so that field k meets 64 adjacent bytes: arranged[256 b + 64 k + p] is the activation of that
 * weight. An I2_S row may end with half a block: its bytes are loaded under a mask, its activations are zeros.
 * The operand is value + bias, and bias * sum(q) is taken off at the end. |sum| <= 4 * 128 * ne0: see gemv_scalar.c.
 */
#ifndef BNC_FIELDS_AVX512_H
#define BNC_FIELDS_AVX512_H

#include "base.h"
#include "fields.h"

#include <immintrin.h>

enum { BLOCK = 256, BLOCK_BYTES = 64 };

/* Field k of 64 packed bytes as unsigned operands. Bits that a 16-bit shift drags in from the neighbour are masked off. */
BNC_AVX512VNNI BNC_INLINE __m512i field(__m512i packed, int k, format f) {
    const __m512i shifted = _mm512_srli_epi16(packed, (unsigned)(f.first_shift + k * f.shift_step));
    const __m512i codes = _mm512_and_si512(shifted, _mm512_set1_epi8(3));
    if (f.bias == 1)
        return codes;
    return _mm512_shuffle_epi8(_mm512_set1_epi32(0x04030100), codes);
}

#endif
