#define _DEFAULT_SOURCE /* syscall */
#include "cpu.h"

#include <stdatomic.h>

#if defined(BNC_X86_64)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(BNC_AARCH64) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(BNC_AARCH64) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

static const char *const feature_names[] = {
#define CPU_FEATURE(bit, name) name,
    BNC_CPU_FEATURES(CPU_FEATURE)
#undef CPU_FEATURE
};

static const struct {
    const char *name;
    uint32_t needs;
} levels[] = {
#define ISA(name, needs) {#name, needs},
#include "isa.def"
#undef ISA
};

#if defined(BNC_X86_64)

static uint64_t xgetbv0(void) {
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return ((uint64_t)hi << 32) | lo;
}

/*
 * Linux saves the 8 KiB of tiles for those processes alone that ask, once for all their threads, those to come included; a
 * fork keeps the answer. It says no where it is too old, or a thread's signal stack too small. We know no other
 * system's way.
 */
static bool may_use_tiles(void) {
#if defined(__linux__)
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return false;
#endif
}

static uint32_t detect(void) {
    /* Register state that the operating system saves: without it the instructions fault although cpuid has them. */
    enum { XCR_AVX = 0x6, XCR_AVX512 = 0xe6, XCR_AMX = 0x60000 };
    uint32_t a, b, c, d, bits = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 27))) /* OSXSAVE */
        return 0;
    const uint32_t leaf1_c = c;
    const uint64_t xcr = xgetbv0();
    if ((xcr & XCR_AVX) != XCR_AVX)
        return 0;
    if (leaf1_c & (1u << 12))
        bits |= BNC_CPU_FMA;
    if (leaf1_c & (1u << 29))
        bits |= BNC_CPU_F16C;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return bits;
    if (b & (1u << 5))
        bits |= BNC_CPU_AVX2;
    if ((xcr & XCR_AVX512) == XCR_AVX512) {
        const uint32_t f_dq_bw_vl = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31);
        if ((b & f_dq_bw_vl) == f_dq_bw_vl)
            bits |= BNC_CPU_AVX512;
        if (c & (1u << 11))
            bits |= BNC_CPU_AVX512VNNI;
        if (c & (1u << 1))
            bits |= BNC_CPU_AVX512VBMI;
    }
    if ((xcr & XCR_AMX) == XCR_AMX && (d & (1u << 24)) && (d & (1u << 25)) && may_use_tiles())
        bits |= BNC_CPU_AMXINT8;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 4)))
        bits |= BNC_CPU_AVXVNNI;
    return bits;
}

#elif defined(BNC_AARCH64)

#if defined(__APPLE__)
static bool has(const char *name) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, NULL, 0) == 0 && value != 0;
}
#endif

static uint32_t detect(void) {
    uint32_t bits = BNC_CPU_NEON; /* part of the base architecture */
#if defined(__linux__)
    if (getauxval(AT_HWCAP) & (1u << 20)) /* HWCAP_ASIMDDP */
        bits |= BNC_CPU_DOTPROD;
    if (getauxval(AT_HWCAP2) & (1u << 13)) /* HWCAP2_I8MM */
        bits |= BNC_CPU_I8MM;
#elif defined(__APPLE__)
    if (has("hw.optional.arm.FEAT_DotProd"))
        bits |= BNC_CPU_DOTPROD;
    if (has("hw.optional.arm.FEAT_I8MM"))
        bits |= BNC_CPU_I8MM;
#endif
    return bits;
}

#else

static uint32_t detect(void) { return 0; }

#endif

uint32_t bnc_cpu_bits(void) {
    /* Bit 31 marks "detected"; two threads that race compute the same value. */
    static _Atomic uint32_t cached;
    uint32_t bits = atomic_load_explicit(&cached, memory_order_relaxed);
    if (!bits) {
        bits = detect() | 0x80000000u;
        atomic_store_explicit(&cached, bits, memory_order_relaxed);
    }
    return bits & 0x7fffffffu;
}

static const char *names_of(uint32_t bits, char *text, size_t size) {
    size_t used = 0;
    text[0] = 0;
    for (int i = 0; i < BNC_CPU_FEATURE_COUNT; i++) {
        const size_t len = strlen(feature_names[i]);
        if (!(bits & (1u << i)) || used + len + 2 > size)
            continue;
        if (used)
            text[used++] = ' ';
        memcpy(text + used, feature_names[i], len + 1);
        used += len;
    }
    return text;
}

const char *bnc_cpu_features(void) {
    static _Thread_local char text[256];
    return names_of(bnc_cpu_bits(), text, sizeof text);
}

int32_t bnc_isa_count(void) { return BNC_ISA_COUNT; }

const char *bnc_isa_name(int32_t isa) { return isa >= 0 && isa < BNC_ISA_COUNT ? levels[isa].name : NULL; }

const char *bnc_isa_needs(int32_t isa) {
    static _Thread_local char text[256];
    return isa >= 0 && isa < BNC_ISA_COUNT ? names_of(levels[isa].needs, text, sizeof text) : NULL;
}

int32_t bnc_isa_supported(int32_t isa) {
    return isa >= 0 && isa < BNC_ISA_COUNT && (bnc_cpu_bits() & levels[isa].needs) == levels[isa].needs;
}
