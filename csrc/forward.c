/*
 * forward.c - the transformer, in the order it is computed.
 *
 * All threads run the same code and meet at barriers; each owns a fixed share of tokens, rows or heads. No sum ever
 * crosses a share, so the result does not depend on how many threads there are; and no sum crosses tokens, so it does
 * not depend on whether a token comes alone or in a block.
 */
#include "forward.h"
#include "kernels/lanes.h"

#include <math.h>

/* One thread's view of one call. */
typedef struct {
    bnc_workspace *ws;
    const bnc_model *m;
    const bnc_model_config *c;
    bnc_lane_memory *lane;
    int ith, nth;
    const bnc_row *row; /* (n_tokens,) */
    int64_t n_tokens, n_screened;
} worker;

/* The chosen kernel, noted as having run. */
#define RUN(w, op, dtype) (note(w, BNC_OP_##op, dtype), BNC_FN((w)->m->kernels, op, dtype))
#define RUN0(w, op) RUN(w, op, 0)

static void note(const worker *w, int op, int dtype) {
    atomic_uchar *used = &w->ws->used[op][dtype];
    if (!atomic_load_explicit(used, memory_order_relaxed)) /* written once: the line is then shared by all */
        atomic_store_explicit(used, 1, memory_order_relaxed);
}

static void barrier(const worker *w) { bnc_threads_barrier(w->ws->threads); }

/* ---- the parts of a layer ---- */

/* x = rows of token_embd; and the rotation of each position, shared by all heads and layers. */
static void embed(const worker *w) {
    const int64_t n_embd = w->c->n_embd, half = w->c->n_rot / 2;
    const int64_t row_bytes = w->m->embd_row_bytes;
    int64_t begin, end;
    bnc_split(w->n_tokens, 1, w->ith, w->nth, &begin, &end);
    for (int64_t t = begin; t < end; t++) {
        RUN(w, dequantize, w->m->embd_dtype)
        (w->m->token_embd + w->row[t].token * row_bytes, 1, n_embd, 1.0f, w->ws->x + t * n_embd);
        float *rope = w->ws->rope + t * 2 * half;
        for (int64_t i = 0; i < half; i++) {
            const float angle = (float)w->row[t].pos * w->ws->freqs[i];
            rope[i] = (float)cos((double)angle);
            rope[half + i] = (float)sin((double)angle);
        }
    }
}

/* act[t] = quantized rmsnorm(x[t]) * weight, for rows x (n_tokens, n). */
static void norm_and_quantize(const worker *w, const float *x, const float *weight, int64_t n) {
    const bnc_activations *act = &w->ws->act;
    const bnc_arrange_fn arrange = BNC_FN(w->m->kernels, arrange, w->m->dtype);
    const int64_t padded = bnc_round_up(n, BNC_Q8_PAD);
    int64_t begin, end;
    bnc_split(w->n_tokens, 1, w->ith, w->nth, &begin, &end);
    for (int64_t t = begin; t < end; t++) {
        int8_t *q = act->q + t * act->stride;
        const float max = RUN0(w, rms_norm)(x + t * n, weight, n, w->c->rms_eps, w->lane->row);
        RUN0(w, q8)(w->lane->row, n, padded, max, arrange ? w->lane->q : q, &act->s[t], &act->q_sum[t]);
        if (arrange) {
            note(w, BNC_OP_arrange, w->m->dtype);
            arrange(w->lane->q, padded, q);
        }
    }
}

/* The share [begin, end) of this thread in the rows of matrix i of several that are computed together. */
static void split_rows(const worker *w, const bnc_matrix *const *matrices, int n, int i, int64_t *begin, int64_t *end) {
    int64_t total = 0, before = 0;
    for (int j = 0; j < n; j++) {
        before += j < i ? matrices[j]->n_rows : 0;
        total += matrices[j]->n_rows;
    }
    bnc_split(total, 4, w->ith, w->nth, begin, end);
    *begin = bnc_min_i64(bnc_max_i64(*begin - before, 0), matrices[i]->n_rows);
    *end = bnc_min_i64(bnc_max_i64(*end - before, 0), matrices[i]->n_rows);
}

static void matmul(const worker *w, const bnc_matrix *matrix, int64_t begin, int64_t end, bnc_matmul_mode mode,
                   float *y) {
    if (begin == end)
        return;
    note(w, w->n_tokens == 1 ? BNC_OP_gemv : BNC_OP_gemm, w->m->dtype);
    note(w, BNC_OP_scale_i32, 0);
    bnc_matmul_rows(w->m->kernels, w->m->dtype, matrix, begin, end, &w->ws->act, w->n_tokens, mode, y, matrix->n_rows,
                    w->lane->scratch, w->ws->n_batch * BNC_MATMUL_ROWS);
}

