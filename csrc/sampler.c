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

typedef struct {
    float value; /* logit, later probability times a constant */
    int32_t id;
} candidate;

struct bnc_sampler {
    bnc_sampling params;
    int64_t n_vocab;
    uint64_t state[4];     /* of xoshiro256** */
    uint8_t *seen;         /* (n_vocab,) */
    candidate *candidates; /* (n_vocab,) */
};

/* ---- random numbers: xoshiro256** (Blackman and Vigna, 2018), seeded by splitmix64 ---- */

static uint64_t splitmix64(uint64_t *state) {
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

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
    const size_t bytes = sizeof(bnc_sampler) + (size_t)n_vocab * (sizeof(candidate) + 1);
    bnc_sampler *s = calloc(1, bytes);
    if (!s)
        return bnc_error_nomem(err, bytes);
    s->params = p;
    s->n_vocab = n_vocab;
    s->candidates = (candidate *)(s + 1);
    s->seen = (uint8_t *)(s->candidates + n_vocab);
    uint64_t seed = p.seed;
    for (int i = 0; i < 4; i++)
        s->state[i] = splitmix64(&seed);
    *out = s;
    return BNC_OK;
}

void bnc_sampler_free(bnc_sampler *sampler) { free(sampler); }

int64_t bnc_sampler_n_vocab(const bnc_sampler *sampler) { return sampler->n_vocab; }

bnc_status bnc_sampler_accept(bnc_sampler *sampler, int32_t token, bnc_error *err) {
    if (token < 0 || token >= sampler->n_vocab)
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "token %d is not in the vocabulary: 0 to %lld", (int)token,
                             (long long)sampler->n_vocab - 1);
    sampler->seen[token] = 1;
    return BNC_OK;
}

/* ---- drawing ---- */

/* A token seen before loses probability whichever sign its logit has. */
static float penalized(const bnc_sampler *s, const float *logits, int64_t id) {
    if (!s->seen[id])
        return logits[id];
    return logits[id] > 0 ? logits[id] / s->params.repetition_penalty : logits[id] * s->params.repetition_penalty;
}

static int32_t argmax(const bnc_sampler *s, const float *logits) {
    int32_t best = 0;
    float max = penalized(s, logits, 0);
    for (int64_t id = 1; id < s->n_vocab; id++) {
        const float v = penalized(s, logits, id);
        if (v > max) {
            max = v;
            best = (int32_t)id;
        }
    }
    return best;
}

/* a comes before b: higher first, then lower id. */
static bool before(candidate a, candidate b) { return a.value > b.value || (a.value == b.value && a.id < b.id); }

/* Heap with the candidate that would be dropped next at its root. */
static void sift_down(candidate *heap, int64_t n, int64_t i) {
    for (;;) {
        int64_t last = i;
        for (int64_t child = 2 * i + 1; child <= 2 * i + 2 && child < n; child++)
            if (before(heap[last], heap[child]))
                last = child;
        if (last == i)
            return;
        const candidate t = heap[i];
        heap[i] = heap[last];
        heap[last] = t;
        i = last;
    }
}

/* The k first of all candidates, sorted; k from 1 to n_vocab. */
static void select_top(bnc_sampler *s, const float *logits, int64_t k) {
    candidate *heap = s->candidates;
    for (int64_t id = 0; id < k; id++)
        heap[id] = (candidate){penalized(s, logits, id), (int32_t)id};
    for (int64_t i = k / 2; i-- > 0;)
        sift_down(heap, k, i);
    for (int64_t id = k; id < s->n_vocab; id++) {
        const candidate c = {penalized(s, logits, id), (int32_t)id};
        if (before(c, heap[0])) {
            heap[0] = c;
            sift_down(heap, k, 0);
        }
    }
    for (int64_t n = k - 1; n > 0; n--) { /* heap sort: the last one goes to the end */
        const candidate last = heap[0];
        heap[0] = heap[n];
        heap[n] = last;
        sift_down(heap, n, 0);
    }
}

/* The shortest prefix whose probability reaches top_p; its mass goes to *mass. */
static int64_t nucleus(const bnc_sampler *s, int64_t k, float *mass) {
    float total = 0;
    for (int64_t i = 0; i < k; i++)
        total += s->candidates[i].value;
    float sum = 0;
    int64_t n = 0;
    do
        sum += s->candidates[n++].value;
    while (n < k && sum < s->params.top_p * total);
    *mass = sum;
    return n;
}

int32_t bnc_sampler_sample(bnc_sampler *sampler, const float *logits) {
    bnc_sampler *s = sampler;
    if (s->params.temperature == 0)
        return argmax(s, logits);
    const int64_t k = s->params.top_k ? bnc_min_i64(s->params.top_k, s->n_vocab) : s->n_vocab;
    select_top(s, logits, k);
    /* Dividing by the temperature changes no order, so it waits until the difference to the largest logit is taken: no
     * temperature, however small, then overflows. */
    const float max = s->candidates[0].value;
    for (int64_t i = 0; i < k; i++)
        s->candidates[i].value = bnc_exp((s->candidates[i].value - max) / s->params.temperature);
    float mass = 0;
    const int64_t n = nucleus(s, k, &mass);
    float u = next_unit(s->state) * mass;
    for (int64_t i = 0; i < n - 1; i++) {
        if (u < s->candidates[i].value)
            return s->candidates[i].id;
        u -= s->candidates[i].value;
    }
    return s->candidates[n - 1].id;
}
