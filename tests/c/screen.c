/*
 * screen.c - the bound of a screened head, on every row: no logit, as the head computes it or in float64, may lie outside its approximation's width, and the
 * widths may not be so wide that they say nothing.
 * Usage: screen MODEL ROUNDS dithered|proven. Prints the largest |error| / width seen.
 */
#define _DEFAULT_SOURCE /* posix_memalign */
#include "screen.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void check(bnc_status status, const bnc_error *err) {
    if (status != BNC_OK) {
        fprintf(stderr, "%s\n", err->message);
        exit(2);
    }
}

static void *memory(int64_t n, size_t size) {
    void *p = NULL;
    if (posix_memalign(&p, BNC_CACHE_LINE, (size_t)n * size + BNC_CACHE_LINE) != 0)
        exit(2);
    return p;
}

static double dot(const float *w, const float *x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)w[i] * (double)x[i];
    return sum;
}

static uint64_t state = 1;

/* The sum of twelve uniform numbers less 6: near enough to normal. */
static float normal(void) {
    float sum = -6;
    for (int i = 0; i < 12; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        sum += (float)(state >> 40) * 0x1p-24f;
    }
    return sum;
}

typedef struct {
    const bnc_screen *screen;
    bnc_threads *threads;
    bnc_screen_memory *mem;
} job;

static void find(void *arg, int ith, int nth) {
    const job *j = arg;
    bnc_screen_find(j->screen, j->threads, j->mem, 1, ith, nth);
}

int main(int argc, char **argv) {
    if (argc != 4)
        return 2;
    const bool proven = strcmp(argv[3], "proven") == 0;
    enum { NTH = 2 };
    bnc_error err;
    bnc_gguf *gguf;
    bnc_model *model;
    bnc_screen *screen;
    bnc_sampler *sampler;
    bnc_threads *threads;
    check(bnc_gguf_open(argv[1], &(bnc_gguf_options){.use_mmap = 1, .dtype_of_36 = -1}, &gguf, &err), &err);
    check(bnc_model_new(gguf, &(bnc_model_options){.kernels = bnc_kernels_get(-1)}, &model, &err), &err);
    for (int kind = -1; kind <= BNC_SCREEN_PROVEN + 1; kind += BNC_SCREEN_PROVEN + 2)
        if (bnc_screen_new(model, (bnc_screen_kind)kind, NTH, 7, &screen, &err) != BNC_ERR_ARGUMENT) {
            printf("a screen of kind %d was made\n", kind);
            return 1;
        }
    check(bnc_screen_new(model, proven ? BNC_SCREEN_PROVEN : BNC_SCREEN_DITHERED, NTH, 7, &screen, &err), &err);
    const int64_t n_vocab = model->config.n_vocab, n_embd = model->config.n_embd;
    check(bnc_sampler_new(n_vocab, &(bnc_sampling){0, 1, 1, 1, 1}, &sampler, &err), &err);
    check(bnc_threads_new(NTH, &threads, &err), &err);
    bnc_screen_memory mem = {
        .x = memory(bnc_ceil_div(n_embd, BNC_SCREEN_STRIPE), sizeof(bnc_screen_stripe)),
        .approx = memory(n_vocab, sizeof(float)),
        .energy = memory(n_vocab, sizeof(float)),
        .candidates = memory(n_vocab, sizeof(bnc_candidate)),
        .found = memory(NTH, sizeof(bnc_best)),
        .n_scored = memory(NTH, sizeof(int64_t)),
        .best = memory((NTH + 1) * BNC_SCREEN_BEST, sizeof(bnc_candidate)),
    };
    float *x = memory(n_embd, sizeof(float)), *logits = memory(n_vocab, sizeof(float));
    mem.activation = x;
    mem.sampler = sampler;
    mem.top = 1;
    float *weights = memory(n_vocab * n_embd, sizeof(float));
    BNC_FN(model->kernels, dequantize, model->config.head_dtype)(model->head, n_vocab, n_embd, 1.0f, weights);
    double worst = 0, candidates = 0;
    const long rounds = strtol(argv[2], NULL, 10);
    for (long round = 0; round < rounds; round++) {
        for (int64_t i = 0; i < n_embd; i++)
            x[i] = normal() * (round % 3 == 1 && i == 5 ? 1000.0f : 1.0f) * (round % 3 == 2 ? expf(normal()) : 1.0f);
        job j = {screen, threads, &mem};
        bnc_threads_run(threads, find, &j);
        BNC_FN(model->kernels, head, model->config.head_dtype)(model->head, n_vocab, n_embd, x, logits);
        int64_t best = 0, found = 0;
        for (int64_t r = 0; r < n_vocab; r++) {
            const double width = (double)screen->factor * mem.scale * sqrt((double)mem.energy[r]);
            const double approx = (double)mem.approx[r] * mem.scale;
            const double rounded = fabs((double)logits[r] - approx),
                         unrounded = fabs(dot(weights + r * n_embd, x, n_embd) - approx);
            const double error = rounded > unrounded ? rounded : unrounded;
            if (error > width) {
                printf("round %ld row %lld: error %g beyond width %g\n", round, (long long)r, error, width);
                return 1;
            }
            worst = width > 0 && error / width > worst ? error / width : worst;
            best = logits[r] > logits[best] ? r : best;
        }
        for (int i = 0; i < NTH; i++)
            for (int64_t c = 0; c < mem.found[i].n; c++, candidates++)
                found += mem.found[i].at[c].id == best;
        if (found != 1) {
            printf("round %ld: the best row was found %lld times\n", round, (long long)found);
            return 1;
        }
    }
    printf("largest error / width %.3f, %.1f candidates of %lld rows\n", worst, candidates / (double)rounds,
           (long long)n_vocab);
    /* Widths that no error comes near are a mistake as well, and so are widths that one comes too near. Proven ones are
     * reached by errors that point where the activation does; dithered ones: 5 of the 8.9 standard deviations that t stands for
     * are what a million normal errors reach. */
    return proven ? worst < 0.1 : worst < 0.3 || worst > 0.66;
}
