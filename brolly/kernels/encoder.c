// A whole Stack (brolly.layers.transformer) over sequences that lie one behind the other, in one call.
//
// Weights stay where torch has them, bfloat16; sums, norms and the residual stream are float32. Tokens stand in lanes, 16
// a block (tiles.h); a block may hold the end of one sequence and the start of the next, and each lane knows which keys it
// may see. The reference is the Stack itself; tests/kernels compares the two. encoder.py mirrors the structs.

#define _GNU_SOURCE
#include "vectors.h"

#include "team.h"

#ifdef __AVX512BF16__
#include "lanes.h"

enum { MAX_HEAD = 128, KEYS = 256, UNIT = 32, PART = 768, PHASES = 10 };

typedef struct {
    const bf16 *q, *k, *v, *o, *fc1, *gate, *fc2;
    const bf16 *norm1, *norm1_b, *norm2, *norm2_b, *scale1, *scale2;  // NULL where the network has none
    const bf16 *q_b, *k_b, *v_b, *o_b, *fc1_b, *gate_b, *fc2_b;
    const float *turns;  // each position's cosines, then its sines, (positions, head_dim); NULL without rotary positions
    int64_t window;      // how far a token looks to each side
} Layer;

typedef struct {
    int64_t dim, n_layers, n_heads, head_dim, hidden_dim, act, post_norm, causal;
    float eps;
    const Layer *layers;
} Network;

// Whole sequences that pass through a layer together: few enough to stay in the processor's own memory.
typedef struct {
    int64_t token, count, block, blocks;
} Part;

typedef struct {
    const Network *net;
    Part *parts;
    int64_t n_parts, head, stride;  // head: head_dim up to whole DEPTHs; stride: between rows of `values`
    const bf16 *in;
    bf16 *out;
    float *x, *turns;           // x: (blocks of all parts, dim, 16); the others hold one part
    bf16 *ready, *hidden;       // what the next product reads
    bf16 *queries, *keys, *values;  // (blocks, heads, head, 16), (heads, tokens, head), (heads, head_dim, stride)
    int32_t *begin, *end;       // of each lane's own sequence, counted from its part's first token
    atomic_int *next;
} Pass;

// ---- tokens in, tokens out ----

static void enter(const Pass *p, const Part *part, int64_t t) {
    const int64_t C = p->net->dim, n = least(TILE, part->count - t * TILE);
    const bf16 *in = p->in + (part->token + t * TILE) * C;
    float *x = p->x + (part->block + t) * C * TILE;
    for (int64_t c = 0; c < C; c += UNIT) {
        __m512i rows[TILE];
        for (int i = 0; i < TILE; i++) rows[i] = i < n ? _mm512_loadu_si512(in + i * C + c) : _mm512_setzero_si512();
        turn(rows);
        for (int i = 0; i < TILE; i++) {
            _mm512_storeu_si512(x + (c + 2 * i) * TILE, _mm512_slli_epi32(rows[i], 16));
            _mm512_storeu_si512(x + (c + 2 * i + 1) * TILE, _mm512_and_si512(rows[i], _mm512_set1_epi32(0xffff0000)));
        }
    }
}

static void leave(const Pass *p, const Part *part, int64_t t) {
    const int64_t C = p->net->dim, n = least(TILE, part->count - t * TILE);
    bf16 *out = p->out + (part->token + t * TILE) * C;
    const float *x = p->x + (part->block + t) * C * TILE;
    for (int64_t c = 0; c < C; c += UNIT) {
        __m512i rows[TILE];
        for (int i = 0; i < TILE; i++) rows[i] = paired(loadf(x + (c + 2 * i) * TILE), loadf(x + (c + 2 * i + 1) * TILE));
        turn(rows);
        for (int i = 0; i < n; i++) _mm512_storeu_si512(out + i * C + c, rows[i]);
    }
}

// ---- pieces of a layer; t: a block of its part ----

