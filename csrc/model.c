#include "model.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    MAX_LAYERS = 512,
    MAX_DIM = 1 << 20, /* of any one vector; real models stay below 2^15 */
    MAX_CTX = 1 << 24,
};

static const struct {
    const char *name;
    int activation;
} archs[] = {
#define ARCH(name, activation) {name, BNC_OP_##activation},
#include "arch.def"
#undef ARCH
};

/* ---- metadata ---- */

/* What binding needs at every step. bound[i]: tensor i of the file is used. */
typedef struct {
    const bnc_gguf *gguf;
    bnc_model *model;
    bool *bound;
    bnc_error *err;
} binder;

static const bnc_gguf_kv *find_kv(const bnc_gguf *gguf, const char *key) {
    const int64_t i = bnc_gguf_kv_find(gguf, key, strlen(key));
    return i < 0 ? NULL : bnc_gguf_kv_at(gguf, i);
}

/* The value of an integer key of any width that is not negative; false for other types. */
static bool kv_integer(const bnc_gguf_kv *kv, uint64_t *value) {
    static const uint8_t width[] = {1, 1, 2, 2, 4, 4, 0, 0, 0, 0, 8, 8};
    static const uint8_t is_signed[] = {0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 1};
    if (kv->type >= sizeof width || width[kv->type] == 0)
        return false;
    *value = 0;
    memcpy(value, kv->data, width[kv->type]);
    return !(is_signed[kv->type] && (kv->data[width[kv->type] - 1] & 0x80));
}

/* A hyper-parameter "{arch}.{name}"; required unless fallback >= 0. */
static bnc_status hparam(const binder *b, const char *name, int64_t min, int64_t max, int64_t fallback, int64_t *out) {
    char key[160];
    snprintf(key, sizeof key, "%s.%s", b->model->config.arch, name);
    const bnc_gguf_kv *kv = find_kv(b->gguf, key);
    uint64_t value = 0;
    if (!kv && fallback >= 0) {
        *out = fallback;
        return BNC_OK;
    }
    if (!kv)
        return bnc_error_set(b->err, BNC_ERR_UNSUPPORTED, "metadata key %s is missing", key);
    if (!kv_integer(kv, &value) || value < (uint64_t)min || value > (uint64_t)max)
        return bnc_error_set(b->err, BNC_ERR_UNSUPPORTED, "metadata key %s must be an integer from %lld to %lld", key,
                             (long long)min, (long long)max);
    *out = (int64_t)value;
    return BNC_OK;
}

static bnc_status hparam_f32(const binder *b, const char *name, float fallback, float *out) {
    char key[160];
    snprintf(key, sizeof key, "%s.%s", b->model->config.arch, name);
    const bnc_gguf_kv *kv = find_kv(b->gguf, key);
    if (!kv && fallback > 0) {
        *out = fallback;
        return BNC_OK;
    }
    if (!kv)
        return bnc_error_set(b->err, BNC_ERR_UNSUPPORTED, "metadata key %s is missing", key);
    if (kv->type != BNC_GGUF_F32 || !(bnc_load_f32(kv->data) > 0) || !isfinite(bnc_load_f32(kv->data)))
        return bnc_error_set(b->err, BNC_ERR_UNSUPPORTED, "metadata key %s must be a finite positive float32", key);
    *out = bnc_load_f32(kv->data);
    return BNC_OK;
}

