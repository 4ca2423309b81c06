/*
 * q8_0_avx2.c - a block of 32 weights at once: four registers of eight.
 */
#include "kernels.h"

#if defined(BNC_X86_64)

#include "codes_avx2.h"
#include "lanes_avx2.h"

enum { BLOCK = 32, SCALE_BYTES = 2, BLOCK_BYTES = 34 };

/* Eight codes as integers: the product, cut off after half a step away from zero. */
BNC_AVX2 BNC_INLINE __m256i codes8(__m256 x, __m256 inverse) {
    const __m256 sign = _mm256_set1_ps(-0.0f), v = _mm256_mul_ps(x, inverse);
    const __m256 half = _mm256_or_ps(_mm256_and_ps(v, sign), _mm256_set1_ps(BNC_BELOW_HALF));
    const __m256 number = _mm256_cmp_ps(v, v, _CMP_ORD_Q); /* a NaN becomes 0 */
    return _mm256_cvttps_epi32(_mm256_and_ps(_mm256_add_ps(v, half), number));
}

/* The largest magnitude of a block; a NaN is never that: max gives its second operand. */
BNC_AVX2 BNC_INLINE float max_of(const __m256 v[4]) {
    __m256 max = _mm256_setzero_ps();
    for (int k = 0; k < 4; k++)
        max = _mm256_max_ps(bnc_abs_avx2(v[k]), max);
    return bnc_max_avx2(max);
}

BNC_AVX2 void bnc_quantize_q8_0_avx2(const float *x, int64_t n_rows, int64_t ne0, float scale, uint8_t *out) {
    (void)scale;
    for (int64_t i = 0; i < n_rows * ne0; i += BLOCK, x += BLOCK, out += BLOCK_BYTES) {
        const __m256 v[4] = {_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8), _mm256_loadu_ps(x + 16),
                             _mm256_loadu_ps(x + 24)};
        const float d = max_of(v) / 127.0f;
        const __m256 inverse = _mm256_set1_ps(bnc_q8_0_inverse(d));
        const uint16_t half = bnc_f16_of_f32(d);
        memcpy(out, &half, SCALE_BYTES);
        const __m256i codes =
            bnc_narrow_avx2(codes8(v[0], inverse), codes8(v[1], inverse), codes8(v[2], inverse), codes8(v[3], inverse));
        _mm256_storeu_si256((__m256i *)(out + SCALE_BYTES), bnc_in_order_avx2(codes));
    }
}

BNC_AVX2 BNC_INLINE void unpack_blocks(const uint8_t *in, int64_t n, float *x, bool stream) {
    for (int64_t i = 0; i < n; i += BLOCK, in += BLOCK_BYTES) {
        const __m256 d = _mm256_set1_ps(bnc_f32_of_f16(bnc_load_u16(in)));
        for (int k = 0; k < BLOCK; k += 8)
            bnc_store8_avx2(x + i + k, _mm256_mul_ps(d, bnc_int8_avx2(in + SCALE_BYTES + k)), stream);
    }
}

BNC_AVX2 void bnc_dequantize_q8_0_avx2(const uint8_t *in, int64_t n_rows, int64_t ne0, float scale, float *x) {
    (void)scale;
    const int64_t n = n_rows * ne0;
    if (bnc_stream_pays(x, n)) {
        unpack_blocks(in, n, x, true);
        _mm_sfence();
    } else {
        unpack_blocks(in, n, x, false);
    }
}

/* Rows at a time, from as many far-apart ranges: see dot_avx2.c. */
enum { STREAMS = 4, PREFETCH = 1024 };

BNC_AVX2 BNC_INLINE void add_block(const uint8_t *w, const __m256 x[4], bnc_lanes *acc) {
    const __m256 d = _mm256_cvtph_ps(_mm_set1_epi16((short)bnc_load_u16(w)));
    for (int k = 0; k < 4; k += 2) {
        const __m256 lo = _mm256_mul_ps(d, bnc_int8_avx2(w + SCALE_BYTES + 8 * k));
        const __m256 hi = _mm256_mul_ps(d, bnc_int8_avx2(w + SCALE_BYTES + 8 * k + 8));
        acc->lo = _mm256_add_ps(acc->lo, _mm256_mul_ps(lo, x[k]));
        acc->hi = _mm256_add_ps(acc->hi, _mm256_mul_ps(hi, x[k + 1]));
    }
}

/* y[r * y_stride] = w[r] . x for n_rows <= STREAMS rows, row_stride bytes apart. */
BNC_AVX2 BNC_INLINE void dot_rows(const uint8_t *w, int64_t row_stride, int n_rows, int64_t n, const float *x, float *y,
                                  int64_t y_stride) {
    bnc_lanes acc[STREAMS];
    for (int r = 0; r < n_rows; r++)
        acc[r].lo = acc[r].hi = _mm256_setzero_ps();
    for (int64_t i = 0; i < n; i += BLOCK, w += BLOCK_BYTES) {
        const __m256 v[4] = {_mm256_loadu_ps(x + i), _mm256_loadu_ps(x + i + 8), _mm256_loadu_ps(x + i + 16),
                             _mm256_loadu_ps(x + i + 24)};
        for (int r = 0; r < n_rows; r++) {
            __builtin_prefetch(w + r * row_stride + PREFETCH);
            add_block(w + r * row_stride, v, &acc[r]);
        }
    }
    for (int r = 0; r < n_rows; r++)
        y[r * y_stride] = bnc_sum_lanes_avx2(acc[r]);
}

BNC_AVX2 void bnc_head_q8_0_avx2(const uint8_t *w, int64_t n_rows, int64_t ne0, const float *x, float *y) {
    const int64_t row_bytes = ne0 / BLOCK * BLOCK_BYTES, apart = n_rows / STREAMS;
    for (int64_t r = 0; r < apart; r++)
        dot_rows(w + r * row_bytes, apart * row_bytes, STREAMS, ne0, x, y + r, apart);
    for (int64_t r = apart * STREAMS; r < n_rows; r++)
        dot_rows(w + r * row_bytes, row_bytes, 1, ne0, x, y + r, 1);
}

#endif