// LayerNorm of one block into `ready`, and into x too where the residual stream goes on from it; no w: x as it is.
static void normalise(const Pass *p, const Part *part, int64_t t, const bf16 *w, const bf16 *b, int keep) {
    const int64_t C = p->net->dim;
    float *x = p->x + (part->block + t) * C * TILE;
    bf16 *ready = p->ready + t * C * TILE;
    floats mean[4] = {0}, square[4] = {0};
    floats centre = {0}, scale = centre + 1.0f;
    if (w) {
        for (int64_t c = 0; c < C; c += 4)
            for (int j = 0; j < 4; j++) mean[j] += loadf(x + (c + j) * TILE);
        centre = (mean[0] + mean[1] + mean[2] + mean[3]) / (float)C;
        for (int64_t c = 0; c < C; c += 4)
            for (int j = 0; j < 4; j++) {
                const floats d = loadf(x + (c + j) * TILE) - centre;
                square[j] += d * d;
            }
        const floats variance = (square[0] + square[1] + square[2] + square[3]) / (float)C;
        scale = 1.0f / (floats)_mm512_sqrt_ps((__m512)(variance + p->net->eps));
    }
    for (int64_t c = 0; c < C; c += 2) {
        floats y[2];
        for (int j = 0; j < 2; j++) {
            y[j] = loadf(x + (c + j) * TILE);
            if (w) y[j] = (y[j] - centre) * scale * one(w, c + j, 1) + bias(b, c + j, 1);
            if (keep) storef(x + (c + j) * TILE, y[j]);
        }
        _mm512_storeu_si512(ready + c * TILE, paired(y[0], y[1]));
    }
}

// The cosines and sines of one block's positions, (head_dim, 16).
static void place(const Pass *p, const Layer *l, int64_t first, int64_t t) {
    const int64_t D = p->net->head_dim;
    for (int64_t i = 0; i < TILE; i++) {
        const int64_t lane = first + t * TILE + i, position = p->end[lane] ? t * TILE + i - p->begin[lane] : 0;
        for (int64_t d = 0; d < D; d++) p->turns[(t * D + d) * TILE + i] = l->turns[position * D + d];
    }
}

enum { QUERY, KEY, VALUE, ADD, FEED };

// What becomes of one head of one block, c (head_dim, 16), where it is a query, a key or a value.
INLINE void finish_head(const Pass *p, const Part *part, const Layer *l, float *c, const bf16 *b, int64_t h, int64_t t, int kind) {
    const Network *net = p->net;
    const int64_t D = net->head_dim, head = p->head;
    for (int64_t d = 0; b && d < D; d++) storef(c + d * TILE, loadf(c + d * TILE) + one(b, h * D + d, 1));
    if (kind == VALUE) {
        for (int64_t d = 0; d < D; d++) {
            bf16 *row = p->values + (h * D + d) * p->stride + t * TILE;
            const __m512 v = (__m512)loadf(c + d * TILE);  // what is endless is told by its key; here it would touch all
            const __m512 finite = _mm512_maskz_mov_ps(~_mm512_fpclass_ps_mask(v, 0x99), v);
            _mm256_storeu_si256((__m256i *)row, (__m256i)_mm512_cvtneps_pbh(finite));
            if (t == part->blocks - 1 && part->blocks % 2) _mm256_storeu_si256((__m256i *)(row + TILE), _mm256_setzero_si256());
        }
        return;
    }
    for (int64_t d = 0; l->turns && d < D / 2; d++) {
        const float *cosine = p->turns + (t * D + d) * TILE, *sine = cosine + D / 2 * TILE;
        const floats a = loadf(c + d * TILE), z = loadf(c + (d + D / 2) * TILE);
        storef(c + d * TILE, a * loadf(cosine) - z * loadf(sine));
        storef(c + (d + D / 2) * TILE, z * loadf(cosine) + a * loadf(sine));
    }
    if (kind == QUERY) {
        const float scale = 1.44269504f / sqrtf((float)D);  // shares are powers of two
        bf16 *out = p->queries + (t * net->n_heads + h) * head * TILE;
        for (int64_t d = 0; d < head; d += 2)
            _mm512_storeu_si512(out + d * TILE, d < D ? paired(loadf(c + d * TILE) * scale, loadf(c + (d + 1) * TILE) * scale)
                                                      : _mm512_setzero_si512());
        return;
    }
    bf16 *out = p->keys + (h * p->stride + t * TILE) * head;
    for (int64_t d = 0; d < head; d += UNIT) {
        __m512i rows[TILE];
        for (int64_t i = 0, e = d; i < TILE; i++, e += 2)
            rows[i] = e < D ? paired(loadf(c + e * TILE), loadf(c + (e + 1) * TILE)) : _mm512_setzero_si512();
        turn(rows);
        const __mmask16 there = head - d < UNIT ? (__mmask16)((1 << (head - d) / 2) - 1) : 0xffff;
        for (int64_t i = 0; i < TILE; i++) _mm512_mask_storeu_epi32(out + i * head + d, there, rows[i]);
    }
}

