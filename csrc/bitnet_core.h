/*
 * bitnet_core.h - the one public header of the library.
 *
 * Everything between the two cdef markers is also the text that cffi reads, so the C interface is stated once.
 *
 * Objects and threads
 *   bnc_gguf     an opened file: validated once, then read only; may be read by any number of threads.
 *   bnc_model    weights bound by name to views of a bnc_gguf, which must outlive it; read only, shareable.
 *   bnc_workspace  activations and threads. One caller at a time: a call that arrives while another one runs returns
 *                BNC_ERR_BUSY and changes nothing.
 *   bnc_session  one sequence: KV cache and position; evaluated in its workspace, alone or with others.
 *   bnc_sampler  one random stream; belongs to one caller.
 *
 * Errors
 *   A function that can fail returns a bnc_status and fills the caller's bnc_error; out-parameters are written only
 *   on success. The library never prints, exits, aborts, reads the environment, or allocates inside an evaluation.
 */
#ifndef BITNET_CORE_H
#define BITNET_CORE_H

#include <stddef.h>
#include <stdint.h>

/* cdef begin */

typedef enum {
    BNC_OK = 0,
    BNC_ERR_IO,          /* the operating system said no; os_error holds its errno */
    BNC_ERR_NOMEM,       /* an allocation failed */
    BNC_ERR_GGUF,        /* malformed file; offset holds the byte position */
    BNC_ERR_UNSUPPORTED, /* well-formed, but not something this library runs */
    BNC_ERR_ARGUMENT,    /* a value passed by the caller is out of range */
    BNC_ERR_CONTEXT,     /* more tokens than the session's context holds */
    BNC_ERR_BUSY,        /* the workspace is already in use by another thread */
    BNC_ERR_FORKED       /* the workspace was made before a fork(); its threads stayed in the parent */
} bnc_status;

/* Filled by the first failure. offset is UINT64_MAX where no byte position applies. */
typedef struct {
    int32_t status;
    int32_t os_error;
    uint64_t offset;
    char message[496];
} bnc_error;

/* ---- cpu ---- */

/* Space-separated names of the instruction sets this processor and operating system offer. */
const char *bnc_cpu_features(void);
/* Named levels, slow to fast; a level is supported when the machine has all of its instruction sets. */
int32_t bnc_isa_count(void);
const char *bnc_isa_name(int32_t isa);
const char *bnc_isa_needs(int32_t isa);
int32_t bnc_isa_supported(int32_t isa);

/* ---- dtypes ---- */

/* How the blocks of a tensor lie. */
typedef enum {
    BNC_PACK_FLAT = 0, /* over all elements, rows do not matter */
    BNC_PACK_ROW,      /* row by row; a row is a whole number of blocks */
    BNC_PACK_PADDED,   /* row by row; the last block of a row is padded */
    BNC_PACK_ROW4      /* four rows together, a block is one column of them */
} bnc_packing;

typedef struct {
    const char *name;
    int32_t gguf_type;   /* the id in a GGUF file; several dtypes may share one */
    int32_t packing;     /* a bnc_packing */
    int64_t block;       /* elements in a block */
    int64_t block_bytes; /* bytes of a block */
    int64_t row_bytes;   /* further bytes at each row */
    int64_t tail_bytes;  /* further bytes after the whole tensor */
    int32_t convertible; /* quantize and dequantize exist */
} bnc_dtype;

int32_t bnc_dtype_count(void);
const bnc_dtype *bnc_dtype_at(int32_t dtype);
/* Bytes of n_rows rows of ne0 elements, or -1 with the reason in err. */
int64_t bnc_dtype_nbytes(int32_t dtype, int64_t n_rows, int64_t ne0, bnc_error *err);

/* ---- kernels ---- */

/* One implementation of one operation. dtype is -1 for an operation that has none. */
typedef struct {
    const char *name; /* for example "gemv_i2_s_avx2" */
    const char *op;
    int32_t dtype;
    int32_t isa;
} bnc_kernel_info;

typedef struct bnc_kernels bnc_kernels;

int32_t bnc_kernel_count(void);
bnc_kernel_info bnc_kernel_at(int32_t i);
/* The set of the fastest kernels up to and including isa (-1: the best the machine has). Never freed: it is static.
 * NULL when isa is unknown or not supported here. */
const bnc_kernels *bnc_kernels_get(int32_t isa);
int32_t bnc_kernels_isa(const bnc_kernels *kernels);
/* The chosen kernel of op and dtype as an index for bnc_kernel_at, or -1. */
int32_t bnc_kernels_find(const bnc_kernels *kernels, const char *op, int32_t dtype);

