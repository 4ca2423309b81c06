/*
 * sampler.h - logits to a token id: seeded, deterministic.
 */
#ifndef BNC_SAMPLER_H
#define BNC_SAMPLER_H

#include "bitnet_core.h"
#include "error.h"

int64_t bnc_sampler_n_vocab(const bnc_sampler *sampler);

#endif
