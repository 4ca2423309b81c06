/*
 * screen_proven.c - the copy with 8 bits a weight and one float32 step a row.
 *
 * The bound. A row w becomes d q, q integers up to 127, and r = w - d q; the activation x becomes s X, X integers of 16 bits,
 * and s e = x - s X. Then w . x - d s q . X = r . x + d q . s e, and by Cauchy and Schwarz, in units of s,
 *
 *     |logit - approximation| <= |r| |x / s| + |d q| |e|.
 *
 * There is no chance in it. Two floats a row, residual >= |r| and length >= |w| + |r| >= |d q|, give the width
 *
 *     residual |x / s| + length |e|.
 *
 * What float32 rounds is in it as well, u = 2^-24, n = n_embd, all of it times length |x / s|:
 *   - the logit itself, that the head kernel adds up in lanes: n / 16 + 5 roundings of at most u each;
 *   - the approximation, (float) dot * d: 2 u;
 *   - the threshold in units of s: u of the threshold. Let it rule out, wrongly, a row whose logit reaches it: then the threshold
 *     is at most the logit, or both are negative and it is at most twice as far from 0, or the gap is below the width: 2 u.
 * residual holds n / 8 + 16 of them, which covers that they multiply. |r| is summed in float by lanes of 512 columns, which are added in double: right to 40 u;
 * each r_i = w_i - d q_i is rounded twice, by 3 u |w_i| together. UP covers the sums, the widths' own roundings, and gap^2.
 * Squares neither vanish nor overflow for rows whose largest weight is within SMALLEST and LARGEST; the others, and those that
 * are not finite, are never ruled out.
 */
#include "screen.h"

#include <math.h>

#define UNIT 0x1p-24
#define UP 1.00001
#define SMALLEST 1e-9f
#define LARGEST 1e10f

enum { STRETCH = 512 }; /* columns that are summed in float */

static void start(bnc_screen *s, uint64_t seed) {
    (void)seed;
    s->factor = 1;
}

/* The largest magnitude; NaN if there is one. */
static float max_of(const float *w, int64_t n) {
    uint32_t top = 0;
    for (int64_t i = 0; i < n; i++) {
        const uint32_t magnitude = bnc_bits_f32(w[i]) & 0x7fffffffu; /* ordered as the magnitudes are, NaN above all */
        top = magnitude > top ? magnitude : top;
    }
    return bnc_f32_bits(top);
}

/* Codes of up to STRETCH columns; adds the squares of the weights, and of what the codes leave of them. */
static void encode_stretch(const float *w, int64_t n, float step, float inverse, int8_t *codes, double *square,
                           double *residual) {
    float lane[BNC_LANES] = {0}, left[BNC_LANES] = {0};
    for (int64_t i = 0; i < n; i += BNC_LANES) /* n_columns is a multiple of it */
        for (int k = 0; k < BNC_LANES; k++) {
            const float v = w[i + k];
            const int32_t q = (int32_t)(v * inverse + 127.5f) - 127; /* |v * inverse| <= 127.00003 */
            const float r = v - step * (float)q;
            codes[i + k] = (int8_t)q;
            lane[k] += v * v;
            left[k] += r * r;
        }
    *square += (double)bnc_sum_lanes(lane);
    *residual += (double)bnc_sum_lanes(left);
}

static void encode(const bnc_screen *s, int64_t r, const float *row) {
    const float max = max_of(row, s->n_columns);
    int8_t *codes = (int8_t *)(s->codes + r * s->row_bytes);
    if (!(max >= SMALLEST && max <= LARGEST)) {
        memset(codes, 0, (size_t)s->row_bytes);
        s->rows[r] = (bnc_screen_row){0, max == 0 ? 0 : INFINITY, 0}; /* a row of zeros is known to the bit */
        return;
    }
    const float step = max / 127.0f, inverse = 127.0f / max;
    double square = 0, residual = 0;
    for (int64_t i = 0; i < s->n_columns; i += STRETCH)
        encode_stretch(row + i, bnc_min_i64(STRETCH, s->n_columns - i), step, inverse, codes + i, &square, &residual);
    const double left = sqrt(residual) + 3 * UNIT * sqrt(square), length = (sqrt(square) + left) * UP;
    const double roundings = (double)s->n_columns / 8 + 16;
    s->rows[r] = (bnc_screen_row){step, (float)((left + roundings * UNIT * length) * UP), (float)(length * UP)};
}

static void prepare(const bnc_screen *s, bnc_screen_memory *mem, const float *x) {
    const int64_t n_embd = s->model->config.n_embd;
    const float max = max_of(x, n_embd), inverse = BNC_SCREEN_X_MAX / max;
    const bool usable = max > 1e-25f && max <= 1e30f; /* a scale of 0 rules nothing out */
    int16_t *X = mem->x;
    double square = 0, error = 0;
    mem->scale = usable ? max / BNC_SCREEN_X_MAX : 0;
    for (int64_t i = 0; i < s->n_columns; i++)
        X[i] = i < n_embd && usable ? (int16_t)lrintf(x[i] * inverse) : 0;
    for (int64_t i = 0; usable && i < n_embd; i++) {
        const double exact = (double)x[i] / (double)mem->scale, e = exact - X[i];
        square += exact * exact;
        error += e * e;
    }
    mem->length = (float)(sqrt(square) * UP);
    mem->rounding = (float)(sqrt(error) * UP);
}

static void approximate(const bnc_screen *s, bnc_screen_memory *mem, int64_t begin, int64_t end) {
    BNC_FN0(s->model->kernels, screen8)
    (s->codes + begin * s->row_bytes, end - begin, s->n_columns, mem->x, mem->approx + begin);
    for (int64_t r = begin; r < end; r++) {
        const bnc_screen_row *row = &s->rows[r];
        const float width = row->residual * mem->length + row->length * mem->rounding;
        mem->approx[r] *= row->step;
        mem->energy[r] = width * width * (float)UP;
    }
}

const bnc_screen_copy bnc_screen_proven = {
    .op = BNC_OP_screen8,
    .pad = 64,
    .pad_bytes = 64,
    .row_extra_bytes = sizeof(bnc_screen_row),
    .start = start,
    .encode = encode,
    .prepare = prepare,
    .approximate = approximate,
};
