/*
 * pack5_avx2.c - packing as pack5_scalar.c does it, by the compiler's own vectors.
 */
#include "pack5.h"

#if defined(BNC_X86_64)

BNC_AVX2 void bnc_pack_i2_s_avx2(const uint8_t *w, int64_t n_rows, int64_t ne0, uint8_t *out) {
    bnc_pack5_rows_of_i2_s(w, n_rows, ne0, out);
}

#endif
