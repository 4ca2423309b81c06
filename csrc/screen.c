#define _DEFAULT_SOURCE
#include "screen.h"

#include <math.h>
#include <stdlib.h>

/* Failure probability of a token, all rows together. */
#define FAILURE 1e-12

/*
 * What the derivation leaves out, against S = sqrt(sum of d^2 X^2), X the activation as 16-bit integers:
 *   - u has 2^16 values: its mean error is below 2^-17 a column, 2^-17 sqrt(n) S together, 4e-4 S for n = 2560;
 *   - w / d + u is rounded to float32, 2^-20 at most: less than that;
 *   - (dot - offset) * step, added up in float32: 2^-22 * 15 sum of d |X| <= 4e-6 sqrt(n) S, 2e-4 S.
 * Together below 1e-3 S for n up to 2560, 4e-3 S for n up to 40000, and t > 2.
 * Rounding the activation to X moves a row by at most 8 d / 2 a column, 128 d a block, and rounding the offset by 1 d a
 * block more: find_margin adds what covers that.
 */
#define SLACK 4e-3
#define BLOCK_ERROR 129.0

/* ---- the copy ---- */

/* Rows are padded to whole stripes. */
static int64_t count_stripes(const bnc_model *model) { return bnc_ceil_div(model->config.n_embd, BNC_SCREEN_STRIPE); }

/* The rows of thread ith. */
static void share(const bnc_screen *screen, int ith, int nth, int64_t *begin, int64_t *end) {
    bnc_split(screen->model->config.n_vocab, 16, ith, nth, begin, end);
}

/* Rows between two times that the file's pages are given back: 5 MB of the largest head known. */
enum { ROWS_PER_CHUNK = 1024 };

typedef struct {
    const bnc_screen *screen;
    float *rows; /* (n_threads, n_stripes * 512) */
} encode_job;

static void encode_worker(void *arg, int ith, int nth) {
    const encode_job *job = arg;
    const bnc_screen *s = job->screen;
    const bnc_model *m = s->model;
    const int64_t n_embd = m->config.n_embd, head_bytes = m->head_row_bytes;
    const bnc_screen_encode_fn encode = BNC_FN0(m->kernels, screen_encode);
    float *row = job->rows + ith * s->n_stripes * BNC_SCREEN_STRIPE;
    int64_t begin, end;
    share(s, ith, nth, &begin, &end);
    for (int64_t first = begin; first < end; first += ROWS_PER_CHUNK) {
        const int64_t last = bnc_min_i64(end, first + ROWS_PER_CHUNK);
        for (int64_t r = first; r < last; r++) {
            BNC_FN(m->kernels, dequantize, m->config.head_dtype)(m->head + r * head_bytes, 1, n_embd, 1.0f, row);
            encode(row, s->dither, s->n_stripes, s->codes + r * s->row_bytes);
        }
        /* Read once, seldom again: the pages stay in the system's cache but no longer count as this process's. */
        bnc_gguf_give_back(m->gguf, m->head + first * head_bytes, (uint64_t)((last - first) * head_bytes));
    }
}

static void fill_dither(bnc_screen *s, uint64_t seed) {
    for (int64_t i = 0; i < s->n_stripes * BNC_SCREEN_STRIPE; i++)
        s->dither[i] = ((float)(bnc_mix64(seed + (uint64_t)i) >> 48) + 0.5f) * 0x1p-16f - 0.5f;
}

