/*
 * attention_q8_0_avx2.c - scores and mix for q8_0 caches with eight sums of int32 a register.
 */
#include "attention_q8_0.h"

#if defined(BNC_X86_64)

#include "lanes_avx2.h"

BNC_AVX2 BNC_INLINE __m256i codes_of(const uint8_t *block) {
    return _mm256_loadu_si256((const __m256i *)(block + BNC_Q8_0_CODES));
}

/* ---- scores ---- */

enum { ROWS = 4 };

/* a * b in fours as int32. maddubs wants one operand unsigned: the sign of a goes to b. No code is -128, and pairs of
 * products stay below 2 * 127 * 127 < 2^15. */
BNC_AVX2 BNC_INLINE __m256i dot4(__m256i a, __m256i b) {
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(b, a));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/* The scores of one query with ROWS rows. */
BNC_AVX2 BNC_INLINE __m128 dot_rows(const uint8_t *const row[ROWS], const uint8_t *query, int64_t row_bytes) {
    __m128 sum = _mm_setzero_ps();
    for (int64_t i = 0; i < row_bytes; i += BNC_Q8_0_BYTES) {
        const __m256i q = codes_of(query + i);
        const __m256i s01 = _mm256_hadd_epi32(dot4(codes_of(row[0] + i), q), dot4(codes_of(row[1] + i), q));
        const __m256i s23 = _mm256_hadd_epi32(dot4(codes_of(row[2] + i), q), dot4(codes_of(row[3] + i), q));
        const __m256i halves = _mm256_hadd_epi32(s01, s23);
        const __m128i total = _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
        const __m128 scales =
            _mm_cvtph_ps(_mm_setr_epi16((short)bnc_load_u16(row[0] + i), (short)bnc_load_u16(row[1] + i),
                                        (short)bnc_load_u16(row[2] + i), (short)bnc_load_u16(row[3] + i), 0, 0, 0, 0));
        const __m128 scale = _mm_mul_ps(scales, _mm_set1_ps(bnc_q8_0_scale(query + i)));
        sum = _mm_add_ps(sum, _mm_mul_ps(_mm_cvtepi32_ps(total), scale));
    }
    return sum;
}

BNC_AVX2 void bnc_scores_q8_0_avx2(const float *x, int n_group, const uint8_t *k, int64_t n, int64_t ne0, float scale,
                                   float *y, int64_t y_stride, const uint8_t *next) {
    (void)next;
    const int64_t row_bytes = bnc_q8_0_row_bytes(ne0);
    uint8_t query[BNC_Q8_0_QUERY_BYTES];
    for (int g = 0; g < n_group; g++) {
        bnc_quantize_q8_0_avx2(x + g * ne0, 1, ne0, 1.0f, query);
        for (int64_t j = 0; j < n; j += ROWS) {
            const uint8_t *row[ROWS]; /* the last one stands in for those that are missing */
            for (int r = 0; r < ROWS; r++)
                row[r] = k + bnc_min_i64(j + r, n - 1) * row_bytes;
            float out[ROWS];
            _mm_storeu_ps(out, _mm_mul_ps(dot_rows(row, query, row_bytes), _mm_set1_ps(scale)));
            memcpy(y + g * y_stride + j, out, (size_t)bnc_min_i64(ROWS, n - j) * sizeof(float));
        }
    }
}

/* ---- mix ---- */

/* The scales of n blocks, row_bytes apart, as floats; the largest of them. */
BNC_AVX2 static float scales_of(const uint8_t *v, int64_t row_bytes, int64_t n, float *d) {
    float top = 0;
    for (int64_t j = 0; j < n; j++) {
        d[j] = _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bnc_load_u16(v + j * row_bytes))));
        top = d[j] > top ? d[j] : top;
    }
    return top;
}

/* p * d as 16-bit integers, zeros up to an even number of them. Cut off rather than saturated: of an infinite scale all are 0,
 * as in scalar code. */
BNC_AVX2 static void weights_of(const float *p, const float *d, int64_t n, float inverse, int16_t *w) {
    int64_t j = 0;
    for (; j + 8 <= n; j += 8) {
        const __m256 t = _mm256_mul_ps(_mm256_loadu_ps(d + j), _mm256_set1_ps(inverse));
        const __m256i i = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(p + j), t));
        const __m256i low = _mm256_and_si256(i, _mm256_set1_epi32(0xffff));
        const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
        _mm_storeu_si128((__m128i *)(w + j), packed);
    }
    for (; j < n; j++)
        w[j] = (int16_t)bnc_round_to_int(p[j] * (d[j] * inverse));
    w[n] = 0;
}

/* 32 columns of one query. A register of words holds pairs from two rows; madd adds their products. */
BNC_AVX2 static void mix_block(const int16_t *w, const uint8_t *v, int64_t row_bytes, int64_t n, float unit, float *y) {
    __m256i sum[4];
    for (int a = 0; a < 4; a++)
        sum[a] = _mm256_setzero_si256();
    for (int64_t j = 0; j < n; j += 2) {
        const __m256i c0 = codes_of(v + j * row_bytes), c1 = codes_of(v + bnc_min_i64(j + 1, n - 1) * row_bytes);
        const __m256i pair = _mm256_set1_epi32((int32_t)bnc_load_u32(w + j));
        for (int half = 0; half < 2; half++) {
            const __m128i h0 = half ? _mm256_extracti128_si256(c0, 1) : _mm256_castsi256_si128(c0);
            const __m128i h1 = half ? _mm256_extracti128_si256(c1, 1) : _mm256_castsi256_si128(c1);
            const __m256i a = _mm256_cvtepi8_epi16(h0), b = _mm256_cvtepi8_epi16(h1);
            __m256i *s = sum + 2 * half;
            s[0] = _mm256_add_epi32(s[0], _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), pair));
            s[1] = _mm256_add_epi32(s[1], _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), pair));
        }
    }
    for (int half = 0; half < 2; half++) { /* unpacked: columns 0-3 and 8-11 in one, 4-7 and 12-15 in the other */
        const __m256i *s = sum + 2 * half;
        const __m256 u = _mm256_set1_ps(unit);
        const __m256i lo = _mm256_permute2x128_si256(s[0], s[1], 0x20),
                      hi = _mm256_permute2x128_si256(s[0], s[1], 0x31);
        _mm256_storeu_ps(y + 16 * half, _mm256_mul_ps(_mm256_cvtepi32_ps(lo), u));
        _mm256_storeu_ps(y + 16 * half + 8, _mm256_mul_ps(_mm256_cvtepi32_ps(hi), u));
    }
}

BNC_AVX2 void bnc_mix_q8_0_avx2(const float *p, int64_t p_stride, int n_group, const uint8_t *v, int64_t n, int64_t ne0,
                                float *y, int64_t y_stride, const uint8_t *next) {
    (void)next;
    const int64_t row_bytes = bnc_q8_0_row_bytes(ne0);
    float d[BNC_MIX_ROWS];
    int16_t w[BNC_MIX_ROWS + 1];
    for (int64_t b = 0; b < ne0 / BNC_Q8_0_BLOCK; b++) {
        const uint8_t *block = v + b * BNC_Q8_0_BYTES;
        const float top = scales_of(block, row_bytes, n, d), inverse = bnc_mix_inverse(top), unit = bnc_mix_unit(top);
        for (int g = 0; g < n_group; g++) {
            weights_of(p + g * p_stride, d, n, inverse, w);
            mix_block(w, block, row_bytes, n, unit, y + g * y_stride + b * BNC_Q8_0_BLOCK);
        }
    }
}

#endif
