#include "convert.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

/* ---- pieces: what is cut from a tensor, the same for any number of threads ---- */

/*
 * Floats that are looked at together: 16 KiB fit the first-level cache. It is also the stretch whose magnitudes are summed in float,
 * and so a part of what "mean of the magnitudes" means.
 */
enum { CHUNK = 4096 };

/* Columns that are packed together, right after they were looked at: so few that memory is never left idle while a kernel works on
 * what the caches hold. A multiple of every block. Four rows that lie together are taken whole. */
enum { TURN = 256 };

/* Floats that are unpacked together: 1 MiB, from which on kernels write past the caches. */
enum { STRETCH = 1 << 18 };

/* A thread with less than 1 MiB of floats is not worth its start. */
enum { FLOATS_PER_THREAD = 1 << 18 };

typedef struct {
    int64_t n_rows, ne0; /* of the tensor; one long row where rows do not matter */
    int64_t rows, cols;  /* of a piece; those at an end may be shorter */
    int64_t across;      /* pieces in a row */
    int64_t count;
    int64_t block, block_bytes; /* of the dtype, along a row */
    int64_t down_bytes;         /* packed, of the rows of a piece */
} pieces;

typedef struct {
    int64_t first; /* element */
    int64_t byte;  /* its place in the packed tensor */
    int64_t n_rows, ne0;
} piece;

static bool rows_matter(const bnc_dtype *d, int64_t ne0) {
    return d->packing == BNC_PACK_ROW4 || (d->packing != BNC_PACK_FLAT && ne0 % d->block != 0);
}

/* rows and cols are multiples of every block. */
static pieces cut(const bnc_dtype *d, int64_t n_rows, int64_t ne0, int64_t rows, int64_t cols) {
    const bool flat = !rows_matter(d, ne0), row4 = d->packing == BNC_PACK_ROW4;
    pieces c = {
        .n_rows = flat ? 1 : n_rows,
        .ne0 = flat ? n_rows * ne0 : ne0,
        .rows = flat ? 1 : rows,
        .cols = cols,
        .block = row4 ? 1 : d->block, /* of row4, a column of four rows: what one element of a row adds to the place */
        .block_bytes = d->block_bytes,
    };
    c.down_bytes = bnc_ceil_div(c.ne0, c.block) * c.block_bytes * (row4 ? c.rows / d->block : c.rows);
    c.across = bnc_ceil_div(c.ne0, c.cols);
    c.count = bnc_ceil_div(c.n_rows, c.rows) * c.across;
    return c;
}

static piece piece_at(const pieces *c, int64_t i) {
    const int64_t down = i / c->across, col = i % c->across * c->cols;
    return (piece){
        .first = down * c->rows * c->ne0 + col,
        .byte = down * c->down_bytes + col / c->block * c->block_bytes,
        .n_rows = bnc_min_i64(c->rows, c->n_rows - down * c->rows),
        .ne0 = bnc_min_i64(c->cols, c->ne0 - col),
    };
}

/* For what is read: chunks, or the four rows that lie together. */
static pieces cut_chunks(const bnc_dtype *d, int64_t n_rows, int64_t ne0) {
    const bool row4 = d->packing == BNC_PACK_ROW4;
    return cut(d, n_rows, ne0, row4 ? d->block : 1, row4 ? ne0 : CHUNK);
}

/* For what is written: stretches, of whole rows where these matter. */
static pieces cut_stretches(const bnc_dtype *d, int64_t n_rows, int64_t ne0) {
    if (!rows_matter(d, ne0))
        return cut(d, n_rows, ne0, 1, STRETCH);
    return cut(d, n_rows, ne0, bnc_round_up(bnc_ceil_div(STRETCH, ne0), 4), ne0);
}

/* ---- the first of several finds, whichever thread is faster ---- */

typedef struct {
    _Atomic int64_t at; /* INT64_MAX: none */
} first_find;

