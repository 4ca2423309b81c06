/*
 * gemm_amx.c - packed ternary rows times the activations of many tokens with tdpbsud.
 *
 * A is read where the activations lie, in the order of the avx512vnni level (which does the decoding: there is no gemv
 * here): the 64 bytes that a field of a block meets are adjacent, and so are a row of A. C is read and written where it lies
 * in y. Only B is made: the packed bytes of 16 rows are transposed, as dwords, before they are unpacked, so that one
 * transposition serves the four fields.
 *
 *     16 rows x 16 dwords of packed bytes  --transpose-->  dword j of all rows  --field k-->  row j of the tile of field k
 *
 * What does not fill tiles is left to avx512vnni: a few tokens, and rows beyond a multiple of 16.
 */
#include "kernels.h"

#if defined(BNC_HAVE_AMX)

#include "fields_avx512.h"
#include "tiles_amx.h"

/*
 * From how many tokens on. A tile of B costs about 25 cycles to unpack, and 16 for each 16 tokens; avx512vnni takes about
 * 12 a token for as many products. Where the machine holds AMX back (a quarter of its speed was seen), that is 64 for 16
 * tokens, so fewer than 8 would lose there what they gain elsewhere.
 */
enum { MIN_TOKENS = 8 };

/*
 * PANEL rows are unpacked for CHUNK columns and meet all tokens before the next are unpacked. The panel (32 KiB) and the
 * activations of two tiles of tokens (16 KiB) are what a first-level cache of 48 KiB holds: longer chunks would send the
 * panel out of it, shorter ones load and store C more often.
 */
enum {
    PANEL_TILES = 4,
    PANEL = PANEL_TILES * TILE,
    CHUNK_BLOCKS = 2,
    ROW_TILE_BYTES = CHUNK_BLOCKS * FIELDS * TILE_BYTES
};

/* ---- unpacking ---- */

