/*
 * qk256_neon.c - 64 weights at once: a load that deals floats out to four registers in turn finds the fields of
 * qk256_scalar.c, and a store that gathers them puts values back in order.
 */
#include "kernels.h"

#if defined(BNC_AARCH64)

#include "codes_neon.h"

enum { BLOCK = 256, BLOCK_BYTES = 64, STEP = 64, STEP_BYTES = 16 };

/* The comparisons of qk256_scalar.c, whose all-ones masks are -1. */
BNC_INLINE uint32x4_t codes4(float32x4_t x) {
    const uint32x4_t above = vsubq_u32(vdupq_n_u32(2), vcgtq_f32(x, vdupq_n_f32(1.5f)));
    return vaddq_u32(vaddq_u32(above, vcltzq_f32(x)), vcltq_f32(x, vdupq_n_f32(-1.5f)));
}

BNC_INLINE void pack64(const float *x, uint8_t *out) {
    float32x4x4_t v[4];
    uint8x16_t field[4];
    BNC_UNROLL
    for (int i = 0; i < 4; i++)
        v[i] = vld4q_f32(x + 16 * i);
    BNC_UNROLL
    for (int k = 0; k < 4; k++)
        field[k] = bnc_narrow_neon(codes4(v[0].val[k]), codes4(v[1].val[k]), codes4(v[2].val[k]), codes4(v[3].val[k]));
    vst1q_u8(out, bnc_pack_neon(field));
}

void bnc_quantize_qk256_neon(const float *x, int64_t n_rows, int64_t ne0, float scale, uint8_t *out) {
    (void)scale;
    for (int64_t r = 0; r < n_rows; r++, x += ne0)
        for (int64_t i = 0; i < bnc_round_up(ne0, BLOCK); i += STEP, out += STEP_BYTES) {
            if (i + STEP <= ne0) {
                pack64(x + i, out);
                continue;
            }
            float rest[STEP] = {0};
            if (i < ne0)
                memcpy(rest, x + i, (size_t)(ne0 - i) * 4);
            pack64(rest, out);
        }
}

BNC_INLINE void unpack64(const uint8_t *in, float *x) {
    int8x16_t operand[4];
    bnc_lanes value[4];
    bnc_operands_neon(in, operand, BNC_QK256);
    BNC_UNROLL
    for (int k = 0; k < 4; k++)
        value[k] = bnc_floats_neon(operand[k]);
    bnc_store_fields_neon(x, value, 4);
}

void bnc_dequantize_qk256_neon(const uint8_t *in, int64_t n_rows, int64_t ne0, float scale, float *x) {
    (void)scale;
    for (int64_t r = 0; r < n_rows; r++, x += ne0, in += bnc_ceil_div(ne0, BLOCK) * BLOCK_BYTES) {
        int64_t i = 0;
        for (; i + STEP <= ne0; i += STEP)
            unpack64(in + i / 4, x + i);
        if (i < ne0) {
            float rest[STEP];
            unpack64(in + i / 4, rest);
            memcpy(x + i, rest, (size_t)(ne0 - i) * 4);
        }
    }
}

#endif