static void find_add(first_find *f, int64_t at) {
    int64_t seen = atomic_load(&f->at);
    while (at < seen && !atomic_compare_exchange_weak(&f->at, &seen, at))
        ;
}

/* Nothing from here on can come first any more: the thread may stop. */
static bool find_settled(first_find *f, int64_t from) {
    return atomic_load_explicit(&f->at, memory_order_relaxed) <= from;
}

/* ---- arguments ---- */

typedef struct {
    const bnc_kernels *kernels;
    const bnc_dtype *dtype;
    int32_t dtype_index;
    int64_t n_rows, ne0, nbytes;
    bnc_threads *threads;
} conversion;

static bnc_status conversion_start(conversion *c, const bnc_kernels *kernels, int32_t dtype, int64_t n_rows,
                                   int64_t ne0, int64_t packed_bytes, int32_t n_threads, bnc_error *err) {
    *c = (conversion){kernels, bnc_dtype_at(dtype), dtype, n_rows, ne0, 0, NULL};
    BNC_TRY(bnc_dtype_size(dtype, n_rows, ne0, BNC_NO_OFFSET, &c->nbytes, err));
    if (!c->dtype->convertible)
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "%s is known by its size alone: there is no conversion",
                             c->dtype->name);
    if (packed_bytes != c->nbytes)
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "a %s tensor of %lld x %lld takes %lld bytes, not %lld",
                             c->dtype->name, (long long)n_rows, (long long)ne0, (long long)c->nbytes,
                             (long long)packed_bytes);
    if (n_threads < 1 || n_threads > BNC_THREADS_MAX)
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "n_threads must be 1 to %d, not %d", BNC_THREADS_MAX, n_threads);
    const int64_t worth = bnc_max_i64(1, n_rows * ne0 / FLOATS_PER_THREAD);
    return bnc_threads_borrow((int)bnc_min_i64(n_threads, worth), &c->threads, err);
}

static bool has_tensor_scale(const bnc_dtype *d) { return d->tail_bytes > 0; }

/* ---- quantize: look, choose the scale, pack ---- */

/* Magnitudes that a format cannot hold, for they round to infinity: this one and larger. 0: all finite ones fit. */
static const struct {
    float from;
    const char *what;
} too_large[BNC_DTYPE_COUNT] = {
    [BNC_DTYPE_f16] = {65520.0f, "float16"},
    [BNC_DTYPE_bf16] = {0x1.ffp127f, "bfloat16"},
    [BNC_DTYPE_bitnet32] = {65520.0f, "the float16 scale of a block"},
    [BNC_DTYPE_q8_0] = {65520.0f * 127, "the float16 scale of a block"},
    [BNC_DTYPE_q6_k] = {65520.0f * 127 * 31, "the float16 scale of a block"},
};

typedef struct {
    const bnc_kernels *kernels;
    bnc_quantize_fn quantize;
    int32_t dtype;
    const float *x;
    uint8_t *out;
    float scale;
    float limit; /* magnitudes from here on do not fit; infinity, which NaN does not stay below either, never does */
    bool look;   /* at each turn before it is packed */
    pieces pieces;
    first_find unfit;
    double *sums;              /* (pieces,) of magnitudes, or NULL */
    _Atomic uint32_t max_bits; /* largest magnitude, as bits: they are ordered as the magnitudes are */
} quantize_job;

static int64_t first_unfit(const float *x, int64_t n, float limit) {
    int64_t i = 0;
    while (i < n && fabsf(x[i]) < limit)
        i++;
    return i;
}

static bool fits(const quantize_job *job, const float *x, int64_t n, bnc_magnitudes *m) {
    BNC_FN0(job->kernels, measure)(x, n, m);
    return m->first_not_finite < 0 && m->max < job->limit;
}

