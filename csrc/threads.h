/*
 * threads.h - a pool of threads that run one function together (SPMD), with a barrier between its steps.
 *
 * Waiting threads spin for a moment, since the steps of a token are microseconds apart, then sleep: an idle pool costs
 * nothing, and more threads than cores still make progress.
 */
#ifndef BNC_THREADS_H
#define BNC_THREADS_H

#include "base.h"
#include "error.h"

typedef struct bnc_threads bnc_threads;

/* Called once on every thread of the pool; ith runs from 0 to nth - 1, and ith 0 is the caller's own thread. */
typedef void (*bnc_threads_fn)(void *arg, int ith, int nth);

enum { BNC_THREADS_MAX = 256 };

/* nth >= 1; nth - 1 threads are started. */
bnc_status bnc_threads_new(int nth, bnc_threads **out, bnc_error *err);
void bnc_threads_free(bnc_threads *threads);
/* For work too short to start threads for: a pool that an earlier borrower gave back, if it has nth threads, else a new one. One is
 * kept between calls, asleep; in a child made by fork() it is not used. */
bnc_status bnc_threads_borrow(int nth, bnc_threads **out, bnc_error *err);
void bnc_threads_give_back(bnc_threads *threads);
/* From now on each thread runs on one of the processors that the process may use, in their order, beginning again when
 * there are more threads; the caller's own thread only while it is inside bnc_threads_run. BNC_ERR_UNSUPPORTED where the
 * system offers no such thing. */
bnc_status bnc_threads_pin(bnc_threads *threads, bnc_error *err);
int bnc_threads_count(const bnc_threads *threads);
/* Run fn on all threads and return when all are done. Everything they wrote is then visible to the caller. */
void bnc_threads_run(bnc_threads *threads, bnc_threads_fn fn, void *arg);
/* Inside fn: wait until every thread has come here. */
void bnc_threads_barrier(bnc_threads *threads);
/* False in a child made by fork(): the pool's threads stayed in the parent. */
bool bnc_threads_usable(const bnc_threads *threads);

/* The share of thread ith of n items, in whole units: [*begin, *end). Fixed by the arguments alone. */
BNC_INLINE void bnc_split(int64_t n, int64_t unit, int ith, int nth, int64_t *begin, int64_t *end) {
    const int64_t units = bnc_ceil_div(n, unit);
    *begin = bnc_min_i64(n, units * ith / nth * unit);
    *end = bnc_min_i64(n, units * (ith + 1) / nth * unit);
}

#endif
