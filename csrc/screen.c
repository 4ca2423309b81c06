#define _DEFAULT_SOURCE
#include "screen.h"

#include <math.h>
#include <stdlib.h>

/* ---- the copy ---- */

/* The rows of thread ith. */
static void share(const bnc_screen *screen, int ith, int nth, int64_t *begin, int64_t *end) {
    bnc_split(screen->model->config.n_vocab, 16, ith, nth, begin, end);
}

/* Rows between two times that the file's pages are given back: 5 MB of the largest head known. */
enum { ROWS_PER_CHUNK = 1024 };

typedef struct {
    const bnc_screen *screen;
    float *rows; /* (n_threads, n_columns) */
} encode_job;

static void encode_worker(void *arg, int ith, int nth) {
    const encode_job *job = arg;
    const bnc_screen *s = job->screen;
    const bnc_model *m = s->model;
    const int64_t head_bytes = m->head_row_bytes;
    float *row = job->rows + ith * s->n_columns;
    int64_t begin, end;
    share(s, ith, nth, &begin, &end);
    for (int64_t first = begin; first < end; first += ROWS_PER_CHUNK) {
        const int64_t last = bnc_min_i64(end, first + ROWS_PER_CHUNK);
        for (int64_t r = first; r < last; r++) {
            BNC_FN(m->kernels, dequantize, m->config.head_dtype)
            (m->head + r * head_bytes, 1, m->config.n_embd, 1.0f, row);
            s->copy->encode(s, r, row);
        }
        /* Read once, seldom again: the pages stay in the system's cache but no longer count as this process's. */
        bnc_gguf_give_back(m->gguf, m->head + first * head_bytes, (uint64_t)((last - first) * head_bytes));
    }
}

static const bnc_screen_copy *copy_of(bnc_screen_kind kind) {
    return kind == BNC_SCREEN_PROVEN ? &bnc_screen_proven : &bnc_screen_dithered;
}

bnc_status bnc_screen_new(const bnc_model *model, bnc_screen_kind kind, int32_t n_threads, uint64_t seed,
                          bnc_screen **out, bnc_error *err) {
    if (kind != BNC_SCREEN_DITHERED && kind != BNC_SCREEN_PROVEN)
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "kind %d is none of bnc_screen_kind", (int)kind);
    const bnc_screen_copy *copy = copy_of(kind);
    bnc_screen *s = calloc(1, sizeof *s);
    bnc_threads *threads = NULL;
    bnc_status status = s ? bnc_threads_new(n_threads, &threads, err) : bnc_error_nomem(err, sizeof *s);
    if (status != BNC_OK) {
        free(s);
        return status;
    }
    s->model = model;
    s->copy = copy;
    s->n_columns = bnc_round_up(model->config.n_embd, copy->pad);
    s->row_bytes = s->n_columns / copy->pad * copy->pad_bytes;
    const size_t columns = (size_t)s->n_columns;
    const size_t bytes = (size_t)bnc_screen_bytes(model, kind);
    encode_job job = {s, calloc((size_t)n_threads * columns, sizeof(float))};
    s->dither = malloc(columns * sizeof(float));
    void *codes = NULL;
    if (job.rows && s->dither && posix_memalign(&codes, BNC_CACHE_LINE, bytes) == 0) {
        s->codes = codes;
        if (copy->row_extra_bytes)
            s->rows = (bnc_screen_row *)(void *)(s->codes + model->config.n_vocab * s->row_bytes);
        copy->start(s, seed);
        bnc_threads_run(threads, encode_worker, &job);
        *out = s;
    } else {
        status = bnc_error_nomem(err, bytes);
        bnc_screen_free(s);
    }
    free(job.rows);
    bnc_threads_free(threads);
    return status;
}

void bnc_screen_free(bnc_screen *screen) {
    if (!screen)
        return;
    free(screen->dither);
    free(screen->codes);
    free(screen);
}

uint64_t bnc_screen_bytes(const bnc_model *model, bnc_screen_kind kind) {
    const bnc_screen_copy *t = copy_of(kind);
    return (uint64_t)(model->config.n_vocab *
                      (bnc_ceil_div(model->config.n_embd, t->pad) * t->pad_bytes + t->row_extra_bytes));
}

uint64_t bnc_screen_read_bytes(const bnc_screen *screen) {
    return (uint64_t)(screen->model->config.n_vocab * (screen->row_bytes + screen->copy->row_extra_bytes));
}

/* ---- finding candidates ---- */

