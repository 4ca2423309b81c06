/*
 * sampler.h - logits to a token id: seeded, deterministic.
 */
#ifndef BNC_SAMPLER_H
#define BNC_SAMPLER_H

#include "bitnet_core.h"
#include "candidates.h"
#include "error.h"

struct bnc_sampler {
    bnc_sampling params;
    int64_t n_vocab;
    uint64_t state[4];         /* of xoshiro256** */
    uint8_t *seen;             /* (n_vocab,) */
    bnc_candidate *candidates; /* (n_vocab,) */
};

/* How many of the best tokens can matter: 1 at temperature 0, else top_k; 0 stands for all. */
int64_t bnc_sampler_top(const bnc_sampler *sampler);

/* Whether the repetition penalty changes this token's logit. */
BNC_INLINE bool bnc_sampler_touches(const bnc_sampler *sampler, int64_t id) {
    return sampler->seen[id] && sampler->params.repetition_penalty != 1.0f;
}

/* A token seen before loses probability whichever sign its logit has. */
BNC_INLINE float bnc_sampler_penalize(const bnc_sampler *sampler, int64_t id, float logit) {
    if (!sampler->seen[id])
        return logit;
    const float penalty = sampler->params.repetition_penalty;
    return logit > 0 ? logit / penalty : logit * penalty;
}

/* For a caller that knows the best tokens without all logits: begin, add each (its value penalized) in any order, draw.
 * The token is that of bnc_sampler_sample when the bnc_sampler_top best were among those added. */
bnc_best bnc_sampler_begin(bnc_sampler *sampler);
int32_t bnc_sampler_draw(bnc_sampler *sampler, bnc_best *best);

#endif
