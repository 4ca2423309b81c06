/*
 * emulated.h - instructions that a machine lacks, from others that it has or from plain C. Included by force before the
 * sources of a level are compiled (cc -include), so that the very lines which run elsewhere are tested here.
 *
 * avxvnni: vpdpbusd as avx512vnni encodes it; the operation is the same one. amx: emulated_amx.c; the rest of its kernels
 * is avx512vnni.
 */
#ifndef BNC_EMULATED_H
#define BNC_EMULATED_H

#include "base.h"

#include <immintrin.h>

#undef BNC_AVXVNNI
#define BNC_AVXVNNI BNC_TARGET("avx2,f16c,avx512f,avx512vl,avx512vnni")
#undef _mm256_dpbusd_avx_epi32
#define _mm256_dpbusd_avx_epi32 _mm256_dpbusd_epi32

#undef BNC_AMX
#define BNC_AMX BNC_AVX512VNNI
#undef _tile_loadconfig
#undef _tile_release
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbsud
#define _tile_loadconfig bnc_emulated_loadconfig
#define _tile_release bnc_emulated_release
#define _tile_loadd bnc_emulated_loadd
#define _tile_stored bnc_emulated_stored
#define _tile_dpbsud bnc_emulated_dpbsud

/* As the instructions of the same names. A use that a processor would refuse ends the program. */
void bnc_emulated_loadconfig(const void *config);
void bnc_emulated_release(void);
void bnc_emulated_loadd(int tile, const void *base, int64_t stride);
void bnc_emulated_stored(int tile, void *base, int64_t stride);
void bnc_emulated_dpbsud(int c, int a, int b);

/* Whether this thread's tiles are configured. */
bool bnc_emulated_in_use(void);

#endif
