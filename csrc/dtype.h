/*
 * dtype.h - the formats of dtype.def: sizes, and float16 and bfloat16 conversion.
 */
#ifndef BNC_DTYPE_H
#define BNC_DTYPE_H

#include "base.h"
#include "bitnet_core.h"
#include "error.h"

enum {
#define DTYPE(name, ...) BNC_DTYPE_##name,
#include "dtype.def"
#undef DTYPE
    BNC_DTYPE_COUNT
};

/* The bytes the four 128-weight fields, and the scale, of an I2_S tensor take: see kernels/i2_s_scalar.c. */
#define BNC_I2_S_TAIL 32

/* binary16 <-> binary32, round to nearest even, as vcvtps2ph and vcvtph2ps do; NaN stays NaN. */
BNC_INLINE float bnc_f32_of_f16(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t rest = (uint32_t)(h & 0x7fffu) << 13; /* exponent and mantissa at binary32's place */
    if ((rest & 0x0f800000u) == 0x0f800000u) {           /* infinity or NaN: exponent all ones; a NaN turns quiet */
        const uint32_t quiet = rest & 0x007fffffu ? 0x00400000u : 0;
        return bnc_f32_bits(sign | 0x70000000u | rest | quiet);
    }
    /* The exponent is short by 127 - 15 = 112: one exact multiplication mends it, subnormals included. */
    return bnc_f32_bits(sign | bnc_bits_f32(bnc_f32_bits(rest) * 0x1p112f));
}

BNC_INLINE uint16_t bnc_f16_of_f32(float x) {
    const uint32_t bits = bnc_bits_f32(x);
    const uint16_t sign = (uint16_t)((bits >> 16) & 0x8000u);
    const uint32_t mag = bits & 0x7fffffffu;
    if (mag > 0x7f800000u) /* NaN: keep the top of the payload, quiet */
        return (uint16_t)(sign | 0x7e00u | ((mag >> 13) & 0x3ffu));
    if (mag >= 0x477ff000u) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (mag < 0x38800000u) /* below 2^-14: subnormal; adding 0.5 lets the adder round at 2^-24 */
        return (uint16_t)(sign | (bnc_bits_f32(bnc_f32_bits(mag) + 0.5f) - 0x3f000000u));
    return (uint16_t)(sign | ((mag - 0x38000000u + 0xfffu + ((mag >> 13) & 1u)) >> 13));
}

BNC_INLINE float bnc_f32_of_bf16(uint16_t h) { return bnc_f32_bits((uint32_t)h << 16); }

BNC_INLINE uint16_t bnc_bf16_of_f32(float x) {
    const uint32_t bits = bnc_bits_f32(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* Size of a tensor whose dimensions come from a stranger: overflow is an error, not a wrap. offset names the place in
 * the file for the message, or BNC_NO_OFFSET. */
bnc_status bnc_dtype_size(int32_t dtype, int64_t n_rows, int64_t ne0, uint64_t offset, int64_t *nbytes, bnc_error *err);

/* The first row of dtype.def with this id, or -1. */
int32_t bnc_dtype_of_gguf(uint32_t gguf_type);

#endif
