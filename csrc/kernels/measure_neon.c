/*
 * measure_neon.c - measure_scalar.c with the lanes in four registers.
 */
#include "kernels.h"

#if defined(BNC_AARCH64)

#include "lanes_neon.h"

typedef struct {
    bnc_lanes sum;
    uint32x4_t
        top; /* bits of the largest magnitudes: ordered as the magnitudes are, infinity and NaN above all others */
} magnitudes;

BNC_INLINE magnitudes take16(magnitudes m, const float *x) {
    BNC_UNROLL
    for (int i = 0; i < 4; i++) {
        const float32x4_t magnitude = vabsq_f32(vld1q_f32(x + 4 * i));
        m.sum.v[i] = vaddq_f32(m.sum.v[i], magnitude);
        m.top = vmaxq_u32(m.top, vreinterpretq_u32_f32(magnitude));
    }
    return m;
}

/* -1 where the floats have changed since one of them was seen to be none: their owner writes to them meanwhile. */
static int64_t first_not_finite(const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if ((bnc_bits_f32(x[i]) & 0x7fffffffu) >= 0x7f800000u)
            return i;
    return -1;
}

void bnc_measure_neon(const float *x, int64_t n, bnc_magnitudes *out) {
    magnitudes m = {bnc_zero_lanes_neon(), vdupq_n_u32(0)};
    int64_t i = 0;
    for (; i + BNC_LANES <= n; i += BNC_LANES)
        m = take16(m, x + i);
    if (i < n) { /* zeros add nothing to a sum of magnitudes, not even a sign */
        float rest[BNC_LANES] = {0};
        memcpy(rest, x + i, (size_t)(n - i) * 4);
        m = take16(m, rest);
    }
    const uint32_t max = vmaxvq_u32(m.top);
    if (max >= 0x7f800000u)
        *out = (bnc_magnitudes){.first_not_finite = first_not_finite(x, n)};
    else
        *out = (bnc_magnitudes){bnc_sum_lanes_neon(m.sum), bnc_f32_bits(max), -1};
}

#endif
