/*
 * attention_q8_0_avx512vnni.c - scores and mix for q8_0 caches with vpdpbusd and vpdpwssd: one read of keys and values serves
 * the queries that share them. What comes next is fetched as in attention_avx512vnni.c.
 */
#include "ahead.h"
#include "attention_q8_0.h"

#if defined(BNC_X86_64)

#include <immintrin.h>

/* Queries at a time; rows whose scales make a register. */
enum { QUERIES = 4, ROWS = 16 };

/* Row j + r of n; the last one stands in for those that are missing. */
BNC_INLINE void rows_from(const uint8_t *first, int64_t row_bytes, int64_t j, int64_t n, const uint8_t *row[ROWS]) {
    for (int r = 0; r < ROWS; r++)
        row[r] = first + bnc_min_i64(j + r, n - 1) * row_bytes;
}

BNC_AVX512VNNI BNC_INLINE __m128i scales8(const uint8_t *const row[8], int64_t at) {
    __m128i s = _mm_cvtsi32_si128(bnc_load_u16(row[0] + at));
    s = _mm_insert_epi16(s, bnc_load_u16(row[1] + at), 1);
    s = _mm_insert_epi16(s, bnc_load_u16(row[2] + at), 2);
    s = _mm_insert_epi16(s, bnc_load_u16(row[3] + at), 3);
    s = _mm_insert_epi16(s, bnc_load_u16(row[4] + at), 4);
    s = _mm_insert_epi16(s, bnc_load_u16(row[5] + at), 5);
    s = _mm_insert_epi16(s, bnc_load_u16(row[6] + at), 6);
    return _mm_insert_epi16(s, bnc_load_u16(row[7] + at), 7);
}

/* The scales of the blocks at byte at of ROWS rows. */
BNC_AVX512VNNI BNC_INLINE __m512 scales16(const uint8_t *const row[ROWS], int64_t at) {
    return _mm512_cvtph_ps(_mm256_set_m128i(scales8(row + 8, at), scales8(row, at)));
}

BNC_AVX512VNNI BNC_INLINE __m256i codes_of(const uint8_t *block) {
    return _mm256_loadu_si256((const __m256i *)(block + BNC_Q8_0_CODES));
}

BNC_INLINE __mmask16 first_of(int64_t n) { return (__mmask16)(n >= 16 ? 0xffffu : (1u << n) - 1); }

/* ---- scores ---- */

/* A block of a query, spread out for vpdpbusd with the keys of transpose(). */
typedef struct {
    __m512i fours[4]; /* codes 4 i to 4 i + 3 in the even 128-bit parts, 16 later ones in the odd */
    __m512i bias;     /* -128 times the sum of the codes, in the even parts */
    float scale;
} query_block;

BNC_AVX512VNNI static void spread(const float *x, int n_queries, int64_t ne0, query_block *out) {
    uint8_t packed[BNC_Q8_0_QUERY_BYTES];
    for (int g = 0; g < n_queries; g++) {
        bnc_quantize_q8_0_avx2(x + g * ne0, 1, ne0, 1.0f, packed);
        for (int64_t b = 0; b < ne0 / BNC_Q8_0_BLOCK; b++) {
            const __m256i codes = codes_of(packed + b * BNC_Q8_0_BYTES);
            const __m256i sums = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), codes);
            const int32_t sum = _mm512_reduce_add_epi32(_mm512_zextsi256_si512(sums));
            const __m512i twice = _mm512_broadcast_i64x4(codes);
            query_block *q = &out[b * n_queries + g];
            q->fours[0] = _mm512_shuffle_epi32(twice, 0x00);
            q->fours[1] = _mm512_shuffle_epi32(twice, 0x55);
            q->fours[2] = _mm512_shuffle_epi32(twice, 0xaa);
            q->fours[3] = _mm512_shuffle_epi32(twice, 0xff);
            q->bias = _mm512_maskz_set1_epi32(0x0f0f, -128 * sum);
            q->scale = bnc_q8_0_scale(packed + b * BNC_Q8_0_BYTES);
        }
    }
}

/* The codes of a block of eight rows, plus 128: out[i] holds codes 4 i to 4 i + 3 of rows 0 to 3, codes 16 later of the
 * same rows, and both of rows 4 to 7. */
BNC_AVX512VNNI BNC_INLINE void transpose(const uint8_t *const row[8], int64_t at, __m512i out[4]) {
    __m512i a[4];
    BNC_UNROLL
    for (int r = 0; r < 4; r++) {
        const __m512i low = _mm512_castsi256_si512(codes_of(row[r] + at));
        const __m512i both = _mm512_inserti64x4(low, codes_of(row[r + 4] + at), 1);
        a[r] = _mm512_xor_si512(both, _mm512_set1_epi8(-128));
    }
    const __m512i low01 = _mm512_unpacklo_epi32(a[0], a[1]), high01 = _mm512_unpackhi_epi32(a[0], a[1]);
    const __m512i low23 = _mm512_unpacklo_epi32(a[2], a[3]), high23 = _mm512_unpackhi_epi32(a[2], a[3]);
    out[0] = _mm512_unpacklo_epi64(low01, low23);
    out[1] = _mm512_unpackhi_epi64(low01, low23);
    out[2] = _mm512_unpacklo_epi64(high01, high23);
    out[3] = _mm512_unpackhi_epi64(high01, high23);
}

