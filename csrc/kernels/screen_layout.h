/*
 * screen_layout.h - how a screened head lies in memory: a 4-bit copy with one step a block of 32, and the activation it meets.
 *
 * 16 blocks (512 columns) make a stripe: 256 bytes of codes, then 16 steps of float16. Block j of a stripe is lane j of
 * everything: dword j of the 64 bytes at 64 l holds codes 8 l .. 8 l + 3 of block j in its low nibbles and 8 l + 4 ..
 * 8 l + 7 in its high ones (l = 0..3), so that eight dot products of fours leave block j's sum in lane j.
 *
 *     byte 64 l + 4 j + m of a stripe:   bits 3:0 = column 32 j + 8 l + m     bits 7:4 = column 32 j + 8 l + 4 + m
 *
 * Code c of column i stands for step * (c - 7.5 - u[i]), u[i] a fixed random number in [-1/2, 1/2) that all rows share.
 */
#ifndef BNC_SCREEN_LAYOUT_H
#define BNC_SCREEN_LAYOUT_H

#include "dtype.h"

enum {
    BNC_SCREEN_BLOCK = 32,
    BNC_SCREEN_LANES = 16,
    BNC_SCREEN_STRIPE = BNC_SCREEN_BLOCK * BNC_SCREEN_LANES, /* columns */
    BNC_SCREEN_CODE_BYTES = BNC_SCREEN_STRIPE / 2,
    BNC_SCREEN_STRIPE_BYTES = BNC_SCREEN_CODE_BYTES + 2 * BNC_SCREEN_LANES,
};

/* The activation over one stripe, as integers X = 256 high + low of 16 bits; plane 2 l + h meets nibble h of part l.
 * |sum of c X over a block| <= 15 * 32768 * 32 < 2^24: exact in float32. */
typedef struct {
    int8_t high[8][64];
    int8_t low[8][64];
    float offset[BNC_SCREEN_LANES]; /* sum of (7.5 + u) X over the block */
    float energy[BNC_SCREEN_LANES]; /* sum of X^2 over the block */
} bnc_screen_stripe;

/* The step of a block whose largest magnitude is max: the smallest float16 not below max / 7.5, so that no weight is cut
 * off; and what a weight is multiplied with. A block of zeros has step 0. */
uint16_t bnc_screen_step(float max);
BNC_INLINE float bnc_screen_inverse(uint16_t step) { return step ? 1.0f / bnc_f32_of_f16(step) : 0.0f; }

#endif
