/*
 * attention_q8_0.h - the numbers that every level of attention on a q8_0 cache shares to the bit: see kernels.h.
 */
#ifndef BNC_ATTENTION_Q8_0_H
#define BNC_ATTENTION_Q8_0_H

#include "kernels.h"

/* The block of q8_0_scalar.c. */
enum { BNC_Q8_0_BLOCK = 32, BNC_Q8_0_CODES = 2, BNC_Q8_0_BYTES = 34 };

/* A query of the longest head as q8_0 blocks. */
enum { BNC_Q8_0_QUERY_BYTES = BNC_Q8_0_HEAD_MAX / BNC_Q8_0_BLOCK * BNC_Q8_0_BYTES };

BNC_INLINE int64_t bnc_q8_0_row_bytes(int64_t ne0) { return ne0 / BNC_Q8_0_BLOCK * BNC_Q8_0_BYTES; }

BNC_INLINE float bnc_q8_0_scale(const uint8_t *block) { return bnc_f32_of_f16(bnc_load_u16(block)); }

/*
 * The weights of a column of blocks are p * d. They are rounded to integers whose largest possible one, p = 1 and d the
 * column's largest, is 32767: sums of 256 products with int8 stay below 2^30.
 */
#define BNC_MIX_TOP 32767.0f

BNC_INLINE float bnc_mix_inverse(float top) { return top > 0 ? BNC_MIX_TOP / top : 0; }
BNC_INLINE float bnc_mix_unit(float top) { return top / BNC_MIX_TOP; }

#endif
