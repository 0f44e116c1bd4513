// Tokens of many sequences through a pre-norm decoder in one call: the next ones of answers and pieces of prompts.
//
// Weights stay where torch has them, bfloat16; sums, norms and the residual stream are float32. Tokens stand in lanes, 16 a
// block (tiles.h), all sequences' behind one another. Keys and values lie in pages of 32 tokens, each sequence's own. Every
// sum runs in one order, whatever stands in the other lanes and however a prompt is cut: a token's numbers are the same bits
// alone and in a batch. The reference is brolly/models run by torch; tests/kernels compares the two. batch.py mirrors Row.

#define _GNU_SOURCE
#include "vectors.h"

#include "team.h"

#include "network.h"

#ifdef __AVX512BF16__
#include "lanes.h"
#include "slim.h"

enum { MAX_HEAD = 128, KEYS = 256, PAGE = 32, PHASES = 9, LONG_BYTES = 1048576 };
enum { QUERY, KEY, VALUE, ADD, FEED, TELL };  // what becomes of a product

// Some next tokens of one sequence.
typedef struct {
    int64_t start, count, wants;  // wants: the logits behind its last token
    const int32_t *pages;
    int64_t n_pages;
} Row;

// Query heads that look at the same keys: lane i is token i / (heads a key head) of the row.
typedef struct {
    int32_t row, token, lane, lanes;  // token: the row's first one in the pass
} Item;

typedef struct {
    const Network *net;
    const Row *rows;
    const int32_t *tokens;
    int64_t n_rows, count, blocks, n_wanted, n_items, n_pages;
    bf16 *keys, *values;  // (n_layers, n_kv_heads, n_pages, PAGE, head_dim), (n_layers, n_kv_heads, n_pages, head_dim, PAGE)
    float *x, *turns;     // (blocks, dim, 16); cosines, then sines of each lane's position: (blocks, head_dim, 16)
    bf16 *ready, *mixed, *hidden;  // what the next product reads
    bf16 *queries;                 // (lanes, n_heads, head_dim)
    bf16 *flat;                    // of each thread: the same for FEW tokens, a row each
    int32_t *position, *place, *wanted;  // of each lane; place: page * PAGE + the token in it, or -1
    Item *items;
    float *best, *logits;  // best: of each panel of the head's rows, (panels, lanes)
    int32_t *best_at, *likeliest;
    int64_t flat_stride;
    atomic_int *next;
} Pass;

INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

// Between two blocks of what a product reads: not a power of two, so that no two blocks meet in the cache.
INLINE int64_t block_size(int64_t depth) { return whole(depth, DEPTH) * TILE + 64; }

// What is endless is told by its key; as a value it would touch all through masked sums.
INLINE __m512 bounded(floats x) { return _mm512_maskz_mov_ps(~_mm512_fpclass_ps_mask((__m512)x, 0x99), (__m512)x); }

// ---- tokens in ----

static void add_table(float *x, const bf16 *table, const int32_t *at, int64_t C, int64_t n, int add) {
    for (int64_t c = 0; c < C; c += UNIT) {
        __m512i rows[TILE];
        for (int i = 0; i < TILE; i++) rows[i] = i < n ? _mm512_loadu_si512(table + at[i] * C + c) : _mm512_setzero_si512();
        turn(rows);
        for (int i = 0; i < TILE; i++) {
            floats even = (floats)_mm512_slli_epi32(rows[i], 16), odd = (floats)_mm512_and_si512(rows[i], _mm512_set1_epi32(0xffff0000));
            float *out = x + (c + 2 * i) * TILE;
            storef(out, add ? loadf(out) + even : even);
            storef(out + TILE, add ? loadf(out + TILE) + odd : odd);
        }
    }
}