/* Scores of n_queries queries with the n <= ROWS rows; n_queries is a constant in each call. */
BNC_AVX512VNNI BNC_INLINE void scores_tile(const query_block *q, int n_queries, const uint8_t *const row[ROWS],
                                           int64_t n, int64_t ne0, float scale, float *y, int64_t y_stride,
                                           bnc_ahead *next) {
    __m512 sum[QUERIES];
    BNC_UNROLL
    for (int g = 0; g < n_queries; g++)
        sum[g] = _mm512_setzero_ps();
    for (int64_t at = 0; at < bnc_q8_0_row_bytes(ne0); at += BNC_Q8_0_BYTES, q += n_queries) {
        bnc_ahead_fetch(next, 4);
        __m512i first[4], second[4];
        transpose(row, at, first);
        transpose(row + 8, at, second);
        bnc_ahead_fetch(next, 5); /* 16 blocks are 8.5 lines */
        const __m512 scales = scales16(row, at);
        BNC_UNROLL
        for (int g = 0; g < n_queries; g++) {
            __m512i a = q[g].bias, b = q[g].bias;
            BNC_UNROLL
            for (int i = 0; i < 4; i++) {
                a = _mm512_dpbusd_epi32(a, first[i], q[g].fours[i]);
                b = _mm512_dpbusd_epi32(b, second[i], q[g].fours[i]);
            }
            const __m512i dot = _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
            const __m512 both = _mm512_mul_ps(scales, _mm512_set1_ps(q[g].scale));
            sum[g] = _mm512_add_ps(sum[g], _mm512_mul_ps(_mm512_cvtepi32_ps(dot), both));
        }
    }
    BNC_UNROLL
    for (int g = 0; g < n_queries; g++)
        _mm512_mask_storeu_ps(y + g * y_stride, first_of(n), _mm512_mul_ps(sum[g], _mm512_set1_ps(scale)));
}

BNC_AVX512VNNI BNC_INLINE void scores_of(const float *x, int n_queries, const uint8_t *k, int64_t n, int64_t ne0,
                                         float scale, float *y, int64_t y_stride, const uint8_t *next) {
    const int64_t row_bytes = bnc_q8_0_row_bytes(ne0);
    query_block q[QUERIES * BNC_Q8_0_HEAD_MAX / BNC_Q8_0_BLOCK];
    spread(x, n_queries, ne0, q);
    bnc_ahead ahead = bnc_ahead_of(next, n * row_bytes);
    for (int64_t j = 0; j < n; j += ROWS) {
        const uint8_t *row[ROWS];
        rows_from(k, row_bytes, j, n, row);
        scores_tile(q, n_queries, row, n - j, ne0, scale, y + j, y_stride, &ahead);
    }
}

BNC_AVX512VNNI void bnc_scores_q8_0_avx512vnni(const float *x, int n_group, const uint8_t *k, int64_t n, int64_t ne0,
                                               float scale, float *y, int64_t y_stride, const uint8_t *next) {
    int g = 0;
    for (; g + 4 <= n_group; g += 4)
        scores_of(x + g * ne0, 4, k, n, ne0, scale, y + g * y_stride, y_stride, next);
    for (; g + 2 <= n_group; g += 2)
        scores_of(x + g * ne0, 2, k, n, ne0, scale, y + g * y_stride, y_stride, next);
    for (; g < n_group; g++)
        scores_of(x + g * ne0, 1, k, n, ne0, scale, y + g * y_stride, y_stride, next);
}

/* ---- mix ---- */

/* p * d of a column of blocks as 16-bit integers, zeros up to a multiple of ROWS; the unit they are multiples of. */
BNC_AVX512VNNI BNC_INLINE float weights_of(const float *p, int64_t p_stride, int n_queries, const uint8_t *v,
                                           int64_t row_bytes, int64_t n, int16_t w[QUERIES][BNC_MIX_ROWS],
                                           bnc_ahead *next) {
    _Alignas(64) float d[BNC_MIX_ROWS];
    __m512 tops = _mm512_setzero_ps();
    for (int64_t j = 0; j < n; j += ROWS) {
        bnc_ahead_fetch(next, 1);
        const uint8_t *row[ROWS];
        rows_from(v, row_bytes, j, n, row);
        const __m512 scales = scales16(row, 0);
        _mm512_store_ps(d + j, scales);
        tops = _mm512_max_ps(tops, scales);
    }
    const float top = _mm512_reduce_max_ps(tops);
    const __m512 inverse = _mm512_set1_ps(bnc_mix_inverse(top));
    for (int64_t j = 0; j < n; j += ROWS) {
        const __m512 t = _mm512_mul_ps(_mm512_load_ps(d + j), inverse);
        BNC_UNROLL
        for (int g = 0; g < n_queries; g++) {
            const __m512 weight = _mm512_mul_ps(_mm512_maskz_loadu_ps(first_of(n - j), p + g * p_stride + j), t);
            _mm256_store_si256((__m256i *)(w[g] + j), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(weight)));
        }
    }
    return bnc_mix_unit(top);
}

