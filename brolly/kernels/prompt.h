// A block of tokens through the decoder by AMX tiles; decoder.c includes this file where the processor has them.
//
// Activations stand channel by channel, 16 tokens ("lanes") side by side: (blocks, channels, 16). So a product W Xᵀ reads
// the weights as they lie in the checkpoint, nothing is packed beforehand, and a norm, a rotation, a softmax or an
// activation function is plain arithmetic on whole vectors. What a product reads is bfloat16 with two channels side by
// side per lane, (blocks, channels / 2, 16, 2), the order in which a tile multiplies.

#pragma once
#include "tiles.h"

enum { KEYS = 256 };

typedef struct {
    const Network *net;
    const int32_t *tokens;
    int64_t position, length, blocks, capacity, layer_stride, padded;  // padded: keys so far, up to a multiple of DEPTH
    char *keys, *values;
    float *x, *qkv, *cosine, *sine;
    bf16 *normed, *mixed, *hidden, *turned;  // turned: this layer's values, (n_kv_heads, head_dim, padded)
    float *logits, *last;                    // last: (dim) the last token's state, and its norm behind it
    atomic_int *next;
} Prompt;

// C += A B for 32 rows and 32 tokens; a0, a1: 16 rows each, `stride` bytes apart; b0, b1: two blocks of tokens.
INLINE void multiply(const bf16 *a0, const bf16 *a1, int64_t stride, const bf16 *b0, const bf16 *b1, int64_t depth) {
    settle();
    for (int64_t k = 0; k < depth; k += DEPTH) {
        _tile_loadd(4, a0 + k, stride);
        _tile_loadd(6, b0 + k * TILE, 64);
        _tile_loadd(5, a1 + k, stride);
        _tile_loadd(7, b1 + k * TILE, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 5, 6);
        _tile_dpbf16ps(2, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
    }
}

// out (blocks, out_rows, 16) at row `at` = or += W (rows, depth) times `in`.
INLINE void product_rows(const Prompt *p, const bf16 *w, const void *b, int64_t first, int64_t end, int64_t depth,
                         const bf16 *in, float *out, int64_t out_rows, int64_t at, int add) {
    for (int64_t t = 0; t < p->blocks; t += 2) {
        const bf16 *b0 = in + t * depth * TILE, *b1 = b0 + depth * TILE;
        for (int64_t r = first; r < end; r += 32) {
            float *c0 = out + (t * out_rows + at + r) * TILE, *c1 = c0 + out_rows * TILE;
            if (add) {
                settle();
                _tile_loadd(0, c0, 64); _tile_loadd(1, c0 + 256, 64);
                _tile_loadd(2, c1, 64); _tile_loadd(3, c1 + 256, 64);
            } else {
                _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
            }
            multiply(w + r * depth, w + (r + TILE) * depth, depth * 2, b0, b1, depth);
            _tile_stored(0, c0, 64); _tile_stored(1, c0 + 256, 64);
            _tile_stored(2, c1, 64); _tile_stored(3, c1 + 256, 64);
            for (int i = 0; b && i < 32; i++) {
                const __m512 shift = _mm512_set1_ps(one(b, r + i, 1));
                _mm512_storeu_ps(c0 + i * TILE, _mm512_add_ps(_mm512_loadu_ps(c0 + i * TILE), shift));
                _mm512_storeu_ps(c1 + i * TILE, _mm512_add_ps(_mm512_loadu_ps(c1 + i * TILE), shift));
            }
        }
    }
}

static void product_all(const Prompt *p, atomic_int *next, int n, const void *w, const void *b, int64_t rows, int64_t depth,
                        const bf16 *in, float *out, int64_t out_rows, int64_t at, int add) {
    const int64_t size = panel_rows(rows, depth, 32, n);
    for (int64_t a; (a = take(next, size)) < rows;)
        product_rows(p, w, b, a, least(a + size, rows), depth, in, out, out_rows, at, add);
}

INLINE floats squash(floats x) { return 1.0f / (1.0f + exps(-x)); }

// hidden = silu(gate) * up, or gelu(up): computed tile by tile and never stored in full precision.
static void feed(const Prompt *p, const Layer *l, atomic_int *next, int n) {
    const int64_t C = p->net->dim, F = p->net->hidden_dim, step = l->gate ? TILE : 2 * TILE;
    const int64_t size = panel_rows(F, C * (l->gate ? 2 : 1), 32, n);
    const bf16 *first = l->gate ? l->gate : l->up, *second = l->gate ? l->up : (const bf16 *)l->up + TILE * C;
    const void *first_b = l->gate ? l->gate_b : l->up_b, *second_b = l->up_b;
    float c[4][TILE][TILE] __attribute__((aligned(64)));
    for (int64_t a; (a = take(next, size)) < F;)
        for (int64_t t = 0; t < p->blocks; t += 2) {
            const bf16 *b0 = p->normed + t * C * TILE, *b1 = b0 + C * TILE;
            for (int64_t r = a; r < least(a + size, F); r += step) {
                _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
                multiply(first + r * C, second + r * C, C * 2, b0, b1, C);
                _tile_stored(0, c[0], 64); _tile_stored(1, c[1], 64);
                _tile_stored(2, c[2], 64); _tile_stored(3, c[3], 64);
                for (int block = 0; block < 2; block++) {
                    float(*g)[TILE] = c[2 * block], (*u)[TILE] = c[2 * block + 1];
                    bf16 *out = p->hidden + ((t + block) * F + r) * TILE;
                    for (int i = 0; i < TILE; i++) {
                        floats x = loadf(g[i]) + bias(first_b, r + i, 1);
                        floats y = loadf(u[i]) + bias(second_b, r + i + (l->gate ? 0 : TILE), 1);
                        if (l->gate) {
                            storef(g[i], x * squash(x) * y);
                        } else {
                            storef(g[i], x * squash(1.5957691216057308f * (x + 0.044715f * x * x * x)));
                            storef(u[i], y * squash(1.5957691216057308f * (y + 0.044715f * y * y * y)));
                        }
                    }
                    for (int i = 0; i < step; i += 2)  // without a gate, u's rows follow g's
                        _mm512_storeu_si512(out + i * TILE, paired(loadf(g[i]), loadf(g[i + 1])));
                }
            }
        }
}

// Norm over the channels of one block, ready for a product.
static void normalise_block(const Prompt *p, int64_t t, const void *w, const void *b) {
    const Network *net = p->net;
    const int64_t C = net->dim;
    const float *x = p->x + t * C * TILE;
    bf16 *out = p->normed + t * C * TILE;
    floats mean = {0}, square = {0}, scale;
    for (int64_t c = 0; net->layer_norm && c < C; c++) mean += loadf(x + c * TILE);
    mean /= (float)C;
    for (int64_t c = 0; c < C; c++) {
        floats d = loadf(x + c * TILE) - mean;
        square += d * d;
    }
    square = square / (float)C + net->eps;
    scale = 1.0f / (floats)_mm512_sqrt_ps((__m512)square);
    for (int64_t c = 0; c < C; c += 2) {
        floats even = (loadf(x + c * TILE) - mean) * scale * one(w, c, 1) + bias(b, c, 1);
        floats odd = (loadf(x + (c + 1) * TILE) - mean) * scale * one(w, c + 1, 1) + bias(b, c + 1, 1);
        _mm512_storeu_si512(out + c * TILE, paired(even, odd));
    }
}

// One head of one block, (head_dim, 16) in place: Qwen3's norm, then the rotation.
static void place_head(const Prompt *p, float *x, int64_t t, const void *norm) {
    const int64_t D = p->net->head_dim, half = D / 2;
    if (norm) {
        floats square = {0};
        for (int64_t d = 0; d < D; d++) square += loadf(x + d * TILE) * loadf(x + d * TILE);
        floats scale = 1.0f / (floats)_mm512_sqrt_ps((__m512)(square / (float)D + p->net->eps));
        for (int64_t d = 0; d < D; d++) storef(x + d * TILE, loadf(x + d * TILE) * scale * one(norm, d, 1));
    }
    for (int64_t d = 0; p->net->inv_freq && d < half; d++) {
        floats a = loadf(x + d * TILE), b = loadf(x + (d + half) * TILE);
        floats c = loadf(p->cosine + (t * half + d) * TILE), s = loadf(p->sine + (t * half + d) * TILE);
        storef(x + d * TILE, a * c - b * s);
        storef(x + (d + half) * TILE, b * c + a * s);
    }
}

// New keys and values of one head into the cache, and all values so far into `turned`, where a tile can read them.
static void remember(const Prompt *p, const Layer *l, int64_t layer, int64_t kv) {
    const Network *net = p->net;
    const int64_t D = net->head_dim, rows = (net->n_heads + 2 * net->n_kv_heads) * D;
    bf16 *keys = (bf16 *)p->keys + layer * p->layer_stride + kv * p->capacity * D;
    bf16 *values = (bf16 *)p->values + layer * p->layer_stride + kv * p->capacity * D;
    bf16 *turned = p->turned + kv * D * p->padded;
    for (int64_t s = 0; s < p->position; s++)
        for (int64_t d = 0; d < D; d++) turned[d * p->padded + s] = values[s * D + d];
    for (int64_t t = 0; t < p->blocks; t++) {
        float *k = p->qkv + (t * rows + (net->n_heads + kv) * D) * TILE, *v = k + net->n_kv_heads * D * TILE;
        place_head(p, k, t, l->k_norm);
        const int64_t start = p->position + t * TILE, n = least(TILE, p->length - t * TILE);
        for (int64_t d = 0; d < D; d++)
            for (int64_t i = 0; i < n; i++) {
                keys[(start + i) * D + d] = to_bf16(k[d * TILE + i]);
                values[(start + i) * D + d] = turned[d * p->padded + start + i] = to_bf16(v[d * TILE + i]);
            }
    }
    for (int64_t d = 0; d < D; d++)
        for (int64_t s = p->position + p->length; s < p->padded; s++) turned[d * p->padded + s] = 0;
}

// One query head of one block over all keys it may see, KEYS at a time with a running maximum (Milakov 2018, Dao 2022).
static void attend_block(const Prompt *p, const Layer *l, int64_t layer, int64_t h, int64_t t) {
    const Network *net = p->net;
    const int64_t D = net->head_dim, rows = (net->n_heads + 2 * net->n_kv_heads) * D, kv = h / (net->n_heads / net->n_kv_heads);
    const bf16 *keys = (bf16 *)p->keys + layer * p->layer_stride + kv * p->capacity * D;
    const bf16 *turned = p->turned + kv * D * p->padded;
    float *q = p->qkv + (t * rows + h * D) * TILE;
    bf16 query[MAX_HEAD * TILE], shares[KEYS * TILE];
    float scores[KEYS * TILE], mixed[MAX_HEAD * TILE];
    place_head(p, q, t, l->q_norm);
    const float scale = 1.0f / sqrtf((float)D);
    for (int64_t d = 0; d < D; d += 2)
        _mm512_storeu_si512(query + d * TILE, paired(loadf(q + d * TILE) * scale, loadf(q + (d + 1) * TILE) * scale));
    const int64_t newest = p->position + least(t * TILE + TILE, p->length) - 1, oldest = p->position + t * TILE;
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i stands = _mm512_min_epi32(_mm512_add_epi32(_mm512_set1_epi32((int)oldest), lane), _mm512_set1_epi32((int)newest));
    const int64_t window = l->window ? l->window : 1 << 30;  // a sum with a position stays in 32 bits
    const int64_t first = oldest + 1 > window ? (oldest + 1 - window) / DEPTH * DEPTH : 0;
    memset(mixed, 0, D * TILE * sizeof(float));
    floats top = (floats){0} - 1e30f, sum = {0};
    for (int64_t s = first; s <= newest; s += KEYS) {
        const int64_t n = least(KEYS, (newest + DEPTH - s) / DEPTH * DEPTH);
        floats high = top;
        settle();
        for (int64_t i = 0; i < n; i += DEPTH) {
            _tile_zero(0); _tile_zero(1);
            for (int64_t d = 0; d < D; d += DEPTH) {
                _tile_loadd(4, keys + (s + i) * D + d, D * 2);
                _tile_loadd(5, keys + (s + i + TILE) * D + d, D * 2);
                _tile_loadd(6, query + d * TILE, 64);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 5, 6);
            }
            _tile_stored(0, scores + i * TILE, 64); _tile_stored(1, scores + (i + TILE) * TILE, 64);
            const int whole = s + i + DEPTH <= oldest + 1 && s + i > newest - window;
            for (int64_t j = i; j < i + DEPTH; j++) {
                __m512 score = _mm512_loadu_ps(scores + j * TILE);
                if (!whole) {
                    const __m512i key = _mm512_set1_epi32((int)(s + j));
                    __mmask16 sees = _mm512_cmple_epi32_mask(key, stands);
                    sees &= _mm512_cmpgt_epi32_mask(_mm512_add_epi32(key, _mm512_set1_epi32((int)window)), stands);
                    score = _mm512_mask_blend_ps(sees, _mm512_set1_ps(-1e30f), score);
                    _mm512_storeu_ps(scores + j * TILE, score);
                }
                high = (floats)_mm512_max_ps((__m512)high, score);
            }
        }
        const floats fade = exps(top - high);
        sum *= fade;
        for (int64_t j = 0; j < n; j += 2) {
            floats even = exps(loadf(scores + j * TILE) - high), odd = exps(loadf(scores + (j + 1) * TILE) - high);
            sum += even + odd;
            _mm512_storeu_si512(shares + j * TILE, paired(even, odd));
        }
        for (int64_t d = 0; d < D; d += DEPTH) {
            for (int64_t i = d; s > first && i < d + DEPTH; i++) storef(mixed + i * TILE, loadf(mixed + i * TILE) * fade);
            settle();
            _tile_loadd(0, mixed + d * TILE, 64); _tile_loadd(1, mixed + (d + TILE) * TILE, 64);
            for (int64_t j = 0; j < n; j += DEPTH) {
                _tile_loadd(4, turned + d * p->padded + s + j, p->padded * 2);
                _tile_loadd(5, turned + (d + TILE) * p->padded + s + j, p->padded * 2);
                _tile_loadd(6, shares + j * TILE, 64);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 5, 6);
            }
            _tile_stored(0, mixed + d * TILE, 64); _tile_stored(1, mixed + (d + TILE) * TILE, 64);
        }
        top = high;
    }
    bf16 *out = p->mixed + (t * net->n_heads + h) * D * TILE;
    for (int64_t d = 0; d < D; d += 2)
        _mm512_storeu_si512(out + d * TILE, paired(loadf(mixed + d * TILE) / sum, loadf(mixed + (d + 1) * TILE) / sum));
}

