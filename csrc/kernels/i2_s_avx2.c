/*
 * i2_s_avx2.c - a group of 128 weights at once: the four fields of i2_s_scalar.c are 32 floats each.
 */
#include "kernels.h"

#if defined(BNC_X86_64)

#include "codes_avx2.h"

enum { GROUP = 128, GROUP_BYTES = 32, FIELD = 32 };

/* Eight weights -> -1, 0, +1: the comparisons of i2_s_scalar.c, whose all-ones masks are -1. */
BNC_AVX2 BNC_INLINE __m256i ternary8(const float *x, __m256 scale, __m256 minus_scale) {
    const __m256 w = _mm256_loadu_ps(x);
    const __m256 twice = _mm256_add_ps(w, w);
    return _mm256_sub_epi32(_mm256_castps_si256(_mm256_cmp_ps(twice, minus_scale, _CMP_LT_OQ)),
                            _mm256_castps_si256(_mm256_cmp_ps(twice, scale, _CMP_GT_OQ)));
}

BNC_AVX2 BNC_INLINE __m256i ternary32(const float *x, __m256 scale, __m256 minus_scale) {
    return bnc_narrow_avx2(ternary8(x, scale, minus_scale), ternary8(x + 8, scale, minus_scale),
                           ternary8(x + 16, scale, minus_scale), ternary8(x + 24, scale, minus_scale));
}

BNC_AVX2 BNC_INLINE __m256i times_4_plus(__m256i a, __m256i b) {
    const __m256i twice = _mm256_add_epi8(a, a);
    return _mm256_add_epi8(_mm256_add_epi8(twice, twice), b);
}

BNC_AVX2 void bnc_quantize_i2_s_avx2(const float *x, int64_t n_rows, int64_t ne0, float scale, uint8_t *out) {
    const __m256 s = _mm256_set1_ps(scale), minus_s = _mm256_set1_ps(-scale);
    for (int64_t i = 0; i < n_rows * ne0; i += GROUP, x += GROUP, out += GROUP_BYTES) {
        /* The four fields as digits of base 4, -85 to 85 in a byte; code = digit + 1 adds 01 01 01 01 in bits. */
        __m256i byte = ternary32(x, s, minus_s);
        byte = times_4_plus(byte, ternary32(x + FIELD, s, minus_s));
        byte = times_4_plus(byte, ternary32(x + 2 * FIELD, s, minus_s));
        byte = times_4_plus(byte, ternary32(x + 3 * FIELD, s, minus_s));
        byte = _mm256_add_epi8(bnc_in_order_avx2(byte), _mm256_set1_epi8(0x55));
        _mm256_storeu_si256((__m256i *)out, byte);
    }
}

/* One field of the 32 bytes in b, eight bytes in the elements of each register -> 32 floats. */
BNC_AVX2 BNC_INLINE void spread_field(const __m256i b[4], int shift, __m256 value, float *x, bool stream) {
    for (int i = 0; i < 4; i++) /* vpermilps looks at the low two bits alone */
        bnc_store8_avx2(x + 8 * i, _mm256_permutevar_ps(value, _mm256_srli_epi32(b[i], shift)), stream);
}

BNC_AVX2 BNC_INLINE void unpack_groups(const uint8_t *in, int64_t n, float scale, float *x, bool stream) {
    const float minus = -1.0f * scale, zero = 0.0f * scale, none = 2.0f * scale;
    const __m256 value = _mm256_setr_ps(minus, zero, scale, none, minus, zero, scale, none);
    for (int64_t i = 0; i < n; i += GROUP, x += GROUP, in += GROUP_BYTES) {
        __m256i b[4];
        for (int k = 0; k < 4; k++)
            b[k] = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(in + 8 * k)));
        spread_field(b, 6, value, x, stream);
        spread_field(b, 4, value, x + FIELD, stream);
        spread_field(b, 2, value, x + 2 * FIELD, stream);
        spread_field(b, 0, value, x + 3 * FIELD, stream);
    }
}

BNC_AVX2 void bnc_dequantize_i2_s_avx2(const uint8_t *in, int64_t n_rows, int64_t ne0, float scale, float *x) {
    const int64_t n = n_rows * ne0;
    if (bnc_stream_pays(x, n)) {
        unpack_groups(in, n, scale, x, true);
        _mm_sfence();
    } else {
        unpack_groups(in, n, scale, x, false);
    }
}

/* Bits 0, 2, 4, 6 of each byte: set where both bits of a code are. What the shift carries between bytes is masked. */
BNC_AVX2 BNC_INLINE __m256i codes_3(__m256i b) {
    return _mm256_and_si256(_mm256_and_si256(b, _mm256_srli_epi16(b, 1)), _mm256_set1_epi8(0x55));
}

BNC_AVX2 int64_t bnc_scan_i2_s_avx2(const uint8_t *in, int64_t nbytes) {
    int64_t i = 0;
    for (; i + 128 <= nbytes; i += 128) {
        const __m256i *v = (const __m256i *)(in + i);
        const __m256i a = _mm256_or_si256(codes_3(_mm256_loadu_si256(v)), codes_3(_mm256_loadu_si256(v + 1)));
        const __m256i b = _mm256_or_si256(codes_3(_mm256_loadu_si256(v + 2)), codes_3(_mm256_loadu_si256(v + 3)));
        const __m256i found = _mm256_or_si256(a, b);
        if (!_mm256_testz_si256(found, found))
            break;
    }
    for (; i < nbytes; i++)
        if (in[i] & in[i] >> 1 & 0x55)
            return i;
    return -1;
}

#endif