static bnc_status read_arch(binder *b) {
    const bnc_gguf_kv *kv = find_kv(b->gguf, "general.architecture");
    if (!kv || kv->type != BNC_GGUF_STRING)
        return bnc_error_set(b->err, BNC_ERR_UNSUPPORTED, "metadata key general.architecture is missing or no string");
    const char *text = (const char *)kv->data + 8;
    const uint64_t len = kv->nbytes - 8;
    for (size_t i = 0; i < BNC_COUNTOF(archs); i++)
        if (strlen(archs[i].name) == len && memcmp(archs[i].name, text, len) == 0) {
            b->model->config.arch = archs[i].name;
            b->model->activation = archs[i].activation;
            return BNC_OK;
        }
    char known[128] = "";
    for (size_t i = 0; i < BNC_COUNTOF(archs); i++)
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "", archs[i].name);
    return bnc_error_set(b->err, BNC_ERR_UNSUPPORTED, "architecture '%s' is not supported; supported: %s",
                         bnc_gguf_quote(text, len).text, known);
}

static bnc_status read_config(binder *b) {
    bnc_model_config *c = &b->model->config;
    BNC_TRY(hparam(b, "block_count", 1, MAX_LAYERS, -1, &c->n_layer));
    BNC_TRY(hparam(b, "embedding_length", 1, MAX_DIM, -1, &c->n_embd));
    BNC_TRY(hparam(b, "feed_forward_length", 1, MAX_DIM, -1, &c->n_ff));
    BNC_TRY(hparam(b, "context_length", 1, MAX_CTX, -1, &c->n_ctx));
    BNC_TRY(hparam(b, "attention.head_count", 1, MAX_DIM, -1, &c->n_head));
    BNC_TRY(hparam(b, "attention.head_count_kv", 1, c->n_head, c->n_head, &c->n_head_kv));
    if (c->n_head % c->n_head_kv)
        return bnc_error_set(b->err, BNC_ERR_UNSUPPORTED, "%lld heads are not a multiple of %lld key-value heads",
                             (long long)c->n_head, (long long)c->n_head_kv);
    BNC_TRY(hparam(b, "attention.key_length", 2, MAX_DIM, c->n_embd / c->n_head, &c->n_embd_head));
    int64_t value_length = 0;
    BNC_TRY(hparam(b, "attention.value_length", 2, MAX_DIM, c->n_embd_head, &value_length));
    if (value_length != c->n_embd_head || c->n_embd_head % 2 || c->n_head * c->n_embd_head > MAX_DIM)
        return bnc_error_set(b->err, BNC_ERR_UNSUPPORTED, "a head of %lld keys and %lld values is not supported",
                             (long long)c->n_embd_head, (long long)value_length);
    BNC_TRY(hparam(b, "rope.dimension_count", 2, c->n_embd_head, c->n_embd_head, &c->n_rot));
    if (c->n_rot % 2)
        return bnc_error_set(b->err, BNC_ERR_UNSUPPORTED, "rope.dimension_count %lld is odd", (long long)c->n_rot);
    BNC_TRY(hparam_f32(b, "attention.layer_norm_rms_epsilon", 0, &c->rms_eps));
    BNC_TRY(hparam_f32(b, "rope.freq_base", 10000.0f, &c->rope_freq_base));

    char key[160];
    snprintf(key, sizeof key, "%s.rope.scaling.type", c->arch);
    const bnc_gguf_kv *scaling = find_kv(b->gguf, key);
    if (scaling && !(scaling->nbytes == 12 && memcmp(scaling->data + 8, "none", 4) == 0))
        return bnc_error_set(b->err, BNC_ERR_UNSUPPORTED, "%s: scaled rotary positions are not supported", key);
    return BNC_OK;
}

/* A key that holds a token id, -1 where it is absent. */
static bnc_status token_id(const binder *b, const char *key, int32_t *out) {
    const bnc_gguf_kv *kv = find_kv(b->gguf, key);
    uint64_t id = 0;
    *out = -1;
    if (!kv)
        return BNC_OK;
    if (!kv_integer(kv, &id) || id >= (uint64_t)b->model->config.n_vocab)
        return bnc_error_set(b->err, BNC_ERR_UNSUPPORTED, "metadata key %s is not a token id below %lld", key,
                             (long long)b->model->config.n_vocab);
    *out = (int32_t)id;
    return BNC_OK;
}

