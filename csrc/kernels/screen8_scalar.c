/*
 * screen8_scalar.c - approximate logits from the 8-bit copy of the head: int8 codes of a row, in order, times the activation
 * as 16-bit integers.
 */
#include "kernels.h"

void bnc_screen8_scalar(const uint8_t *w, int64_t n_rows, int64_t ne0, const int16_t *x, float *y) {
    for (int64_t r = 0; r < n_rows; r++, w += ne0) {
        int64_t sum = 0;
        for (int64_t i = 0; i < ne0; i++)
            sum += (int8_t)w[i] * x[i];
        y[r] = (float)sum;
    }
}
