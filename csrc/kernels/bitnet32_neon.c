/*
 * bitnet32_neon.c - a block at once: as qk256_neon.c, with eight bytes of codes and their scale.
 */
#include "kernels.h"

#if defined(BNC_AARCH64)

#include "codes_neon.h"

enum { BLOCK = 32, CODE_BYTES = 8, BLOCK_BYTES = 10 };

/* The comparisons of bitnet32_scalar.c, whose all-ones masks are -1. */
BNC_INLINE uint32x4_t codes4(float32x4_t x, float max) {
    const float32x4_t twice = vaddq_f32(x, x);
    const uint32x4_t above = vsubq_u32(vdupq_n_u32(2), vcgeq_f32(twice, vdupq_n_f32(max)));
    return vaddq_u32(above, vcleq_f32(twice, vdupq_n_f32(-max)));
}

/* The largest magnitude of a block, at least the smallest positive float. Its order is that of the fields. */
BNC_INLINE float max_of(float32x4x4_t a, float32x4x4_t b) {
    uint32x4_t top = vdupq_n_u32(1);
    BNC_UNROLL
    for (int k = 0; k < 4; k++) {
        top = vmaxq_u32(top, vreinterpretq_u32_f32(vabsq_f32(a.val[k])));
        top = vmaxq_u32(top, vreinterpretq_u32_f32(vabsq_f32(b.val[k])));
    }
    return bnc_f32_bits(vmaxvq_u32(top));
}

void bnc_quantize_bitnet32_neon(const float *x, int64_t n_rows, int64_t ne0, float scale, uint8_t *out) {
    (void)scale;
    for (int64_t i = 0; i < n_rows * ne0; i += BLOCK, x += BLOCK, out += BLOCK_BYTES) {
        const float32x4x4_t a = vld4q_f32(x), b = vld4q_f32(x + 16);
        const float max = max_of(a, b);
        uint8x16_t field[4]; /* the upper half is not used */
        BNC_UNROLL
        for (int k = 0; k < 4; k++) {
            const uint32x4_t lo = codes4(a.val[k], max), hi = codes4(b.val[k], max);
            field[k] = bnc_narrow_neon(lo, hi, lo, hi);
        }
        vst1_u8(out, vget_low_u8(bnc_pack_neon(field)));
        const uint16_t half = bnc_f16_of_f32(max);
        memcpy(out + CODE_BYTES, &half, 2);
    }
}

void bnc_dequantize_bitnet32_neon(const uint8_t *in, int64_t n_rows, int64_t ne0, float scale, float *x) {
    (void)scale;
    for (int64_t i = 0; i < n_rows * ne0; i += BLOCK, x += BLOCK, in += BLOCK_BYTES) {
        const float block_scale = bnc_f32_of_f16(bnc_load_u16(in + CODE_BYTES));
        uint8x16_t field[4];
        bnc_lanes value[4];
        bnc_fields_neon(vcombine_u8(vld1_u8(in), vdup_n_u8(0)), field);
        BNC_UNROLL
        for (int k = 0; k < 4; k++) {
            const int8x16_t v = vsubq_s8(vreinterpretq_s8_u8(field[k]), vdupq_n_s8(2));
            value[k] = bnc_scale_lanes_neon(bnc_floats_neon(v), block_scale);
        }
        bnc_store_fields_neon(x, value, 2);
    }
}

#endif
