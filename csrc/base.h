/*
 * base.h - what every other file stands on: integers, alignment, little-endian loads, checked arithmetic, attributes.
 */
#ifndef BNC_BASE_H
#define BNC_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "bitnet_core uses weights where they lie in little-endian files; big-endian machines are not supported"
#endif

/* A compiler may fuse a * b + c into one rounding; results must not depend on it. clang obeys the pragma; gcc knows no
 * pragma, but does not fuse when held to the letter of C11. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__) && !defined(__STRICT_ANSI__)
#error "compile with -std=c11: under -std=gnu11 gcc fuses multiplications and additions"
#endif

#if defined(__x86_64__) || defined(_M_X64)
#define BNC_X86_64 1
#elif defined(__aarch64__)
#define BNC_AARCH64 1
#endif

#define BNC_TARGET(isa) __attribute__((target(isa)))
/* What the functions of a level may use; isa.def names the same features. */
#define BNC_AVX2 BNC_TARGET("avx2,f16c")
#define BNC_AVXVNNI BNC_TARGET("avx2,f16c,avxvnni")
#define BNC_AVX512VNNI BNC_TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#define BNC_AMX BNC_TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,amx-tile,amx-int8")
/* Compilers that know the instructions of a young level (gcc 11, clang 12); older ones build without its kernels. */
#if defined(BNC_X86_64) && defined(__has_include)
#if __has_include(<avxvnniintrin.h>)
#define BNC_HAVE_AVXVNNI 1
#endif
#if __has_include(<amxint8intrin.h>) || __has_include(<amxintrin.h>) /* gcc, clang */
#define BNC_HAVE_AMX 1
#endif
#endif
#define BNC_INLINE static inline __attribute__((always_inline))
/* Before a loop with a constant count: unroll it wholly. Without it gcc leaves arrays of registers in memory. */
#if defined(__clang__)
#define BNC_UNROLL _Pragma("clang loop unroll(full)")
#else
#define BNC_UNROLL _Pragma("GCC unroll 16")
#endif
#define BNC_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define BNC_MUST_USE __attribute__((warn_unused_result))
#define BNC_COUNTOF(a) (sizeof(a) / sizeof((a)[0]))

/* Cache line of every machine we run on: what two threads write stays this far apart. */
#define BNC_CACHE_LINE 64

BNC_INLINE int64_t bnc_min_i64(int64_t a, int64_t b) { return a < b ? a : b; }
BNC_INLINE int64_t bnc_max_i64(int64_t a, int64_t b) { return a > b ? a : b; }
BNC_INLINE int64_t bnc_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
BNC_INLINE int64_t bnc_round_up(int64_t a, int64_t b) { return bnc_ceil_div(a, b) * b; }

/* The step of splitmix64 (Steele, Lea and Flood, 2014): of a counter it makes random numbers, each without those before. */
#define BNC_MIX64_STEP 0x9e3779b97f4a7c15u
BNC_INLINE uint64_t bnc_mix64(uint64_t x) {
    x += BNC_MIX64_STEP;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Loads from unaligned little-endian bytes. */
BNC_INLINE uint16_t bnc_load_u16(const void *p) {
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}
BNC_INLINE uint32_t bnc_load_u32(const void *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}
BNC_INLINE uint64_t bnc_load_u64(const void *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}
BNC_INLINE float bnc_load_f32(const void *p) {
    float v;
    memcpy(&v, p, 4);
    return v;
}

BNC_INLINE uint32_t bnc_bits_f32(float x) {
    uint32_t v;
    memcpy(&v, &x, 4);
    return v;
}
BNC_INLINE float bnc_f32_bits(uint32_t u) {
    float v;
    memcpy(&v, &u, 4);
    return v;
}

/* false on overflow; *out is then not to be used. */
BNC_INLINE BNC_MUST_USE bool bnc_add_u64(uint64_t a, uint64_t b, uint64_t *out) {
    return !__builtin_add_overflow(a, b, out);
}
BNC_INLINE BNC_MUST_USE bool bnc_mul_u64(uint64_t a, uint64_t b, uint64_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}
BNC_INLINE BNC_MUST_USE bool bnc_add_i64(int64_t a, int64_t b, int64_t *out) {
    return !__builtin_add_overflow(a, b, out);
}
BNC_INLINE BNC_MUST_USE bool bnc_mul_i64(int64_t a, int64_t b, int64_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}

#endif
