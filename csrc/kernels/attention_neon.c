/*
 * attention_neon.c - scores and mix: dot_scalar.c with the lanes in registers, each element widened once for all the queries
 * of a tile.
 */
#include "kernels.h"

#if defined(BNC_AARCH64)

#include "lanes_neon.h"

/* A tile of scores is 2 queries x 2 rows: four sums of four registers each. A tile of mix is 4 queries x 16 columns. */
enum { QUERIES = 2, ROWS = 2, MIX_QUERIES = 4 };

#define SCORES(type, bytes)                                                                                           \
    /* n_queries <= QUERIES queries with n_rows <= ROWS rows of keys, apart rows from each other. */                  \
    BNC_INLINE void scores_tile_##type(const float *x, int n_queries, const uint8_t *k, int n_rows, int64_t apart,    \
                                       int64_t ne0, float scale, float *y, int64_t y_stride, const uint8_t *next) {   \
        bnc_lanes sum[QUERIES][ROWS];                                                                                 \
        BNC_UNROLL                                                                                                    \
        for (int g = 0; g < n_queries; g++)                                                                           \
            BNC_UNROLL                                                                                                \
        for (int r = 0; r < n_rows; r++)                                                                              \
            sum[g][r] = bnc_zero_lanes_neon();                                                                        \
        int64_t i = 0;                                                                                                \
        for (; i + BNC_LANES <= ne0; i += BNC_LANES) {                                                                \
            bnc_lanes row[ROWS];                                                                                      \
            BNC_UNROLL                                                                                                \
            for (int r = 0; r < n_rows; r++) {                                                                        \
                const int64_t at = (r * apart * ne0 + i) * (bytes);                                                   \
                __builtin_prefetch(next + at, 0, 2);                                                                  \
                row[r] = bnc_lanes_##type##_neon(k + at);                                                             \
            }                                                                                                         \
            BNC_UNROLL                                                                                                \
            for (int g = 0; g < n_queries; g++) {                                                                     \
                const bnc_lanes xs = bnc_lanes_f32_neon((const uint8_t *)(x + g * ne0 + i));                          \
                BNC_UNROLL                                                                                            \
                for (int r = 0; r < n_rows; r++)                                                                      \
                    sum[g][r] = bnc_add_product_neon(sum[g][r], row[r], xs);                                          \
            }                                                                                                         \
        }                                                                                                             \
        BNC_UNROLL                                                                                                    \
        for (int g = 0; g < n_queries; g++)                                                                           \
            BNC_UNROLL                                                                                                \
        for (int r = 0; r < n_rows; r++) {                                                                            \
            float products[BNC_LANES];                                                                                \
            for (int64_t j = i; j < ne0; j++)                                                                         \
                products[j - i] = bnc_element_##type(k + r * apart * ne0 * (bytes), j) * x[g * ne0 + j];              \
            y[g * y_stride + r * apart] = bnc_sum_with_tail_neon(sum[g][r], products, ne0 - i) * scale;               \
        }                                                                                                             \
    }                                                                                                                 \
    BNC_INLINE void scores_queries_##type(const float *x, int n_queries, const uint8_t *k, int64_t n, int64_t ne0,    \
                                          float scale, float *y, int64_t y_stride, const uint8_t *next) {             \
        const int64_t apart = n / ROWS, row_bytes = ne0 * (bytes);                                                    \
        for (int64_t j = 0; j < apart; j++)                                                                           \
            scores_tile_##type(x, n_queries, k + j * row_bytes, ROWS, apart, ne0, scale, y + j, y_stride,             \
                               next + j * row_bytes);                                                                 \
        for (int64_t j = apart * ROWS; j < n; j++)                                                                    \
            scores_tile_##type(x, n_queries, k + j * row_bytes, 1, 0, ne0, scale, y + j, y_stride,                    \
                               next + j * row_bytes);                                                                 \
    }                                                                                                                 \
    void bnc_scores_##type##_neon(const float *x, int n_group, const uint8_t *k, int64_t n, int64_t ne0, float scale, \
                                  float *y, int64_t y_stride, const uint8_t *next) {                                  \
        int g = 0;                                                                                                    \
        for (; g + QUERIES <= n_group; g += QUERIES)                                                                  \
            scores_queries_##type(x + g * ne0, QUERIES, k, n, ne0, scale, y + g * y_stride, y_stride, next);          \
        for (; g < n_group; g++)                                                                                      \
            scores_queries_##type(x + g * ne0, 1, k, n, ne0, scale, y + g * y_stride, y_stride, next);                \
    }

