/*
 * screen_dotprod.c - screen_scalar.c with sdot: each dword of a register is one lane of a stripe.
 */
#include "kernels.h"

#if defined(BNC_AARCH64)

#include "int8_arm.h"
#include "screen_lanes_neon.h"

/* Rows at a time, from as many far-apart ranges: see gemv_dotprod.c. One load of activations serves them all. */
enum { STREAMS = 4, PREFETCH = 2048 };

/* Quarter h of one stripe of n_rows <= STREAMS rows, row_stride bytes apart. */
BNC_DOTPROD BNC_INLINE void quarter(const uint8_t *w, int64_t row_stride, int n_rows, const bnc_screen_stripe *x, int h,
                                    bnc_screen_lanes *acc) {
    int32x4_t high[STREAMS], low[STREAMS];
    BNC_UNROLL
    for (int r = 0; r < n_rows; r++)
        high[r] = low[r] = vdupq_n_s32(0);
    for (int l = 0; l < 4; l++) {
        const int8x16_t high_even = vld1q_s8(x->high[2 * l] + 16 * h), low_even = vld1q_s8(x->low[2 * l] + 16 * h);
        const int8x16_t high_odd = vld1q_s8(x->high[2 * l + 1] + 16 * h),
                        low_odd = vld1q_s8(x->low[2 * l + 1] + 16 * h);
        BNC_UNROLL
        for (int r = 0; r < n_rows; r++) {
            const uint8_t *p = w + r * row_stride + 64 * l + 16 * h;
            if (h == 0)
                __builtin_prefetch(p + PREFETCH);
            const uint8x16_t packed = vld1q_u8(p);
            const int8x16_t even = vreinterpretq_s8_u8(vandq_u8(packed, vdupq_n_u8(15)));
            const int8x16_t odd = vreinterpretq_s8_u8(vshrq_n_u8(packed, 4));
            high[r] = bnc_sdot(bnc_sdot(high[r], even, high_even), odd, high_odd);
            low[r] = bnc_sdot(bnc_sdot(low[r], even, low_even), odd, low_odd);
        }
    }
    BNC_UNROLL
    for (int r = 0; r < n_rows; r++)
        bnc_screen_add_neon(&acc[r], h, high[r], low[r], w + r * row_stride, x);
}

BNC_DOTPROD BNC_INLINE void rows(const uint8_t *w, int64_t row_stride, int n_rows, int64_t n_stripes,
                                 const bnc_screen_stripe *x, float *sums, float *energies, int64_t apart) {
    bnc_screen_lanes acc[STREAMS];
    for (int r = 0; r < n_rows; r++)
        acc[r].sum = acc[r].energy = bnc_zero_lanes_neon();
    for (int64_t i = 0; i < n_stripes; i++, w += BNC_SCREEN_STRIPE_BYTES)
        for (int h = 0; h < 4; h++)
            quarter(w, row_stride, n_rows, &x[i], h, acc);
    for (int r = 0; r < n_rows; r++) {
        sums[r * apart] = bnc_sum_lanes_neon(acc[r].sum);
        energies[r * apart] = bnc_sum_lanes_neon(acc[r].energy);
    }
}

BNC_DOTPROD void bnc_screen_dotprod(const uint8_t *w, int64_t n_rows, int64_t n_stripes, const bnc_screen_stripe *x,
                                    float *sums, float *energies) {
    const int64_t row_bytes = n_stripes * BNC_SCREEN_STRIPE_BYTES, apart = n_rows / STREAMS;
    for (int64_t r = 0; r < apart; r++)
        rows(w + r * row_bytes, apart * row_bytes, STREAMS, n_stripes, x, sums + r, energies + r, apart);
    for (int64_t r = apart * STREAMS; r < n_rows; r++)
        rows(w + r * row_bytes, row_bytes, 1, n_stripes, x, sums + r, energies + r, 1);
}

#endif
