/*
 * float_avx2.c - f16 and bf16, eight elements at once.
 */
#include "kernels.h"

#if defined(BNC_X86_64)

#include "codes_avx2.h"

/* Eight floats -> eight halves. */
BNC_AVX2 BNC_INLINE __m128i round_f16(__m256 x) { return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT); }

BNC_AVX2 BNC_INLINE __m128i round_bf16(__m256 x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000)); /* a NaN stays one */
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m256i upper = _mm256_srli_epi32(_mm256_blendv_epi8(sum, quiet, nan), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
}

BNC_AVX2 BNC_INLINE __m256 widen_f16(__m128i h) { return _mm256_cvtph_ps(h); }

BNC_AVX2 BNC_INLINE __m256 widen_bf16(__m128i h) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

#define CONVERSIONS(type)                                                                                              \
    BNC_AVX2 void bnc_quantize_##type##_avx2(const float *x, int64_t n_rows, int64_t ne0, float scale, uint8_t *out) { \
        (void)scale;                                                                                                   \
        const int64_t n = n_rows * ne0;                                                                                \
        int64_t i = 0;                                                                                                 \
        for (; i + 8 <= n; i += 8)                                                                                     \
            _mm_storeu_si128((__m128i *)(out + 2 * i), round_##type(_mm256_loadu_ps(x + i)));                          \
        float rest[8] = {0};                                                                                           \
        memcpy(rest, x + i, (size_t)(n - i) * 4);                                                                      \
        const __m128i last = round_##type(_mm256_loadu_ps(rest));                                                      \
        memcpy(out + 2 * i, &last, (size_t)(n - i) * 2);                                                               \
    }                                                                                                                  \
    BNC_AVX2 BNC_INLINE void widen_all_##type(const uint8_t *in, int64_t n, float *x, bool stream) {                   \
        int64_t i = 0;                                                                                                 \
        for (; i + 8 <= n; i += 8)                                                                                     \
            bnc_store8_avx2(x + i, widen_##type(_mm_loadu_si128((const __m128i *)(in + 2 * i))), stream);              \
        __m128i rest = _mm_setzero_si128();                                                                            \
        memcpy(&rest, in + 2 * i, (size_t)(n - i) * 2);                                                                \
        const __m256 last = widen_##type(rest);                                                                        \
        memcpy(x + i, &last, (size_t)(n - i) * 4);                                                                     \
    }                                                                                                                  \
    BNC_AVX2 void bnc_dequantize_##type##_avx2(const uint8_t *in, int64_t n_rows, int64_t ne0, float scale,            \
                                               float *x) {                                                             \
        (void)scale;                                                                                                   \
        const int64_t n = n_rows * ne0;                                                                                \
        if (bnc_stream_pays(x, n)) {                                                                                   \
            widen_all_##type(in, n, x, true);                                                                          \
            _mm_sfence();                                                                                              \
        } else {                                                                                                       \
            widen_all_##type(in, n, x, false);                                                                         \
        }                                                                                                              \
    }

CONVERSIONS(f16)
CONVERSIONS(bf16)

#endif
