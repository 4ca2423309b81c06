/*
 * peak_avxvnni.c - int8 multiply-accumulate from registers with vpdpbusd on 256-bit registers.
 */
#include "kernels.h"

#if defined(BNC_HAVE_AVXVNNI)

#include "dot_vnni.h"

/* Twelve chains of dependent additions hide their latency and leave registers for the operands. Those that are left over
 * are done one by one at the end. */
BNC_AVXVNNI int64_t bnc_int8_peak_avxvnni(int64_t n_macs) {
    enum { CHAINS = 12, MACS = 32 };
    const __m256i codes = _mm256_setr_epi8(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 1, 2, 3, 4, 5, 6, 7,
                                           8, 9, 10, 11, 12, 13, 14, 15, 16);
    const __m256i q = _mm256_set1_epi8(1);
    __m256i sum[CHAINS];
    BNC_UNROLL
    for (int c = 0; c < CHAINS; c++)
        sum[c] = _mm256_setzero_si256();
    int64_t left = n_macs / MACS;
    for (; left >= CHAINS; left -= CHAINS)
        BNC_UNROLL
    for (int c = 0; c < CHAINS; c++)
        sum[c] = bnc_dot_avxvnni(sum[c], codes, q);
    for (; left > 0; left--)
        sum[0] = bnc_dot_avxvnni(sum[0], codes, q);
    __m256i total = _mm256_setzero_si256();
    BNC_UNROLL
    for (int c = 0; c < CHAINS; c++) {
        total = _mm256_add_epi64(total, _mm256_cvtepi32_epi64(_mm256_castsi256_si128(sum[c])));
        total = _mm256_add_epi64(total, _mm256_cvtepi32_epi64(_mm256_extracti128_si256(sum[c], 1)));
    }
    int64_t lanes[4];
    _mm256_storeu_si256((__m256i *)lanes, total);
    return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

#endif