// Rows r … of one block, c (rows, 16), through the activation function; `up` is what a gate multiplies.
INLINE void feed(const Pass *p, const Layer *l, const float *c, const float *up, int64_t r, int64_t rows, int64_t t, int64_t act) {
    const int64_t F = whole(p->net->hidden_dim, DEPTH);
    bf16 *out = p->hidden + (t * F + r) * TILE;
    for (int64_t i = 0; i < rows; i += 2) {
        floats y[2];
        for (int j = 0; j < 2; j++) {
            y[j] = activate(loadf(c + (i + j) * TILE) + bias(up ? l->gate_b : l->fc1_b, r + i + j, 1), act);
            if (up) y[j] *= loadf(up + (i + j) * TILE) + bias(l->fc1_b, r + i + j, 1);
        }
        _mm512_storeu_si512(out + i * TILE, paired(y[0], y[1]));
    }
    for (int64_t i = r + rows; r + rows == p->net->hidden_dim && i < F; i += 2)
        _mm512_storeu_si512(p->hidden + (t * F + i) * TILE, _mm512_setzero_si512());
}

static void finish_feed(const Pass *p, const Layer *l, const float *c, const float *up, int64_t r, int64_t rows, int64_t t) {
    switch (p->net->act) {
        case GELU: feed(p, l, c, up, r, rows, t, GELU); break;
        case GELU_TANH: feed(p, l, c, up, r, rows, t, GELU_TANH); break;
        case QUICK_GELU: feed(p, l, c, up, r, rows, t, QUICK_GELU); break;
        case SILU: feed(p, l, c, up, r, rows, t, SILU); break;
        default: feed(p, l, c, up, r, rows, t, RELU);
    }
}

// All of W (rows, depth) times `in`, shared out in panels of rows; each unit of rows of some blocks is finished at once.
INLINE void product(const Pass *p, const Part *part, const Layer *l, atomic_int *next, int n, const bf16 *w, const bf16 *b,
                    const bf16 *scale, int64_t rows, int64_t depth, const bf16 *in, const int kind) {
    const int64_t unit = kind <= VALUE ? p->net->head_dim : UNIT, size = panel_rows(rows, depth, unit, n), C = p->net->dim;
    const int64_t in_block = whole(depth, DEPTH) * TILE, groups = (part->blocks + BLOCKS - 1) / BLOCKS;
    float c[BLOCKS][MAX_HEAD][TILE] __attribute__((aligned(64))), up[BLOCKS][UNIT][TILE] __attribute__((aligned(64)));
    for (int64_t a; (a = take(next, size)) < rows;)
        for (int64_t j = 0; j < groups; j++) {
            const int64_t t = part->blocks * j / groups;
            const int blocks = (int)(part->blocks * (j + 1) / groups - t);
            const int64_t lanes = least(blocks * TILE, part->count - t * TILE);
            for (int64_t r = a; r < least(a + size, rows); r += unit) {
                const int64_t m = least(unit, rows - r);
                grid(w + r * depth, depth, in + t * in_block, in_block, m, depth, lanes, c[0][0], MAX_HEAD * TILE, 0);
                if (kind == FEED && l->gate)
                    grid(l->fc1 + r * depth, depth, in + t * in_block, in_block, m, depth, lanes, up[0][0], UNIT * TILE, 0);
                for (int g = 0; g < blocks; g++) {
                    if (kind <= VALUE) finish_head(p, part, l, c[g][0], b, r / unit, t + g, kind);
                    if (kind == FEED) finish_feed(p, l, c[g][0], l->gate ? up[g][0] : NULL, r, m, t + g);
                    float *x = p->x + ((part->block + t + g) * C + r) * TILE;
                    for (int64_t i = 0; kind == ADD && i < m; i++) {
                        const floats y = loadf(c[g][i]) + bias(b, r + i, 1);
                        storef(x + i * TILE, loadf(x + i * TILE) + (scale ? y * one(scale, r + i, 1) : y));
                    }
                }
            }
        }
}