static void enter(const Pass *p, int64_t t) {
    const Network *net = p->net;
    const int64_t C = net->dim, half = net->head_dim / 2, n = least(TILE, p->count - t * TILE);
    float *x = p->x + t * C * TILE;
    add_table(x, net->embed, p->tokens + t * TILE, C, n, 0);
    if (net->places) add_table(x, net->places, p->position + t * TILE, C, n, 1);
    for (int64_t i = 0; net->inv_freq && i < TILE; i++)
        for (int64_t d = 0; d < half; d++) {
            const float angle = (float)p->position[t * TILE + i] * net->inv_freq[d];
            p->turns[((2 * t) * half + d) * TILE + i] = cosf(angle) * net->rope_scale;
            p->turns[((2 * t + 1) * half + d) * TILE + i] = sinf(angle) * net->rope_scale;
        }
}

// ---- pieces of a layer; t: a block of lanes ----

// Norm over the channels of one block, ready for a product.
static void normalise(const Network *net, const float *x, const bf16 *w, const bf16 *b, bf16 *out) {
    const int64_t C = net->dim;
    floats sums[4] = {0}, mean = {0};
    for (int64_t c = 0; net->layer_norm && c < C; c += 4)
        for (int j = 0; j < 4; j++) sums[j] += loadf(x + (c + j) * TILE);
    if (net->layer_norm) mean = (sums[0] + sums[1] + sums[2] + sums[3]) / (float)C;
    for (int j = 0; j < 4; j++) sums[j] = (floats){0};
    for (int64_t c = 0; c < C; c += 4)
        for (int j = 0; j < 4; j++) {
            const floats d = loadf(x + (c + j) * TILE) - mean;
            sums[j] += d * d;
        }
    const floats square = (sums[0] + sums[1] + sums[2] + sums[3]) / (float)C + net->eps;
    const floats scale = 1.0f / (floats)_mm512_sqrt_ps((__m512)square);
    for (int64_t c = 0; c < C; c += 2) {
        const floats even = (loadf(x + c * TILE) - mean) * scale * one(w, c, 1) + bias(b, c, 1);
        const floats odd = (loadf(x + (c + 1) * TILE) - mean) * scale * one(w, c + 1, 1) + bias(b, c + 1, 1);
        _mm512_storeu_si512(out + c * TILE, paired(even, odd));
    }
}

// One head of one block, (head_dim, 16) in place: Qwen3's norm, then the rotation.
INLINE void place_head(const Pass *p, float *x, int64_t t, const bf16 *norm) {
    const int64_t D = p->net->head_dim, half = D / 2;
    if (norm) {
        floats square = {0};
        for (int64_t d = 0; d < D; d++) square += loadf(x + d * TILE) * loadf(x + d * TILE);
        const floats scale = 1.0f / (floats)_mm512_sqrt_ps((__m512)(square / (float)D + p->net->eps));
        for (int64_t d = 0; d < D; d++) storef(x + d * TILE, loadf(x + d * TILE) * scale * one(norm, d, 1));
    }
    for (int64_t d = 0; p->net->inv_freq && d < half; d++) {
        const floats a = loadf(x + d * TILE), b = loadf(x + (d + half) * TILE);
        const floats c = loadf(p->turns + (2 * t * half + d) * TILE), s = loadf(p->turns + ((2 * t + 1) * half + d) * TILE);
        storef(x + d * TILE, a * c - b * s);
        storef(x + (d + half) * TILE, b * c + a * s);
    }
}

INLINE const bf16 *keys_of(const Pass *p, int64_t layer, int64_t kv, int64_t page) {
    return p->keys + ((layer * p->net->n_kv_heads + kv) * p->n_pages + page) * PAGE * p->net->head_dim;
}

INLINE const bf16 *values_of(const Pass *p, int64_t layer, int64_t kv, int64_t page) {
    return p->values + ((layer * p->net->n_kv_heads + kv) * p->n_pages + page) * PAGE * p->net->head_dim;
}

