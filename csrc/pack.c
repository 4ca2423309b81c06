/*
 * pack.c - ternary matrices copied into memory at 1.6 bits a weight (kernels/pack5_scalar.c) in place of the file's two.
 *
 * The only gain is time, so it is measured: the model's first matrices are packed, and one pass over them is timed from the
 * file and packed, in turn. The others follow one by one, and the file's pages of each are given back: at no moment does the
 * process hold much more than the packed copy.
 */
#define _DEFAULT_SOURCE /* posix_memalign */
#include "model.h"
#include "threads.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

enum { PACKED = BNC_DTYPE_pack5 };

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- one matrix ---- */

/* Rows that are looked at and packed together: 320 KiB at most of those of real models, still in the second-level cache when
 * they are packed. */
enum { ROWS = 128 };

/* Pack rows [begin, end). Returns the byte of the first code that means nothing, else -1. */
static int64_t pack_rows(const bnc_kernels *kernels, int32_t dtype, const bnc_matrix *from, const bnc_matrix *to,
                         int64_t begin, int64_t end) {
    uint8_t *out = (uint8_t *)(uintptr_t)to->data;
    for (int64_t r = begin; r < end; r += ROWS) {
        const int64_t n = bnc_min_i64(ROWS, end - r), at = r * from->row_bytes;
        const int64_t bad = BNC_FN(kernels, scan, dtype)(from->data + at, n * from->row_bytes);
        if (bad >= 0)
            return at + bad;
        BNC_FN(kernels, pack, dtype)(from->data + at, n, from->ne0, out + r * to->row_bytes);
    }
    return -1;
}

static bnc_status check_dtype(const bnc_kernels *kernels, int32_t dtype, bnc_error *err) {
    const bnc_dtype *d = bnc_dtype_at(dtype);
    if (!d || !BNC_FN(kernels, pack, dtype))
        return bnc_error_set(err, BNC_ERR_UNSUPPORTED,
                             "%s cannot be packed: only i2_s has three values, which take less than two bits",
                             d ? d->name : "this dtype");
    return BNC_OK;
}

bnc_status bnc_pack(const bnc_kernels *kernels, int32_t dtype, const uint8_t *w, int64_t w_bytes, int64_t n_rows,
                    int64_t ne0, uint8_t *out, int64_t out_bytes, bnc_error *err) {
    BNC_TRY(check_dtype(kernels, dtype, err));
    bnc_matrix from = {w, n_rows, ne0, 0, 1.0f}, to = {out, n_rows, ne0, 0, 1.0f};
    BNC_TRY(bnc_matmul_check(kernels, dtype, n_rows, ne0, &from.row_bytes, err));
    BNC_TRY(bnc_matmul_check(kernels, PACKED, n_rows, ne0, &to.row_bytes, err));
    const int64_t sizes[2] = {bnc_dtype_nbytes(dtype, n_rows, ne0, NULL), bnc_dtype_nbytes(PACKED, n_rows, ne0, NULL)};
    if (w_bytes != sizes[0] || out_bytes != sizes[1])
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "%lld x %lld of %s take %lld bytes, packed %lld, not %lld and %lld",
                             (long long)n_rows, (long long)ne0, bnc_dtype_at(dtype)->name, (long long)sizes[0],
                             (long long)sizes[1], (long long)w_bytes, (long long)out_bytes);
    const int64_t bad = pack_rows(kernels, dtype, &from, &to, 0, n_rows);
    if (bad >= 0)
        return bnc_error_at(err, BNC_ERR_ARGUMENT, (uint64_t)bad,
                            "byte %lld holds code 3, which stands for no ternary value", (long long)bad);
    return BNC_OK;
}

/* ---- a model ---- */

enum { PER_LAYER = 7 };

typedef struct {
    bnc_model *model;
    bnc_threads *threads;
    int64_t n_matrices;
    bnc_matrix *to;  /* (n_matrices,) where each will lie in memory */
    uint8_t *memory; /* (bytes,) */
    uint64_t bytes;
    bnc_error *err;
} packer;

static bnc_matrix *matrix_at(bnc_model *m, int64_t i) {
    bnc_layer *l = &m->layer[i / PER_LAYER];
    bnc_matrix *const of_layer[PER_LAYER] = {&l->attn_q,   &l->attn_k, &l->attn_v,  &l->attn_output,
                                             &l->ffn_gate, &l->ffn_up, &l->ffn_down};
    return of_layer[i % PER_LAYER];
}