static bnc_candidate exact(const bnc_screen *s, const bnc_screen_memory *mem, int64_t r) {
    const bnc_model *m = s->model;
    float logit;
    BNC_FN(m->kernels, head, m->config.head_dtype)
    (m->head + r * m->head_row_bytes, 1, m->config.n_embd, mem->activation, &logit);
    return (bnc_candidate){bnc_sampler_penalize(mem->sampler, r, logit), (int32_t)r};
}

/* The best approximations of rows [begin, end), then their exact scores. */
static bnc_best score_best(const bnc_screen *s, const bnc_screen_memory *mem, int64_t begin, int64_t end,
                           bnc_candidate *room) {
    bnc_best best = {room, 0, mem->top + BNC_SCREEN_SPARE};
    for (int64_t r = begin; r < end; r++)
        bnc_best_add(&best, (bnc_candidate){mem->approx[r], (int32_t)r});
    for (int64_t i = 0; i < best.n; i++)
        room[i] = exact(s, mem, room[i].id);
    return best;
}

/* The top-th best of all exact scores: any top rows give a bound that the top best reach. */
static float find_threshold(const bnc_screen_memory *mem, int nth) {
    bnc_best all = {mem->best + (int64_t)nth * BNC_SCREEN_BEST, 0, mem->top};
    for (int i = 0; i < nth; i++)
        for (int64_t j = 0; j < mem->found[i].n; j++)
            bnc_best_add(&all, mem->found[i].at[j]);
    return all.n < mem->top ? -INFINITY : all.at[0].value;
}

/* Whether the bound rules row r out, threshold in units of mem->scale: there, the squares are far from both ends of
 * float32. Written as "beyond", so that a NaN is not ruled out. */
static bool beyond(const bnc_screen *s, const bnc_screen_memory *mem, float threshold, int64_t r) {
    const float gap = threshold - mem->approx[r];
    return gap > 0 && gap * gap > s->factor * s->factor * mem->energy[r] && !bnc_sampler_touches(mem->sampler, r);
}

/*
 * Every row of [begin, end) that is not ruled out, scored exactly; a token that the penalty touches always. The rows of
 * scored that reach the threshold are among them as long as the bound holds; they stay whatever happens, so that no
 * failure of the bound can leave fewer than the best known. An activation too small for 16 bits of it to mean anything
 * rules nothing out.
 */
static bnc_best find_candidates(const bnc_screen *s, const bnc_screen_memory *mem, int64_t begin, int64_t end,
                                bnc_best scored) {
    bnc_best found = {mem->candidates + begin, 0, end - begin};
    const float threshold = mem->scale > 1e-30f ? mem->threshold / mem->scale : -INFINITY;
    for (int64_t r = begin; r < end; r++)
        if (!beyond(s, mem, threshold, r))
            found.at[found.n++] = exact(s, mem, r);
    for (int64_t i = 0; i < scored.n; i++)
        if (scored.at[i].value >= mem->threshold && beyond(s, mem, threshold, scored.at[i].id))
            found.at[found.n++] = scored.at[i];
    return found;
}

/* Rows that all tokens of a batch meet while they lie in the second-level cache: 184 KiB of the dithered copy of 2560
 * columns. A single token takes a thread's rows in one call, for as many streams as the kernel likes. */
enum { ROWS_PER_BLOCK = 128 };

static void approximate(const bnc_screen *s, bnc_screen_memory *memory, int64_t n, int64_t begin, int64_t end) {
    const int64_t step = n == 1 ? end - begin : ROWS_PER_BLOCK;
    for (int64_t r = begin; r < end; r += step)
        for (int64_t i = 0; i < n; i++)
            s->copy->approximate(s, &memory[i], r, bnc_min_i64(end, r + step));
}

void bnc_screen_find(const bnc_screen *screen, bnc_threads *threads, bnc_screen_memory *memory, int64_t n, int ith,
                     int nth) {
    int64_t begin, end;
    share(screen, ith, nth, &begin, &end);
    for (int64_t i = ith; i < n; i += nth)
        screen->copy->prepare(screen, &memory[i], memory[i].activation);
    bnc_threads_barrier(threads);

    approximate(screen, memory, n, begin, end);
    for (bnc_screen_memory *m = memory; m < memory + n; m++) {
        m->found[ith] = score_best(screen, m, begin, end, m->best + (int64_t)ith * BNC_SCREEN_BEST);
        m->n_scored[ith] = m->found[ith].n;
    }
    bnc_threads_barrier(threads);

    for (int64_t i = ith; i < n; i += nth)
        memory[i].threshold = find_threshold(&memory[i], nth);
    bnc_threads_barrier(threads);
    for (bnc_screen_memory *m = memory; m < memory + n; m++)
        m->found[ith] = find_candidates(screen, m, begin, end, m->found[ith]);
}