/* The id of a token by its text: the published file does not declare its end-of-turn token. -1 where there is none. */
static int32_t find_token(const binder *b, const char *text) {
    const bnc_gguf_kv *kv = find_kv(b->gguf, "tokenizer.ggml.tokens");
    const uint8_t *p = kv ? kv->data : NULL;
    for (uint64_t i = 0; kv && i < kv->count; i++) {
        const uint64_t len = bnc_load_u64(p);
        if (len == strlen(text) && memcmp(p + 8, text, len) == 0)
            return (int32_t)i;
        p += 8 + len;
    }
    return -1;
}

/* Arrays that other code will index by token id: element types and lengths are settled here. */
static bnc_status check_tokenizer(const binder *b) {
    static const struct {
        const char *key;
        uint32_t elem_type;
        const char *type_name;
    } arrays[] = {
        {"tokenizer.ggml.tokens", BNC_GGUF_STRING, "strings"},
        {"tokenizer.ggml.scores", BNC_GGUF_F32, "float32"},
        {"tokenizer.ggml.token_type", BNC_GGUF_I32, "int32"},
    };
    const int64_t n_vocab = b->model->config.n_vocab;
    uint64_t n_tokens = 0;
    for (size_t i = 0; i < BNC_COUNTOF(arrays); i++) {
        const bnc_gguf_kv *kv = find_kv(b->gguf, arrays[i].key);
        if (!kv)
            continue;
        if (kv->type != BNC_GGUF_ARRAY || kv->elem_type != arrays[i].elem_type)
            return bnc_error_set(b->err, BNC_ERR_UNSUPPORTED, "metadata key %s must be an array of %s", arrays[i].key,
                                 arrays[i].type_name);
        if (i == 0)
            n_tokens = kv->count;
        if (kv->count > (uint64_t)n_vocab || (n_tokens && kv->count != n_tokens))
            return bnc_error_set(b->err, BNC_ERR_UNSUPPORTED,
                                 "metadata key %s has %llu elements; the vocabulary has %lld", arrays[i].key,
                                 (unsigned long long)kv->count, (long long)(n_tokens ? (int64_t)n_tokens : n_vocab));
    }
    int32_t bos = -1;
    bnc_model_config *c = &b->model->config;
    BNC_TRY(token_id(b, "tokenizer.ggml.bos_token_id", &bos));
    BNC_TRY(token_id(b, "tokenizer.ggml.eos_token_id", &c->eos_token));
    BNC_TRY(token_id(b, "tokenizer.ggml.eot_token_id", &c->eot_token));
    if (c->eot_token < 0)
        c->eot_token = find_token(b, "<|eot_id|>");
    return BNC_OK;
}

/* ---- tensors ---- */

/* The tensor whose name the format gives, marked as bound; NULL when there is none. name receives the name. */
BNC_PRINTF(3, 4)
static const bnc_gguf_tensor *find_tensor(const binder *b, char name[64], const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(name, 64, format, args);
    va_end(args);
    const int64_t i = bnc_gguf_tensor_find(b->gguf, name, strlen(name));
    if (i < 0)
        return NULL;
    b->bound[i] = true;
    return bnc_gguf_tensor_at(b->gguf, i);
}

/* The one shape a tensor may have: n_rows 0 stands for a vector. */
static bnc_status check_shape(const binder *b, const bnc_gguf_tensor *t, const char *name, int64_t ne0,
                              int64_t n_rows) {
    if (!t)
        return bnc_error_set(b->err, BNC_ERR_UNSUPPORTED, "tensor %s is missing", name);
    const int64_t rows = n_rows ? n_rows : 1;
    if (t->ne[0] != ne0 || t->ne[1] != rows || t->ne[2] != 1 || t->ne[3] != 1)
        return bnc_error_at(b->err, BNC_ERR_UNSUPPORTED, t->offset,
                            "tensor %s has shape {%lld, %lld, %lld, %lld}; the hyper-parameters imply {%lld, %lld}",
                            name, (long long)t->ne[0], (long long)t->ne[1], (long long)t->ne[2], (long long)t->ne[3],
                            (long long)ne0, (long long)rows);
    return BNC_OK;
}

