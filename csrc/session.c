#include "session.h"

#include "pages.h"

#include <stdlib.h>

/* Heads of the cache lie n_ctx rows apart, so only small pages keep a short sequence in a large cache small. */
static bnc_status allocate(bnc_session *s, bnc_error *err) {
    const bnc_model_config *c = &s->workspace->model->config;
    if (!bnc_mul_u64((uint64_t)(c->n_layer * 2 * c->n_head_kv), (uint64_t)s->kv_row_bytes, &s->kv_bytes) ||
        !bnc_mul_u64(s->kv_bytes, (uint64_t)s->n_ctx, &s->kv_bytes))
        return bnc_error_set(err, BNC_ERR_NOMEM, "a session of %lld positions is larger than any memory",
                             (long long)s->n_ctx);
    void *kv;
    BNC_TRY(bnc_pages_new(s->kv_bytes, &kv, err));
    s->kv = kv;
    return BNC_OK;
}

static const int32_t kv_dtypes[] = {
    [BNC_KV_F16] = BNC_DTYPE_f16,
    [BNC_KV_F32] = BNC_DTYPE_f32,
    [BNC_KV_Q8_0] = BNC_DTYPE_q8_0,
};

static bnc_status check_kv_dtype(const bnc_model_config *c, int32_t kv_dtype, bnc_error *err) {
    if (kv_dtype < 0 || kv_dtype >= (int32_t)BNC_COUNTOF(kv_dtypes))
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "kv_dtype %d is none of bnc_kv_dtype", (int)kv_dtype);
    const int64_t block = bnc_dtype_at(BNC_DTYPE_q8_0)->block;
    if (kv_dtype == BNC_KV_Q8_0 && (c->n_embd_head % block || c->n_embd_head > BNC_Q8_0_HEAD_MAX))
        return bnc_error_set(
            err, BNC_ERR_UNSUPPORTED,
            "a q8_0 cache needs heads of whole blocks of %lld elements, up to %d; this model's have %lld",
            (long long)block, BNC_Q8_0_HEAD_MAX, (long long)c->n_embd_head);
    return BNC_OK;
}

bnc_status bnc_session_new(bnc_workspace *workspace, const bnc_session_options *options, bnc_session **out,
                           bnc_error *err) {
    const bnc_model_config *c = &workspace->model->config;
    const int64_t n_ctx = options->n_ctx ? options->n_ctx : workspace->n_ctx;
    if (n_ctx < 1 || n_ctx > workspace->n_ctx)
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "n_ctx must be 1 to %lld, not %lld", (long long)workspace->n_ctx,
                             (long long)n_ctx);
    BNC_TRY(check_kv_dtype(c, options->kv_dtype, err));
    bnc_session *s = calloc(1, sizeof *s);
    if (!s)
        return bnc_error_nomem(err, sizeof *s);
    s->workspace = workspace;
    s->n_ctx = n_ctx;
    s->kv_dtype = kv_dtypes[options->kv_dtype];
    s->kv_row_bytes = bnc_dtype_nbytes(s->kv_dtype, 1, c->n_embd_head, NULL);
    const bnc_status status = allocate(s, err);
    if (status != BNC_OK) {
        free(s);
        return status;
    }
    *out = s;
    return BNC_OK;
}

void bnc_session_free(bnc_session *session) {
    if (!session)
        return;
    free(session->kv);
    free(session);
}

int64_t bnc_session_n_ctx(const bnc_session *session) { return session->n_ctx; }
int64_t bnc_session_n_past(const bnc_session *session) { return session->n_past; }
uint64_t bnc_session_kv_bytes(const bnc_session *session) { return session->kv_bytes; }

bnc_status bnc_session_rewind(bnc_session *session, int64_t n_past, bnc_error *err) {
    BNC_TRY(bnc_workspace_enter(session->workspace, err));
    bnc_status status = BNC_OK;
    if (n_past < 0 || n_past > session->n_past)
        status = bnc_error_set(err, BNC_ERR_ARGUMENT, "can only rewind to 0 to %lld, not %lld",
                               (long long)session->n_past, (long long)n_past);
    else
        session->n_past = n_past;
    bnc_workspace_leave(session->workspace);
    return status;
}

/* One cache row of values in [-1, 1). */
static void noise_row(const bnc_session *s, uint64_t seed, int64_t index, uint8_t *out) {
    const int64_t n = s->workspace->model->config.n_embd_head;
    float *row = s->workspace->lane[0].row;
    for (int64_t i = 0; i < n; i++)
        row[i] = (float)(int32_t)(bnc_mix64(seed ^ (uint64_t)(index * n + i)) >> 32) * 0x1p-31f;
    BNC_FN(s->workspace->model->kernels, quantize, s->kv_dtype)(row, 1, n, 1.0f, out);
}

bnc_status bnc_session_fill_kv(bnc_session *session, int64_t n_past, uint64_t seed, bnc_error *err) {
    BNC_TRY(bnc_workspace_enter(session->workspace, err));
    const bnc_model_config *c = &session->workspace->model->config;
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
    bnc_workspace_leave(session->workspace);
    return status;
}