// One key head's values of one block, c (head_dim, 16), into their pages.
static void keep_values(const Pass *p, int64_t layer, const float *c, int64_t h, int64_t t) {
    const int64_t D = p->net->head_dim;
    const int32_t *place = p->place + t * TILE;
    bf16 *base = (bf16 *)values_of(p, layer, h, 0);
    const int run = place[TILE - 1] == place[0] + TILE - 1 && place[0] >= 0 && place[0] / PAGE == place[TILE - 1] / PAGE;
    for (int64_t d = 0; d < D; d++) {
        bf16 row[TILE] __attribute__((aligned(32)));
        const __m256i v = (__m256i)_mm512_cvtneps_pbh(bounded(loadf(c + d * TILE)));
        if (run) {
            _mm256_storeu_si256((__m256i *)(base + (place[0] / PAGE * D + d) * PAGE + place[0] % PAGE), v);
            continue;
        }
        _mm256_store_si256((__m256i *)row, v);
        for (int i = 0; i < TILE; i++)
            if (place[i] >= 0) base[(place[i] / PAGE * D + d) * PAGE + place[i] % PAGE] = row[i];
    }
}

// What becomes of one head of one block, c (head_dim, 16), where it is a query, a key or a value.
static void finish_head(const Pass *p, const Layer *l, int64_t layer, float *c, const bf16 *b, int64_t h, int64_t t, int kind) {
    const int64_t D = p->net->head_dim;
    for (int64_t d = 0; b && d < D; d++) storef(c + d * TILE, loadf(c + d * TILE) + one(b, h * D + d, 1));
    if (kind == VALUE) {
        keep_values(p, layer, c, h, t);
        return;
    }
    place_head(p, c, t, kind == QUERY ? l->q_norm : l->k_norm);
    const float scale = kind == QUERY ? 1.44269504f / sqrtf((float)D) : 1.0f;  // shares are powers of two
    bf16 *base = (bf16 *)keys_of(p, layer, h, 0);
    for (int64_t d = 0; d < D; d += UNIT) {
        __m512i rows[TILE];
        const int half = D - d < UNIT;
        for (int64_t i = 0, e = d; i < TILE; i++, e += 2) {
            if (half && i >= TILE / 2) rows[i] = _mm512_setzero_si512();
            else rows[i] = paired(loadf(c + e * TILE) * scale, loadf(c + (e + 1) * TILE) * scale);
        }
        turn(rows);
        for (int64_t i = 0; i < TILE; i++) {
            const int64_t place = p->place[t * TILE + i];
            if (place < 0) break;
            bf16 *out = kind == QUERY ? p->queries + ((t * TILE + i) * p->net->n_heads + h) * D : base + place * D;
            _mm512_mask_storeu_epi32(out + d, half ? 0xff : 0xffff, rows[i]);
        }
    }
}

// Rows r … of one block, c (rows, 16), through the activation function; `up` is what a gate multiplies.
static void feed(const Pass *p, const Layer *l, const float *c, const float *up, int64_t r, int64_t rows, int64_t t, int64_t act) {
    const int64_t F = p->net->hidden_dim;
    bf16 *out = p->hidden + t * block_size(F) + r * TILE;
    for (int64_t i = 0; i < rows; i += 2) {
        floats y[2];
        for (int j = 0; j < 2; j++) {
            y[j] = activate(loadf(c + (i + j) * TILE) + bias(up ? l->gate_b : l->up_b, r + i + j, 1), act);
            if (up) y[j] *= loadf(up + (i + j) * TILE) + bias(l->up_b, r + i + j, 1);
        }
        _mm512_storeu_si512(out + i * TILE, paired(y[0], y[1]));
    }
    for (int64_t i = F; r + rows == F && i < whole(F, DEPTH); i += 2)
        _mm512_storeu_si512(p->hidden + t * block_size(F) + i * TILE, _mm512_setzero_si512());
}

