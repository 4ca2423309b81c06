/*
 * lanes_neon.h - BNC_LANES partial sums as four 128-bit registers: lanes 0-3, 4-7, 8-11 and 12-15.
 */
#ifndef BNC_LANES_NEON_H
#define BNC_LANES_NEON_H

#include "lanes.h"

#include <arm_neon.h>

typedef struct {
    float32x4_t v[4];
} bnc_lanes;

BNC_INLINE bnc_lanes bnc_zero_lanes_neon(void) {
    const float32x4_t zero = vdupq_n_f32(0);
    return (bnc_lanes){{zero, zero, zero, zero}};
}

/* 16 elements of a row, one a lane. Loaded as bytes: a row may begin at any address. */
BNC_INLINE bnc_lanes bnc_lanes_f32_neon(const uint8_t *p) {
    return (bnc_lanes){{vreinterpretq_f32_u8(vld1q_u8(p)), vreinterpretq_f32_u8(vld1q_u8(p + 16)),
                        vreinterpretq_f32_u8(vld1q_u8(p + 32)), vreinterpretq_f32_u8(vld1q_u8(p + 48))}};
}
BNC_INLINE bnc_lanes bnc_lanes_f16_neon(const uint8_t *p) {
    const float16x8_t a = vreinterpretq_f16_u8(vld1q_u8(p)), b = vreinterpretq_f16_u8(vld1q_u8(p + 16));
    return (bnc_lanes){
        {vcvt_f32_f16(vget_low_f16(a)), vcvt_high_f32_f16(a), vcvt_f32_f16(vget_low_f16(b)), vcvt_high_f32_f16(b)}};
}
BNC_INLINE bnc_lanes bnc_lanes_bf16_neon(const uint8_t *p) {
    const uint16x8_t a = vreinterpretq_u16_u8(vld1q_u8(p)), b = vreinterpretq_u16_u8(vld1q_u8(p + 16));
    return (bnc_lanes){
        {vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(a), 16)), vreinterpretq_f32_u32(vshll_high_n_u16(a, 16)),
         vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(b), 16)), vreinterpretq_f32_u32(vshll_high_n_u16(b, 16))}};
}

BNC_INLINE void bnc_store_lanes_neon(float *x, bnc_lanes a) {
    BNC_UNROLL
    for (int i = 0; i < 4; i++)
        vst1q_f32(x + 4 * i, a.v[i]);
}

BNC_INLINE bnc_lanes bnc_scale_lanes_neon(bnc_lanes a, float scale) {
    BNC_UNROLL
    for (int i = 0; i < 4; i++)
        a.v[i] = vmulq_n_f32(a.v[i], scale);
    return a;
}

/* sum + a * b, each product rounded before it is added. */
BNC_INLINE bnc_lanes bnc_add_product_neon(bnc_lanes sum, bnc_lanes a, bnc_lanes b) {
    BNC_UNROLL
    for (int i = 0; i < 4; i++)
        sum.v[i] = vaddq_f32(sum.v[i], vmulq_f32(a.v[i], b.v[i]));
    return sum;
}

BNC_INLINE float bnc_sum_lanes_neon(bnc_lanes a) {
    const float32x4_t s = vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
    return vpadds_f32(vadd_f32(vget_low_f32(s), vget_high_f32(s)));
}

/* The same after the last n < BNC_LANES addends, which start at lane 0 again since whole blocks came before them. */
BNC_INLINE float bnc_sum_with_tail_neon(bnc_lanes a, const float *tail, int64_t n) {
    if (n == 0)
        return bnc_sum_lanes_neon(a);
    float lane[BNC_LANES];
    bnc_store_lanes_neon(lane, a);
    for (int64_t i = 0; i < n; i++)
        lane[i] += tail[i];
    return bnc_sum_lanes(lane);
}

/* a > b ? a : b, so that a NaN in a is never the larger; fmax would hand it on. */
BNC_INLINE float32x4_t bnc_larger_neon(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }

/* bnc_exp on four floats: the same operations in the same order. */
BNC_INLINE float32x4_t bnc_exp_neon(float32x4_t x) {
    const float32x4_t magic = vdupq_n_f32(BNC_ROUND_MAGIC);
    x = vminq_f32(bnc_larger_neon(x, vdupq_n_f32(BNC_EXP_MIN)), vdupq_n_f32(BNC_EXP_MAX));
    const float32x4_t shifted = vaddq_f32(vmulq_f32(x, vdupq_n_f32(BNC_LOG2_E)), magic);
    const float32x4_t n = vsubq_f32(shifted, magic);
    const float32x4_t r =
        vsubq_f32(vsubq_f32(x, vmulq_f32(n, vdupq_n_f32(BNC_LN2_HI))), vmulq_f32(n, vdupq_n_f32(BNC_LN2_LO)));
    float32x4_t p = vdupq_n_f32(BNC_EXP_C7);
    p = vaddq_f32(vmulq_f32(p, r), vdupq_n_f32(BNC_EXP_C6));
    p = vaddq_f32(vmulq_f32(p, r), vdupq_n_f32(BNC_EXP_C5));
    p = vaddq_f32(vmulq_f32(p, r), vdupq_n_f32(BNC_EXP_C4));
    p = vaddq_f32(vmulq_f32(p, r), vdupq_n_f32(BNC_EXP_C3));
    p = vaddq_f32(vmulq_f32(p, r), vdupq_n_f32(0.5f));
    p = vaddq_f32(vmulq_f32(p, r), vdupq_n_f32(1.0f));
    p = vaddq_f32(vmulq_f32(p, r), vdupq_n_f32(1.0f));
    const int32x4_t power = vsubq_s32(vreinterpretq_s32_f32(shifted), vreinterpretq_s32_f32(magic));
    const int32x4_t exponent = vaddq_s32(power, vdupq_n_s32(127));
    return vmulq_f32(p, vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23)));
}

#endif