static void begin_block(const Prompt *p, int64_t t) {
    const Network *net = p->net;
    const int64_t C = net->dim, half = net->head_dim / 2;
    for (int64_t i = 0; i < TILE; i++) {
        const int64_t at = t * TILE + i, from = least(at, p->length - 1), position = p->position + from;
        for (int64_t c = 0; c < C; c++)
            p->x[(t * C + c) * TILE + i] = one(net->embed, p->tokens[from] * C + c, 1) + bias(net->places, position * C + c, 1);
        for (int64_t d = 0; net->inv_freq && d < half; d++) {
            const float angle = (float)position * net->inv_freq[d];
            p->cosine[(t * half + d) * TILE + i] = cosf(angle) * net->rope_scale;
            p->sine[(t * half + d) * TILE + i] = sinf(angle) * net->rope_scale;
        }
    }
}

static void prompt_work(void *argument, int index, int n) {
    const Prompt *p = argument;
    const Network *net = p->net;
    const int64_t C = net->dim, F = net->hidden_dim, D = net->head_dim, H = net->n_heads, KV = net->n_kv_heads;
    const int64_t rows = (H + 2 * KV) * D;
    atomic_int *next = p->next;
    int64_t a;
    tiles_begin();
    for (; (a = take(next, 1)) < p->blocks;) begin_block(p, a);
    next++, meet(n);
    for (int64_t i = 0; i < net->n_layers; i++) {
        const Layer *l = net->layers + i;
        for (; (a = take(next, 1)) < p->blocks;) normalise_block(p, a, l->norm1, l->norm1_b);
        next++, meet(n);
        product_all(p, next++, n, l->q, l->q_b, H * D, C, p->normed, p->qkv, rows, 0, 0);
        product_all(p, next++, n, l->k, l->k_b, KV * D, C, p->normed, p->qkv, rows, H * D, 0);
        product_all(p, next++, n, l->v, l->v_b, KV * D, C, p->normed, p->qkv, rows, (H + KV) * D, 0);
        meet(n);
        for (; (a = take(next, 1)) < KV;) remember(p, l, i, a);
        next++, meet(n);
        for (; (a = take(next, 1)) < H * p->blocks;) attend_block(p, l, i, a % H, a / H);
        next++, meet(n);
        product_all(p, next++, n, l->o, l->o_b, C, H * D, p->mixed, p->x, C, 0, 1);
        meet(n);
        for (; (a = take(next, 1)) < p->blocks;) normalise_block(p, a, l->norm2, l->norm2_b);
        next++, meet(n);
        feed(p, l, next++, n);
        meet(n);
        product_all(p, next++, n, l->down, l->down_b, C, F, p->hidden, p->x, C, 0, 1);
        meet(n);
    }
    _tile_release();
    const int64_t end = p->length - 1;
    if (index == 0)
        for (int64_t c = 0; c < C; c++) p->last[c] = p->x[(end / TILE * C + c) * TILE + end % TILE];
    meet(n);
    foretell(net, p->last, p->last + (index + 1) * C, p->logits, next, n, 1);
}

enum { PHASES = 10 };  // counters a layer

static int64_t prompt_parts(const Network *net, int64_t length, int64_t padded, int64_t n_threads, int64_t *parts) {
    const int64_t lanes = (length + 31) / 32 * 32, C = net->dim, D = net->head_dim;
    parts[0] = lanes * C * 4;
    parts[1] = lanes * (net->n_heads + 2 * net->n_kv_heads) * D * 4;
    parts[2] = parts[3] = lanes * D / 2 * 4;
    parts[4] = lanes * C * 2;
    parts[5] = lanes * net->n_heads * D * 2;
    parts[6] = lanes * net->hidden_dim * 2;
    parts[7] = net->n_kv_heads * D * padded * 2;
    parts[8] = (n_threads + 1) * C * 4;
    parts[9] = (PHASES * net->n_layers + 2) * sizeof(atomic_int);
    int64_t bytes = 64;
    for (int i = 0; i < 10; i++) bytes += parts[i] = (parts[i] + 63) / 64 * 64;
    return bytes;
}
