/*
 * forward.h - the transformer on a session.
 */
#ifndef BNC_FORWARD_H
#define BNC_FORWARD_H

#include "session.h"

/* Evaluate n_tokens (1 to n_batch) valid tokens at position n_past, which the caller advances afterwards.
 * logits receives (n_logits, n_vocab): those of the last n_logits tokens. */
void bnc_forward(bnc_session *session, const int32_t *tokens, int64_t n_tokens, float *logits, int64_t n_logits);

#endif
