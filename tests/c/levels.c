/*
 * levels.c - a whole model at every level of kernels this machine has: prompts in blocks, single tokens, both caches, and tokens
 * found with the screen must be those of the scalar level, bit for bit.
 * Usage: levels MODEL OUT. Prints one line a level and writes the scalar level's answer, float32 and int32, to OUT.
 */
#include "bitnet_core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROMPT = 21, BATCH = 9, SINGLE = 3, GENERATED = 20, N_CTX = PROMPT + SINGLE + GENERATED };

static void check(bnc_status status, const bnc_error *err) {
    if (status != BNC_OK) {
        fprintf(stderr, "%s\n", err->message);
        exit(2);
    }
}

/* What a model answers with one kind of cache. */
typedef struct {
    float *logits; /* (PROMPT + SINGLE, n_vocab) */
    int32_t tokens[GENERATED];
} answer;

static void run(const bnc_model *model, const bnc_screen *screen, int32_t kv_dtype, answer *a) {
    bnc_error err;
    bnc_workspace *workspace;
    bnc_session *session;
    bnc_sampler *sampler;
    const int64_t n_vocab = bnc_model_get_config(model)->n_vocab;
    check(bnc_workspace_new(model, &(bnc_workspace_options){N_CTX, BATCH, 1, 2, 0}, &workspace, &err), &err);
    check(bnc_session_new(workspace, &(bnc_session_options){.kv_dtype = kv_dtype}, &session, &err), &err);
    check(bnc_sampler_new(n_vocab, &(bnc_sampling){.top_p = 1, .repetition_penalty = 1}, &sampler, &err), &err);
    int32_t prompt[PROMPT + SINGLE];
    for (int i = 0; i < PROMPT + SINGLE; i++)
        prompt[i] = (int32_t)((i * 37 + 11) % n_vocab);
    bnc_request request = {session, prompt, PROMPT, a->logits, 1, NULL, -1};
    check(bnc_eval(workspace, &request, 1, &err), &err);
    for (int i = PROMPT; i < PROMPT + SINGLE; i++) {
        request = (bnc_request){session, &prompt[i], 1, a->logits + i * n_vocab, 0, NULL, -1};
        check(bnc_eval(workspace, &request, 1, &err), &err);
    }
    check(bnc_workspace_set_screen(workspace, screen, &err), &err);
    int32_t token = 1;
    for (int i = 0; i < GENERATED; i++) {
        request = (bnc_request){session, &token, 1, NULL, 0, sampler, -1};
        check(bnc_eval(workspace, &request, 1, &err), &err);
        a->tokens[i] = token = request.drawn;
    }
    bnc_sampler_free(sampler);
    bnc_session_free(session);
    bnc_workspace_free(workspace);
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    bnc_error err;
    bnc_gguf *gguf;
    check(bnc_gguf_open(argv[1], &(bnc_gguf_options){.use_mmap = 1, .dtype_of_36 = -1}, &gguf, &err), &err);
    answer expected[2] = {{NULL, {0}}, {NULL, {0}}};
    FILE *out = fopen(argv[2], "wb");
    if (!out)
        return 2;
    for (int32_t isa = 0; isa < bnc_isa_count(); isa++) {
        if (!bnc_isa_supported(isa))
            continue;
        bnc_model *model;
        bnc_screen *screen;
        check(bnc_model_new(gguf, &(bnc_model_options){.kernels = bnc_kernels_get(isa)}, &model, &err), &err);
        check(bnc_screen_new(model, BNC_SCREEN_DITHERED, 2, 7, &screen, &err), &err);
        const size_t n = (size_t)((PROMPT + SINGLE) * bnc_model_get_config(model)->n_vocab);
        for (int32_t kv_dtype = BNC_KV_F16; kv_dtype <= BNC_KV_F32; kv_dtype++) {
            answer a = {.logits = malloc(n * sizeof(float))};
            if (!a.logits)
                return 2;
            run(model, screen, kv_dtype, &a);
            if (isa == 0) {
                expected[kv_dtype] = a;
                if (fwrite(a.logits, sizeof(float), n, out) != n || fwrite(a.tokens, 4, GENERATED, out) != GENERATED)
                    return 2;
                continue;
            }
            if (memcmp(a.logits, expected[kv_dtype].logits, n * sizeof(float)) != 0 ||
                memcmp(a.tokens, expected[kv_dtype].tokens, sizeof a.tokens) != 0) {
                printf("%s: another answer than scalar, cache %d\n", bnc_isa_name(isa), (int)kv_dtype);
                return 1;
            }
            free(a.logits);
        }
        printf("%s: the bits of scalar\n", bnc_isa_name(isa));
        bnc_screen_free(screen);
        bnc_model_free(model);
    }
    free(expected[0].logits);
    free(expected[1].logits);
    bnc_gguf_close(gguf);
    return fclose(out) != 0;
}
