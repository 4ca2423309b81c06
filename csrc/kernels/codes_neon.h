/*
 * codes_neon.h - what the packed formats share at the neon level and above: two-bit fields of bytes, and the int8 operands
 * that the ternary matrices are multiplied with.
 */
#ifndef BNC_CODES_NEON_H
#define BNC_CODES_NEON_H

#include "lanes_neon.h"

/* 16 small integers, four in each register, as bytes in the same order. */
BNC_INLINE uint8x16_t bnc_narrow_neon(uint32x4_t a, uint32x4_t b, uint32x4_t c, uint32x4_t d) {
    const uint16x8_t ab = vuzp1q_u16(vreinterpretq_u16_u32(a), vreinterpretq_u16_u32(b));
    const uint16x8_t cd = vuzp1q_u16(vreinterpretq_u16_u32(c), vreinterpretq_u16_u32(d));
    return vuzp1q_u8(vreinterpretq_u8_u16(ab), vreinterpretq_u8_u16(cd));
}

/* Field k of each byte is its bits 2 k + 1 : 2 k. */
BNC_INLINE void bnc_fields_neon(uint8x16_t packed, uint8x16_t field[4]) {
    const uint8x16_t mask = vdupq_n_u8(3);
    field[0] = vandq_u8(packed, mask);
    field[1] = vandq_u8(vshrq_n_u8(packed, 2), mask);
    field[2] = vandq_u8(vshrq_n_u8(packed, 4), mask);
    field[3] = vshrq_n_u8(packed, 6);
}

/* The inverse: each field is shifted in below the ones that are there. */
BNC_INLINE uint8x16_t bnc_pack_neon(const uint8x16_t field[4]) {
    return vsliq_n_u8(field[0], vsliq_n_u8(field[1], vsliq_n_u8(field[2], field[3], 2), 2), 2);
}

/* 16 small integers as floats. */
BNC_INLINE bnc_lanes bnc_floats_neon(int8x16_t v) {
    const int16x8_t lo = vmovl_s8(vget_low_s8(v)), hi = vmovl_high_s8(v);
    return (bnc_lanes){{vcvtq_f32_s32(vmovl_s16(vget_low_s16(lo))), vcvtq_f32_s32(vmovl_high_s16(lo)),
                        vcvtq_f32_s32(vmovl_s16(vget_low_s16(hi))), vcvtq_f32_s32(vmovl_high_s16(hi))}};
}

/* Of the values of four fields, element b of value[k] being that of field k in byte b: 4 n bytes' to x, in order. */
BNC_INLINE void bnc_store_fields_neon(float *x, const bnc_lanes value[4], int n) {
    BNC_UNROLL
    for (int i = 0; i < n; i++) {
        const float32x4x4_t v = {{value[0].v[i], value[1].v[i], value[2].v[i], value[3].v[i]}};
        vst4q_f32(x + 16 * i, v);
    }
}

/*
 * The matrices. A group is 32 bytes, 128 weights; place k of byte p meets activation 32 k + p of the group:
 *
 *     I2_S    place k, byte p = weight 32 k + p    field 3 - k    operand = code = value + 1
 *     QK256   place k, byte p = weight 4 p + k     field k        operand = value = {-2,-1,1,2}[code]
 *
 * QK256's activations are arranged for that (bnc_arrange_qk256_neon). bias * sum(q) is taken off once at the end.
 */
enum { BNC_GROUP = 128, BNC_GROUP_BYTES = 32 };

typedef struct {
    int bias;
    int first_field; /* of place 0 */
    int field_step;  /* from one place to the next */
} bnc_ternary;

#define BNC_I2_S ((bnc_ternary){1, 3, -1})
#define BNC_QK256 ((bnc_ternary){0, 0, 1})

/* The operands of 16 bytes: place k of them in operand[k]. */
BNC_INLINE void bnc_operands_neon(const uint8_t *w, int8x16_t operand[4], bnc_ternary f) {
    static const int8_t values[16] = {-2, -1, 1, 2};
    uint8x16_t field[4];
    bnc_fields_neon(vld1q_u8(w), field);
    BNC_UNROLL
    for (int k = 0; k < 4; k++) {
        const uint8x16_t codes = field[f.first_field + k * f.field_step];
        operand[k] = f.bias ? vreinterpretq_s8_u8(codes) : vqtbl1q_s8(vld1q_s8(values), codes);
    }
}

#endif