/* Note the first of n elements, from this one on, that does not fit. There is none if their owner has written to them meanwhile. */
static void note_unfit(quantize_job *job, int64_t first, int64_t n) {
    const int64_t i = first_unfit(job->x + first, n, job->limit);
    if (i < n)
        find_add(&job->unfit, first + i);
}

/* The sum of a chunk of finite magnitudes, also where float does not hold it: any mean of floats is a float. */
static double chunk_sum(const float *x, int64_t n, float sum) {
    if (isfinite(sum))
        return sum;
    double wide = 0;
    for (int64_t i = 0; i < n; i++)
        wide += fabsf(x[i]);
    return wide;
}

static void measure_part(void *arg, int ith, int nth) {
    quantize_job *job = arg;
    int64_t begin, end;
    bnc_split(job->pieces.count, 1, ith, nth, &begin, &end);
    float max = 0;
    for (int64_t i = begin; i < end; i++) {
        const piece p = piece_at(&job->pieces, i);
        bnc_magnitudes m;
        if (find_settled(&job->unfit, p.first))
            return;
        if (!fits(job, job->x + p.first, p.ne0, &m))
            note_unfit(job, p.first, p.ne0);
        if (job->sums)
            job->sums[i] = chunk_sum(job->x + p.first, p.ne0, m.sum);
        max = m.max > max ? m.max : max;
    }
    uint32_t seen = atomic_load(&job->max_bits);
    while (bnc_bits_f32(max) > seen && !atomic_compare_exchange_weak(&job->max_bits, &seen, bnc_bits_f32(max)))
        ;
}

/* n columns from col on. False if nothing from there on matters any more. */
static bool pack_turn(quantize_job *job, const piece *p, int64_t col, int64_t n) {
    const pieces *c = &job->pieces;
    const int64_t first = p->first + col;
    if (find_settled(&job->unfit, first))
        return false;
    bnc_magnitudes m;
    if (!job->look || fits(job, job->x + first, p->n_rows * n, &m))
        job->quantize(job->x + first, p->n_rows, n, job->scale, job->out + p->byte + col / c->block * c->block_bytes);
    else
        note_unfit(job, first, p->n_rows * n);
    return true;
}

static void pack_part(void *arg, int ith, int nth) {
    quantize_job *job = arg;
    int64_t begin, end;
    bnc_split(job->pieces.count, 1, ith, nth, &begin, &end);
    bool goes_on = true;
    for (int64_t i = begin; goes_on && i < end; i++) {
        const piece p = piece_at(&job->pieces, i);
        const int64_t turn = p.n_rows == 1 ? TURN : p.ne0;
        for (int64_t col = 0; goes_on && col < p.ne0; col += turn)
            goes_on = pack_turn(job, &p, col, bnc_min_i64(turn, p.ne0 - col));
    }
    bnc_streamed();
}

/* The error that names the first unfit element, if there was one. */
static bnc_status unfit_error(quantize_job *job, int64_t ne0, bnc_error *err) {
    const int64_t i = atomic_load(&job->unfit.at);
    if (i == INT64_MAX)
        return BNC_OK;
    const float x = job->x[i];
    const long long index = i, row = i / ne0, column = i % ne0;
    if (isfinite(x))
        return bnc_error_set(err, BNC_ERR_ARGUMENT,
                             "element %lld (row %lld, column %lld) is %.9g: %s holds magnitudes below %.9g", index, row,
                             column, (double)x, too_large[job->dtype].what, (double)job->limit);
    return bnc_error_set(err, BNC_ERR_ARGUMENT, "element %lld (row %lld, column %lld) is %s", index, row, column,
                         isnan(x) ? "nan"
                         : x > 0  ? "inf"
                                  : "-inf");
}

/*
 * The mean of the magnitudes: BNC_LANES float sums in each chunk, and the chunks added in double in their order, so
 * that neither threads nor levels move a bit of it. Within a chunk a lane adds 256 floats, each time rounding by at
 * most 2^-24 of the sum so far: the chunk is right to 2^-16 at worst, and to about 2^-23 as roundings go.
 */