/* Dword j of v[r] to dword r of v[j]. */
BNC_AMX BNC_INLINE void transpose(__m512i v[TILE]) {
    __m512i t[TILE];
    BNC_UNROLL
    for (int i = 0; i < TILE; i += 4) { /* 128 bits l of t[i + m]: dword 4 l + m of rows i .. i + 3 */
        const __m512i a = _mm512_unpacklo_epi32(v[i], v[i + 1]), b = _mm512_unpackhi_epi32(v[i], v[i + 1]);
        const __m512i c = _mm512_unpacklo_epi32(v[i + 2], v[i + 3]), d = _mm512_unpackhi_epi32(v[i + 2], v[i + 3]);
        t[i] = _mm512_unpacklo_epi64(a, c);
        t[i + 1] = _mm512_unpackhi_epi64(a, c);
        t[i + 2] = _mm512_unpacklo_epi64(b, d);
        t[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    BNC_UNROLL
    for (int m = 0; m < 4; m++) { /* the same with 128 bits for a dword */
        const __m512i a = _mm512_shuffle_i32x4(t[m], t[m + 4], 0x88), b = _mm512_shuffle_i32x4(t[m], t[m + 4], 0xdd);
        const __m512i c = _mm512_shuffle_i32x4(t[m + 8], t[m + 12], 0x88);
        const __m512i d = _mm512_shuffle_i32x4(t[m + 8], t[m + 12], 0xdd);
        v[m] = _mm512_shuffle_i32x4(a, c, 0x88);
        v[m + 4] = _mm512_shuffle_i32x4(b, d, 0x88);
        v[m + 8] = _mm512_shuffle_i32x4(a, c, 0xdd);
        v[m + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
}

/* A block of 16 rows, of which mask tells the bytes that exist, to its FIELDS tiles. Later ones, so many bytes ahead, are
 * fetched from memory meanwhile. */
BNC_AMX BNC_INLINE void unpack(const uint8_t *w, int64_t row_bytes, __mmask64 mask, int64_t ahead, uint8_t *out,
                               format f) {
    __m512i v[TILE];
    BNC_UNROLL
    for (int r = 0; r < TILE; r++) {
        _mm_prefetch((const char *)w + r * row_bytes + ahead, _MM_HINT_T0);
        v[r] = _mm512_maskz_loadu_epi8(mask, w + r * row_bytes);
    }
    transpose(v);
    BNC_UNROLL
    for (int j = 0; j < TILE; j++)
        BNC_UNROLL
    for (int k = 0; k < FIELDS; k++)
        _mm512_store_si512(out + k * TILE_BYTES + 64 * j, field(v[j], k, f));
}

/* ---- products ---- */

/* y[t][r] += a . b over n_tiles times 64 columns: two tiles of tokens against one or two of rows. All loads of a step come
 * first. */
BNC_AMX static void two_token_tiles(const int8_t *a, int64_t q_stride, const uint8_t *b, int row_tiles, int64_t n_tiles,
                                    int32_t *y, int64_t y_stride) {
    const int64_t y_bytes = y_stride * 4;
    const int8_t *lower = a + TILE * q_stride;
    int32_t *y_lower = y + TILE * y_stride;
    const bool wide = row_tiles > 1;
    _tile_loadd(C0, y, y_bytes);
    _tile_loadd(C2, y_lower, y_bytes);
    if (wide) {
        _tile_loadd(C1, y + TILE, y_bytes);
        _tile_loadd(C3, y_lower + TILE, y_bytes);
    }
    for (int64_t i = 0; i < n_tiles; i++) {
        _tile_loadd(B0, b + i * TILE_BYTES, 64);
        _tile_loadd(A0, a + i * 64, q_stride);
        _tile_loadd(A1, lower + i * 64, q_stride);
        if (wide)
            _tile_loadd(B1, b + ROW_TILE_BYTES + i * TILE_BYTES, 64);
        _tile_dpbsud(C0, A0, B0);
        _tile_dpbsud(C2, A1, B0);
        if (wide) {
            _tile_dpbsud(C1, A0, B1);
            _tile_dpbsud(C3, A1, B1);
        }
    }
    _tile_stored(C0, y, y_bytes);
    _tile_stored(C2, y_lower, y_bytes);
    if (wide) {
        _tile_stored(C1, y + TILE, y_bytes);
        _tile_stored(C3, y_lower + TILE, y_bytes);
    }
}

/* The same for one tile of tokens against up to four of rows: as many sums at once hide as much latency. */
BNC_AMX static void one_token_tile(const int8_t *a, int64_t q_stride, const uint8_t *b, int row_tiles, int64_t n_tiles,
                                   int32_t *y, int64_t y_stride) {
    const int64_t y_bytes = y_stride * 4;
    _tile_loadd(C0, y, y_bytes);
    if (row_tiles > 1)
        _tile_loadd(C1, y + TILE, y_bytes);
    if (row_tiles > 2)
        _tile_loadd(C2, y + 2 * TILE, y_bytes);
    if (row_tiles > 3)
        _tile_loadd(C3, y + 3 * TILE, y_bytes);
    for (int64_t i = 0; i < n_tiles; i++) {
        const uint8_t *bi = b + i * TILE_BYTES;
        _tile_loadd(A0, a + i * 64, q_stride);
        _tile_loadd(B0, bi, 64);
        _tile_dpbsud(C0, A0, B0);
        if (row_tiles > 1) {
            _tile_loadd(B1, bi + ROW_TILE_BYTES, 64);
            _tile_dpbsud(C1, A0, B1);
        }
        if (row_tiles > 2) {
            _tile_loadd(B0, bi + 2 * ROW_TILE_BYTES, 64);
            _tile_dpbsud(C2, A0, B0);
        }
        if (row_tiles > 3) {
            _tile_loadd(B1, bi + 3 * ROW_TILE_BYTES, 64);
            _tile_dpbsud(C3, A0, B1);
        }
    }
    _tile_stored(C0, y, y_bytes);
    if (row_tiles > 1)
        _tile_stored(C1, y + TILE, y_bytes);
    if (row_tiles > 2)
        _tile_stored(C2, y + 2 * TILE, y_bytes);
    if (row_tiles > 3)
        _tile_stored(C3, y + 3 * TILE, y_bytes);
}

/* All tokens against a panel. *configured: for how many tokens the tiles are. */
BNC_AMX static void all_tokens(const int8_t *q, int64_t q_stride, int64_t n_tokens, const uint8_t *panel, int row_tiles,
                               int64_t n_tiles, int32_t *y, int64_t y_stride, int64_t *configured) {
    for (int64_t t = 0; t < n_tokens;) {
        const int64_t left = n_tokens - t, wanted = bnc_min_i64(left, TILE);
        const int8_t *a = q + t * q_stride;
        int32_t *yt = y + t * y_stride;
        if (*configured != wanted) {
            configure(wanted);
            *configured = wanted;
        }
        if (left >= 2 * TILE) {
            for (int r = 0; r < row_tiles; r += 2)
                two_token_tiles(a, q_stride, panel + r * ROW_TILE_BYTES, row_tiles - r, n_tiles, yt + r * TILE,
                                y_stride);
            t += 2 * TILE;
        } else {
            one_token_tile(a, q_stride, panel, row_tiles, n_tiles, yt, y_stride);
            t += wanted;
        }
    }
}

BNC_AMX BNC_INLINE void gemm_panel(const uint8_t *w, int64_t row_bytes, int row_tiles, const int8_t *q,
                                   int64_t q_stride, const int32_t *q_sum, int64_t n_tokens, int32_t *y,
                                   int64_t y_stride, int64_t *configured, format f) {
    _Alignas(64) uint8_t panel[PANEL_TILES * ROW_TILE_BYTES];
    const int64_t n_blocks = bnc_ceil_div(row_bytes, BLOCK_BYTES);
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t r = 0; r < row_tiles * TILE; r++)
            y[t * y_stride + r] = -f.bias * q_sum[t];
    for (int64_t b = 0; b < n_blocks; b += CHUNK_BLOCKS) {
        const int64_t n = bnc_min_i64(CHUNK_BLOCKS, n_blocks - b);
        /* After this chunk comes the next one of the same rows, or the first one of the next panel. */
        const int64_t ahead = b + n < n_blocks ? n * BLOCK_BYTES : PANEL * row_bytes - b * BLOCK_BYTES;
        for (int tile = 0; tile < row_tiles; tile++)
            for (int64_t i = 0; i < n; i++) {
                const int64_t at = (b + i) * BLOCK_BYTES;
                const __mmask64 mask = row_bytes - at >= BLOCK_BYTES ? ~(__mmask64)0 : (__mmask64)0xffffffffu;
                unpack(w + tile * TILE * row_bytes + at, row_bytes, mask, ahead,
                       panel + tile * ROW_TILE_BYTES + i * FIELDS * TILE_BYTES, f);
            }
        stored(panel);
        all_tokens(q + b * BLOCK, q_stride, n_tokens, panel, row_tiles, n * FIELDS, y, y_stride, configured);
    }
}

/* n_rows: a multiple of TILE. */
BNC_AMX BNC_INLINE void gemm(const uint8_t *w, int64_t row_bytes, int64_t n_rows, const int8_t *q, int64_t q_stride,
                             const int32_t *q_sum, int64_t n_tokens, int32_t *y, int64_t y_stride, format f) {
    int64_t configured = 0;
    for (int64_t r = 0; r < n_rows; r += PANEL)
        gemm_panel(w + r * row_bytes, row_bytes, (int)(bnc_min_i64(PANEL, n_rows - r) / TILE), q, q_stride, q_sum,
                   n_tokens, y + r, y_stride, &configured, f);
    _tile_release();
}

#define KERNELS(dtype, row_bytes, f)                                                                                  \
    BNC_AMX void bnc_gemm_##dtype##_amx(const uint8_t *w, int64_t n_rows, int64_t ne0, const int8_t *q,               \
                                        int64_t q_stride, const int32_t *q_sum, int64_t n_tokens, int32_t *y,         \
                                        int64_t y_stride) {                                                           \
        const int64_t tiled = n_tokens < MIN_TOKENS ? 0 : n_rows / TILE * TILE;                                       \
        if (tiled)                                                                                                    \
            gemm(w, row_bytes, tiled, q, q_stride, q_sum, n_tokens, y, y_stride, f);                                  \
        if (tiled < n_rows)                                                                                           \
            bnc_gemm_##dtype##_avx512vnni(w + tiled * (row_bytes), n_rows - tiled, ne0, q, q_stride, q_sum, n_tokens, \
                                          y + tiled, y_stride);                                                       \
    }

KERNELS(i2_s, ne0 / 4, I2_S)
KERNELS(qk256, bnc_ceil_div(ne0, 256) * 64, QK256)

#endif
