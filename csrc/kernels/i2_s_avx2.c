/*
 * i2_s_avx2.c - 32 bytes at once: 32 weights of each of their four fields.
 *
 * The three layouts of i2_s_scalar.c differ in where these stand: the four fields of a group of i2_s, the halves of two groups of
 * i2_s_64, 32 columns of four rows of i2_s_row4.
 */
#include "kernels.h"

#if defined(BNC_X86_64)

#include "codes_avx2.h"

/* Where the weights of 32 bytes stand, in floats from the first: those of bytes 16 to 31, and those of the next field. */
typedef struct {
    int64_t upper, field;
} place;

/* The largest float that is not above half of s: a float is above the one if and only if it is above the other. */
BNC_INLINE float half_of(float s) {
    const float half = s * 0.5f; /* rounded where s has no exact half, below 2^-125 */
    return half + half > s ? bnc_f32_bits(bnc_bits_f32(half) - 1) : half;
}

/* Eight weights -> -1, 0, +1: the comparisons of i2_s_scalar.c, whose all-ones masks are -1. */
BNC_AVX2 BNC_INLINE __m256i ternary8(const float *x, __m256 half, __m256 minus_half) {
    const __m256 w = _mm256_loadu_ps(x);
    return _mm256_sub_epi32(_mm256_castps_si256(_mm256_cmp_ps(w, minus_half, _CMP_LT_OQ)),
                            _mm256_castps_si256(_mm256_cmp_ps(w, half, _CMP_GT_OQ)));
}

BNC_AVX2 BNC_INLINE __m256i ternary32(const float *x, int64_t upper, __m256 half, __m256 minus_half) {
    return bnc_narrow_avx2(ternary8(x, half, minus_half), ternary8(x + 8, half, minus_half),
                           ternary8(x + upper, half, minus_half), ternary8(x + upper + 8, half, minus_half));
}

BNC_AVX2 BNC_INLINE __m256i times_4_plus(__m256i a, __m256i b) {
    const __m256i twice = _mm256_add_epi8(a, a);
    return _mm256_add_epi8(_mm256_add_epi8(twice, twice), b);
}

BNC_AVX2 BNC_INLINE void pack32(const float *x, place at, float scale, uint8_t *out) {
    const __m256 h = _mm256_set1_ps(half_of(scale)), minus_h = _mm256_set1_ps(-half_of(scale));
    /* The four fields as digits of base 4, -85 to 85 in a byte; code = digit + 1 adds 01 01 01 01 in bits. */
    __m256i byte = ternary32(x, at.upper, h, minus_h);
    byte = times_4_plus(byte, ternary32(x + at.field, at.upper, h, minus_h));
    byte = times_4_plus(byte, ternary32(x + 2 * at.field, at.upper, h, minus_h));
    byte = times_4_plus(byte, ternary32(x + 3 * at.field, at.upper, h, minus_h));
    byte = _mm256_add_epi8(bnc_in_order_avx2(byte), _mm256_set1_epi8(0x55));
    _mm256_storeu_si256((__m256i *)out, byte);
}

/* One field of the 32 bytes in b, eight bytes in the elements of each register -> 32 floats. */
BNC_AVX2 BNC_INLINE void spread_field(const __m256i b[4], int shift, __m256 value, float *x, int64_t upper,
                                      bool stream) {
    float *const to[4] = {x, x + 8, x + upper, x + upper + 8};
    for (int i = 0; i < 4; i++) /* vpermilps looks at the low two bits alone */
        bnc_store8_avx2(to[i], _mm256_permutevar_ps(value, _mm256_srli_epi32(b[i], shift)), stream);
}

BNC_AVX2 BNC_INLINE void unpack32(const uint8_t *in, place at, __m256 value, float *x, bool stream) {
    __m256i b[4];
    for (int k = 0; k < 4; k++)
        b[k] = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(in + 8 * k)));
    spread_field(b, 6, value, x, at.upper, stream);
    spread_field(b, 4, value, x + at.field, at.upper, stream);
    spread_field(b, 2, value, x + 2 * at.field, at.upper, stream);
    spread_field(b, 0, value, x + 3 * at.field, at.upper, stream);
}

/* The values of the four codes, twice. */
BNC_AVX2 BNC_INLINE __m256 values_of(float scale) {
    const float minus = -1.0f * scale, zero = 0.0f * scale, none = 2.0f * scale;
    return _mm256_setr_ps(minus, zero, scale, none, minus, zero, scale, none);
}

/* ---- i2_s and i2_s_64: n weights, 128 at once; of i2_s_64 half of that may be left ---- */

static const place i2_s = {.upper = 16, .field = 32}, i2_s_64 = {.upper = 64, .field = 16};

BNC_AVX2 BNC_INLINE void pack_groups(const float *x, int64_t n, place at, float scale, uint8_t *out) {
    for (; n >= 128; n -= 128, x += 128, out += 32)
        pack32(x, at, scale, out);
    if (n > 0) {
        float room[128] = {0};
        uint8_t bytes[32];
        memcpy(room, x, (size_t)n * 4);
        pack32(room, at, scale, bytes);
        memcpy(out, bytes, (size_t)n / 4);
    }
}

