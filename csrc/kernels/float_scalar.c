/*
 * float_scalar.c - f32, f16 and bf16 tensors: one element after the other, rows do not matter.
 *
 *            31 30      23 22                  0
 *   f32      s  eeeeeeee   mmmmmmm mmmmmmmm mmmmmmmm
 *   bf16     s  eeeeeeee   mmmmmmm                     the upper half of an f32, rounded to nearest even
 *
 *            15 14   10 9          0
 *   f16      s  eeeee   mmmmmmmmmm                     IEEE binary16, rounded to nearest even
 */
#include "kernels.h"

BNC_INLINE void store_u16(uint8_t *p, uint16_t v) { memcpy(p, &v, 2); }

void bnc_quantize_f32_scalar(const float *x, int64_t n_rows, int64_t ne0, float scale, uint8_t *out) {
    (void)scale;
    memcpy(out, x, (size_t)(n_rows * ne0) * 4);
}

void bnc_dequantize_f32_scalar(const uint8_t *in, int64_t n_rows, int64_t ne0, float scale, float *x) {
    (void)scale;
    memcpy(x, in, (size_t)(n_rows * ne0) * 4);
}

void bnc_quantize_f16_scalar(const float *x, int64_t n_rows, int64_t ne0, float scale, uint8_t *out) {
    (void)scale;
    for (int64_t i = 0; i < n_rows * ne0; i++)
        store_u16(out + 2 * i, bnc_f16_of_f32(x[i]));
}

void bnc_dequantize_f16_scalar(const uint8_t *in, int64_t n_rows, int64_t ne0, float scale, float *x) {
    (void)scale;
    for (int64_t i = 0; i < n_rows * ne0; i++)
        x[i] = bnc_f32_of_f16(bnc_load_u16(in + 2 * i));
}

void bnc_quantize_bf16_scalar(const float *x, int64_t n_rows, int64_t ne0, float scale, uint8_t *out) {
    (void)scale;
    for (int64_t i = 0; i < n_rows * ne0; i++)
        store_u16(out + 2 * i, bnc_bf16_of_f32(x[i]));
}

void bnc_dequantize_bf16_scalar(const uint8_t *in, int64_t n_rows, int64_t ne0, float scale, float *x) {
    (void)scale;
    for (int64_t i = 0; i < n_rows * ne0; i++)
        x[i] = bnc_f32_of_bf16(bnc_load_u16(in + 2 * i));
}
