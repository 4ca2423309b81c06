/*
 * dot_avx2.c - float rows times a float vector: dot_scalar.c with the lanes in registers.
 */
#include "kernels.h"

#if defined(BNC_X86_64)

#include "lanes_avx2.h"

BNC_AVX2 BNC_INLINE __m256 load8_f32(const uint8_t *p, int64_t i) {
    return _mm256_loadu_ps((const float *)(p + 4 * i));
}
BNC_AVX2 BNC_INLINE __m256 load8_f16(const uint8_t *p, int64_t i) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 2 * i)));
}
BNC_AVX2 BNC_INLINE __m256 load8_bf16(const uint8_t *p, int64_t i) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(p + 2 * i)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

/* Rows in flight together: each has its own chain of dependent additions, and its own quarter of the rows, since a core
 * keeps more lines in flight on several far-apart streams. */
enum { ROWS = 4, PREFETCH = 1024 };

/* y[r * y_stride] = w[r] . x for n_rows <= ROWS rows, row_stride bytes apart. */
#define DOT_ROWS(type)                                                                                              \
    BNC_AVX2 BNC_INLINE void dot_rows_##type(const uint8_t *w, int64_t row_stride, int n_rows, int64_t n,           \
                                             const float *x, float *y, int64_t y_stride) {                          \
        bnc_lanes acc[ROWS];                                                                                        \
        for (int r = 0; r < n_rows; r++)                                                                            \
            acc[r].lo = acc[r].hi = _mm256_setzero_ps();                                                            \
        int64_t i = 0;                                                                                              \
        for (; i + BNC_LANES <= n; i += BNC_LANES) {                                                                \
            const __m256 x_lo = _mm256_loadu_ps(x + i), x_hi = _mm256_loadu_ps(x + i + 8);                          \
            for (int r = 0; r < n_rows; r++) {                                                                      \
                __builtin_prefetch(w + r * row_stride + i * (int64_t)sizeof(float) / 2 + PREFETCH);                 \
                acc[r].lo = _mm256_add_ps(acc[r].lo, _mm256_mul_ps(load8_##type(w + r * row_stride, i), x_lo));     \
                acc[r].hi = _mm256_add_ps(acc[r].hi, _mm256_mul_ps(load8_##type(w + r * row_stride, i + 8), x_hi)); \
            }                                                                                                       \
        }                                                                                                           \
        for (int r = 0; r < n_rows; r++) {                                                                          \
            if (i == n) {                                                                                           \
                y[r * y_stride] = bnc_sum_lanes_avx2(acc[r]);                                                       \
                continue;                                                                                           \
            }                                                                                                       \
            float lane[BNC_LANES];                                                                                  \
            _mm256_storeu_ps(lane, acc[r].lo);                                                                      \
            _mm256_storeu_ps(lane + 8, acc[r].hi);                                                                  \
            for (int64_t j = i; j < n; j++)                                                                         \
                lane[j - i] += bnc_element_##type(w + r * row_stride, j) * x[j];                                    \
            y[r * y_stride] = bnc_sum_lanes(lane);                                                                  \
        }                                                                                                           \
    }                                                                                                               \
    BNC_AVX2 static void dot_all_##type(const uint8_t *w, int64_t row_bytes, int64_t n_rows, int64_t n,             \
                                        const float *x, float *y) {                                                 \
        const int64_t apart = n_rows / ROWS;                                                                        \
        for (int64_t r = 0; r < apart; r++)                                                                         \
            dot_rows_##type(w + r * row_bytes, apart * row_bytes, ROWS, n, x, y + r, apart);                        \
        for (int64_t r = apart * ROWS; r < n_rows; r++)                                                             \
            dot_rows_##type(w + r * row_bytes, row_bytes, 1, n, x, y + r, 1);                                       \
    }

#define HEAD(type, bytes)                                                                                           \
    BNC_AVX2 void bnc_head_##type##_avx2(const uint8_t *w, int64_t n_rows, int64_t ne0, const float *x, float *y) { \
        dot_all_##type(w, ne0 *(bytes), n_rows, ne0, x, y);                                                         \
    }

/* mix keeps 32 sums in registers and walks the positions; what is left of ne0 is done eight, then one at a time. */
#define ATTENTION(type, bytes)                                                                                      \
    BNC_AVX2 void bnc_scores_##type##_avx2(const float *x, int n_group, const uint8_t *k, int64_t n, int64_t ne0,   \
                                           float scale, float *y, int64_t y_stride, const uint8_t *next) {          \
        (void)next;                                                                                                 \
        for (int g = 0; g < n_group; g++) {                                                                         \
            dot_all_##type(k, ne0 *(bytes), n, ne0, x + g * ne0, y + g * y_stride);                                 \
            for (int64_t j = 0; j < n; j++)                                                                         \
                y[g * y_stride + j] *= scale;                                                                       \
        }                                                                                                           \
    }                                                                                                               \
    BNC_AVX2 BNC_INLINE void mix_block_##type(const float *p, const uint8_t *v, int64_t n, int64_t ne0, int regs,   \
                                              float *y) {                                                           \
        __m256 acc[4];                                                                                              \
        for (int a = 0; a < regs; a++)                                                                              \
            acc[a] = _mm256_setzero_ps();                                                                           \
        for (int64_t j = 0; j < n; j++) {                                                                           \
            const __m256 weight = _mm256_set1_ps(p[j]);                                                             \
            for (int a = 0; a < regs; a++)                                                                          \
                acc[a] = _mm256_add_ps(acc[a], _mm256_mul_ps(weight, load8_##type(v, j * ne0 + 8 * a)));            \
        }                                                                                                           \
        for (int a = 0; a < regs; a++)                                                                              \
            _mm256_storeu_ps(y + 8 * a, acc[a]);                                                                    \
    }                                                                                                               \
    BNC_AVX2 static void mix_one_##type(const float *p, const uint8_t *v, int64_t n, int64_t ne0, float *y) {       \
        int64_t i = 0;                                                                                              \
        for (; i + 32 <= ne0; i += 32)                                                                              \
            mix_block_##type(p, v + i * (bytes), n, ne0, 4, y + i);                                                 \
        for (; i + 8 <= ne0; i += 8)                                                                                \
            mix_block_##type(p, v + i * (bytes), n, ne0, 1, y + i);                                                 \
        for (; i < ne0; i++) {                                                                                      \
            y[i] = 0;                                                                                               \
            for (int64_t j = 0; j < n; j++)                                                                         \
                y[i] += p[j] * bnc_element_##type(v, j * ne0 + i);                                                  \
        }                                                                                                           \
    }                                                                                                               \
    BNC_AVX2 void bnc_mix_##type##_avx2(const float *p, int64_t p_stride, int n_group, const uint8_t *v, int64_t n, \
                                        int64_t ne0, float *y, int64_t y_stride, const uint8_t *next) {             \
        (void)next;                                                                                                 \
        for (int g = 0; g < n_group; g++)                                                                           \
            mix_one_##type(p + g * p_stride, v, n, ne0, y + g * y_stride);                                          \
    }

DOT_ROWS(f32)
DOT_ROWS(f16)
DOT_ROWS(bf16)
HEAD(f32, 4)
HEAD(f16, 2)
HEAD(bf16, 2)
ATTENTION(f32, 4)
ATTENTION(f16, 2)

#endif
