/*
 * workspace.h - what evaluating tokens of a model takes beside its weights: threads and activations. All memory is
 * allocated at creation. Sessions that decode together share one.
 */
#ifndef BNC_WORKSPACE_H
#define BNC_WORKSPACE_H

#include "model.h"
#include "screen.h"
#include "threads.h"

#include <stdatomic.h>

/* One token of a pass over the weights: where it stands, and what is wanted after it, if anything. */
typedef struct {
    bnc_session *session;
    int64_t pos;
    int32_t token;
    float *logits;        /* (n_vocab,) or NULL */
    bnc_sampler *sampler; /* NULL, or draws the next token: */
    int32_t *drawn;
    bool screened; /* drawn from candidates instead of logits, */
    int64_t seat;  /* which are then in screening[seat] */
} bnc_row;

/* What each thread needs for itself. */
typedef struct {
    float *row;       /* (the longest of n_embd, attention width, n_ff): a normed row before it is quantized */
    int8_t *q;        /* (the same, padded): a quantized row before it is arranged */
    float *scores;    /* (n_head / n_head_kv, BNC_ATTN_CHUNK) */
    int32_t *scratch; /* (n_batch, BNC_MATMUL_ROWS) */
} bnc_lane_memory;

/* Attention is cut into chunks of positions, so that few heads still share the work and a chunk of keys or values stays in
 * the second-level cache (64 KiB of float16 for heads of 128); and is done for some tokens at a time, which bounds the
 * memory that the chunks' results take. */
enum { BNC_ATTN_CHUNK = BNC_MIX_ROWS, BNC_ATTN_TOKENS = 16 };

/* The results of the chunks for one token and head. */
typedef struct {
    float *y;         /* (chunks of n_ctx, n_embd_head) */
    float *max, *sum; /* (chunks of n_ctx,) */
} bnc_attn_parts;

struct bnc_workspace {
    const bnc_model *model;
    bnc_threads *threads;
    atomic_flag busy;
    int64_t n_ctx, n_batch, n_seq; /* the most that a session holds, that a pass takes, that draw in one call */
    const bnc_screen *screen;      /* or NULL */
    bnc_reads reads;
    atomic_uchar used[BNC_OP_COUNT][BNC_DTYPE_COUNT]; /* kernels that have run */

    void *memory; /* the one allocation that everything below points into */
    size_t memory_bytes;
    bnc_row *row;                 /* (n_batch,) */
    float *freqs;                 /* (n_rot / 2,) rotation per position */
    float *rope;                  /* (n_batch, 2, n_rot / 2) cosines and sines */
    float *x;                     /* (n_batch, n_embd) the residual stream */
    float *q, *k, *v;             /* (n_batch, n_head * n_embd_head), (n_batch, n_head_kv * n_embd_head) twice */
    float *attn;                  /* (n_batch, n_head * n_embd_head) */
    float *attn_parts;            /* (tokens at a time, n_head, chunks of n_ctx, n_embd_head + 2) */
    float *gate, *up;             /* (n_batch, n_ff) */
    float *logits;                /* (n_seq, n_vocab) for sampling */
    bnc_activations act;          /* (n_batch, the longest row padded) */
    bnc_screen_memory *screening; /* (n_seq,) */
    bnc_lane_memory *lane;        /* (n_threads,) */
};

/* One caller at a time: BNC_ERR_BUSY for a second one, BNC_ERR_FORKED in a child. Every entry is left again. */
bnc_status bnc_workspace_enter(bnc_workspace *workspace, bnc_error *err);
void bnc_workspace_leave(bnc_workspace *workspace);

/* The results of a head of token t lie together, the next head's bnc_workspace_attn_stride floats on. */
BNC_INLINE int64_t bnc_workspace_attn_stride(const bnc_workspace *ws) {
    return bnc_ceil_div(ws->n_ctx, BNC_ATTN_CHUNK) * (ws->model->config.n_embd_head + 2);
}

/* Of token t of those that are done at a time. */
BNC_INLINE bnc_attn_parts bnc_workspace_attn_parts(const bnc_workspace *ws, int64_t t, int64_t head) {
    const int64_t n_chunks = bnc_ceil_div(ws->n_ctx, BNC_ATTN_CHUNK);
    float *y = ws->attn_parts + (t * ws->model->config.n_head + head) * bnc_workspace_attn_stride(ws);
    float *max = y + n_chunks * ws->model->config.n_embd_head;
    return (bnc_attn_parts){y, max, max + n_chunks};
}

#endif
