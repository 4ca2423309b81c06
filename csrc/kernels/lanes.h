/*
 * lanes.h - the float arithmetic that every level shares to the bit: widening, exp, and rounding to an integer.
 */
#ifndef BNC_LANES_H
#define BNC_LANES_H

#include "kernels.h"

/* Element i of a row, whose type changes no rounding: a 16-bit float is widened exactly. */
BNC_INLINE float bnc_element_f32(const uint8_t *p, int64_t i) { return bnc_load_f32(p + 4 * i); }
BNC_INLINE float bnc_element_f16(const uint8_t *p, int64_t i) { return bnc_f32_of_f16(bnc_load_u16(p + 2 * i)); }
BNC_INLINE float bnc_element_bf16(const uint8_t *p, int64_t i) { return bnc_f32_of_bf16(bnc_load_u16(p + 2 * i)); }

/* Adding 1.5 * 2^23 leaves a float whose unit in the last place is 1: the adder rounds half to even, and the low bits
 * are the integer. Exact for |x| < 2^22. */
#define BNC_ROUND_MAGIC 0x1.8p23f

BNC_INLINE int32_t bnc_round_to_int(float x) {
    return (int32_t)(bnc_bits_f32(x + BNC_ROUND_MAGIC) - bnc_bits_f32(BNC_ROUND_MAGIC));
}

/* The largest float below 1/2: v + copysign(this, v), cut off, is v rounded with halves away from zero, |v| < 2^22. (A half
 * itself would carry the float just below 1/2 up to 1.) */
#define BNC_BELOW_HALF 0x1.fffffep-2f

/* 1 / d of a q8_0 block, 0 where that is not finite. */
BNC_INLINE float bnc_q8_0_inverse(float d) { return d > 0x1p-128f ? 1.0f / d : 0.0f; }

/*
 * exp(x) = 2^n * exp(r), n = round(x / ln 2), |r| <= ln 2 / 2 = 0.347.
 * ln 2 is split in two so that n * BNC_LN2_HI is exact (its low 9 bits are zero and |n| <= 127) and r keeps its bits.
 * exp(r) by Taylor to r^7 / 5040: the first dropped term is 0.347^8 / 40320 = 5e-9, a twelfth of a rounding.
 * x is clamped to [-87, 88], where 2^n is a normal float; exp(-87) = 1.6e-38 stands for everything below.
 */
#define BNC_LOG2_E 0x1.715476p+0f
#define BNC_LN2_HI 0x1.62e4p-1f
#define BNC_LN2_LO 0x1.7f7d1cp-20f
#define BNC_EXP_MIN (-87.0f)
#define BNC_EXP_MAX 88.0f
#define BNC_EXP_C7 (1.0f / 5040)
#define BNC_EXP_C6 (1.0f / 720)
#define BNC_EXP_C5 (1.0f / 120)
#define BNC_EXP_C4 (1.0f / 24)
#define BNC_EXP_C3 (1.0f / 6)

BNC_INLINE float bnc_exp(float x) {
    x = x > BNC_EXP_MIN ? x : BNC_EXP_MIN;
    x = x < BNC_EXP_MAX ? x : BNC_EXP_MAX;
    const float shifted = x * BNC_LOG2_E + BNC_ROUND_MAGIC;
    const float n = shifted - BNC_ROUND_MAGIC;
    const float r = (x - n * BNC_LN2_HI) - n * BNC_LN2_LO;
    float p = BNC_EXP_C7;
    p = p * r + BNC_EXP_C6;
    p = p * r + BNC_EXP_C5;
    p = p * r + BNC_EXP_C4;
    p = p * r + BNC_EXP_C3;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const uint32_t exponent = bnc_bits_f32(shifted) - bnc_bits_f32(BNC_ROUND_MAGIC) + 127u;
    return p * bnc_f32_bits(exponent << 23);
}

#endif
