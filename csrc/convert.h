/*
 * convert.h - whole tensors through the conversion kernels, on threads. bnc_quantize and bnc_dequantize are declared in
 * bitnet_core.h.
 */
#ifndef BNC_CONVERT_H
#define BNC_CONVERT_H

#include "kernels/kernels.h"
#include "threads.h"

/* Position of the first of nbytes packed bytes that holds a code with no meaning, or -1. A tail (the scale of a tensor)
 * is not to be among them. -1 at once for a dtype all of whose codes mean something. */
int64_t bnc_find_bad_code(const bnc_kernels *kernels, int32_t dtype, const uint8_t *in, int64_t nbytes,
                          bnc_threads *threads);

#endif