static const char *dtype_name(const bnc_gguf_tensor *t) {
    return t->dtype < 0 ? "an unknown type" : bnc_dtype_at(t->dtype)->name;
}

static bnc_status bind_norm(const binder *b, int64_t il, const char *role, int64_t n, const float **out) {
    char name[64];
    const bnc_gguf_tensor *t = il < 0 ? find_tensor(b, name, "%s.weight", role)
                                      : find_tensor(b, name, "blk.%lld.%s.weight", (long long)il, role);
    BNC_TRY(check_shape(b, t, name, n, 0));
    if (t->dtype != BNC_DTYPE_f32)
        return bnc_error_at(b->err, BNC_ERR_UNSUPPORTED, t->offset, "tensor %s is %s; norms are f32", name,
                            dtype_name(t));
    if ((uintptr_t)t->data % sizeof(float))
        return bnc_error_at(b->err, BNC_ERR_UNSUPPORTED, t->offset, "tensor %s does not lie on a multiple of 4 bytes",
                            name);
    *out = (const float *)(const void *)t->data;
    for (int64_t i = 0; i < n; i++)
        if (!isfinite((*out)[i]))
            return bnc_error_at(b->err, BNC_ERR_UNSUPPORTED, t->offset + 4 * (uint64_t)i,
                                "tensor %s: element %lld is not finite", name, (long long)i);
    b->model->bytes_per_token += t->nbytes;
    return BNC_OK;
}

/* The scale at the end of an i2_s tensor, times an optional companion tensor "{role}.scale" of one f32. */
static bnc_status bind_scale(const binder *b, int64_t il, const char *role, const bnc_gguf_tensor *t, float *out) {
    char name[64];
    const bnc_dtype *d = bnc_dtype_at(t->dtype);
    *out = d->tail_bytes ? bnc_load_f32(t->data + t->nbytes - (uint64_t)d->tail_bytes) : 1.0f;
    const bnc_gguf_tensor *companion = find_tensor(b, name, "blk.%lld.%s.scale", (long long)il, role);
    if (companion) {
        BNC_TRY(check_shape(b, companion, name, 1, 0));
        if (companion->dtype != BNC_DTYPE_f32)
            return bnc_error_at(b->err, BNC_ERR_UNSUPPORTED, companion->offset, "tensor %s is not f32", name);
        *out *= bnc_load_f32(companion->data);
    }
    if (!isfinite(*out))
        return bnc_error_at(b->err, BNC_ERR_UNSUPPORTED, t->offset + t->nbytes - (uint64_t)d->tail_bytes,
                            "tensor blk.%lld.%s.weight: its scale is not finite", (long long)il, role);
    return BNC_OK;
}

static bnc_status bind_matrix(const binder *b, int64_t il, const char *role, int64_t n_rows, int64_t ne0,
                              bnc_matrix *out) {
    char name[64];
    bnc_model_config *c = &b->model->config;
    const bnc_gguf_tensor *t = find_tensor(b, name, "blk.%lld.%s.weight", (long long)il, role);
    BNC_TRY(check_shape(b, t, name, ne0, n_rows));
    if (t->dtype < 0 || !BNC_FN(b->model->kernels, gemv, t->dtype))
        return bnc_error_at(b->err, BNC_ERR_UNSUPPORTED, t->offset, "tensor %s is %s; matrices are i2_s or qk256", name,
                            dtype_name(t));
    if (c->dtype >= 0 && c->dtype != t->dtype)
        return bnc_error_at(b->err, BNC_ERR_UNSUPPORTED, t->offset,
                            "tensor %s is %s, those before it are %s; one model holds one kind of matrix", name,
                            dtype_name(t), bnc_dtype_at(c->dtype)->name);
    c->dtype = b->model->dtype = t->dtype;
    *out = (bnc_matrix){t->data, n_rows, ne0, 0, 1.0f};
    bnc_error why;
    if (bnc_matmul_check(b->model->kernels, t->dtype, n_rows, ne0, &out->row_bytes, &why) != BNC_OK)
        return bnc_error_at(b->err, BNC_ERR_UNSUPPORTED, t->offset, "tensor %s: %.400s", name, why.message);
    b->model->bytes_per_token += (uint64_t)(n_rows * out->row_bytes);
    return bind_scale(b, il, role, t, &out->scale);
}

