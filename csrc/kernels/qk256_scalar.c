/*
 * qk256_scalar.c - two bits a weight, no zero and no scale.
 *
 *   code   0   1   2   3
 *   value -2  -1  +1  +2
 *
 * 256 weights lie in 64 bytes, in order, from the low bits up; byte b of a block:
 *
 *     bit    7 6      5 4      3 2     1 0
 *        4 b + 3 | 4 b + 2 | 4 b + 1 | 4 b
 *
 * A row is a whole number of blocks; what is left of its last block holds the code of 0.
 */
#include "kernels.h"

enum { BLOCK = 256, BLOCK_BYTES = 64 };

/* The nearest value; halfway between two it is the smaller magnitude, and 0 (or -0), between -1 and +1, is +1. */
BNC_INLINE uint32_t code_of(float x) { return 2u + (x > 1.5f) - (x < 0) - (x < -1.5f); }

void bnc_quantize_qk256_scalar(const float *x, int64_t n_rows, int64_t ne0, float scale, uint8_t *out) {
    (void)scale;
    for (int64_t r = 0; r < n_rows; r++, x += ne0)
        for (int64_t i = 0; i < bnc_round_up(ne0, BLOCK); i += 4) {
            uint32_t byte = 0;
            for (int64_t k = 0; k < 4; k++)
                byte |= code_of(i + k < ne0 ? x[i + k] : 0) << 2 * k;
            *out++ = (uint8_t)byte;
        }
}

void bnc_dequantize_qk256_scalar(const uint8_t *in, int64_t n_rows, int64_t ne0, float scale, float *x) {
    static const float value[4] = {-2, -1, 1, 2};
    (void)scale;
    for (int64_t r = 0; r < n_rows; r++, x += ne0, in += bnc_ceil_div(ne0, BLOCK) * BLOCK_BYTES)
        for (int64_t i = 0; i < ne0; i++)
            x[i] = value[in[i / 4] >> i % 4 * 2 & 3];
}