/* 32 columns: those of every other four in each of the two, see mix_columns. */
BNC_AVX512VNNI BNC_INLINE void store_block(__m512i low, __m512i high, float unit, float *y) {
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i second = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    const __m512 a = _mm512_cvtepi32_ps(_mm512_permutex2var_epi32(low, first, high));
    const __m512 b = _mm512_cvtepi32_ps(_mm512_permutex2var_epi32(low, second, high));
    _mm512_storeu_ps(y, _mm512_mul_ps(a, _mm512_set1_ps(unit)));
    _mm512_storeu_ps(y + 16, _mm512_mul_ps(b, _mm512_set1_ps(unit)));
}

/* Columns of n_blocks <= 2 blocks of the sums of n_queries queries; both are constants in each call. A register of words
 * holds pairs from two rows; vpdpwssd adds their products. */
BNC_AVX512VNNI BNC_INLINE void mix_columns(const float *p, int64_t p_stride, int n_queries, const uint8_t *v, int64_t n,
                                           int64_t ne0, int n_blocks, float *y, int64_t y_stride, bnc_ahead *next) {
    const int64_t row_bytes = bnc_q8_0_row_bytes(ne0);
    _Alignas(64) int16_t w[2][QUERIES][BNC_MIX_ROWS];
    float unit[2];
    for (int b = 0; b < n_blocks; b++)
        unit[b] = weights_of(p, p_stride, n_queries, v + b * BNC_Q8_0_BYTES, row_bytes, n, w[b], next);

    __m512i sum[QUERIES][4];
    BNC_UNROLL
    for (int g = 0; g < n_queries; g++)
        BNC_UNROLL
    for (int a = 0; a < 2 * n_blocks; a++)
        sum[g][a] = _mm512_setzero_si512();
    for (int64_t j = 0; j < n; j += 2) {
        bnc_ahead_fetch(next, n_blocks);
        const uint8_t *even = v + j * row_bytes, *odd = v + bnc_min_i64(j + 1, n - 1) * row_bytes;
        __m512i pairs[4];
        BNC_UNROLL
        for (int b = 0; b < n_blocks; b++) {
            const __m512i e = _mm512_cvtepi8_epi16(codes_of(even + b * BNC_Q8_0_BYTES));
            const __m512i o = _mm512_cvtepi8_epi16(codes_of(odd + b * BNC_Q8_0_BYTES));
            pairs[2 * b] = _mm512_unpacklo_epi16(e, o);
            pairs[2 * b + 1] = _mm512_unpackhi_epi16(e, o);
        }
        BNC_UNROLL
        for (int g = 0; g < n_queries; g++)
            BNC_UNROLL
        for (int a = 0; a < 2 * n_blocks; a++) {
            const __m512i weights = _mm512_set1_epi32((int32_t)bnc_load_u32(&w[a / 2][g][j]));
            sum[g][a] = _mm512_dpwssd_epi32(sum[g][a], pairs[a], weights);
        }
    }
    BNC_UNROLL
    for (int g = 0; g < n_queries; g++)
        BNC_UNROLL
    for (int b = 0; b < n_blocks; b++)
        store_block(sum[g][2 * b], sum[g][2 * b + 1], unit[b], y + g * y_stride + b * BNC_Q8_0_BLOCK);
}

BNC_AVX512VNNI BNC_INLINE void mix_of(const float *p, int64_t p_stride, int n_queries, const uint8_t *v, int64_t n,
                                      int64_t ne0, float *y, int64_t y_stride, const uint8_t *next) {
    bnc_ahead ahead = bnc_ahead_of(next, n * bnc_q8_0_row_bytes(ne0));
    int64_t i = 0;
    for (; i + 2 * BNC_Q8_0_BLOCK <= ne0; i += 2 * BNC_Q8_0_BLOCK)
        mix_columns(p, p_stride, n_queries, v + bnc_q8_0_row_bytes(i), n, ne0, 2, y + i, y_stride, &ahead);
    if (i < ne0)
        mix_columns(p, p_stride, n_queries, v + bnc_q8_0_row_bytes(i), n, ne0, 1, y + i, y_stride, &ahead);
}

BNC_AVX512VNNI void bnc_mix_q8_0_avx512vnni(const float *p, int64_t p_stride, int n_group, const uint8_t *v, int64_t n,
                                            int64_t ne0, float *y, int64_t y_stride, const uint8_t *next) {
    int g = 0;
    for (; g + 4 <= n_group; g += 4)
        mix_of(p + g * p_stride, p_stride, 4, v, n, ne0, y + g * y_stride, y_stride, next);
    for (; g + 2 <= n_group; g += 2)
        mix_of(p + g * p_stride, p_stride, 2, v, n, ne0, y + g * y_stride, y_stride, next);
    for (; g < n_group; g++)
        mix_of(p + g * p_stride, p_stride, 1, v, n, ne0, y + g * y_stride, y_stride, next);
}

#endif
