/*
 * differential.c - every kernel of every level against the scalar one, bit for bit, on random data of awkward sizes.
 *
 * Each buffer ends where an unmapped page begins, so a kernel that reads or writes one byte too far dies here.
 * Usage: differential SEED ROUNDS. Prints one line a kernel; exits 1 at the first difference.
 *
 * Compiled with BNC_EMULATED, and with the sources of the levels below under emulated.h, it runs those levels instead of
 * the ones that the machine has.
 */
#define _DEFAULT_SOURCE
#include "kernels/kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static uint64_t state;

static uint64_t random_u64(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static int64_t between(int64_t lo, int64_t hi) { return lo + (int64_t)(random_u64() % (uint64_t)(hi - lo + 1)); }

/* ---- buffers that end at an unmapped page ---- */

enum { MAX_BUFFERS = 16 };
static struct {
    void *map;
    size_t bytes;
} maps[MAX_BUFFERS];
static int n_maps;

static void *buffer(size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (bytes + page - 1) / page * page;
    uint8_t *map = mmap(NULL, body + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || n_maps == MAX_BUFFERS || mprotect(map + body, page, PROT_NONE) != 0) {
        fprintf(stderr, "no memory for a buffer\n");
        exit(2);
    }
    maps[n_maps].map = map;
    maps[n_maps++].bytes = body + page;
    return map + body - bytes;
}

static void free_buffers(void) {
    while (n_maps > 0) {
        n_maps--;
        munmap(maps[n_maps].map, maps[n_maps].bytes);
    }
}

static uint8_t *random_bytes(size_t n) {
    uint8_t *p = buffer(n);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)random_u64();
    return p;
}

/* Floats in [-range, range); every eighth is zero or repeats the one before it, so that ties occur. */
static float *random_floats(int64_t n, float range) {
    float *p = buffer((size_t)n * sizeof(float));
    for (int64_t i = 0; i < n; i++) {
        p[i] = ((float)(random_u64() >> 40) * 0x1p-23f - 1.0f) * range;
        if (random_u64() % 8 == 0)
            p[i] = i && random_u64() % 2 ? p[i - 1] : 0.0f;
    }
    return p;
}

/* ---- comparing ---- */

typedef struct {
    const char *name;
    bnc_any_fn scalar, fast;
    bnc_arrange_fn arrange; /* of the fast kernel's level */
    int dtype;
} pair;

static void expect_same(const pair *p, const void *expected, const void *got, size_t bytes, const char *what) {
    if (memcmp(expected, got, bytes) == 0)
        return;
    size_t at = 0;
    while (((const uint8_t *)expected)[at] == ((const uint8_t *)got)[at])
        at++;
    printf("%s: %s differs at byte %zu of %zu\n", p->name, what, at, bytes);
    exit(1);
}

