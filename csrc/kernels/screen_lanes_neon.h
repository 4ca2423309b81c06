/*
 * screen_lanes_neon.h - the float part of a screened row at the neon level and above: a stripe's sixteen lanes are four quarters,
 * a register each.
 */
#ifndef BNC_SCREEN_LANES_NEON_H
#define BNC_SCREEN_LANES_NEON_H

#include "lanes_neon.h"

typedef struct {
    bnc_lanes sum, energy;
} bnc_screen_lanes;

/* Quarter h of stripe w meets x; high and low are the integer dot products of its four blocks with the two planes. */
BNC_INLINE void bnc_screen_add_neon(bnc_screen_lanes *acc, int h, int32x4_t high, int32x4_t low, const uint8_t *w,
                                    const bnc_screen_stripe *x) {
    const float32x4_t dot = vcvtq_f32_s32(vaddq_s32(vshlq_n_s32(high, 8), low));
    const float32x4_t step = vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(w + BNC_SCREEN_CODE_BYTES + 8 * h)));
    const float32x4_t v = vsubq_f32(dot, vld1q_f32(x->offset + 4 * h));
    acc->sum.v[h] = vaddq_f32(acc->sum.v[h], vmulq_f32(v, step));
    acc->energy.v[h] = vaddq_f32(acc->energy.v[h], vmulq_f32(vmulq_f32(step, step), vld1q_f32(x->energy + 4 * h)));
}

#endif