/* How quantize picks the scale of a tensor: given, mean of the magnitudes, or the largest magnitude. */
typedef enum { BNC_SCALE_GIVEN = 0, BNC_SCALE_ABSMEAN, BNC_SCALE_ABSMAX } bnc_scale_rule;

/* x (n_rows, ne0) float32, all finite -> out, exactly bnc_dtype_nbytes() bytes. scale is used by BNC_SCALE_GIVEN alone;
 * the rule matters only to dtypes with one scale for the tensor. What out holds after a failure is unspecified. */
bnc_status bnc_quantize(const bnc_kernels *kernels, int32_t dtype, const float *x, int64_t n_rows, int64_t ne0,
                        int32_t scale_rule, float scale, uint8_t *out, int64_t out_bytes, int32_t n_threads,
                        bnc_error *err);
/* in, exactly bnc_dtype_nbytes() bytes -> x (n_rows, ne0) float32. Nothing is written on failure. */
bnc_status bnc_dequantize(const bnc_kernels *kernels, int32_t dtype, const uint8_t *in, int64_t in_bytes,
                          int64_t n_rows, int64_t ne0, float *x, int32_t n_threads, bnc_error *err);

/* y (n_tokens, n_rows) int32 = q (n_tokens, ne0) int8 times the ternary codes of w (n_rows, ne0): the exact integer
 * product before any scale. n_tokens == 1 takes the gemv kernel, more the gemm one. repeat runs it that many times,
 * for benchmarks that must not time the crossing from Python. */
bnc_status bnc_matmul_i32(const bnc_kernels *kernels, int32_t dtype, const uint8_t *w, int64_t w_bytes, int64_t n_rows,
                          int64_t ne0, const int8_t *q, int64_t n_tokens, int32_t *y, int32_t n_threads, int32_t repeat,
                          bnc_error *err);

/* Best plain read the machine gives: n_threads threads, eight streams each with prefetch, over bytes of data; the sum
 * of all 64-bit words goes to *sum. */
bnc_status bnc_read_sum(const uint8_t *data, int64_t bytes, int32_t n_threads, int32_t repeat, uint64_t *sum,
                        bnc_error *err);
/* Best plain write: every byte of data becomes value. streamed: past the caches, where the machine can, data being aligned to 16
 * bytes; a plain store reads its line first. */
bnc_status bnc_fill(uint8_t *data, int64_t bytes, int32_t value, int32_t streamed, int32_t n_threads, int32_t repeat,
                    bnc_error *err);
/* Peak of int8 multiply-accumulate: n_macs (a multiple of 4096) of them from registers on each thread, of amx from the
 * first-level cache; *checksum depends on them all. */
bnc_status bnc_int8_peak(const bnc_kernels *kernels, int64_t n_macs, int32_t n_threads, int64_t *checksum,
                         bnc_error *err);

/* ---- gguf ---- */

typedef struct bnc_gguf bnc_gguf;

typedef struct {
    const char *key; /* key_len bytes, not terminated */
    uint64_t key_len;
    uint32_t type;       /* GGUF value type id */
    uint32_t elem_type;  /* of an array; else equal to type */
    uint64_t count;      /* elements; 1 for a scalar */
    const uint8_t *data; /* the elements; a string is its u64 length and then its bytes, in an array and alone */
    uint64_t nbytes;     /* encoded bytes at data */
} bnc_gguf_kv;

typedef struct {
    const char *name; /* name_len bytes, not terminated */
    uint64_t name_len;
    uint32_t gguf_type;
    int32_t dtype; /* -1: an id this library does not know */
    uint32_t n_dims;
    int64_t ne[4];       /* ne[0] is the row length */
    uint64_t offset;     /* byte position in the file */
    uint64_t nbytes;     /* 0 when dtype is -1 */
    const uint8_t *data; /* NULL when dtype is -1 */
} bnc_gguf_tensor;

typedef struct {
    int32_t use_mmap;    /* 0: read the file into memory */
    int32_t dtype_of_36; /* what type id 36 means: a dtype, or -1 to find out from the exact size */
    int32_t strict;      /* also demand sequential offsets and boolean values of 0 or 1, as other engines do */
} bnc_gguf_options;

bnc_status bnc_gguf_open(const char *path, const bnc_gguf_options *options, bnc_gguf **out, bnc_error *err);
void bnc_gguf_close(bnc_gguf *gguf);
uint32_t bnc_gguf_version(const bnc_gguf *gguf);
uint64_t bnc_gguf_alignment(const bnc_gguf *gguf);
uint64_t bnc_gguf_file_size(const bnc_gguf *gguf);
uint64_t bnc_gguf_data_offset(const bnc_gguf *gguf);
int64_t bnc_gguf_kv_count(const bnc_gguf *gguf);
const bnc_gguf_kv *bnc_gguf_kv_at(const bnc_gguf *gguf, int64_t i);
/* -1 when there is no such key. */
int64_t bnc_gguf_kv_find(const bnc_gguf *gguf, const char *key, uint64_t key_len);
/* Byte position and length of every string of an array of strings, or of one string: kv->count of each. Positions are
 * relative to kv->data. */
