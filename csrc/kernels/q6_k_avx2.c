/*
 * q6_k_avx2.c - a block of 256 weights: its codes as bytes 32 at a time, its 16 steps as two registers.
 */
#include "kernels.h"

#if defined(BNC_X86_64)

#include "codes_avx2.h"
#include "lanes_avx2.h"

enum { BLOCK = 256, HALF = 128, GROUP = 16, N_GROUPS = BLOCK / GROUP };
enum { HIGH = 128, SCALES = 192, SCALE = 208, BLOCK_BYTES = 210 };

/* The largest magnitude of each group, over 31. */
BNC_AVX2 BNC_INLINE void find_steps(const float *x, float step[N_GROUPS]) {
    for (int g = 0; g < N_GROUPS; g++, x += GROUP)
        step[g] = bnc_max_avx2(_mm256_max_ps(bnc_abs_avx2(_mm256_loadu_ps(x)), bnc_abs_avx2(_mm256_loadu_ps(x + 8))));
    for (int g = 0; g < N_GROUPS; g += 8)
        _mm256_storeu_ps(step + g, _mm256_div_ps(_mm256_loadu_ps(step + g), _mm256_set1_ps(31)));
}

/* The scales of eight groups, and what their weights are multiplied with to become codes: 0 where the scale is. */
BNC_AVX2 BNC_INLINE __m256i find_scales(float *step, float d, float inverse) {
    const __m256i rounded = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(step), _mm256_set1_ps(inverse)));
    const __m256i s = _mm256_min_epi32(rounded, _mm256_set1_epi32(127)); /* no step is negative */
    const __m256 to_code = _mm256_div_ps(_mm256_set1_ps(1), _mm256_mul_ps(_mm256_set1_ps(d), _mm256_cvtepi32_ps(s)));
    const __m256 zero = _mm256_castsi256_ps(_mm256_cmpeq_epi32(s, _mm256_setzero_si256()));
    _mm256_storeu_ps(step, _mm256_andnot_ps(zero, to_code));
    return s;
}

BNC_AVX2 BNC_INLINE __m256i codes8(const float *x, float to_code) {
    const __m256i v = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), _mm256_set1_ps(to_code)));
    return _mm256_min_epi32(_mm256_max_epi32(v, _mm256_set1_epi32(-32)), _mm256_set1_epi32(31));
}

/* 32 codes of two groups, one a byte. */
BNC_AVX2 BNC_INLINE __m256i codes32(const float *x, const float to_code[2]) {
    const __m256i narrow = bnc_narrow_avx2(codes8(x, to_code[0]), codes8(x + 8, to_code[0]), codes8(x + 16, to_code[1]),
                                           codes8(x + 24, to_code[1]));
    return _mm256_add_epi8(bnc_in_order_avx2(narrow), _mm256_set1_epi8(32));
}

/* Half a block of codes to its low and its high bits. */
BNC_AVX2 BNC_INLINE void pack_half(const __m256i c[4], uint8_t *low, uint8_t *high) {
    const __m256i low4 = _mm256_set1_epi8(15), high2 = _mm256_set1_epi8(0x30);
    __m256i h[4];
    for (int k = 0; k < 4; k++)
        h[k] = _mm256_and_si256(c[k], high2); /* bits 5:4, no neighbour to disturb when shifted in words */
    for (int k = 0; k < 2; k++)
        _mm256_storeu_si256(
            (__m256i *)(low + 32 * k),
            _mm256_or_si256(_mm256_and_si256(c[k], low4), _mm256_slli_epi16(_mm256_and_si256(c[k + 2], low4), 4)));
    _mm256_storeu_si256((__m256i *)high,
                        _mm256_or_si256(_mm256_or_si256(_mm256_srli_epi16(h[0], 4), _mm256_srli_epi16(h[1], 2)),
                                        _mm256_or_si256(h[2], _mm256_slli_epi16(h[3], 2))));
}

BNC_AVX2 void bnc_quantize_q6_k_avx2(const float *x, int64_t n_rows, int64_t ne0, float scale, uint8_t *out) {
    (void)scale;
    for (int64_t i = 0; i < n_rows * ne0; i += BLOCK, x += BLOCK, out += BLOCK_BYTES) {
        float step[N_GROUPS];
        find_steps(x, step);
        const float max = bnc_max_avx2(_mm256_max_ps(_mm256_loadu_ps(step), _mm256_loadu_ps(step + 8)));
        const uint16_t half = bnc_f16_of_f32(max / 127.0f);
        const float d = bnc_f32_of_f16(half), inverse = d > 0 ? 1.0f / d : 0.0f;
        const __m256i lo = find_scales(step, d, inverse), hi = find_scales(step + 8, d, inverse);
        const __m256i scales = bnc_in_order_avx2(bnc_narrow_avx2(lo, hi, lo, hi));
        _mm_storeu_si128((__m128i *)(out + SCALES), _mm256_castsi256_si128(scales));
        for (int h = 0; h < 2; h++) {
            __m256i c[4];
            for (int k = 0; k < 4; k++)
                c[k] = codes32(x + HALF * h + 32 * k, step + 8 * h + 2 * k);
            pack_half(c, out + 64 * h, out + HIGH + 32 * h);
        }
        memcpy(out + SCALE, &half, 2);
    }
}

