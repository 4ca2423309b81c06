/*
 * gemv_neon.c - packed ternary rows times int8 activations with smlal, for machines that have no dot product.
 *
 * The operands are those of codes_neon.h. smlal adds eight products to int16, so 16 operands give two to each of eight sums,
 * a group 16. Worst case a product, |q| = 128: I2_S 3 * 128 = 384 (code 3, which a sound file never holds; 256 otherwise),
 * QK256 2 * 128 = 256. A group: 6144 and 4096, so 5 and 7 groups (30720 and 28672 <= 32767) may be added before the sums are
 * widened.
 */
#include "kernels.h"

#if defined(BNC_AARCH64)

#include "codes_neon.h"

BNC_INLINE int64_t groups_per_sum(bnc_ternary f) { return f.bias ? 5 : 7; }

BNC_INLINE int16x8_t add_products(int16x8_t sum, int8x16_t a, int8x16_t b) {
    return vmlal_high_s8(vmlal_s8(sum, vget_low_s8(a), vget_low_s8(b)), a, b);
}

/* ---- gemv ---- */

/* Rows at a time, each from its own quarter of the rows: far-apart streams keep more lines in flight than one. */
enum { STREAMS = 4, PREFETCH = 1024 };

/* y[r * y_stride] = w[r] . q for n_rows <= STREAMS rows, row_stride bytes apart. */
BNC_INLINE void dot_rows(const uint8_t *w, int64_t row_stride, int n_rows, int64_t n_groups, const int8_t *q,
                         int32_t q_sum, int32_t *y, int64_t y_stride, bnc_ternary f) {
    int32x4_t total[STREAMS];
    for (int r = 0; r < n_rows; r++)
        total[r] = vdupq_n_s32(0);
    for (int64_t g = 0; g < n_groups;) {
        const int64_t stop = bnc_min_i64(n_groups, g + groups_per_sum(f));
        int16x8_t sum[STREAMS];
        for (int r = 0; r < n_rows; r++)
            sum[r] = vdupq_n_s16(0);
        for (; g < stop; g++) {
            int8x16_t qg[8];
            BNC_UNROLL
            for (int i = 0; i < 8; i++)
                qg[i] = vld1q_s8(q + g * BNC_GROUP + 16 * i);
            BNC_UNROLL
            for (int r = 0; r < n_rows; r++) {
                const uint8_t *p = w + r * row_stride + g * BNC_GROUP_BYTES;
                __builtin_prefetch(p + PREFETCH);
                BNC_UNROLL
                for (int half = 0; half < 2; half++) {
                    int8x16_t operand[4];
                    bnc_operands_neon(p + 16 * half, operand, f);
                    BNC_UNROLL
                    for (int k = 0; k < 4; k++)
                        sum[r] = add_products(sum[r], operand[k], qg[2 * k + half]);
                }
            }
        }
        for (int r = 0; r < n_rows; r++)
            total[r] = vpadalq_s16(total[r], sum[r]);
    }
    for (int r = 0; r < n_rows; r++)
        y[r * y_stride] = vaddvq_s32(total[r]) - f.bias * q_sum;
}

BNC_INLINE void gemv(const uint8_t *w, int64_t row_bytes, int64_t n_rows, const int8_t *q, int32_t q_sum, int32_t *y,
                     bnc_ternary f) {
    const int64_t apart = n_rows / STREAMS, n_groups = row_bytes / BNC_GROUP_BYTES;
    for (int64_t r = 0; r < apart; r++)
        dot_rows(w + r * row_bytes, apart * row_bytes, STREAMS, n_groups, q, q_sum, y + r, apart, f);
    for (int64_t r = apart * STREAMS; r < n_rows; r++)
        dot_rows(w + r * row_bytes, row_bytes, 1, n_groups, q, q_sum, y + r, 1, f);
}

/* ---- gemm ---- */

/*
 * ROWS rows are unpacked for a chunk short enough to add in int16 throughout (3.5 KiB or less, stays in L1), then meet every
 * token before the next is unpacked. ROWS x TOKENS sums stay in registers.
 */
enum { ROWS = 4, TOKENS = 4, CHUNK = 7 * BNC_GROUP };

BNC_INLINE void unpack(const uint8_t *w, int64_t row_bytes, int n_rows, int64_t n_groups, int8_t *out, bnc_ternary f) {
    for (int r = 0; r < n_rows; r++)
        for (int64_t g = 0; g < n_groups; g++)
            for (int half = 0; half < 2; half++) {
                int8x16_t operand[4];
                bnc_operands_neon(w + r * row_bytes + g * BNC_GROUP_BYTES + 16 * half, operand, f);
                BNC_UNROLL
                for (int k = 0; k < 4; k++)
                    vst1q_s8(out + r * CHUNK + g * BNC_GROUP + 32 * k + 16 * half, operand[k]);
            }
}

/* y[t][r] += unpacked[r] . q[t] over n columns of a chunk; n_rows and n_tokens are constants in each call. */
BNC_INLINE void tile(const int8_t *unpacked, int n_rows, int64_t n, const int8_t *q, int64_t q_stride, int n_tokens,
                     int32_t *y, int64_t y_stride) {
    int16x8_t sum[ROWS][TOKENS];
    BNC_UNROLL
    for (int r = 0; r < n_rows; r++)
        BNC_UNROLL
    for (int t = 0; t < n_tokens; t++)
        sum[r][t] = vdupq_n_s16(0);
    for (int64_t i = 0; i < n; i += 16) {
        int8x16_t qt[TOKENS];
        BNC_UNROLL
        for (int t = 0; t < n_tokens; t++)
            qt[t] = vld1q_s8(q + t * q_stride + i);
        BNC_UNROLL
        for (int r = 0; r < n_rows; r++) {
            const int8x16_t operand = vld1q_s8(unpacked + r * CHUNK + i);
            BNC_UNROLL
            for (int t = 0; t < n_tokens; t++)
                sum[r][t] = add_products(sum[r][t], operand, qt[t]);
        }
    }
    BNC_UNROLL
    for (int r = 0; r < n_rows; r++)
        BNC_UNROLL
    for (int t = 0; t < n_tokens; t++)
        y[t * y_stride + r] += vaddlvq_s16(sum[r][t]);
}

