/*
 * i2_s_neon.c - a group of 128 weights at once: the four fields of i2_s_scalar.c are 32 floats each.
 */
#include "kernels.h"

#if defined(BNC_AARCH64)

#include "codes_neon.h"

enum { GROUP = 128, GROUP_BYTES = 32, FIELD = 32 };

/* Four weights -> 0, 1, 2: the comparisons of i2_s_scalar.c, whose all-ones masks are -1. */
BNC_INLINE uint32x4_t codes4(const float *x, float32x4_t scale, float32x4_t minus_scale) {
    const float32x4_t w = vld1q_f32(x), twice = vaddq_f32(w, w);
    return vaddq_u32(vsubq_u32(vdupq_n_u32(1), vcgtq_f32(twice, scale)), vcltq_f32(twice, minus_scale));
}

BNC_INLINE uint8x16_t codes16(const float *x, float32x4_t scale, float32x4_t minus_scale) {
    return bnc_narrow_neon(codes4(x, scale, minus_scale), codes4(x + 4, scale, minus_scale),
                           codes4(x + 8, scale, minus_scale), codes4(x + 12, scale, minus_scale));
}

void bnc_quantize_i2_s_neon(const float *x, int64_t n_rows, int64_t ne0, float scale, uint8_t *out) {
    const float32x4_t s = vdupq_n_f32(scale), minus_s = vdupq_n_f32(-scale);
    for (int64_t i = 0; i < n_rows * ne0; i += GROUP, x += GROUP, out += GROUP_BYTES)
        for (int p = 0; p < FIELD; p += 16) {
            uint8x16_t field[4]; /* weights p on are the highest */
            BNC_UNROLL
            for (int k = 0; k < 4; k++)
                field[3 - k] = codes16(x + FIELD * k + p, s, minus_s);
            vst1q_u8(out + p, bnc_pack_neon(field));
        }
}

void bnc_dequantize_i2_s_neon(const uint8_t *in, int64_t n_rows, int64_t ne0, float scale, float *x) {
    for (int64_t i = 0; i < n_rows * ne0; i += GROUP, x += GROUP, in += GROUP_BYTES)
        for (int p = 0; p < FIELD; p += 16) {
            uint8x16_t field[4];
            bnc_fields_neon(vld1q_u8(in + p), field);
            BNC_UNROLL
            for (int k = 0; k < 4; k++) {
                const int8x16_t value = vsubq_s8(vreinterpretq_s8_u8(field[3 - k]), vdupq_n_s8(1));
                bnc_store_lanes_neon(x + FIELD * k + p, bnc_scale_lanes_neon(bnc_floats_neon(value), scale));
            }
        }
}

int64_t bnc_scan_i2_s_neon(const uint8_t *in, int64_t nbytes) {
    int64_t i = 0;
    for (; i + 64 <= nbytes; i += 64) {
        uint8x16_t both = vdupq_n_u8(0); /* bits of fields whose bits are both set: code 3 */
        BNC_UNROLL
        for (int k = 0; k < 4; k++) {
            const uint8x16_t b = vld1q_u8(in + i + 16 * k);
            both = vorrq_u8(both, vandq_u8(b, vshrq_n_u8(b, 1)));
        }
        if (vmaxvq_u8(vandq_u8(both, vdupq_n_u8(0x55))))
            break;
    }
    const int64_t found = bnc_scan_i2_s_scalar(in + i, nbytes - i);
    return found < 0 ? found : i + found;
}

#endif