/* The codes of a block less 32, and its steps d * S. */
BNC_AVX2 BNC_INLINE void unpack(const uint8_t *in, uint8_t codes[BLOCK], float step[N_GROUPS]) {
    const __m256i low4 = _mm256_set1_epi8(15), high2 = _mm256_set1_epi8(0x30), zero = _mm256_set1_epi8(32);
    for (int h = 0; h < 2; h++) {
        const __m256i high = _mm256_loadu_si256((const __m256i *)(in + HIGH + 32 * h));
        const __m256i bits[4] = {_mm256_slli_epi16(high, 4), _mm256_slli_epi16(high, 2), high,
                                 _mm256_srli_epi16(high, 2)};
        BNC_UNROLL
        for (int k = 0; k < 4; k++) {
            const __m256i bytes = _mm256_loadu_si256((const __m256i *)(in + 64 * h + 32 * (k % 2)));
            const __m256i low = _mm256_and_si256(k < 2 ? bytes : _mm256_srli_epi16(bytes, 4), low4);
            const __m256i code = _mm256_or_si256(low, _mm256_and_si256(bits[k], high2));
            _mm256_storeu_si256((__m256i *)(codes + HALF * h + 32 * k), _mm256_sub_epi8(code, zero));
        }
    }
    const __m256 d = _mm256_set1_ps(bnc_f32_of_f16(bnc_load_u16(in + SCALE)));
    for (int g = 0; g < N_GROUPS; g += 8)
        _mm256_storeu_ps(step + g, _mm256_mul_ps(d, bnc_int8_avx2(in + SCALES + g)));
    /* What follows loads them: gcc would take them out of the registers again, by shuffles and spills, at half the speed. */
    __asm__ volatile("" ::: "memory");
}

BNC_AVX2 BNC_INLINE void unpack_blocks(const uint8_t *in, int64_t n, float *x, bool stream) {
    for (int64_t i = 0; i < n; i += BLOCK, in += BLOCK_BYTES) {
        uint8_t codes[BLOCK];
        float step[N_GROUPS];
        unpack(in, codes, step);
        for (int k = 0; k < BLOCK; k += 8)
            bnc_store8_avx2(x + i + k, _mm256_mul_ps(_mm256_set1_ps(step[k / GROUP]), bnc_int8_avx2(codes + k)),
                            stream);
    }
}

BNC_AVX2 void bnc_dequantize_q6_k_avx2(const uint8_t *in, int64_t n_rows, int64_t ne0, float scale, float *x) {
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

/* y[r * y_stride] = w[r] . x for n_rows <= STREAMS rows, row_stride bytes apart. A block of each is unpacked before the rows
 * are added up in turn: sixteen additions to one sum would wait for each other. */
BNC_AVX2 BNC_INLINE void dot_rows(const uint8_t *w, int64_t row_stride, int n_rows, int64_t n, const float *x, float *y,
                                  int64_t y_stride) {
    bnc_lanes acc[STREAMS];
    for (int r = 0; r < n_rows; r++)
        acc[r].lo = acc[r].hi = _mm256_setzero_ps();
    for (int64_t i = 0; i < n; i += BLOCK, w += BLOCK_BYTES) {
        uint8_t codes[STREAMS][BLOCK];
        float step[STREAMS][N_GROUPS];
        for (int r = 0; r < n_rows; r++) {
            for (int line = 0; line < BLOCK_BYTES; line += BNC_CACHE_LINE)
                __builtin_prefetch(w + r * row_stride + PREFETCH + line);
            unpack(w + r * row_stride, codes[r], step[r]);
        }
        for (int g = 0; g < N_GROUPS; g++) {
            const float *at = x + i + GROUP * g;
            const __m256 x_lo = _mm256_loadu_ps(at), x_hi = _mm256_loadu_ps(at + 8);
            BNC_UNROLL
            for (int r = 0; r < n_rows; r++) {
                const __m256 s = _mm256_set1_ps(step[r][g]);
                const __m256 lo = _mm256_mul_ps(s, bnc_int8_avx2(codes[r] + GROUP * g));
                const __m256 hi = _mm256_mul_ps(s, bnc_int8_avx2(codes[r] + GROUP * g + 8));
                acc[r].lo = _mm256_add_ps(acc[r].lo, _mm256_mul_ps(lo, x_lo));
                acc[r].hi = _mm256_add_ps(acc[r].hi, _mm256_mul_ps(hi, x_hi));
            }
        }
    }
    for (int r = 0; r < n_rows; r++)
        y[r * y_stride] = bnc_sum_lanes_avx2(acc[r]);
}

BNC_AVX2 void bnc_head_q6_k_avx2(const uint8_t *w, int64_t n_rows, int64_t ne0, const float *x, float *y) {
    const int64_t row_bytes = ne0 / BLOCK * BLOCK_BYTES, apart = n_rows / STREAMS;
    for (int64_t r = 0; r < apart; r++)
        dot_rows(w + r * row_bytes, apart * row_bytes, STREAMS, ne0, x, y + r, apart);
    for (int64_t r = apart * STREAMS; r < n_rows; r++)
        dot_rows(w + r * row_bytes, row_bytes, 1, ne0, x, y + r, 1);
}

#endif
