/*
 * dot_neon.c - float rows times a float vector: dot_scalar.c with the lanes in registers.
 */
#include "kernels.h"

#if defined(BNC_AARCH64)

#include "lanes_neon.h"

/* Rows in flight together: each has its own chain of dependent additions, and its own quarter of the rows, since a core
 * keeps more lines in flight on several far-apart streams. */
enum { ROWS = 4, PREFETCH = 1024 };

#define HEAD(type, bytes)                                                                                        \
    /* y[r * y_stride] = w[r] . x for n_rows <= ROWS rows, row_stride bytes apart. */                            \
    BNC_INLINE void dot_rows_##type(const uint8_t *w, int64_t row_stride, int n_rows, int64_t n, const float *x, \
                                    float *y, int64_t y_stride) {                                                \
        bnc_lanes sum[ROWS];                                                                                     \
        BNC_UNROLL                                                                                               \
        for (int r = 0; r < n_rows; r++)                                                                         \
            sum[r] = bnc_zero_lanes_neon();                                                                      \
        int64_t i = 0;                                                                                           \
        for (; i + BNC_LANES <= n; i += BNC_LANES) {                                                             \
            const bnc_lanes xs = bnc_lanes_f32_neon((const uint8_t *)(x + i));                                   \
            BNC_UNROLL                                                                                           \
            for (int r = 0; r < n_rows; r++) {                                                                   \
                const uint8_t *p = w + r * row_stride + i * (bytes);                                             \
                __builtin_prefetch(p + PREFETCH);                                                                \
                sum[r] = bnc_add_product_neon(sum[r], bnc_lanes_##type##_neon(p), xs);                           \
            }                                                                                                    \
        }                                                                                                        \
        BNC_UNROLL                                                                                               \
        for (int r = 0; r < n_rows; r++) {                                                                       \
            float products[BNC_LANES];                                                                           \
            for (int64_t j = i; j < n; j++)                                                                      \
                products[j - i] = bnc_element_##type(w + r * row_stride, j) * x[j];                              \
            y[r * y_stride] = bnc_sum_with_tail_neon(sum[r], products, n - i);                                   \
        }                                                                                                        \
    }                                                                                                            \
    void bnc_head_##type##_neon(const uint8_t *w, int64_t n_rows, int64_t ne0, const float *x, float *y) {       \
        const int64_t apart = n_rows / ROWS, row_bytes = ne0 * (bytes);                                          \
        for (int64_t r = 0; r < apart; r++)                                                                      \
            dot_rows_##type(w + r * row_bytes, apart * row_bytes, ROWS, ne0, x, y + r, apart);                   \
        for (int64_t r = apart * ROWS; r < n_rows; r++)                                                          \
            dot_rows_##type(w + r * row_bytes, row_bytes, 1, ne0, x, y + r, 1);                                  \
    }

HEAD(f32, 4)
HEAD(f16, 2)
HEAD(bf16, 2)

#endif
