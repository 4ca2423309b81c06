/*
 * float_avx2.c - f32, f16 and bf16, eight elements at once.
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

/* ---- eight elements out and in; f32 is copied ---- */

BNC_AVX2 BNC_INLINE void put8_f32(__m256 x, uint8_t *out, bool stream) {
    bnc_store8_avx2((float *)(void *)out, x, stream);
}

BNC_AVX2 BNC_INLINE void put_halves(__m128i h, uint8_t *out, bool stream) {
    if (stream)
        _mm_stream_si128((__m128i *)out, h);
    else
        _mm_storeu_si128((__m128i *)out, h);
}
BNC_AVX2 BNC_INLINE void put8_f16(__m256 x, uint8_t *out, bool stream) { put_halves(round_f16(x), out, stream); }
BNC_AVX2 BNC_INLINE void put8_bf16(__m256 x, uint8_t *out, bool stream) { put_halves(round_bf16(x), out, stream); }

BNC_AVX2 BNC_INLINE __m256 get8_f32(const uint8_t *in) { return _mm256_loadu_ps((const float *)(const void *)in); }
BNC_AVX2 BNC_INLINE __m256 get8_f16(const uint8_t *in) { return widen_f16(_mm_loadu_si128((const __m128i *)in)); }
BNC_AVX2 BNC_INLINE __m256 get8_bf16(const uint8_t *in) { return widen_bf16(_mm_loadu_si128((const __m128i *)in)); }

/* How far ahead of its loads dequantize fetches: here the input is no small part of what moves. */
enum { AHEAD_BYTES = 2048 };

#define CONVERSIONS(type, bytes)                                                                                       \
    BNC_AVX2 BNC_INLINE void narrow_##type(const float *x, int64_t n, uint8_t *out, bool stream) {                     \
        int64_t i = 0;                                                                                                 \
        for (; i + 8 <= n; i += 8)                                                                                     \
            put8_##type(_mm256_loadu_ps(x + i), out + bytes * i, stream);                                              \
        float rest[8] = {0};                                                                                           \
        uint8_t last[8 * bytes];                                                                                       \
        memcpy(rest, x + i, (size_t)(n - i) * 4);                                                                      \
        put8_##type(_mm256_loadu_ps(rest), last, false);                                                               \
        memcpy(out + bytes * i, last, (size_t)(n - i) * bytes);                                                        \
    }                                                                                                                  \
    BNC_AVX2 BNC_INLINE void widen_all_##type(const uint8_t *in, int64_t n, float *x, bool stream) {                   \
        int64_t i = 0;                                                                                                 \
        for (; i + 16 <= n; i += 16) {                                                                                 \
            _mm_prefetch((const char *)in + bytes * i + AHEAD_BYTES, _MM_HINT_T0);                                     \
            bnc_store8_avx2(x + i, get8_##type(in + bytes * i), stream);                                               \
            bnc_store8_avx2(x + i + 8, get8_##type(in + bytes * (i + 8)), stream);                                     \
        }                                                                                                              \
        uint8_t rest[16 * bytes] = {0};                                                                                \
        float last[16];                                                                                                \
        memcpy(rest, in + bytes * i, (size_t)(n - i) * bytes);                                                         \
        _mm256_storeu_ps(last, get8_##type(rest));                                                                     \
        _mm256_storeu_ps(last + 8, get8_##type(rest + 8 * bytes));                                                     \
        memcpy(x + i, last, (size_t)(n - i) * 4);                                                                      \
    }                                                                                                                  \
    BNC_AVX2 void bnc_quantize_##type##_avx2(const float *x, int64_t n_rows, int64_t ne0, float scale, uint8_t *out) { \
        (void)scale;                                                                                                   \
        narrow_##type(x, n_rows *ne0, out, false);                                                                     \
    }                                                                                                                  \
    BNC_AVX2 void bnc_quantize_streamed_##type##_avx2(const float *x, int64_t n_rows, int64_t ne0, float scale,        \
                                                      uint8_t *out) {                                                  \
        (void)scale;                                                                                                   \
        narrow_##type(x, n_rows *ne0, out, true);                                                                      \
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

CONVERSIONS(f32, 4)
CONVERSIONS(f16, 2)
CONVERSIONS(bf16, 2)

#endif