/* Several matrices on the same activations, as one region. */
static void matmuls(const worker *w, const bnc_matrix *const *matrices, float *const *y, int n) {
    for (int i = 0; i < n; i++) {
        int64_t begin, end;
        split_rows(w, matrices, n, i, &begin, &end);
        matmul(w, matrices[i], begin, end, BNC_STORE, y[i]);
    }
}

/* x += matrix * act. */
static void project(const worker *w, const bnc_matrix *matrix) {
    int64_t begin, end;
    bnc_split(matrix->n_rows, 4, w->ith, w->nth, &begin, &end);
    matmul(w, matrix, begin, end, BNC_ACCUMULATE, w->ws->x);
}

/* Rotate queries and keys; put keys and values into the cache. */
static void rotate_and_store(const worker *w, int64_t il) {
    const int64_t hd = w->c->n_embd_head, half = w->c->n_rot / 2;
    const int64_t n_head = w->c->n_head, n_head_kv = w->c->n_head_kv;
    int64_t begin, end;
    bnc_split(w->n_tokens * (n_head + n_head_kv), 1, w->ith, w->nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        const int64_t t = i / (n_head + n_head_kv), h = i % (n_head + n_head_kv);
        const float *rope = w->ws->rope + t * 2 * half;
        if (h < n_head) {
            RUN0(w, rope)(w->ws->q + (t * n_head + h) * hd, rope, rope + half, w->c->n_rot);
            continue;
        }
        const bnc_session *s = w->row[t].session;
        const int64_t head_kv = h - n_head, pos = w->row[t].pos;
        float *k = w->ws->k + (t * n_head_kv + head_kv) * hd, *v = w->ws->v + (t * n_head_kv + head_kv) * hd;
        RUN0(w, rope)(k, rope, rope + half, w->c->n_rot);
        RUN(w, quantize, s->kv_dtype)(k, 1, hd, 1.0f, bnc_session_kv(s, il, 0, head_kv, pos));
        RUN(w, quantize, s->kv_dtype)(v, 1, hd, 1.0f, bnc_session_kv(s, il, 1, head_kv, pos));
    }
}

/* One piece of the work of attention: a token, a key-value head, a chunk of positions. */
typedef struct {
    int64_t t, h, chunk;
} attn_item;

static const uint8_t *chunk_of(const worker *w, int64_t il, int part, attn_item at) {
    return bnc_session_kv(w->row[at.t].session, il, part, at.h, at.chunk * BNC_ATTN_CHUNK);
}

/*
 * Attention of one token and the queries of one key-value head over one chunk of positions, BNC_ATTN_CHUNK each from
 * position 0 on: y = sum of exp(score - max) v, and max and the sum of the exponentials. Where a chunk begins depends on
 * nothing but the position, so the result of a token does not depend on threads or blocks. The values are fetched while
 * the keys are read, and the keys of the next item while the values are.
 */
static void attend_chunk(const worker *w, int64_t il, attn_item at, attn_item next) {
    const int64_t hd = w->c->n_embd_head, group = w->c->n_head / w->c->n_head_kv, head = at.h * group;
    const int64_t n = bnc_min_i64(w->row[at.t].pos + 1 - at.chunk * BNC_ATTN_CHUNK, BNC_ATTN_CHUNK);
    const int32_t kv_dtype = w->row[at.t].session->kv_dtype;
    const uint8_t *k = chunk_of(w, il, 0, at), *v = chunk_of(w, il, 1, at);
    float *scores = w->lane->scores;
    RUN(w, scores, kv_dtype)
    (w->ws->q + (at.t * w->c->n_head + head) * hd, (int)group, k, n, hd, (float)(1.0 / sqrt((double)hd)), scores,
     BNC_ATTN_CHUNK, v);
    for (int64_t g = 0; g < group; g++) {
        const bnc_attn_parts parts = bnc_workspace_attn_parts(w->ws, at.t % BNC_ATTN_TOKENS, head + g);
        RUN0(w, exps)(scores + g * BNC_ATTN_CHUNK, n, &parts.max[at.chunk], &parts.sum[at.chunk]);
    }
    float *y = bnc_workspace_attn_parts(w->ws, at.t % BNC_ATTN_TOKENS, head).y + at.chunk * hd;
    RUN(w, mix, kv_dtype)
    (scores, BNC_ATTN_CHUNK, (int)group, v, n, hd, y, bnc_workspace_attn_stride(w->ws), chunk_of(w, il, 0, next));
}

/* Chunks that row t attends to. */
static int64_t count_chunks(const worker *w, int64_t t) { return bnc_ceil_div(w->row[t].pos + 1, BNC_ATTN_CHUNK); }

