/*
 * screen_scalar.c - approximate logits from the 4-bit copy of the head, and how uncertain each is: screen_layout.h.
 */
#include "kernels.h"

#include <math.h>

uint16_t bnc_screen_step(float max) {
    const uint16_t h = bnc_f16_of_f32(max / 7.5f);
    return bnc_f32_of_f16(h) < max / 7.5f ? (uint16_t)(h + 1) : h;
}

static float block_max(const float *w) {
    float max = 0;
    for (int k = 0; k < BNC_SCREEN_BLOCK; k++)
        max = fabsf(w[k]) > max ? fabsf(w[k]) : max;
    return max;
}

void bnc_screen_encode_scalar(const float *w, const float *dither, int64_t n_stripes, uint8_t *out) {
    for (int64_t i = 0; i < n_stripes; i++, out += BNC_SCREEN_STRIPE_BYTES)
        for (int j = 0; j < BNC_SCREEN_LANES; j++, w += BNC_SCREEN_BLOCK, dither += BNC_SCREEN_BLOCK) {
            const uint16_t step = bnc_screen_step(block_max(w));
            const float inverse = bnc_screen_inverse(step);
            uint8_t code[BNC_SCREEN_BLOCK];
            for (int k = 0; k < BNC_SCREEN_BLOCK; k++) {
                float v = w[k] * inverse + (dither[k] + 8.0f); /* 7.5, and 0.5 to round */
                v = v > 0 ? v : 0;                             /* never below 0 but for a NaN */
                code[k] = (uint8_t)(v < 15.5f ? v : 15.5f);
            }
            for (int l = 0; l < 4; l++)
                for (int m = 0; m < 4; m++)
                    out[64 * l + 4 * j + m] = (uint8_t)(code[8 * l + m] | code[8 * l + 4 + m] << 4);
            memcpy(out + BNC_SCREEN_CODE_BYTES + 2 * j, &step, 2);
        }
}

/* The sum of c * X over block j. */
static int32_t block_dot(const uint8_t *codes, const bnc_screen_stripe *x, int j) {
    int32_t high = 0, low = 0;
    for (int l = 0; l < 4; l++)
        for (int m = 0; m < 4; m++) {
            const int at = 4 * j + m;
            const int byte = codes[64 * l + at];
            high += (byte & 15) * x->high[2 * l][at] + (byte >> 4) * x->high[2 * l + 1][at];
            low += (byte & 15) * x->low[2 * l][at] + (byte >> 4) * x->low[2 * l + 1][at];
        }
    return 256 * high + low;
}

void bnc_screen_scalar(const uint8_t *w, int64_t n_rows, int64_t n_stripes, const bnc_screen_stripe *x, float *sums,
                       float *energies) {
    for (int64_t r = 0; r < n_rows; r++) {
        float sum[BNC_LANES] = {0}, energy[BNC_LANES] = {0};
        for (int64_t i = 0; i < n_stripes; i++, w += BNC_SCREEN_STRIPE_BYTES)
            for (int j = 0; j < BNC_SCREEN_LANES; j++) {
                const float step = bnc_f32_of_f16(bnc_load_u16(w + BNC_SCREEN_CODE_BYTES + 2 * j));
                sum[j] += ((float)block_dot(w, &x[i], j) - x[i].offset[j]) * step;
                energy[j] += (step * step) * x[i].energy[j];
            }
        sums[r] = bnc_sum_lanes(sum);
        energies[r] = bnc_sum_lanes(energy);
    }
}
