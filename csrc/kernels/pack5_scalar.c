/*
 * pack5_scalar.c - five ternary weights a byte, 1.6 bits each: a format for memory, which no file holds.
 *
 *   digit   0   1   2
 *   value  -1   0  +1
 *
 * 320 weights of a row lie in 64 bytes; byte p of a block holds weights p, 64 + p, 128 + p, 192 + p, 256 + p. A row is a whole
 * number of blocks; what is left of its last block holds value 0, and meets activations that are 0.
 *
 * A byte is a fraction of 256, and its digits are those of the fraction in base 3: of b, the first digit is the whole part of
 * 3 b / 256, and what remains, 3 b mod 256, holds the others. The five digits of v = 81 d0 + 27 d1 + 9 d2 + 3 d3 + d4 are
 * written as b = ceil(256 v / 243), the least byte with b / 256 >= v / 243: it lies less than 1 / 256 above, so still below
 * (v + 1) / 243, and the first five digits of all fractions in between are those of v. Every byte means something.
 *
 * Why this code and not the bare v: the digits never need to be taken out to be multiplied. With b' = 3 b mod 256,
 *
 *     256 d = 3 b - b',    so    sum of d q = (3 sum of b q - sum of b' q) / 256,
 *
 * exactly, and both sums are products of unsigned bytes with signed ones, for which processors have an instruction; b' takes
 * two additions of bytes. The sums may wrap around 2^32: what is divided by 256 is known modulo 2^32, and so right as long as
 * |sum of d q| < 2^23.
 */
#include "pack5.h"

static int32_t dot(const uint8_t *w, const int8_t *q, int64_t ne0) {
    int32_t sum = 0;
    for (int64_t i = 0; i < ne0; i += BNC_PACK5_BLOCK, w += BNC_PACK5_BYTES, q += BNC_PACK5_BLOCK)
        for (int p = 0; p < BNC_PACK5_BYTES; p++) {
            uint32_t b = w[p];
            for (int k = 0; k < BNC_PACK5_FIELDS; k++) {
                b *= 3;
                sum += ((int32_t)(b >> 8) - 1) * q[64 * k + p];
                b &= 255;
            }
        }
    return sum;
}

static int64_t row_bytes(int64_t ne0) { return bnc_ceil_div(ne0, BNC_PACK5_BLOCK) * BNC_PACK5_BYTES; }

void bnc_gemv_pack5_scalar(const uint8_t *w, int64_t n_rows, int64_t ne0, const int8_t *q, int32_t q_sum, int32_t *y) {
    (void)q_sum;
    for (int64_t r = 0; r < n_rows; r++)
        y[r] = dot(w + r * row_bytes(ne0), q, ne0);
}

void bnc_gemm_pack5_scalar(const uint8_t *w, int64_t n_rows, int64_t ne0, const int8_t *q, int64_t q_stride,
                           const int32_t *q_sum, int64_t n_tokens, int32_t *y, int64_t y_stride) {
    (void)q_sum;
    for (int64_t r = 0; r < n_rows; r++)
        for (int64_t t = 0; t < n_tokens; t++)
            y[t * y_stride + r] = dot(w + r * row_bytes(ne0), q + t * q_stride, ne0);
}

void bnc_pack_i2_s_scalar(const uint8_t *w, int64_t n_rows, int64_t ne0, uint8_t *out) {
    bnc_pack5_rows_of_i2_s(w, n_rows, ne0, out);
}
