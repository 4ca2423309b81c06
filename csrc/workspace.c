#include "workspace.h"

#include "pages.h"

#include <math.h>
#include <stdlib.h>

enum { DEFAULT_BATCH = 256, MAX_BATCH = 1 << 14, MAX_SEQ = 1 << 10 };

/* ---- memory: laid out twice by the same code, first to add up the sizes, then to set the pointers ---- */

typedef struct {
    uint8_t *base; /* NULL while adding up */
    uint64_t used;
    bool overflow;
} arena;

/* n elements of size bytes each, on a cache line of its own. */
static void *take(arena *a, int64_t n, uint64_t size) {
    const uint64_t at = a->used;
    uint64_t bytes = 0;
    if (!bnc_mul_u64((uint64_t)n, size, &bytes) || !bnc_add_u64(bytes, BNC_CACHE_LINE - 1, &bytes) ||
        !bnc_add_u64(a->used, bytes / BNC_CACHE_LINE * BNC_CACHE_LINE, &a->used))
        a->overflow = true;
    return a->base ? a->base + at : NULL;
}

static bnc_screen_memory take_screening(arena *a, const bnc_model_config *c, int nth) {
    bnc_screen_memory m = {0};
    m.x = take(a, bnc_ceil_div(c->n_embd, BNC_SCREEN_STRIPE), sizeof(bnc_screen_stripe));
    m.approx = take(a, c->n_vocab, sizeof(float));
    m.energy = take(a, c->n_vocab, sizeof(float));
    m.candidates = take(a, c->n_vocab, sizeof(bnc_candidate));
    m.found = take(a, nth, sizeof(bnc_best));
    m.n_scored = take(a, nth, sizeof(int64_t));
    m.best = take(a, (nth + 1) * BNC_SCREEN_BEST, sizeof(bnc_candidate));
    return m;
}

static bnc_lane_memory take_lane(arena *a, const bnc_workspace *ws, int64_t longest) {
    const bnc_model_config *c = &ws->model->config;
    bnc_lane_memory lane;
    lane.row = take(a, longest, sizeof(float));
    lane.q = take(a, ws->act.stride, 1);
    lane.scores = take(a, c->n_head / c->n_head_kv * BNC_ATTN_CHUNK, sizeof(float));
    lane.scratch = take(a, ws->n_batch * BNC_MATMUL_ROWS, sizeof(int32_t));
    return lane;
}

static void lay_out(bnc_workspace *ws, arena *a) {
    const bnc_model_config *c = &ws->model->config;
    const int64_t batch = ws->n_batch, n_attn = c->n_head * c->n_embd_head, n_kv = c->n_head_kv * c->n_embd_head;
    const int64_t longest = bnc_max_i64(bnc_max_i64(c->n_embd, c->n_ff), n_attn);
    const int nth = bnc_threads_count(ws->threads);

    ws->row = take(a, batch, sizeof(bnc_row));
    ws->freqs = take(a, c->n_rot / 2, sizeof(float));
    ws->rope = take(a, batch * c->n_rot, sizeof(float));
    ws->x = take(a, batch * c->n_embd, sizeof(float));
    ws->q = take(a, batch * n_attn, sizeof(float));
    ws->k = take(a, batch * n_kv, sizeof(float));
    ws->v = take(a, batch * n_kv, sizeof(float));
    ws->attn = take(a, batch * n_attn, sizeof(float));
    ws->attn_parts = take(a,
                          bnc_min_i64(batch, BNC_ATTN_TOKENS) * bnc_ceil_div(ws->n_ctx, BNC_ATTN_CHUNK) * c->n_head *
                              (c->n_embd_head + 2),
                          sizeof(float));
    ws->gate = take(a, batch * c->n_ff, sizeof(float));
    ws->up = take(a, batch * c->n_ff, sizeof(float));
    ws->logits = take(a, ws->n_seq * c->n_vocab, sizeof(float));
    ws->act.stride = bnc_round_up(longest, BNC_Q8_PAD);
    ws->act.q = take(a, batch * ws->act.stride, 1);
    ws->act.s = take(a, batch, sizeof(float));
    ws->act.q_sum = take(a, batch, sizeof(int32_t));
    ws->screening = take(a, ws->n_seq, sizeof(bnc_screen_memory));
    for (int64_t i = 0; i < ws->n_seq; i++) {
        const bnc_screen_memory memory = take_screening(a, c, nth);
        if (ws->screening)
            ws->screening[i] = memory;
    }
    ws->lane = take(a, nth, sizeof(bnc_lane_memory));
    for (int i = 0; i < nth; i++) {
        const bnc_lane_memory lane = take_lane(a, ws, longest);
        if (ws->lane)
            ws->lane[i] = lane;
    }
}

