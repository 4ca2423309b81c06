/*
 * screen_avx2.c - screen_scalar.c with maddubs: lanes 0-7 and 8-15 of a stripe are two registers.
 *
 * int16 sums: 8 products of fours, in pairs of at most 15 * 128 * 2 = 3840; 8 of them are 30720 <= 32767.
 */
#include "kernels.h"

#if defined(BNC_X86_64)

#include "lanes_avx2.h"

/* 32 codes of a block, one a byte, in order. */
BNC_AVX2 BNC_INLINE __m256i block_codes(const __m256 w[4], const float *dither, float inverse) {
    __m256i c[4];
    for (int i = 0; i < 4; i++) {
        const __m256 shift = _mm256_add_ps(_mm256_loadu_ps(dither + 8 * i), _mm256_set1_ps(8.0f));
        const __m256 v = _mm256_add_ps(_mm256_mul_ps(w[i], _mm256_set1_ps(inverse)), shift);
        const __m256 kept = _mm256_min_ps(_mm256_max_ps(v, _mm256_setzero_ps()), _mm256_set1_ps(15.5f));
        c[i] = _mm256_cvttps_epi32(kept);
    }
    const __m256i packed = _mm256_packus_epi16(_mm256_packus_epi32(c[0], c[1]), _mm256_packus_epi32(c[2], c[3]));
    return _mm256_permutevar8x32_epi32(packed,
                                       _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)); /* the packs interleave halves */
}

BNC_AVX2 void bnc_screen_encode_avx2(const float *w, const float *dither, int64_t n_stripes, uint8_t *out) {
    for (int64_t i = 0; i < n_stripes; i++, out += BNC_SCREEN_STRIPE_BYTES)
        for (int j = 0; j < BNC_SCREEN_LANES; j++, w += BNC_SCREEN_BLOCK, dither += BNC_SCREEN_BLOCK) {
            __m256 v[4], max = _mm256_setzero_ps();
            for (int k = 0; k < 4; k++) {
                v[k] = _mm256_loadu_ps(w + 8 * k);
                max = _mm256_max_ps(bnc_abs_avx2(v[k]), max);
            }
            const uint16_t step = bnc_screen_step(bnc_max_avx2(max));
            const __m256i codes = block_codes(v, dither, bnc_screen_inverse(step));
            /* The two dwords of a quadword, codes 8 l and 8 l + 4 on, become the nibbles of its lower one. */
            const __m256i nibbles = _mm256_or_si256(codes, _mm256_srli_epi64(codes, 28));
            uint64_t part[4];
            _mm256_storeu_si256((__m256i *)part, nibbles);
            for (int l = 0; l < 4; l++)
                memcpy(out + 64 * l + 4 * j, &part[l], 4);
            memcpy(out + BNC_SCREEN_CODE_BYTES + 2 * j, &step, 2);
        }
}

/* Codes times one plane of the activation, for one half of the lanes. */
BNC_AVX2 BNC_INLINE __m256i plane_dot(const __m256i codes[8], const int8_t plane[8][64], int half) {
    __m256i sum = _mm256_setzero_si256();
    for (int k = 0; k < 8; k++)
        sum = _mm256_add_epi16(
            sum, _mm256_maddubs_epi16(codes[k], _mm256_loadu_si256((const __m256i *)(plane[k] + 32 * half))));
    return _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
}

BNC_AVX2 BNC_INLINE void half_stripe(const uint8_t *w, const bnc_screen_stripe *x, int half, __m256 *sum,
                                     __m256 *energy) {
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i codes[8];
    for (int l = 0; l < 4; l++) {
        const __m256i packed = _mm256_loadu_si256((const __m256i *)(w + 64 * l + 32 * half));
        codes[2 * l] = _mm256_and_si256(packed, nibble);
        codes[2 * l + 1] = _mm256_and_si256(_mm256_srli_epi16(packed, 4), nibble);
    }
    const __m256i dot =
        _mm256_add_epi32(_mm256_slli_epi32(plane_dot(codes, x->high, half), 8), plane_dot(codes, x->low, half));
    const __m256 step = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(w + BNC_SCREEN_CODE_BYTES + 16 * half)));
    const __m256 v = _mm256_sub_ps(_mm256_cvtepi32_ps(dot), _mm256_loadu_ps(x->offset + 8 * half));
    *sum = _mm256_add_ps(*sum, _mm256_mul_ps(v, step));
    *energy = _mm256_add_ps(*energy, _mm256_mul_ps(_mm256_mul_ps(step, step), _mm256_loadu_ps(x->energy + 8 * half)));
}

BNC_AVX2 void bnc_screen_avx2(const uint8_t *w, int64_t n_rows, int64_t n_stripes, const bnc_screen_stripe *x,
                              float *sums, float *energies) {
    for (int64_t r = 0; r < n_rows; r++) {
        bnc_lanes sum = {_mm256_setzero_ps(), _mm256_setzero_ps()}, energy = sum;
        for (int64_t i = 0; i < n_stripes; i++, w += BNC_SCREEN_STRIPE_BYTES) {
            half_stripe(w, &x[i], 0, &sum.lo, &energy.lo);
            half_stripe(w, &x[i], 1, &sum.hi, &energy.hi);
        }
        sums[r] = bnc_sum_lanes_avx2(sum);
        energies[r] = bnc_sum_lanes_avx2(energy);
    }
}

#endif