/* token_embd, and the head: output.weight, or token_embd itself when there is none. */
static bnc_status bind_vocabulary(const binder *b) {
    char name[64];
    bnc_model *m = b->model;
    bnc_model_config *c = &m->config;
    const bnc_gguf_tensor *embd = find_tensor(b, name, "token_embd.weight");
    if (!embd)
        return bnc_error_set(b->err, BNC_ERR_UNSUPPORTED, "tensor %s is missing", name);
    BNC_TRY(hparam(b, "vocab_size", 1, INT32_MAX, embd->ne[1], &c->n_vocab));
    BNC_TRY(check_shape(b, embd, name, c->n_embd, c->n_vocab));
    const bnc_gguf_tensor *head = find_tensor(b, name, "output.weight");
    c->tied_head = !head;
    if (head)
        BNC_TRY(check_shape(b, head, name, c->n_embd, c->n_vocab));
    else
        head = embd;
    const bnc_gguf_tensor *both[] = {embd, head};
    for (int i = 0; i < 2; i++)
        if (both[i]->dtype < 0 || !BNC_FN(m->kernels, head, both[i]->dtype))
            return bnc_error_at(b->err, BNC_ERR_UNSUPPORTED, both[i]->offset,
                                "tensor %s is %s; embeddings and heads are f32, f16, bf16, q8_0 or q6_k",
                                bnc_gguf_quote(both[i]->name, both[i]->name_len).text, dtype_name(both[i]));
    m->token_embd = embd->data;
    m->embd_dtype = embd->dtype;
    m->embd_row_bytes = (int64_t)embd->nbytes / c->n_vocab;
    m->head = head->data;
    c->head_dtype = head->dtype;
    m->head_row_bytes = (int64_t)head->nbytes / c->n_vocab;
    m->bytes_per_token += head->nbytes + (uint64_t)m->embd_row_bytes;
    return BNC_OK;
}

static bnc_status bind_layer(const binder *b, int64_t il) {
    const bnc_model_config *c = &b->model->config;
    bnc_layer *l = &b->model->layer[il];
    const int64_t n_attn = c->n_head * c->n_embd_head, n_kv = c->n_head_kv * c->n_embd_head;
    BNC_TRY(bind_norm(b, il, "attn_norm", c->n_embd, &l->attn_norm));
    BNC_TRY(bind_matrix(b, il, "attn_q", n_attn, c->n_embd, &l->attn_q));
    BNC_TRY(bind_matrix(b, il, "attn_k", n_kv, c->n_embd, &l->attn_k));
    BNC_TRY(bind_matrix(b, il, "attn_v", n_kv, c->n_embd, &l->attn_v));
    BNC_TRY(bind_norm(b, il, "attn_sub_norm", n_attn, &l->attn_sub_norm));
    BNC_TRY(bind_matrix(b, il, "attn_output", c->n_embd, n_attn, &l->attn_output));
    BNC_TRY(bind_norm(b, il, "ffn_norm", c->n_embd, &l->ffn_norm));
    BNC_TRY(bind_matrix(b, il, "ffn_gate", c->n_ff, c->n_embd, &l->ffn_gate));
    BNC_TRY(bind_matrix(b, il, "ffn_up", c->n_ff, c->n_embd, &l->ffn_up));
    BNC_TRY(bind_norm(b, il, "ffn_sub_norm", c->n_ff, &l->ffn_sub_norm));
    return bind_matrix(b, il, "ffn_down", c->n_embd, c->n_ff, &l->ffn_down);
}

