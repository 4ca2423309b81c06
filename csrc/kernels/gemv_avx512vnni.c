/*
 * gemv_avx512vnni.c - packed ternary rows times int8 activations with vpdpbusd.
 *
 * vpdpbusd adds the products of a field's 64 codes (fields_avx512.h) with 64 activations in fours to 16 int32: no int16
 * in between, nothing to widen.
 */
#include "tile_avx512vnni.h"

#if defined(BNC_X86_64)

#include "dot_vnni.h"
#include "fields_avx512.h"

/* ---- gemv ---- */

/*
 * STREAMS rows at a time, each from its own eighth of the rows: a core keeps more lines in flight on several far-apart
 * streams than on one, which is worth 1.4 to 1.7 times the bandwidth, and the prefetch 1.2 times.
 */
enum { STREAMS = 8, PREFETCH = 1024 };

BNC_AVX512VNNI BNC_INLINE void dot_block(__m512i packed, const __m512i q[FIELDS], __m512i *sum, format f) {
    for (int k = 0; k < FIELDS; k++)
        *sum = bnc_dot_avx512vnni(*sum, field(packed, k, f), q[k]);
}

/* y[r * y_stride] = w[r] . q for n_rows <= STREAMS rows, row_stride bytes apart. */
BNC_AVX512VNNI BNC_INLINE void dot_rows(const uint8_t *w, int64_t row_stride, int n_rows, int64_t row_bytes,
                                        const int8_t *q, int32_t q_sum, int32_t *y, int64_t y_stride, format f) {
    __m512i sum[STREAMS], qb[FIELDS];
    for (int r = 0; r < n_rows; r++)
        sum[r] = _mm512_setzero_si512();
    int64_t at = 0;
    for (; at + BLOCK_BYTES <= row_bytes; at += BLOCK_BYTES, q += BLOCK) {
        for (int k = 0; k < FIELDS; k++)
            qb[k] = _mm512_loadu_si512(q + 64 * k);
        for (int r = 0; r < n_rows; r++) {
            const uint8_t *p = w + r * row_stride + at;
            _mm_prefetch((const char *)p + PREFETCH, _MM_HINT_T0);
            dot_block(_mm512_loadu_si512(p), qb, &sum[r], f);
        }
    }
    if (at < row_bytes) {
        const __mmask64 half = (__mmask64)0xffffffffu;
        for (int k = 0; k < FIELDS; k++)
            qb[k] = _mm512_loadu_si512(q + 64 * k);
        for (int r = 0; r < n_rows; r++)
            dot_block(_mm512_maskz_loadu_epi8(half, w + r * row_stride + at), qb, &sum[r], f);
    }
    for (int r = 0; r < n_rows; r++)
        y[r * y_stride] = _mm512_reduce_add_epi32(sum[r]) - f.bias * q_sum;
}

BNC_AVX512VNNI BNC_INLINE void gemv(const uint8_t *w, int64_t row_bytes, int64_t n_rows, const int8_t *q, int32_t q_sum,
                                    int32_t *y, format f) {
    const int64_t apart = n_rows / STREAMS;
    for (int64_t r = 0; r < apart; r++)
        dot_rows(w + r * row_bytes, apart * row_bytes, STREAMS, row_bytes, q, q_sum, y + r, apart, f);
    for (int64_t r = apart * STREAMS; r < n_rows; r++)
        dot_rows(w + r * row_bytes, row_bytes, 1, row_bytes, q, q_sum, y + r, 1, f);
}

/* ---- gemm ---- */

enum { CHUNK_BLOCKS = BNC_TILE_CHUNK / BLOCK };

BNC_AVX512VNNI BNC_INLINE void unpack(const uint8_t *w, int64_t row_bytes, int64_t first, int64_t n_rows,
                                      int64_t n_blocks, uint8_t *out, format f) {
    for (int64_t r = 0; r < n_rows; r++)
        for (int64_t b = 0; b < n_blocks; b++) {
            const int64_t at = (first + b) * BLOCK_BYTES, left = row_bytes - at;
            const __mmask64 mask = left >= BLOCK_BYTES ? ~(__mmask64)0 : (__mmask64)0xffffffffu;
            const __m512i packed = _mm512_maskz_loadu_epi8(mask, w + r * row_bytes + at);
            for (int k = 0; k < FIELDS; k++)
                _mm512_store_si512(out + r * BNC_TILE_CHUNK + b * BLOCK + 64 * k, field(packed, k, f));
        }
}

BNC_AVX512VNNI BNC_INLINE void gemm_panel(const uint8_t *w, int64_t row_bytes, int64_t n_rows, const int8_t *q,
                                          int64_t q_stride, const int32_t *q_sum, int64_t n_tokens, int32_t *y,
                                          int64_t y_stride, format f) {
    _Alignas(64) uint8_t unpacked[BNC_TILE_PANEL * BNC_TILE_CHUNK];
    const int64_t n_blocks = bnc_ceil_div(row_bytes, BLOCK_BYTES);
    bnc_tile_start(n_rows, f.bias, q_sum, n_tokens, y, y_stride);
    for (int64_t b = 0; b < n_blocks; b += CHUNK_BLOCKS) {
        const int64_t n = bnc_min_i64(CHUNK_BLOCKS, n_blocks - b);
        unpack(w, row_bytes, b, n_rows, n, unpacked, f);
        bnc_tile_panel(unpacked, n_rows, n * BLOCK, q + b * BLOCK, q_stride, n_tokens, y, y_stride,
                       bnc_tile_next(w, row_bytes, b * BLOCK_BYTES, CHUNK_BLOCKS * BLOCK_BYTES, n_rows));
    }
}