static float mean_of(const double *sums, int64_t count, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += sums[i];
    return (float)(sum / (double)n);
}

/* No weights are so small on average; a tensor of zeros needs some scale above 0. */
#define SCALE_MIN 1e-5f

static bnc_status measure_scale(const conversion *c, quantize_job *job, int32_t rule, bnc_error *err) {
    const int64_t n = c->n_rows * c->ne0;
    job->pieces = cut_chunks(bnc_dtype_at(BNC_DTYPE_f32), 1, n);
    if (rule == BNC_SCALE_ABSMEAN) {
        const size_t bytes = (size_t)job->pieces.count * sizeof(double);
        job->sums = malloc(bytes);
        if (!job->sums)
            return bnc_error_nomem(err, bytes);
    }
    bnc_threads_run(c->threads, measure_part, job);
    const bnc_status status = unfit_error(job, c->ne0, err);
    if (status == BNC_OK) {
        const float max = bnc_f32_bits(atomic_load(&job->max_bits));
        const float mean = job->sums ? mean_of(job->sums, job->pieces.count, n) : 0;
        if (rule == BNC_SCALE_ABSMEAN)
            job->scale = mean > SCALE_MIN ? mean : SCALE_MIN;
        else
            job->scale = max > 0 ? max : SCALE_MIN;
    }
    free(job->sums);
    job->sums = NULL;
    return status;
}

static bnc_status check_scale(int32_t rule, float scale, bnc_error *err) {
    if (rule < BNC_SCALE_GIVEN || rule > BNC_SCALE_ABSMAX)
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "scale rule %d does not exist", rule);
    if (rule == BNC_SCALE_GIVEN && !(isnormal(scale) && scale > 0))
        return bnc_error_set(err, BNC_ERR_ARGUMENT,
                             "the scale must be a normal float32 above 0, so at least 1.17549435e-38, not %.9g",
                             (double)scale);
    return BNC_OK;
}

static bnc_status quantize_run(const conversion *c, quantize_job *job, int32_t rule, bnc_error *err) {
    if (has_tensor_scale(c->dtype) && rule != BNC_SCALE_GIVEN)
        BNC_TRY(measure_scale(c, job, rule, err));
    else
        job->look = true;
    job->pieces = cut_chunks(c->dtype, c->n_rows, c->ne0);
    bnc_threads_run(c->threads, pack_part, job);
    BNC_TRY(unfit_error(job, c->ne0, err));
    if (has_tensor_scale(c->dtype)) {
        uint8_t *tail = job->out + c->nbytes - c->dtype->tail_bytes;
        memset(tail, 0, (size_t)c->dtype->tail_bytes);
        memcpy(tail, &job->scale, sizeof job->scale);
    }
    return BNC_OK;
}

/* Past the caches where they could hardly hold the output anyway. */
static bnc_quantize_fn quantize_kernel(const bnc_kernels *kernels, int32_t dtype, const uint8_t *out, int64_t bytes) {
    const bnc_quantize_fn streamed = BNC_FN(kernels, quantize_streamed, dtype);
    return streamed && bytes >= STRETCH * 4 && (uintptr_t)out % 16 == 0 ? streamed : BNC_FN(kernels, quantize, dtype);
}

bnc_status bnc_quantize(const bnc_kernels *kernels, int32_t dtype, const float *x, int64_t n_rows, int64_t ne0,
                        int32_t scale_rule, float scale, uint8_t *out, int64_t out_bytes, int32_t n_threads,
                        bnc_error *err) {
    BNC_TRY(check_scale(scale_rule, scale, err));
    conversion c;
    BNC_TRY(conversion_start(&c, kernels, dtype, n_rows, ne0, out_bytes, n_threads, err));
    quantize_job job = {
        .kernels = kernels,
        .quantize = quantize_kernel(kernels, dtype, out, out_bytes),
        .dtype = dtype,
        .x = x,
        .out = out,
        .scale = scale,
        .limit = too_large[dtype].from > 0 ? too_large[dtype].from : INFINITY,
    };
    atomic_init(&job.unfit.at, INT64_MAX);
    atomic_init(&job.max_bits, 0);
    const bnc_status status = quantize_run(&c, &job, scale_rule, err);
    bnc_threads_give_back(c.threads);
    return status;
}

