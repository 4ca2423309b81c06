/*
 * measure_avx2.c - measure_scalar.c with the lanes in two registers.
 */
#include "kernels.h"

#if defined(BNC_X86_64)

#include "codes_avx2.h"

typedef struct {
    __m256 sum;
    __m256i top; /* bits of the largest magnitudes: ordered as the magnitudes are, infinity and NaN above all others */
} half;

BNC_AVX2 BNC_INLINE half take(half h, __m256i bits) {
    const __m256i magnitude = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff));
    h.sum = _mm256_add_ps(h.sum, _mm256_castsi256_ps(magnitude));
    h.top = _mm256_max_epi32(h.top, magnitude);
    return h;
}

/* -1 where the floats have changed since one of them was seen to be none: their owner writes to them meanwhile. */
static int64_t first_not_finite(const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if ((bnc_bits_f32(x[i]) & 0x7fffffffu) >= 0x7f800000u)
            return i;
    return -1;
}

BNC_AVX2 void bnc_measure_avx2(const float *x, int64_t n, bnc_magnitudes *out) {
    half lo = {_mm256_setzero_ps(), _mm256_setzero_si256()}, hi = lo;
    int64_t i = 0;
    for (; i + BNC_LANES <= n; i += BNC_LANES) {
        lo = take(lo, _mm256_loadu_si256((const __m256i *)(x + i)));
        hi = take(hi, _mm256_loadu_si256((const __m256i *)(x + i + 8)));
    }
    if (i < n) { /* zeros add nothing to a sum of magnitudes, not even a sign */
        float rest[BNC_LANES] = {0};
        memcpy(rest, x + i, (size_t)(n - i) * 4);
        lo = take(lo, _mm256_loadu_si256((const __m256i *)rest));
        hi = take(hi, _mm256_loadu_si256((const __m256i *)(rest + 8)));
    }
    __m128i top = _mm256_castsi256_si128(_mm256_max_epi32(lo.top, hi.top));
    top = _mm_max_epi32(top, _mm256_extracti128_si256(_mm256_max_epi32(lo.top, hi.top), 1));
    top = _mm_max_epi32(top, _mm_shuffle_epi32(top, 0x4e));
    top = _mm_max_epi32(top, _mm_shuffle_epi32(top, 0xb1));
    const uint32_t max = (uint32_t)_mm_cvtsi128_si32(top);
    if (max >= 0x7f800000u) {
        *out = (bnc_magnitudes){.first_not_finite = first_not_finite(x, n)};
        return;
    }
    float lane[BNC_LANES];
    _mm256_storeu_ps(lane, lo.sum);
    _mm256_storeu_ps(lane + 8, hi.sum);
    *out = (bnc_magnitudes){.sum = bnc_sum_lanes(lane), .max = bnc_f32_bits(max), .first_not_finite = -1};
}

#endif
