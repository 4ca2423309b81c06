/*
 * gemv_avx2.c - packed ternary rows times int8 activations with maddubs.
 *
 * maddubs adds pairs of a field's products (fields_avx2.h) into int16. Worst case a field, |q| = 128: I2_S 3 * 128 * 2 =
 * 768 (code 3, which a sound file never holds; 512 otherwise), QK256 4 * 128 * 2 = 1024. Four fields a group: 3072 and
 * 4096, so 10 and 7 groups (30720 and 28672 <= 32767) may be added before the sums are widened.
 */
#include "kernels.h"

#if defined(BNC_X86_64)

#include "fields_avx2.h"

enum { ROWS = 4 };

/* Groups added in int16 before widening. */
BNC_INLINE int groups_per_sum(format f) { return f.bias == 1 ? 10 : 7; }

BNC_AVX2 BNC_INLINE __m256i widen(__m256i sums16) { return _mm256_madd_epi16(sums16, _mm256_set1_epi16(1)); }

BNC_AVX2 BNC_INLINE int32_t sum_dwords(__m256i v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

/* y[r] = w[r] . q for n_rows <= ROWS rows; one load of activations serves them all. */
BNC_AVX2 BNC_INLINE void dot_rows(const uint8_t *w, int64_t row_bytes, int n_rows, int64_t n_groups, const int8_t *q,
                                  int32_t q_sum, int32_t *y, format f) {
    __m256i total[ROWS];
    for (int r = 0; r < n_rows; r++)
        total[r] = _mm256_setzero_si256();
    for (int64_t g = 0; g < n_groups;) {
        const int64_t stop = bnc_min_i64(n_groups, g + groups_per_sum(f));
        __m256i sum[ROWS];
        for (int r = 0; r < n_rows; r++)
            sum[r] = _mm256_setzero_si256();
        for (; g < stop; g++) {
            const __m256i *qg = (const __m256i *)(q + g * GROUP);
            const __m256i q0 = _mm256_loadu_si256(qg), q1 = _mm256_loadu_si256(qg + 1);
            const __m256i q2 = _mm256_loadu_si256(qg + 2), q3 = _mm256_loadu_si256(qg + 3);
            for (int r = 0; r < n_rows; r++) {
                const __m256i packed = _mm256_loadu_si256((const __m256i *)(w + r * row_bytes + g * GROUP_BYTES));
                const __m256i a = _mm256_add_epi16(_mm256_maddubs_epi16(field(packed, 0, f), q0),
                                                   _mm256_maddubs_epi16(field(packed, 1, f), q1));
                const __m256i b = _mm256_add_epi16(_mm256_maddubs_epi16(field(packed, 2, f), q2),
                                                   _mm256_maddubs_epi16(field(packed, 3, f), q3));
                sum[r] = _mm256_add_epi16(sum[r], _mm256_add_epi16(a, b));
            }
        }
        for (int r = 0; r < n_rows; r++)
            total[r] = _mm256_add_epi32(total[r], widen(sum[r]));
    }
    for (int r = 0; r < n_rows; r++)
        y[r] = sum_dwords(total[r]) - f.bias * q_sum;
}

BNC_AVX2 BNC_INLINE void gemv(const uint8_t *w, int64_t row_bytes, int64_t n_rows, const int8_t *q, int32_t q_sum,
                              int32_t *y, format f) {
    const int64_t n_groups = row_bytes / GROUP_BYTES;
    int64_t r = 0;
    for (; r + ROWS <= n_rows; r += ROWS)
        dot_rows(w + r * row_bytes, row_bytes, ROWS, n_groups, q, q_sum, y + r, f);
    for (; r < n_rows; r++)
        dot_rows(w + r * row_bytes, row_bytes, 1, n_groups, q, q_sum, y + r, f);
}

/*
 * gemm: ROWS rows are unpacked for CHUNK groups (4 KiB or less, stays in L1), then meet every token before the next
 * chunk is unpacked. A chunk is short enough to add in int16 throughout.
 */
enum { CHUNK = 7, TOKENS = 2 };

BNC_AVX2 BNC_INLINE void unpack(const uint8_t *w, int64_t row_bytes, int n_rows, int64_t n_groups, uint8_t *out,
                                format f) {
    for (int64_t g = 0; g < n_groups; g++)
        for (int r = 0; r < n_rows; r++) {
            const __m256i packed = _mm256_loadu_si256((const __m256i *)(w + r * row_bytes + g * GROUP_BYTES));
            __m256i *o = (__m256i *)(out + (r * CHUNK + g) * GROUP);
            _mm256_store_si256(o, field(packed, 0, f));
            _mm256_store_si256(o + 1, field(packed, 1, f));
            _mm256_store_si256(o + 2, field(packed, 2, f));
            _mm256_store_si256(o + 3, field(packed, 3, f));
        }
}

/* y[t][r] += unpacked rows . q[t] over one chunk, for n_rows <= ROWS and n_tokens <= TOKENS. */
BNC_AVX2 BNC_INLINE void chunk_dot(const uint8_t *unpacked, int n_rows, int64_t n_groups, const int8_t *q,
                                   int64_t q_stride, int n_tokens, int32_t *y, int64_t y_stride) {
    __m256i sum[TOKENS][ROWS];
    for (int t = 0; t < n_tokens; t++)
        for (int r = 0; r < n_rows; r++)
            sum[t][r] = _mm256_setzero_si256();
    for (int64_t i = 0; i < n_groups * GROUP; i += 32) {
        __m256i qv[TOKENS];
        for (int t = 0; t < n_tokens; t++)
            qv[t] = _mm256_loadu_si256((const __m256i *)(q + t * q_stride + i));
        for (int r = 0; r < n_rows; r++) {
            const __m256i codes = _mm256_load_si256((const __m256i *)(unpacked + r * CHUNK * GROUP + i));
            for (int t = 0; t < n_tokens; t++)
                sum[t][r] = _mm256_add_epi16(sum[t][r], _mm256_maddubs_epi16(codes, qv[t]));
        }
    }
    for (int t = 0; t < n_tokens; t++)
        for (int r = 0; r < n_rows; r++)
            y[t * y_stride + r] += sum_dwords(widen(sum[t][r]));
}

BNC_AVX2 BNC_INLINE void gemm_rows(const uint8_t *w, int64_t row_bytes, int n_rows, const int8_t *q, int64_t q_stride,
                                   const int32_t *q_sum, int64_t n_tokens, int32_t *y, int64_t y_stride, format f) {
    _Alignas(32) uint8_t unpacked[ROWS * CHUNK * GROUP];
    const int64_t n_groups = row_bytes / GROUP_BYTES;
    for (int64_t t = 0; t < n_tokens; t++)
        for (int r = 0; r < n_rows; r++)
            y[t * y_stride + r] = -f.bias * q_sum[t];
    for (int64_t g = 0; g < n_groups; g += CHUNK) {
        const int64_t n = bnc_min_i64(CHUNK, n_groups - g);
        unpack(w + g * GROUP_BYTES, row_bytes, n_rows, n, unpacked, f);
        const int8_t *qg = q + g * GROUP;
        int64_t t = 0;
        for (; t + TOKENS <= n_tokens; t += TOKENS)
            chunk_dot(unpacked, n_rows, n, qg + t * q_stride, q_stride, TOKENS, y + t * y_stride, y_stride);
        for (; t < n_tokens; t++)
            chunk_dot(unpacked, n_rows, n, qg + t * q_stride, q_stride, 1, y + t * y_stride, y_stride);
    }
}

BNC_AVX2 BNC_INLINE void gemm(const uint8_t *w, int64_t row_bytes, int64_t n_rows, const int8_t *q, int64_t q_stride,
                              const int32_t *q_sum, int64_t n_tokens, int32_t *y, int64_t y_stride, format f) {
    int64_t r = 0;
    for (; r + ROWS <= n_rows; r += ROWS)
        gemm_rows(w + r * row_bytes, row_bytes, ROWS, q, q_stride, q_sum, n_tokens, y + r, y_stride, f);
    for (; r < n_rows; r++)
        gemm_rows(w + r * row_bytes, row_bytes, 1, q, q_stride, q_sum, n_tokens, y + r, y_stride, f);
}

#define KERNELS(dtype, row_bytes, f)                                                                            \
    BNC_AVX2 void bnc_gemv_##dtype##_avx2(const uint8_t *w, int64_t n_rows, int64_t ne0, const int8_t *q,       \
                                          int32_t q_sum, int32_t *y) {                                          \
        gemv(w, row_bytes, n_rows, q, q_sum, y, f);                                                             \
    }                                                                                                           \
    BNC_AVX2 void bnc_gemm_##dtype##_avx2(const uint8_t *w, int64_t n_rows, int64_t ne0, const int8_t *q,       \
                                          int64_t q_stride, const int32_t *q_sum, int64_t n_tokens, int32_t *y, \
                                          int64_t y_stride) {                                                   \
        gemm(w, row_bytes, n_rows, q, q_stride, q_sum, n_tokens, y, y_stride, f);                               \
    }

KERNELS(i2_s, ne0 / 4, I2_S)
KERNELS(qk256, bnc_ceil_div(ne0, 256) * 64, QK256)

/* Byte 32 k + p of each 128 takes activation 4 p + k: the transpose of 32 x 4 bytes. */
BNC_AVX2 void bnc_arrange_qk256_avx2(const int8_t *q, int64_t n_padded, int8_t *out) {
    for (int64_t g = 0; g < n_padded; g += GROUP)
        for (int k = 0; k < 4; k++)
            for (int p = 0; p < 32; p++)
                out[g + 32 * k + p] = q[g + 4 * p + k];
}

#endif
