// Causal attention within stretches of a row of tokens, forward and backward, in bfloat16 (Dao 2023: nothing is kept but
// each query's sum). Queries stand in lanes, keys in rows; a task is one stretch and one key head with its query heads.
//
// L tokens of a stretch, D head_dim. Packed are: keys and values (L, D) and keys turned (D, L), padded with zeros; queries and
// what comes back to them both with channels paired, tokens in lanes, and with tokens paired, channels in lanes (tiles.h).

#pragma once
#include "lanes.h"

enum { MAX_HEAD = 256, KEYS = 64, UNIT = 32, WIDE = BLOCKS * TILE };

typedef struct {
    const bf16 *q, *k, *v, *out, *d_out;
    bf16 *o, *dq, *dk, *dv;
    float *sums;  // (heads, tokens): the logarithm to 2 of each query's sum of powers
    const int64_t *starts, *lengths;
    int64_t n_stretches, n_tokens, heads, kv_heads, dim, window, most;  // most: padded tokens of the longest stretch
    char *space;
    int64_t room;  // bytes of each thread's space
    atomic_int next, member;
} Stretches;

INLINE int64_t padded(int64_t length) {  // to an odd number of UNITs: no two rows of turned keys collide in the cache
    const int64_t n = whole(length, UNIT);
    return n + UNIT * (n / UNIT % 2 == 0);
}

// Rows (length, D) that lie `stride` apart become rows of D, with zeros behind.
static void copy_rows(const bf16 *x, int64_t stride, int64_t length, int64_t pad, int64_t D, bf16 *out) {
    for (int64_t i = 0; i < length; i++) memcpy(out + i * D, x + i * stride, D * 2);
    memset(out + length * D, 0, (pad - length) * D * 2);
}

// … become columns: (D, pad).
static void turn_rows(const bf16 *x, int64_t stride, int64_t length, int64_t pad, int64_t D, bf16 *out) {
    for (int64_t t = 0; t < pad; t += TILE)
        for (int64_t d = 0; d < D; d += TILE) {
            __m512i r[TILE];
            for (int64_t i = 0; i < TILE; i++)
                r[i] = t + i < length ? _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(x + (t + i) * stride + d)))
                                      : _mm512_setzero_si512();
            turn(r);
            for (int64_t i = 0; i < TILE; i++) _mm256_storeu_si256((__m256i *)(out + (d + i) * pad + t), _mm512_cvtepi32_epi16(r[i]));
        }
}

// … become blocks of tokens in lanes, channels paired: (pad / 16, D / 2, 16, 2).
static void pair_channels(const bf16 *x, int64_t stride, int64_t length, int64_t pad, int64_t D, bf16 *out) {
    for (int64_t t = 0; t < pad; t += TILE)
        for (int64_t d = 0; d < D; d += UNIT) {
            __m512i r[TILE];
            for (int64_t i = 0; i < TILE; i++)
                r[i] = t + i < length ? _mm512_maskz_loadu_epi32(D - d < UNIT ? 0xff : 0xffff, x + (t + i) * stride + d)
                                      : _mm512_setzero_si512();
            turn(r);
            for (int64_t i = 0; i < TILE && d + 2 * i < D; i++) _mm512_storeu_si512(out + t * D + (d + 2 * i) * TILE, r[i]);
        }
}

// … become blocks of channels in lanes, tokens paired: (D / 16, pad / 2, 16, 2).
static void pair_tokens(const bf16 *x, int64_t stride, int64_t length, int64_t pad, int64_t D, bf16 *out) {
    for (int64_t d = 0; d < D; d += TILE)
        for (int64_t t = 0; t < pad; t += 2) {
            __m512i r[2];
            for (int64_t i = 0; i < 2; i++)
                r[i] = t + i < length ? _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(x + (t + i) * stride + d)))
                                      : _mm512_setzero_si512();
            _mm512_storeu_si512(out + d * pad + t * TILE, _mm512_or_si512(r[0], _mm512_slli_epi32(r[1], 16)));
        }
}

