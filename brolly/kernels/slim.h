// Products W Xᵀ of bfloat16 for few tokens, which wait for memory: by AVX-512 with rows in lanes. Tiles need no other form.

#pragma once
#include "lanes.h"

enum { UNIT = 32 };

#ifdef __AMX_BF16__
enum { FEW = 0 };  // a tile reads 64 bytes of a row as it lies

INLINE void few(const bf16 *w, int64_t rows, int64_t depth, const bf16 *x, int64_t x_stride, int64_t count, const bf16 *later, float *c) {}
#else
enum { FEW = 12, MOST_LANES = 8 };  // tokens of a product, lanes of attention

// For how many tokens `count` are computed.
INLINE int64_t slots(int64_t count) { return count <= 2 ? count : whole(count, 2); }

// The two halves of `turn`: four rows, of which `later` is asked for too, and what is made of all sixteen.
INLINE void turn_four(const bf16 *w, int64_t stride, __mmask16 there, const char *later, __m512i *r) {
    __m512i a[4];
    for (int i = 0; i < 4; i++) {
        __builtin_prefetch(later + i * 64, 0, 2);
        a[i] = _mm512_maskz_loadu_epi32(there, w + i * stride);
    }
    const __m512i low = _mm512_unpacklo_epi32(a[0], a[1]), high = _mm512_unpackhi_epi32(a[0], a[1]);
    const __m512i low2 = _mm512_unpacklo_epi32(a[2], a[3]), high2 = _mm512_unpackhi_epi32(a[2], a[3]);
    r[0] = _mm512_unpacklo_epi64(low, low2), r[1] = _mm512_unpackhi_epi64(low, low2);
    r[2] = _mm512_unpacklo_epi64(high, high2), r[3] = _mm512_unpackhi_epi64(high, high2);
}

INLINE void turn_on(const __m512i *r, __m512i *out) {
    const __m512i even = _mm512_shuffle_i32x4(r[0], r[4], 0x88), odd = _mm512_shuffle_i32x4(r[0], r[4], 0xdd);
    const __m512i even2 = _mm512_shuffle_i32x4(r[8], r[12], 0x88), odd2 = _mm512_shuffle_i32x4(r[8], r[12], 0xdd);
    out[0] = _mm512_shuffle_i32x4(even, even2, 0x88), out[4] = _mm512_shuffle_i32x4(odd, odd2, 0x88);
    out[8] = _mm512_shuffle_i32x4(even, even2, 0xdd), out[12] = _mm512_shuffle_i32x4(odd, odd2, 0xdd);
}

INLINE void add_pairs(__m512 *sums, const __m512i *rows, const int pairs, const bf16 *x, int64_t x_stride, const int tokens) {
#pragma GCC unroll 4
    for (int i = 0; i < pairs; i++)
#pragma GCC unroll 12
        for (int t = 0; t < tokens; t++) {
            int32_t pair;
            memcpy(&pair, x + t * x_stride + 2 * i, 4);
            sums[t] = _mm512_dpbf16_ps(sums[t], (__m512bh)rows[i], (__m512bh)_mm512_set1_epi32(pair));
        }
}

// sums (tokens, 16 rows) += W (16, depth) times x, a row a token, in the order of `strip`: rows stand in lanes, so that each
// is read in long runs. Meanwhile as much memory from `later` on comes nearer. While some pairs are multiplied the next
// ones are turned: shuffles and products have units of their own.
INLINE void slim(const bf16 *w, int64_t depth, const bf16 *x, int64_t x_stride, const int tokens, const char *later, float *out) {
    __m512i turned[2][TILE], r[TILE];
    __m512 sums[TILE];
    for (int t = 0; t < tokens; t++) sums[t] = _mm512_loadu_ps(out + t * TILE);
    for (int i = 0; i < TILE; i += 4) turn_four(w + i * depth, depth, depth < 32 ? 0xff : 0xffff, later + i * 64, r + i);
    for (int i = 0; i < 4; i++) turn_on(r + i, turned[0] + i);
    for (int64_t k = 0; k < depth; k += 32, x += 32) {
        const __m512i *now = turned[k / 32 % 2];
        __m512i *then = turned[(k / 32 + 1) % 2];
        const __mmask16 there = depth - k >= 64 ? 0xffff : depth - k > 32 ? 0xff : 0;
        if (depth - k < 32) {
            add_pairs(sums, now, 8, x, x_stride, tokens);
            break;
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            turn_four(w + 4 * i * depth + k + 32, depth, there, later + (k + 32) * 32 + i * 256, r + 4 * i);
            add_pairs(sums, now + 3 * i, 3, x + 6 * i, x_stride, tokens);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            turn_on(r + i, then + i);
            add_pairs(sums, now + 12 + i, 1, x + 24 + 2 * i, x_stride, tokens);
        }
    }
    for (int t = 0; t < tokens; t++) _mm512_storeu_ps(out + t * TILE, sums[t]);
}

static __attribute__((noinline)) void slim_rows(const bf16 *w, int64_t depth, const bf16 *x, int64_t x_stride, int64_t count,
                                                const void *later, float *out) {
    switch (slots(count)) {
        case 1: slim(w, depth, x, x_stride, 1, later, out); break;
        case 2: slim(w, depth, x, x_stride, 2, later, out); break;
        case 4: slim(w, depth, x, x_stride, 4, later, out); break;
        case 6: slim(w, depth, x, x_stride, 6, later, out); break;
        case 8: slim(w, depth, x, x_stride, 8, later, out); break;
        case 10: slim(w, depth, x, x_stride, 10, later, out); break;
        default: slim(w, depth, x, x_stride, FEW, later, out);
    }
}

// c (rows, 16) = W (rows, depth) times x, for up to FEW tokens; rows and depth are multiples of 16.
static void few(const bf16 *w, int64_t rows, int64_t depth, const bf16 *x, int64_t x_stride, int64_t count, const bf16 *later, float *c) {
    for (int64_t r = 0; r < rows; r += TILE, w += TILE * depth, c += TILE * TILE) {
        __m512i sums[TILE];
        for (int t = 0; t < TILE; t++) sums[t] = _mm512_setzero_si512();
        slim_rows(w, depth, x, x_stride, count, r + TILE < rows ? w + TILE * depth : later, (float *)sums);
        turn(sums);
        for (int i = 0; i < TILE; i++) _mm512_store_si512(c + i * TILE, sums[i]);
    }
}
#endif

// The first block of what a product reads, a row a token.
static void flatten(const bf16 *in, int64_t depth, bf16 *out, int64_t stride) {
    for (int64_t c = 0; c < depth; c += UNIT) {
        const int half = depth - c < UNIT;
        __m512i rows[TILE];
        for (int i = 0; i < TILE; i++) rows[i] = half && i >= TILE / 2 ? _mm512_setzero_si512() : _mm512_loadu_si512(in + (c + 2 * i) * TILE);
        turn(rows);
        for (int i = 0; i < FEW; i++) _mm512_mask_storeu_epi32(out + i * stride + c, half ? 0xff : 0xffff, rows[i]);
    }
}
