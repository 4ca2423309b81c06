/*
 * model.h - hyper-parameters and weights, bound by name to views of the file and checked once. Read only after that.
 */
#ifndef BNC_MODEL_H
#define BNC_MODEL_H

#include "gguf.h"
#include "matmul.h"

typedef struct {
    const float *attn_norm;     /* (n_embd,) */
    const float *attn_sub_norm; /* (n_head * n_embd_head,) */
    const float *ffn_norm;      /* (n_embd,) */
    const float *ffn_sub_norm;  /* (n_ff,) */
    bnc_matrix attn_q;          /* (n_head * n_embd_head, n_embd) */
    bnc_matrix attn_k;          /* (n_head_kv * n_embd_head, n_embd) */
    bnc_matrix attn_v;          /* (n_head_kv * n_embd_head, n_embd) */
    bnc_matrix attn_output;     /* (n_embd, n_head * n_embd_head) */
    bnc_matrix ffn_gate;        /* (n_ff, n_embd) */
    bnc_matrix ffn_up;          /* (n_ff, n_embd) */
    bnc_matrix ffn_down;        /* (n_embd, n_ff) */
} bnc_layer;

struct bnc_model {
    bnc_model_config config;
    const bnc_gguf *gguf;
    const bnc_kernels *kernels;
    int activation;  /* BNC_OP_relu2 or BNC_OP_silu */
    int32_t dtype;   /* of the matrices: config.dtype, or pack5 */
    uint8_t *packed; /* where they lie if they are packed (pack.c), else NULL */
    int32_t embd_dtype;
    int64_t embd_row_bytes, head_row_bytes;
    const uint8_t *token_embd; /* (n_vocab, n_embd) of embd_dtype */
    const uint8_t *head;       /* (n_vocab, n_embd) of config.head_dtype */
    const float *output_norm;  /* (n_embd,) */
    uint64_t bytes_per_token;
    bnc_layer layer[]; /* n_layer */
};

#endif
