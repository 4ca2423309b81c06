/*
 * tile_avx512vnni.h - what the matrix products of this level share: unpacked rows against many tokens.
 *
 * A tile of BNC_TILE_ROWS x BNC_TILE_TOKENS sums stays in registers (24 of 32) while the columns go by: 10 loads feed 24
 * vpdpbusd. BNC_TILE_PANEL rows are unpacked to a byte a weight for BNC_TILE_CHUNK columns, and meet all tokens before the
 * next columns are unpacked: the panel (80 KiB) stays in the second-level cache, the activations of a tile (15 KiB) in the
 * first.
 */
#ifndef BNC_TILE_AVX512VNNI_H
#define BNC_TILE_AVX512VNNI_H

#include "kernels.h"

#if defined(BNC_X86_64)

#include "dot_vnni.h"

/* A chunk is a whole number of blocks of every format: 10 of 256, 8 of 320. */
enum { BNC_TILE_ROWS = 4, BNC_TILE_TOKENS = 6, BNC_TILE_PANEL = 32, BNC_TILE_CHUNK = 2560 };

/* Packed bytes that will be unpacked next, fetched a few lines a tile: of few tokens a panel would else wait for memory as
 * long as it computes. */
typedef struct {
    const uint8_t *at;
    int64_t row_bytes, n_rows, lines; /* lines of each row */
    int64_t row, line;                /* where to go on */
} bnc_tile_ahead;

enum { BNC_TILE_AHEAD_LINES = 16 };

BNC_INLINE void bnc_tile_fetch(bnc_tile_ahead *ahead) {
    for (int i = 0; i < BNC_TILE_AHEAD_LINES && ahead->row < ahead->n_rows; i++) {
        __builtin_prefetch(ahead->at + ahead->row * ahead->row_bytes + 64 * ahead->line, 0, 2);
        if (++ahead->line == ahead->lines) {
            ahead->line = 0;
            ahead->row++;
        }
    }
}

/* y[t][r] += unpacked[r] . q[t] over n columns, a multiple of 64. */
BNC_AVX512VNNI BNC_INLINE void bnc_tile(const uint8_t *unpacked, int n_rows, int64_t n, const int8_t *q,
                                        int64_t q_stride, int n_tokens, int32_t *y, int64_t y_stride) {
    __m512i sum[BNC_TILE_ROWS][BNC_TILE_TOKENS];
    BNC_UNROLL
    for (int r = 0; r < n_rows; r++)
        BNC_UNROLL
    for (int t = 0; t < n_tokens; t++)
        sum[r][t] = _mm512_setzero_si512();
    for (int64_t i = 0; i < n; i += 64) {
        __m512i codes[BNC_TILE_ROWS];
        BNC_UNROLL
        for (int r = 0; r < n_rows; r++)
            codes[r] = _mm512_load_si512(unpacked + r * BNC_TILE_CHUNK + i);
        BNC_UNROLL
        for (int t = 0; t < n_tokens; t++) {
            const __m512i qt = _mm512_loadu_si512(q + t * q_stride + i);
            BNC_UNROLL
            for (int r = 0; r < n_rows; r++)
                sum[r][t] = bnc_dot_avx512vnni(sum[r][t], codes[r], qt);
        }
    }
    BNC_UNROLL
    for (int r = 0; r < n_rows; r++)
        BNC_UNROLL
    for (int t = 0; t < n_tokens; t++)
        y[t * y_stride + r] += _mm512_reduce_add_epi32(sum[r][t]);
}

/* All rows of a panel against up to BNC_TILE_TOKENS tokens. n_tokens is a constant in each call, so that the sums get
 * registers of their own. */
BNC_AVX512VNNI BNC_INLINE void bnc_tile_column(const uint8_t *unpacked, int64_t n_rows, int64_t n, const int8_t *q,
                                               int64_t q_stride, int n_tokens, int32_t *y, int64_t y_stride,
                                               bnc_tile_ahead *ahead) {
    int64_t r = 0;
    for (; r + BNC_TILE_ROWS <= n_rows; r += BNC_TILE_ROWS) {
        bnc_tile_fetch(ahead);
        bnc_tile(unpacked + r * BNC_TILE_CHUNK, BNC_TILE_ROWS, n, q, q_stride, n_tokens, y + r, y_stride);
    }
    for (; r < n_rows; r++)
        bnc_tile(unpacked + r * BNC_TILE_CHUNK, 1, n, q, q_stride, n_tokens, y + r, y_stride);
}

/* y[t][r] += unpacked[r] . q[t] over n <= BNC_TILE_CHUNK columns, for a panel and all tokens. ahead is what comes after. */
BNC_AVX512VNNI BNC_INLINE void bnc_tile_panel(const uint8_t *unpacked, int64_t n_rows, int64_t n, const int8_t *q,
                                              int64_t q_stride, int64_t n_tokens, int32_t *y, int64_t y_stride,
                                              bnc_tile_ahead ahead) {
    int64_t t = 0;
    for (; t + BNC_TILE_TOKENS <= n_tokens; t += BNC_TILE_TOKENS)
        bnc_tile_column(unpacked, n_rows, n, q + t * q_stride, q_stride, BNC_TILE_TOKENS, y + t * y_stride, y_stride,
                        &ahead);
    if (t + 4 <= n_tokens) {
        bnc_tile_column(unpacked, n_rows, n, q + t * q_stride, q_stride, 4, y + t * y_stride, y_stride, &ahead);
        t += 4;
    }
    for (; t < n_tokens; t++)
        bnc_tile_column(unpacked, n_rows, n, q + t * q_stride, q_stride, 1, y + t * y_stride, y_stride, &ahead);
}

/* What follows bytes [at, at + chunk) of the rows of a panel: their next chunk, or the first one of the next panel. That
 * may be of the next call, or beyond the end of the matrix, where fetching does no harm. */
BNC_INLINE bnc_tile_ahead bnc_tile_next(const uint8_t *w, int64_t row_bytes, int64_t at, int64_t chunk,
                                        int64_t n_rows) {
    const bool last = at + chunk >= row_bytes;
    const int64_t next = last ? 0 : at + chunk;
    return (bnc_tile_ahead){
        .at = w + (last ? n_rows * row_bytes : next),
        .row_bytes = row_bytes,
        .n_rows = n_rows,
        .lines = bnc_ceil_div(bnc_min_i64(chunk, row_bytes - next), 64),
    };
}

/* The sums of a panel before its columns: unpacked codes are values + bias. */
BNC_INLINE void bnc_tile_start(int64_t n_rows, int32_t bias, const int32_t *q_sum, int64_t n_tokens, int32_t *y,
                               int64_t y_stride) {
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t r = 0; r < n_rows; r++)
            y[t * y_stride + r] = -bias * q_sum[t];
}

#endif
#endif