/* attn of one token and head: the chunks' sums, brought to the largest maximum, in their order. */
static void join_chunks(const worker *w, int64_t t, int64_t head) {
    const int64_t hd = w->c->n_embd_head, n_chunks = count_chunks(w, t);
    const bnc_attn_parts parts = bnc_workspace_attn_parts(w->ws, t % BNC_ATTN_TOKENS, head);
    float *out = w->ws->attn + (t * w->c->n_head + head) * hd, *weight = parts.max, max, unused, sum = 0;
    RUN0(w, exps)(weight, n_chunks, &max, &unused);
    RUN(w, mix, BNC_DTYPE_f32)(weight, n_chunks, 1, (const uint8_t *)parts.y, n_chunks, hd, out, hd, NULL);
    for (int64_t c = 0; c < n_chunks; c++)
        sum += weight[c] * parts.sum[c];
    for (int64_t i = 0; i < hd; i++)
        out[i] /= sum;
}

/* This thread's share of the chunks of rows [first, first + n), each once a key-value head. Tokens innermost: a chunk of
 * keys and values stays in the cache for all tokens of its session. */
static void attend_chunks(const worker *w, int64_t il, int64_t first, int64_t n) {
    int64_t total = 0, most = 0, begin, end, index = 0;
    for (int64_t t = first; t < first + n; t++) {
        total += count_chunks(w, t);
        most = bnc_max_i64(most, count_chunks(w, t));
    }
    bnc_split(w->c->n_head_kv * total, 1, w->ith, w->nth, &begin, &end);
    attn_item last = {0};
    for (int64_t h = 0; h < w->c->n_head_kv; h++)
        for (int64_t chunk = 0; chunk < most; chunk++)
            for (int64_t t = first; t < first + n; t++) {
                if (chunk >= count_chunks(w, t) || index++ < begin || index > end)
                    continue;
                const attn_item at = {t, h, chunk};
                if (index - 1 > begin)
                    attend_chunk(w, il, last, at);
                last = at;
            }
    if (begin < end)
        attend_chunk(w, il, last, last);
}

/* attn[t] = softmax(q k / sqrt(n_embd_head)) v over the positions up to t's own, BNC_ATTN_TOKENS tokens at a time. */
static void attend(const worker *w, int64_t il) {
    const int64_t n_head = w->c->n_head;
    for (int64_t first = 0; first < w->n_tokens; first += BNC_ATTN_TOKENS) {
        const int64_t n = bnc_min_i64(BNC_ATTN_TOKENS, w->n_tokens - first);
        attend_chunks(w, il, first, n);
        barrier(w);
        int64_t begin, end;
        bnc_split(n * n_head, 1, w->ith, w->nth, &begin, &end);
        for (int64_t i = begin; i < end; i++)
            join_chunks(w, first + i / n_head, i % n_head);
        barrier(w);
    }
}

/* gate = act(Wgate h) * (Wup h). A thread computes the same rows of both, so it needs no barrier in between. */
static void gate_and_up(const worker *w, const bnc_layer *l) {
    const int64_t n_ff = w->c->n_ff;
    int64_t begin, end;
    bnc_split(n_ff, 16, w->ith, w->nth, &begin, &end);
    matmul(w, &l->ffn_gate, begin, end, BNC_STORE, w->ws->gate);
    matmul(w, &l->ffn_up, begin, end, BNC_STORE, w->ws->up);
    const bnc_relu2_fn act = w->m->activation == BNC_OP_relu2 ? RUN0(w, relu2) : RUN0(w, silu);
    for (int64_t t = 0; t < w->n_tokens; t++) {
        float *gate = w->ws->gate + t * n_ff + begin;
        act(gate, w->ws->up + t * n_ff + begin, end - begin, gate);
    }
}

static void layer(const worker *w, int64_t il) {
    const bnc_workspace *ws = w->ws;
    const bnc_layer *l = &w->m->layer[il];
    const bnc_matrix *const qkv[] = {&l->attn_q, &l->attn_k, &l->attn_v};
    float *const qkv_out[] = {ws->q, ws->k, ws->v};

    norm_and_quantize(w, ws->x, l->attn_norm, w->c->n_embd);
    barrier(w);
    matmuls(w, qkv, qkv_out, 3);
    barrier(w);
    rotate_and_store(w, il);
    barrier(w);
    attend(w, il); /* ends with a barrier */
    norm_and_quantize(w, ws->attn, l->attn_sub_norm, w->c->n_head * w->c->n_embd_head);
    barrier(w);
    project(w, &l->attn_output);
    barrier(w);
    norm_and_quantize(w, ws->x, l->ffn_norm, w->c->n_embd);
    barrier(w);
    gate_and_up(w, l);
    barrier(w);
    norm_and_quantize(w, ws->gate, l->ffn_sub_norm, w->c->n_ff);
    barrier(w);
    project(w, &l->ffn_down);
    barrier(w);
}

