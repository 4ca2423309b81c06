/*
 * ahead.h - memory that will be read next, fetched into the second-level cache line by line between the arithmetic.
 *
 * Eight far-apart streams: a core keeps more lines in flight on them than on one (see probe.c).
 */
#ifndef BNC_AHEAD_H
#define BNC_AHEAD_H

#include "base.h"

enum { BNC_AHEAD_STREAMS = 8, BNC_AHEAD_LINE = 64 };

typedef struct {
    const uint8_t *at;
    int64_t apart; /* bytes between two streams */
    int64_t line;  /* of those fetched so far */
} bnc_ahead;

BNC_INLINE bnc_ahead bnc_ahead_of(const uint8_t *at, int64_t bytes) {
    const int64_t stride = BNC_AHEAD_STREAMS * BNC_AHEAD_LINE;
    return (bnc_ahead){at, bytes / stride * BNC_AHEAD_LINE, 0};
}

/* n is a constant in each call. A line beyond the end does no harm. */
BNC_INLINE void bnc_ahead_fetch(bnc_ahead *a, int n) {
    BNC_UNROLL
    for (int i = 0; i < n; i++, a->line++)
        __builtin_prefetch(
            a->at + a->line % BNC_AHEAD_STREAMS * a->apart + a->line / BNC_AHEAD_STREAMS * BNC_AHEAD_LINE, 0, 2);
}

#endif