// One block of sums, channels in rows and tokens in lanes, goes back to rows that lie `stride` apart, times `scale`.
static void leave(const float *x, int64_t tokens, int64_t D, floats scale, bf16 *out, int64_t stride) {
    for (int64_t d = 0; d < D; d += UNIT) {
        __m512i r[TILE];
        for (int64_t i = 0; i < TILE; i++)
            r[i] = d + 2 * i < D ? paired(loadf(x + (d + 2 * i) * TILE) * scale, loadf(x + (d + 2 * i + 1) * TILE) * scale)
                                 : _mm512_setzero_si512();
        turn(r);
        for (int64_t i = 0; i < least(TILE, tokens); i++)
            _mm512_mask_storeu_epi32(out + i * stride + d, D - d < UNIT ? 0xff : 0xffff, r[i]);
    }
}

// The keys that some queries of a block see: from `first`, up to whole STEPs behind the newest.
INLINE int64_t first_key(const Stretches *p, int64_t query) {
    return p->window && query + 1 > p->window ? (query + 1 - p->window) / STEP * STEP : 0;
}

// Which of 16 queries from `query` on see a key.
INLINE __mmask16 sees(const Stretches *p, int64_t query, int64_t key) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i back = _mm512_add_epi32(_mm512_set1_epi32((int)(query - key)), lane);
    const int64_t window = p->window ? p->window : 1 << 30;
    return _mm512_cmpge_epi32_mask(back, _mm512_setzero_si512()) & _mm512_cmplt_epi32_mask(back, _mm512_set1_epi32((int)window));
}

// Whether all of 16 queries see all of STEP keys.
INLINE int clear(const Stretches *p, int64_t query, int64_t key) {
    return key + STEP - 1 <= query && (!p->window || query + TILE - 1 - key < p->window);
}

// Keys at a time with a running maximum (Milakov 2018). A lane that has seen no key yet has -1e30 as its maximum and counts what
// it does not see; the first key that it does see fades that to nothing.
static void look(const Stretches *p, int64_t s, int64_t kv, char *space) {
    const int64_t D = p->dim, L = p->lengths[s], pad = padded(L), R = p->heads / p->kv_heads, at = p->starts[s];
    const int64_t q_stride = p->heads * D, kv_stride = p->kv_heads * D;
    const float scale = 1.44269504f / sqrtf((float)D);
    bf16 *keys = (bf16 *)space, *values = keys + p->most * D, *queries = values + p->most * D;
    float scores[BLOCKS][KEYS][TILE] __attribute__((aligned(64))), mixed[BLOCKS][MAX_HEAD][TILE] __attribute__((aligned(64)));
    bf16 shares[BLOCKS][KEYS][TILE] __attribute__((aligned(64)));
    copy_rows(p->k + at * kv_stride + kv * D, kv_stride, L, pad, D, keys);
    turn_rows(p->v + at * kv_stride + kv * D, kv_stride, L, pad, D, values);
    for (int64_t h = kv * R; h < (kv + 1) * R; h++) {
        pair_channels(p->q + at * q_stride + h * D, q_stride, L, pad, D, queries);
        for (int64_t t = 0; t < L; t += WIDE) {
            const int64_t blocks = (least(WIDE, L - t) + TILE - 1) / TILE, lanes = blocks * TILE;
            const int64_t first = first_key(p, t), past = least(whole(t + lanes, STEP), pad);
            floats top[BLOCKS], sum[BLOCKS];
            for (int g = 0; g < blocks; g++) top[g] = (floats){0} - 1e30f, sum[g] = (floats){0};
            for (int64_t k = first; k < past; k += KEYS) {
                const int64_t n = least(KEYS, past - k);
                grid(keys + k * D, D, queries + t * D, D * TILE, n, D, lanes, scores[0][0], KEYS * TILE, 0);
                for (int g = 0; g < blocks; g++) {
                    floats peak = top[g];
                    for (int64_t j = 0; j < n; j++) {
                        __m512 score = (__m512)(loadf(scores[g][j]) * scale);
                        if (!clear(p, t + g * TILE, (k + j) / STEP * STEP))
                            score = _mm512_mask_blend_ps(sees(p, t + g * TILE, k + j), _mm512_set1_ps(-1e30f), score);
                        _mm512_store_ps(scores[g][j], score);
                        peak = (floats)_mm512_max_ps((__m512)peak, score);
                    }
                    const floats fade = power(top[g] - peak);
                    floats even = {0}, odd = {0};
                    for (int64_t j = 0; j < n; j += 2) {
                        const floats a = power(loadf(scores[g][j]) - peak), z = power(loadf(scores[g][j + 1]) - peak);
                        even += a, odd += z;
                        _mm512_store_si512(shares[g][j], paired(a, z));
                    }
                    sum[g] = sum[g] * fade + even + odd, top[g] = peak;
                    for (int64_t d = 0; k > first && d < D; d++) storef(mixed[g][d], loadf(mixed[g][d]) * fade);
                }
                grid(values + k, pad, shares[0][0], KEYS * TILE, D, n, lanes, mixed[0][0], MAX_HEAD * TILE, k > first);
            }
            for (int g = 0; g < blocks; g++) {
                const int64_t token = t + g * TILE, n = least(TILE, L - token);
                float told[TILE];
                storef(told, sum[g]);
                for (int i = 0; i < n; i++) p->sums[h * p->n_tokens + at + token + i] = log2f(told[i]) + top[g][i];
                leave(mixed[g][0], n, D, 1.0f / sum[g], p->o + (at + token) * q_stride + h * D, q_stride);
            }
        }
    }
}