// 32 rows of the head for one block of wanted states: logits row by row, and the largest of this panel so far.
static void tell(const Pass *p, const float *c, int64_t r, int64_t t, float *best, int32_t *best_at, int first) {
    const int64_t V = p->net->vocab_size, n = least(TILE, p->n_wanted - t * TILE);
    __m512 top = first ? _mm512_set1_ps(-INFINITY) : _mm512_loadu_ps(best + t * TILE);
    __m512i at = first ? _mm512_set1_epi32((int)r) : _mm512_loadu_si512(best_at + t * TILE);
    for (int64_t h = 0; h < UNIT; h += TILE) {
        __m512i rows[TILE];
        for (int i = 0; i < TILE; i++) {
            const __m512 y = _mm512_loadu_ps(c + (h + i) * TILE);
            const __mmask16 more = _mm512_cmp_ps_mask(y, top, _CMP_GT_OQ);
            top = _mm512_mask_mov_ps(top, more, y);
            at = _mm512_mask_mov_epi32(at, more, _mm512_set1_epi32((int)(r + h + i)));
            rows[i] = (__m512i)y;
        }
        turn(rows);
        for (int i = 0; i < n; i++) _mm512_storeu_si512(p->logits + (t * TILE + i) * V + r + h, rows[i]);
    }
    _mm512_storeu_ps(best + t * TILE, top);
    _mm512_storeu_si512(best_at + t * TILE, at);
}

INLINE int64_t panel_of(int64_t rows, int64_t depth, int64_t unit, int64_t count, int n) {
    if (count > FEW) return panel_rows(rows, depth, unit, n);
    return most(least(LONG_BYTES / (2 * depth), rows / (4 * n)) / unit, 1) * unit;
}

typedef struct {
    const bf16 *w, *b, *gate;
    int64_t rows, depth, blocks, count;
    const bf16 *in;
    const void *later;  // what is read next
    int kind;
} Product;

// All of W (rows, depth) times `in`, shared out in panels of rows; each unit of rows of some blocks is finished at once.
static void product(const Pass *p, const Layer *l, int64_t layer, atomic_int *next, int index, int n, const Product q) {
    const int64_t unit = q.kind <= VALUE ? p->net->head_dim : UNIT, size = panel_of(q.rows, q.depth, unit, q.count, n), C = p->net->dim;
    const int64_t in_block = block_size(q.depth), groups = (q.blocks + BLOCKS - 1) / BLOCKS, depth = q.depth;
    const int thin = q.count <= FEW;
    float c[BLOCKS][MAX_HEAD][TILE] __attribute__((aligned(64))), gate[BLOCKS][UNIT][TILE] __attribute__((aligned(64)));
    bf16 *flat = p->flat + index * FEW * p->flat_stride;
    int64_t a = take(next, size);
    if (thin && a < q.rows) flatten(q.in, depth, flat, p->flat_stride);
    while (a < q.rows) {
        const int64_t end = least(a + size, q.rows), after = take(next, size);
        for (int64_t j = 0; j < groups; j++) {
            const int64_t t = q.blocks * j / groups;
            const int blocks = (int)(q.blocks * (j + 1) / groups - t);
            const int64_t lanes = least(blocks * TILE, q.count - t * TILE);
            for (int64_t i = a; i < end; i += unit) {
                const int64_t r = q.kind == TELL ? least(i, q.rows - unit) : i, m = least(unit, q.rows - r);
                const int64_t then = i + unit < end ? i + unit : after;
                const bf16 *w = q.w + r * depth, *later = then < q.rows ? (q.gate ? q.gate : q.w) + then * depth : q.later;
                if (thin) {
                    if (q.gate) few(q.gate + r * depth, m, depth, flat, p->flat_stride, q.count, w, gate[0][0]);
                    few(w, m, depth, flat, p->flat_stride, q.count, later, c[0][0]);
                } else {
#ifdef __AMX_BF16__
                    // One block waits for memory alone, and tiles ask for nothing ahead.
                    for (int64_t k = 0; q.blocks == 1 && k < m * depth; k += 32) {
                        if (q.gate) __builtin_prefetch(w + k, 0, 2);
                        __builtin_prefetch(later + k, 0, 2);
                    }
#endif
                    if (q.gate) grid(q.gate + r * depth, depth, q.in + t * in_block, in_block, m, depth, lanes, gate[0][0], UNIT * TILE, 0);
                    grid(w, depth, q.in + t * in_block, in_block, m, depth, lanes, c[0][0], MAX_HEAD * TILE, 0);
                }
                for (int g = 0; g < blocks; g++) {
                    if (q.kind <= VALUE) finish_head(p, l, layer, c[g][0], q.b, r / unit, t + g, q.kind);
                    if (q.kind == FEED && q.gate) feed(p, l, gate[g][0], c[g][0], r, m, t + g, SILU);
                    if (q.kind == FEED && !q.gate) feed(p, l, c[g][0], NULL, r, m, t + g, GELU_TANH);
                    if (q.kind == TELL) tell(p, c[g][0], r, t + g, p->best + a / size * whole(p->n_wanted, TILE),
                                             p->best_at + a / size * whole(p->n_wanted, TILE), i == a);
                    float *x = p->x + ((t + g) * C + r) * TILE;
                    for (int64_t k = 0; q.kind == ADD && k < m; k++)
                        storef(x + k * TILE, loadf(x + k * TILE) + (loadf(c[g][k]) + bias(q.b, r + k, 1)));
                }
            }
        }
        a = after;
    }
}

