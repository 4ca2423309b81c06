/*
 * lanes_avx2.h - BNC_LANES partial sums as two 256-bit registers: lanes 0-7 and 8-15.
 */
#ifndef BNC_LANES_AVX2_H
#define BNC_LANES_AVX2_H

#include "lanes.h"

#include <immintrin.h>

typedef struct {
    __m256 lo, hi;
} bnc_lanes;

/* The sum of the lanes, after the elements from tail on (fewer than BNC_LANES) were added to them one by one. */
BNC_AVX2 BNC_INLINE float bnc_sum_lanes_avx2(bnc_lanes a) {
    const __m256 s8 = _mm256_add_ps(a.lo, a.hi);
    const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

/* bnc_exp on eight floats: the same operations in the same order. */
BNC_AVX2 BNC_INLINE __m256 bnc_exp_avx2(__m256 x) {
    const __m256 magic = _mm256_set1_ps(BNC_ROUND_MAGIC);
    x = _mm256_max_ps(x, _mm256_set1_ps(BNC_EXP_MIN));
    x = _mm256_min_ps(x, _mm256_set1_ps(BNC_EXP_MAX));
    const __m256 shifted = _mm256_add_ps(_mm256_mul_ps(x, _mm256_set1_ps(BNC_LOG2_E)), magic);
    const __m256 n = _mm256_sub_ps(shifted, magic);
    const __m256 r = _mm256_sub_ps(_mm256_sub_ps(x, _mm256_mul_ps(n, _mm256_set1_ps(BNC_LN2_HI))),
                                   _mm256_mul_ps(n, _mm256_set1_ps(BNC_LN2_LO)));
    __m256 p = _mm256_set1_ps(BNC_EXP_C7);
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(BNC_EXP_C6));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(BNC_EXP_C5));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(BNC_EXP_C4));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(BNC_EXP_C3));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(0.5f));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(1.0f));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(1.0f));
    const __m256i exponent = _mm256_add_epi32(
        _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_castps_si256(magic)), _mm256_set1_epi32(127));
    return _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}

BNC_AVX2 BNC_INLINE __m256 bnc_abs_avx2(__m256 x) {
    return _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff)));
}

/* Eight int8 as floats. */
BNC_AVX2 BNC_INLINE __m256 bnc_int8_avx2(const uint8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

/* The largest of eight non-negative floats. */
BNC_AVX2 BNC_INLINE float bnc_max_avx2(__m256 x) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

#endif