// One head of some blocks from t on, over all keys that any of their lanes may see, KEYS at a time with a running maximum
// (Milakov 2018, Dao 2022).
static void attend(const Pass *p, const Part *part, const Layer *l, int64_t h, int64_t t, int blocks) {
    const Network *net = p->net;
    const int64_t D = net->head_dim, H = net->n_heads, C = net->dim, head = p->head, tokens = part->block * TILE;
    const int64_t lanes = least(blocks * TILE, part->count - t * TILE);
    const bf16 *q = p->queries + (t * H + h) * head * TILE, *keys = p->keys + h * p->stride * head;
    const bf16 *values = p->values + h * D * p->stride;
    float scores[BLOCKS][KEYS][TILE] __attribute__((aligned(64))), mixed[BLOCKS][MAX_HEAD][TILE] __attribute__((aligned(64)));
    bf16 shares[BLOCKS][KEYS][TILE] __attribute__((aligned(64)));
    __m512i low[BLOCKS], high[BLOCKS];
    floats top[BLOCKS], sum[BLOCKS];
    int64_t first = part->count, past = 0, common = 0, until = part->count;  // all lanes see the keys from `common` to `until`
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int g = 0; g < blocks; g++) {
        const __m512i at = _mm512_add_epi32(_mm512_set1_epi32((int)((t + g) * TILE)), lane);
        const __m512i far = _mm512_set1_epi32((int)least(l->window, part->count));
        low[g] = _mm512_max_epi32(_mm512_loadu_si512(p->begin + tokens + (t + g) * TILE), _mm512_sub_epi32(at, far));
        const __m512i newest = net->causal ? at : _mm512_add_epi32(at, far);
        high[g] = _mm512_min_epi32(_mm512_loadu_si512(p->end + tokens + (t + g) * TILE), _mm512_add_epi32(newest, _mm512_set1_epi32(1)));
        first = least(first, _mm512_reduce_min_epi32(low[g])), until = least(until, _mm512_reduce_min_epi32(high[g]));
        past = -least(-past, -_mm512_reduce_max_epi32(high[g])), common = -least(-common, -_mm512_reduce_max_epi32(low[g]));
        top[g] = (floats){0} - 1e30f, sum[g] = (floats){0};
    }
    first = first / STEP * STEP;
    for (int64_t s = first; s < past; s += KEYS) {
        const int64_t n = least(KEYS, whole(past - s, STEP));
        grid(keys + s * head, head, q, H * head * TILE, n, head, lanes, scores[0][0], KEYS * TILE, 0);
        for (int g = 0; g < blocks; g++) {
            floats peak = top[g];
            for (int64_t i = 0; i < n; i += STEP) {
                const int all = s + i >= common && s + i + STEP <= until;
                peak = seen(scores[g] + i, s + i, STEP, low[g], high[g], all, peak);
            }
            const floats fade = power(top[g] - peak);
            floats even = {0}, odd = {0};
            for (int64_t j = 0; j < n; j += 2) {
                const floats a = power(loadf(scores[g][j]) - peak), z = power(loadf(scores[g][j + 1]) - peak);
                even += a, odd += z;
                _mm512_store_si512(shares[g][j], paired(a, z));
            }
            sum[g] = sum[g] * fade + even + odd, top[g] = peak;
            for (int64_t d = 0; s > first && d < D; d++) storef(mixed[g][d], loadf(mixed[g][d]) * fade);
        }
        grid(values + s, p->stride, shares[0][0], KEYS * TILE, whole(D, ROWS), n, lanes, mixed[0][0], MAX_HEAD * TILE, s > first);
    }
    for (int g = 0; g < blocks; g++) {
        const floats share = 1.0f / sum[g];
        bf16 *out = p->ready + ((t + g) * C + h * D) * TILE;
        for (int64_t d = 0; d < D; d += 2)
            _mm512_storeu_si512(out + d * TILE, paired(loadf(mixed[g][d]) * share, loadf(mixed[g][d + 1]) * share));
    }
}