static void look_back(const Stretches *p, int64_t s, int64_t kv, char *space) {
    const int64_t D = p->dim, L = p->lengths[s], pad = padded(L), R = p->heads / p->kv_heads, at = p->starts[s], size = p->most * D;
    const int64_t q_stride = p->heads * D, kv_stride = p->kv_heads * D;
    const float root = 1.0f / sqrtf((float)D), scale = 1.44269504f * root;
    float *d_keys = (float *)space, *d_values = d_keys + size, *inner = d_values + size;
    bf16 *keys = (bf16 *)(inner + p->most), *values = keys + size, *turned = values + size;
    bf16 *queries = turned + size, *grads = queries + size, *queries2 = grads + size, *grads2 = queries2 + size;
    float scores[BLOCKS][KEYS][TILE] __attribute__((aligned(64))), pulls[BLOCKS][KEYS][TILE] __attribute__((aligned(64)));
    float dq[BLOCKS][MAX_HEAD][TILE] __attribute__((aligned(64)));
    bf16 shares[KEYS][WIDE] __attribute__((aligned(64))), slopes[KEYS][WIDE] __attribute__((aligned(64)));
    bf16 slopes2[BLOCKS][KEYS][TILE] __attribute__((aligned(64)));
    copy_rows(p->k + at * kv_stride + kv * D, kv_stride, L, pad, D, keys);
    copy_rows(p->v + at * kv_stride + kv * D, kv_stride, L, pad, D, values);
    turn_rows(p->k + at * kv_stride + kv * D, kv_stride, L, pad, D, turned);
    memset(d_keys, 0, pad * D * 4), memset(d_values, 0, pad * D * 4);
    for (int64_t h = kv * R; h < (kv + 1) * R; h++) {
        const bf16 *q = p->q + at * q_stride + h * D, *out = p->out + at * q_stride + h * D, *d_out = p->d_out + at * q_stride + h * D;
        pair_channels(q, q_stride, L, pad, D, queries), pair_tokens(q, q_stride, L, pad, D, queries2);
        pair_channels(d_out, q_stride, L, pad, D, grads), pair_tokens(d_out, q_stride, L, pad, D, grads2);
        memset(inner + L, 0, (pad - L) * 4);
        for (int64_t i = 0; i < L; i++) {
            floats sum = {0};
            for (int64_t d = 0; d < D; d += TILE) sum += load(out, i * q_stride + d, 1) * load(d_out, i * q_stride + d, 1);
            inner[i] = _mm512_reduce_add_ps((__m512)sum);
        }
        for (int64_t t = 0; t < L; t += WIDE) {
            const int64_t blocks = (least(WIDE, L - t) + TILE - 1) / TILE, lanes = blocks * TILE;
            const int64_t first = first_key(p, t), past = least(whole(t + lanes, STEP), pad);
            float sums[WIDE] = {0};
            memcpy(sums, p->sums + h * p->n_tokens + at + t, least(WIDE, L - t) * 4);
            for (int64_t k = first; k < past; k += KEYS) {
                const int64_t n = least(KEYS, past - k);
                grid(keys + k * D, D, queries + t * D, D * TILE, n, D, lanes, scores[0][0], KEYS * TILE, 0);
                grid(values + k * D, D, grads + t * D, D * TILE, n, D, lanes, pulls[0][0], KEYS * TILE, 0);
                for (int g = 0; g < blocks; g++) {
                    const floats sum = loadf(sums + g * TILE), own = loadf(inner + t + g * TILE);
                    for (int64_t j = 0; j < n; j += 2) {
                        floats slope[2];
                        const int all = clear(p, t + g * TILE, (k + j) / STEP * STEP);
                        for (int64_t i = j; i < j + 2; i++) {
                            __m512 share = (__m512)power(loadf(scores[g][i]) * scale - sum);
                            if (!all) share = _mm512_maskz_mov_ps(sees(p, t + g * TILE, k + i), share);
                            slope[i - j] = (floats)share * (loadf(pulls[g][i]) - own);
                            _mm256_store_si256((__m256i *)(shares[i] + g * TILE), (__m256i)_mm512_cvtneps_pbh(share));
                            _mm256_store_si256((__m256i *)(slopes[i] + g * TILE), (__m256i)_mm512_cvtneps_pbh((__m512)slope[i - j]));
                        }
                        _mm512_store_si512(slopes2[g][j], paired(slope[0], slope[1]));
                    }
                }
                grid(turned + k, pad, slopes2[0][0], KEYS * TILE, D, n, lanes, dq[0][0], MAX_HEAD * TILE, k > first);
                for (int64_t d = 0; d < D; d += WIDE) {
                    const int64_t wide = least(WIDE, D - d);
                    grid(shares[0], WIDE, grads2 + d * pad + t * TILE, pad * TILE, n, lanes, wide, d_values + d * pad + k * TILE, pad * TILE, 1);
                    grid(slopes[0], WIDE, queries2 + d * pad + t * TILE, pad * TILE, n, lanes, wide, d_keys + d * pad + k * TILE, pad * TILE, 1);
                }
            }
            for (int g = 0; g < blocks; g++) {
                const int64_t token = t + g * TILE;
                leave(dq[g][0], least(TILE, L - token), D, (floats){0} + root, p->dq + (at + token) * q_stride + h * D, q_stride);
            }
        }
    }
    for (int64_t i = 0; i < L; i++)
        for (int64_t d = 0; d < D; d += TILE) {
            const int64_t to = (at + i) * kv_stride + kv * D + d, from = d * pad + i * TILE;
            store(p->dk, to, loadf(d_keys + from) * root, 1), store(p->dv, to, loadf(d_values + from), 1);
        }
}

