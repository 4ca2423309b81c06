/*
 * pack5_avx512vnni.c - five weights a byte (pack5_scalar.c) times int8 activations with vpdpbusd.
 *
 * One 64-byte load holds 320 weights. Its bytes b, and b' = 3 b mod 256, both meet the activations of the first digit; then b'
 * takes the place of b for the second: ten vpdpbusd and ten vpaddb a load, which memory leaves time for. The activations lie as
 * they are.
 */
#include "pack5.h"
#include "tile_avx512vnni.h"

#if defined(BNC_X86_64)

enum { BLOCK = BNC_PACK5_BLOCK, BLOCK_BYTES = BNC_PACK5_BYTES, FIELDS = BNC_PACK5_FIELDS };

static int64_t row_bytes_of(int64_t ne0) { return bnc_ceil_div(ne0, BLOCK) * BLOCK_BYTES; }

/* ---- gemv ---- */

/* STREAMS rows at a time, each from its own part of the rows, as in gemv_avx512vnni.c; eight are no faster than four here. */
enum { STREAMS = 4, PREFETCH = 1536 };

/* Blocks after which a lane's sum of d q, at most 2 * 128 * 20 a block, is taken out: it must stay below 2^23. */
enum { SPAN = 1024 };

/* sums[r] += the sum of d q of each lane, over n bytes of n_rows rows. */
BNC_AVX512VNNI BNC_INLINE void dot_span(const uint8_t *w, int64_t row_stride, int n_rows, int64_t n, const int8_t *q,
                                        __m512i sums[STREAMS]) {
    __m512i now[STREAMS], next[STREAMS]; /* of b q, of b' q */
    BNC_UNROLL
    for (int r = 0; r < n_rows; r++)
        now[r] = next[r] = _mm512_setzero_si512();
    for (int64_t at = 0; at < n; at += BLOCK_BYTES, q += BLOCK) {
        __m512i qb[FIELDS];
        BNC_UNROLL
        for (int k = 0; k < FIELDS; k++)
            qb[k] = _mm512_loadu_si512(q + 64 * k);
        BNC_UNROLL
        for (int r = 0; r < n_rows; r++) {
            const uint8_t *p = w + r * row_stride + at;
            _mm_prefetch((const char *)p + PREFETCH, _MM_HINT_T0);
            __m512i b = _mm512_loadu_si512(p);
            BNC_UNROLL
            for (int k = 0; k < FIELDS; k++) {
                now[r] = bnc_dot_avx512vnni(now[r], b, qb[k]);
                b = _mm512_add_epi8(b, _mm512_add_epi8(b, b));
                next[r] = bnc_dot_avx512vnni(next[r], b, qb[k]);
            }
        }
    }
    BNC_UNROLL
    for (int r = 0; r < n_rows; r++) {
        const __m512i thrice = _mm512_add_epi32(now[r], _mm512_slli_epi32(now[r], 1));
        sums[r] = _mm512_add_epi32(sums[r], _mm512_srai_epi32(_mm512_sub_epi32(thrice, next[r]), 8));
    }
}

/* y[r * y_stride] = w[r] . q for n_rows <= STREAMS rows, row_stride bytes apart. */
BNC_AVX512VNNI BNC_INLINE void dot_rows(const uint8_t *w, int64_t row_stride, int n_rows, int64_t row_bytes,
                                        const int8_t *q, int32_t q_sum, int32_t *y, int64_t y_stride) {
    __m512i sums[STREAMS];
    BNC_UNROLL
    for (int r = 0; r < n_rows; r++)
        sums[r] = _mm512_setzero_si512();
    for (int64_t at = 0; at < row_bytes; at += SPAN * BLOCK_BYTES, q += SPAN * BLOCK)
        dot_span(w + at, row_stride, n_rows, bnc_min_i64(SPAN * BLOCK_BYTES, row_bytes - at), q, sums);
    BNC_UNROLL
    for (int r = 0; r < n_rows; r++)
        y[r * y_stride] = _mm512_reduce_add_epi32(sums[r]) - q_sum;
}

