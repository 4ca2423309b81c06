/*
 * float_neon.c - f16 and bf16, 16 elements at once.
 */
#include "kernels.h"

#if defined(BNC_AARCH64)

#include "lanes_neon.h"

BNC_INLINE uint16x4_t round_f16(float32x4_t x) { return vreinterpret_u16_f16(vcvt_f16_f32(x)); }

BNC_INLINE uint16x4_t round_bf16(float32x4_t x) {
    const uint32x4_t bits = vreinterpretq_u32_f32(x);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t sum = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
    const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000)); /* a NaN stays one */
    return vshrn_n_u32(vbslq_u32(vceqq_f32(x, x), sum, quiet), 16);
}

#define CONVERSIONS(type)                                                                                      \
    BNC_INLINE void round16_##type(const float *x, uint8_t *out) {                                             \
        const uint16x8_t lo = vcombine_u16(round_##type(vld1q_f32(x)), round_##type(vld1q_f32(x + 4)));        \
        const uint16x8_t hi = vcombine_u16(round_##type(vld1q_f32(x + 8)), round_##type(vld1q_f32(x + 12)));   \
        vst1q_u8(out, vreinterpretq_u8_u16(lo));                                                               \
        vst1q_u8(out + 16, vreinterpretq_u8_u16(hi));                                                          \
    }                                                                                                          \
    void bnc_quantize_##type##_neon(const float *x, int64_t n_rows, int64_t ne0, float scale, uint8_t *out) {  \
        (void)scale;                                                                                           \
        const int64_t n = n_rows * ne0;                                                                        \
        int64_t i = 0;                                                                                         \
        for (; i + 16 <= n; i += 16)                                                                           \
            round16_##type(x + i, out + 2 * i);                                                                \
        float rest[16] = {0};                                                                                  \
        uint8_t last[32];                                                                                      \
        memcpy(rest, x + i, (size_t)(n - i) * 4);                                                              \
        round16_##type(rest, last);                                                                            \
        memcpy(out + 2 * i, last, (size_t)(n - i) * 2);                                                        \
    }                                                                                                          \
    void bnc_dequantize_##type##_neon(const uint8_t *in, int64_t n_rows, int64_t ne0, float scale, float *x) { \
        (void)scale;                                                                                           \
        const int64_t n = n_rows * ne0;                                                                        \
        int64_t i = 0;                                                                                         \
        for (; i + 16 <= n; i += 16)                                                                           \
            bnc_store_lanes_neon(x + i, bnc_lanes_##type##_neon(in + 2 * i));                                  \
        uint8_t rest[32] = {0};                                                                                \
        float last[16];                                                                                        \
        memcpy(rest, in + 2 * i, (size_t)(n - i) * 2);                                                         \
        bnc_store_lanes_neon(last, bnc_lanes_##type##_neon(rest));                                             \
        memcpy(x + i, last, (size_t)(n - i) * 4);                                                              \
    }

CONVERSIONS(f16)
CONVERSIONS(bf16)

#endif