static void stretches(void *argument, int index, int n) {
    Stretches *p = argument;
    char *space = p->space + atomic_fetch_add(&p->member, 1) * p->room;
    tiles_begin();
    for (int64_t i; (i = take(&p->next, 1)) < p->n_stretches * p->kv_heads;) {
        if (p->d_out) look_back(p, i / p->kv_heads, i % p->kv_heads, space);
        else look(p, i / p->kv_heads, i % p->kv_heads, space);
    }
    tiles_end();
    (void)index, (void)n;
}

// ---- a matrix (rows, columns) becomes (columns, rows), both multiples of UNIT ----

typedef struct {
    const bf16 *in;
    bf16 *out;
    int64_t rows, columns;
    atomic_int next;
} Flip;

static void flips(void *argument, int index, int n) {
    Flip *p = argument;
    const __m512i pick = _mm512_set_epi16(62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34, 32, 30, 28, 26, 24, 22, 20, 18,
                                          16, 14, 12, 10, 8, 6, 4, 2, 0);
    for (int64_t first; (first = take(&p->next, 2 * UNIT)) < p->rows;)
        for (int64_t c = 0; c < p->columns; c += UNIT)
            for (int64_t t = first; t < least(first + 2 * UNIT, p->rows); t += UNIT) {
                __m512i a[TILE], z[TILE];  // pairs of channels of 16 rows, and of the next 16
                for (int64_t i = 0; i < TILE; i++) {
                    a[i] = _mm512_loadu_si512(p->in + (t + i) * p->columns + c);
                    z[i] = _mm512_loadu_si512(p->in + (t + TILE + i) * p->columns + c);
                }
                turn(a), turn(z);
                for (int64_t i = 0; i < TILE; i++) {
                    bf16 *out = p->out + (c + 2 * i) * p->rows + t;
                    _mm512_storeu_si512(out, _mm512_permutex2var_epi16(a[i], pick, z[i]));
                    _mm512_storeu_si512(out + p->rows, _mm512_permutex2var_epi16(_mm512_srli_epi32(a[i], 16), pick, _mm512_srli_epi32(z[i], 16)));
                }
            }
    (void)index, (void)n;
}