/* An operation whose fastest kernel for packed matrices is of a lower level than that for the file's would be slower. */
static bnc_status check_kernel(const packer *p, int op, const char *op_name) {
    const bnc_kernels *k = p->model->kernels;
    const bnc_kernel_info file = bnc_kernel_at(k->choice[op][p->model->dtype].index);
    const bnc_kernel_info packed = bnc_kernel_at(k->choice[op][PACKED].index);
    if (packed.isa < file.isa)
        return bnc_error_set(p->err, BNC_ERR_UNSUPPORTED,
                             "packed weights would be slower here: the best %s for them is %s, for the file's it is %s",
                             op_name, packed.name, file.name);
    return BNC_OK;
}

static bnc_status check_model(const packer *p) {
    BNC_TRY(check_dtype(p->model->kernels, p->model->dtype, p->err));
    BNC_TRY(check_kernel(p, BNC_OP_gemv, "gemv"));
    return check_kernel(p, BNC_OP_gemm, "gemm");
}

/* Places for all matrices, one after the other, in one piece of memory: a row is a multiple of a cache line. The sizes are
 * below those of the file's tensors but for rows shorter than a block, which are 64 bytes. */
static bnc_status place(packer *p) {
    p->to = calloc((size_t)p->n_matrices, sizeof *p->to);
    if (!p->to)
        return bnc_error_nomem(p->err, (uint64_t)p->n_matrices * sizeof *p->to);
    for (int64_t i = 0; i < p->n_matrices; i++) {
        p->to[i] = *matrix_at(p->model, i);
        BNC_TRY(
            bnc_matmul_check(p->model->kernels, PACKED, p->to[i].n_rows, p->to[i].ne0, &p->to[i].row_bytes, p->err));
        p->bytes += (uint64_t)(p->to[i].n_rows * p->to[i].row_bytes);
    }
    void *memory = NULL;
    if (p->bytes > SIZE_MAX || posix_memalign(&memory, BNC_CACHE_LINE, (size_t)p->bytes) != 0)
        return bnc_error_nomem(p->err, p->bytes);
    p->memory = memory;
    const uint8_t *at = p->memory;
    for (int64_t i = 0; i < p->n_matrices; i++) {
        p->to[i].data = at;
        at += p->to[i].n_rows * p->to[i].row_bytes;
    }
    return BNC_OK;
}

static bnc_status bad_code(const packer *p, const bnc_matrix *matrix, int64_t at) {
    const bnc_gguf *gguf = p->model->gguf;
    int64_t i = 0;
    while (bnc_gguf_tensor_at(gguf, i)->data != matrix->data) /* ends: every matrix is a tensor */
        i++;
    const bnc_gguf_tensor *t = bnc_gguf_tensor_at(gguf, i);
    return bnc_error_at(p->err, BNC_ERR_GGUF, t->offset + (uint64_t)at,
                        "tensor %s holds code 3, which stands for no ternary value and cannot be packed",
                        bnc_gguf_quote(t->name, t->name_len).text);
}

/* Each thread its rows of all matrices [begin, end), without waiting for the others. */
typedef struct {
    const packer *p;
    int64_t begin, end;
    bool give_back;
    _Atomic int64_t bad; /* the first code that means nothing: matrix << BYTE_BITS | its byte; INT64_MAX: none */
} pack_job;

enum { BYTE_BITS = 48 };

static void note_bad(pack_job *job, int64_t i, int64_t at) {
    const int64_t bad = i << BYTE_BITS | at;
    int64_t seen = atomic_load(&job->bad);
    while (bad < seen && !atomic_compare_exchange_weak(&job->bad, &seen, bad))
        ;
}

static void pack_worker(void *arg, int ith, int nth) {
    pack_job *job = arg;
    const bnc_model *model = job->p->model;
    for (int64_t i = job->begin; i < job->end; i++) {
        const bnc_matrix *from = matrix_at(job->p->model, i);
        int64_t begin, end;
        bnc_split(from->n_rows, 1, ith, nth, &begin, &end);
        const int64_t bad = pack_rows(model->kernels, model->dtype, from, &job->p->to[i], begin, end);
        if (bad >= 0) {
            note_bad(job, i, bad);
            return;
        }
        if (job->give_back)
            bnc_gguf_give_back(model->gguf, from->data + begin * from->row_bytes,
                               (uint64_t)((end - begin) * from->row_bytes));
    }
}

static bnc_status pack_range(const packer *p, int64_t begin, int64_t end, bool give_back) {
    pack_job job = {.p = p, .begin = begin, .end = end, .give_back = give_back};
    atomic_init(&job.bad, INT64_MAX);
    bnc_threads_run(p->threads, pack_worker, &job);
    const int64_t bad = atomic_load(&job.bad), byte = bad & (((int64_t)1 << BYTE_BITS) - 1);
    return bad == INT64_MAX ? BNC_OK : bad_code(p, matrix_at(p->model, bad >> BYTE_BITS), byte);
}

