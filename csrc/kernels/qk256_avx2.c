/*
 * qk256_avx2.c - 32 weights at once into 8 bytes, and 16 at once out of 4.
 */
#include "kernels.h"

#if defined(BNC_X86_64)

#include "codes_avx2.h"

enum { BLOCK = 256, BLOCK_BYTES = 64, CODES_OF_ZEROS = 0xaa };

/* Eight codes less 2: the comparisons of qk256_scalar.c, whose all-ones masks are -1. */
BNC_AVX2 BNC_INLINE __m256i codes8(const float *x) {
    const __m256 v = _mm256_loadu_ps(x);
    const __m256i above = _mm256_castps_si256(_mm256_cmp_ps(v, _mm256_set1_ps(1.5f), _CMP_GT_OQ));
    const __m256i negative = _mm256_castps_si256(_mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_LT_OQ));
    const __m256i below = _mm256_castps_si256(_mm256_cmp_ps(v, _mm256_set1_ps(-1.5f), _CMP_LT_OQ));
    return _mm256_sub_epi32(_mm256_add_epi32(negative, below), above);
}

BNC_AVX2 BNC_INLINE void pack32(const float *x, uint8_t *out) {
    const __m256i codes = bnc_narrow_avx2(codes8(x), codes8(x + 8), codes8(x + 16), codes8(x + 24));
    bnc_pack_sequential_avx2(_mm256_add_epi8(codes, _mm256_set1_epi8(2)), out);
}

BNC_AVX2 void bnc_quantize_qk256_avx2(const float *x, int64_t n_rows, int64_t ne0, float scale, uint8_t *out) {
    (void)scale;
    const int64_t row_bytes = bnc_ceil_div(ne0, BLOCK) * BLOCK_BYTES;
    for (int64_t r = 0; r < n_rows; r++, x += ne0, out += row_bytes) {
        int64_t i = 0;
        for (; i + 32 <= ne0; i += 32)
            pack32(x + i, out + i / 4);
        if (i < ne0) {
            float rest[32] = {0};
            memcpy(rest, x + i, (size_t)(ne0 - i) * 4);
            pack32(rest, out + i / 4);
            i += 32;
        }
        memset(out + i / 4, CODES_OF_ZEROS, (size_t)(row_bytes - i / 4));
    }
}

BNC_AVX2 BNC_INLINE void unpack_row(const uint8_t *in, int64_t ne0, float *x, bool stream) {
    const __m256 value = _mm256_setr_ps(-2, -1, 1, 2, -2, -1, 1, 2);
    int64_t i = 0;
    for (; i + 16 <= ne0; i += 16)
        bnc_spread16_avx2(bnc_load_u32(in + i / 4), value, x + i, stream);
    if (i < ne0) { /* the four bytes are there: a row is padded to whole blocks */
        float rest[16];
        bnc_spread16_avx2(bnc_load_u32(in + i / 4), value, rest, false);
        memcpy(x + i, rest, (size_t)(ne0 - i) * 4);
    }
}

BNC_AVX2 void bnc_dequantize_qk256_avx2(const uint8_t *in, int64_t n_rows, int64_t ne0, float scale, float *x) {
    (void)scale;
    const int64_t row_bytes = bnc_ceil_div(ne0, BLOCK) * BLOCK_BYTES;
    const bool stream =
        bnc_stream_pays(x, n_rows * ne0) && (n_rows == 1 || ne0 % 4 == 0); /* so that each row is aligned */
    for (int64_t r = 0; r < n_rows; r++, x += ne0, in += row_bytes) {
        if (stream)
            unpack_row(in, ne0, x, true);
        else
            unpack_row(in, ne0, x, false);
    }
    _mm_sfence();
}

#endif