#include "attend.h"

// The norm of all blocks; of a single one by every thread for itself, which is sooner done than waited for.
INLINE void normalise_all(const Pass *p, atomic_int *next, int n, const bf16 *w, const bf16 *b, bf16 *ready) {
    const int64_t C = p->net->dim;
    if (p->blocks == 1) {
        normalise(p->net, p->x, w, b, ready);
        return;
    }
    for (int64_t a; (a = take(next, 1)) < p->blocks;) normalise(p->net, p->x + a * C * TILE, w, b, ready + a * block_size(C));
    meet(n);
}

static void work(void *argument, int index, int n) {
    const Pass *p = argument;
    const Network *net = p->net;
    const int64_t C = net->dim, F = net->hidden_dim, D = net->head_dim, H = net->n_heads, KV = net->n_kv_heads, V = net->vocab_size;
    atomic_int *next = p->next;
    int64_t a;
    tiles_begin();
    for (; (a = take(next, 1)) < p->blocks;) enter(p, a);
    next++, meet(n);
    Product q = {.blocks = p->blocks, .count = p->count};
    bf16 *ready = p->ready + (p->blocks == 1 ? index * block_size(C) : 0);
    for (int64_t i = 0; i < net->n_layers; i++) {
        const Layer *l = net->layers + i;
        normalise_all(p, next++, n, l->norm1, l->norm1_b, ready);
        q.in = ready, q.depth = C, q.rows = H * D;
        q.kind = QUERY, q.w = l->q, q.b = l->q_b, q.later = l->k, product(p, l, i, next++, index, n, q);
        q.rows = KV * D;
        q.kind = KEY, q.w = l->k, q.b = l->k_b, q.later = l->v, product(p, l, i, next++, index, n, q);
        q.kind = VALUE, q.w = l->v, q.b = l->v_b, q.later = l->o, product(p, l, i, next++, index, n, q);
        meet(n);
        for (; (a = take(next, 1)) < KV * p->n_items;) look(p, l, i, p->items + a / KV, a % KV);
        next++, meet(n);
        q.in = p->mixed, q.depth = H * D, q.rows = C;
        q.kind = ADD, q.w = l->o, q.b = l->o_b, q.later = l->gate ? l->gate : l->up, product(p, l, i, next++, index, n, q);
        meet(n);
        normalise_all(p, next++, n, l->norm2, l->norm2_b, ready);
        q.in = ready, q.depth = C, q.rows = F;
        q.kind = FEED, q.gate = l->gate, q.w = l->up, q.b = NULL, q.later = l->down, product(p, l, i, next++, index, n, q);
        meet(n);
        q.in = p->hidden, q.depth = F, q.rows = C, q.gate = NULL;
        q.kind = ADD, q.w = l->down, q.b = l->down_b, q.later = i + 1 < net->n_layers ? l[1].q : net->head;
        product(p, l, i, next++, index, n, q);
        meet(n);
    }
    q.blocks = (p->n_wanted + TILE - 1) / TILE, q.count = p->n_wanted;
    if (!q.count) {
        tiles_end();
        return;
    }
    for (; (a = take(next, 1)) < q.blocks;) {
        float *gathered = p->turns + a * C * TILE;  // its own use is over
        for (int64_t i = 0; i < TILE; i++) {
            const int64_t lane = p->wanted[least(a * TILE + i, p->n_wanted - 1)];
            for (int64_t c = 0; c < C; c++) gathered[c * TILE + i] = p->x[(lane / TILE * C + c) * TILE + lane % TILE];
        }
        normalise(net, gathered, net->norm, net->norm_b, p->ready + a * block_size(C));
    }
    next++, meet(n);
    q.in = p->ready, q.depth = C, q.rows = V, q.kind = TELL, q.w = net->head, q.b = NULL, q.later = net->head;
    product(p, NULL, 0, next++, index, n, q);
    tiles_end();
    meet(n);
    const int64_t size = panel_of(V, C, UNIT, q.count, n), stride = whole(p->n_wanted, TILE);
    for (int64_t i = index; i < p->n_wanted; i += n) {
        int64_t found = 0;
        for (int64_t j = 1; j < (V + size - 1) / size; j++)
            if (p->best[j * stride + i] > p->best[found * stride + i]) found = j;
        p->likeliest[i] = p->best_at[found * stride + i];
    }
}

