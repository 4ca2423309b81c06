/*
 * eval.c - tokens to logits, and tokens to the next token: the calls that run a session forward.
 */
#include "forward.h"

static bnc_status check_tokens(const bnc_session *s, const int32_t *tokens, int64_t n_tokens, bnc_error *err) {
    const int64_t n_vocab = s->model->config.n_vocab;
    if (n_tokens < 1)
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "at least one token is needed");
    for (int64_t i = 0; i < n_tokens; i++)
        if (tokens[i] < 0 || tokens[i] >= n_vocab)
            return bnc_error_set(err, BNC_ERR_ARGUMENT, "token %d at index %lld is not in the vocabulary: 0 to %lld",
                                 (int)tokens[i], (long long)i, (long long)n_vocab - 1);
    if (n_tokens > s->n_ctx - s->n_past)
        return bnc_error_set(err, BNC_ERR_CONTEXT, "%lld tokens after %lld do not fit a context of %lld",
                             (long long)n_tokens, (long long)s->n_past, (long long)s->n_ctx);
    return BNC_OK;
}

/* Blocks of n_batch tokens; logits of all tokens, of the last one, or none. The last block ends with wants. */
static void eval_blocks(bnc_session *s, const int32_t *tokens, int64_t n_tokens, const bnc_wants *wants) {
    s->reads = (bnc_reads){0};
    for (int64_t begin = 0; begin < n_tokens; begin += s->n_batch) {
        const int64_t n = bnc_min_i64(s->n_batch, n_tokens - begin);
        bnc_wants block = *wants;
        if (wants->n_logits > 1) { /* all of them */
            block.logits += begin * s->model->config.n_vocab;
            block.n_logits = n;
        } else if (begin + n < n_tokens) {
            block = (bnc_wants){0};
        }
        bnc_forward(s, tokens + begin, n, &block);
        s->n_past += n;
    }
}

bnc_status bnc_session_eval(bnc_session *session, const int32_t *tokens, int64_t n_tokens, float *logits,
                            int32_t all_logits, bnc_error *err) {
    BNC_TRY(bnc_session_enter(session, err));
    const bnc_status status = check_tokens(session, tokens, n_tokens, err);
    if (status == BNC_OK)
        eval_blocks(session, tokens, n_tokens,
                    &(bnc_wants){.logits = logits,
                                 .n_logits = !logits      ? 0
                                             : all_logits ? n_tokens
                                                          : 1});
    bnc_session_leave(session);
    return status;
}

/* The next token from the candidates that each thread found. */
static int32_t draw_from_candidates(bnc_session *s, bnc_sampler *sampler) {
    bnc_best best = bnc_sampler_begin(sampler);
    for (int i = 0; i < bnc_threads_count(s->threads); i++) {
        const bnc_best *found = &s->screening.found[i];
        for (int64_t j = 0; j < found->n; j++)
            bnc_best_add(&best, found->at[j]);
    }
    return bnc_sampler_draw(sampler, &best);
}

bnc_status bnc_session_sample(bnc_session *session, const int32_t *tokens, int64_t n_tokens, bnc_sampler *sampler,
                              int32_t *token, bnc_error *err) {
    BNC_TRY(bnc_session_enter(session, err));
    bnc_status status = check_tokens(session, tokens, n_tokens, err);
    if (status == BNC_OK && sampler->n_vocab != session->model->config.n_vocab)
        status = bnc_error_set(err, BNC_ERR_ARGUMENT, "the sampler was made for another vocabulary");
    if (status == BNC_OK) {
        const int64_t top = bnc_sampler_top(sampler);
        if (session->screen && top && top <= BNC_SCREEN_MAX_TOP) {
            eval_blocks(session, tokens, n_tokens, &(bnc_wants){.sampler = sampler});
            *token = draw_from_candidates(session, sampler);
        } else {
            eval_blocks(session, tokens, n_tokens, &(bnc_wants){.logits = session->logits, .n_logits = 1});
            *token = bnc_sampler_sample(sampler, session->logits);
        }
    }
    bnc_session_leave(session);
    return status;
}