void bnc_gguf_kv_strings(const bnc_gguf_kv *kv, uint64_t *offsets, uint64_t *lengths);
int64_t bnc_gguf_tensor_count(const bnc_gguf *gguf);
const bnc_gguf_tensor *bnc_gguf_tensor_at(const bnc_gguf *gguf, int64_t i);
int64_t bnc_gguf_tensor_find(const bnc_gguf *gguf, const char *name, uint64_t name_len);

/* ---- model ---- */

typedef struct bnc_model bnc_model;

/* Hyper-parameters under GGUF's names. */
typedef struct {
    const char *arch;
    int64_t n_vocab, n_ctx, n_embd, n_layer, n_head, n_head_kv, n_embd_head, n_rot, n_ff;
    float rms_eps, rope_freq_base;
    int32_t dtype;                /* of the ternary matrices in the file */
    int32_t head_dtype;           /* of the matrix that makes logits */
    int32_t tied_head;            /* the head is token_embd.weight */
    int32_t eos_token, eot_token; /* end of sequence, end of turn; -1: none known */
} bnc_model_config;

typedef struct {
    const bnc_kernels *kernels;
    int32_t validate; /* read every weight once and reject the code that stands for nothing */
} bnc_model_options;

bnc_status bnc_model_new(const bnc_gguf *gguf, const bnc_model_options *options, bnc_model **out, bnc_error *err);
void bnc_model_free(bnc_model *model);
const bnc_model_config *bnc_model_get_config(const bnc_model *model);
const bnc_kernels *bnc_model_get_kernels(const bnc_model *model);
/* Bytes that evaluating one token with all logits must read: weights once each, one embedding row, no KV cache. */
uint64_t bnc_model_bytes_per_token(const bnc_model *model);

/* ---- pack ---- */

/* Packing copies ternary matrices into memory at 1.6 bits a weight, dtype "pack5", which no file holds (csrc/pack.c). */
typedef struct {
    uint64_t bytes; /* memory that the packed matrices take; 0: they were not packed */
    double seconds; /* to measure and to pack */
    double gain;    /* time of a pass over some of the matrices from the file, by that packed */
} bnc_pack_report;

/* Pack the matrices of a model that has no session yet, unless the measured gain is below min_gain. BNC_ERR_UNSUPPORTED: their
 * dtype cannot be packed, or this machine has only slower kernels for it; BNC_ERR_GGUF: a code means nothing. The model is
 * then as it was. */
bnc_status bnc_pack_model(bnc_model *model, int32_t n_threads, double min_gain, bnc_pack_report *out, bnc_error *err);
/* One matrix, for tests and benchmarks: w of dtype -> out, exactly the bytes that pack5 takes. */
bnc_status bnc_pack(const bnc_kernels *kernels, int32_t dtype, const uint8_t *w, int64_t w_bytes, int64_t n_rows,
                    int64_t ne0, uint8_t *out, int64_t out_bytes, bnc_error *err);

/* ---- screen ---- */

/* A copy of a model's head with which the best tokens are found at a fraction of its bytes; the tokens are those of the
 * exact head (csrc/screen.h). Immutable, shareable; the model must outlive it. */
typedef struct bnc_screen bnc_screen;

typedef enum {
    BNC_SCREEN_DITHERED = 0, /* 4 bits, 0.28 of an F16 head; with a failure probability of 1e-12 a token */
    BNC_SCREEN_PROVEN        /* 8 bits, 0.50 of an F16 head; without any */
} bnc_screen_kind;

/* seed: what the dither is drawn from, a secret; the proven kind has none. */
bnc_status bnc_screen_new(const bnc_model *model, bnc_screen_kind kind, int32_t n_threads, uint64_t seed,
                          bnc_screen **out, bnc_error *err);
void bnc_screen_free(bnc_screen *screen);
/* Bytes that a screen of a model takes, made or not. */
uint64_t bnc_screen_bytes(const bnc_model *model, bnc_screen_kind kind);

/* ---- workspace ---- */

/* Threads and activations: what evaluating tokens takes beside weights and caches. One caller at a time, over all of its
 * sessions. The model must outlive it. */
typedef struct bnc_workspace bnc_workspace;

