/*
 * matmul.h - packed matrices, and their product with quantized activations.
 */
#ifndef BNC_MATMUL_H
#define BNC_MATMUL_H

#include "base.h"
#include "error.h"
#include "kernels/kernels.h"
#include "threads.h"

/* A ternary matrix where it lies, in the file or packed: (n_rows, ne0), rows row_bytes apart. */
typedef struct {
    const uint8_t *data;
    int64_t n_rows, ne0, row_bytes;
    float scale; /* of the whole tensor */
} bnc_matrix;

/* Quantized activations of some tokens. */
typedef struct {
    int8_t *q;      /* (n_tokens, stride), arranged as the gemv kernel reads them, zeros from ne0 on */
    float *s;       /* (n_tokens,) */
    int32_t *q_sum; /* (n_tokens,) */
    int64_t stride; /* a multiple of BNC_Q8_PAD */
} bnc_activations;

/* Rows whose int32 sums of several tokens are held before they are scaled: bnc_matmul_rows needs
 * n_tokens * BNC_MATMUL_ROWS of scratch, and uses scratch_rows of it for one token. */
enum { BNC_MATMUL_ROWS = 64 };

/* What to do with the product. */
typedef enum { BNC_STORE, BNC_ACCUMULATE } bnc_matmul_mode;

/* Bytes of a row of the dtypes that have a gemv kernel, or -1. Rows of i2_s start on a group only when ne0 is a multiple of
 * 128: others are refused here. */
bnc_status bnc_matmul_check(const bnc_kernels *kernels, int32_t dtype, int64_t n_rows, int64_t ne0, int64_t *row_bytes,
                            bnc_error *err);

/* y[t][r] (=, +=) (I / s) * scale for rows [begin, end): the canonical order of one division, one product. */
void bnc_matmul_rows(const bnc_kernels *kernels, int32_t dtype, const bnc_matrix *w, int64_t begin, int64_t end,
                     const bnc_activations *x, int64_t n_tokens, bnc_matmul_mode mode, float *y, int64_t y_stride,
                     int32_t *scratch, int64_t scratch_rows);

#endif
