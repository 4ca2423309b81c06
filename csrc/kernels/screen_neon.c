/*
 * screen_neon.c - screen_scalar.c with smlal: quarters of four lanes, four bytes each.
 *
 * int16 sums: 8 products of at most 15 * 128 = 1920 make 15360 <= 32767; the four sums of a lane are added in int32.
 */
#include "kernels.h"

#if defined(BNC_AARCH64)

#include "codes_neon.h"
#include "screen_lanes_neon.h"

/* 32 codes of a block, two registers, in order. */
BNC_INLINE uint8x16_t codes16(const float *w, const float *dither, float inverse) {
    uint32x4_t c[4];
    BNC_UNROLL
    for (int i = 0; i < 4; i++) {
        const float32x4_t shift = vaddq_f32(vld1q_f32(dither + 4 * i), vdupq_n_f32(8.0f));
        const float32x4_t v = vaddq_f32(vmulq_n_f32(vld1q_f32(w + 4 * i), inverse), shift);
        const float32x4_t kept = vminq_f32(bnc_larger_neon(v, vdupq_n_f32(0)), vdupq_n_f32(15.5f));
        c[i] = vcvtq_u32_f32(kept);
    }
    return bnc_narrow_neon(c[0], c[1], c[2], c[3]);
}

static float block_max(const float *w) {
    float32x4_t max = vdupq_n_f32(0);
    for (int k = 0; k < BNC_SCREEN_BLOCK; k += 4)
        max = bnc_larger_neon(vabsq_f32(vld1q_f32(w + k)), max);
    return vmaxvq_f32(max);
}

void bnc_screen_encode_neon(const float *w, const float *dither, int64_t n_stripes, uint8_t *out) {
    for (int64_t i = 0; i < n_stripes; i++, out += BNC_SCREEN_STRIPE_BYTES)
        for (int j = 0; j < BNC_SCREEN_LANES; j++, w += BNC_SCREEN_BLOCK, dither += BNC_SCREEN_BLOCK) {
            const uint16_t step = bnc_screen_step(block_max(w));
            const float inverse = bnc_screen_inverse(step);
            for (int half = 0; half < 2; half++) {
                const uint64x2_t codes = vreinterpretq_u64_u8(codes16(w + 16 * half, dither + 16 * half, inverse));
                /* The two dwords of a quadword, codes 8 l and 8 l + 4 on, become the nibbles of its lower one. */
                uint32_t part[2];
                vst1_u32(part, vmovn_u64(vorrq_u64(codes, vshrq_n_u64(codes, 28))));
                memcpy(out + 64 * (2 * half) + 4 * j, &part[0], 4);
                memcpy(out + 64 * (2 * half + 1) + 4 * j, &part[1], 4);
            }
            memcpy(out + BNC_SCREEN_CODE_BYTES + 2 * j, &step, 2);
        }
}

/* Codes of a quarter times one plane of the activation: the sums of four lanes. */
BNC_INLINE int32x4_t plane_dot(const int8x16_t codes[8], const int8_t plane[8][64], int h) {
    int16x8_t lo = vdupq_n_s16(0), hi = lo;
    BNC_UNROLL
    for (int k = 0; k < 8; k++) {
        const int8x16_t q = vld1q_s8(plane[k] + 16 * h);
        lo = vmlal_s8(lo, vget_low_s8(codes[k]), vget_low_s8(q));
        hi = vmlal_high_s8(hi, codes[k], q);
    }
    return vpaddq_s32(vpaddlq_s16(lo), vpaddlq_s16(hi));
}

BNC_INLINE void quarter(const uint8_t *w, const bnc_screen_stripe *x, int h, bnc_screen_lanes *acc) {
    int8x16_t codes[8];
    BNC_UNROLL
    for (int l = 0; l < 4; l++) {
        const uint8x16_t packed = vld1q_u8(w + 64 * l + 16 * h);
        codes[2 * l] = vreinterpretq_s8_u8(vandq_u8(packed, vdupq_n_u8(15)));
        codes[2 * l + 1] = vreinterpretq_s8_u8(vshrq_n_u8(packed, 4));
    }
    bnc_screen_add_neon(acc, h, plane_dot(codes, x->high, h), plane_dot(codes, x->low, h), w, x);
}

void bnc_screen_neon(const uint8_t *w, int64_t n_rows, int64_t n_stripes, const bnc_screen_stripe *x, float *sums,
                     float *energies) {
    for (int64_t r = 0; r < n_rows; r++) {
        bnc_screen_lanes acc = {bnc_zero_lanes_neon(), bnc_zero_lanes_neon()};
        for (int64_t i = 0; i < n_stripes; i++, w += BNC_SCREEN_STRIPE_BYTES) {
            BNC_UNROLL
            for (int h = 0; h < 4; h++)
                quarter(w, &x[i], h, &acc);
        }
        sums[r] = bnc_sum_lanes_neon(acc.sum);
        energies[r] = bnc_sum_lanes_neon(acc.energy);
    }
}

#endif
