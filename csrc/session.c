#define _DEFAULT_SOURCE
#include "session.h"

#include <math.h>
#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

enum { DEFAULT_BATCH = 256, MAX_BATCH = 1 << 14 };

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

static void lay_out(bnc_session *s, arena *a) {
    const bnc_model_config *c = &s->model->config;
    const int64_t batch = s->n_batch, n_attn = c->n_head * c->n_embd_head, n_kv = c->n_head_kv * c->n_embd_head;
    const int64_t longest = bnc_max_i64(bnc_max_i64(c->n_embd, c->n_ff), n_attn);
    const int nth = bnc_threads_count(s->threads);

    s->freqs = take(a, c->n_rot / 2, sizeof(float));
    s->rope = take(a, batch * c->n_rot, sizeof(float));
    s->x = take(a, batch * c->n_embd, sizeof(float));
    s->q = take(a, batch * n_attn, sizeof(float));
    s->k = take(a, batch * n_kv, sizeof(float));
    s->v = take(a, batch * n_kv, sizeof(float));
    s->attn = take(a, batch * n_attn, sizeof(float));
    s->attn_parts = take(a,
                         bnc_min_i64(batch, BNC_ATTN_TOKENS) * bnc_ceil_div(s->n_ctx, BNC_ATTN_CHUNK) * c->n_head *
                             (c->n_embd_head + 2),
                         sizeof(float));
    s->gate = take(a, batch * c->n_ff, sizeof(float));
    s->up = take(a, batch * c->n_ff, sizeof(float));
    s->logits = take(a, c->n_vocab, sizeof(float));
    s->act.stride = bnc_round_up(longest, BNC_Q8_PAD);
    s->act.q = take(a, batch * s->act.stride, 1);
    s->act.s = take(a, batch, sizeof(float));
    s->act.q_sum = take(a, batch, sizeof(int32_t));
    s->screening.x = take(a, bnc_ceil_div(c->n_embd, BNC_SCREEN_STRIPE), sizeof(bnc_screen_stripe));
    s->screening.approx = take(a, c->n_vocab, sizeof(float));
    s->screening.energy = take(a, c->n_vocab, sizeof(float));
    s->screening.candidates = take(a, c->n_vocab, sizeof(bnc_candidate));
    s->screening.found = take(a, nth, sizeof(bnc_best));
    s->screening.n_scored = take(a, nth, sizeof(int64_t));
    s->screening.best = take(a, (nth + 1) * BNC_SCREEN_BEST, sizeof(bnc_candidate));
    s->lane = take(a, nth, sizeof(bnc_lane_memory));
    for (int i = 0; i < nth; i++) {
        bnc_lane_memory lane;
        lane.row = take(a, longest, sizeof(float));
        lane.q = take(a, s->act.stride, 1);
        lane.scores = take(a, c->n_head / c->n_head_kv * BNC_ATTN_CHUNK, sizeof(float));
        lane.scratch = take(a, batch * BNC_MATMUL_ROWS, sizeof(int32_t));
        if (s->lane)
            s->lane[i] = lane;
    }
    s->scratch_bytes = a->used;
    s->kv = take(a, c->n_layer * 2 * n_kv, (uint64_t)s->n_ctx * (s->kv_dtype == BNC_DTYPE_f16 ? 2 : 4));
    s->kv_bytes = a->used - s->scratch_bytes;
}

static bnc_status allocate(bnc_session *s, bnc_error *err) {
    arena sizes = {0};
    lay_out(s, &sizes);
    if (sizes.overflow || sizes.used > SIZE_MAX / 2)
        return bnc_error_set(err, BNC_ERR_NOMEM, "a session of %lld positions is larger than any memory",
                             (long long)s->n_ctx);
    /* Pages of their own, so that the advice below touches nobody else's. */
    enum { PAGE = 4096 };
    s->memory_bytes = (size_t)(sizes.used + PAGE - 1) / PAGE * PAGE;
    if (posix_memalign(&s->memory, PAGE, s->memory_bytes) != 0) {
        s->memory = NULL;
        return bnc_error_nomem(err, s->memory_bytes);
    }
#if defined(__linux__)
    /* Heads of the cache lie n_ctx rows apart: huge pages would make the whole cache resident with the first token. */
    madvise(s->memory, s->memory_bytes, MADV_NOHUGEPAGE);
#endif
    arena place = {.base = s->memory};
    lay_out(s, &place);
    return BNC_OK;
}

/* As Hugging Face computes them: 1 / base^(2 i / n_rot), a float32. */
static void fill_freqs(bnc_session *s) {
    const bnc_model_config *c = &s->model->config;
    for (int64_t i = 0; i < c->n_rot / 2; i++)
        s->freqs[i] = (float)(1.0 / pow((double)c->rope_freq_base, (double)(2 * i) / (double)c->n_rot));
}