BNC_AVX512VNNI void bnc_gemv_pack5_avx512vnni(const uint8_t *w, int64_t n_rows, int64_t ne0, const int8_t *q,
                                              int32_t q_sum, int32_t *y) {
    const int64_t row_bytes = row_bytes_of(ne0), apart = n_rows / STREAMS;
    for (int64_t r = 0; r < apart; r++)
        dot_rows(w + r * row_bytes, apart * row_bytes, STREAMS, row_bytes, q, q_sum, y + r, apart);
    for (int64_t r = apart * STREAMS; r < n_rows; r++)
        dot_rows(w + r * row_bytes, row_bytes, 1, row_bytes, q, q_sum, y + r, 1);
}

/* ---- gemm ---- */

enum { CHUNK_BLOCKS = BNC_TILE_CHUNK / BLOCK };

/* Here the digits are taken out, once for all tokens: 3 b / 256 is 1 from 86 on and 2 from 171 on. */
BNC_AVX512VNNI BNC_INLINE void unpack(const uint8_t *w, int64_t row_bytes, int64_t n_rows, int64_t n_blocks,
                                      uint8_t *out) {
    const __m512i one = _mm512_set1_epi8(1), two = _mm512_set1_epi8(2);
    for (int64_t r = 0; r < n_rows; r++)
        for (int64_t i = 0; i < n_blocks; i++) {
            __m512i b = _mm512_loadu_si512(w + r * row_bytes + i * BLOCK_BYTES);
            BNC_UNROLL
            for (int k = 0; k < FIELDS; k++) {
                const __mmask64 from_1 = _mm512_cmpge_epu8_mask(b, _mm512_set1_epi8(86));
                const __mmask64 from_2 = _mm512_cmpge_epu8_mask(b, _mm512_set1_epi8((char)171));
                const __m512i digits = _mm512_mask_mov_epi8(_mm512_maskz_mov_epi8(from_1, one), from_2, two);
                _mm512_store_si512(out + r * BNC_TILE_CHUNK + i * BLOCK + 64 * k, digits);
                b = _mm512_add_epi8(b, _mm512_add_epi8(b, b));
            }
        }
}

BNC_AVX512VNNI BNC_INLINE void gemm_panel(const uint8_t *w, int64_t row_bytes, int64_t n_rows, const int8_t *q,
                                          int64_t q_stride, const int32_t *q_sum, int64_t n_tokens, int32_t *y,
                                          int64_t y_stride) {
    _Alignas(64) uint8_t unpacked[BNC_TILE_PANEL * BNC_TILE_CHUNK];
    const int64_t n_blocks = row_bytes / BLOCK_BYTES;
    bnc_tile_start(n_rows, 1, q_sum, n_tokens, y, y_stride);
    for (int64_t b = 0; b < n_blocks; b += CHUNK_BLOCKS) {
        const int64_t n = bnc_min_i64(CHUNK_BLOCKS, n_blocks - b);
        unpack(w + b * BLOCK_BYTES, row_bytes, n_rows, n, unpacked);
        bnc_tile_panel(unpacked, n_rows, n * BLOCK, q + b * BLOCK, q_stride, n_tokens, y, y_stride,
                       bnc_tile_next(w, row_bytes, b * BLOCK_BYTES, CHUNK_BLOCKS * BLOCK_BYTES, n_rows));
    }
}

BNC_AVX512VNNI void bnc_gemm_pack5_avx512vnni(const uint8_t *w, int64_t n_rows, int64_t ne0, const int8_t *q,
                                              int64_t q_stride, const int32_t *q_sum, int64_t n_tokens, int32_t *y,
                                              int64_t y_stride) {
    const int64_t row_bytes = row_bytes_of(ne0);
    for (int64_t r = 0; r < n_rows; r += BNC_TILE_PANEL)
        gemm_panel(w + r * row_bytes, row_bytes, bnc_min_i64(BNC_TILE_PANEL, n_rows - r), q, q_stride, q_sum, n_tokens,
                   y + r, y_stride);
}

#endif