/* Call both functions of p with arguments where OUT stands for the output, and compare n elements of type. */
#define COMPARE(p, op, type, n, ...)                                             \
    do {                                                                         \
        type *OUT = buffer((size_t)(n) * sizeof(type));                          \
        type *expected = OUT;                                                    \
        ((bnc_##op##_fn)(p)->scalar)(__VA_ARGS__);                               \
        OUT = buffer((size_t)(n) * sizeof(type));                                \
        ((bnc_##op##_fn)(p)->fast)(__VA_ARGS__);                                 \
        expect_same(p, expected, OUT, (size_t)(n) * sizeof(type), "the result"); \
    } while (0)

/* ---- one function an operation ---- */

/* Rows and columns that the dtype of p can hold. */
static void shape(const pair *p, int64_t *n_rows, int64_t *ne0) {
    const bnc_dtype *d = bnc_dtype_at(p->dtype);
    *n_rows = between(1, 9);
    const bool whole = d->packing == BNC_PACK_FLAT || d->packing == BNC_PACK_ROW;
    *ne0 = whole ? between(1, 12) * d->block : between(1, 1500);
    if (d->packing == BNC_PACK_ROW4)
        *n_rows *= 4;
}

static int64_t packed_bytes(const pair *p, int64_t n_rows, int64_t ne0) {
    return bnc_dtype_nbytes(p->dtype, n_rows, ne0, NULL) - bnc_dtype_at(p->dtype)->tail_bytes;
}

/* Whether a cache may be of this dtype: unlike the caller's tensors, nobody looks at what goes into one. */
static bool cached(const pair *p) {
    return p->dtype == BNC_DTYPE_f16 || p->dtype == BNC_DTYPE_f32 || p->dtype == BNC_DTYPE_q8_0;
}

/* Every sixteenth time some of them are beyond what formats hold. */
static void make_huge(float *x, int64_t n) {
    const float huge[] = {INFINITY, -INFINITY, 1e7f, 3e38f};
    for (int64_t i = random_u64() % 16 ? 0 : between(1, 4); i > 0; i--)
        x[between(0, n - 1)] = huge[between(0, 3)];
}

static void test_quantize(const pair *p) {
    int64_t n_rows, ne0;
    shape(p, &n_rows, &ne0);
    float *x = random_floats(n_rows * ne0, 2.0f);
    if (cached(p)) {
        make_huge(x, n_rows * ne0);
        for (int64_t i = random_u64() % 4 ? 0 : between(1, 20); i > 0; i--)
            x[between(0, n_rows * ne0 - 1)] = NAN;
    }
    COMPARE(p, quantize, uint8_t, packed_bytes(p, n_rows, ne0), x, n_rows, ne0, 0.75f, OUT);
}

/* Its scalar kernel is that of quantize; out begins at a multiple of 16 bytes, so it may end before its page. */
static void test_quantize_streamed(const pair *p) {
    const bnc_quantize_fn scalar = BNC_FN(bnc_kernels_get(BNC_ISA_scalar), quantize, p->dtype);
    int64_t n_rows, ne0;
    shape(p, &n_rows, &ne0);
    const float *x = random_floats(n_rows * ne0, 2.0f);
    const size_t bytes = (size_t)packed_bytes(p, n_rows, ne0), room = (bytes + 15) / 16 * 16;
    uint8_t *expected = buffer(room), *got = buffer(room);
    scalar(x, n_rows, ne0, 0.75f, expected);
    ((bnc_quantize_streamed_fn)p->fast)(x, n_rows, ne0, 0.75f, got);
    bnc_streamed();
    expect_same(p, expected, got, room, "the result"); /* zeros behind it included */
}

static void test_dequantize(const pair *p) {
    int64_t n_rows, ne0;
    shape(p, &n_rows, &ne0);
    const float *x = random_floats(n_rows * ne0, 2.0f);
    uint8_t *packed = buffer((size_t)packed_bytes(p, n_rows, ne0));
    ((bnc_quantize_fn)BNC_FN(bnc_kernels_get(BNC_ISA_scalar), quantize, p->dtype))(x, n_rows, ne0, 0.75f, packed);
    COMPARE(p, dequantize, float, n_rows *ne0, packed, n_rows, ne0, 0.75f, OUT);
}

/* n bytes of four codes below 3. */
static uint8_t *ternary_codes(int64_t n) {
    uint8_t *codes = buffer((size_t)n);
    for (int64_t i = 0; i < n; i++)
        codes[i] = (uint8_t)(between(0, 2) | between(0, 2) << 2 | between(0, 2) << 4 | between(0, 2) << 6);
    return codes;
}

static void test_scan(const pair *p) {
    const int64_t n = between(1, 300);
    uint8_t *codes = ternary_codes(n);
    for (int64_t bad = between(0, 2); bad > 0; bad--)
        codes[between(0, n - 1)] |= (uint8_t)(3u << (2 * between(0, 3)));
    int64_t expected = ((bnc_scan_fn)p->scalar)(codes, n), got = ((bnc_scan_fn)p->fast)(codes, n);
    expect_same(p, &expected, &got, sizeof got, "the position");
}

static void test_pack(const pair *p) {
    const int64_t n_rows = between(1, 5), ne0 = between(1, 16) * bnc_dtype_at(p->dtype)->block;
    const uint8_t *codes = ternary_codes(packed_bytes(p, n_rows, ne0));
    COMPARE(p, pack, uint8_t, bnc_dtype_nbytes(BNC_DTYPE_pack5, n_rows, ne0, NULL), codes, n_rows, ne0, OUT);
}

static void test_measure(const pair *p) {
    const int64_t n = between(1, 200);
    float *x = random_floats(n, 10.0f);
    for (int64_t bad = between(-3, 2); bad > 0; bad--)
        x[between(0, n - 1)] = bad == 1 ? 1.0f / 0.0f : 0.0f / 0.0f;
    bnc_magnitudes expected, got;
    ((bnc_measure_fn)p->scalar)(x, n, &expected);
    ((bnc_measure_fn)p->fast)(x, n, &got);
    expect_same(p, &expected.first_not_finite, &got.first_not_finite, sizeof got.first_not_finite, "the position");
    if (got.first_not_finite < 0) {
        expect_same(p, &expected.sum, &got.sum, sizeof got.sum, "the sum");
        expect_same(p, &expected.max, &got.max, sizeof got.max, "the maximum");
    }
}

/* Packed rows; every fourth time one code alone, so that sums reach their bounds. */
static uint8_t *ternary_rows(const pair *p, int64_t n_rows, int64_t ne0) {
    uint8_t *w = random_bytes((size_t)packed_bytes(p, n_rows, ne0));
    if (random_u64() % 4 == 0)
        memset(w, random_u64() % 2 ? 0xff : 0, (size_t)packed_bytes(p, n_rows, ne0));
    return w;
}

/* n_tokens rows of int8, as they are and as the fast kernel wants them; every fourth time one value at its bound. */
static void activations(const pair *p, int64_t n_tokens, int64_t ne0, int64_t stride, int8_t **plain, int8_t **arranged,
                        int32_t *q_sum) {
    *plain = (int8_t *)random_bytes((size_t)(n_tokens * stride));
    if (random_u64() % 4 == 0)
        memset(*plain, random_u64() % 2 ? 127 : -128, (size_t)(n_tokens * stride));
    *arranged = buffer((size_t)(n_tokens * stride));
    memcpy(*arranged, *plain, (size_t)(n_tokens * stride));
    for (int64_t t = 0; t < n_tokens; t++) {
        int8_t *row = *plain + t * stride;
        memset(row + ne0, 0, (size_t)(stride - ne0));
        q_sum[t] = 0;
        for (int64_t i = 0; i < ne0; i++)
            q_sum[t] += row[i];
        if (p->arrange)
            p->arrange(row, stride, *arranged + t * stride);
        else
            memcpy(*arranged + t * stride, row, (size_t)stride);
    }
}

enum { MAX_TOKENS = 70 };

static void test_gemm(const pair *p) {
    int64_t n_rows, ne0, n_tokens = between(1, 9);
    shape(p, &n_rows, &ne0);
    /* Now and then more than one tile of any kernel; half of these with no row left over, so that a tile ends the buffer. */
    if (between(0, 3) == 0) {
        n_rows = between(0, 1) ? 16 * between(1, 9) : between(1, 140);
        n_tokens = between(1, MAX_TOKENS);
    }
    const int64_t stride = bnc_round_up(ne0, BNC_Q8_PAD), y_stride = n_rows + between(0, 3);
    const uint8_t *w = ternary_rows(p, n_rows, ne0);
    int8_t *plain, *arranged;
    int32_t q_sum[MAX_TOKENS];
    activations(p, n_tokens, ne0, stride, &plain, &arranged, q_sum);
    int32_t *expected = buffer((size_t)(n_tokens * y_stride) * 4), *got = buffer((size_t)(n_tokens * y_stride) * 4);
    ((bnc_gemm_fn)p->scalar)(w, n_rows, ne0, plain, stride, q_sum, n_tokens, expected, y_stride);
    ((bnc_gemm_fn)p->fast)(w, n_rows, ne0, arranged, stride, q_sum, n_tokens, got, y_stride);
    expect_same(p, expected, got, (size_t)(n_tokens * y_stride) * 4, "the product");
}

static void test_gemv(const pair *p) {
    int64_t n_rows, ne0;
    shape(p, &n_rows, &ne0);
    const uint8_t *w = ternary_rows(p, n_rows, ne0);
    int8_t *plain, *arranged;
    int32_t q_sum;
    activations(p, 1, ne0, bnc_round_up(ne0, BNC_Q8_PAD), &plain, &arranged, &q_sum);
    int32_t *expected = buffer((size_t)n_rows * 4), *got = buffer((size_t)n_rows * 4);
    ((bnc_gemv_fn)p->scalar)(w, n_rows, ne0, plain, q_sum, expected);
    ((bnc_gemv_fn)p->fast)(w, n_rows, ne0, arranged, q_sum, got);
    expect_same(p, expected, got, (size_t)n_rows * 4, "the product");
}

/* n_rows rows of floats in the dtype of p. */
static uint8_t *float_rows(const pair *p, int64_t n_rows, int64_t ne0) {
    float *x = random_floats(n_rows * ne0, 3.0f);
    if (cached(p))
        make_huge(x, n_rows * ne0);
    uint8_t *w = buffer((size_t)packed_bytes(p, n_rows, ne0));
    ((bnc_quantize_fn)BNC_FN(bnc_kernels_get(BNC_ISA_scalar), quantize, p->dtype))(x, n_rows, ne0, 1.0f, w);
    return w;
}

static void test_head(const pair *p) {
    const int64_t n_rows = between(1, 11), ne0 = bnc_round_up(between(1, 150), bnc_dtype_at(p->dtype)->block);
    const uint8_t *w = float_rows(p, n_rows, ne0);
    const float *x = random_floats(ne0, 2.0f);
    COMPARE(p, head, float, n_rows, w, n_rows, ne0, x, OUT);
}

/* Rows of keys or values; heads of whole blocks where the dtype has blocks. Now and then as many as a chunk has. */
static void attention_shape(const pair *p, int64_t *n, int64_t *ne0) {
    const int64_t block = bnc_dtype_at(p->dtype)->block;
    *n = random_u64() % 16 ? between(1, 40) : BNC_MIX_ROWS;
    *ne0 = block > 1 ? between(1, 9) * block : between(0, 2) ? between(1, 12) * 16 : between(1, 150);
}

static void test_scores(const pair *p) {
    int64_t n, ne0;
    attention_shape(p, &n, &ne0);
    const int n_group = (int)between(1, 9);
    const int64_t stride = n + 3;
    const uint8_t *k = float_rows(p, n, ne0), *next = float_rows(p, n, ne0);
    const float *x = random_floats(n_group * ne0, 2.0f);
    COMPARE(p, scores, float, n_group *stride, x, n_group, k, n, ne0, 0.3f, OUT, stride, next);
}

static void test_mix(const pair *p) {
    int64_t n, ne0;
    attention_shape(p, &n, &ne0);
    const int n_group = (int)between(1, 9);
    const int64_t stride = n + 3;
    const uint8_t *v = float_rows(p, n, ne0);
    const float *weights = random_floats(n_group * stride, 1.0f);
    COMPARE(p, mix, float, n_group *(ne0 + 2), weights, stride, n_group, v, n, ne0, OUT, ne0 + 2, v);
}

static void test_rms_norm(const pair *p) {
    const int64_t n = between(1, 300);
    const float *x = random_floats(n, 5.0f), *weight = random_floats(n, 2.0f);
    float *expected = buffer((size_t)n * sizeof(float)), *got = buffer((size_t)n * sizeof(float));
    const float max = ((bnc_rms_norm_fn)p->scalar)(x, weight, n, 1e-5f, expected);
    const float fast = ((bnc_rms_norm_fn)p->fast)(x, weight, n, 1e-5f, got);
    expect_same(p, expected, got, (size_t)n * sizeof(float), "the row");
    expect_same(p, &max, &fast, sizeof max, "the largest magnitude");
}

static void test_q8(const pair *p) {
    const int64_t n = between(1, 300), padded = bnc_round_up(n, BNC_Q8_PAD);
    const float *x = random_floats(n, random_u64() % 4 ? 5.0f : 1e-6f);
    float s[2], max = 0;
    for (int64_t i = 0; i < n; i++)
        max = fabsf(x[i]) > max ? fabsf(x[i]) : max;
    int32_t sum[2];
    int8_t *expected = buffer((size_t)padded), *got = buffer((size_t)padded);
    ((bnc_q8_fn)p->scalar)(x, n, padded, max, expected, &s[0], &sum[0]);
    ((bnc_q8_fn)p->fast)(x, n, padded, max, got, &s[1], &sum[1]);
    expect_same(p, expected, got, (size_t)padded, "the codes");
    expect_same(p, &s[0], &s[1], sizeof s[0], "the scale");
    expect_same(p, &sum[0], &sum[1], sizeof sum[0], "the sum");
}

static void test_scale_i32(const pair *p) {
    const int64_t n = between(1, 100);
    int32_t *x = (int32_t *)(void *)random_bytes((size_t)n * 4);
    for (int64_t i = 0; i < n; i++)
        x[i] >>= 8;
    COMPARE(p, scale_i32, float, n, x, n, 40.64f, 1.25f, OUT);
}

/* Operations in place start from a copy. */
static void test_exps(const pair *p) {
    const int64_t n = between(1, 200);
    float *expected = random_floats(n, random_u64() % 2 ? 5.0f : 200.0f), *got = buffer((size_t)n * sizeof(float));
    memcpy(got, expected, (size_t)n * sizeof(float));
    float max[2], sum[2];
    ((bnc_exps_fn)p->scalar)(expected, n, &max[0], &sum[0]);
    ((bnc_exps_fn)p->fast)(got, n, &max[1], &sum[1]);
    expect_same(p, expected, got, (size_t)n * sizeof(float), "the exponentials");
    expect_same(p, &max[0], &max[1], sizeof max[0], "the maximum");
    expect_same(p, &sum[0], &sum[1], sizeof sum[0], "the sum");
}

static void test_rope(const pair *p) {
    const int64_t half = between(1, 70);
    float *expected = random_floats(2 * half, 5.0f), *got = buffer((size_t)(2 * half) * sizeof(float));
    memcpy(got, expected, (size_t)(2 * half) * sizeof(float));
    const float *cosines = random_floats(half, 1.0f), *sines = random_floats(half, 1.0f);
    ((bnc_rope_fn)p->scalar)(expected, cosines, sines, 2 * half);
    ((bnc_rope_fn)p->fast)(got, cosines, sines, 2 * half);
    expect_same(p, expected, got, (size_t)(2 * half) * sizeof(float), "the rotation");
}

static void test_relu2(const pair *p) {
    const int64_t n = between(1, 100);
    const float *gate = random_floats(n, random_u64() % 2 ? 5.0f : 200.0f), *up = random_floats(n, 5.0f);
    COMPARE(p, relu2, float, n, gate, up, n, OUT);
}

static void test_silu(const pair *p) { test_relu2(p); /* the same arguments */ }

static void test_add(const pair *p) {
    const int64_t n = between(1, 100);
    const float *x = random_floats(n, 5.0f);
    COMPARE(p, add, float, n, x, n, OUT); /* fresh buffers hold zeros */
}

static void test_screen(const pair *p) {
    const int64_t n_rows = between(1, 9), n_stripes = between(1, 4);
    uint8_t *w = random_bytes((size_t)(n_rows * n_stripes) * BNC_SCREEN_STRIPE_BYTES);
    for (int64_t i = 0; i < n_rows * n_stripes; i++) /* steps are finite and not negative */
        for (int j = 0; j < BNC_SCREEN_LANES; j++)
            w[i * BNC_SCREEN_STRIPE_BYTES + BNC_SCREEN_CODE_BYTES + 2 * j + 1] &= 0x3f;
    bnc_screen_stripe *x = (bnc_screen_stripe *)(void *)random_bytes((size_t)n_stripes * sizeof *x);
    for (int64_t i = 0; i < n_stripes; i++)
        for (int j = 0; j < BNC_SCREEN_LANES; j++) {
            x[i].offset[j] = (float)between(-1000000, 1000000);
            x[i].energy[j] = (float)between(0, 1000000);
        }
    float *sums[2], *energies[2];
    for (int i = 0; i < 2; i++) {
        sums[i] = buffer((size_t)n_rows * sizeof(float));
        energies[i] = buffer((size_t)n_rows * sizeof(float));
        ((bnc_screen_fn)(i ? p->fast : p->scalar))(w, n_rows, n_stripes, x, sums[i], energies[i]);
    }
    expect_same(p, sums[0], sums[1], (size_t)n_rows * sizeof(float), "a sum");
    expect_same(p, energies[0], energies[1], (size_t)n_rows * sizeof(float), "an energy");
}

/* Codes and activations as far from 0 as they go, over more columns than int32 holds. */
static void test_screen8(const pair *p) {
    const int64_t n_rows = between(1, 19), ne0 = between(0, 20) ? between(1, 9) * 64 : 4 * BNC_SCREEN8_STRETCH + 64;
    const bool extreme = between(0, 1);
    uint8_t *w = random_bytes((size_t)(n_rows * ne0));
    int16_t *x = (int16_t *)(void *)random_bytes((size_t)ne0 * sizeof *x);
    for (int64_t i = 0; i < n_rows * ne0; i++)
        w[i] = extreme ? (uint8_t)(i / ne0 % 2 ? 127 : -127) : w[i] == 128 ? 0 : w[i];
    for (int64_t i = 0; extreme && i < ne0; i++)
        x[i] = 32767;
    COMPARE(p, screen8, float, n_rows, w, n_rows, ne0, x, OUT);
}

static void test_screen_encode(const pair *p) {
    const int64_t n_stripes = between(1, 3), n = n_stripes * BNC_SCREEN_STRIPE;
    const float *w = random_floats(n, random_u64() % 4 ? 2.0f : 1e-7f);
    float *dither = random_floats(n, 0.5f);
    COMPARE(p, screen_encode, uint8_t, n_stripes * BNC_SCREEN_STRIPE_BYTES, w, dither, n_stripes, OUT);
}

static void test_int8_peak(const pair *p) {
    const int64_t n = between(1, 40) * BNC_INT8_PEAK_STEP;
    const int64_t expected = ((bnc_int8_peak_fn)p->scalar)(n), got = ((bnc_int8_peak_fn)p->fast)(n);
    expect_same(p, &expected, &got, sizeof got, "the checksum");
}

/* ---- all of them ---- */

/* An order of activations means something only to the gemv and gemm that read it, and is tested with them. */
#define test_arrange NULL

static void (*const tests[])(const pair *) = {
#define OP(name, ret, args) test_##name,
    BNC_OPS(OP)
#undef OP
};

static const char *const op_names[] = {
#define OP(name, ret, args) #name,
    BNC_OPS(OP)
#undef OP
};

/* Every implementation, in the order of bnc_kernel_at. */
static const bnc_any_fn functions[] = {
#define KERNEL(op, dtype, isa) (bnc_any_fn) bnc_##op##_##dtype##_##isa,
#define KERNEL0(op, isa) (bnc_any_fn) bnc_##op##_##isa,
#include "kernels/kernels.def"
#undef KERNEL
#undef KERNEL0
};

#if defined(BNC_EMULATED)

bool bnc_emulated_in_use(void);

/* The levels of emulated.h, and what their stand-ins need. */
static bool runs(int32_t isa) {
    const uint32_t needs = BNC_CPU_AVX2 | BNC_CPU_F16C | BNC_CPU_AVX512 | BNC_CPU_AVX512VNNI;
    return (isa == BNC_ISA_avxvnni || isa == BNC_ISA_amx) && (bnc_cpu_bits() & needs) == needs;
}

#else

static bool bnc_emulated_in_use(void) { return false; }
static bool runs(int32_t isa) { return isa != BNC_ISA_scalar && bnc_isa_supported(isa); }

#endif

/* How activations are arranged at a level: the set of a level that cannot be had is that of the levels before it. */
static bnc_arrange_fn arrange_at(int32_t isa, int dtype) {
    bnc_any_fn found = NULL;
    for (int32_t i = 0; i < bnc_kernel_count(); i++) {
        const bnc_kernel_info info = bnc_kernel_at(i);
        if (strcmp(info.op, "arrange") == 0 && info.dtype == dtype && info.isa <= isa && bnc_isa_supported(info.isa))
            found = functions[i];
    }
    return (bnc_arrange_fn)found;
}

int main(int argc, char **argv) {
    const uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    const long rounds = argc > 2 ? strtol(argv[2], NULL, 10) : 100;
    const bnc_kernels *scalar = bnc_kernels_get(BNC_ISA_scalar);
    int compared = 0;
    for (int32_t i = 0; i < bnc_kernel_count(); i++) {
        const bnc_kernel_info info = bnc_kernel_at(i);
        const bnc_kernels *set = bnc_kernels_get(info.isa);
        int op = 0;
        while (strcmp(op_names[op], info.op) != 0)
            op++;
        if (!runs(info.isa) || !tests[op])
            continue;
        const int dtype = info.dtype < 0 ? 0 : info.dtype;
        const pair p = {info.name, scalar->choice[op][dtype].fn, functions[i], arrange_at(info.isa, dtype), dtype};
        if (set && (set->choice[op][dtype].index != i || set->choice[op][dtype].fn != p.fast)) {
            printf("%s: its level chooses another kernel\n", info.name);
            return 1;
        }
        state = seed * 0x9e3779b97f4a7c15u + 1;
        for (long round = 0; round < rounds; round++) {
            tests[op](&p);
            free_buffers();
            if (bnc_emulated_in_use()) {
                printf("%s: leaves tiles configured\n", info.name);
                return 1;
            }
        }
        printf("%s: same as scalar in %ld rounds\n", info.name, rounds);
        compared++;
    }
    printf("compared %d kernels\n", compared);
    return 0;
}
