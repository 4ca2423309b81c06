/*
 * attention_q8_0_scalar.c - scores and mix for q8_0 caches, in integers wherever many elements meet: they define the result.
 */
#include "attention_q8_0.h"
#include "lanes.h"

static int32_t dot_block(const uint8_t *a, const uint8_t *b) {
    int32_t sum = 0;
    for (int i = 0; i < BNC_Q8_0_BLOCK; i++)
        sum += (int8_t)a[BNC_Q8_0_CODES + i] * (int8_t)b[BNC_Q8_0_CODES + i];
    return sum;
}

static float dot_row(const uint8_t *k, const uint8_t *query, int64_t ne0) {
    float sum = 0;
    for (int64_t i = 0; i < bnc_q8_0_row_bytes(ne0); i += BNC_Q8_0_BYTES)
        sum += (float)dot_block(k + i, query + i) * (bnc_q8_0_scale(k + i) * bnc_q8_0_scale(query + i));
    return sum;
}

void bnc_scores_q8_0_scalar(const float *x, int n_group, const uint8_t *k, int64_t n, int64_t ne0, float scale,
                            float *y, int64_t y_stride, const uint8_t *next) {
    (void)next;
    uint8_t query[BNC_Q8_0_QUERY_BYTES];
    for (int g = 0; g < n_group; g++) {
        bnc_quantize_q8_0_scalar(x + g * ne0, 1, ne0, 1.0f, query);
        for (int64_t j = 0; j < n; j++)
            y[g * y_stride + j] = dot_row(k + j * bnc_q8_0_row_bytes(ne0), query, ne0) * scale;
    }
}

/* 32 columns of one query: v is the first row's block. */
static void mix_block(const float *p, const uint8_t *v, int64_t row_bytes, int64_t n, float *y) {
    float top = 0;
    for (int64_t j = 0; j < n; j++) {
        const float d = bnc_q8_0_scale(v + j * row_bytes);
        top = d > top ? d : top;
    }
    const float inverse = bnc_mix_inverse(top), unit = bnc_mix_unit(top);
    int32_t sum[BNC_Q8_0_BLOCK] = {0};
    for (int64_t j = 0; j < n; j++, v += row_bytes) {
        const int32_t weight = (int16_t)bnc_round_to_int(p[j] * (bnc_q8_0_scale(v) * inverse));
        for (int i = 0; i < BNC_Q8_0_BLOCK; i++)
            sum[i] += weight * (int8_t)v[BNC_Q8_0_CODES + i];
    }
    for (int i = 0; i < BNC_Q8_0_BLOCK; i++)
        y[i] = (float)sum[i] * unit;
}

void bnc_mix_q8_0_scalar(const float *p, int64_t p_stride, int n_group, const uint8_t *v, int64_t n, int64_t ne0,
                         float *y, int64_t y_stride, const uint8_t *next) {
    (void)next;
    for (int g = 0; g < n_group; g++)
        for (int64_t b = 0; b < ne0 / BNC_Q8_0_BLOCK; b++)
            mix_block(p + g * p_stride, v + b * BNC_Q8_0_BYTES, bnc_q8_0_row_bytes(ne0), n,
                      y + g * y_stride + b * BNC_Q8_0_BLOCK);
}