static bnc_status allocate(bnc_workspace *ws, bnc_error *err) {
    arena sizes = {0};
    lay_out(ws, &sizes);
    if (sizes.overflow || sizes.used > SIZE_MAX / 2)
        return bnc_error_set(err, BNC_ERR_NOMEM, "a context of %lld positions is larger than any memory",
                             (long long)ws->n_ctx);
    ws->memory_bytes = (size_t)sizes.used;
    BNC_TRY(bnc_pages_new(ws->memory_bytes, &ws->memory, err));
    arena place = {.base = ws->memory};
    lay_out(ws, &place);
    return BNC_OK;
}

/* As Hugging Face computes them: 1 / base^(2 i / n_rot), a float32. */
static void fill_freqs(bnc_workspace *ws) {
    const bnc_model_config *c = &ws->model->config;
    for (int64_t i = 0; i < c->n_rot / 2; i++)
        ws->freqs[i] = (float)(1.0 / pow((double)c->rope_freq_base, (double)(2 * i) / (double)c->n_rot));
}

static bnc_status check_count(const char *name, int64_t value, int64_t largest, const char *why, bnc_error *err) {
    if (value < 1 || value > largest)
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "%s must be 1 to %lld%s, not %lld", name, (long long)largest, why,
                             (long long)value);
    return BNC_OK;
}

bnc_status bnc_workspace_new(const bnc_model *model, const bnc_workspace_options *options, bnc_workspace **out,
                             bnc_error *err) {
    const int64_t n_ctx = options->n_ctx ? options->n_ctx : model->config.n_ctx;
    const int64_t n_seq = options->n_seq ? options->n_seq : 1;
    const int64_t n_batch = options->n_batch ? options->n_batch : bnc_max_i64(n_seq, bnc_min_i64(n_ctx, DEFAULT_BATCH));
    BNC_TRY(check_count("n_ctx", n_ctx, model->config.n_ctx, ", the model's context", err));
    BNC_TRY(check_count("n_seq", n_seq, MAX_SEQ, "", err)); /* first: the default of n_batch follows from it */
    BNC_TRY(check_count("n_batch", n_batch, MAX_BATCH, "", err));

    bnc_workspace *ws = calloc(1, sizeof *ws);
    if (!ws)
        return bnc_error_nomem(err, sizeof *ws);
    ws->model = model;
    ws->n_ctx = n_ctx;
    ws->n_batch = n_batch;
    ws->n_seq = n_seq;
    atomic_flag_clear(&ws->busy);
    bnc_status status = bnc_threads_new(options->n_threads, &ws->threads, err);
    if (status == BNC_OK && options->pin)
        status = bnc_threads_pin(ws->threads, err);
    if (status == BNC_OK)
        status = allocate(ws, err);
    if (status != BNC_OK) {
        bnc_workspace_free(ws);
        return status;
    }
    fill_freqs(ws);
    *out = ws;
    return BNC_OK;
}

void bnc_workspace_free(bnc_workspace *workspace) {
    if (!workspace)
        return;
    bnc_threads_free(workspace->threads);
    free(workspace->memory);
    free(workspace);
}

int64_t bnc_workspace_n_batch(const bnc_workspace *workspace) { return workspace->n_batch; }
uint64_t bnc_workspace_bytes(const bnc_workspace *workspace) { return workspace->memory_bytes; }
bnc_reads bnc_workspace_reads(const bnc_workspace *workspace) { return workspace->reads; }

/* ---- one caller at a time ---- */

bnc_status bnc_workspace_enter(bnc_workspace *ws, bnc_error *err) {
    if (!bnc_threads_usable(ws->threads))
        return bnc_error_set(err, BNC_ERR_FORKED, "this session was made before a fork(); make one in the child");
    if (atomic_flag_test_and_set_explicit(&ws->busy, memory_order_acquire))
        return bnc_error_set(err, BNC_ERR_BUSY, "the session is in use by another thread; give each thread its own");
    return BNC_OK;
}

void bnc_workspace_leave(bnc_workspace *ws) { atomic_flag_clear_explicit(&ws->busy, memory_order_release); }

bnc_status bnc_workspace_set_screen(bnc_workspace *workspace, const bnc_screen *screen, bnc_error *err) {
    if (screen && screen->model != workspace->model)
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "the screen was made for another model");
    BNC_TRY(bnc_workspace_enter(workspace, err));
    workspace->screen = screen;
    bnc_workspace_leave(workspace);
    return BNC_OK;
}

int32_t bnc_workspace_kernels_used(const bnc_workspace *workspace, int32_t *out, int32_t cap) {
    int32_t n = 0;
    for (int op = 0; op < BNC_OP_COUNT; op++)
        for (int dtype = 0; dtype < BNC_DTYPE_COUNT; dtype++)
            if (workspace->used[op][dtype]) {
                if (n < cap)
                    out[n] = workspace->model->kernels->choice[op][dtype].index;
                n++;
            }
    return n;
}
