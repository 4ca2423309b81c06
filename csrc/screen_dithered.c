/*
 * screen_dithered.c - the copy with 4 bits a weight and one float16 step a block of 32 (kernels/screen_layout.h).
 *
 * The bound. Code c of weight w in a block with step d is round(w / d + 7.5 + u), and stands for d (c - 7.5 - u), where u is
 * uniform in [-1/2, 1/2), drawn once a column from a secret seed, shared by all rows (subtractive dither: Roberts 1962, Schuchman 1964). For a
 * fixed row the error of weight i is then d e_i with e_i uniform in [-1/2, 1/2) and independent over columns, whatever the
 * weights are. A uniform variable is strictly sub-Gaussian (its moment generating function is at most that of a normal
 * one with its own variance, 1/12), so for an activation x that does not depend on u,
 *
 *     P(|logit - approximation| > t sqrt(sum of d^2 x_i^2)) <= 2 exp(-6 t^2).
 *
 * Over n_rows rows, by the union bound, all hold with probability 1 - p for t = sqrt(ln(2 n_rows / p) / 6); p = 1e-12 a token.
 * x does not depend on u as long as the tokens are those of the exact head, which is what holds.
 */
#include "screen.h"

#include <math.h>

/* Failure probability of a token, all rows together. */
#define FAILURE 1e-12

/*
 * What the derivation leaves out, against S = sqrt(sum of d^2 X^2), X the activation as 16-bit integers:
 *   - u has 2^16 values: its mean error is below 2^-17 a column, 2^-17 sqrt(n) S together, 4e-4 S for n = 2560;
 *   - w / d + u is rounded to float32, 2^-20 at most: less than that;
 *   - (dot - offset) * step, added up in float32: 2^-22 * 15 sum of d |X| <= 4e-6 sqrt(n) S, 2e-4 S.
 * Together below 1e-3 S for n up to 2560, 4e-3 S for n up to 40000, and t > 2.
 * Rounding the activation to X moves a row by at most 8 d / 2 a column, 128 d a block, and rounding the offset by 1 d a
 * block more: find_margin adds what covers that.
 */
#define SLACK 4e-3
#define BLOCK_ERROR 129.0

static int64_t count_stripes(const bnc_screen *s) { return s->n_columns / BNC_SCREEN_STRIPE; }

/* The dither, from a seed that nobody knows; and t. */
static void start(bnc_screen *s, uint64_t seed) {
    seed = bnc_mix64(seed);
    s->factor = (float)(sqrt(log(2.0 * (double)s->model->config.n_vocab / FAILURE) / 6.0) * (1.0 + SLACK));
    for (int64_t i = 0; i < s->n_columns; i++)
        s->dither[i] = ((float)(bnc_mix64(seed + (uint64_t)i) >> 48) + 0.5f) * 0x1p-16f - 0.5f;
}

static void encode(const bnc_screen *s, int64_t r, const float *row) {
    BNC_FN0(s->model->kernels, screen_encode)(row, s->dither, count_stripes(s), s->codes + r * s->row_bytes);
}

/* Column of byte 4 j + m of plane k in its stripe. */
static int64_t column_of(int k, int j, int m) { return BNC_SCREEN_BLOCK * j + 8 * (k / 2) + 4 * (k % 2) + m; }

/* The activation of lane j of a stripe whose first column is first, and its two constants. */
static void prepare_lane(const bnc_screen *s, const float *x, float inverse, int64_t first, int j,
                         bnc_screen_stripe *out) {
    double offset = 0, energy = 0;
    for (int k = 0; k < 8; k++)
        for (int m = 0; m < 4; m++) {
            const int64_t column = first + column_of(k, j, m);
            const int32_t v = column < s->model->config.n_embd ? (int32_t)lrintf(x[column] * inverse) : 0;
            const int32_t low = (v & 255) - 2 * (v & 128), high = (v - low) / 256;
            out->low[k][4 * j + m] = (int8_t)low;
            out->high[k][4 * j + m] = (int8_t)high;
            offset += (7.5 + (double)s->dither[column]) * v;
            energy += (double)v * v;
        }
    out->offset[j] = (float)offset;
    out->energy[j] = (float)energy;
}

/*
 * G such that t sqrt(sum d^2 (E + G)) >= t sqrt(sum d^2 E) + a sum d, for any steps d of the n blocks, E <= max:
 * with B = sum d^2, sum d <= sqrt(n B), and sqrt(A + G B) - sqrt(A) >= G B / (2 sqrt(A + G B)) >= G sqrt(B) / (2 sqrt(max + G)).
 * So t G >= 2 a sqrt(n) sqrt(max + G) is enough: a quadratic equation for G.
 */
static float find_margin(double t, double a, double n, double max) {
    const double k = 2 * a * sqrt(n) / t;
    return (float)((k * k + k * sqrt(k * k + 4 * max)) / 2);
}

static void prepare(const bnc_screen *s, bnc_screen_memory *mem, const float *x) {
    const int64_t n_embd = s->model->config.n_embd, n_stripes = count_stripes(s);
    bnc_screen_stripe *stripes = mem->x;
    float max = 0, max_energy = 0;
    for (int64_t i = 0; i < n_embd; i++)
        max = fabsf(x[i]) > max ? fabsf(x[i]) : max;
    mem->scale = max / BNC_SCREEN_X_MAX;
    for (int64_t i = 0; i < n_stripes; i++)
        for (int j = 0; j < BNC_SCREEN_LANES; j++) {
            prepare_lane(s, x, max > 0 ? BNC_SCREEN_X_MAX / max : 0.0f, i * BNC_SCREEN_STRIPE, j, &stripes[i]);
            max_energy = stripes[i].energy[j] > max_energy ? stripes[i].energy[j] : max_energy;
        }
    const int64_t n_blocks = n_stripes * BNC_SCREEN_LANES;
    const float margin = find_margin(s->factor, BLOCK_ERROR, (double)n_blocks, max_energy);
    for (int64_t i = 0; i < n_stripes; i++)
        for (int j = 0; j < BNC_SCREEN_LANES; j++)
            stripes[i].energy[j] += margin;
}

static void approximate(const bnc_screen *s, bnc_screen_memory *mem, int64_t begin, int64_t end) {
    BNC_FN0(s->model->kernels, screen)
    (s->codes + begin * s->row_bytes, end - begin, count_stripes(s), mem->x, mem->approx + begin, mem->energy + begin);
}

const bnc_screen_copy bnc_screen_dithered = {
    .op = BNC_OP_screen,
    .pad = BNC_SCREEN_STRIPE,
    .pad_bytes = BNC_SCREEN_STRIPE_BYTES,
    .start = start,
    .encode = encode,
    .prepare = prepare,
    .approximate = approximate,
};