// ---- what Python calls ----

// Work for attention: all lanes of a row, cut where that gives every thread some.
static int64_t cut(const Network *net, const Row *rows, int64_t n_rows, int64_t n_threads, Item *items) {
    const int64_t R = net->n_heads / net->n_kv_heads;
    int64_t lanes = 0, n = 0, token = 0;
    for (int64_t i = 0; i < n_rows; i++) lanes += rows[i].count * R;
    const int64_t each = most(1, least(BLOCKS * TILE, (lanes * net->n_kv_heads + n_threads - 1) / n_threads));
    for (int64_t i = 0; i < n_rows; token += rows[i++].count)
        for (int64_t lane = 0; lane < rows[i].count * R; lane += each, n++)
            if (items) items[n] = (Item){(int32_t)i, (int32_t)token, (int32_t)lane, (int32_t)least(each, rows[i].count * R - lane)};
    return n;
}

// Bytes of work space; and, from `space` on, where each piece lies.
static int64_t share_out(const Network *net, const Row *rows, int64_t n_rows, int64_t n_threads, char *space, Pass *p) {
    const int64_t C = net->dim, D = net->head_dim, H = net->n_heads, F = net->hidden_dim;
    p->count = p->n_wanted = 0, p->n_rows = n_rows;
    for (int64_t i = 0; i < n_rows; i++) p->count += rows[i].count, p->n_wanted += rows[i].wants != 0;
    p->blocks = (p->count + TILE - 1) / TILE, p->n_items = cut(net, rows, n_rows, n_threads, NULL);
    p->flat_stride = most(most(C, H * D), F) + UNIT;
    const int64_t lanes = p->blocks * TILE, wanted = whole(p->n_wanted, TILE);
    const int64_t panels = net->vocab_size / panel_of(net->vocab_size, C, UNIT, p->n_wanted, (int)n_threads) + 1;
    const int64_t sizes[] = {
        lanes * C * 4, lanes * most(C, D) * 4, (p->blocks == 1 ? n_threads : p->blocks) * block_size(C) * 2, p->blocks * block_size(H * D) * 2,
        p->blocks * block_size(F) * 2, lanes * H * D * 2, n_threads * FEW * p->flat_stride * 2, lanes * 4, lanes * 4,
        lanes * 4, p->n_items * (int64_t)sizeof(Item), panels * wanted * 4, panels * wanted * 4,
        (net->n_layers * PHASES + 3) * (int64_t)sizeof(atomic_int),
    };
    void *pieces[sizeof sizes / sizeof *sizes];
    int64_t at = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) pieces[i] = space + at, at += whole(sizes[i], 64);
    p->x = pieces[0], p->turns = pieces[1], p->ready = pieces[2], p->mixed = pieces[3], p->hidden = pieces[4];
    p->queries = pieces[5], p->flat = pieces[6], p->position = pieces[7], p->place = pieces[8], p->wanted = pieces[9];
    p->items = pieces[10], p->best = pieces[11], p->best_at = pieces[12], p->next = pieces[13];
    return at;
}