BNC_AVX512VNNI BNC_INLINE void gemm(const uint8_t *w, int64_t row_bytes, int64_t n_rows, const int8_t *q,
                                    int64_t q_stride, const int32_t *q_sum, int64_t n_tokens, int32_t *y,
                                    int64_t y_stride, format f) {
    for (int64_t r = 0; r < n_rows; r += BNC_TILE_PANEL)
        gemm_panel(w + r * row_bytes, row_bytes, bnc_min_i64(BNC_TILE_PANEL, n_rows - r), q, q_stride, q_sum, n_tokens,
                   y + r, y_stride, f);
}

#define KERNELS(dtype, row_bytes, f)                                                                                  \
    BNC_AVX512VNNI void bnc_gemv_##dtype##_avx512vnni(const uint8_t *w, int64_t n_rows, int64_t ne0, const int8_t *q, \
                                                      int32_t q_sum, int32_t *y) {                                    \
        gemv(w, row_bytes, n_rows, q, q_sum, y, f);                                                                   \
    }                                                                                                                 \
    BNC_AVX512VNNI void bnc_gemm_##dtype##_avx512vnni(const uint8_t *w, int64_t n_rows, int64_t ne0, const int8_t *q, \
                                                      int64_t q_stride, const int32_t *q_sum, int64_t n_tokens,       \
                                                      int32_t *y, int64_t y_stride) {                                 \
        gemm(w, row_bytes, n_rows, q, q_stride, q_sum, n_tokens, y, y_stride, f);                                     \
    }

KERNELS(i2_s, ne0 / 4, I2_S)
KERNELS(qk256, bnc_ceil_div(ne0, 256) * 64, QK256)

BNC_AVX512VNNI void bnc_arrange_i2_s_avx512vnni(const int8_t *q, int64_t n_padded, int8_t *out) {
    for (int64_t b = 0; b < n_padded; b += BLOCK)
        for (int k = 0; k < FIELDS; k++) {
            memcpy(out + b + 64 * k, q + b + 32 * k, 32);
            memcpy(out + b + 64 * k + 32, q + b + 128 + 32 * k, 32);
        }
}

/* Bytes 4 p + k of 64 p's to adjacent places: within each 128-bit lane by a shuffle, then dwords across the register. */
BNC_AVX512VNNI void bnc_arrange_qk256_avx512vnni(const int8_t *q, int64_t n_padded, int8_t *out) {
    const __m512i by_field =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m512i gather = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (int64_t b = 0; b < n_padded; b += BLOCK)
        for (int part = 0; part < 4; part++) {
            const __m512i v = _mm512_shuffle_epi8(_mm512_loadu_si512(q + b + 64 * part), by_field);
            const __m512i fields = _mm512_permutexvar_epi32(gather, v); /* 16 bytes of each field */
            _mm_storeu_si128((__m128i *)(out + b + 16 * part), _mm512_extracti32x4_epi32(fields, 0));
            _mm_storeu_si128((__m128i *)(out + b + 64 + 16 * part), _mm512_extracti32x4_epi32(fields, 1));
            _mm_storeu_si128((__m128i *)(out + b + 128 + 16 * part), _mm512_extracti32x4_epi32(fields, 2));
            _mm_storeu_si128((__m128i *)(out + b + 192 + 16 * part), _mm512_extracti32x4_epi32(fields, 3));
        }
}

/* Sixteen chains hide the latency; each sum of fours is at most 64. */
BNC_AVX512VNNI int64_t bnc_int8_peak_avx512vnni(int64_t n_macs) {
    enum { CHAINS = 16, MACS = 64, STEPS = BNC_INT8_PEAK_STEP / (CHAINS * MACS) };
    __m512i codes = _mm512_broadcast_i32x4(_mm_setr_epi8(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16));
    const __m512i q = _mm512_set1_epi8(1);
    __m512i sum[CHAINS];
    for (int c = 0; c < CHAINS; c++)
        sum[c] = _mm512_setzero_si512();
    for (int64_t done = 0; done < n_macs; done += BNC_INT8_PEAK_STEP)
        for (int step = 0; step < STEPS; step++)
            for (int c = 0; c < CHAINS; c++) {
                __asm__ volatile("" : "+v"(codes)); /* could be anything now: no product is hoisted or shared */
                sum[c] = bnc_dot_avx512vnni(sum[c], codes, q);
            }
    int64_t total = 0;
    for (int c = 0; c < CHAINS; c++) {
        int32_t lanes[16];
        _mm512_storeu_si512(lanes, sum[c]);
        for (int i = 0; i < 16; i++)
            total += lanes[i];
    }
    return total;
}

#endif