/* A tensor that no role binds would be left out of the computation: that model is not the one in the file. */
static bnc_status check_all_bound(const binder *b) {
    for (int64_t i = 0; i < bnc_gguf_tensor_count(b->gguf); i++) {
        const bnc_gguf_tensor *t = bnc_gguf_tensor_at(b->gguf, i);
        if (!b->bound[i])
            return bnc_error_at(
                b->err, BNC_ERR_UNSUPPORTED, t->offset, "tensor %s has no place in architecture %s with %lld layers",
                bnc_gguf_quote(t->name, t->name_len).text, b->model->config.arch, (long long)b->model->config.n_layer);
    }
    return BNC_OK;
}

static bnc_status scan_codes(const binder *b) {
    const bnc_scan_fn scan = BNC_FN(b->model->kernels, scan, b->model->config.dtype);
    for (int64_t i = 0; scan && i < bnc_gguf_tensor_count(b->gguf); i++) {
        const bnc_gguf_tensor *t = bnc_gguf_tensor_at(b->gguf, i);
        if (t->dtype != b->model->config.dtype)
            continue;
        const int64_t bad = scan(t->data, (int64_t)t->nbytes - bnc_dtype_at(t->dtype)->tail_bytes);
        if (bad >= 0)
            return bnc_error_at(b->err, BNC_ERR_GGUF, t->offset + (uint64_t)bad,
                                "tensor %s holds code 3, which stands for no ternary value",
                                bnc_gguf_quote(t->name, t->name_len).text);
    }
    return BNC_OK;
}

static bnc_status bind(binder *b, bool validate) {
    BNC_TRY(bind_vocabulary(b));
    BNC_TRY(check_tokenizer(b));
    BNC_TRY(bind_norm(b, -1, "output_norm", b->model->config.n_embd, &b->model->output_norm));
    for (int64_t il = 0; il < b->model->config.n_layer; il++)
        BNC_TRY(bind_layer(b, il));
    BNC_TRY(check_all_bound(b));
    return validate ? scan_codes(b) : BNC_OK;
}

bnc_status bnc_model_new(const bnc_gguf *gguf, const bnc_model_options *options, bnc_model **out, bnc_error *err) {
    bnc_model head = {.gguf = gguf, .kernels = options->kernels};
    head.config.dtype = -1;
    binder b = {gguf, &head, NULL, err};
    BNC_TRY(read_arch(&b));
    BNC_TRY(read_config(&b));

    const size_t bytes = sizeof(bnc_model) + (size_t)head.config.n_layer * sizeof(bnc_layer);
    b.model = calloc(1, bytes);
    b.bound = calloc((size_t)bnc_gguf_tensor_count(gguf) + 1, sizeof(bool));
    bnc_status status = BNC_OK;
    if (!b.model || !b.bound) {
        status = bnc_error_nomem(err, bytes);
    } else {
        memcpy(b.model, &head, sizeof head);
        status = bind(&b, options->validate != 0);
    }
    free(b.bound);
    if (status != BNC_OK) {
        free(b.model);
        return status;
    }
    *out = b.model;
    return BNC_OK;
}

void bnc_model_free(bnc_model *model) {
    if (model)
        free(model->packed);
    free(model);
}

const bnc_model_config *bnc_model_get_config(const bnc_model *model) { return &model->config; }

const bnc_kernels *bnc_model_get_kernels(const bnc_model *model) { return model->kernels; }

uint64_t bnc_model_bytes_per_token(const bnc_model *model) { return model->bytes_per_token; }
