/*
 * i2_s_scalar.c - ternary weights, two bits each, one float32 scale for the tensor.
 *
 *   code   0   1   2   3
 *   value -1   0  +1   none: never written, and a tensor that holds it is refused
 *
 * i2_s: 128 weights lie in 32 bytes, over the whole tensor; rows do not matter. Byte p of a group, p = 0..31:
 *
 *     bit  7 6        5 4       3 2       1 0
 *        weight p | 32 + p | 64 + p | 96 + p
 *
 * i2_s_64: the same with 64 weights in 16 bytes; byte p holds weights p, 16 + p, 32 + p, 48 + p.
 * i2_s_row4: byte (r / 4) * ne0 + column holds that column of rows r, r + 1, r + 2, r + 3, in the same bits.
 *
 * After the codes come 32 bytes: the scale and 28 bytes that mean nothing. The caller of these kernels writes and reads
 * them.
 */
#include "kernels.h"

/*
 * The code of weight w: w is +1 above half the scale s, -1 below minus half of it, else 0.
 *
 * This is clamp(round_half_even(w / s), -1, 1) without the division, for every s > 0:
 * - w = s/2 exactly gives w / s = 1/2 exactly, which rounds to the even 0; smaller w give at most 1/2, since rounding a
 *   quotient to float keeps its order. Both rules say 0.
 * - the least float above s/2 is s/2 * (1 + e) with e > 2^-24, the closest that neighbours come. Its quotient 1/2 + e/2
 *   lies more than 2^-25 above 1/2, and floats there are 2^-24 apart, so it rounds to a float above 1/2, and that to 1
 *   or more. Both rules say +1, and by order for every larger w; below zero the same holds mirrored.
 * Comparing 2 w with s asks the same, and 2 w is exact where s/2 need not be (a scale below 2^-125); where 2 w is
 * infinite, w is above s/2 too.
 */
BNC_INLINE uint32_t code_of(float w, float s) {
    const float twice = w + w;
    return 1u + (twice > s) - (twice < -s);
}

/* x (n,) float32 -> out (n / 4,): groups of 4 * width weights. */
BNC_INLINE void pack_groups(const float *x, int64_t n, float scale, uint8_t *out, int64_t width) {
    for (int64_t g = 0; g < n; g += 4 * width, x += 4 * width, out += width)
        for (int64_t p = 0; p < width; p++)
            out[p] = (uint8_t)(code_of(x[p], scale) << 6 | code_of(x[width + p], scale) << 4 |
                               code_of(x[2 * width + p], scale) << 2 | code_of(x[3 * width + p], scale));
}

/* The values of the four codes. The last is what the arithmetic gives; no caller lets it be read. */
BNC_INLINE void fill_values(float scale, float value[4]) {
    for (int code = 0; code < 4; code++)
        value[code] = (float)(code - 1) * scale;
}

BNC_INLINE void unpack_groups(const uint8_t *in, int64_t n, float scale, float *x, int64_t width) {
    float value[4];
    fill_values(scale, value);
    for (int64_t g = 0; g < n; g += 4 * width, x += 4 * width, in += width)
        for (int64_t p = 0; p < width; p++) {
            x[p] = value[in[p] >> 6];
            x[width + p] = value[in[p] >> 4 & 3];
            x[2 * width + p] = value[in[p] >> 2 & 3];
            x[3 * width + p] = value[in[p] & 3];
        }
}

/* Both bits of one of the four fields: code 3. */
BNC_INLINE bool holds_code_3(uint8_t byte) { return byte & byte >> 1 & 0x55; }

BNC_INLINE int64_t find_code_3(const uint8_t *in, int64_t nbytes) {
    for (int64_t i = 0; i < nbytes; i++)
        if (holds_code_3(in[i]))
            return i;
    return -1;
}

/* The three layouts are one with different widths: four rows of ne0 are a group of width ne0. */
#define LAYOUT(dtype, width)                                                                                      \
    void bnc_quantize_##dtype##_scalar(const float *x, int64_t n_rows, int64_t ne0, float scale, uint8_t *out) {  \
        pack_groups(x, n_rows *ne0, scale, out, width);                                                           \
    }                                                                                                             \
    void bnc_dequantize_##dtype##_scalar(const uint8_t *in, int64_t n_rows, int64_t ne0, float scale, float *x) { \
        unpack_groups(in, n_rows *ne0, scale, x, width);                                                          \
    }                                                                                                             \
    int64_t bnc_scan_##dtype##_scalar(const uint8_t *in, int64_t nbytes) { return find_code_3(in, nbytes); }

LAYOUT(i2_s, 32)
LAYOUT(i2_s_64, 16)
LAYOUT(i2_s_row4, ne0)
