/*
 * f32_avx2.c - the steps between the matrices: the operations of f32_scalar.c in the same order, eight floats at once.
 */
#include "kernels.h"

#if defined(BNC_X86_64)

#include "lanes_avx2.h"

#include <math.h>

/* The last n % BNC_LANES elements, starting at lane 0 again since whole blocks came before them. */
BNC_AVX2 static float sum_with_tail(bnc_lanes acc, const float *tail, int64_t n_tail) {
    if (n_tail == 0)
        return bnc_sum_lanes_avx2(acc);
    float lane[BNC_LANES];
    _mm256_storeu_ps(lane, acc.lo);
    _mm256_storeu_ps(lane + 8, acc.hi);
    for (int64_t i = 0; i < n_tail; i++)
        lane[i] += tail[i];
    return bnc_sum_lanes(lane);
}

BNC_AVX2 float bnc_rms_norm_avx2(const float *x, const float *weight, int64_t n, float eps, float *y) {
    bnc_lanes acc = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    const int64_t whole = n / BNC_LANES * BNC_LANES;
    for (int64_t i = 0; i < whole; i += BNC_LANES) {
        const __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + i + 8);
        acc.lo = _mm256_add_ps(acc.lo, _mm256_mul_ps(a, a));
        acc.hi = _mm256_add_ps(acc.hi, _mm256_mul_ps(b, b));
    }
    float squares[BNC_LANES];
    for (int64_t i = whole; i < n; i++)
        squares[i - whole] = x[i] * x[i];
    const float r = 1.0f / sqrtf(sum_with_tail(acc, squares, n - whole) / (float)n + eps);
    __m256 max8 = _mm256_setzero_ps();
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(r));
        const __m256 v = _mm256_mul_ps(scaled, _mm256_loadu_ps(weight + i));
        _mm256_storeu_ps(y + i, v);
        max8 = _mm256_max_ps(bnc_abs_avx2(v), max8); /* a NaN gives way to the second operand */
    }
    float max = bnc_max_avx2(max8);
    for (; i < n; i++) {
        y[i] = (x[i] * r) * weight[i];
        max = fabsf(y[i]) > max ? fabsf(y[i]) : max;
    }
    return max;
}

/* Eight floats rounded half to even, as int32. */
BNC_AVX2 BNC_INLINE __m256i round_to_int(__m256 x) {
    const __m256 magic = _mm256_set1_ps(BNC_ROUND_MAGIC);
    return _mm256_sub_epi32(_mm256_castps_si256(_mm256_add_ps(x, magic)), _mm256_castps_si256(magic));
}

BNC_AVX2 void bnc_q8_avx2(const float *x, int64_t n, int64_t n_padded, float max, int8_t *q, float *s, int32_t *q_sum) {
    const int64_t whole = n / 32 * 32;
    *s = 127.0f / (max > 1e-5f ? max : 1e-5f);

    const __m256 scale = _mm256_set1_ps(*s);
    /* The packs interleave 128-bit halves: dword j of the result comes from dword order[j]. */
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i sum = _mm256_setzero_si256();
    for (int64_t i = 0; i < whole; i += 32) {
        const __m256i a = round_to_int(_mm256_mul_ps(_mm256_loadu_ps(x + i), scale));
        const __m256i b = round_to_int(_mm256_mul_ps(_mm256_loadu_ps(x + i + 8), scale));
        const __m256i c = round_to_int(_mm256_mul_ps(_mm256_loadu_ps(x + i + 16), scale));
        const __m256i d = round_to_int(_mm256_mul_ps(_mm256_loadu_ps(x + i + 24), scale));
        const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
        const __m256i v = _mm256_permutevar8x32_epi32(packed, order);
        _mm256_storeu_si256((__m256i *)(q + i), v);
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), v);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    int32_t lanes[8], total = 0;
    _mm256_storeu_si256((__m256i *)lanes, sum);
    for (int i = 0; i < 8; i++)
        total += lanes[i];
    for (int64_t i = whole; i < n; i++) {
        const int32_t v = bnc_round_to_int(x[i] * *s);
        q[i] = (int8_t)(v < -128 ? -128 : v > 127 ? 127 : v);
        total += q[i];
    }
    memset(q + n, 0, (size_t)(n_padded - n));
    *q_sum = total;
}

BNC_AVX2 void bnc_scale_i32_avx2(const int32_t *x, int64_t n, float s, float d, float *y) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 v = _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *)(x + i)));
        _mm256_storeu_ps(y + i, _mm256_mul_ps(_mm256_div_ps(v, _mm256_set1_ps(s)), _mm256_set1_ps(d)));
    }
    for (; i < n; i++)
        y[i] = ((float)x[i] / s) * d;
}

BNC_AVX2 void bnc_exps_avx2(float *x, int64_t n, float *max, float *sum) {
    __m256 m = _mm256_set1_ps(-INFINITY); /* a NaN is never the largest: max gives its second operand */
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        m = _mm256_max_ps(_mm256_loadu_ps(x + i), m);
    float top = bnc_max_avx2(m);
    for (; i < n; i++)
        top = x[i] > top ? x[i] : top;

    bnc_lanes acc = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    const __m256 shift = _mm256_set1_ps(top);
    for (i = 0; i + BNC_LANES <= n; i += BNC_LANES) {
        const __m256 a = bnc_exp_avx2(_mm256_sub_ps(_mm256_loadu_ps(x + i), shift));
        const __m256 b = bnc_exp_avx2(_mm256_sub_ps(_mm256_loadu_ps(x + i + 8), shift));
        _mm256_storeu_ps(x + i, a);
        _mm256_storeu_ps(x + i + 8, b);
        acc.lo = _mm256_add_ps(acc.lo, a);
        acc.hi = _mm256_add_ps(acc.hi, b);
    }
    const int64_t whole = i;
    for (; i < n; i++)
        x[i] = bnc_exp(x[i] - top);
    *max = top;
    *sum = sum_with_tail(acc, x + whole, n - whole);
}

BNC_AVX2 void bnc_relu2_avx2(const float *gate, const float *up, int64_t n, float *y) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 g = _mm256_max_ps(_mm256_loadu_ps(gate + i), _mm256_setzero_ps());
        _mm256_storeu_ps(y + i, _mm256_mul_ps(_mm256_mul_ps(g, g), _mm256_loadu_ps(up + i)));
    }
    bnc_relu2_scalar(gate + i, up + i, n - i, y + i);
}

BNC_AVX2 void bnc_silu_avx2(const float *gate, const float *up, int64_t n, float *y) {
    const __m256 one = _mm256_set1_ps(1.0f), minus = _mm256_set1_ps(-0.0f);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 g = _mm256_loadu_ps(gate + i);
        const __m256 act = _mm256_div_ps(g, _mm256_add_ps(one, bnc_exp_avx2(_mm256_xor_ps(g, minus))));
        _mm256_storeu_ps(y + i, _mm256_mul_ps(act, _mm256_loadu_ps(up + i)));
    }
    bnc_silu_scalar(gate + i, up + i, n - i, y + i);
}

#endif
