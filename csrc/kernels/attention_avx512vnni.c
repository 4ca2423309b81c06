/*
 * attention_avx512vnni.c - scores and mix for float16 caches: one read of keys and values serves the queries that share
 * them. The sixteen lanes of a sum are one register; each element is widened once for all queries.
 *
 * Both find their rows in the second-level cache, for whoever ran before them fetched them, and fetch what comes next: so
 * the memory works while the arithmetic does.
 */
#include "ahead.h"
#include "kernels.h"

#if defined(BNC_X86_64)

#include <immintrin.h>

/* Queries at a time; and sums of scores at a time, in as many registers: of 4 queries with 4 rows, 2 with 8, 1 with 16. */
enum { QUERIES = 4, SUMS = 16 };

BNC_AVX512VNNI BNC_INLINE __m512 load16(const uint8_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

/* The lanes of sixteen sums folded as bnc_sum_lanes folds them; sum i ends in element 4 (i % 4) + i / 4. */
BNC_AVX512VNNI BNC_INLINE __m512 fold16(const __m512 sum[SUMS]) {
    __m512 half[8], quarter[4], pair[2];
    BNC_UNROLL
    for (int i = 0; i < 8; i++) { /* l + (l + 8): sums 2 i and 2 i + 1 */
        const __m512 low = _mm512_shuffle_f32x4(sum[2 * i], sum[2 * i + 1], 0x44);
        half[i] = _mm512_add_ps(low, _mm512_shuffle_f32x4(sum[2 * i], sum[2 * i + 1], 0xee));
    }
    BNC_UNROLL
    for (int i = 0; i < 4; i++) { /* l + (l + 4): four sums, 128 bits each */
        const __m512 low = _mm512_shuffle_f32x4(half[2 * i], half[2 * i + 1], 0x88);
        quarter[i] = _mm512_add_ps(low, _mm512_shuffle_f32x4(half[2 * i], half[2 * i + 1], 0xdd));
    }
    BNC_UNROLL
    for (int i = 0; i < 2; i++) { /* 0 + 2 and 1 + 3 of each */
        const __m512 low = _mm512_shuffle_ps(quarter[2 * i], quarter[2 * i + 1], 0x44);
        pair[i] = _mm512_add_ps(low, _mm512_shuffle_ps(quarter[2 * i], quarter[2 * i + 1], 0xee));
    }
    return _mm512_add_ps(_mm512_shuffle_ps(pair[0], pair[1], 0x88), _mm512_shuffle_ps(pair[0], pair[1], 0xdd));
}

/* Where the sum of query g and row r is kept, so that fold16 brings it to element g * rows + r. */
BNC_INLINE int place(int g, int r, int rows) {
    const int element = g * rows + r;
    return element % 4 * 4 + element / 4;
}

/* Scores of n_queries queries with the next SUMS / n_queries of n rows; n_queries is a constant in each call. The last row
 * stands in for those that are missing. */
BNC_AVX512VNNI BNC_INLINE void scores_tile(const float *x, int n_queries, const uint8_t *k, int64_t n, int64_t ne0,
                                           float scale, float *y, int64_t y_stride, bnc_ahead *next) {
    const int rows = SUMS / n_queries;
    const uint8_t *row[SUMS];
    __m512 sum[SUMS], xs[QUERIES];
    for (int r = 0; r < rows; r++)
        row[r] = k + 2 * bnc_min_i64(r, n - 1) * ne0;
    BNC_UNROLL
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm512_setzero_ps();
    for (int64_t i = 0; i < ne0; i += BNC_LANES) {
        bnc_ahead_fetch(next, rows / 2);
        BNC_UNROLL
        for (int g = 0; g < n_queries; g++)
            xs[g] = _mm512_loadu_ps(x + g * ne0 + i);
        BNC_UNROLL
        for (int r = 0; r < rows; r++) {
            const __m512 element = load16(row[r] + 2 * i);
            BNC_UNROLL
            for (int g = 0; g < n_queries; g++) {
                __m512 *s = &sum[place(g, r, rows)];
                *s = _mm512_add_ps(*s, _mm512_mul_ps(element, xs[g]));
            }
        }
    }
    float out[SUMS];
    _mm512_storeu_ps(out, _mm512_mul_ps(fold16(sum), _mm512_set1_ps(scale)));
    for (int g = 0; g < n_queries; g++) {
        if (n >= rows)
            memcpy(y + g * y_stride, out + g * rows, (size_t)rows * sizeof(float));
        else
            memcpy(y + g * y_stride, out + g * rows, (size_t)n * sizeof(float));
    }
}

BNC_AVX512VNNI BNC_INLINE void scores_of(const float *x, int n_queries, const uint8_t *k, int64_t n, int64_t ne0,
                                         float scale, float *y, int64_t y_stride, const uint8_t *next) {
    bnc_ahead ahead = bnc_ahead_of(next, 2 * n * ne0);
    for (int64_t j = 0; j < n; j += SUMS / n_queries)
        scores_tile(x, n_queries, k + 2 * j * ne0, n - j, ne0, scale, y + j, y_stride, &ahead);
}

BNC_AVX512VNNI void bnc_scores_f16_avx512vnni(const float *x, int n_group, const uint8_t *k, int64_t n, int64_t ne0,
                                              float scale, float *y, int64_t y_stride, const uint8_t *next) {
    if (ne0 % BNC_LANES) {
        bnc_scores_f16_avx2(x, n_group, k, n, ne0, scale, y, y_stride, next);
        return;
    }
    int g = 0;
    for (; g + 4 <= n_group; g += 4)
        scores_of(x + g * ne0, 4, k, n, ne0, scale, y + g * y_stride, y_stride, next);
    for (; g + 2 <= n_group; g += 2)
        scores_of(x + g * ne0, 2, k, n, ne0, scale, y + g * y_stride, y_stride, next);
    for (; g < n_group; g++)
        scores_of(x + g * ne0, 1, k, n, ne0, scale, y + g * y_stride, y_stride, next);
}

/* Columns [0, 16 regs) of the sums of n_queries queries; both are constants in each call. */
BNC_AVX512VNNI BNC_INLINE void mix_columns(const float *p, int64_t p_stride, int n_queries, const uint8_t *v, int64_t n,
                                           int64_t ne0, int regs, float *y, int64_t y_stride, bnc_ahead *next) {
    __m512 sum[QUERIES][4];
    BNC_UNROLL
    for (int g = 0; g < n_queries; g++)
        BNC_UNROLL
    for (int a = 0; a < regs; a++)
        sum[g][a] = _mm512_setzero_ps();
    for (int64_t j = 0; j < n; j++) {
        bnc_ahead_fetch(next, regs / 2);
        __m512 row[4];
        BNC_UNROLL
        for (int a = 0; a < regs; a++)
            row[a] = load16(v + 2 * (j * ne0 + BNC_LANES * a));
        BNC_UNROLL
        for (int g = 0; g < n_queries; g++) {
            const __m512 weight = _mm512_set1_ps(p[g * p_stride + j]);
            BNC_UNROLL
            for (int a = 0; a < regs; a++)
                sum[g][a] = _mm512_add_ps(sum[g][a], _mm512_mul_ps(weight, row[a]));
        }
    }
    BNC_UNROLL
    for (int g = 0; g < n_queries; g++)
        BNC_UNROLL
    for (int a = 0; a < regs; a++)
        _mm512_storeu_ps(y + g * y_stride + BNC_LANES * a, sum[g][a]);
}

BNC_AVX512VNNI BNC_INLINE void mix_of(const float *p, int64_t p_stride, int n_queries, const uint8_t *v, int64_t n,
                                      int64_t ne0, float *y, int64_t y_stride, const uint8_t *next) {
    bnc_ahead ahead = bnc_ahead_of(next, 2 * n * ne0);
    int64_t i = 0;
    for (; i + 4 * BNC_LANES <= ne0; i += 4 * BNC_LANES)
        mix_columns(p, p_stride, n_queries, v + 2 * i, n, ne0, 4, y + i, y_stride, &ahead);
    for (; i < ne0; i += BNC_LANES)
        mix_columns(p, p_stride, n_queries, v + 2 * i, n, ne0, 1, y + i, y_stride, &ahead);
}

BNC_AVX512VNNI void bnc_mix_f16_avx512vnni(const float *p, int64_t p_stride, int n_group, const uint8_t *v, int64_t n,
                                           int64_t ne0, float *y, int64_t y_stride, const uint8_t *next) {
    if (ne0 % BNC_LANES) {
        bnc_mix_f16_avx2(p, p_stride, n_group, v, n, ne0, y, y_stride, next);
        return;
    }
    int g = 0;
    for (; g + 4 <= n_group; g += 4)
        mix_of(p + g * p_stride, p_stride, 4, v, n, ne0, y + g * y_stride, y_stride, next);
    for (; g + 2 <= n_group; g += 2)
        mix_of(p + g * p_stride, p_stride, 2, v, n, ne0, y + g * y_stride, y_stride, next);
    for (; g < n_group; g++)
        mix_of(p + g * p_stride, p_stride, 1, v, n, ne0, y + g * y_stride, y_stride, next);
}

#endif
