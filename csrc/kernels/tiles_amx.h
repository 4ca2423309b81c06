/*
 * tiles_amx.h - the tile registers as the amx level uses them, and their configuration.
 *
 *     C (16 tokens x 16 rows, int32)  +=  A (16 tokens x 64 activations, signed)  *  B (64 codes x 16 rows, unsigned)
 *
 * Row j of a tile of B holds codes 4 j .. 4 j + 3 of its 16 rows of weights. Tiles of A and C may have fewer tokens.
 *
 * Tiles are configured by the call that uses them and released at its end. By the ABI whoever is called between two calls
 * may change the configuration; a thread that waits, or is interrupted, then has no 8 KiB of tiles to save; and nothing
 * needs to know when threads begin and end. A call takes thousands of cycles, the two instructions about two hundred.
 */
#ifndef BNC_TILES_AMX_H
#define BNC_TILES_AMX_H

#include "base.h"

#include <immintrin.h>

enum { TILE = 16, TILE_BYTES = 1024 };

/* Tile registers by what they hold. Intrinsics want numbers. */
#define C0 0
#define C1 1
#define C2 2
#define C3 3
#define A0 4
#define A1 5
#define B0 6
#define B1 7

/* gcc's intrinsics do not say that they read memory: what lies at p, and all else, is stored before what follows. */
BNC_INLINE void stored(const void *p) { __asm__ volatile("" : : "r"(p) : "memory"); }

/* Tiles of n_tokens <= 16 rows for A and C. What they held is lost. */
BNC_AMX static void configure(int64_t n_tokens) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } c = {.palette = 1};
    for (int i = C0; i <= B1; i++) {
        c.row_bytes[i] = 64;
        c.rows[i] = (uint8_t)(i == B0 || i == B1 ? TILE : n_tokens);
    }
    stored(&c);
    _tile_loadconfig(&c);
}

#endif
