/*
 * dot_vnni.h - vpdpbusd: sum + the products of unsigned codes with signed q, added in fours.
 */
#ifndef BNC_DOT_VNNI_H
#define BNC_DOT_VNNI_H

#include "base.h"

#include <immintrin.h>

/* Keeps a sum in one register. Without it gcc 12 copies sums before and after each product and, from a dozen of them on,
 * keeps them in memory: tiles then run at half their speed. */
#if defined(__clang__)
#define KEEP_IN_REGISTER(sum)
#else
#define KEEP_IN_REGISTER(sum) __asm__("" : "+v"(sum))
#endif

#if defined(BNC_HAVE_AVXVNNI)
BNC_AVXVNNI BNC_INLINE __m256i bnc_dot_avxvnni(__m256i sum, __m256i codes, __m256i q) {
    sum = _mm256_dpbusd_avx_epi32(sum, codes, q);
    KEEP_IN_REGISTER(sum);
    return sum;
}
#endif

BNC_AVX512VNNI BNC_INLINE __m512i bnc_dot_avx512vnni(__m512i sum, __m512i codes, __m512i q) {
    sum = _mm512_dpbusd_epi32(sum, codes, q);
    KEEP_IN_REGISTER(sum);
    return sum;
}

#endif