void brolly_tune_flip(const bf16 *in, bf16 *out, int64_t rows, int64_t columns, int64_t n_threads) {
    Flip job = {.in = in, .out = out, .rows = rows, .columns = columns};
    shared(flips, &job, (int)n_threads);
}

// Channels that a product takes at a time; 0 where there are none.
int64_t brolly_tune_attends(void) { return tiles_allowed() ? DEPTH : 0; }

// Bytes of each thread's space, for stretches of at most so many tokens.
int64_t brolly_tune_room(int64_t longest, int64_t dim) { return whole(padded(longest) * (dim * (7 * 2 + 2 * 4) + 4), 64) + 64; }

// q, o: (tokens, heads, dim); k, v: (tokens, kv_heads, dim); sums: (heads, tokens). dim is a multiple of 16, at most MAX_HEAD.
// Backward where d_out is given: then o is what came out, and dq, dk, dv are written. window: 0 for none.
void brolly_tune_attend(const bf16 *q, const bf16 *k, const bf16 *v, bf16 *o, float *sums, const bf16 *d_out, bf16 *dq, bf16 *dk,
                        bf16 *dv, const int64_t *starts, const int64_t *lengths, int64_t n_stretches, int64_t n_tokens, int64_t longest,
                        int64_t heads, int64_t kv_heads, int64_t dim, int64_t window, char *space, int64_t n_threads) {
    Stretches job = {
        .q = q, .k = k, .v = v, .o = o, .out = o, .sums = sums, .d_out = d_out, .dq = dq, .dk = dk, .dv = dv, .starts = starts,
        .lengths = lengths, .n_stretches = n_stretches, .n_tokens = n_tokens, .heads = heads, .kv_heads = kv_heads, .dim = dim,
        .window = window, .most = padded(longest), .space = space, .room = brolly_tune_room(longest, dim),
    };
    shared(stretches, &job, (int)n_threads);
}
