/*
 * bitnet32_avx2.c - a block of 32 weights at once: four registers of eight.
 */
#include "kernels.h"

#if defined(BNC_X86_64)

#include "codes_avx2.h"

enum { BLOCK = 32, CODE_BYTES = 8, BLOCK_BYTES = 10 };

/* The largest magnitude, at least the smallest positive float, in every element. Their bits are ordered as they are. */
BNC_AVX2 BNC_INLINE __m256 max_of(const __m256 x[4]) {
    const __m256i no_sign = _mm256_set1_epi32(0x7fffffff);
    __m256i top = _mm256_set1_epi32(1);
    for (int i = 0; i < 4; i++)
        top = _mm256_max_epi32(top, _mm256_and_si256(_mm256_castps_si256(x[i]), no_sign));
    top = _mm256_max_epi32(top, _mm256_permute2x128_si256(top, top, 1));
    top = _mm256_max_epi32(top, _mm256_shuffle_epi32(top, 0x4e));
    top = _mm256_max_epi32(top, _mm256_shuffle_epi32(top, 0xb1));
    return _mm256_castsi256_ps(top);
}

/* Eight codes less 2: the comparisons of bitnet32_scalar.c, whose all-ones masks are -1. */
BNC_AVX2 BNC_INLINE __m256i codes8(__m256 x, __m256 max, __m256 minus_max) {
    const __m256 twice = _mm256_add_ps(x, x);
    return _mm256_sub_epi32(_mm256_castps_si256(_mm256_cmp_ps(twice, minus_max, _CMP_LE_OQ)),
                            _mm256_castps_si256(_mm256_cmp_ps(twice, max, _CMP_GE_OQ)));
}

BNC_AVX2 void bnc_quantize_bitnet32_avx2(const float *x, int64_t n_rows, int64_t ne0, float scale, uint8_t *out) {
    (void)scale;
    for (int64_t i = 0; i < n_rows * ne0; i += BLOCK, x += BLOCK, out += BLOCK_BYTES) {
        const __m256 v[4] = {_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8), _mm256_loadu_ps(x + 16),
                             _mm256_loadu_ps(x + 24)};
        const __m256 max = max_of(v), minus_max = _mm256_xor_ps(max, _mm256_set1_ps(-0.0f));
        const __m256i codes = bnc_narrow_avx2(codes8(v[0], max, minus_max), codes8(v[1], max, minus_max),
                                              codes8(v[2], max, minus_max), codes8(v[3], max, minus_max));
        bnc_pack_sequential_avx2(_mm256_add_epi8(codes, _mm256_set1_epi8(2)), out);
        const int half = _mm_cvtsi128_si32(_mm256_cvtps_ph(max, _MM_FROUND_TO_NEAREST_INT));
        memcpy(out + CODE_BYTES, &half, 2);
    }
}

BNC_AVX2 BNC_INLINE void unpack_blocks(const uint8_t *in, int64_t n, float *x, bool stream) {
    const __m256 unit = _mm256_setr_ps(-2, -1, 0, 1, -2, -1, 0, 1);
    for (int64_t i = 0; i < n; i += BLOCK, x += BLOCK, in += BLOCK_BYTES) {
        const __m256 scale = _mm256_cvtph_ps(_mm_set1_epi16((short)bnc_load_u16(in + CODE_BYTES)));
        const __m256 value = _mm256_mul_ps(unit, scale);
        bnc_spread16_avx2(bnc_load_u32(in), value, x, stream);
        bnc_spread16_avx2(bnc_load_u32(in + 4), value, x + 16, stream);
    }
}

BNC_AVX2 void bnc_dequantize_bitnet32_avx2(const uint8_t *in, int64_t n_rows, int64_t ne0, float scale, float *x) {
    (void)scale;
    const int64_t n = n_rows * ne0;
    if (bnc_stream_pays(x, n)) {
        unpack_blocks(in, n, x, true);
        _mm_sfence();
    } else {
        unpack_blocks(in, n, x, false);
    }
}

#endif
