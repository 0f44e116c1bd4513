// Functions of 16 tokens side by side, one a lane.

#pragma once
#include "tiles.h"

enum { GELU, GELU_TANH, QUICK_GELU, RELU, SILU };

INLINE int64_t whole(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// 2^x for x <= 0 as bfloat16 needs it: off by less than 1e-5 of itself.
INLINE floats power(floats x) {
    const __m512 n = _mm512_roundscale_ps((__m512)x, 8);
    const floats r = x - (floats)n;
    return (floats)_mm512_scalef_ps((__m512)((((r * 0.0096181f + 0.0555041f) * r + 0.2402265f) * r + 0.6931472f) * r + 1.0f), n);
}

INLINE floats sigmoid(floats x) { return (floats)_mm512_rcp14_ps((__m512)(power(x * -1.44269504f) + 1.0f)); }

// x (1 + erf(x / sqrt 2)) / 2, off by less than 5e-5: our own fit of an odd polynomial within 4.5.
INLINE floats gelu(floats x) {
    const __m512 edge = _mm512_set1_ps(4.5f);
    const floats y = (floats)_mm512_max_ps(_mm512_min_ps((__m512)x, edge), _mm512_sub_ps(_mm512_setzero_ps(), edge)), u = y * y;
    floats p = u * -1.40005694e-12f + 1.69729328e-10f;
    p = p * u - 9.19370446e-09f;
    p = p * u + 2.9588881e-07f;
    p = p * u - 6.36524101e-06f;
    p = p * u + 9.78712342e-05f;
    p = p * u - 0.00112267782f;
    p = p * u + 0.00983318314f;
    p = p * u - 0.0663370565f;
    p = p * u + 0.39888379f;
    return x * (p * y + 0.5f);
}

INLINE floats activate(floats x, int64_t act) {
    switch (act) {
        case GELU: return gelu(x);
        case GELU_TANH: return x * sigmoid(1.5957691216057308f * (x + 0.044715f * x * x * x));
        case QUICK_GELU: return x * sigmoid(1.702f * x);
        case SILU: return x * sigmoid(x);
        default: return (floats)_mm512_max_ps((__m512)x, _mm512_setzero_ps());
    }
}

// 16 rows of 16 words become its columns.
INLINE void turn(__m512i *r) {
    __m512i a[16], b[16];
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            b[i + 2 * j] = _mm512_unpacklo_epi64(a[i + j], a[i + j + 2]);
            b[i + 2 * j + 1] = _mm512_unpackhi_epi64(a[i + j], a[i + j + 2]);
        }
    for (int j = 0; j < 4; j++) {
        const __m512i even = _mm512_shuffle_i32x4(b[j], b[j + 4], 0x88), odd = _mm512_shuffle_i32x4(b[j], b[j + 4], 0xdd);
        const __m512i even2 = _mm512_shuffle_i32x4(b[j + 8], b[j + 12], 0x88), odd2 = _mm512_shuffle_i32x4(b[j + 8], b[j + 12], 0xdd);
        r[j] = _mm512_shuffle_i32x4(even, even2, 0x88);
        r[j + 4] = _mm512_shuffle_i32x4(odd, odd2, 0x88);
        r[j + 8] = _mm512_shuffle_i32x4(even, even2, 0xdd);
        r[j + 12] = _mm512_shuffle_i32x4(odd, odd2, 0xdd);
    }
}

// The largest of `peak` and of the scores of n keys from `key` on; unless all lanes see `all` of them, those that a lane
// does not see, outside its low to high, are put far below every other.
INLINE floats seen(float (*scores)[TILE], int64_t key, int64_t n, __m512i low, __m512i high, int all, floats peak) {
    for (int64_t j = 0; j < n; j++) {
        __m512 score = _mm512_load_ps(scores[j]);
        if (!all) {
            const __m512i at = _mm512_set1_epi32((int)(key + j));
            const __mmask16 sees = _mm512_cmple_epi32_mask(low, at) & _mm512_cmpgt_epi32_mask(high, at);
            score = _mm512_mask_blend_ps(sees, _mm512_set1_ps(-1e30f), score);
            _mm512_store_ps(scores[j], score);
        }
        peak = (floats)_mm512_max_ps((__m512)peak, score);
    }
    return peak;
}
