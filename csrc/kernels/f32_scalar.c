/*
 * f32_scalar.c - the steps between the matrices, on rows of float32: they define the result.
 */
#include "lanes.h"

#include <math.h>

float bnc_rms_norm_scalar(const float *x, const float *weight, int64_t n, float eps, float *y) {
    float lane[BNC_LANES] = {0};
    for (int64_t i = 0; i < n; i++)
        lane[i % BNC_LANES] += x[i] * x[i];
    const float r = 1.0f / sqrtf(bnc_sum_lanes(lane) / (float)n + eps);
    float max = 0; /* a NaN is never the largest */
    for (int64_t i = 0; i < n; i++) {
        y[i] = (x[i] * r) * weight[i];
        max = fabsf(y[i]) > max ? fabsf(y[i]) : max;
    }
    return max;
}

void bnc_q8_scalar(const float *x, int64_t n, int64_t n_padded, float max, int8_t *q, float *s, int32_t *q_sum) {
    *s = 127.0f / (max > 1e-5f ? max : 1e-5f);
    int32_t sum = 0;
    for (int64_t i = 0; i < n; i++) {
        const int32_t v = bnc_round_to_int(x[i] * *s);
        q[i] = (int8_t)(v < -128 ? -128 : v > 127 ? 127 : v);
        sum += q[i];
    }
    for (int64_t i = n; i < n_padded; i++)
        q[i] = 0;
    *q_sum = sum;
}

void bnc_scale_i32_scalar(const int32_t *x, int64_t n, float s, float d, float *y) {
    for (int64_t i = 0; i < n; i++)
        y[i] = ((float)x[i] / s) * d;
}

void bnc_exps_scalar(float *x, int64_t n, float *max, float *sum) {
    *max = -INFINITY; /* a NaN is never the largest */
    for (int64_t i = 0; i < n; i++)
        *max = x[i] > *max ? x[i] : *max;
    float lane[BNC_LANES] = {0};
    for (int64_t i = 0; i < n; i++) {
        x[i] = bnc_exp(x[i] - *max);
        lane[i % BNC_LANES] += x[i];
    }
    *sum = bnc_sum_lanes(lane);
}

void bnc_rope_scalar(float *x, const float *cosines, const float *sines, int64_t n_rot) {
    const int64_t half = n_rot / 2;
    for (int64_t i = 0; i < half; i++) {
        const float a = x[i], b = x[i + half];
        x[i] = a * cosines[i] - b * sines[i];
        x[i + half] = b * cosines[i] + a * sines[i];
    }
}

void bnc_relu2_scalar(const float *gate, const float *up, int64_t n, float *y) {
    for (int64_t i = 0; i < n; i++) {
        const float g = gate[i] > 0 ? gate[i] : 0;
        y[i] = (g * g) * up[i];
    }
}

void bnc_silu_scalar(const float *gate, const float *up, int64_t n, float *y) {
    for (int64_t i = 0; i < n; i++)
        y[i] = (gate[i] / (1.0f + bnc_exp(-gate[i]))) * up[i];
}

void bnc_add_scalar(const float *x, int64_t n, float *y) {
    for (int64_t i = 0; i < n; i++)
        y[i] += x[i];
}
