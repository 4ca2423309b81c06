/*
 * gemv_i8mm.c - several tokens at once with smmla, which multiplies two rows with two tokens over eight columns: twice the
 * products of an sdot. For one token half of them would be thrown away, so gemv stays the dotprod one.
 *
 * The operands of codes_neon.h, a pair of rows interleaved by eights:
 *
 *     bytes of a register:   row 0, columns c .. c + 7 | row 1, columns c .. c + 7
 */
#include "kernels.h"

#if defined(BNC_AARCH64)

#include "codes_neon.h"
#include "int8_arm.h"

/*
 * A tile of TILE_PAIRS pairs of rows x TILE_TOKENS pairs of tokens stays in registers (16 of 32) while the columns go by: 16
 * loads and 8 interleavings feed 32 smmla. PANEL pairs of rows are unpacked for CHUNK columns (40 KiB) and meet all tokens
 * before the next are unpacked.
 */
enum { TILE_PAIRS = 4, TILE_TOKENS = 4, PANEL = 16, CHUNK_GROUPS = 10, CHUNK = CHUNK_GROUPS * BNC_GROUP };

/* The two halves of 16 columns of two rows, interleaved. */
BNC_INLINE int8x16_t first_eights(int8x16_t a, int8x16_t b) {
    return vreinterpretq_s8_s64(vzip1q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}
BNC_INLINE int8x16_t last_eights(int8x16_t a, int8x16_t b) {
    return vreinterpretq_s8_s64(vzip2q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}

/* The rows a and b (the same one, where the last has no partner) -> out (2 * CHUNK,). */
BNC_I8MM BNC_INLINE void unpack_pair(const uint8_t *a, const uint8_t *b, int64_t n_groups, int8_t *out, bnc_ternary f) {
    for (int64_t g = 0; g < n_groups; g++)
        for (int half = 0; half < 2; half++) {
            int8x16_t of_a[4], of_b[4];
            bnc_operands_neon(a + g * BNC_GROUP_BYTES + 16 * half, of_a, f);
            bnc_operands_neon(b + g * BNC_GROUP_BYTES + 16 * half, of_b, f);
            BNC_UNROLL
            for (int k = 0; k < 4; k++) {
                int8_t *o = out + 2 * (g * BNC_GROUP + 32 * k + 16 * half);
                vst1q_s8(o, first_eights(of_a[k], of_b[k]));
                vst1q_s8(o + 16, last_eights(of_a[k], of_b[k]));
            }
        }
}

/* y[t][r] += unpacked[r] . q[t] over n columns, for n_pairs of rows and n_tokens pairs of tokens, both constants in each call.
 * Of the last pairs the second may not exist: max_row and max_token say where rows and tokens end. */
BNC_I8MM BNC_INLINE void tile(const int8_t *unpacked, int n_pairs, int64_t n, const int8_t *q, int64_t q_stride,
                              int n_tokens, int32_t *y, int64_t y_stride, int64_t max_row, int64_t max_token) {
    int32x4_t sum[TILE_PAIRS][TILE_TOKENS];
    BNC_UNROLL
    for (int p = 0; p < n_pairs; p++)
        BNC_UNROLL
    for (int t = 0; t < n_tokens; t++)
        sum[p][t] = vdupq_n_s32(0);
    for (int64_t i = 0; i < n; i += 16) {
        int8x16_t first[TILE_PAIRS], last[TILE_PAIRS];
        BNC_UNROLL
        for (int p = 0; p < n_pairs; p++) {
            first[p] = vld1q_s8(unpacked + 2 * (p * CHUNK + i));
            last[p] = vld1q_s8(unpacked + 2 * (p * CHUNK + i) + 16);
        }
        BNC_UNROLL
        for (int t = 0; t < n_tokens; t++) {
            const int8x16_t a = vld1q_s8(q + 2 * t * q_stride + i);
            const int8x16_t b = vld1q_s8(q + bnc_min_i64(2 * t + 1, max_token - 1) * q_stride + i);
            const int8x16_t q_first = first_eights(a, b), q_last = last_eights(a, b);
            BNC_UNROLL
            for (int p = 0; p < n_pairs; p++)
                sum[p][t] = bnc_smmla(bnc_smmla(sum[p][t], first[p], q_first), last[p], q_last);
        }
    }
    for (int p = 0; p < n_pairs; p++)
        for (int t = 0; t < n_tokens; t++) {
            int32_t four[4]; /* row 0 token 0, row 0 token 1, row 1 token 0, row 1 token 1 */
            vst1q_s32(four, sum[p][t]);
            for (int k = 0; k < 4; k++)
                if (2 * p + k / 2 < max_row && 2 * t + k % 2 < max_token)
                    y[(2 * t + k % 2) * y_stride + 2 * p + k / 2] += four[k];
        }
}

/* All rows of a panel against n_tokens <= TILE_TOKENS pairs of tokens. */
BNC_I8MM BNC_INLINE void tile_column(const int8_t *unpacked, int64_t n_rows, int64_t n, const int8_t *q,
                                     int64_t q_stride, int n_tokens, int32_t *y, int64_t y_stride, int64_t max_token) {
    int64_t r = 0;
    for (; r + 2 * TILE_PAIRS <= n_rows; r += 2 * TILE_PAIRS)
        tile(unpacked + r * CHUNK, TILE_PAIRS, n, q, q_stride, n_tokens, y + r, y_stride, n_rows - r, max_token);
    for (; r < n_rows; r += 2)
        tile(unpacked + r * CHUNK, 1, n, q, q_stride, n_tokens, y + r, y_stride, n_rows - r, max_token);
}

BNC_I8MM BNC_INLINE void gemm_panel(const uint8_t *w, int64_t row_bytes, int64_t n_rows, const int8_t *q,
                                    int64_t q_stride, const int32_t *q_sum, int64_t n_tokens, int32_t *y,
                                    int64_t y_stride, bnc_ternary f) {
    _Alignas(64) int8_t unpacked[PANEL * 2 * CHUNK];
    const int64_t n_groups = row_bytes / BNC_GROUP_BYTES;
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t r = 0; r < n_rows; r++)
            y[t * y_stride + r] = -f.bias * q_sum[t];
    for (int64_t g = 0; g < n_groups; g += CHUNK_GROUPS) {
        const int64_t groups = bnc_min_i64(CHUNK_GROUPS, n_groups - g), n = groups * BNC_GROUP;
        for (int64_t r = 0; r < n_rows; r += 2) {
            const uint8_t *a = w + r * row_bytes + g * BNC_GROUP_BYTES;
            unpack_pair(a, r + 1 < n_rows ? a + row_bytes : a, groups, unpacked + r * CHUNK, f);
        }
        const int8_t *qg = q + g * BNC_GROUP;
        int64_t t = 0;
        for (; t + 2 * TILE_TOKENS <= n_tokens; t += 2 * TILE_TOKENS)
            tile_column(unpacked, n_rows, n, qg + t * q_stride, q_stride, TILE_TOKENS, y + t * y_stride, y_stride,
                        2 * TILE_TOKENS);
        for (; t < n_tokens; t += 2)
            tile_column(unpacked, n_rows, n, qg + t * q_stride, q_stride, 1, y + t * y_stride, y_stride, n_tokens - t);
    }
}

BNC_I8MM BNC_INLINE void gemm(const uint8_t *w, int64_t row_bytes, int64_t n_rows, const int8_t *q, int64_t q_stride,
                              const int32_t *q_sum, int64_t n_tokens, int32_t *y, int64_t y_stride, bnc_ternary f) {
    for (int64_t r = 0; r < n_rows; r += 2 * PANEL)
        gemm_panel(w + r * row_bytes, row_bytes, bnc_min_i64(2 * PANEL, n_rows - r), q, q_stride, q_sum, n_tokens,
                   y + r, y_stride, f);
}

#define KERNELS(dtype, row_bytes, f)                                                                            \
    BNC_I8MM void bnc_gemm_##dtype##_i8mm(const uint8_t *w, int64_t n_rows, int64_t ne0, const int8_t *q,       \
                                          int64_t q_stride, const int32_t *q_sum, int64_t n_tokens, int32_t *y, \
                                          int64_t y_stride) {                                                   \
        gemm(w, row_bytes, n_rows, q, q_stride, q_sum, n_tokens, y, y_stride, f);                               \
    }

KERNELS(i2_s, ne0 / 4, BNC_I2_S)
KERNELS(qk256, bnc_ceil_div(ne0, 256) * 64, BNC_QK256)

/* Sixteen chains hide the latency; each sum grows by at most 100 a step. */
BNC_I8MM int64_t bnc_int8_peak_i8mm(int64_t n_macs) {
    enum { CHAINS = 16, MACS = 32, STEPS = BNC_INT8_PEAK_STEP / (CHAINS * MACS) };
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
                sum[c] = bnc_smmla(sum[c], operand, q);
            }
        }
    int64_t total = 0;
    BNC_UNROLL
    for (int c = 0; c < CHAINS; c++)
        total += vaddlvq_s32(sum[c]);
    return total;
}

#endif
