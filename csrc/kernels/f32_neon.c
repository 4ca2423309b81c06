/*
 * f32_neon.c - the steps between the matrices: the operations of f32_scalar.c in the same order, four floats at once. Those
 * that are not here, compilers vectorize by themselves.
 */
#include "kernels.h"

#if defined(BNC_AARCH64)

#include "lanes_neon.h"

#include <math.h>

float bnc_rms_norm_neon(const float *x, const float *weight, int64_t n, float eps, float *y) {
    bnc_lanes acc = bnc_zero_lanes_neon();
    const int64_t whole = n / BNC_LANES * BNC_LANES;
    for (int64_t i = 0; i < whole; i += BNC_LANES) {
        const bnc_lanes a = bnc_lanes_f32_neon((const uint8_t *)(x + i));
        acc = bnc_add_product_neon(acc, a, a);
    }
    float squares[BNC_LANES];
    for (int64_t i = whole; i < n; i++)
        squares[i - whole] = x[i] * x[i];
    const float r = 1.0f / sqrtf(bnc_sum_with_tail_neon(acc, squares, n - whole) / (float)n + eps);
    float32x4_t max4 = vdupq_n_f32(0);
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const float32x4_t v = vmulq_f32(vmulq_n_f32(vld1q_f32(x + i), r), vld1q_f32(weight + i));
        vst1q_f32(y + i, v);
        max4 = bnc_larger_neon(vabsq_f32(v), max4); /* a NaN is never the largest */
    }
    float max = vmaxvq_f32(max4);
    for (; i < n; i++) {
        y[i] = (x[i] * r) * weight[i];
        max = fabsf(y[i]) > max ? fabsf(y[i]) : max;
    }
    return max;
}

/* Four floats times scale, rounded half to even, as int16. */
BNC_INLINE int16x4_t round_to_int16(const float *x, float scale) {
    const float32x4_t magic = vdupq_n_f32(BNC_ROUND_MAGIC);
    const float32x4_t shifted = vaddq_f32(vmulq_n_f32(vld1q_f32(x), scale), magic);
    return vqmovn_s32(vsubq_s32(vreinterpretq_s32_f32(shifted), vreinterpretq_s32_f32(magic)));
}

void bnc_q8_neon(const float *x, int64_t n, int64_t n_padded, float max, int8_t *q, float *s, int32_t *q_sum) {
    *s = 127.0f / (max > 1e-5f ? max : 1e-5f);
    int32x4_t sum = vdupq_n_s32(0);
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const int16x8_t lo = vcombine_s16(round_to_int16(x + i, *s), round_to_int16(x + i + 4, *s));
        const int16x8_t hi = vcombine_s16(round_to_int16(x + i + 8, *s), round_to_int16(x + i + 12, *s));
        const int8x16_t v = vcombine_s8(vqmovn_s16(lo), vqmovn_s16(hi));
        vst1q_s8(q + i, v);
        sum = vpadalq_s16(sum, vpaddlq_s8(v));
    }
    int32_t total = vaddvq_s32(sum);
    for (; i < n; i++) {
        const int32_t v = bnc_round_to_int(x[i] * *s);
        q[i] = (int8_t)(v < -128 ? -128 : v > 127 ? 127 : v);
        total += q[i];
    }
    memset(q + n, 0, (size_t)(n_padded - n));
    *q_sum = total;
}

void bnc_exps_neon(float *x, int64_t n, float *max, float *sum) {
    float32x4_t m = vdupq_n_f32(-INFINITY);
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        m = bnc_larger_neon(vld1q_f32(x + i), m);
    float top = vmaxvq_f32(m);
    for (; i < n; i++)
        top = x[i] > top ? x[i] : top;

    bnc_lanes acc = bnc_zero_lanes_neon();
    const float32x4_t shift = vdupq_n_f32(top);
    for (i = 0; i + BNC_LANES <= n; i += BNC_LANES) {
        BNC_UNROLL
        for (int k = 0; k < 4; k++) {
            const float32x4_t e = bnc_exp_neon(vsubq_f32(vld1q_f32(x + i + 4 * k), shift));
            vst1q_f32(x + i + 4 * k, e);
            acc.v[k] = vaddq_f32(acc.v[k], e);
        }
    }
    const int64_t whole = i;
    for (; i < n; i++)
        x[i] = bnc_exp(x[i] - top);
    *max = top;
    *sum = bnc_sum_with_tail_neon(acc, x + whole, n - whole);
}

void bnc_relu2_neon(const float *gate, const float *up, int64_t n, float *y) {
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const float32x4_t g = bnc_larger_neon(vld1q_f32(gate + i), vdupq_n_f32(0));
        vst1q_f32(y + i, vmulq_f32(vmulq_f32(g, g), vld1q_f32(up + i)));
    }
    bnc_relu2_scalar(gate + i, up + i, n - i, y + i);
}

void bnc_silu_neon(const float *gate, const float *up, int64_t n, float *y) {
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const float32x4_t g = vld1q_f32(gate + i);
        const float32x4_t act = vdivq_f32(g, vaddq_f32(vdupq_n_f32(1.0f), bnc_exp_neon(vnegq_f32(g))));
        vst1q_f32(y + i, vmulq_f32(act, vld1q_f32(up + i)));
    }
    bnc_silu_scalar(gate + i, up + i, n - i, y + i);
}

#endif
