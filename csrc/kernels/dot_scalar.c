/*
 * dot_scalar.c - float rows times a float vector: the head, attention scores, and the weighted sum of values.
 *
 * One template for the three element types; a 16-bit weight is widened exactly, so the type changes no rounding.
 */
#include "lanes.h"

#define DOT(type)                                                          \
    static float dot_##type(const uint8_t *w, const float *x, int64_t n) { \
        float lane[BNC_LANES] = {0};                                       \
        for (int64_t i = 0; i < n; i++)                                    \
            lane[i % BNC_LANES] += bnc_element_##type(w, i) * x[i];        \
        return bnc_sum_lanes(lane);                                        \
    }

#define HEAD(type, bytes)                                                                                    \
    void bnc_head_##type##_scalar(const uint8_t *w, int64_t n_rows, int64_t ne0, const float *x, float *y) { \
        for (int64_t r = 0; r < n_rows; r++)                                                                 \
            y[r] = dot_##type(w + r * ne0 * (bytes), x, ne0);                                                \
    }

#define ATTENTION(type, bytes)                                                                               \
    void bnc_scores_##type##_scalar(const float *x, int n_group, const uint8_t *k, int64_t n, int64_t ne0,   \
                                    float scale, float *y, int64_t y_stride, const uint8_t *next) {          \
        (void)next;                                                                                          \
        for (int g = 0; g < n_group; g++)                                                                    \
            for (int64_t j = 0; j < n; j++)                                                                  \
                y[g * y_stride + j] = dot_##type(k + j * ne0 * (bytes), x + g * ne0, ne0) * scale;           \
    }                                                                                                        \
    void bnc_mix_##type##_scalar(const float *p, int64_t p_stride, int n_group, const uint8_t *v, int64_t n, \
                                 int64_t ne0, float *y, int64_t y_stride, const uint8_t *next) {             \
        (void)next;                                                                                          \
        for (int g = 0; g < n_group; g++, p += p_stride, y += y_stride) {                                    \
            memset(y, 0, (size_t)ne0 * sizeof(float));                                                       \
            for (int64_t j = 0; j < n; j++)                                                                  \
                for (int64_t i = 0; i < ne0; i++)                                                            \
                    y[i] += p[j] * bnc_element_##type(v, j * ne0 + i);                                       \
        }                                                                                                    \
    }

DOT(f32)
DOT(f16)
DOT(bf16)
HEAD(f32, 4)
HEAD(f16, 2)
HEAD(bf16, 2)
ATTENTION(f32, 4)
ATTENTION(f16, 2)
