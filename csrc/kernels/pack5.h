/*
 * pack5.h - how I2_S rows become pack5 rows (pack5_scalar.c): one text, compiled for each level that has a row for it.
 */
#ifndef BNC_PACK5_H
#define BNC_PACK5_H

#include "kernels.h"

enum { BNC_PACK5_BLOCK = 320, BNC_PACK5_BYTES = 64, BNC_PACK5_FIELDS = 5 };

/* Codes of I2_S, 128 in 32 bytes, in order and a byte each: out (n,), n a multiple of 128. */
BNC_INLINE void bnc_pack5_codes_of_i2_s(const uint8_t *w, int64_t n, uint8_t *out) {
    for (int64_t i = 0; i < n; i += 128, w += 32)
        for (int k = 0; k < 4; k++)
            for (int p = 0; p < 32; p++)
                out[i + 32 * k + p] = w[p] >> (6 - 2 * k) & 3;
}

/* One block of codes 0, 1, 2. */
BNC_INLINE void bnc_pack5_block(const uint8_t *code, uint8_t *out) {
    for (int p = 0; p < BNC_PACK5_BYTES; p++) {
        uint16_t v = code[p];
        for (int k = 1; k < BNC_PACK5_FIELDS; k++)
            v = (uint16_t)(3 * v + code[64 * k + p]);
        out[p] = (uint8_t)((uint16_t)(256 * v + 242) / 243);
    }
}

/* STRETCH columns at a time: five groups of I2_S are two blocks. What a row lacks of its last block is filled with the code
 * of 0. */
BNC_INLINE void bnc_pack5_rows_of_i2_s(const uint8_t *w, int64_t n_rows, int64_t ne0, uint8_t *out) {
    enum { STRETCH = 640 };
    uint8_t code[STRETCH];
    for (int64_t r = 0; r < n_rows; r++)
        for (int64_t i = 0; i < ne0; i += STRETCH) {
            const int64_t n = bnc_min_i64(STRETCH, ne0 - i);
            if (n < STRETCH)
                memset(code, 1, STRETCH);
            bnc_pack5_codes_of_i2_s(w, n, code);
            w += n / 4;
            for (int64_t b = 0; b < n; b += BNC_PACK5_BLOCK, out += BNC_PACK5_BYTES)
                bnc_pack5_block(code + b, out);
        }
}

#endif
