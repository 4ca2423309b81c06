/*
 * sampler.c - repetition penalty -> (temperature 0: argmax) -> temperature -> top-k -> softmax -> top-p -> draw.
 *
 * Ties are broken by the lower id everywhere, so the order of candidates, and with it the draw, depends on nothing but
 * logits, parameters and seed.
 */
#include "sampler.h"

#include "kernels/lanes.h"

#include <math.h>
#include <stdlib.h>

/* ---- random numbers: xoshiro256** (Blackman and Vigna, 2018), seeded by splitmix64 ---- */

static uint64_t rotl(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

static uint64_t next_u64(uint64_t s[4]) {
    const uint64_t result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

/* In [0, 1): the top 24 bits, as many as a float32 holds. */
static float next_unit(uint64_t s[4]) { return (float)(next_u64(s) >> 40) * 0x1p-24f; }

/* ---- life ---- */

bnc_status bnc_sampler_new(int64_t n_vocab, const bnc_sampling *sampling, bnc_sampler **out, bnc_error *err) {
    const bnc_sampling p = *sampling;
    if (n_vocab < 1 || n_vocab > INT32_MAX)
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "n_vocab must be 1 to %d", INT32_MAX);
    if (!(p.temperature >= 0) || !isfinite(p.temperature))
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "temperature must be 0 or more and finite, not %g",
                             (double)p.temperature);
    if (p.top_k < 0)
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "top_k must be 0 (all) or more, not %d", (int)p.top_k);
    if (!(p.top_p > 0 && p.top_p <= 1))
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "top_p must be above 0 and at most 1, not %g", (double)p.top_p);
    if (!(p.repetition_penalty > 0) || !isfinite(p.repetition_penalty))
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "repetition_penalty must be above 0 and finite, not %g",
                             (double)p.repetition_penalty);
    const size_t bytes = sizeof(bnc_sampler) + (size_t)n_vocab * (sizeof(bnc_candidate) + 1);
    bnc_sampler *s = calloc(1, bytes);
    if (!s)
        return bnc_error_nomem(err, bytes);
    s->params = p;
    s->n_vocab = n_vocab;
    s->candidates = (bnc_candidate *)(s + 1);
    s->seen = (uint8_t *)(s->candidates + n_vocab);
    for (uint64_t i = 0; i < 4; i++)
        s->state[i] = bnc_mix64(p.seed + i * BNC_MIX64_STEP);
    *out = s;
    return BNC_OK;
}

void bnc_sampler_free(bnc_sampler *sampler) { free(sampler); }

bnc_status bnc_sampler_accept(bnc_sampler *sampler, int32_t token, bnc_error *err) {
    if (token < 0 || token >= sampler->n_vocab)
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "token %d is not in the vocabulary: 0 to %lld", (int)token,
                             (long long)sampler->n_vocab - 1);
    sampler->seen[token] = 1;
    return BNC_OK;
}

/* ---- drawing ---- */

int64_t bnc_sampler_top(const bnc_sampler *sampler) {
    return sampler->params.temperature == 0 ? 1 : bnc_min_i64(sampler->params.top_k, sampler->n_vocab);
}

bnc_best bnc_sampler_begin(bnc_sampler *sampler) {
    const int64_t top = bnc_sampler_top(sampler);
    return (bnc_best){sampler->candidates, 0, top ? top : sampler->n_vocab};
}

/* The shortest prefix whose probability reaches top_p; its mass goes to *mass. */
static int64_t nucleus(const bnc_candidate *sorted, int64_t k, float top_p, float *mass) {
    float total = 0;
    for (int64_t i = 0; i < k; i++)
        total += sorted[i].value;
    float sum = 0;
    int64_t n = 0;
    do
        sum += sorted[n++].value;
    while (n < k && sum < top_p * total);
    *mass = sum;
    return n;
}

int32_t bnc_sampler_draw(bnc_sampler *sampler, bnc_best *best) {
    const bnc_sampling *p = &sampler->params;
    bnc_best_sort(best);
    bnc_candidate *sorted = best->at;
    if (p->temperature == 0)
        return sorted[0].id;
    /* Dividing by the temperature changes no order, so it waits until the difference to the largest logit is taken: no
     * temperature, however small, then overflows. */
    const float max = sorted[0].value;
    for (int64_t i = 0; i < best->n; i++)
        sorted[i].value = bnc_exp((sorted[i].value - max) / p->temperature);
    float mass = 0;
    const int64_t n = nucleus(sorted, best->n, p->top_p, &mass);
    float u = next_unit(sampler->state) * mass;
    for (int64_t i = 0; i < n - 1; i++) {
        if (u < sorted[i].value)
            return sorted[i].id;
        u -= sorted[i].value;
    }
    return sorted[n - 1].id;
}

int32_t bnc_sampler_sample(bnc_sampler *sampler, const float *logits) {
    bnc_best best = bnc_sampler_begin(sampler);
    for (int64_t id = 0; id < sampler->n_vocab; id++)
        bnc_best_add(&best, (bnc_candidate){bnc_sampler_penalize(sampler, id, logits[id]), (int32_t)id});
    return bnc_sampler_draw(sampler, &best);
}