/* The model reads the packed matrices from now on. */
static void adopt(packer *p) {
    for (int64_t i = 0; i < p->n_matrices; i++) {
        bnc_matrix *m = matrix_at(p->model, i);
        p->model->bytes_per_token -= (uint64_t)(m->n_rows * m->row_bytes);
        *m = p->to[i];
    }
    p->model->bytes_per_token += p->bytes;
    p->model->dtype = PACKED;
    p->model->packed = p->memory;
    p->memory = NULL;
}

/* ---- measuring ---- */

/* Bytes of the file that a pass reads, more than caches hold; how often; and when no further pass begins. */
#define SAMPLE_BYTES ((int64_t)128 << 20)
#define MOST_SECONDS 0.5
enum { ROUNDS = 16 };

typedef struct {
    const packer *p;
    int64_t n; /* matrices in the sample */
    bool packed;
    const int8_t *q; /* the longest row, padded */
    int32_t *y;      /* the most rows */
} pass;

static void pass_worker(void *arg, int ith, int nth) {
    const pass *s = arg;
    const bnc_model *model = s->p->model;
    for (int64_t i = 0; i < s->n; i++) {
        const bnc_matrix *m = s->packed ? &s->p->to[i] : matrix_at(s->p->model, i);
        int64_t begin, end;
        bnc_split(m->n_rows, BNC_CACHE_LINE / (int64_t)sizeof *s->y, ith, nth, &begin, &end);
        if (begin < end)
            BNC_FN(model->kernels, gemv, s->packed ? PACKED : model->dtype)
        (m->data + begin * m->row_bytes, end - begin, m->ne0, s->q, 0, s->y + begin);
    }
}

static double time_of(pass *s, bool packed) {
    s->packed = packed;
    const double begin = seconds();
    bnc_threads_run(s->p->threads, pass_worker, s);
    return seconds() - begin;
}

/* The shortest pass from the file by the shortest packed, taken in turn: what other processes take away only adds. */
static double gain_of(pass *s) {
    const double begin = seconds();
    double file = time_of(s, false), packed = time_of(s, true);
    for (int i = 1; i < ROUNDS && seconds() - begin < MOST_SECONDS; i++) {
        const double from_file = time_of(s, false), from_memory = time_of(s, true);
        file = from_file < file ? from_file : file;
        packed = from_memory < packed ? from_memory : packed;
    }
    return file / packed;
}

static bnc_status measure(const packer *p, int64_t n, double *gain) {
    int64_t longest = 0, most = 0;
    for (int64_t i = 0; i < n; i++) {
        longest = bnc_max_i64(longest, bnc_round_up(p->to[i].ne0, BNC_Q8_PAD));
        most = bnc_max_i64(most, p->to[i].n_rows);
    }
    const size_t bytes = (size_t)most * sizeof(int32_t) + (size_t)longest;
    int32_t *y = calloc(1, bytes);
    if (!y)
        return bnc_error_nomem(p->err, bytes);
    pass s = {.p = p, .n = n, .q = (const int8_t *)(y + most), .y = y};
    *gain = gain_of(&s);
    free(y);
    return BNC_OK;
}

static int64_t sample_size(const packer *p) {
    int64_t n = 0;
    for (int64_t bytes = 0; n < p->n_matrices && bytes < SAMPLE_BYTES; n++)
        bytes += p->to[n].n_rows * matrix_at(p->model, n)->row_bytes;
    return n;
}

/* ---- all of it ---- */

static bnc_status pack(packer *p, double min_gain, bnc_pack_report *report) {
    BNC_TRY(check_model(p));
    BNC_TRY(place(p));
    const int64_t n = sample_size(p);
    BNC_TRY(pack_range(p, 0, n, false));
    BNC_TRY(measure(p, n, &report->gain));
    for (int64_t i = 0; i < n; i++) {
        const bnc_matrix *m = matrix_at(p->model, i);
        bnc_gguf_give_back(p->model->gguf, m->data, (uint64_t)(m->n_rows * m->row_bytes));
    }
    if (report->gain < min_gain)
        return BNC_OK;
    BNC_TRY(pack_range(p, n, p->n_matrices, true));
    adopt(p);
    report->bytes = p->bytes;
    return BNC_OK;
}

bnc_status bnc_pack_model(bnc_model *model, int32_t n_threads, double min_gain, bnc_pack_report *out, bnc_error *err) {
    const double begin = seconds();
    packer p = {.model = model, .n_matrices = model->config.n_layer * PER_LAYER, .err = err};
    bnc_pack_report report = {0};
    BNC_TRY(bnc_threads_new(n_threads, &p.threads, err));
    const bnc_status status = pack(&p, min_gain, &report);
    bnc_threads_free(p.threads);
    free(p.to);
    free(p.memory);
    report.seconds = seconds() - begin;
    if (status == BNC_OK)
        *out = report;
    return status;
}