static void layer(const Pass *p, const Part *part, const Layer *l, atomic_int *next, int n) {
    const Network *net = p->net;
    const int64_t C = net->dim, F = net->hidden_dim, blocks = part->blocks, groups = (blocks + BLOCKS - 1) / BLOCKS;
    int64_t a;
    for (; (a = take(next, 1)) < blocks;) {
        normalise(p, part, a, net->post_norm ? NULL : l->norm1, l->norm1_b, 0);
        if (l->turns) place(p, l, part->block * TILE, a);
    }
    next++, meet(n);
    product(p, part, l, next++, n, l->q, l->q_b, NULL, C, C, p->ready, QUERY);
    product(p, part, l, next++, n, l->k, l->k_b, NULL, C, C, p->ready, KEY);
    product(p, part, l, next++, n, l->v, l->v_b, NULL, C, C, p->ready, VALUE);
    meet(n);
    for (; (a = take(next, 1)) < net->n_heads * groups;) {
        const int64_t j = a % groups, t = blocks * j / groups;
        attend(p, part, l, a / groups, t, (int)(blocks * (j + 1) / groups - t));
    }
    next++, meet(n);
    product(p, part, l, next++, n, l->o, l->o_b, l->scale1, C, C, p->ready, ADD);
    meet(n);
    for (; (a = take(next, 1)) < blocks;)
        normalise(p, part, a, net->post_norm ? l->norm1 : l->norm2, net->post_norm ? l->norm1_b : l->norm2_b, net->post_norm != 0);
    next++, meet(n);
    product(p, part, l, next++, n, l->gate ? l->gate : l->fc1, NULL, NULL, F, C, p->ready, FEED);
    meet(n);
    product(p, part, l, next++, n, l->fc2, l->fc2_b, l->scale2, C, F, p->hidden, ADD);
    meet(n);
    if (!net->post_norm) return;
    for (; (a = take(next, 1)) < blocks;) normalise(p, part, a, l->norm2, l->norm2_b, 1);
    meet(n);
}

static void work(void *argument, int index, int n) {
    const Pass *p = argument;
    atomic_int *next = p->next;
    tiles_begin();
    for (int64_t i = 0, a; i < p->n_parts; i++, next++)
        for (; (a = take(next, 1)) < p->parts[i].blocks;) enter(p, p->parts + i, a);
    meet(n);
    for (int64_t i = 0; i < p->net->n_layers; i++)  // all parts, while the layer's weights are near
        for (int64_t j = 0; j < p->n_parts; j++, next += PHASES) layer(p, p->parts + j, p->net->layers + i, next, n);
    for (int64_t i = 0, a; i < p->n_parts; i++, next++)
        for (; (a = take(next, 1)) < p->parts[i].blocks;) leave(p, p->parts + i, a);
    tiles_end();
    (void)index;
}

// ---- what Python calls ----

