/*
 * session.h - one sequence on a model: its KV cache and position. It is evaluated in a workspace, alone or together with
 * others.
 */
#ifndef BNC_SESSION_H
#define BNC_SESSION_H

#include "workspace.h"

struct bnc_session {
    bnc_workspace *workspace;
    int32_t kv_dtype;     /* of dtype.def: f16, f32 or q8_0 */
    int64_t kv_row_bytes; /* of one head's keys or values at one position */
    int64_t n_ctx, n_past;
    uint64_t kv_bytes;
    uint8_t *kv; /* (n_layer, 2, n_head_kv, n_ctx, n_embd_head) of kv_dtype: keys, then values */
};

/* The cache row of head h at position pos; part 0: keys, 1: values. Rows of one head are adjacent. */
BNC_INLINE uint8_t *bnc_session_kv(const bnc_session *s, int64_t il, int part, int64_t h, int64_t pos) {
    const bnc_model_config *c = &s->workspace->model->config;
    return s->kv + (((il * 2 + part) * c->n_head_kv + h) * s->n_ctx + pos) * s->kv_row_bytes;
}

#endif
