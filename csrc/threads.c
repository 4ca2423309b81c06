#if defined(__linux__)
#define _GNU_SOURCE /* for affinity */
#else
#define _POSIX_C_SOURCE 200809L
#endif
#include "threads.h"

#include <errno.h>
#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

/* Longer than any step of a token waits for its slowest thread on an idle machine. Now and then the processor is offered to
 * others; with more threads than processors each time, for the thread that is waited for may need this very one. */
enum { SPINS = 4000, SPINS_A_YIELD = 64 };

/*
 * A gate opens when its generation changes. Waiters spin on the generation, then sleep on the condition; whoever
 * opens it takes the lock only if somebody sleeps. The count of sleepers is raised under the lock before the last
 * look at the generation, and the opener changes the generation before it reads the count (both sequentially
 * consistent), so no sleeper is missed.
 */
typedef struct {
    _Alignas(BNC_CACHE_LINE) atomic_uint generation;
    _Alignas(BNC_CACHE_LINE) atomic_int sleepers;
    pthread_mutex_t lock;
    pthread_cond_t wake;
} gate;

struct bnc_threads {
    gate start;   /* opened by the caller: a job is there */
    gate barrier; /* opened by the last thread to arrive */
    _Alignas(BNC_CACHE_LINE) atomic_int arrived;
    bnc_threads_fn fn;
    void *arg;
    bool stop, pinned;
    int nth, spins_a_yield;
    pid_t pid;
#if defined(__linux__)
    cpu_set_t first;              /* the processor of thread 0 */
    atomic_int callers_processor; /* when it last opened the start */
#endif
    struct worker {
        bnc_threads *threads;
        pthread_t id;
        int ith;
    } worker[]; /* nth - 1 */
};

BNC_INLINE void cpu_relax(void) {
#if defined(BNC_X86_64)
    __builtin_ia32_pause();
#elif defined(BNC_AARCH64)
    __asm__ volatile("yield");
#endif
}

static void gate_init(gate *g) {
    atomic_init(&g->generation, 0);
    atomic_init(&g->sleepers, 0);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->wake, NULL);
}

static void gate_destroy(gate *g) {
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->wake);
}

static void gate_open(gate *g) {
    atomic_fetch_add(&g->generation, 1);
    if (atomic_load(&g->sleepers)) {
        pthread_mutex_lock(&g->lock);
        pthread_cond_broadcast(&g->wake);
        pthread_mutex_unlock(&g->lock);
    }
}

/* Wait until the generation is no longer seen; whether it slept. */
static bool gate_wait(gate *g, unsigned seen, int spins_a_yield) {
    for (int i = 1; i <= SPINS; i++) {
        if (atomic_load_explicit(&g->generation, memory_order_acquire) != seen)
            return false;
        cpu_relax();
        if (i % spins_a_yield == 0)
            sched_yield();
    }
    pthread_mutex_lock(&g->lock);
    atomic_fetch_add(&g->sleepers, 1);
    while (atomic_load(&g->generation) == seen)
        pthread_cond_wait(&g->wake, &g->lock);
    atomic_fetch_sub(&g->sleepers, 1);
    pthread_mutex_unlock(&g->lock);
    return true;
}

void bnc_threads_barrier(bnc_threads *threads) {
    if (threads->nth == 1)
        return;
    const unsigned seen = atomic_load(&threads->barrier.generation);
    if (atomic_fetch_add(&threads->arrived, 1) == threads->nth - 1) {
        atomic_store(&threads->arrived, 0);
        gate_open(&threads->barrier);
    } else {
        gate_wait(&threads->barrier, seen, threads->spins_a_yield);
    }
}

#if defined(__linux__)

/*
 * A thread that slept may be woken on the processor of the one that woke it: to Linux, a halted processor of a virtual
 * machine is not idle. There the two take turns at every barrier, each time so short that Linux takes their caches for
 * warm and moves neither, for 50 ms. Forbidding that processor for a moment moves the thread at once.
 */
