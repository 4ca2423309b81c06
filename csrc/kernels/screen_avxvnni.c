/*
 * screen_avxvnni.c - screen_scalar.c with vpdpbusd: lanes 0-7 and 8-15 of a stripe are two registers.
 */
#include "kernels.h"

#if defined(BNC_HAVE_AVXVNNI)

#include "dot_vnni.h"
#include "lanes_avx2.h"

/* Rows at a time, from as many far-apart ranges: see gemv_avx512vnni.c. */
enum { STREAMS = 4, PREFETCH = 2048 };

BNC_AVXVNNI BNC_INLINE __m256i load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

BNC_AVXVNNI BNC_INLINE void half_stripe(const uint8_t *w, const bnc_screen_stripe *x, int half, __m256 *sum,
                                        __m256 *energy) {
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i high = _mm256_setzero_si256(), low = _mm256_setzero_si256();
    for (int l = 0; l < 4; l++) {
        const __m256i packed = load(w + 64 * l + 32 * half);
        const __m256i even = _mm256_and_si256(packed, nibble);
        const __m256i odd = _mm256_and_si256(_mm256_srli_epi16(packed, 4), nibble);
        high = bnc_dot_avxvnni(high, even, load(x->high[2 * l] + 32 * half));
        low = bnc_dot_avxvnni(low, even, load(x->low[2 * l] + 32 * half));
        high = bnc_dot_avxvnni(high, odd, load(x->high[2 * l + 1] + 32 * half));
        low = bnc_dot_avxvnni(low, odd, load(x->low[2 * l + 1] + 32 * half));
    }
    const __m256 dot = _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_slli_epi32(high, 8), low));
    const __m256 step = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(w + BNC_SCREEN_CODE_BYTES + 16 * half)));
    const __m256 v = _mm256_sub_ps(dot, _mm256_loadu_ps(x->offset + 8 * half));
    *sum = _mm256_add_ps(*sum, _mm256_mul_ps(v, step));
    *energy = _mm256_add_ps(*energy, _mm256_mul_ps(_mm256_mul_ps(step, step), _mm256_loadu_ps(x->energy + 8 * half)));
}

BNC_AVXVNNI BNC_INLINE void rows(const uint8_t *w, int64_t row_stride, int n_rows, int64_t n_stripes,
                                 const bnc_screen_stripe *x, float *sums, float *energies, int64_t apart) {
    bnc_lanes sum[STREAMS], energy[STREAMS];
    for (int r = 0; r < n_rows; r++)
        sum[r] = energy[r] = (bnc_lanes){_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int64_t i = 0; i < n_stripes; i++)
        for (int r = 0; r < n_rows; r++) {
            const uint8_t *p = w + r * row_stride + i * BNC_SCREEN_STRIPE_BYTES;
            for (int at = 0; at < BNC_SCREEN_STRIPE_BYTES; at += BNC_CACHE_LINE)
                _mm_prefetch((const char *)p + at + PREFETCH, _MM_HINT_T0);
            half_stripe(p, &x[i], 0, &sum[r].lo, &energy[r].lo);
            half_stripe(p, &x[i], 1, &sum[r].hi, &energy[r].hi);
        }
    for (int r = 0; r < n_rows; r++) {
        sums[r * apart] = bnc_sum_lanes_avx2(sum[r]);
        energies[r * apart] = bnc_sum_lanes_avx2(energy[r]);
    }
}

BNC_AVXVNNI void bnc_screen_avxvnni(const uint8_t *w, int64_t n_rows, int64_t n_stripes, const bnc_screen_stripe *x,
                                    float *sums, float *energies) {
    const int64_t row_bytes = n_stripes * BNC_SCREEN_STRIPE_BYTES, apart = n_rows / STREAMS;
    for (int64_t r = 0; r < apart; r++)
        rows(w + r * row_bytes, apart * row_bytes, STREAMS, n_stripes, x, sums + r, energies + r, apart);
    for (int64_t r = apart * STREAMS; r < n_rows; r++)
        rows(w + r * row_bytes, row_bytes, 1, n_stripes, x, sums + r, energies + r, 1);
}

#endif
