/*
 * cpu.h - instruction sets of the machine and the levels named in isa.def.
 */
#ifndef BNC_CPU_H
#define BNC_CPU_H

#include "base.h"
#include "bitnet_core.h"

/* CPU_FEATURE(bit, name): what cpu.c knows to detect. */
#define BNC_CPU_FEATURES(CPU_FEATURE)     \
    CPU_FEATURE(AVX2, "avx2")             \
    CPU_FEATURE(FMA, "fma")               \
    CPU_FEATURE(F16C, "f16c")             \
    CPU_FEATURE(AVXVNNI, "avxvnni")       \
    CPU_FEATURE(AVX512, "avx512")         \
    CPU_FEATURE(AVX512VNNI, "avx512vnni") \
    CPU_FEATURE(AVX512VBMI, "avx512vbmi") \
    CPU_FEATURE(AMXINT8, "amxint8")       \
    CPU_FEATURE(NEON, "neon")             \
    CPU_FEATURE(DOTPROD, "dotprod")       \
    CPU_FEATURE(I8MM, "i8mm")

enum {
#define CPU_FEATURE(bit, name) BNC_CPU_INDEX_##bit,
    BNC_CPU_FEATURES(CPU_FEATURE)
#undef CPU_FEATURE
        BNC_CPU_FEATURE_COUNT
};

enum {
#define CPU_FEATURE(bit, name) BNC_CPU_##bit = 1 << BNC_CPU_INDEX_##bit,
    BNC_CPU_FEATURES(CPU_FEATURE)
#undef CPU_FEATURE
};

enum {
#define ISA(name, needs) BNC_ISA_##name,
#include "isa.def"
#undef ISA
    BNC_ISA_COUNT
};

/* Bits BNC_CPU_*; detected on the first call. */
uint32_t bnc_cpu_bits(void);

#endif
