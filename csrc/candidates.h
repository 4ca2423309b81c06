/*
 * candidates.h - the best of many scored tokens.
 */
#ifndef BNC_CANDIDATES_H
#define BNC_CANDIDATES_H

#include "base.h"

#include <math.h>

typedef struct {
    float value;
    int32_t id;
} bnc_candidate;

/* a comes before b: higher first, then lower id. */
BNC_INLINE bool bnc_before(bnc_candidate a, bnc_candidate b) {
    return a.value > b.value || (a.value == b.value && a.id < b.id);
}

/* A heap of the best so far, with the one that would be dropped next at its root. */
typedef struct {
    bnc_candidate *at; /* room for limit */
    int64_t n, limit;
} bnc_best;

void bnc_best_replace_worst(bnc_best *best, bnc_candidate c);
void bnc_best_grow(bnc_best *best, bnc_candidate c);
/* Best first. The heap is then a sorted list; nothing may be added any more. */
void bnc_best_sort(bnc_best *best);

/* A NaN is worth less than any number: it would otherwise stay wherever it first came to lie. */
BNC_INLINE void bnc_best_add(bnc_best *best, bnc_candidate c) {
    c.value = c.value == c.value ? c.value : -INFINITY;
    if (best->n < best->limit)
        bnc_best_grow(best, c);
    else if (bnc_before(c, best->at[0]))
        bnc_best_replace_worst(best, c);
}

#endif
