/*
 * gemv_avxvnni.c - packed ternary rows times int8 activations with vpdpbusd on 256-bit registers.
 *
 * As gemv_avx2.c, and with activations in the same order, but vpdpbusd adds a field's 32 products (fields_avx2.h) in
 * fours to 8 int32: nothing to widen. |sum| <= 4 * 128 * ne0: see gemv_scalar.c.
 */
#include "kernels.h"

#if defined(BNC_HAVE_AVXVNNI)

#include "dot_vnni.h"
#include "fields_avx2.h"

/* ---- gemv ---- */

/* Rows at a time, from as many far-apart ranges: see gemv_avx512vnni.c. */
enum { STREAMS = 8, PREFETCH = 1024 };

BNC_AVXVNNI BNC_INLINE int32_t sum_dwords(__m256i v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

/* y[r * y_stride] = w[r] . q for n_rows <= STREAMS rows, row_stride bytes apart. */
BNC_AVXVNNI BNC_INLINE void dot_rows(const uint8_t *w, int64_t row_stride, int n_rows, int64_t row_bytes,
                                     const int8_t *q, int32_t q_sum, int32_t *y, int64_t y_stride, format f) {
    __m256i sum[STREAMS];
    for (int r = 0; r < n_rows; r++)
        sum[r] = _mm256_setzero_si256();
    for (int64_t at = 0; at < row_bytes; at += GROUP_BYTES, q += GROUP)
        for (int r = 0; r < n_rows; r++) {
            const uint8_t *p = w + r * row_stride + at;
            _mm_prefetch((const char *)p + PREFETCH, _MM_HINT_T0);
            const __m256i packed = _mm256_loadu_si256((const __m256i *)p);
            for (int k = 0; k < FIELDS; k++)
                sum[r] =
                    bnc_dot_avxvnni(sum[r], field(packed, k, f), _mm256_loadu_si256((const __m256i *)(q + 32 * k)));
        }
    for (int r = 0; r < n_rows; r++)
        y[r * y_stride] = sum_dwords(sum[r]) - f.bias * q_sum;
}

BNC_AVXVNNI BNC_INLINE void gemv(const uint8_t *w, int64_t row_bytes, int64_t n_rows, const int8_t *q, int32_t q_sum,
                                 int32_t *y, format f) {
    const int64_t apart = n_rows / STREAMS;
    for (int64_t r = 0; r < apart; r++)
        dot_rows(w + r * row_bytes, apart * row_bytes, STREAMS, row_bytes, q, q_sum, y + r, apart, f);
    for (int64_t r = apart * STREAMS; r < n_rows; r++)
        dot_rows(w + r * row_bytes, row_bytes, 1, row_bytes, q, q_sum, y + r, 1, f);
}

/* ---- gemm ---- */

/*
 * A tile of TILE_ROWS x TILE_TOKENS sums stays in registers (12 of 16) while the columns go by: 7 loads feed 12
 * vpdpbusd. PANEL rows are unpacked for CHUNK columns and meet all tokens before the next are unpacked: the panel
 * (PANEL * CHUNK = 20 KiB) and the activations of a tile (4 KiB) stay in the first-level cache.
 */
enum { TILE_ROWS = 4, TILE_TOKENS = 3, PANEL = 16, CHUNK_GROUPS = 10, CHUNK = CHUNK_GROUPS * GROUP };

BNC_AVXVNNI BNC_INLINE void unpack(const uint8_t *w, int64_t row_bytes, int64_t n_rows, int64_t n_groups, uint8_t *out,
                                   format f) {
    for (int64_t r = 0; r < n_rows; r++)
        for (int64_t g = 0; g < n_groups; g++) {
            const __m256i packed = _mm256_loadu_si256((const __m256i *)(w + r * row_bytes + g * GROUP_BYTES));
            for (int k = 0; k < FIELDS; k++)
                _mm256_store_si256((__m256i *)(out + r * CHUNK + g * GROUP + 32 * k), field(packed, k, f));
        }
}

/* The sums of four registers. */
BNC_AVXVNNI BNC_INLINE __m128i sum_dwords_of_4(const __m256i v[4]) {
    const __m256i s = _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
    return _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
}

/* y[t][r] += unpacked[r] . q[t] over n_groups groups, for one row or TILE_ROWS of them. */
BNC_AVXVNNI BNC_INLINE void tile(const uint8_t *unpacked, int n_rows, int64_t n_groups, const int8_t *q,
                                 int64_t q_stride, int n_tokens, int32_t *y, int64_t y_stride) {
    __m256i sum[TILE_TOKENS][TILE_ROWS];
    BNC_UNROLL
    for (int t = 0; t < n_tokens; t++)
        BNC_UNROLL
    for (int r = 0; r < n_rows; r++)
        sum[t][r] = _mm256_setzero_si256();
    for (int64_t i = 0; i < n_groups * GROUP; i += 32) {
        __m256i qt[TILE_TOKENS];
        BNC_UNROLL
        for (int t = 0; t < n_tokens; t++)
            qt[t] = _mm256_loadu_si256((const __m256i *)(q + t * q_stride + i));
        BNC_UNROLL
        for (int r = 0; r < n_rows; r++) {
            const __m256i codes = _mm256_load_si256((const __m256i *)(unpacked + r * CHUNK + i));
            BNC_UNROLL
            for (int t = 0; t < n_tokens; t++)
                sum[t][r] = bnc_dot_avxvnni(sum[t][r], codes, qt[t]);
        }
    }
    BNC_UNROLL
    for (int t = 0; t < n_tokens; t++) {
        int32_t *yt = y + t * y_stride;
        if (n_rows == TILE_ROWS) {
            const __m128i before = _mm_loadu_si128((const __m128i *)yt);
            _mm_storeu_si128((__m128i *)yt, _mm_add_epi32(before, sum_dwords_of_4(sum[t])));
        } else {
            *yt += sum_dwords(sum[t][0]);
        }
    }
}

/* All rows of a panel against one token or TILE_TOKENS of them, a constant in each call. */
BNC_AVXVNNI BNC_INLINE void tile_column(const uint8_t *unpacked, int64_t n_rows, int64_t n_groups, const int8_t *q,
                                        int64_t q_stride, int n_tokens, int32_t *y, int64_t y_stride) {
    int64_t r = 0;
    for (; r + TILE_ROWS <= n_rows; r += TILE_ROWS)
        tile(unpacked + r * CHUNK, TILE_ROWS, n_groups, q, q_stride, n_tokens, y + r, y_stride);
    for (; r < n_rows; r++)
        tile(unpacked + r * CHUNK, 1, n_groups, q, q_stride, n_tokens, y + r, y_stride);
}

BNC_AVXVNNI BNC_INLINE void gemm_panel(const uint8_t *w, int64_t row_bytes, int64_t n_rows, const int8_t *q,
                                       int64_t q_stride, const int32_t *q_sum, int64_t n_tokens, int32_t *y,
                                       int64_t y_stride, format f) {
    _Alignas(32) uint8_t unpacked[PANEL * CHUNK];
    const int64_t n_groups = row_bytes / GROUP_BYTES;
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t r = 0; r < n_rows; r++)
            y[t * y_stride + r] = -f.bias * q_sum[t];
    for (int64_t g = 0; g < n_groups; g += CHUNK_GROUPS) {
        const int64_t n = bnc_min_i64(CHUNK_GROUPS, n_groups - g);
        unpack(w + g * GROUP_BYTES, row_bytes, n_rows, n, unpacked, f);
        const int8_t *qg = q + g * GROUP;
        int64_t t = 0;
        for (; t + TILE_TOKENS <= n_tokens; t += TILE_TOKENS)
            tile_column(unpacked, n_rows, n, qg + t * q_stride, q_stride, TILE_TOKENS, y + t * y_stride, y_stride);
        for (; t < n_tokens; t++)
            tile_column(unpacked, n_rows, n, qg + t * q_stride, q_stride, 1, y + t * y_stride, y_stride);
    }
}