static void leave_callers_processor(const bnc_threads *threads) {
    const int processor = sched_getcpu();
    cpu_set_t allowed;
    if (threads->pinned || threads->spins_a_yield == 1 || processor < 0 || processor >= CPU_SETSIZE ||
        processor != atomic_load_explicit(&threads->callers_processor, memory_order_relaxed) ||
        sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return;
    cpu_set_t others = allowed;
    CPU_CLR(processor, &others);
    if (CPU_COUNT(&others) && sched_setaffinity(0, sizeof others, &others) == 0)
        (void)sched_setaffinity(0, sizeof allowed, &allowed);
}

static void note_callers_processor(bnc_threads *threads) {
    atomic_store_explicit(&threads->callers_processor, sched_getcpu(), memory_order_relaxed);
}

#else

static void leave_callers_processor(const bnc_threads *threads) { (void)threads; }
static void note_callers_processor(bnc_threads *threads) { (void)threads; }

#endif

static void *worker_main(void *arg) {
    struct worker *self = arg;
    bnc_threads *threads = self->threads;
    fesetenv(FE_DFL_ENV); /* a new thread has its creator's */
    for (unsigned seen = 0;; seen++) {
        const bool slept = gate_wait(&threads->start, seen, threads->spins_a_yield);
        if (threads->stop)
            return NULL;
        if (slept)
            leave_callers_processor(threads);
        threads->fn(threads->arg, self->ith, threads->nth);
        bnc_threads_barrier(threads);
    }
}

/* ---- pinning ---- */

#if defined(__linux__)

/* The i-th processor of a set, beginning again at its end. */
static cpu_set_t nth_processor(const cpu_set_t *set, int i) {
    cpu_set_t one;
    CPU_ZERO(&one);
    i %= CPU_COUNT(set);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, set) && i-- == 0)
            CPU_SET(cpu, &one);
    return one;
}

bnc_status bnc_threads_pin(bnc_threads *threads, bnc_error *err) {
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return bnc_error_io(err, errno, "asking which processors may be used");
    threads->first = nth_processor(&allowed, 0);
    for (int i = 0; i < threads->nth - 1; i++) {
        const cpu_set_t one = nth_processor(&allowed, i + 1);
        const int failed = pthread_setaffinity_np(threads->worker[i].id, sizeof one, &one);
        if (failed)
            return bnc_error_io(err, failed, "binding a thread to a processor");
    }
    threads->pinned = true;
    return BNC_OK;
}

/* Bind the caller's thread; *before is what it was, for unpin_caller. A processor that was taken away since is no reason
 * not to compute: then the thread stays where it is. */
static void pin_caller(const bnc_threads *threads, cpu_set_t *before) {
    if (threads->pinned && sched_getaffinity(0, sizeof *before, before) == 0)
        (void)sched_setaffinity(0, sizeof threads->first, &threads->first);
    else
        CPU_ZERO(before);
}

static void unpin_caller(const bnc_threads *threads, const cpu_set_t *before) {
    if (threads->pinned && CPU_COUNT(before))
        (void)sched_setaffinity(0, sizeof *before, before);
}

#else

typedef char cpu_set_t;

bnc_status bnc_threads_pin(bnc_threads *threads, bnc_error *err) {
    (void)threads;
    return bnc_error_set(err, BNC_ERR_UNSUPPORTED, "this system cannot bind threads to processors");
}

static void pin_caller(const bnc_threads *threads, cpu_set_t *before) { (void)threads, (void)before; }
static void unpin_caller(const bnc_threads *threads, const cpu_set_t *before) { (void)threads, (void)before; }

#endif

