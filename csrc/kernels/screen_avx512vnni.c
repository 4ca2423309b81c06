/*
 * screen_avx512vnni.c - screen_scalar.c with vpdpbusd: the sixteen lanes of a stripe are one register.
 */
#include "kernels.h"

#if defined(BNC_X86_64)

#include "dot_vnni.h"

/* Rows at a time, from as many far-apart ranges: see gemv_avx512vnni.c. */
enum { STREAMS = 4, PREFETCH = 2048 };

typedef struct {
    __m512 sum, energy;
} lanes;

/* Folds halves, as bnc_sum_lanes does. */
BNC_AVX512VNNI BNC_INLINE float sum_lanes(__m512 v) {
    const __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

/* One stripe of n_rows rows: what is loaded of the activation serves them all. */
BNC_AVX512VNNI BNC_INLINE void stripe(const uint8_t *w, int64_t row_stride, int n_rows, const bnc_screen_stripe *x,
                                      lanes *acc) {
    const __m512i nibble = _mm512_set1_epi8(15);
    __m512i high[STREAMS], low[STREAMS];
    BNC_UNROLL
    for (int r = 0; r < n_rows; r++)
        high[r] = low[r] = _mm512_setzero_si512();
    BNC_UNROLL
    for (int l = 0; l < 4; l++) {
        const __m512i high_even = _mm512_loadu_si512(x->high[2 * l]), low_even = _mm512_loadu_si512(x->low[2 * l]);
        const __m512i high_odd = _mm512_loadu_si512(x->high[2 * l + 1]),
                      low_odd = _mm512_loadu_si512(x->low[2 * l + 1]);
        BNC_UNROLL
        for (int r = 0; r < n_rows; r++) {
            const uint8_t *p = w + r * row_stride + 64 * l;
            _mm_prefetch((const char *)p + PREFETCH, _MM_HINT_T0);
            const __m512i packed = _mm512_loadu_si512(p);
            const __m512i even = _mm512_and_si512(packed, nibble);
            const __m512i odd = _mm512_and_si512(_mm512_srli_epi16(packed, 4), nibble);
            high[r] = bnc_dot_avx512vnni(high[r], even, high_even);
            low[r] = bnc_dot_avx512vnni(low[r], even, low_even);
            high[r] = bnc_dot_avx512vnni(high[r], odd, high_odd);
            low[r] = bnc_dot_avx512vnni(low[r], odd, low_odd);
        }
    }
    const __m512 offset = _mm512_loadu_ps(x->offset), energy = _mm512_loadu_ps(x->energy);
    BNC_UNROLL
    for (int r = 0; r < n_rows; r++) {
        const __m512 dot = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(high[r], 8), low[r]));
        const uint8_t *steps = w + r * row_stride + BNC_SCREEN_CODE_BYTES;
        const __m512 step = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)steps));
        acc[r].sum = _mm512_add_ps(acc[r].sum, _mm512_mul_ps(_mm512_sub_ps(dot, offset), step));
        acc[r].energy = _mm512_add_ps(acc[r].energy, _mm512_mul_ps(_mm512_mul_ps(step, step), energy));
    }
}

BNC_AVX512VNNI BNC_INLINE void rows(const uint8_t *w, int64_t row_stride, int n_rows, int64_t n_stripes,
                                    const bnc_screen_stripe *x, float *sums, float *energies, int64_t apart) {
    lanes acc[STREAMS];
    BNC_UNROLL
    for (int r = 0; r < n_rows; r++)
        acc[r].sum = acc[r].energy = _mm512_setzero_ps();
    for (int64_t i = 0; i < n_stripes; i++)
        stripe(w + i * BNC_SCREEN_STRIPE_BYTES, row_stride, n_rows, &x[i], acc);
    BNC_UNROLL
    for (int r = 0; r < n_rows; r++) {
        sums[r * apart] = sum_lanes(acc[r].sum);
        energies[r * apart] = sum_lanes(acc[r].energy);
    }
}

BNC_AVX512VNNI void bnc_screen_avx512vnni(const uint8_t *w, int64_t n_rows, int64_t n_stripes,
                                          const bnc_screen_stripe *x, float *sums, float *energies) {
    const int64_t row_bytes = n_stripes * BNC_SCREEN_STRIPE_BYTES, apart = n_rows / STREAMS;
    for (int64_t r = 0; r < apart; r++)
        rows(w + r * row_bytes, apart * row_bytes, STREAMS, n_stripes, x, sums + r, energies + r, apart);
    for (int64_t r = apart * STREAMS; r < n_rows; r++)
        rows(w + r * row_bytes, row_bytes, 1, n_stripes, x, sums + r, energies + r, 1);
}

#endif