BNC_AVX2 BNC_INLINE void unpack_groups(const uint8_t *in, int64_t n, place at, __m256 value, float *x, bool stream) {
    for (; n >= 128; n -= 128, x += 128, in += 32)
        unpack32(in, at, value, x, stream);
    if (n > 0) {
        uint8_t bytes[32] = {0};
        float room[128];
        memcpy(bytes, in, (size_t)n / 4);
        unpack32(bytes, at, value, room, false);
        memcpy(x, room, (size_t)n * 4);
    }
}

#define GROUPS(dtype)                                                                                        \
    BNC_AVX2 void bnc_quantize_##dtype##_avx2(const float *x, int64_t n_rows, int64_t ne0, float scale,      \
                                              uint8_t *out) {                                                \
        pack_groups(x, n_rows *ne0, dtype, scale, out);                                                      \
    }                                                                                                        \
    BNC_AVX2 void bnc_dequantize_##dtype##_avx2(const uint8_t *in, int64_t n_rows, int64_t ne0, float scale, \
                                                float *x) {                                                  \
        const int64_t n = n_rows * ne0;                                                                      \
        if (bnc_stream_pays(x, n)) {                                                                         \
            unpack_groups(in, n, dtype, values_of(scale), x, true);                                          \
            _mm_sfence();                                                                                    \
        } else {                                                                                             \
            unpack_groups(in, n, dtype, values_of(scale), x, false);                                         \
        }                                                                                                    \
    }

GROUPS(i2_s)
GROUPS(i2_s_64)

/* ---- i2_s_row4: four rows, 32 columns at once ---- */

BNC_AVX2 BNC_INLINE void pack_rows(const float *x, int64_t ne0, float scale, uint8_t *out) {
    int64_t i = 0;
    for (; i + 32 <= ne0; i += 32)
        pack32(x + i, (place){16, ne0}, scale, out + i);
    if (i < ne0) {
        const size_t n = (size_t)(ne0 - i);
        float room[4 * 32] = {0};
        uint8_t bytes[32];
        for (int r = 0; r < 4; r++)
            memcpy(room + 32 * r, x + r * ne0 + i, n * 4);
        pack32(room, i2_s, scale, bytes);
        memcpy(out + i, bytes, n);
    }
}

BNC_AVX2 BNC_INLINE void unpack_rows(const uint8_t *in, int64_t ne0, __m256 value, float *x, bool stream) {
    int64_t i = 0;
    for (; i + 32 <= ne0; i += 32)
        unpack32(in + i, (place){16, ne0}, value, x + i, stream);
    if (i < ne0) {
        const size_t n = (size_t)(ne0 - i);
        uint8_t bytes[32] = {0};
        float room[4 * 32];
        memcpy(bytes, in + i, n);
        unpack32(bytes, i2_s, value, room, false);
        for (int r = 0; r < 4; r++)
            memcpy(x + r * ne0 + i, room + 32 * r, n * 4);
    }
}

BNC_AVX2 void bnc_quantize_i2_s_row4_avx2(const float *x, int64_t n_rows, int64_t ne0, float scale, uint8_t *out) {
    for (int64_t r = 0; r < n_rows; r += 4, x += 4 * ne0, out += ne0)
        pack_rows(x, ne0, scale, out);
}

BNC_AVX2 void bnc_dequantize_i2_s_row4_avx2(const uint8_t *in, int64_t n_rows, int64_t ne0, float scale, float *x) {
    const bool stream = bnc_stream_pays(x, n_rows * ne0) && ne0 % 4 == 0; /* so that each row is aligned */
    for (int64_t r = 0; r < n_rows; r += 4, x += 4 * ne0, in += ne0) {
        if (stream)
            unpack_rows(in, ne0, values_of(scale), x, true);
        else
            unpack_rows(in, ne0, values_of(scale), x, false);
    }
    _mm_sfence();
}

/* ---- codes without meaning ---- */

/* Bits 0, 2, 4, 6 of each byte: set where both bits of a code are. What the shift carries between bytes is masked. */
BNC_AVX2 BNC_INLINE __m256i codes_3(__m256i b) {
    return _mm256_and_si256(_mm256_and_si256(b, _mm256_srli_epi16(b, 1)), _mm256_set1_epi8(0x55));
}

BNC_AVX2 BNC_INLINE int64_t find_code_3(const uint8_t *in, int64_t nbytes) {
    int64_t i = 0;
    for (; i + 128 <= nbytes; i += 128) {
        const __m256i *v = (const __m256i *)(in + i);
        const __m256i a = _mm256_or_si256(codes_3(_mm256_loadu_si256(v)), codes_3(_mm256_loadu_si256(v + 1)));
        const __m256i b = _mm256_or_si256(codes_3(_mm256_loadu_si256(v + 2)), codes_3(_mm256_loadu_si256(v + 3)));
        const __m256i found = _mm256_or_si256(a, b);
        if (!_mm256_testz_si256(found, found))
            break;
    }
    for (; i < nbytes; i++)
        if (in[i] & in[i] >> 1 & 0x55)
            return i;
    return -1;
}

BNC_AVX2 int64_t bnc_scan_i2_s_avx2(const uint8_t *in, int64_t nbytes) { return find_code_3(in, nbytes); }
BNC_AVX2 int64_t bnc_scan_i2_s_64_avx2(const uint8_t *in, int64_t nbytes) { return find_code_3(in, nbytes); }
BNC_AVX2 int64_t bnc_scan_i2_s_row4_avx2(const uint8_t *in, int64_t nbytes) { return find_code_3(in, nbytes); }

#endif
