/*
 * peak_amx.c - int8 multiply-accumulate with tdpbsud, its operands loaded from the first-level cache as gemm_amx.c loads
 * them: a loop without loads runs faster than any product can, and does not show a machine that holds AMX back.
 */
#include "kernels.h"

#if defined(BNC_HAVE_AMX)

#include "tiles_amx.h"

BNC_AMX int64_t bnc_int8_peak_amx(int64_t n_macs) {
    enum { SUMS = 4, MACS = SUMS * TILE * TILE * 64 };
    _Alignas(64) int8_t a[2][TILE_BYTES];
    _Alignas(64) uint8_t b[2][TILE_BYTES];
    _Alignas(64) int32_t sums[SUMS][TILE * TILE];
    memset(a, 1, sizeof a);
    memset(sums, 0, sizeof sums);
    for (int i = 0; i < 2 * TILE_BYTES; i++)
        b[i / TILE_BYTES][i % TILE_BYTES] = (uint8_t)(i % 16 + 1);
    configure(TILE);
    stored(a);
    stored(b);
    stored(sums);
    _tile_loadd(C0, sums[0], 64);
    _tile_loadd(C1, sums[1], 64);
    _tile_loadd(C2, sums[2], 64);
    _tile_loadd(C3, sums[3], 64);
    for (int64_t done = 0; done + MACS <= n_macs; done += MACS) {
        _tile_loadd(B0, b[0], 64);
        _tile_loadd(A0, a[0], 64);
        _tile_loadd(A1, a[1], 64);
        _tile_loadd(B1, b[1], 64);
        _tile_dpbsud(C0, A0, B0);
        _tile_dpbsud(C2, A1, B0);
        _tile_dpbsud(C1, A0, B1);
        _tile_dpbsud(C3, A1, B1);
    }
    _tile_stored(C0, sums[0], 64);
    _tile_stored(C1, sums[1], 64);
    _tile_stored(C2, sums[2], 64);
    _tile_stored(C3, sums[3], 64);
    _tile_release();
    int64_t total = bnc_int8_peak_avx512vnni(n_macs % MACS); /* what does not fill the tiles */
    for (int i = 0; i < SUMS * TILE * TILE; i++)
        total += sums[i / (TILE * TILE)][i % (TILE * TILE)];
    return total;
}

#endif
