#include "candidates.h"

static void swap(bnc_candidate *a, bnc_candidate *b) {
    const bnc_candidate t = *a;
    *a = *b;
    *b = t;
}

/* Restore the heap of n below i, whose children are heaps. */
static void sift_down(bnc_candidate *heap, int64_t n, int64_t i) {
    for (;;) {
        int64_t worst = i;
        for (int64_t child = 2 * i + 1; child <= 2 * i + 2 && child < n; child++)
            if (bnc_before(heap[worst], heap[child]))
                worst = child;
        if (worst == i)
            return;
        swap(&heap[i], &heap[worst]);
        i = worst;
    }
}

void bnc_best_replace_worst(bnc_best *best, bnc_candidate c) {
    best->at[0] = c;
    sift_down(best->at, best->n, 0);
}

void bnc_best_grow(bnc_best *best, bnc_candidate c) {
    int64_t i = best->n++;
    best->at[i] = c;
    for (; i > 0 && bnc_before(best->at[(i - 1) / 2], best->at[i]); i = (i - 1) / 2)
        swap(&best->at[(i - 1) / 2], &best->at[i]);
}

void bnc_best_sort(bnc_best *best) {
    for (int64_t n = best->n - 1; n > 0; n--) { /* heap sort: the worst of those left goes to the end */
        swap(&best->at[0], &best->at[n]);
        sift_down(best->at, n, 0);
    }
}