int64_t brolly_batch_space(const Network *net, const Row *rows, int64_t n_rows, int64_t n_threads) {
    Pass p;
    return share_out(net, rows, n_rows, n_threads, NULL, &p);
}

// What is wrong with the rows, by number (batch.py has the words), or 0.
static int64_t wrong(const Network *net, const Row *rows, int64_t n_rows, const int32_t *tokens, int64_t n_pages, int64_t context) {
    int64_t window = 0;
    for (int64_t i = 0; i < net->n_layers; i++) window = most(window, net->layers[i].window ? net->layers[i].window : INT32_MAX);
    for (int64_t i = 0; i < n_rows; tokens += rows[i++].count) {
        const Row row = rows[i];
        if (row.count < 1 || row.start < 0 || row.start + row.count > context) return 1;
        for (int64_t j = 0; j < row.count; j++)
            if (tokens[j] < 0 || tokens[j] >= net->vocab_size) return 2;
        if ((row.start + row.count + PAGE - 1) / PAGE > row.n_pages) return 3;
        for (int64_t j = most(0, row.start + 1 - window) / PAGE; j <= (row.start + row.count - 1) / PAGE; j++)
            if (row.pages[j] < 0 || row.pages[j] >= n_pages) return 4;
    }
    return 0;
}

// Logits (n, vocab_size) behind the rows that want some, and the likeliest token of each; positions end before `context`.
// `space` begins on a cache line. Returns 0, or what is wrong.
int64_t brolly_batch(const Network *net, const Row *rows, int64_t n_rows, const int32_t *tokens, void *keys, void *values,
                     int64_t n_pages, int64_t context, char *space, float *logits, int32_t *likeliest, int64_t n_threads) {
    const int64_t fault = wrong(net, rows, n_rows, tokens, n_pages, context);
    if (fault || !n_rows) return fault;
    Pass p = {.net = net, .rows = rows, .tokens = tokens, .keys = keys, .values = values, .n_pages = n_pages, .logits = logits,
              .likeliest = likeliest};
    share_out(net, rows, n_rows, n_threads, space, &p);
    cut(net, rows, n_rows, n_threads, p.items);
    memset(p.next, 0, (net->n_layers * PHASES + 3) * sizeof(atomic_int));
    int64_t lane = 0, wanted = 0;
    for (int64_t i = 0; i < n_rows; i++) {
        for (int64_t j = rows[i].start; j < rows[i].start + rows[i].count; j++, lane++)
            p.position[lane] = (int32_t)j, p.place[lane] = (int32_t)(rows[i].pages[j / PAGE] * PAGE + j % PAGE);
        if (rows[i].wants) p.wanted[wanted++] = (int32_t)lane - 1;
    }
    for (; lane < p.blocks * TILE; lane++) p.position[lane] = 0, p.place[lane] = -1;
    together(work, &p, (int)n_threads);
    return 0;
}

int64_t brolly_batches(void) { return tiles_allowed(); }
int64_t brolly_max_head(void) { return MAX_HEAD; }
#else
int64_t brolly_batches(void) { return 0; }
#endif