typedef struct {
    int64_t n_ctx;     /* the most positions of a session; 0: the model's */
    int64_t n_batch;   /* tokens evaluated in one pass over the weights; 0: the default */
    int64_t n_seq;     /* sessions that one call may evaluate; 0: 1 */
    int32_t n_threads; /* >= 1 */
    int32_t pin;       /* bind each thread to one of the processors that the process may use, while it evaluates */
} bnc_workspace_options;

bnc_status bnc_workspace_new(const bnc_model *model, const bnc_workspace_options *options, bnc_workspace **out,
                             bnc_error *err);
void bnc_workspace_free(bnc_workspace *workspace);
int64_t bnc_workspace_n_batch(const bnc_workspace *workspace);
uint64_t bnc_workspace_bytes(const bnc_workspace *workspace);
/* From now on tokens are found with this screen of the model; NULL: with the whole head. */
bnc_status bnc_workspace_set_screen(bnc_workspace *workspace, const bnc_screen *screen, bnc_error *err);
/* What the last evaluation read; not to be asked for during one. */
typedef struct {
    uint64_t weight_bytes; /* matrices, norms, embedding rows, head or screen and exact rows */
    uint64_t kv_bytes;     /* keys and values, once for each token */
    int64_t exact_rows;    /* rows of the head scored exactly; n_vocab without a screen */
} bnc_reads;
bnc_reads bnc_workspace_reads(const bnc_workspace *workspace);
/* Indices (see bnc_kernel_at) of the kernels that have run in this workspace; returns how many, writes at most cap. */
int32_t bnc_workspace_kernels_used(const bnc_workspace *workspace, int32_t *out, int32_t cap);

/* ---- session ---- */

/* One sequence: KV cache and position. The workspace must outlive it. */
typedef struct bnc_session bnc_session;

typedef enum { BNC_KV_F16 = 0, BNC_KV_F32, BNC_KV_Q8_0 } bnc_kv_dtype;

typedef struct {
    int64_t n_ctx; /* positions the KV cache holds; 0: the workspace's */
    int32_t kv_dtype;
} bnc_session_options;

bnc_status bnc_session_new(bnc_workspace *workspace, const bnc_session_options *options, bnc_session **out,
                           bnc_error *err);
void bnc_session_free(bnc_session *session);
int64_t bnc_session_n_ctx(const bnc_session *session);
int64_t bnc_session_n_past(const bnc_session *session);
uint64_t bnc_session_kv_bytes(const bnc_session *session);
/* Forget every position from n_past on. */
bnc_status bnc_session_rewind(bnc_session *session, int64_t n_past, bnc_error *err);
/* Set the position to n_past and fill the cache below it with seeded noise: the cost of a deep context without its
 * prefill. For benchmarks; the logits that follow mean nothing. */
bnc_status bnc_session_fill_kv(bnc_session *session, int64_t n_past, uint64_t seed, bnc_error *err);

/* ---- sampler ---- */

typedef struct bnc_sampler bnc_sampler;

typedef struct {
    float temperature;        /* 0: the most probable token */
    int32_t top_k;            /* 0: all */
    float top_p;              /* 1: all */
    float repetition_penalty; /* 1: none */
    uint64_t seed;
} bnc_sampling;

bnc_status bnc_sampler_new(int64_t n_vocab, const bnc_sampling *sampling, bnc_sampler **out, bnc_error *err);
void bnc_sampler_free(bnc_sampler *sampler);
/* Note a token as seen, for the repetition penalty. */
bnc_status bnc_sampler_accept(bnc_sampler *sampler, int32_t token, bnc_error *err);
/* Draw from logits (n_vocab,). The drawn token is not accepted by itself. */
int32_t bnc_sampler_sample(bnc_sampler *sampler, const float *logits);

/* ---- eval ---- */

/* What is asked of one session in an evaluation. */
typedef struct {
    bnc_session *session;
    const int32_t *tokens; /* appended to the sequence */
    int64_t n_tokens;      /* >= 1 */
    float *logits;         /* (n_tokens, n_vocab) when all_logits, else (n_vocab,) of the last token; or NULL */
    int32_t all_logits;
    bnc_sampler *sampler; /* draws the next token; or NULL */
    int32_t drawn;        /* that token; it is neither appended nor accepted by the sampler */
} bnc_request;

/* Evaluate 1 to n_seq requests of different sessions of the workspace together: their tokens share the passes over the
 * weights, n_batch a pass in the order given, and each has the bits it would have alone. On failure every session is
 * as it was before the call. */
bnc_status bnc_eval(bnc_workspace *workspace, bnc_request *requests, int64_t n_requests, bnc_error *err);

/* cdef end */

#endif