void bnc_threads_run(bnc_threads *threads, bnc_threads_fn fn, void *arg) {
    cpu_set_t callers_processors;
    threads->fn = fn;
    threads->arg = arg;
    pin_caller(threads, &callers_processors);
    /* Rounding and denormals as on the workers, whatever the caller has set: results must not depend on whose share a
     * row is in. */
    fenv_t callers;
    fegetenv(&callers);
    fesetenv(FE_DFL_ENV);
    if (threads->nth > 1) {
        note_callers_processor(threads);
        gate_open(&threads->start);
    }
    fn(arg, 0, threads->nth);
    bnc_threads_barrier(threads);
    fesetenv(&callers);
    unpin_caller(threads, &callers_processors);
}

/* That this process may use. */
static int count_processors(void) {
#if defined(__linux__)
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0)
        return CPU_COUNT(&allowed);
#endif
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

static void stop_and_join(bnc_threads *threads, int n_started) {
    threads->stop = true;
    gate_open(&threads->start);
    for (int i = 0; i < n_started; i++)
        pthread_join(threads->worker[i].id, NULL);
}

bnc_status bnc_threads_new(int nth, bnc_threads **out, bnc_error *err) {
    if (nth < 1 || nth > BNC_THREADS_MAX)
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "n_threads must be 1 to %d, not %d", BNC_THREADS_MAX, nth);
    const size_t bytes = sizeof(bnc_threads) + (size_t)(nth - 1) * sizeof(struct worker);
    bnc_threads *threads = NULL;
    if (posix_memalign((void **)&threads, BNC_CACHE_LINE, bytes) != 0)
        return bnc_error_nomem(err, bytes);
    memset(threads, 0, bytes);
    threads->nth = nth;
    threads->spins_a_yield = nth > count_processors() ? 1 : SPINS_A_YIELD;
    threads->pid = getpid();
    gate_init(&threads->start);
    gate_init(&threads->barrier);
    atomic_init(&threads->arrived, 0);

    /* Signals belong to the caller's threads: a handler must not run on a worker that is deep in a kernel. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int started = 0, failed = 0;
    while (started < nth - 1 && !failed) {
        struct worker *w = &threads->worker[started];
        w->threads = threads;
        w->ith = started + 1;
        failed = pthread_create(&w->id, NULL, worker_main, w);
        started += !failed;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        stop_and_join(threads, started);
        gate_destroy(&threads->start);
        gate_destroy(&threads->barrier);
        free(threads);
        return bnc_error_io(err, failed, "starting a thread");
    }
    *out = threads;
    return BNC_OK;
}

void bnc_threads_free(bnc_threads *threads) {
    if (!threads)
        return;
    if (bnc_threads_usable(threads)) {
        stop_and_join(threads, threads->nth - 1);
        gate_destroy(&threads->start);
        gate_destroy(&threads->barrier);
    } /* in a forked child the locks' state is unknown and there is nobody to join: only the memory goes */
    free(threads);
}

int bnc_threads_count(const bnc_threads *threads) { return threads->nth; }

bool bnc_threads_usable(const bnc_threads *threads) { return threads->pid == getpid(); }

/* ---- a pool between calls ---- */

/* The one that nobody uses, or NULL. Whoever wants it takes it out, so no lock is needed. */
static _Atomic(bnc_threads *) spare;

bnc_status bnc_threads_borrow(int nth, bnc_threads **out, bnc_error *err) {
    if (nth <= 1)
        return bnc_threads_new(nth, out, err);
    bnc_threads *threads = atomic_exchange(&spare, NULL);
    if (threads && threads->nth == nth && bnc_threads_usable(threads)) {
        *out = threads;
        return BNC_OK;
    }
    bnc_threads_free(threads);
    return bnc_threads_new(nth, out, err);
}

void bnc_threads_give_back(bnc_threads *threads) {
    bnc_threads_free(threads->nth > 1 ? atomic_exchange(&spare, threads) : threads);
}

/* Before the code that its threads run goes away. */
__attribute__((destructor)) static void free_spare(void) { bnc_threads_free(atomic_exchange(&spare, NULL)); }
