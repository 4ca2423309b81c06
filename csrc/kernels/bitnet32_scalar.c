/*
 * bitnet32_scalar.c - two bits a weight and a float16 scale for every 32 of them; rows do not matter.
 *
 *   code   0   1   2   3
 *   value -2  -1   0  +1   times the scale; quantize never writes code 0
 *
 * A block is 10 bytes. Bytes 0 to 7 hold the codes in order, from the low bits up; bytes 8 and 9 the scale:
 *
 *     bit    7 6      5 4      3 2     1 0
 *        4 b + 3 | 4 b + 2 | 4 b + 1 | 4 b
 */
#include "kernels.h"

enum { BLOCK = 32, CODE_BYTES = 8, BLOCK_BYTES = 10 };

/* The largest magnitude of a block, at least the smallest positive float. */
static float max_of(const float *x) {
    uint32_t top = 1;
    for (int i = 0; i < BLOCK; i++) {
        const uint32_t magnitude = bnc_bits_f32(x[i]) & 0x7fffffffu; /* ordered as the magnitudes are */
        top = magnitude > top ? magnitude : top;
    }
    return bnc_f32_bits(top);
}

/*
 * clamp(round(x / max), -2, 1) + 2 with halves rounded away from zero: |x| <= max, so the quotient rounds to a
 * magnitude of 1 exactly if |x| >= max / 2. Asked as 2 |x| >= max, it is exact for every float. (The quotient itself
 * may not be: but a float below max / 2 is below it by at least 2^-25 of max, and its quotient, at most 1/2 - 2^-25, is
 * not rounded up to 1/2.) max > 0 even when all are zero, and then nothing reaches it.
 */
BNC_INLINE uint32_t code_of(float x, float max) {
    const float twice = x + x;
    return 2u + (twice >= max) - (twice <= -max);
}

void bnc_quantize_bitnet32_scalar(const float *x, int64_t n_rows, int64_t ne0, float scale, uint8_t *out) {
    (void)scale;
    for (int64_t i = 0; i < n_rows * ne0; i += BLOCK, x += BLOCK, out += BLOCK_BYTES) {
        const float max = max_of(x);
        for (int b = 0; b < CODE_BYTES; b++)
            out[b] = (uint8_t)(code_of(x[4 * b], max) | code_of(x[4 * b + 1], max) << 2 |
                               code_of(x[4 * b + 2], max) << 4 | code_of(x[4 * b + 3], max) << 6);
        const uint16_t half = bnc_f16_of_f32(max); /* below 2^-25 it rounds to 0, and so do the weights */
        memcpy(out + CODE_BYTES, &half, 2);
    }
}

void bnc_dequantize_bitnet32_scalar(const uint8_t *in, int64_t n_rows, int64_t ne0, float scale, float *x) {
    (void)scale;
    for (int64_t i = 0; i < n_rows * ne0; i += BLOCK, x += BLOCK, in += BLOCK_BYTES) {
        const float block_scale = bnc_f32_of_f16(bnc_load_u16(in + CODE_BYTES));
        for (int k = 0; k < BLOCK; k++)
            x[k] = (float)((in[k / 4] >> k % 4 * 2 & 3) - 2) * block_scale;
    }
}
