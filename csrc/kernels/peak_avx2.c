/*
 * peak_avx2.c - int8 multiply-accumulate from registers with maddubs, as gemv_avx2.c does it without its loads.
 */
#include "kernels.h"

#if defined(BNC_X86_64)

#include "lanes_avx2.h"

/* Eight chains of dependent additions hide their latency; 16 steps of pairs <= 2 * 16 * 1 stay far inside int16. */
BNC_AVX2 int64_t bnc_int8_peak_avx2(int64_t n_macs) {
    enum { CHAINS = 8, STEPS = 16, MACS = 32 };
    __m256i codes = _mm256_setr_epi8(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 1, 2, 3, 4, 5, 6, 7, 8, 9,
                                     10, 11, 12, 13, 14, 15, 16);
    const __m256i q = _mm256_set1_epi8(1);
    __m256i total = _mm256_setzero_si256();
    for (int64_t done = 0; done < n_macs; done += (int64_t)CHAINS * STEPS * MACS) {
        __m256i sum[CHAINS];
        for (int c = 0; c < CHAINS; c++)
            sum[c] = _mm256_setzero_si256();
        for (int step = 0; step < STEPS; step++) {
            for (int c = 0; c < CHAINS; c++) {
                __asm__ volatile("" : "+x"(codes)); /* could be anything now: no product is hoisted or shared */
                sum[c] = _mm256_add_epi16(sum[c], _mm256_maddubs_epi16(codes, q));
            }
        }
        for (int c = 0; c < CHAINS; c++)
            total = _mm256_add_epi32(total, _mm256_madd_epi16(sum[c], _mm256_set1_epi16(1)));
    }
    int32_t lanes[8];
    int64_t all = 0;
    _mm256_storeu_si256((__m256i *)lanes, total);
    for (int i = 0; i < 8; i++)
        all += lanes[i];
    return all;
}

#endif
