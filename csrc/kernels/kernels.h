/*
 * kernels.h - the operations that have more than one implementation, and the set of chosen ones.
 *
 * A set is a value, not a group of globals: two sets can run side by side in one test. Sets start from scalar and
 * overlay the faster rows of kernels.def, so that a missing kernel is slow, never absent.
 *
 * Every kernel gives the same bits as the scalar one. Integer kernels do because integers are exact; float kernels do
 * because the order of every sum is part of the operation: sums run in BNC_LANES independent partial sums (element i
 * goes to lane i % BNC_LANES), joined by bnc_sum_lanes, and a product is rounded before it is added (no FMA).
 */
#ifndef BNC_KERNELS_H
#define BNC_KERNELS_H

#include "base.h"
#include "bitnet_core.h"
#include "cpu.h"
#include "dtype.h"
#include "screen_layout.h"

enum { BNC_LANES = 16 };

/* What scores and mix take at most on a q8_0 cache: elements of a head, rows. */
enum { BNC_Q8_0_HEAD_MAX = 512, BNC_MIX_ROWS = 256 };

/* The one way to join the lanes of a sum: halves, then quarters, and so on, as vector registers fold. */
BNC_INLINE float bnc_sum_lanes(const float lane[BNC_LANES]) {
    float s[8];
    for (int i = 0; i < 8; i++)
        s[i] = lane[i] + lane[i + 8];
    for (int i = 0; i < 4; i++)
        s[i] = s[i] + s[i + 4];
    return (s[0] + s[2]) + (s[1] + s[3]);
}

/* What measure finds out about a stretch of floats. */
typedef struct {
    float sum;                /* of magnitudes, by lanes */
    float max;                /* largest magnitude */
    int64_t first_not_finite; /* index in the stretch, or -1 */
} bnc_magnitudes;

/*
 * OP(name, return type, arguments). In arguments: ne0 is the length of a row, w are packed weights, q int8 activations.
 *
 * quantize    rows of x, all finite, -> packed rows at out; BNC_PACK_FLAT formats are called with any split into whole
 *             blocks. scale is used by the formats that have one for the tensor. The tail is not written here.
 * quantize_streamed  the same past the caches, out being aligned to 16 bytes; may be absent. Call bnc_streamed() afterwards.
 * dequantize  the inverse; past the caches where there is much to write.
 * scan        position of the first byte in [0, nbytes) that holds a code with no meaning, or -1.
 * pack        rows of w, all of whose codes have a meaning, -> rows of pack5 (pack5_scalar.c) with the same values.
 * measure     magnitudes of n floats; sum and max are 0 when one of them is not finite.
 * arrange     q (ne0 rounded up to BNC_Q8_PAD) into the order the gemv and gemm of the same set read; may be absent: then
 *             they read it as it is. A level that brings one of the three alone goes by the order of the levels before it.
 * gemv        y[r] = sum over i of value(w[r][i]) * q[i], exact; q_sum is the sum of q.
 * gemm        the same for n_tokens rows of q, q_stride apart, into rows of y, y_stride apart.
 * head        y[r] = sum over i of w[r][i] * x[i], float weights, by lanes.
 * rms_norm    y = x / sqrt(mean(x^2) + eps) * weight; the largest |y|, found on the way.
 * q8          q = round_half_even(x * s), s = 127 / max(max, 1e-5), max being the largest |x|; zeros up to n_padded; the sum of q.
 * scale_i32   y[i] = (I[i] / s) * d, in this order.
 * exps        x = exp(x - max) in place; the largest x and, by lanes, the sum of the results.
 * rope        rotate pairs (i, i + n_rot / 2) of x by the angles whose cosines and sines are given.
 * relu2, silu y = act(gate) * up.
 * add         y += x.
 * scores      y[g][j] = (sum over i of x[g][i] * k[j][i]) * scale, by lanes, for n_group queries x (n_group, ne0) that share n
 *             rows of keys; rows of y are y_stride apart. next is what will be read after the keys, and as long: it may
 *             be fetched ahead.
 * mix         y[g][i] = sum over j of p[g][j] * v[j][i], j ascending; rows of p are p_stride apart, of y y_stride; next as
 *             in scores.
 *
 *             On q8_0 both compute with integers where many elements meet. scores: the query is quantized as the keys were, and
 *             the sum runs over blocks, ascending: (float)(exact product of the codes) * (d of the key * d of the query).
 *             mix: |p| <= 1, n <= BNC_MIX_ROWS; p * d is rounded to 16 bits of the largest d of the 32 columns, p = 1:
 *             w[j] = round_half_even(p[j] * (d[j] * (32767 / top))), y = (float)(exact sum of w * code) * (top / 32767).
 *             Heads are whole blocks, up to BNC_Q8_0_HEAD_MAX elements.
 * screen      rows of a 4-bit head (screen_layout.h) times an activation: sums[r] = the sum over lanes of (dot - offset) * step, and
 *             energies[r] = the sum over lanes of step^2 * energy.
 * screen8     y[r] = sum over i of w[r][i] * x[i], int8 from -127 on times int16, ne0 a multiple of 64: exact, then rounded to
 *             float once.
 * screen_encode  a row of such a head from n_stripes * 512 floats, and the dither of each column.
 * int8_peak   n_macs (a multiple of BNC_INT8_PEAK_STEP) multiply-accumulates of int8 from registers; of amx, from the
 *             first-level cache.
 */