bnc_status bnc_session_new(const bnc_model *model, const bnc_session_options *options, bnc_session **out,
                           bnc_error *err) {
    const int64_t n_ctx = options->n_ctx ? options->n_ctx : model->config.n_ctx;
    const int64_t n_batch = options->n_batch ? options->n_batch : bnc_min_i64(n_ctx, DEFAULT_BATCH);
    if (n_ctx < 1 || n_ctx > model->config.n_ctx)
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "n_ctx must be 1 to %lld, the model's context, not %lld",
                             (long long)model->config.n_ctx, (long long)n_ctx);
    if (n_batch < 1 || n_batch > MAX_BATCH)
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "n_batch must be 1 to %d, not %lld", MAX_BATCH, (long long)n_batch);
    if (options->kv_dtype != BNC_KV_F16 && options->kv_dtype != BNC_KV_F32)
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "kv_dtype %d is neither BNC_KV_F16 nor BNC_KV_F32",
                             (int)options->kv_dtype);

    bnc_session *s = calloc(1, sizeof *s);
    if (!s)
        return bnc_error_nomem(err, sizeof *s);
    s->model = model;
    s->n_ctx = n_ctx;
    s->n_batch = n_batch;
    s->kv_dtype = options->kv_dtype == BNC_KV_F16 ? BNC_DTYPE_f16 : BNC_DTYPE_f32;
    atomic_flag_clear(&s->busy);
    bnc_status status = bnc_threads_new(options->n_threads, &s->threads, err);
    if (status == BNC_OK)
        status = allocate(s, err);
    if (status != BNC_OK) {
        bnc_session_free(s);
        return status;
    }
    fill_freqs(s);
    *out = s;
    return BNC_OK;
}

void bnc_session_free(bnc_session *session) {
    if (!session)
        return;
    bnc_threads_free(session->threads);
    free(session->memory);
    free(session);
}

int64_t bnc_session_n_ctx(const bnc_session *session) { return session->n_ctx; }
int64_t bnc_session_n_batch(const bnc_session *session) { return session->n_batch; }
int64_t bnc_session_n_past(const bnc_session *session) { return session->n_past; }
uint64_t bnc_session_kv_bytes(const bnc_session *session) { return session->kv_bytes; }
uint64_t bnc_session_scratch_bytes(const bnc_session *session) { return session->scratch_bytes; }

/* ---- one caller at a time ---- */

bnc_status bnc_session_enter(bnc_session *s, bnc_error *err) {
    if (!bnc_threads_usable(s->threads))
        return bnc_error_set(err, BNC_ERR_FORKED, "this session was made before a fork(); make one in the child");
    if (atomic_flag_test_and_set_explicit(&s->busy, memory_order_acquire))
        return bnc_error_set(err, BNC_ERR_BUSY, "the session is in use by another thread; give each thread its own");
    return BNC_OK;
}

void bnc_session_leave(bnc_session *s) { atomic_flag_clear_explicit(&s->busy, memory_order_release); }

/* ---- state ---- */

bnc_status bnc_session_set_screen(bnc_session *session, const bnc_screen *screen, bnc_error *err) {
    if (screen && screen->model != session->model)
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "the screen was made for another model");
    BNC_TRY(bnc_session_enter(session, err));
    session->screen = screen;
    bnc_session_leave(session);
    return BNC_OK;
}

bnc_reads bnc_session_reads(const bnc_session *session) { return session->reads; }

bnc_status bnc_session_rewind(bnc_session *session, int64_t n_past, bnc_error *err) {
    BNC_TRY(bnc_session_enter(session, err));
    bnc_status status = BNC_OK;
    if (n_past < 0 || n_past > session->n_past)
        status = bnc_error_set(err, BNC_ERR_ARGUMENT, "can only rewind to 0 to %lld, not %lld",
                               (long long)session->n_past, (long long)n_past);
    else
        session->n_past = n_past;
    bnc_session_leave(session);
    return status;
}

/* One cache row of values in [-1, 1). */
static void noise_row(const bnc_session *s, uint64_t seed, int64_t index, uint8_t *out) {
    const int64_t n = s->model->config.n_embd_head;
    float *row = s->lane[0].row;
    for (int64_t i = 0; i < n; i++)
        row[i] = (float)(int32_t)(bnc_mix64(seed ^ (uint64_t)(index * n + i)) >> 32) * 0x1p-31f;
    BNC_FN(s->model->kernels, quantize, s->kv_dtype)(row, 1, n, 1.0f, out);
}

bnc_status bnc_session_fill_kv(bnc_session *session, int64_t n_past, uint64_t seed, bnc_error *err) {
    BNC_TRY(bnc_session_enter(session, err));
    const bnc_model_config *c = &session->model->config;
    bnc_status status = BNC_OK;
    if (n_past < 0 || n_past > session->n_ctx) {
        status = bnc_error_set(err, BNC_ERR_ARGUMENT, "n_past must be 0 to %lld, not %lld", (long long)session->n_ctx,
                               (long long)n_past);
    } else {
        seed = bnc_mix64(seed);
        int64_t index = 0;
        for (int64_t il = 0; il < c->n_layer; il++)
            for (int part = 0; part < 2; part++)
                for (int64_t h = 0; h < c->n_head_kv; h++)
                    for (int64_t pos = 0; pos < n_past; pos++)
                        noise_row(session, seed, index++, bnc_session_kv(session, il, part, h, pos));
        session->n_past = n_past;
    }
    bnc_session_leave(session);
    return status;
}

int32_t bnc_session_kernels_used(const bnc_session *session, int32_t *out, int32_t cap) {
    int32_t n = 0;
    for (int op = 0; op < BNC_OP_COUNT; op++)
        for (int dtype = 0; dtype < BNC_DTYPE_COUNT; dtype++)
            if (session->used[op][dtype]) {
                if (n < cap)
                    out[n] = session->model->kernels->choice[op][dtype].index;
                n++;
            }
    return n;
}
