/*
 * probe.c - what the machine could do at best: the denominators of every "fraction of the limit".
 */
#include "error.h"
#include "kernels/kernels.h"
#include "threads.h"

#include <stdlib.h>
#if defined(BNC_X86_64)
#include <emmintrin.h>
#endif

/*
 * One stream a core leaves a third or more of the memory bandwidth unused: a core's prefetcher follows a stream, and
 * several streams keep more lines in flight. Eight were the best of 1, 4, 8 and 16.
 */
enum { STREAMS = 8, LINE = 64, PREFETCH = 1024 };

typedef struct {
    const uint8_t *data;
    int64_t lines; /* in the whole buffer */
    int32_t repeat;
    uint64_t *sums; /* (n_threads,) a cache line apart */
} read_job;

static uint64_t sum_line(const uint8_t *p) {
    uint64_t words[LINE / 8], sum = 0;
    memcpy(words, p, LINE);
    for (int i = 0; i < LINE / 8; i++)
        sum += words[i];
    return sum;
}

static void read_worker(void *arg, int ith, int nth) {
    const read_job *job = arg;
    int64_t begin, end;
    bnc_split(job->lines, 1, ith, nth, &begin, &end);
    const int64_t per_stream = (end - begin) / STREAMS;
    uint64_t sum[STREAMS] = {0};
    for (int32_t k = 0; k < job->repeat; k++) {
        const uint8_t *p = job->data + begin * LINE;
        for (int64_t i = 0; i < per_stream; i++, p += LINE)
            for (int s = 0; s < STREAMS; s++) {
                const uint8_t *line = p + s * per_stream * LINE;
                __builtin_prefetch(line + PREFETCH);
                sum[s] += sum_line(line);
            }
        for (int64_t i = begin + per_stream * STREAMS; i < end; i++)
            sum[0] += sum_line(job->data + i * LINE);
    }
    uint64_t total = 0;
    for (int s = 0; s < STREAMS; s++)
        total += sum[s];
    job->sums[(int64_t)ith * (LINE / 8)] = total;
}

bnc_status bnc_read_sum(const uint8_t *data, int64_t bytes, int32_t n_threads, int32_t repeat, uint64_t *sum,
                        bnc_error *err) {
    if (bytes < LINE || bytes % LINE || repeat < 1)
        return bnc_error_set(err, BNC_ERR_ARGUMENT,
                             "bytes (%lld) must be a positive multiple of %d, repeat (%d) at least 1", (long long)bytes,
                             LINE, (int)repeat);
    bnc_threads *threads = NULL;
    BNC_TRY(bnc_threads_new(n_threads, &threads, err));
    uint64_t *sums = calloc((size_t)n_threads, LINE);
    bnc_status status = sums ? BNC_OK : bnc_error_nomem(err, (uint64_t)n_threads * LINE);
    if (sums) {
        read_job job = {data, bytes / LINE, repeat, sums};
        bnc_threads_run(threads, read_worker, &job);
        *sum = 0;
        for (int32_t i = 0; i < n_threads; i++)
            *sum += sums[(int64_t)i * (LINE / 8)];
    }
    free(sums);
    bnc_threads_free(threads);
    return status;
}

typedef struct {
    uint8_t *data;
    int64_t lines;
    uint8_t value;
    bool streamed;
    int32_t repeat;
} fill_job;

static void fill_lines(uint8_t *p, int64_t lines, uint8_t value, bool streamed) {
#if defined(BNC_X86_64)
    const __m128i v = _mm_set1_epi8((char)value);
    for (; streamed && lines > 0; lines--, p += LINE)
        for (int i = 0; i < LINE; i += 16)
            _mm_stream_si128((__m128i *)(void *)(p + i), v);
    _mm_sfence();
#else
    (void)streamed;
#endif
    memset(p, value, (size_t)(lines * LINE));
}

static void fill_worker(void *arg, int ith, int nth) {
    const fill_job *job = arg;
    int64_t begin, end;
    bnc_split(job->lines, 1, ith, nth, &begin, &end);
    for (int32_t k = 0; k < job->repeat; k++)
        fill_lines(job->data + begin * LINE, end - begin, job->value, job->streamed);
}

bnc_status bnc_fill(uint8_t *data, int64_t bytes, int32_t value, int32_t streamed, int32_t n_threads, int32_t repeat,
                    bnc_error *err) {
    if (bytes < LINE || bytes % LINE || repeat < 1 || (streamed && (uintptr_t)data % 16))
        return bnc_error_set(
            err, BNC_ERR_ARGUMENT,
            "bytes (%lld) must be a positive multiple of %d, repeat (%d) at least 1, a streamed fill aligned to 16",
            (long long)bytes, LINE, (int)repeat);
    bnc_threads *threads = NULL;
    BNC_TRY(bnc_threads_new(n_threads, &threads, err));
    fill_job job = {data, bytes / LINE, (uint8_t)value, streamed != 0, repeat};
    bnc_threads_run(threads, fill_worker, &job);
    bnc_threads_free(threads);
    return BNC_OK;
}

typedef struct {
    const bnc_kernels *kernels;
    int64_t n_macs;
    int64_t sums[BNC_THREADS_MAX]; /* written once at the end: no sharing while it counts */
} peak_job;

static void peak_worker(void *arg, int ith, int nth) {
    (void)nth;
    peak_job *job = arg;
    job->sums[ith] = BNC_FN0(job->kernels, int8_peak)(job->n_macs);
}

bnc_status bnc_int8_peak(const bnc_kernels *kernels, int64_t n_macs, int32_t n_threads, int64_t *checksum,
                         bnc_error *err) {
    if (n_macs < BNC_INT8_PEAK_STEP || n_macs % BNC_INT8_PEAK_STEP)
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "n_macs (%lld) must be a positive multiple of %d",
                             (long long)n_macs, BNC_INT8_PEAK_STEP);
    bnc_threads *threads = NULL;
    BNC_TRY(bnc_threads_new(n_threads, &threads, err));
    peak_job job = {.kernels = kernels, .n_macs = n_macs};
    bnc_threads_run(threads, peak_worker, &job);
    *checksum = 0;
    for (int32_t i = 0; i < n_threads; i++)
        *checksum += job.sums[i];
    bnc_threads_free(threads);
    return BNC_OK;
}