#define BNC_OPS(OP)                                                                                             \
    OP(quantize, void, (const float *x, int64_t n_rows, int64_t ne0, float scale, uint8_t *out))                \
    OP(quantize_streamed, void, (const float *x, int64_t n_rows, int64_t ne0, float scale, uint8_t *out))       \
    OP(dequantize, void, (const uint8_t *in, int64_t n_rows, int64_t ne0, float scale, float *x))               \
    OP(scan, int64_t, (const uint8_t *in, int64_t nbytes))                                                      \
    OP(pack, void, (const uint8_t *w, int64_t n_rows, int64_t ne0, uint8_t *out))                               \
    OP(measure, void, (const float *x, int64_t n, bnc_magnitudes *out))                                         \
    OP(arrange, void, (const int8_t *q, int64_t n_padded, int8_t *out))                                         \
    OP(gemv, void, (const uint8_t *w, int64_t n_rows, int64_t ne0, const int8_t *q, int32_t q_sum, int32_t *y)) \
    OP(gemm, void,                                                                                              \
       (const uint8_t *w, int64_t n_rows, int64_t ne0, const int8_t *q, int64_t q_stride, const int32_t *q_sum, \
        int64_t n_tokens, int32_t *y, int64_t y_stride))                                                        \
    OP(head, void, (const uint8_t *w, int64_t n_rows, int64_t ne0, const float *x, float *y))                   \
    OP(rms_norm, float, (const float *x, const float *weight, int64_t n, float eps, float *y))                  \
    OP(q8, void, (const float *x, int64_t n, int64_t n_padded, float max, int8_t *q, float *s, int32_t *q_sum)) \
    OP(scale_i32, void, (const int32_t *x, int64_t n, float s, float d, float *y))                              \
    OP(exps, void, (float *x, int64_t n, float *max, float *sum))                                               \
    OP(rope, void, (float *x, const float *cosines, const float *sines, int64_t n_rot))                         \
    OP(relu2, void, (const float *gate, const float *up, int64_t n, float *y))                                  \
    OP(silu, void, (const float *gate, const float *up, int64_t n, float *y))                                   \
    OP(add, void, (const float *x, int64_t n, float *y))                                                        \
    OP(scores, void,                                                                                            \
       (const float *x, int n_group, const uint8_t *k, int64_t n, int64_t ne0, float scale, float *y,           \
        int64_t y_stride, const uint8_t *next))                                                                 \
    OP(mix, void,                                                                                               \
       (const float *p, int64_t p_stride, int n_group, const uint8_t *v, int64_t n, int64_t ne0, float *y,      \
        int64_t y_stride, const uint8_t *next))                                                                 \
    OP(screen, void,                                                                                            \
       (const uint8_t *w, int64_t n_rows, int64_t n_stripes, const bnc_screen_stripe *x, float *sums,           \
        float *energies))                                                                                       \
    OP(screen8, void, (const uint8_t *w, int64_t n_rows, int64_t ne0, const int16_t *x, float *y))              \
    OP(screen_encode, void, (const float *w, const float *dither, int64_t n_stripes, uint8_t *out))             \
    OP(int8_peak, int64_t, (int64_t n_macs))

enum {
#define OP(name, ret, args) BNC_OP_##name,
    BNC_OPS(OP)
#undef OP
        BNC_OP_COUNT
};

#define OP(name, ret, args) typedef ret(*bnc_##name##_fn) args;
BNC_OPS(OP)
#undef OP

/* Declarations of every implementation, from the list: bnc_<op>_<dtype>_<isa>, or bnc_<op>_<isa> without a dtype. */
#define OP(name, ret, args) typedef ret bnc_##name##_type args;
BNC_OPS(OP)
#undef OP
#define KERNEL(op, dtype, isa) bnc_##op##_type bnc_##op##_##dtype##_##isa;
#define KERNEL0(op, isa) bnc_##op##_type bnc_##op##_##isa;
#include "kernels.def"
#undef KERNEL
#undef KERNEL0

/* Before other threads are told of what was written past the caches. */
BNC_INLINE void bnc_streamed(void) {
#if defined(BNC_X86_64)
    __builtin_ia32_sfence();
#endif
}

/* Activations are padded with zeros to a multiple of this, a multiple of the block of every weight format: 5 * 256, 4 * 320. */
enum { BNC_Q8_PAD = 1280 };

/* Columns whose products a screen8 kernel may add up in int32 lanes: 512 in each of eight, at most 127 * 32767 each. */
enum { BNC_SCREEN8_STRETCH = 4096 };

/* What every int8_peak kernel's inner loop divides. */
enum { BNC_INT8_PEAK_STEP = 4096 };

typedef void (*bnc_any_fn)(void);

typedef struct {
    bnc_any_fn fn;
    int32_t index; /* of the row in kernels.def */
} bnc_choice;

struct bnc_kernels {
    int32_t isa;
    bnc_choice choice[BNC_OP_COUNT][BNC_DTYPE_COUNT]; /* an operation without dtype uses column 0 */
};

/* The chosen function of op, typed. fn is NULL only for an (op, dtype) that no row of kernels.def names. */
#define BNC_FN(kernels, op, dtype) ((bnc_##op##_fn)(kernels)->choice[BNC_OP_##op][dtype].fn)
#define BNC_FN0(kernels, op) BNC_FN(kernels, op, 0)

#endif
