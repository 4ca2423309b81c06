/*
 * forward.h - the transformer on a session.
 */
#ifndef BNC_FORWARD_H
#define BNC_FORWARD_H

#include "session.h"

/* What an evaluation ends with: logits (n_logits, n_vocab) of the last n_logits tokens; or, with a sampler, the tokens that
 * it may draw after the last one, found with the session's screen and left in session->screening; or nothing. */
typedef struct {
    float *logits;
    int64_t n_logits;
    const bnc_sampler *sampler;
} bnc_wants;

/* Evaluate n_tokens (1 to n_batch) valid tokens at position n_past, which the caller advances afterwards; adds to
 * session->reads. */
void bnc_forward(bnc_session *session, const int32_t *tokens, int64_t n_tokens, const bnc_wants *wants);

#endif
