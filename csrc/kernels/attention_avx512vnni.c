/*
 * attention_avx512vnni.c - scores and mix for float16 caches: one read of keys and values serves the queries that share
 * them. The sixteen lanes of a sum are one register; each element is widened once for all queries.
 */
#include "kernels.h"

#if defined(BNC_X86_64)

#include <immintrin.h>

/* Queries and rows together: 16 sums of scores are 16 registers. */
enum { QUERIES = 4, ROWS = 4 };

BNC_AVX512VNNI BNC_INLINE __m512 load16(const uint8_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

/* The lanes of sixteen sums folded as bnc_sum_lanes folds them; sum i ends in element 4 (i % 4) + i / 4. */
BNC_AVX512VNNI BNC_INLINE __m512 fold16(const __m512 sum[16]) {
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

/* Scores of QUERIES queries with ROWS rows of keys, apart rows from each other. */
BNC_AVX512VNNI BNC_INLINE void scores_tile(const float *x, const uint8_t *k, int64_t apart, int64_t ne0, float scale,
                                           float *y, int64_t y_stride, const uint8_t *next) {
    __m512 sum[ROWS * QUERIES];
    BNC_UNROLL
    for (int i = 0; i < ROWS * QUERIES; i++)
        sum[i] = _mm512_setzero_ps();
    for (int64_t i = 0; i < ne0; i += BNC_LANES) {
        __m512 xs[QUERIES];
        BNC_UNROLL
        for (int g = 0; g < QUERIES; g++)
            xs[g] = _mm512_loadu_ps(x + g * ne0 + i);
        BNC_UNROLL
        for (int r = 0; r < ROWS; r++) {
            const int64_t at = 2 * (r * apart * ne0 + i);
            _mm_prefetch((const char *)next + at, _MM_HINT_T1);
            const __m512 row = load16(k + at);
            BNC_UNROLL
            for (int g = 0; g < QUERIES; g++)
                sum[4 * r + g] = _mm512_add_ps(sum[4 * r + g], _mm512_mul_ps(row, xs[g]));
        }
    }
    float out[16];
    _mm512_storeu_ps(out, _mm512_mul_ps(fold16(sum), _mm512_set1_ps(scale)));
    for (int r = 0; r < ROWS; r++)
        for (int g = 0; g < QUERIES; g++)
            y[g * y_stride + r * apart] = out[4 * g + r];
}

BNC_AVX512VNNI void bnc_scores_f16_avx512vnni(const float *x, int n_group, const uint8_t *k, int64_t n, int64_t ne0,
                                              float scale, float *y, int64_t y_stride, const uint8_t *next) {
    const int64_t apart = n / ROWS;
    int g = 0;
    for (; ne0 % BNC_LANES == 0 && g + QUERIES <= n_group; g += QUERIES) {
        float *yg = y + g * y_stride;
        for (int64_t j = 0; j < apart; j++)
            scores_tile(x + g * ne0, k + 2 * j * ne0, apart, ne0, scale, yg + j, y_stride, next + 2 * j * ne0);
        if (apart * ROWS < n)
            bnc_scores_f16_avx2(x + g * ne0, QUERIES, k + 2 * apart * ROWS * ne0, n - apart * ROWS, ne0, scale,
                                yg + apart * ROWS, y_stride, next);
    }
    if (g < n_group)
        bnc_scores_f16_avx2(x + g * ne0, n_group - g, k, n, ne0, scale, y + g * y_stride, y_stride, next);
}

/* y[g][0 .. 16 regs) of QUERIES queries; regs is a constant in each call. */
BNC_AVX512VNNI BNC_INLINE void mix_block(const float *p, int64_t p_stride, const uint8_t *v, int64_t n, int64_t ne0,
                                         int regs, float *y) {
    __m512 sum[QUERIES][4];
    BNC_UNROLL
    for (int g = 0; g < QUERIES; g++)
        BNC_UNROLL
    for (int a = 0; a < regs; a++)
        sum[g][a] = _mm512_setzero_ps();
    for (int64_t j = 0; j < n; j++) {
        __m512 row[4];
        BNC_UNROLL
        for (int a = 0; a < regs; a++)
            row[a] = load16(v + 2 * (j * ne0 + BNC_LANES * a));
        BNC_UNROLL
        for (int g = 0; g < QUERIES; g++) {
            const __m512 weight = _mm512_set1_ps(p[g * p_stride + j]);
            BNC_UNROLL
            for (int a = 0; a < regs; a++)
                sum[g][a] = _mm512_add_ps(sum[g][a], _mm512_mul_ps(weight, row[a]));
        }
    }
    BNC_UNROLL
    for (int g = 0; g < QUERIES; g++)
        BNC_UNROLL
    for (int a = 0; a < regs; a++)
        _mm512_storeu_ps(y + g * ne0 + BNC_LANES * a, sum[g][a]);
}

BNC_AVX512VNNI void bnc_mix_f16_avx512vnni(const float *p, int64_t p_stride, int n_group, const uint8_t *v, int64_t n,
                                           int64_t ne0, float *y) {
    int g = 0;
    for (; ne0 % BNC_LANES == 0 && g + QUERIES <= n_group; g += QUERIES) {
        int64_t i = 0;
        for (; i + 4 * BNC_LANES <= ne0; i += 4 * BNC_LANES)
            mix_block(p + g * p_stride, p_stride, v + 2 * i, n, ne0, 4, y + g * ne0 + i);
        for (; i < ne0; i += BNC_LANES)
            mix_block(p + g * p_stride, p_stride, v + 2 * i, n, ne0, 1, y + g * ne0 + i);
    }
    if (g < n_group)
        bnc_mix_f16_avx2(p + g * p_stride, p_stride, n_group - g, v, n, ne0, y + g * ne0);
}

#endif
