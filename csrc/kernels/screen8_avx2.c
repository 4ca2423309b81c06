/*
 * screen8_avx2.c - screen8_scalar.c with vpmaddwd: 16 codes are widened to 16 bits, their products added in pairs to eight
 * int32, and these to int64 after BNC_SCREEN8_STRETCH columns.
 */
#include "kernels.h"

#if defined(BNC_X86_64)

#include <immintrin.h>

/* Rows at a time, from as many far-apart ranges: see gemv_avx512vnni.c. */
enum { STREAMS = 4, PREFETCH = 1024 };

BNC_AVX2 BNC_INLINE int64_t sum_i32(__m256i v) {
    const __m256i wide = _mm256_add_epi64(_mm256_cvtepi32_epi64(_mm256_castsi256_si128(v)),
                                          _mm256_cvtepi32_epi64(_mm256_extracti128_si256(v, 1)));
    const __m128i two = _mm_add_epi64(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
    return _mm_cvtsi128_si64(two) + _mm_extract_epi64(two, 1);
}

BNC_AVX2 BNC_INLINE void dot_rows(const uint8_t *w, int64_t row_stride, int n_rows, int64_t ne0, const int16_t *x,
                                  float *y, int64_t y_stride) {
    int64_t total[STREAMS] = {0};
    for (int64_t first = 0; first < ne0; first += BNC_SCREEN8_STRETCH) {
        const int64_t last = bnc_min_i64(ne0, first + BNC_SCREEN8_STRETCH);
        __m256i sum[STREAMS];
        for (int r = 0; r < n_rows; r++)
            sum[r] = _mm256_setzero_si256();
        for (int64_t i = first; i < last; i += 32)
            for (int r = 0; r < n_rows; r++) {
                const uint8_t *at = w + r * row_stride + i;
                __builtin_prefetch(at + PREFETCH);
                for (int k = 0; k < 32; k += 16) {
                    const __m256i codes = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(at + k)));
                    const __m256i v = _mm256_loadu_si256((const __m256i *)(x + i + k));
                    sum[r] = _mm256_add_epi32(sum[r], _mm256_madd_epi16(codes, v));
                }
            }
        for (int r = 0; r < n_rows; r++)
            total[r] += sum_i32(sum[r]);
    }
    for (int r = 0; r < n_rows; r++)
        y[r * y_stride] = (float)total[r];
}

BNC_AVX2 void bnc_screen8_avx2(const uint8_t *w, int64_t n_rows, int64_t ne0, const int16_t *x, float *y) {
    const int64_t apart = n_rows / STREAMS;
    for (int64_t r = 0; r < apart; r++)
        dot_rows(w + r * ne0, apart * ne0, STREAMS, ne0, x, y + r, apart);
    for (int64_t r = apart * STREAMS; r < n_rows; r++)
        dot_rows(w + r * ne0, ne0, 1, ne0, x, y + r, 1);
}

#endif
