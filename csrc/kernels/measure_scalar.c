/*
 * measure_scalar.c - the magnitudes of a stretch of floats, from which quantize chooses a scale.
 */
#include "kernels.h"

void bnc_measure_scalar(const float *x, int64_t n, bnc_magnitudes *out) {
    float lane[BNC_LANES] = {0};
    uint32_t top = 0; /* magnitudes are ordered as their bits are */
    for (int64_t i = 0; i < n; i++) {
        const uint32_t magnitude = bnc_bits_f32(x[i]) & 0x7fffffffu;
        if (magnitude >= 0x7f800000u) {
            *out = (bnc_magnitudes){.first_not_finite = i};
            return;
        }
        lane[i % BNC_LANES] += bnc_f32_bits(magnitude);
        top = magnitude > top ? magnitude : top;
    }
    *out = (bnc_magnitudes){.sum = bnc_sum_lanes(lane), .max = bnc_f32_bits(top), .first_not_finite = -1};
}
