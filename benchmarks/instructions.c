/*
 * instructions.c - one piece of work of the library, for valgrind to count the instructions of.
 * Usage: instructions WORK ISA MODEL
 * Everything before and after run() is set-up; callgrind is told to count inside run() alone. One thread, fixed seeds,
 * the public header alone: the same library gives the same count each time, on every machine of one architecture.
 */
#include "bitnet_core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_ROWS = 256, NE0 = 2560, N_TOKENS = 24, N_PROMPT = 64 };

typedef struct {
    const char *model;
    const bnc_kernels *kernels;
    int32_t dtype;
    int64_t n_bytes;
    uint8_t *packed; /* (N_ROWS, NE0) of dtype */
    float *floats;   /* (N_ROWS, NE0) */
    int8_t *q;       /* (N_TOKENS, NE0) */
    int32_t *y;      /* (N_TOKENS, N_ROWS) */
    bnc_workspace *workspace;
    bnc_request request;
    float *logits;
} work;

static bnc_error err;

static void check(bnc_status status) {
    if (status != BNC_OK) {
        fprintf(stderr, "%s\n", err.message);
        exit(1);
    }
}

static void *room(size_t n) {
    void *p = calloc(1, n);
    if (!p)
        exit(1);
    return p;
}

/* ---- what there is to count ---- */

static void multiply(work *w, int64_t n_tokens) {
    check(bnc_matmul_i32(w->kernels, w->dtype, w->packed, w->n_bytes, N_ROWS, NE0, w->q, n_tokens, w->y, 1, 1, &err));
}

static void gemv(work *w) { multiply(w, 1); }
static void gemm(work *w) { multiply(w, N_TOKENS); }

static void quantize(work *w) {
    check(bnc_quantize(w->kernels, w->dtype, w->floats, N_ROWS, NE0, BNC_SCALE_ABSMEAN, 1, w->packed, w->n_bytes, 1,
                       &err));
}

static void dequantize(work *w) {
    check(bnc_dequantize(w->kernels, w->dtype, w->packed, w->n_bytes, N_ROWS, NE0, w->floats, 1, &err));
}

static void evaluate(work *w) { check(bnc_eval(w->workspace, &w->request, 1, &err)); }

static void open_file(work *w) {
    bnc_gguf *gguf;
    bnc_model *model;
    check(bnc_gguf_open(w->model, &(bnc_gguf_options){.use_mmap = 1, .dtype_of_36 = -1}, &gguf, &err));
    check(bnc_model_new(gguf, &(bnc_model_options){.kernels = w->kernels}, &model, &err));
    bnc_model_free(model);
    bnc_gguf_close(gguf);
}

/* ---- set-up ---- */

static void no_setup(work *w, const char *argument) { (void)w, (void)argument; }

static void set_up_tensor(work *w, const char *argument) {
    for (w->dtype = 0; strcmp(bnc_dtype_at(w->dtype)->name, argument) != 0;)
        if (++w->dtype == bnc_dtype_count())
            exit(1);
    w->n_bytes = bnc_dtype_nbytes(w->dtype, N_ROWS, NE0, &err);
    w->packed = room((size_t)w->n_bytes);
    w->floats = room(sizeof(float) * N_ROWS * NE0);
    w->q = room(N_TOKENS * NE0);
    w->y = room(sizeof(int32_t) * N_TOKENS * N_ROWS);
    uint32_t state = 42;
    for (int i = 0; i < N_ROWS * NE0; i++) {
        state = state * 1664525u + 1013904223u;
        w->floats[i] = (float)((state >> 16) % 3) - 1.0f;
        w->q[i % (N_TOKENS * NE0)] = (int8_t)((state >> 24) % 255 - 127);
    }
    quantize(w);
}

static int32_t prompt[N_PROMPT];

/* argument: n of the tokens to evaluate, and whether the next is drawn from a screen, from all logits, or not at all. */
static void set_up_tokens(work *w, const char *argument) {
    static bnc_gguf *gguf;
    static bnc_model *model;
    static bnc_session *session;
    for (int i = 0; i < N_PROMPT; i++)
        prompt[i] = i;
    check(bnc_gguf_open(w->model, &(bnc_gguf_options){.use_mmap = 1, .dtype_of_36 = -1}, &gguf, &err));
    check(bnc_model_new(gguf, &(bnc_model_options){.kernels = w->kernels}, &model, &err));
    check(bnc_workspace_new(model, &(bnc_workspace_options){.n_threads = 1}, &w->workspace, &err));
    check(bnc_session_new(w->workspace, &(bnc_session_options){0}, &session, &err));
    w->logits = room(sizeof(float) * (size_t)bnc_model_get_config(model)->n_vocab);
    w->request = (bnc_request){.session = session, .tokens = prompt, .n_tokens = N_PROMPT};
    if (strcmp(argument, "prompt") == 0)
        return;
    check(bnc_eval(w->workspace, &w->request, 1, &err)); /* a context for the token to attend to */
    w->request.n_tokens = 1;
    if (strcmp(argument, "logits") == 0) {
        w->request.logits = w->logits;
        return;
    }
    bnc_screen *screen;
    check(bnc_screen_new(model, BNC_SCREEN_DITHERED, 1, 42, &screen, &err));
    check(bnc_workspace_set_screen(w->workspace, screen, &err));
    const bnc_sampling greedy = {.temperature = 0, .top_p = 1, .repetition_penalty = 1};
    check(bnc_sampler_new(bnc_model_get_config(model)->n_vocab, &greedy, &w->request.sampler, &err));
}

static const struct {
    const char *name;
    void (*set_up)(work *, const char *);
    const char *argument;
    void (*run)(work *);
} WORKS[] = {
    {"gemv i2_s", set_up_tensor, "i2_s", gemv},
    {"gemv qk256", set_up_tensor, "qk256", gemv},
    {"gemm i2_s", set_up_tensor, "i2_s", gemm},
    {"gemm qk256", set_up_tensor, "qk256", gemm},
    {"quantize i2_s", set_up_tensor, "i2_s", quantize},
    {"quantize qk256", set_up_tensor, "qk256", quantize},
    {"dequantize i2_s", set_up_tensor, "i2_s", dequantize},
    {"dequantize f16", set_up_tensor, "f16", dequantize},
    {"open", no_setup, "", open_file},
    {"prompt of 64", set_up_tokens, "prompt", evaluate},
    {"token, all logits", set_up_tokens, "logits", evaluate},
    {"token, screened", set_up_tokens, "screened", evaluate},
};

/* The function that callgrind counts inside of, by its name. */
void counted(void (*run)(work *), work *w);
__attribute__((noinline)) void counted(void (*run)(work *), work *w) { run(w); }

int main(int argc, char **argv) {
    if (argc != 4)
        return 2;
    work w = {.model = argv[3]};
    for (int32_t isa = 0; isa < bnc_isa_count(); isa++)
        if (strcmp(bnc_isa_name(isa), argv[2]) == 0)
            w.kernels = bnc_kernels_get(isa);
    for (size_t i = 0; w.kernels && i < sizeof WORKS / sizeof *WORKS; i++)
        if (strcmp(WORKS[i].name, argv[1]) == 0) {
            WORKS[i].set_up(&w, WORKS[i].argument);
            counted(WORKS[i].run, &w);
            return 0;
        }
    return 3;
}