/* ---- dequantize: look for codes without meaning, then unpack ---- */

typedef struct {
    bnc_scan_fn scan;
    const uint8_t *in;
    int64_t nbytes;
    first_find bad;
} scan_job;

static void scan_part(void *arg, int ith, int nth) {
    scan_job *job = arg;
    int64_t begin, end;
    bnc_split(job->nbytes, BNC_CACHE_LINE, ith, nth, &begin, &end);
    const int64_t at = job->scan(job->in + begin, end - begin);
    if (at >= 0)
        find_add(&job->bad, begin + at);
}

int64_t bnc_find_bad_code(const bnc_kernels *kernels, int32_t dtype, const uint8_t *in, int64_t nbytes,
                          bnc_threads *threads) {
    scan_job job = {.scan = BNC_FN(kernels, scan, dtype), .in = in, .nbytes = nbytes};
    if (!job.scan)
        return -1;
    atomic_init(&job.bad.at, INT64_MAX);
    bnc_threads_run(threads, scan_part, &job);
    const int64_t at = atomic_load(&job.bad.at);
    return at == INT64_MAX ? -1 : at;
}

typedef struct {
    bnc_dequantize_fn dequantize;
    const uint8_t *in;
    float *x;
    float scale;
    pieces pieces;
} dequantize_job;

static void unpack_part(void *arg, int ith, int nth) {
    const dequantize_job *job = arg;
    int64_t begin, end;
    bnc_split(job->pieces.count, 1, ith, nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        const piece p = piece_at(&job->pieces, i);
        job->dequantize(job->in + p.byte, p.n_rows, p.ne0, job->scale, job->x + p.first);
    }
}

static bnc_status dequantize_run(const conversion *c, const uint8_t *in, float *x, bnc_error *err) {
    dequantize_job job = {
        .dequantize = BNC_FN(c->kernels, dequantize, c->dtype_index),
        .in = in,
        .x = x,
        .scale = 1,
        .pieces = cut_stretches(c->dtype, c->n_rows, c->ne0),
    };
    if (has_tensor_scale(c->dtype)) {
        const int64_t tail = c->nbytes - c->dtype->tail_bytes;
        job.scale = bnc_load_f32(in + tail);
        if (!isfinite(job.scale))
            return bnc_error_at(err, BNC_ERR_ARGUMENT, (uint64_t)tail, "the scale at byte %lld is not finite",
                                (long long)tail);
        const int64_t bad = bnc_find_bad_code(c->kernels, c->dtype_index, in, tail, c->threads);
        if (bad >= 0)
            return bnc_error_at(err, BNC_ERR_ARGUMENT, (uint64_t)bad,
                                "byte %lld holds code 3, which stands for no ternary value", (long long)bad);
    }
    bnc_threads_run(c->threads, unpack_part, &job);
    return BNC_OK;
}

bnc_status bnc_dequantize(const bnc_kernels *kernels, int32_t dtype, const uint8_t *in, int64_t in_bytes,
                          int64_t n_rows, int64_t ne0, float *x, int32_t n_threads, bnc_error *err) {
    conversion c;
    BNC_TRY(conversion_start(&c, kernels, dtype, n_rows, ne0, in_bytes, n_threads, err));
    const bnc_status status = dequantize_run(&c, in, x, err);
    bnc_threads_give_back(c.threads);
    return status;
}