bnc_status bnc_screen_new(const bnc_model *model, int32_t n_threads, uint64_t seed, bnc_screen **out, bnc_error *err) {
    const bnc_model_config *c = &model->config;
    bnc_screen *s = calloc(1, sizeof *s);
    bnc_threads *threads = NULL;
    bnc_status status = s ? bnc_threads_new(n_threads, &threads, err) : bnc_error_nomem(err, sizeof *s);
    if (status != BNC_OK) {
        free(s);
        return status;
    }
    s->model = model;
    s->n_stripes = count_stripes(model);
    s->row_bytes = s->n_stripes * BNC_SCREEN_STRIPE_BYTES;
    s->factor = (float)(sqrt(log(2.0 * (double)c->n_vocab / FAILURE) / 6.0) * (1.0 + SLACK));
    const size_t columns = (size_t)s->n_stripes * BNC_SCREEN_STRIPE;
    const size_t bytes = (size_t)bnc_screen_bytes(model);
    encode_job job = {s, calloc((size_t)n_threads * columns, sizeof(float))};
    s->dither = malloc(columns * sizeof(float));
    void *codes = NULL;
    if (job.rows && s->dither && posix_memalign(&codes, BNC_CACHE_LINE, bytes) == 0) {
        s->codes = codes;
        fill_dither(s, bnc_mix64(seed));
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

uint64_t bnc_screen_bytes(const bnc_model *model) {
    return (uint64_t)(model->config.n_vocab * count_stripes(model) * BNC_SCREEN_STRIPE_BYTES);
}

/* ---- finding candidates ---- */

/* Column of byte 4 j + m of plane k in its stripe. */
static int64_t column_of(int k, int j, int m) { return BNC_SCREEN_BLOCK * j + 8 * (k / 2) + 4 * (k % 2) + m; }

/* The activation of lane j of a stripe whose first column is first, and its two constants. */
static void prepare_lane(const bnc_screen *s, const float *x, float inverse, int64_t first, int j,
                         bnc_screen_stripe *out) {
    double offset = 0, energy = 0;
    for (int k = 0; k < 8; k++)
        for (int m = 0; m < 4; m++) {
            const int64_t column = first + column_of(k, j, m);
            const int32_t v = column < s->model->config.n_embd ? (int32_t)lrintf(x[column] * inverse) : 0;
            const int32_t low = (v & 255) - 2 * (v & 128), high = (v - low) / 256;
            out->low[k][4 * j + m] = (int8_t)low;
            out->high[k][4 * j + m] = (int8_t)high;
            offset += (7.5 + (double)s->dither[column]) * v;
            energy += (double)v * v;
        }
    out->offset[j] = (float)offset;
    out->energy[j] = (float)energy;
}

/*
 * G such that t sqrt(sum d^2 (E + G)) >= t sqrt(sum d^2 E) + a sum d, for any steps d of the n blocks, E <= max:
 * with B = sum d^2, sum d <= sqrt(n B), and sqrt(A + G B) - sqrt(A) >= G B / (2 sqrt(A + G B)) >= G sqrt(B) / (2 sqrt(max + G)).
 * So t G >= 2 a sqrt(n) sqrt(max + G) is enough: a quadratic equation for G.
 */
static float find_margin(double t, double a, double n, double max) {
    const double k = 2 * a * sqrt(n) / t;
    return (float)((k * k + k * sqrt(k * k + 4 * max)) / 2);
}

static void prepare(const bnc_screen *s, bnc_screen_memory *mem, const float *x) {
    const int64_t n_embd = s->model->config.n_embd;
    float max = 0, max_energy = 0;
    for (int64_t i = 0; i < n_embd; i++)
        max = fabsf(x[i]) > max ? fabsf(x[i]) : max;
    mem->scale = max / 32000.0f;
    for (int64_t i = 0; i < s->n_stripes; i++)
        for (int j = 0; j < BNC_SCREEN_LANES; j++) {
            prepare_lane(s, x, max > 0 ? 32000.0f / max : 0.0f, i * BNC_SCREEN_STRIPE, j, &mem->x[i]);
            max_energy = mem->x[i].energy[j] > max_energy ? mem->x[i].energy[j] : max_energy;
        }
    const int64_t n_blocks = s->n_stripes * BNC_SCREEN_LANES;
    const float margin = find_margin(s->factor, BLOCK_ERROR, (double)n_blocks, max_energy);
    for (int64_t i = 0; i < s->n_stripes; i++)
        for (int j = 0; j < BNC_SCREEN_LANES; j++)
            mem->x[i].energy[j] += margin;
}

static bnc_candidate exact(const bnc_screen *s, const float *x, const bnc_sampler *sampler, int64_t r) {
    const bnc_model *m = s->model;
    float logit;
    BNC_FN(m->kernels, head, m->config.head_dtype)(m->head + r * m->head_row_bytes, 1, m->config.n_embd, x, &logit);
    return (bnc_candidate){bnc_sampler_penalize(sampler, r, logit), (int32_t)r};
}

/* The best approximations of rows [begin, end), then their exact scores. */
static bnc_best score_best(const bnc_screen *s, const bnc_screen_memory *mem, const float *x,
                           const bnc_sampler *sampler, int64_t begin, int64_t end, int64_t n, bnc_candidate *room) {
    bnc_best best = {room, 0, n};
    for (int64_t r = begin; r < end; r++)
        bnc_best_add(&best, (bnc_candidate){mem->approx[r], (int32_t)r});
    for (int64_t i = 0; i < best.n; i++)
        room[i] = exact(s, x, sampler, room[i].id);
    return best;
}

/* The top-th best of all exact scores: any top rows give a bound that the top best reach. */
static float find_threshold(const bnc_screen_memory *mem, int nth, int64_t top) {
    bnc_best all = {mem->best + (int64_t)nth * BNC_SCREEN_BEST, 0, top};
    for (int i = 0; i < nth; i++)
        for (int64_t j = 0; j < mem->found[i].n; j++)
            bnc_best_add(&all, mem->found[i].at[j]);
    return all.n < top ? -INFINITY : all.at[0].value;
}

/* Whether the bound rules row r out, threshold in units of mem->scale: there, the squares are far from both ends of
 * float32. Written as "beyond", so that a NaN is not ruled out. */
static bool beyond(const bnc_screen *s, const bnc_screen_memory *mem, const bnc_sampler *sampler, float threshold,
                   int64_t r) {
    const float gap = threshold - mem->approx[r];
    return gap > 0 && gap * gap > s->factor * s->factor * mem->energy[r] && !bnc_sampler_touches(sampler, r);
}

/*
 * Every row of [begin, end) that is not ruled out, scored exactly; a token that the penalty touches always. The rows of
 * scored that reach the threshold are among them as long as the bound holds; they stay whatever happens, so that no
 * failure of the bound can leave fewer than the best known. An activation too small for 16 bits of it to mean anything
 * rules nothing out.
 */
static bnc_best find_candidates(const bnc_screen *s, const bnc_screen_memory *mem, const float *x,
                                const bnc_sampler *sampler, int64_t begin, int64_t end, bnc_best scored) {
    bnc_best found = {mem->candidates + begin, 0, end - begin};
    const float threshold = mem->scale > 1e-30f ? mem->threshold / mem->scale : -INFINITY;
    for (int64_t r = begin; r < end; r++)
        if (!beyond(s, mem, sampler, threshold, r))
            found.at[found.n++] = exact(s, x, sampler, r);
    for (int64_t i = 0; i < scored.n; i++)
        if (scored.at[i].value >= mem->threshold && beyond(s, mem, sampler, threshold, scored.at[i].id))
            found.at[found.n++] = scored.at[i];
    return found;
}

void bnc_screen_find(const bnc_screen *screen, bnc_threads *threads, bnc_screen_memory *memory, const float *x,
                     int64_t top, const bnc_sampler *sampler, int ith, int nth) {
    int64_t begin, end;
    share(screen, ith, nth, &begin, &end);
    if (ith == 0)
        prepare(screen, memory, x);
    bnc_threads_barrier(threads);

    BNC_FN0(screen->model->kernels, screen)
    (screen->codes + begin * screen->row_bytes, end - begin, screen->n_stripes, memory->x, memory->approx + begin,
     memory->energy + begin);
    memory->found[ith] = score_best(screen, memory, x, sampler, begin, end, top + BNC_SCREEN_SPARE,
                                    memory->best + (int64_t)ith * BNC_SCREEN_BEST);
    memory->n_scored[ith] = memory->found[ith].n;
    bnc_threads_barrier(threads);

    if (ith == 0)
        memory->threshold = find_threshold(memory, nth, top);
    bnc_threads_barrier(threads);
    memory->found[ith] = find_candidates(screen, memory, x, sampler, begin, end, memory->found[ith]);
}
