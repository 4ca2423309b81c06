/*
 * exps_avx512vnni.c - the exponentials of a softmax, sixteen at a time: the lanes of the sum are one register.
 */
#include "kernels.h"

#if defined(BNC_X86_64)

#include "lanes.h"

#include <immintrin.h>
#include <math.h>

/* acc = acc * r + c, rounded twice. */
BNC_AVX512VNNI BNC_INLINE __m512 horner(__m512 acc, __m512 r, float c) {
    return _mm512_add_ps(_mm512_mul_ps(acc, r), _mm512_set1_ps(c));
}

/* bnc_exp on sixteen floats: the same operations in the same order. */
BNC_AVX512VNNI BNC_INLINE __m512 exp16(__m512 x) {
    const __m512 magic = _mm512_set1_ps(BNC_ROUND_MAGIC);
    x = _mm512_max_ps(x, _mm512_set1_ps(BNC_EXP_MIN));
    x = _mm512_min_ps(x, _mm512_set1_ps(BNC_EXP_MAX));
    const __m512 shifted = _mm512_add_ps(_mm512_mul_ps(x, _mm512_set1_ps(BNC_LOG2_E)), magic);
    const __m512 n = _mm512_sub_ps(shifted, magic);
    const __m512 high = _mm512_sub_ps(x, _mm512_mul_ps(n, _mm512_set1_ps(BNC_LN2_HI)));
    const __m512 r = _mm512_sub_ps(high, _mm512_mul_ps(n, _mm512_set1_ps(BNC_LN2_LO)));
    __m512 p = _mm512_set1_ps(BNC_EXP_C7);
    p = horner(p, r, BNC_EXP_C6);
    p = horner(p, r, BNC_EXP_C5);
    p = horner(p, r, BNC_EXP_C4);
    p = horner(p, r, BNC_EXP_C3);
    p = horner(p, r, 0.5f);
    p = horner(p, r, 1.0f);
    p = horner(p, r, 1.0f);
    const __m512i power = _mm512_sub_epi32(_mm512_castps_si512(shifted), _mm512_castps_si512(magic));
    const __m512i exponent = _mm512_add_epi32(power, _mm512_set1_epi32(127));
    return _mm512_mul_ps(p, _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23)));
}

BNC_AVX512VNNI void bnc_exps_avx512vnni(float *x, int64_t n, float *max, float *sum) {
    const __mmask16 rest = (__mmask16)((1u << (n % BNC_LANES)) - 1);
    const __m512 lowest = _mm512_set1_ps(-INFINITY);
    __m512 top = lowest; /* a NaN is never the largest: max gives its second operand */
    int64_t i = 0;
    for (; i + BNC_LANES <= n; i += BNC_LANES)
        top = _mm512_max_ps(_mm512_loadu_ps(x + i), top);
    top = _mm512_max_ps(_mm512_mask_loadu_ps(lowest, rest, x + i), top);
    *max = _mm512_reduce_max_ps(top);

    const __m512 shift = _mm512_set1_ps(*max);
    __m512 acc = _mm512_setzero_ps();
    for (i = 0; i + BNC_LANES <= n; i += BNC_LANES) {
        const __m512 e = exp16(_mm512_sub_ps(_mm512_loadu_ps(x + i), shift));
        _mm512_storeu_ps(x + i, e);
        acc = _mm512_add_ps(acc, e);
    }
    const __m512 e = exp16(_mm512_sub_ps(_mm512_maskz_loadu_ps(rest, x + i), shift));
    _mm512_mask_storeu_ps(x + i, rest, e);
    acc = _mm512_mask_add_ps(acc, rest, acc, e);
    float lane[BNC_LANES];
    _mm512_storeu_ps(lane, acc);
    *sum = bnc_sum_lanes(lane);
}

#endif