/* Rows whose output is wanted, normed in place. */
static void final_norm(const worker *w) {
    const int64_t n_embd = w->c->n_embd;
    int64_t begin, end;
    bnc_split(w->n_tokens, 1, w->ith, w->nth, &begin, &end);
    for (int64_t t = begin; t < end; t++)
        if (w->row[t].logits || w->row[t].screened) {
            float *x = w->ws->x + t * n_embd;
            RUN0(w, rms_norm)(x, w->m->output_norm, n_embd, w->c->rms_eps, x);
        }
    barrier(w);
}

static int64_t count_logits(const bnc_row *row, int64_t n_rows) {
    int64_t n = 0;
    for (int64_t t = 0; t < n_rows; t++)
        n += row[t].logits != NULL;
    return n;
}

/* logits[t] = head . (rmsnorm(x[t]) * output_norm) in float32. A single token takes a thread's rows in one call, for as
 * many streams as the kernel likes; of several, a block of rows stays in the cache for all tokens. */
static void head(const worker *w) {
    const int64_t n_embd = w->c->n_embd, n = count_logits(w->row, w->n_tokens);
    const int64_t row_bytes = w->m->head_row_bytes;
    int64_t begin, end;
    bnc_split(w->c->n_vocab, 16, w->ith, w->nth, &begin, &end);
    const int64_t step = n == 1 ? end - begin : 32;
    for (int64_t r = begin; n && r < end; r += step)
        for (int64_t t = 0; t < w->n_tokens; t++)
            if (w->row[t].logits)
                RUN(w, head, w->c->head_dtype)
    (w->m->head + r * row_bytes, bnc_min_i64(step, end - r), n_embd, w->ws->x + t * n_embd, w->row[t].logits + r);
}

static void screened_head(const worker *w) {
    if (!w->n_screened)
        return;
    note(w, w->ws->screen->copy->op, 0);
    note(w, BNC_OP_head, w->c->head_dtype);
    bnc_screen_find(w->ws->screen, w->ws->threads, w->ws->screening, w->n_screened, w->ith, w->nth);
}

/* ---- all of it ---- */

static void forward(void *arg, int ith, int nth) {
    worker w = *(const worker *)arg;
    w.ith = ith;
    w.nth = nth;
    w.lane = &w.ws->lane[ith];
    embed(&w);
    barrier(&w);
    for (int64_t il = 0; il < w.c->n_layer; il++)
        layer(&w, il);
    final_norm(&w);
    head(&w);
    screened_head(&w);
}

/* What this pass read: every matrix once, an embedding row a token, the head or the screen once however many tokens. */
static void count_reads(bnc_workspace *ws, int64_t n_rows) {
    const bnc_model_config *c = &ws->model->config;
    const uint64_t head_row = (uint64_t)ws->model->head_row_bytes;
    const uint64_t embd_row = (uint64_t)ws->model->embd_row_bytes;
    const uint64_t head = head_row * (uint64_t)c->n_vocab;
    int64_t exact_rows = count_logits(ws->row, n_rows) ? c->n_vocab : 0;
    uint64_t screened = 0;
    for (int64_t t = 0; t < n_rows; t++) {
        const bnc_row *row = &ws->row[t];
        ws->reads.kv_bytes += (uint64_t)(row->pos + 1) * (row->session->kv_bytes / (uint64_t)row->session->n_ctx);
        if (!row->screened)
            continue;
        screened = bnc_screen_read_bytes(ws->screen);
        for (int i = 0; i < bnc_threads_count(ws->threads); i++)
            exact_rows += ws->screening[row->seat].found[i].n + ws->screening[row->seat].n_scored[i];
    }
    ws->reads.weight_bytes += ws->model->bytes_per_token - head + (uint64_t)(n_rows - 1) * embd_row + screened +
                              (uint64_t)exact_rows * head_row;
    ws->reads.exact_rows += exact_rows;
}

/* Give each row that is to be screened a seat; how many there are. */
static int64_t enter_screening(bnc_workspace *ws, int64_t n_rows) {
    int64_t n = 0;
    for (int64_t t = 0; t < n_rows; t++) {
        bnc_row *row = &ws->row[t];
        if (!row->screened)
            continue;
        bnc_screen_memory *memory = &ws->screening[n];
        memory->activation = ws->x + t * ws->model->config.n_embd;
        memory->sampler = row->sampler;
        memory->top = bnc_sampler_top(row->sampler);
        row->seat = n++;
    }
    return n;
}

void bnc_forward(bnc_workspace *workspace, int64_t n_rows) {
    worker w = {.ws = workspace,
                .m = workspace->model,
                .c = &workspace->model->config,
                .row = workspace->row,
                .n_tokens = n_rows,
                .n_screened = enter_screening(workspace, n_rows)};
    bnc_threads_run(workspace->threads, forward, &w);
    count_reads(workspace, n_rows);
}
