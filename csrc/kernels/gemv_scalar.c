/*
 * gemv_scalar.c - packed ternary rows times int8 activations, exact in int32: these loops define the result.
 *
 * |sum| <= 3 * 128 * ne0 even for codes that a sound file never holds, so int32 is enough up to ne0 = 5.5 million;
 * bnc_matmul_check refuses longer rows.
 */
#include "kernels.h"

/* I2_S: byte p of a 32-byte group holds weights p, 32+p, 64+p, 96+p of 128 at bits 7:6, 5:4, 3:2, 1:0; value = code - 1. */
static int32_t dot_i2_s(const uint8_t *w, const int8_t *q, int64_t ne0) {
    int32_t sum = 0;
    for (int64_t group = 0; group < ne0 / 128; group++, w += 32, q += 128)
        for (int p = 0; p < 32; p++)
            for (int k = 0; k < 4; k++)
                sum += (((w[p] >> (6 - 2 * k)) & 3) - 1) * q[32 * k + p];
    return sum;
}

/* QK256: byte i / 4 holds weight i at bits 2 (i % 4) + 1 : 2 (i % 4); values -2, -1, +1, +2, which is code - 2 without
 * a zero. q is padded with zeros to whole blocks, so the last byte needs no care. */
static int32_t dot_qk256(const uint8_t *w, const int8_t *q, int64_t ne0) {
    int32_t sum = 0;
    for (int64_t i = 0; i < bnc_ceil_div(ne0, 4); i++)
        for (int k = 0; k < 4; k++) {
            const int code = (w[i] >> (2 * k)) & 3;
            sum += (code - 2 + (code >= 2)) * q[4 * i + k];
        }
    return sum;
}

#define GEMV(dtype, row_bytes)                                                                                       \
    void bnc_gemv_##dtype##_scalar(const uint8_t *w, int64_t n_rows, int64_t ne0, const int8_t *q, int32_t q_sum,    \
                                   int32_t *y) {                                                                     \
        (void)q_sum;                                                                                                 \
        for (int64_t r = 0; r < n_rows; r++)                                                                         \
            y[r] = dot_##dtype(w + r * (row_bytes), q, ne0);                                                         \
    }                                                                                                                \
    void bnc_gemm_##dtype##_scalar(const uint8_t *w, int64_t n_rows, int64_t ne0, const int8_t *q, int64_t q_stride, \
                                   const int32_t *q_sum, int64_t n_tokens, int32_t *y, int64_t y_stride) {           \
        (void)q_sum;                                                                                                 \
        for (int64_t r = 0; r < n_rows; r++)                                                                         \
            for (int64_t t = 0; t < n_tokens; t++)                                                                   \
                y[t * y_stride + r] = dot_##dtype(w + r * (row_bytes), q + t * q_stride, ne0);                       \
    }

GEMV(i2_s, ne0 / 4)
GEMV(qk256, bnc_ceil_div(ne0, 256) * 64)