#define MIX(type, bytes)                                                                                             \
    /* y[g][0 .. BNC_LANES) of n_queries <= MIX_QUERIES queries. */                                                  \
    BNC_INLINE void mix_tile_##type(const float *p, int64_t p_stride, int n_queries, const uint8_t *v, int64_t n,    \
                                    int64_t ne0, float *y, int64_t y_stride) {                                       \
        bnc_lanes sum[MIX_QUERIES];                                                                                  \
        BNC_UNROLL                                                                                                   \
        for (int g = 0; g < n_queries; g++)                                                                          \
            sum[g] = bnc_zero_lanes_neon();                                                                          \
        for (int64_t j = 0; j < n; j++) {                                                                            \
            const bnc_lanes row = bnc_lanes_##type##_neon(v + j * ne0 * (bytes));                                    \
            BNC_UNROLL                                                                                               \
            for (int g = 0; g < n_queries; g++) {                                                                    \
                const float32x4_t weight = vdupq_n_f32(p[g * p_stride + j]);                                         \
                sum[g] = bnc_add_product_neon(sum[g], (bnc_lanes){{weight, weight, weight, weight}}, row);           \
            }                                                                                                        \
        }                                                                                                            \
        BNC_UNROLL                                                                                                   \
        for (int g = 0; g < n_queries; g++)                                                                          \
            bnc_store_lanes_neon(y + g * y_stride, sum[g]);                                                          \
    }                                                                                                                \
    BNC_INLINE void mix_queries_##type(const float *p, int64_t p_stride, int n_queries, const uint8_t *v, int64_t n, \
                                       int64_t ne0, float *y, int64_t y_stride) {                                    \
        int64_t i = 0;                                                                                               \
        for (; i + BNC_LANES <= ne0; i += BNC_LANES)                                                                 \
            mix_tile_##type(p, p_stride, n_queries, v + i * (bytes), n, ne0, y + i, y_stride);                       \
        for (; i < ne0; i++)                                                                                         \
            for (int g = 0; g < n_queries; g++) {                                                                    \
                float sum = 0;                                                                                       \
                for (int64_t j = 0; j < n; j++)                                                                      \
                    sum += p[g * p_stride + j] * bnc_element_##type(v, j * ne0 + i);                                 \
                y[g * y_stride + i] = sum;                                                                           \
            }                                                                                                        \
    }                                                                                                                \
    void bnc_mix_##type##_neon(const float *p, int64_t p_stride, int n_group, const uint8_t *v, int64_t n,           \
                               int64_t ne0, float *y, int64_t y_stride, const uint8_t *next) {                       \
        (void)next;                                                                                                  \
        int g = 0;                                                                                                   \
        for (; g + MIX_QUERIES <= n_group; g += MIX_QUERIES)                                                         \
            mix_queries_##type(p + g * p_stride, p_stride, MIX_QUERIES, v, n, ne0, y + g * y_stride, y_stride);      \
        for (; g < n_group; g++)                                                                                     \
            mix_queries_##type(p + g * p_stride, p_stride, 1, v, n, ne0, y + g * y_stride, y_stride);                \
    }

SCORES(f32, 4)
SCORES(f16, 2)
MIX(f32, 4)
MIX(f16, 2)

#endif
