/*
 * gemv_dotprod.c - packed ternary rows times int8 activations with sdot: the operands of codes_neon.h, products added in fours
 * to int32, so that nothing needs widening. |sum| <= 3 * 128 * ne0: see gemv_scalar.c.
 */
#include "kernels.h"

#if defined(BNC_AARCH64)

#include "codes_neon.h"
#include "int8_arm.h"

/* ---- gemv ---- */

/* Rows at a time, each from its own eighth of the rows: far-apart streams keep more lines in flight than one. */
enum { STREAMS = 8, PREFETCH = 1024 };

/* y[r * y_stride] = w[r] . q for n_rows <= STREAMS rows, row_stride bytes apart. */
BNC_DOTPROD BNC_INLINE void dot_rows(const uint8_t *w, int64_t row_stride, int n_rows, int64_t row_bytes,
                                     const int8_t *q, int32_t q_sum, int32_t *y, int64_t y_stride, bnc_ternary f) {
    int32x4_t sum[STREAMS];
    BNC_UNROLL
    for (int r = 0; r < n_rows; r++)
        sum[r] = vdupq_n_s32(0);
    for (int64_t at = 0; at < row_bytes; at += BNC_GROUP_BYTES, q += BNC_GROUP) {
        int8x16_t qg[8];
        BNC_UNROLL
        for (int i = 0; i < 8; i++)
            qg[i] = vld1q_s8(q + 16 * i);
        BNC_UNROLL
        for (int r = 0; r < n_rows; r++) {
            const uint8_t *p = w + r * row_stride + at;
            __builtin_prefetch(p + PREFETCH);
            BNC_UNROLL
            for (int half = 0; half < 2; half++) {
                int8x16_t operand[4];
                bnc_operands_neon(p + 16 * half, operand, f);
                BNC_UNROLL
                for (int k = 0; k < 4; k++)
                    sum[r] = bnc_sdot(sum[r], operand[k], qg[2 * k + half]);
            }
        }
    }
    BNC_UNROLL
    for (int r = 0; r < n_rows; r++)
        y[r * y_stride] = vaddvq_s32(sum[r]) - f.bias * q_sum;
}

BNC_DOTPROD BNC_INLINE void gemv(const uint8_t *w, int64_t row_bytes, int64_t n_rows, const int8_t *q, int32_t q_sum,
                                 int32_t *y, bnc_ternary f) {
    const int64_t apart = n_rows / STREAMS;
    for (int64_t r = 0; r < apart; r++)
        dot_rows(w + r * row_bytes, apart * row_bytes, STREAMS, row_bytes, q, q_sum, y + r, apart, f);
    for (int64_t r = apart * STREAMS; r < n_rows; r++)
        dot_rows(w + r * row_bytes, row_bytes, 1, row_bytes, q, q_sum, y + r, 1, f);
}

/* ---- gemm ---- */

/*
 * A tile of TILE_ROWS x TILE_TOKENS sums stays in registers (24 of 32) while the columns go by: 10 loads feed 24 sdot. PANEL
 * rows are unpacked for CHUNK columns (40 KiB) and meet all tokens before the next are unpacked.
 */
enum { TILE_ROWS = 4, TILE_TOKENS = 6, PANEL = 32, CHUNK_GROUPS = 10, CHUNK = CHUNK_GROUPS * BNC_GROUP };

BNC_DOTPROD BNC_INLINE void unpack(const uint8_t *w, int64_t row_bytes, int64_t n_rows, int64_t n_groups, int8_t *out,
                                   bnc_ternary f) {
    for (int64_t r = 0; r < n_rows; r++)
        for (int64_t g = 0; g < n_groups; g++)
            for (int half = 0; half < 2; half++) {
                int8x16_t operand[4];
                bnc_operands_neon(w + r * row_bytes + g * BNC_GROUP_BYTES + 16 * half, operand, f);
                BNC_UNROLL
                for (int k = 0; k < 4; k++)
                    vst1q_s8(out + r * CHUNK + g * BNC_GROUP + 32 * k + 16 * half, operand[k]);
            }
}

/* y[t][r] += unpacked[r] . q[t] over n columns; n_rows and n_tokens are constants in each call. */
BNC_DOTPROD BNC_INLINE void tile(const int8_t *unpacked, int n_rows, int64_t n, const int8_t *q, int64_t q_stride,
                                 int n_tokens, int32_t *y, int64_t y_stride) {
    int32x4_t sum[TILE_ROWS][TILE_TOKENS];
    BNC_UNROLL
    for (int r = 0; r < n_rows; r++)
        BNC_UNROLL
    for (int t = 0; t < n_tokens; t++)
        sum[r][t] = vdupq_n_s32(0);
    for (int64_t i = 0; i < n; i += 16) {
        int8x16_t operand[TILE_ROWS];
        BNC_UNROLL
        for (int r = 0; r < n_rows; r++)
            operand[r] = vld1q_s8(unpacked + r * CHUNK + i);
        BNC_UNROLL
        for (int t = 0; t < n_tokens; t++) {
            const int8x16_t qt = vld1q_s8(q + t * q_stride + i);
            BNC_UNROLL
            for (int r = 0; r < n_rows; r++)
                sum[r][t] = bnc_sdot(sum[r][t], operand[r], qt);
        }
    }
    BNC_UNROLL
    for (int r = 0; r < n_rows; r++)
        BNC_UNROLL
    for (int t = 0; t < n_tokens; t++)
        y[t * y_stride + r] += vaddvq_s32(sum[r][t]);
}

