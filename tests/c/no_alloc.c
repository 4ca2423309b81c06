/*
 * no_alloc.c - evaluation allocates nothing: every allocator of the C library is wrapped and counted while a session
 * evaluates prompts, single tokens and samples. Linked with -Wl,--wrap=... for each of them.
 * Usage: no_alloc MODEL
 */
#include "bitnet_core.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

static atomic_long n_calls;

#define WRAP(ret, name, params, args)  \
    ret __real_##name params;          \
    ret __wrap_##name params;          \
    ret __wrap_##name params {         \
        atomic_fetch_add(&n_calls, 1); \
        return __real_##name args;     \
    }

WRAP(void *, malloc, (size_t n), (n))
WRAP(void *, calloc, (size_t n, size_t size), (n, size))
WRAP(void *, realloc, (void *p, size_t n), (p, n))
WRAP(int, posix_memalign, (void **p, size_t align, size_t n), (p, align, n))
WRAP(void *, mmap, (void *at, size_t n, int prot, int flags, int fd, long offset), (at, n, prot, flags, fd, offset))

static void check(bnc_status status, const bnc_error *err) {
    if (status != BNC_OK) {
        fprintf(stderr, "%s\n", err->message);
        exit(2);
    }
}

int main(int argc, char **argv) {
    if (argc != 2)
        return 2;
    bnc_error err;
    bnc_gguf *gguf;
    bnc_model *model;
    bnc_workspace *workspace;
    bnc_session *session, *other;
    bnc_sampler *sampler;
    check(bnc_gguf_open(argv[1], &(bnc_gguf_options){.use_mmap = 1, .dtype_of_36 = -1}, &gguf, &err), &err);
    check(bnc_model_new(gguf, &(bnc_model_options){.kernels = bnc_kernels_get(-1)}, &model, &err), &err);
    const bnc_workspace_options options = {.n_batch = 8, .n_seq = 2, .n_threads = 2, .pin = 1};
    check(bnc_workspace_new(model, &options, &workspace, &err), &err);
    check(bnc_session_new(workspace, &(bnc_session_options){0}, &session, &err), &err);
    check(bnc_session_new(workspace, &(bnc_session_options){0}, &other, &err), &err);
    const int64_t n_vocab = bnc_model_get_config(model)->n_vocab;
    check(bnc_sampler_new(n_vocab, &(bnc_sampling){0.7f, 50, 0.9f, 1.1f, 42}, &sampler, &err), &err);
    float *logits = malloc((size_t)(20 * n_vocab) * sizeof(float));
    if (atomic_load(&n_calls) < 4 || !logits) {
        printf("the wrappers do not count\n");
        return 1;
    }

    atomic_store(&n_calls, 0);
    int32_t tokens[20], token = 1;
    for (int i = 0; i < 20; i++)
        tokens[i] = i;
    bnc_request request = {.session = session, .tokens = tokens, .n_tokens = 20, .logits = logits, .all_logits = 1};
    check(bnc_eval(workspace, &request, 1, &err), &err);
    bnc_request both[] = {{.session = session, .tokens = &token, .n_tokens = 1, .sampler = sampler},
                          {.session = other, .tokens = tokens, .n_tokens = 7, .logits = logits}};
    for (int i = 0; i < 4; i++) {
        check(bnc_eval(workspace, both, 2, &err), &err);
        token = both[0].drawn;
        check(bnc_sampler_accept(sampler, token, &err), &err);
    }
    check(bnc_session_rewind(session, 3, &err), &err);
    check(bnc_session_fill_kv(session, 30, 1, &err), &err);
    token = -1;
    if (bnc_eval(workspace, both, 2, &err) != BNC_ERR_ARGUMENT)
        return 2;
    const long during = atomic_load(&n_calls);

    bnc_sampler_free(sampler);
    bnc_session_free(other);
    bnc_session_free(session);
    bnc_workspace_free(workspace);
    bnc_model_free(model);
    bnc_gguf_close(gguf);
    free(logits);
    printf("%ld allocations during evaluation\n", during);
    return during != 0;
}
