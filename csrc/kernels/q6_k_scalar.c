/*
 * q6_k_scalar.c - six bits a weight, an int8 scale for every 16 of them, and a float16 scale for every 256.
 *
 * A block is 210 bytes: the low four bits of the codes, their high two, the scales S, and d. Each half of a block, 128
 * weights, has 64 bytes of low bits and 32 of high ones; weight 32 k + l of it, k = 0..3 and l = 0..31, lies in
 *
 *     low  byte 32 (k % 2) + l:   bits 3:0 for k = 0, 1; bits 7:4 for k = 2, 3
 *     high byte l:                bits 2 k + 1 : 2 k
 *
 * and stands for d * S * (code - 32): 11 bits times 7 times 5, so float32 holds it exactly in any order.
 */
#include "lanes.h"

#include <math.h>

enum { BLOCK = 256, HALF = 128, GROUP = 16, N_GROUPS = BLOCK / GROUP };
enum { HIGH = 128, SCALES = 192, SCALE = 208, BLOCK_BYTES = 210 };

static float max_of(const float *x) {
    float max = 0;
    for (int k = 0; k < GROUP; k++)
        max = fabsf(x[k]) > max ? fabsf(x[k]) : max;
    return max;
}

static void pack(const uint8_t codes[BLOCK], uint8_t *out) {
    memset(out, 0, SCALES);
    for (int i = 0; i < BLOCK; i++) {
        const int half = i / HALF, k = i % HALF / 32, l = i % 32;
        out[64 * half + 32 * (k % 2) + l] |= (uint8_t)((codes[i] & 15) << 4 * (k / 2));
        out[HIGH + 32 * half + l] |= (uint8_t)((codes[i] >> 4) << 2 * k);
    }
}

BNC_INLINE int32_t clamp(int32_t v, int32_t lo, int32_t hi) { return v < lo ? lo : v > hi ? hi : v; }

/*
 * The largest magnitude of a group becomes code 31 or -31, that of the block scale 127; nothing is searched for. d is
 * rounded to float16 before the scales are chosen, and S to an integer before the codes are.
 */
void bnc_quantize_q6_k_scalar(const float *x, int64_t n_rows, int64_t ne0, float scale, uint8_t *out) {
    (void)scale;
    for (int64_t i = 0; i < n_rows * ne0; i += BLOCK, x += BLOCK, out += BLOCK_BYTES) {
        float step[N_GROUPS], max = 0;
        for (int g = 0; g < N_GROUPS; g++) {
            step[g] = max_of(x + GROUP * g) / 31.0f;
            max = step[g] > max ? step[g] : max;
        }
        const uint16_t half = bnc_f16_of_f32(max / 127.0f);
        const float d = bnc_f32_of_f16(half), inverse = d > 0 ? 1.0f / d : 0.0f;
        uint8_t codes[BLOCK];
        for (int g = 0; g < N_GROUPS; g++) {
            const int32_t s = clamp(bnc_round_to_int(step[g] * inverse), 0, 127);
            const float to_code = s ? 1.0f / (d * (float)s) : 0.0f;
            for (int k = GROUP * g; k < GROUP * (g + 1); k++)
                codes[k] = (uint8_t)(clamp(bnc_round_to_int(x[k] * to_code), -32, 31) + 32);
            out[SCALES + g] = (uint8_t)s;
        }
        pack(codes, out);
        memcpy(out + SCALE, &half, 2);
    }
}

static void unpack(const uint8_t *in, float *x) {
    const float d = bnc_f32_of_f16(bnc_load_u16(in + SCALE));
    for (int i = 0; i < BLOCK; i++) {
        const int half = i / HALF, k = i % HALF / 32, l = i % 32;
        const int low = in[64 * half + 32 * (k % 2) + l] >> 4 * (k / 2) & 15;
        const int high = in[HIGH + 32 * half + l] >> 2 * k & 3;
        x[i] = d * (float)(int8_t)in[SCALES + i / GROUP] * (float)((low | high << 4) - 32);
    }
}

void bnc_dequantize_q6_k_scalar(const uint8_t *in, int64_t n_rows, int64_t ne0, float scale, float *x) {
    (void)scale;
    for (int64_t i = 0; i < n_rows * ne0; i += BLOCK, x += BLOCK, in += BLOCK_BYTES)
        unpack(in, x);
}

void bnc_head_q6_k_scalar(const uint8_t *w, int64_t n_rows, int64_t ne0, const float *x, float *y) {
    for (int64_t r = 0; r < n_rows; r++) {
        float lane[BNC_LANES] = {0}, block[BLOCK];
        for (int64_t i = 0; i < ne0; i += BLOCK, w += BLOCK_BYTES) {
            unpack(w, block);
            for (int k = 0; k < BLOCK; k++)
                lane[k % BNC_LANES] += block[k] * x[i + k];
        }
        y[r] = bnc_sum_lanes(lane);
    }
}
