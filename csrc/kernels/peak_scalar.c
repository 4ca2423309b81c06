/*
 * peak_scalar.c - int8 multiply-accumulate from registers, in plain C.
 */
#include "kernels.h"

int64_t bnc_int8_peak_scalar(int64_t n_macs) {
    enum { N = 16 };
    int8_t a[N], b[N];
    int32_t sum[N] = {0};
    for (int i = 0; i < N; i++) {
        a[i] = (int8_t)(i + 1);
        b[i] = 1;
    }
    for (int64_t done = 0; done < n_macs; done += N) {
        /* The operands could be anything at each turn: the products may not be hoisted out of the loop. */
        __asm__ volatile("" : : "r"(a), "r"(b) : "memory");
        for (int i = 0; i < N; i++)
            sum[i] = (int32_t)((uint32_t)sum[i] + (uint32_t)(a[i] * b[i]));
    }
    int64_t total = 0;
    for (int i = 0; i < N; i++)
        total += sum[i];
    return total;
}
