/*
 * emulated_amx.c - the tile instructions of emulated.h, after their definition in Intel's manual: palette 1, which has
 * eight tiles of up to 16 rows of 64 bytes.
 */
#include "emulated.h"

#include <stdio.h>
#include <stdlib.h>

enum { TILES = 8, MAX_ROWS = 16, MAX_ROW_BYTES = 64 };

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} configuration;

static _Thread_local configuration config; /* palette 0: not configured */
static _Thread_local uint8_t data[TILES][MAX_ROWS][MAX_ROW_BYTES];

/* What a processor answers with an exception. */
static void expect(bool holds, const char *rule) {
    if (holds)
        return;
    fprintf(stderr, "emulated tiles: not so: %s\n", rule);
    abort();
}

void bnc_emulated_loadconfig(const void *from) {
    configuration c;
    memcpy(&c, from, sizeof c);
    expect(sizeof c == 64, "a configuration takes 64 bytes");
    expect(c.palette == 1, "the palette is 1");
    expect(c.start_row == 0, "loading starts with row 0");
    for (int i = 0; i < 14; i++)
        expect(c.reserved[i] == 0, "reserved bytes are 0");
    for (int i = 0; i < 16; i++) {
        expect((c.rows[i] == 0) == (c.row_bytes[i] == 0), "a tile has rows and columns, or neither");
        expect(c.rows[i] <= MAX_ROWS && c.row_bytes[i] <= MAX_ROW_BYTES, "tiles are at most 16 x 64 bytes");
        expect(i < TILES || c.rows[i] == 0, "there are 8 tiles");
    }
    config = c;
    memset(data, 0, sizeof data);
}

void bnc_emulated_release(void) {
    memset(&config, 0, sizeof config);
    memset(data, 0, sizeof data);
}

bool bnc_emulated_in_use(void) { return config.palette != 0; }

static void expect_tile(int tile) {
    expect(config.palette == 1, "tiles are configured before they are used");
    expect(tile >= 0 && tile < TILES && config.rows[tile] > 0, "the tile is one of those configured");
}

void bnc_emulated_loadd(int tile, const void *base, int64_t stride) {
    expect_tile(tile);
    memset(data[tile], 0, sizeof data[tile]);
    for (int m = 0; m < config.rows[tile]; m++)
        memcpy(data[tile][m], (const uint8_t *)base + m * stride, config.row_bytes[tile]);
}

void bnc_emulated_stored(int tile, void *base, int64_t stride) {
    expect_tile(tile);
    for (int m = 0; m < config.rows[tile]; m++)
        memcpy((uint8_t *)base + m * stride, data[tile][m], config.row_bytes[tile]);
}

/* c[m][n] += the sum over k of a[m][k] * b[k / 4][4 n + k % 4]: a signed, b unsigned. */
void bnc_emulated_dpbsud(int c, int a, int b) {
    expect_tile(c);
    expect_tile(a);
    expect_tile(b);
    expect(c != a && c != b && a != b, "a product names three tiles");
    expect(config.row_bytes[c] % 4 == 0 && config.row_bytes[a] % 4 == 0, "rows are whole dwords");
    expect(config.rows[c] == config.rows[a], "C has the rows of A");
    expect(config.row_bytes[c] == config.row_bytes[b], "C has the columns of B");
    expect(config.row_bytes[a] == 4 * config.rows[b], "A has four bytes a row for each row of B");
    for (int m = 0; m < config.rows[c]; m++)
        for (int n = 0; n < config.row_bytes[c] / 4; n++) {
            uint32_t sum;
            memcpy(&sum, &data[c][m][4 * n], 4);
            for (int k = 0; k < config.row_bytes[a]; k++)
                sum += (uint32_t)((int8_t)data[a][m][k] * data[b][k / 4][4 * n + k % 4]);
            memcpy(&data[c][m][4 * n], &sum, 4);
        }
    memset(data[c][config.rows[c]], 0, sizeof data[c] - (size_t)config.rows[c] * MAX_ROW_BYTES);
}