// Cuts the sequences into parts of about equal size; with no `parts`, only counts them, their blocks, and the largest's.
static int64_t cut(const int64_t *lengths, int64_t n, Part *parts, int64_t *blocks, int64_t *most) {
    int64_t total = 0, count = 0, token = 0, n_parts = 0;
    for (int64_t i = 0; i < n; i++) total += lengths[i];
    const int64_t enough = (total + (total + PART - 1) / PART - 1) / ((total + PART - 1) / PART);
    *blocks = *most = 0;
    for (int64_t i = 0; i < n; i++) {
        count += lengths[i];
        if (count < enough && i < n - 1) continue;
        const Part part = {token, count, *blocks, (count + TILE - 1) / TILE};
        if (parts) parts[n_parts] = part;
        n_parts++, token += count, *blocks += part.blocks, count = 0;
        *most = part.blocks > *most ? part.blocks : *most;
    }
    return n_parts;
}

// Bytes of work space for sequences of these lengths, n > 0 and each above 0; and, from `space` on, where each piece lies.
static int64_t share_out(const Network *net, const int64_t *lengths, int64_t n, char *space, Pass *p) {
    const int64_t C = net->dim, D = net->head_dim, H = net->n_heads, F = whole(net->hidden_dim, DEPTH), head = whole(D, DEPTH);
    int64_t blocks, most;
    p->n_parts = cut(lengths, n, NULL, &blocks, &most);
    const int64_t lanes = most * TILE;
    p->head = head, p->stride = whole(lanes, UNIT) + UNIT * (whole(lanes, UNIT) / UNIT % 2 == 0);  // odd lines: no two rows collide
    const int64_t sizes[] = {
        p->n_parts * (int64_t)sizeof(Part), blocks * TILE * C * 4, lanes * D * 4, lanes * C * 2, lanes * F * 2,
        lanes * H * head * 2, H * p->stride * head * 2, (H * D + TILE) * p->stride * 2, blocks * TILE * 4, blocks * TILE * 4,
        p->n_parts * (net->n_layers * PHASES + 2) * (int64_t)sizeof(atomic_int),
    };
    void *pieces[sizeof sizes / sizeof *sizes];
    int64_t at = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) pieces[i] = space + at, at += whole(sizes[i], 64);
    p->parts = pieces[0], p->x = pieces[1], p->turns = pieces[2], p->ready = pieces[3], p->hidden = pieces[4];
    p->queries = pieces[5], p->keys = pieces[6], p->values = pieces[7], p->begin = pieces[8], p->end = pieces[9], p->next = pieces[10];
    return at;
}

int64_t brolly_encode_space(const Network *net, const int64_t *lengths, int64_t n) {
    Pass p;
    return share_out(net, lengths, n, NULL, &p);
}

// in, out: (tokens, dim); they may be the same. `space` begins on a cache line.
void brolly_encode(const Network *net, const int64_t *lengths, int64_t n, const bf16 *in, bf16 *out, char *space, int64_t n_threads) {
    Pass p = {.net = net, .in = in, .out = out};
    int64_t blocks, most;
    share_out(net, lengths, n, space, &p);
    cut(lengths, n, p.parts, &blocks, &most);
    memset(p.next, 0, p.n_parts * (net->n_layers * PHASES + 2) * sizeof(atomic_int));
    for (int64_t i = 0, j = 0; i < p.n_parts; i++) {
        int64_t lane = p.parts[i].block * TILE, at = 0;
        for (; at < p.parts[i].count; at += lengths[j++])
            for (int64_t k = 0; k < lengths[j]; k++, lane++) p.begin[lane] = (int32_t)at, p.end[lane] = (int32_t)(at + lengths[j]);
        for (; lane < (p.parts[i].block + p.parts[i].blocks) * TILE; lane++) p.begin[lane] = p.end[lane] = (int32_t)at;  // sees nothing
    }
    together(work, &p, (int)n_threads);
}

int64_t brolly_encodes(void) { return tiles_allowed(); }
int64_t brolly_max_head(void) { return MAX_HEAD; }
#else
int64_t brolly_encodes(void) { return 0; }
#endif
