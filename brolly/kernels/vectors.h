// Vectors of floats, as wide as the processor has them, and what a step does with numbers.
// They are GCC's and clang's own, so that one text serves AVX-512, AVX2, NEON and machines with none.

#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif
typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
enum { AHEAD = 2048 };  // bytes: how far before its use memory is asked for
#define INLINE static inline __attribute__((always_inline))

INLINE float one(const void *p, int64_t i, int bf16) {
    if (!bf16) return ((const float *)p)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)p)[i] << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

INLINE float bias(const void *b, int64_t i, int bf16) { return b ? one(b, i, bf16) : 0.0f; }
INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE floats load(const void *p, int64_t i, int bf16) {
    floats value;
    if (!bf16) {
        memcpy(&value, (const float *)p + i, sizeof value);
        return value;
    }
    halves half;
    memcpy(&half, (const uint16_t *)p + i, sizeof half);
    return (floats)(__builtin_convertvector(half, words) << 16);
}

INLINE floats loadf(const float *p) { return load(p, 0, 0); }
INLINE void storef(float *p, floats value) { memcpy(p, &value, sizeof value); }

INLINE float total(floats v) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += v[i];
    return sum;
}

// Nearest, ties to even, as torch rounds; a NaN stays one.
INLINE uint16_t to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (value != value) return 0x7fc0;
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// e^x within 2 ulp: x = n ln 2 + r, a polynomial in r, n into the exponent (Cephes' expf).
INLINE floats exps(floats x) {
    const floats zero = {0};
    const floats low = zero - 87.3f, high = zero + 88.3f, magic = zero + 12582912.0f;
    ints under = x < low, over = x > high;
    x = (floats)((under & (ints)low) | (over & (ints)high) | (~(under | over) & (ints)x));
    floats n = (x * 1.44269504088896341f + magic) - magic;
    floats r = x - n * 0.693359375f + n * 2.12194440e-4f;
    floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (floats)((__builtin_convertvector(n, ints) + 127) << 23);
}
