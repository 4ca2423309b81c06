/*
 * codes_avx2.h - what the packed formats share at the avx2 level: narrowing, packing and looking up two-bit codes, and
 * stores that go past the caches.
 */
#ifndef BNC_CODES_AVX2_H
#define BNC_CODES_AVX2_H

#include "base.h"

#include <immintrin.h>

/*
 * 32 small integers, a to d holding eight each, as bytes. The packs work within 128-bit halves, so the bytes come out
 * as
 *
 *     a0-3 b0-3 c0-3 d0-3 | a4-7 b4-7 c4-7 d4-7
 */
BNC_AVX2 BNC_INLINE __m256i bnc_narrow_avx2(__m256i a, __m256i b, __m256i c, __m256i d) {
    return _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
}

/* The bytes of bnc_narrow_avx2 in the order of the elements. */
BNC_AVX2 BNC_INLINE __m256i bnc_in_order_avx2(__m256i narrow) {
    return _mm256_permutevar8x32_epi32(narrow, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* Codes (32 bytes as bnc_narrow_avx2 leaves them) -> 8 bytes, four codes each from the low bits up. */
BNC_AVX2 BNC_INLINE void bnc_pack_sequential_avx2(__m256i codes, uint8_t *out) {
    /* c0 + 4 c1 in 16 bits, then + 16 (c2 + 4 c3) in 32: one output byte in each, of a0-3, b0-3 ... | a4-7 ... */
    const __m256i pairs = _mm256_maddubs_epi16(codes, _mm256_set1_epi16(0x0401));
    const __m256i fours = _mm256_madd_epi16(pairs, _mm256_set1_epi32(0x00100001));
    const __m256i words = _mm256_packus_epi32(fours, fours);
    const __m256i bytes = _mm256_packus_epi16(words, words);
    _mm_storel_epi64((__m128i *)out,
                     _mm_unpacklo_epi8(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)));
}

/* Whether n floats at x are better written past the caches: a plain store reads its line from memory first, which
 * doubles the traffic, but an output that fits the second-level cache may be read back from there. */
BNC_INLINE bool bnc_stream_pays(const float *x, int64_t n) { return n * 4 >= 1 << 20 && ((uintptr_t)x & 15) == 0; }

/* Eight floats to x. Streamed by 16 bytes, the alignment of anything from malloc: lines still leave whole, since they
 * are filled in order. */
BNC_AVX2 BNC_INLINE void bnc_store8_avx2(float *x, __m256 v, bool stream) {
    if (stream) {
        _mm_stream_ps(x, _mm256_castps256_ps128(v));
        _mm_stream_ps(x + 4, _mm256_extractf128_ps(v, 1));
    } else {
        _mm256_storeu_ps(x, v);
    }
}

/* 16 sequential codes -> 16 floats; value holds those of the four codes, twice. */
BNC_AVX2 BNC_INLINE void bnc_spread16_avx2(uint32_t codes, __m256 value, float *x, bool stream) {
    /* vpermilps looks at the low two bits of each element alone, so the rest needs no mask. */
    const __m256i all = _mm256_set1_epi32((int)codes);
    const __m256i lo = _mm256_srlv_epi32(all, _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14));
    const __m256i hi = _mm256_srlv_epi32(all, _mm256_setr_epi32(16, 18, 20, 22, 24, 26, 28, 30));
    bnc_store8_avx2(x, _mm256_permutevar_ps(value, lo), stream);
    bnc_store8_avx2(x + 8, _mm256_permutevar_ps(value, hi), stream);
}

#endif
