/*
 * q8_0_scalar.c - eight bits a weight and a float16 scale for every 32 of them.
 *
 * A block is 34 bytes: bytes 0 and 1 hold the scale d, bytes 2 to 33 the codes q, int8, in order. A weight is d * q: 11
 * bits times 7, so float32 holds it exactly.
 */
#include "lanes.h"

#include <math.h>

enum { BLOCK = 32, SCALE_BYTES = 2, BLOCK_BYTES = 34 };

static float max_of(const float *x) {
    float max = 0;
    for (int k = 0; k < BLOCK; k++)
        max = fabsf(x[k]) > max ? fabsf(x[k]) : max;
    return max;
}

/*
 * q = round(x / d), halves away from zero, with 1 / d from the d that is not yet rounded to float16. Below 2^-128, 1 / d is
 * not finite: the codes are then 0, as the scale is from 2^-25 down.
 *
 * A cache takes whatever a model computes: a NaN is never the largest magnitude, and its code is 0; beside an infinity, which
 * makes the scale infinite, all codes are 0.
 */
void bnc_quantize_q8_0_scalar(const float *x, int64_t n_rows, int64_t ne0, float scale, uint8_t *out) {
    (void)scale;
    for (int64_t i = 0; i < n_rows * ne0; i += BLOCK, x += BLOCK, out += BLOCK_BYTES) {
        const float d = max_of(x) / 127.0f, inverse = bnc_q8_0_inverse(d);
        const uint16_t half = bnc_f16_of_f32(d);
        memcpy(out, &half, SCALE_BYTES);
        for (int k = 0; k < BLOCK; k++) {
            const float v = x[k] * inverse; /* infinity * 0 is NaN, too */
            out[SCALE_BYTES + k] = isnan(v) ? 0 : (uint8_t)(int8_t)(v + copysignf(BNC_BELOW_HALF, v));
        }
    }
}

void bnc_dequantize_q8_0_scalar(const uint8_t *in, int64_t n_rows, int64_t ne0, float scale, float *x) {
    (void)scale;
    for (int64_t i = 0; i < n_rows * ne0; i += BLOCK, x += BLOCK, in += BLOCK_BYTES) {
        const float d = bnc_f32_of_f16(bnc_load_u16(in));
        for (int k = 0; k < BLOCK; k++)
            x[k] = d * (float)(int8_t)in[SCALE_BYTES + k];
    }
}

void bnc_head_q8_0_scalar(const uint8_t *w, int64_t n_rows, int64_t ne0, const float *x, float *y) {
    for (int64_t r = 0; r < n_rows; r++) {
        float lane[BNC_LANES] = {0}, block[BLOCK];
        for (int64_t i = 0; i < ne0; i += BLOCK, w += BLOCK_BYTES) {
            bnc_dequantize_q8_0_scalar(w, 1, BLOCK, 1.0f, block);
            for (int k = 0; k < BLOCK; k++)
                lane[k % BNC_LANES] += block[k] * x[i + k];
        }
        y[r] = bnc_sum_lanes(lane);
    }
}
