/*
 * screen8_avx512vnni.c - screen8_scalar.c with vpdpwssd: 32 codes are widened to 16 bits, their products added in pairs to
 * sixteen int32, and these to int64 after BNC_SCREEN8_STRETCH columns.
 */
#include "kernels.h"

#if defined(BNC_X86_64)

#include <immintrin.h>

/* Rows at a time, from as many far-apart ranges: see gemv_avx512vnni.c. */
enum { STREAMS = 8, PREFETCH = 1024 };

BNC_AVX512VNNI BNC_INLINE int64_t sum_i32(__m512i v) {
    return _mm512_reduce_add_epi64(_mm512_add_epi64(_mm512_cvtepi32_epi64(_mm512_castsi512_si256(v)),
                                                    _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(v, 1))));
}

BNC_AVX512VNNI BNC_INLINE void dot_rows(const uint8_t *w, int64_t row_stride, int n_rows, int64_t ne0, const int16_t *x,
                                        float *y, int64_t y_stride) {
    int64_t total[STREAMS] = {0};
    for (int64_t first = 0; first < ne0; first += BNC_SCREEN8_STRETCH) {
        const int64_t last = bnc_min_i64(ne0, first + BNC_SCREEN8_STRETCH);
        __m512i sum[STREAMS];
        BNC_UNROLL
        for (int r = 0; r < n_rows; r++)
            sum[r] = _mm512_setzero_si512();
        for (int64_t i = first; i < last; i += 64) {
            const __m512i lo = _mm512_loadu_si512(x + i), hi = _mm512_loadu_si512(x + i + 32);
            BNC_UNROLL
            for (int r = 0; r < n_rows; r++) {
                const uint8_t *at = w + r * row_stride + i;
                _mm_prefetch((const char *)at + PREFETCH, _MM_HINT_T0);
                const __m512i a = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)at));
                const __m512i b = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(at + 32)));
                sum[r] = _mm512_dpwssd_epi32(_mm512_dpwssd_epi32(sum[r], a, lo), b, hi);
            }
        }
        BNC_UNROLL
        for (int r = 0; r < n_rows; r++)
            total[r] += sum_i32(sum[r]);
    }
    for (int r = 0; r < n_rows; r++)
        y[r * y_stride] = (float)total[r];
}

BNC_AVX512VNNI void bnc_screen8_avx512vnni(const uint8_t *w, int64_t n_rows, int64_t ne0, const int16_t *x, float *y) {
    const int64_t apart = n_rows / STREAMS;
    for (int64_t r = 0; r < apart; r++)
        dot_rows(w + r * ne0, apart * ne0, STREAMS, ne0, x, y + r, apart);
    for (int64_t r = apart * STREAMS; r < n_rows; r++)
        dot_rows(w + r * ne0, ne0, 1, ne0, x, y + r, 1);
}

#endif