BNC_AVXVNNI BNC_INLINE void gemm(const uint8_t *w, int64_t row_bytes, int64_t n_rows, const int8_t *q, int64_t q_stride,
                                 const int32_t *q_sum, int64_t n_tokens, int32_t *y, int64_t y_stride, format f) {
    for (int64_t r = 0; r < n_rows; r += PANEL)
        gemm_panel(w + r * row_bytes, row_bytes, bnc_min_i64(PANEL, n_rows - r), q, q_stride, q_sum, n_tokens, y + r,
                   y_stride, f);
}

#define KERNELS(dtype, row_bytes, f)                                                                                  \
    BNC_AVXVNNI void bnc_gemv_##dtype##_avxvnni(const uint8_t *w, int64_t n_rows, int64_t ne0, const int8_t *q,       \
                                                int32_t q_sum, int32_t *y) {                                          \
        gemv(w, row_bytes, n_rows, q, q_sum, y, f);                                                                   \
    }                                                                                                                 \
    BNC_AVXVNNI void bnc_gemm_##dtype##_avxvnni(const uint8_t *w, int64_t n_rows, int64_t ne0, const int8_t *q,       \
                                                int64_t q_stride, const int32_t *q_sum, int64_t n_tokens, int32_t *y, \
                                                int64_t y_stride) {                                                   \
        gemm(w, row_bytes, n_rows, q, q_stride, q_sum, n_tokens, y, y_stride, f);                                     \
    }

KERNELS(i2_s, ne0 / 4, I2_S)
KERNELS(qk256, bnc_ceil_div(ne0, 256) * 64, QK256)

#endif