BNC_INLINE void gemm_rows(const uint8_t *w, int64_t row_bytes, int n_rows, const int8_t *q, int64_t q_stride,
                          const int32_t *q_sum, int64_t n_tokens, int32_t *y, int64_t y_stride, bnc_ternary f) {
    _Alignas(16) int8_t unpacked[ROWS * CHUNK];
    const int64_t n_groups = row_bytes / BNC_GROUP_BYTES;
    for (int64_t t = 0; t < n_tokens; t++)
        for (int r = 0; r < n_rows; r++)
            y[t * y_stride + r] = -f.bias * q_sum[t];
    for (int64_t g = 0; g < n_groups; g += groups_per_sum(f)) {
        const int64_t n = bnc_min_i64(groups_per_sum(f), n_groups - g);
        unpack(w + g * BNC_GROUP_BYTES, row_bytes, n_rows, n, unpacked, f);
        const int8_t *qg = q + g * BNC_GROUP;
        int64_t t = 0;
        for (; t + TOKENS <= n_tokens; t += TOKENS)
            tile(unpacked, n_rows, n * BNC_GROUP, qg + t * q_stride, q_stride, TOKENS, y + t * y_stride, y_stride);
        for (; t < n_tokens; t++)
            tile(unpacked, n_rows, n * BNC_GROUP, qg + t * q_stride, q_stride, 1, y + t * y_stride, y_stride);
    }
}

BNC_INLINE void gemm(const uint8_t *w, int64_t row_bytes, int64_t n_rows, const int8_t *q, int64_t q_stride,
                     const int32_t *q_sum, int64_t n_tokens, int32_t *y, int64_t y_stride, bnc_ternary f) {
    int64_t r = 0;
    for (; r + ROWS <= n_rows; r += ROWS)
        gemm_rows(w + r * row_bytes, row_bytes, ROWS, q, q_stride, q_sum, n_tokens, y + r, y_stride, f);
    for (; r < n_rows; r++)
        gemm_rows(w + r * row_bytes, row_bytes, 1, q, q_stride, q_sum, n_tokens, y + r, y_stride, f);
}

#define KERNELS(dtype, row_bytes, f)                                                                               \
    void bnc_gemv_##dtype##_neon(const uint8_t *w, int64_t n_rows, int64_t ne0, const int8_t *q, int32_t q_sum,    \
                                 int32_t *y) {                                                                     \
        gemv(w, row_bytes, n_rows, q, q_sum, y, f);                                                                \
    }                                                                                                              \
    void bnc_gemm_##dtype##_neon(const uint8_t *w, int64_t n_rows, int64_t ne0, const int8_t *q, int64_t q_stride, \
                                 const int32_t *q_sum, int64_t n_tokens, int32_t *y, int64_t y_stride) {           \
        gemm(w, row_bytes, n_rows, q, q_stride, q_sum, n_tokens, y, y_stride, f);                                  \
    }

KERNELS(i2_s, ne0 / 4, BNC_I2_S)
KERNELS(qk256, bnc_ceil_div(ne0, 256) * 64, BNC_QK256)

/* Byte 32 k + p of each 128 takes activation 4 p + k: the transpose of 32 x 4 bytes. */
void bnc_arrange_qk256_neon(const int8_t *q, int64_t n_padded, int8_t *out) {
    for (int64_t g = 0; g < n_padded; g += BNC_GROUP)
        for (int half = 0; half < 2; half++) {
            const int8x16x4_t places = vld4q_s8(q + g + 64 * half);
            BNC_UNROLL
            for (int k = 0; k < 4; k++)
                vst1q_s8(out + g + 32 * k + 16 * half, places.val[k]);
        }
}

/* Eight chains of dependent additions hide their latency; 16 steps of pairs <= 8 + 16 stay far inside int16. */
int64_t bnc_int8_peak_neon(int64_t n_macs) {
    enum { CHAINS = 8, STEPS = 16, MACS = 16 };
    static const int8_t one_to_16[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    int8x16_t operand = vld1q_s8(one_to_16);
    const int8x16_t q = vdupq_n_s8(1);
    int64_t total = 0;
    for (int64_t done = 0; done < n_macs; done += (int64_t)CHAINS * STEPS * MACS) {
        int16x8_t sum[CHAINS];
        BNC_UNROLL
        for (int c = 0; c < CHAINS; c++)
            sum[c] = vdupq_n_s16(0);
        for (int step = 0; step < STEPS; step++) {
            BNC_UNROLL
            for (int c = 0; c < CHAINS; c++) {
                __asm__ volatile("" : "+w"(operand)); /* could be anything now: no product is hoisted or shared */
                sum[c] = add_products(sum[c], operand, q);
            }
        }
        BNC_UNROLL
        for (int c = 0; c < CHAINS; c++)
            total += vaddlvq_s16(sum[c]);
    }
    return total;
}

#endif
