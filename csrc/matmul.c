#include "matmul.h"

#include <stdlib.h>

bnc_status bnc_matmul_check(const bnc_kernels *kernels, int32_t dtype, int64_t n_rows, int64_t ne0, int64_t *row_bytes,
                            bnc_error *err) {
    const bnc_dtype *d = bnc_dtype_at(dtype);
    int64_t nbytes = 0;
    if (!d || !BNC_FN(kernels, gemv, dtype))
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "no kernel multiplies %s", d ? d->name : "this dtype");
    if (n_rows < 1 || ne0 < 1 || ne0 > INT32_MAX / (3 * 128)) /* the bound of kernels/gemv_scalar.c */
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "a matrix of %lld x %lld is outside 1 <= columns <= %d",
                             (long long)n_rows, (long long)ne0, INT32_MAX / (3 * 128));
    if (d->packing == BNC_PACK_FLAT && ne0 % d->block)
        return bnc_error_set(err, BNC_ERR_ARGUMENT,
                             "rows of %lld columns do not start on a %s group of %lld; quantize with a padded row",
                             (long long)ne0, d->name, (long long)d->block);
    BNC_TRY(bnc_dtype_size(dtype, n_rows, ne0, BNC_NO_OFFSET, &nbytes, err));
    *row_bytes = bnc_ceil_div(ne0, d->block) * d->block_bytes + d->row_bytes;
    return BNC_OK;
}

/* The integer product of rows [begin, end): y (n_tokens, y_stride) starts at row begin. */
static void product(const bnc_kernels *kernels, int32_t dtype, const bnc_matrix *w, int64_t begin, int64_t end,
                    const bnc_activations *x, int64_t n_tokens, int32_t *y, int64_t y_stride) {
    const uint8_t *rows = w->data + begin * w->row_bytes;
    if (n_tokens == 1)
        BNC_FN(kernels, gemv, dtype)(rows, end - begin, w->ne0, x->q, x->q_sum[0], y);
    else
        BNC_FN(kernels, gemm, dtype)
    (rows, end - begin, w->ne0, x->q, x->stride, x->q_sum, n_tokens, y, y_stride);
}

void bnc_matmul_rows(const bnc_kernels *kernels, int32_t dtype, const bnc_matrix *w, int64_t begin, int64_t end,
                     const bnc_activations *x, int64_t n_tokens, bnc_matmul_mode mode, float *y, int64_t y_stride,
                     int32_t *scratch, int64_t scratch_rows) {
    const bnc_scale_i32_fn scale_i32 = BNC_FN0(kernels, scale_i32);
    /* One token: as many rows at once as the scratch holds, since gemv reads them as far-apart streams. */
    const int64_t step = n_tokens == 1 ? scratch_rows : BNC_MATMUL_ROWS;
    for (int64_t r = begin; r < end; r += step) {
        const int64_t n = bnc_min_i64(step, end - r);
        product(kernels, dtype, w, r, r + n, x, n_tokens, scratch, BNC_MATMUL_ROWS);
        for (int64_t t = 0; t < n_tokens; t++) {
            const int32_t *sums = scratch + t * BNC_MATMUL_ROWS;
            float *out = y + t * y_stride + r;
            if (mode == BNC_STORE) {
                scale_i32(sums, n, x->s[t], w->scale, out);
                continue;
            }
            for (int64_t i = 0; i < n; i += BNC_MATMUL_ROWS) {
                float part[BNC_MATMUL_ROWS];
                const int64_t m = bnc_min_i64(BNC_MATMUL_ROWS, n - i);
                scale_i32(sums + i, m, x->s[t], w->scale, part);
                BNC_FN0(kernels, add)(part, m, out + i);
            }
        }
    }
}

/* ---- bnc_matmul_i32: the same product for tests and benchmarks ---- */

typedef struct {
    const bnc_kernels *kernels;
    int32_t dtype, repeat;
    const bnc_matrix *w;
    const bnc_activations *x;
    int64_t n_tokens;
    int32_t *y;
} i32_job;

static void i32_worker(void *arg, int ith, int nth) {
    const i32_job *job = arg;
    int64_t begin, end;
    bnc_split(job->w->n_rows, 16, ith, nth, &begin, &end);
    for (int32_t i = 0; i < job->repeat && begin < end; i++)
        product(job->kernels, job->dtype, job->w, begin, end, job->x, job->n_tokens, job->y + begin, job->w->n_rows);
}

/* Copy q (n_tokens, ne0) into padded, arranged rows. */
static void prepare(const bnc_kernels *kernels, int32_t dtype, const int8_t *q, int64_t n_tokens, int64_t ne0,
                    bnc_activations *x, int8_t *row) {
    const bnc_arrange_fn arrange = BNC_FN(kernels, arrange, dtype);
    for (int64_t t = 0; t < n_tokens; t++) {
        memset(row, 0, (size_t)x->stride);
        memcpy(row, q + t * ne0, (size_t)ne0);
        x->q_sum[t] = 0;
        for (int64_t i = 0; i < ne0; i++)
            x->q_sum[t] += row[i];
        if (arrange)
            arrange(row, x->stride, x->q + t * x->stride);
        else
            memcpy(x->q + t * x->stride, row, (size_t)x->stride);
    }
}

bnc_status bnc_matmul_i32(const bnc_kernels *kernels, int32_t dtype, const uint8_t *w, int64_t w_bytes, int64_t n_rows,
                          int64_t ne0, const int8_t *q, int64_t n_tokens, int32_t *y, int32_t n_threads, int32_t repeat,
                          bnc_error *err) {
    bnc_matrix matrix = {w, n_rows, ne0, 0, 1.0f};
    BNC_TRY(bnc_matmul_check(kernels, dtype, n_rows, ne0, &matrix.row_bytes, err));
    const int64_t expected = bnc_dtype_nbytes(dtype, n_rows, ne0, err);
    if (w_bytes != expected)
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "%lld x %lld of %s take %lld bytes, not %lld", (long long)n_rows,
                             (long long)ne0, bnc_dtype_at(dtype)->name, (long long)expected, (long long)w_bytes);
    int64_t outputs = 0;
    if (n_tokens < 1 || repeat < 1 || !bnc_mul_i64(n_tokens, bnc_max_i64(n_rows, ne0 + BNC_Q8_PAD), &outputs))
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "n_tokens (%lld) and repeat (%d) must be at least 1",
                             (long long)n_tokens, (int)repeat);

    bnc_activations x = {.stride = bnc_round_up(ne0, BNC_Q8_PAD)};
    const size_t bytes = (size_t)((n_tokens + 1) * x.stride) + (size_t)n_tokens * sizeof(int32_t);
    int8_t *memory = malloc(bytes);
    if (!memory)
        return bnc_error_nomem(err, bytes);
    x.q_sum = (int32_t *)memory;
    x.q = memory + (size_t)n_tokens * sizeof(int32_t);
    prepare(kernels, dtype, q, n_tokens, ne0, &x, x.q + n_tokens * x.stride);

    bnc_threads *threads = NULL;
    bnc_status status = bnc_threads_new(n_threads, &threads, err);
    if (status == BNC_OK) {
        i32_job job = {kernels, dtype, repeat, &matrix, &x, n_tokens, y};
        bnc_threads_run(threads, i32_worker, &job);
        bnc_threads_free(threads);
    }
    free(memory);
    return status;
}