/* All rows of a panel against n_tokens <= TILE_TOKENS tokens. */
BNC_DOTPROD BNC_INLINE void tile_column(const int8_t *unpacked, int64_t n_rows, int64_t n, const int8_t *q,
                                        int64_t q_stride, int n_tokens, int32_t *y, int64_t y_stride) {
    int64_t r = 0;
    for (; r + TILE_ROWS <= n_rows; r += TILE_ROWS)
        tile(unpacked + r * CHUNK, TILE_ROWS, n, q, q_stride, n_tokens, y + r, y_stride);
    for (; r < n_rows; r++)
        tile(unpacked + r * CHUNK, 1, n, q, q_stride, n_tokens, y + r, y_stride);
}

BNC_DOTPROD BNC_INLINE void gemm_panel(const uint8_t *w, int64_t row_bytes, int64_t n_rows, const int8_t *q,
                                       int64_t q_stride, const int32_t *q_sum, int64_t n_tokens, int32_t *y,
                                       int64_t y_stride, bnc_ternary f) {
    _Alignas(64) int8_t unpacked[PANEL * CHUNK];
    const int64_t n_groups = row_bytes / BNC_GROUP_BYTES;
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t r = 0; r < n_rows; r++)
            y[t * y_stride + r] = -f.bias * q_sum[t];
    for (int64_t g = 0; g < n_groups; g += CHUNK_GROUPS) {
        const int64_t groups = bnc_min_i64(CHUNK_GROUPS, n_groups - g), n = groups * BNC_GROUP;
        unpack(w + g * BNC_GROUP_BYTES, row_bytes, n_rows, groups, unpacked, f);
        const int8_t *qg = q + g * BNC_GROUP;
        int64_t t = 0;
        for (; t + TILE_TOKENS <= n_tokens; t += TILE_TOKENS)
            tile_column(unpacked, n_rows, n, qg + t * q_stride, q_stride, TILE_TOKENS, y + t * y_stride, y_stride);
        for (; t < n_tokens; t++)
            tile_column(unpacked, n_rows, n, qg + t * q_stride, q_stride, 1, y + t * y_stride, y_stride);
    }
}

BNC_DOTPROD BNC_INLINE void gemm(const uint8_t *w, int64_t row_bytes, int64_t n_rows, const int8_t *q, int64_t q_stride,
                                 const int32_t *q_sum, int64_t n_tokens, int32_t *y, int64_t y_stride, bnc_ternary f) {
    for (int64_t r = 0; r < n_rows; r += PANEL)
        gemm_panel(w + r * row_bytes, row_bytes, bnc_min_i64(PANEL, n_rows - r), q, q_stride, q_sum, n_tokens, y + r,
                   y_stride, f);
}

#define KERNELS(dtype, row_bytes, f)                                                                                  \
    BNC_DOTPROD void bnc_gemv_##dtype##_dotprod(const uint8_t *w, int64_t n_rows, int64_t ne0, const int8_t *q,       \
                                                int32_t q_sum, int32_t *y) {                                          \
        gemv(w, row_bytes, n_rows, q, q_sum, y, f);                                                                   \
    }                                                                                                                 \
    BNC_DOTPROD void bnc_gemm_##dtype##_dotprod(const uint8_t *w, int64_t n_rows, int64_t ne0, const int8_t *q,       \
                                                int64_t q_stride, const int32_t *q_sum, int64_t n_tokens, int32_t *y, \
                                                int64_t y_stride) {                                                   \
        gemm(w, row_bytes, n_rows, q, q_stride, q_sum, n_tokens, y, y_stride, f);                                     \
    }

KERNELS(i2_s, ne0 / 4, BNC_I2_S)
KERNELS(qk256, bnc_ceil_div(ne0, 256) * 64, BNC_QK256)

/* Sixteen chains hide the latency; each sum of fours grows by at most 58 a step. */
BNC_DOTPROD int64_t bnc_int8_peak_dotprod(int64_t n_macs) {
    enum { CHAINS = 16, MACS = 16, STEPS = BNC_INT8_PEAK_STEP / (CHAINS * MACS) };
    static const int8_t one_to_16[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    int8x16_t operand = vld1q_s8(one_to_16);
    const int8x16_t q = vdupq_n_s8(1);
    int32x4_t sum[CHAINS];
    BNC_UNROLL
    for (int c = 0; c < CHAINS; c++)
        sum[c] = vdupq_n_s32(0);
    for (int64_t done = 0; done < n_macs; done += BNC_INT8_PEAK_STEP)
        for (int step = 0; step < STEPS; step++) {
            BNC_UNROLL
            for (int c = 0; c < CHAINS; c++) {
                __asm__ volatile("" : "+w"(operand)); /* could be anything now: no product is hoisted or shared */
                sum[c] = bnc_sdot(sum[c], operand, q);
            }
        }
    int64_t total = 0;
    BNC_UNROLL
    for (int c = 0; c < CHAINS; c++)
        total += vaddlvq_s32(sum[c]);
    return total;
}

#endif
