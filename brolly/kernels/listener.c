// Whisper's decoder in one call: tokens of any number of rows, about any number of windows of sound, pass through all layers.
//
// Weights stay where torch has them, row-major (out, in), float32 or bfloat16; sums and the residual stream are float32.
// A weight is read from memory once for all rows. Keys and values of the sound come computed; the rows of a window share
// them. The reference is brolly/models/whisper.py run by torch; tests/kernels compares the two. listener.py mirrors the structs.

#define _GNU_SOURCE
#include "vectors.h"

#include "team.h"

#include "rows.h"
#ifdef __AVX512BF16__
#include <immintrin.h>
#define HALVES 1  // products of bfloat16 read both sides so
#else
#define HALVES 0
#endif

enum { MAX_HEAD = 128, TOGETHER = 5, PHASES = 13 };
enum { KEEP, ADD, CURVE };  // what becomes of a product: stored, added to the residual stream, or through GELU to `hidden`

typedef struct {
    const void *q, *k, *v, *o, *cross_q, *cross_o, *fc1, *fc2;
    const void *norm1, *norm1_b, *norm2, *norm2_b, *norm3, *norm3_b;
    const void *q_b, *v_b, *o_b, *cross_q_b, *cross_o_b, *fc1_b, *fc2_b;
} Layer;

typedef struct {
    int64_t bf16, vocab_size, dim, n_layers, n_heads, head_dim, hidden_dim;
    float eps;
    const void *embed, *places, *head, *norm, *norm_b;
    const Layer *layers;
} Network;

typedef struct {
    const Network *net;
    const int32_t *tokens;                        // (n_rows, length)
    int64_t n_rows, length, place, count, width;  // count: n_rows * length; width: floats of a token in `y`
    char *keys, *values;                          // (layers, n_rows, heads, capacity, head_dim)
    int64_t capacity;
    const void *const *cross_keys, *const *cross_values;  // a layer's: (n_windows, heads, n_places, head_dim)
    int64_t n_windows, n_places;
    float *x, *y, *out;   // (count, dim), (count, width), (count, dim)
    char *given, *hidden;  // what the next product reads: (count, dim), (count, hidden_dim)
    float *scores;        // of each thread: (TOGETHER, room)
    int64_t room;
    atomic_int *next;
} Pass;

INLINE int64_t bytes(int bf16) { return bf16 ? 2 : 4; }
INLINE int64_t given_bytes(int bf16) { return bf16 && HALVES ? 2 : 4; }

// ---- products ----

// n floats as the other side of a product, where the weights are of that kind.
INLINE void give(char *out, const float *x, int64_t n, int bf16) {
#if HALVES
    for (int64_t i = 0; bf16 && i < n; i += LANES)
        _mm256_storeu_si256((__m256i *)(out + 2 * i), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(x + i)));
    if (bf16) return;
#endif
    memcpy(out, x, n * 4);
}

// y[j * y_stride + i] = w_i x_j for `rows` rows and `tokens` vectors, both in registers.
INLINE void block(const char *w, const char *x, int64_t depth, const int rows, const int tokens, float *y, int64_t y_stride, int bf16) {
    const int64_t stride = depth * bytes(bf16), x_stride = depth * given_bytes(bf16);
#if HALVES
    if (bf16) {
        __m512 sums[4][TOGETHER];
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < tokens; j++) sums[i][j] = _mm512_setzero_ps();
        for (int64_t k = 0; k < stride; k += 64) {
            __m512bh weights[4];
            for (int i = 0; i < rows; i++) {
                __builtin_prefetch(w + rows * (stride + k) + 64 * i);  // the next rows, in the order in which they lie
                weights[i] = (__m512bh)_mm512_loadu_si512(w + i * stride + k);
            }
            for (int j = 0; j < tokens; j++) {
                const __m512bh other = (__m512bh)_mm512_loadu_si512(x + j * x_stride + k);
                for (int i = 0; i < rows; i++) sums[i][j] = _mm512_dpbf16_ps(sums[i][j], weights[i], other);
            }
        }
        for (int j = 0; j < tokens; j++) {
            if (rows < 4) {
                for (int i = 0; i < rows; i++) y[j * y_stride + i] = _mm512_reduce_add_ps(sums[i][j]);
                continue;
            }
            const __m512 a = sums[0][j], b = sums[1][j], c = sums[2][j], d = sums[3][j];  // four sums at once
            const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            const __m512 all = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
            const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
            _mm_storeu_ps(y + j * y_stride, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
        }
        return;
    }
#endif
    floats sums[4][TOGETHER];
    memset(sums, 0, sizeof sums);
    for (int64_t k = 0; k < depth; k += LANES) {
        for (int i = 0; i < rows; i++) __builtin_prefetch(w + rows * stride + (k * rows + i * LANES) * bytes(bf16));
        for (int j = 0; j < tokens; j++) {
            const floats other = loadf((const float *)(x + j * x_stride) + k);
            for (int i = 0; i < rows; i++) sums[i][j] += load(w + i * stride, k, bf16) * other;
        }
    }
    for (int j = 0; j < tokens; j++)
        for (int i = 0; i < rows; i++) y[j * y_stride + i] = total(sums[i][j]);
}

INLINE void panel(const char *w, int64_t rows, const char *x, int64_t depth, const int tokens, float *y, int64_t y_stride, int bf16) {
    const int64_t stride = depth * bytes(bf16);
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) block(w + r * stride, x, depth, 4, tokens, y + r, y_stride, bf16);
    for (; r < rows; r++) block(w + r * stride, x, depth, 1, tokens, y + r, y_stride, bf16);
}

// y (n, y_stride) = x (n, depth) Wᵀ, of `rows` rows of W; depth is a multiple of 32.
INLINE void product(const char *w, int64_t rows, const char *x, int64_t depth, int64_t n, float *y, int64_t y_stride, int bf16) {
    for (int64_t j = 0; j < n; j += TOGETHER, x += TOGETHER * depth * given_bytes(bf16), y += TOGETHER * y_stride)
        switch (least(n - j, TOGETHER)) {
            case 1: panel(w, rows, x, depth, 1, y, y_stride, bf16); break;
            case 2: panel(w, rows, x, depth, 2, y, y_stride, bf16); break;
            case 3: panel(w, rows, x, depth, 3, y, y_stride, bf16); break;
            case 4: panel(w, rows, x, depth, 4, y, y_stride, bf16); break;
            default: panel(w, rows, x, depth, TOGETHER, y, y_stride, bf16);
        }
}

static __attribute__((noinline)) void product_bf16(const char *w, int64_t rows, const char *x, int64_t depth, int64_t n, float *y,
                                                   int64_t y_stride) {
    product(w, rows, x, depth, n, y, y_stride, 1);
}

static __attribute__((noinline)) void product_f32(const char *w, int64_t rows, const char *x, int64_t depth, int64_t n, float *y,
                                                  int64_t y_stride) {
    product(w, rows, x, depth, n, y, y_stride, 0);
}

INLINE void times(const void *w, int64_t first, int64_t end, const char *x, int64_t depth, int64_t n, float *y, int64_t y_stride, int bf16) {
    if (bf16) product_bf16(row_of(w, first, depth, 1), end - first, x, depth, n, y, y_stride);
    else product_f32(row_of(w, first, depth, 0), end - first, x, depth, n, y, y_stride);
}

// x (1 + erf(x / sqrt 2)) / 2, by Abramowitz and Stegun's 7.1.26: off by 1.5e-7.
INLINE floats gelu(floats x) {
    const floats zero = {0};
    const ints below = x < zero;
    const floats z = (floats)((ints)x & 0x7fffffff) * 0.70710678f, t = 1.0f / (1.0f + 0.3275911f * z);
    const floats p = ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t;
    const floats tail = 0.5f * p * exps(zero - z * z);
    const floats share = (floats)((below & (ints)tail) | (~below & (ints)(1.0f - tail)));
    return x * share;
}

// All tokens of `in` times W (rows, depth), from `at` on in `y` or to where `then` says; threads share the rows.
INLINE void linear(const Pass *p, atomic_int *next, int n, const void *w, const void *b, int64_t rows, int64_t depth,
                   const char *in, int64_t at, int then, int bf16) {
    const int64_t size = (chunk_rows(rows, depth * bytes(bf16), n) + LANES - 1) / LANES * LANES;
    for (int64_t a; (a = take(next, size)) < rows;) {
        const int64_t end = least(a + size, rows);
        times(w, a, end, in, depth, p->count, p->y + at + a, p->width, bf16);
        for (int64_t t = 0; t < p->count; t++) {
            float *y = p->y + t * p->width + at, *x = p->x + t * p->net->dim;
            for (int64_t r = a; r < end; r += LANES) {
                const floats v = b ? loadf(y + r) + load(b, r, bf16) : loadf(y + r);
                if (then == ADD) storef(x + r, loadf(x + r) + v);
                else storef(y + r, then == CURVE ? gelu(v) : v);
            }
            if (then == CURVE) give(p->hidden + (t * rows + a) * given_bytes(bf16), y + a, end - a, bf16);
        }
    }
}

// ---- attention ----

// out_i = sum_s shares_is v_s for `n` vectors and 2 * LANES channels from d on.
INLINE void mix(float *out, int64_t D, int64_t d, const char *values, int64_t count, const float *shares, int64_t room, const int n, int bf16) {
    floats sums[TOGETHER][2];
    memset(sums, 0, sizeof sums);
    for (int64_t s = 0; s < count; s++)
        for (int j = 0; j < 2; j++) {
            const floats v = load(row_of(values, s, D, bf16), d + j * LANES, bf16);
            for (int i = 0; i < n; i++) sums[i][j] += v * shares[i * room + s];
        }
    for (int i = 0; i < n; i++)
        for (int j = 0; j < 2; j++) storef(out + i * D + d + j * LANES, sums[i][j]);
}

// softmax(q K / sqrt D) V of up to TOGETHER queries, q_stride apart, over the same keys; `out` is given on, out_stride apart.
INLINE void attend(const Pass *p, const float *q, int64_t n, const char *keys, const char *values, int64_t count, char *out,
                   float *scores, int bf16) {
    const int64_t D = p->net->head_dim, room = p->room;
    const float scale = 1.0f / sqrtf((float)D);
    char queries[TOGETHER * MAX_HEAD * 4] __attribute__((aligned(64)));
    float mixed[TOGETHER * MAX_HEAD] __attribute__((aligned(64)));
    for (int64_t i = 0; i < n; i++) give(queries + i * D * given_bytes(bf16), q + i * p->width, D, bf16);
    times(keys, 0, count, queries, D, n, scores, room, bf16);
    for (int64_t i = 0; i < n; i++) {
        float *s = scores + i * room, top = s[0], sum;
        int64_t j = 0;
        for (j = 1; j < count; j++) top = s[j] > top ? s[j] : top;
        floats sums = {0};
        for (j = 0; j + LANES <= count; j += LANES) {
            const floats e = exps((loadf(s + j) - top) * scale);
            storef(s + j, e);
            sums += e;
        }
        sum = total(sums);
        for (; j < count; j++) sum += s[j] = expf((s[j] - top) * scale);
        const float share = 1.0f / sum;
        for (j = 0; j < count; j++) s[j] *= share;
    }
    for (int64_t d = 0; d < D; d += 2 * LANES)
        switch (n) {
            case 1: mix(mixed, D, d, values, count, scores, room, 1, bf16); break;
            case 2: mix(mixed, D, d, values, count, scores, room, 2, bf16); break;
            case 3: mix(mixed, D, d, values, count, scores, room, 3, bf16); break;
            case 4: mix(mixed, D, d, values, count, scores, room, 4, bf16); break;
            default: mix(mixed, D, d, values, count, scores, room, TOGETHER, bf16);
        }
    for (int64_t i = 0; i < n; i++) give(out + i * p->net->dim * given_bytes(bf16), mixed + i * D, D, bf16);
}

INLINE void keep(char *place, const float *x, int64_t D, int bf16) {
    if (!bf16) memcpy(place, x, D * 4);
    for (int64_t d = 0; bf16 && d < D; d++) ((uint16_t *)place)[d] = to_bf16(x[d]);
}

// One head of one row: its new tokens into the cache, then each of them over all up to itself.
INLINE void look_back(const Pass *p, int64_t layer, int64_t row, int64_t head, float *scores, int bf16) {
    const int64_t C = p->net->dim, D = p->net->head_dim, H = p->net->n_heads, first = row * p->length;
    const int64_t start = ((layer * p->n_rows + row) * H + head) * p->capacity * D * bytes(bf16);
    for (int64_t t = 0; t < p->length; t++) {
        const float *y = p->y + (first + t) * p->width + head * D;
        const int64_t at = start + (p->place + t) * D * bytes(bf16);
        keep(p->keys + at, y + C, D, bf16);
        keep(p->values + at, y + 2 * C, D, bf16);
    }
    for (int64_t t = 0; t < p->length; t++)
        attend(p, p->y + (first + t) * p->width + head * D, 1, p->keys + start, p->values + start, p->place + t + 1,
               p->given + ((first + t) * C + head * D) * given_bytes(bf16), scores, bf16);
}

// One head of all rows of one window over the sound.
INLINE void look_out(const Pass *p, int64_t layer, int64_t window, int64_t head, float *scores, int bf16) {
    const int64_t C = p->net->dim, D = p->net->head_dim, each = p->count / p->n_windows;
    const int64_t start = (window * p->net->n_heads + head) * p->n_places;
    const void *keys = row_of(p->cross_keys[layer], start, D, bf16), *values = row_of(p->cross_values[layer], start, D, bf16);
    for (int64_t t = window * each; t < (window + 1) * each; t += TOGETHER)
        attend(p, p->y + t * p->width + head * D, least(TOGETHER, (window + 1) * each - t), keys, values, p->n_places,
               p->given + (t * C + head * D) * given_bytes(bf16), scores, bf16);
}

// ---- the pass ----

INLINE void normed(const Pass *p, atomic_int *next, float *spare, const void *w, const void *b, int bf16) {
    const int64_t C = p->net->dim;
    for (int64_t t; (t = take(next, 1)) < p->count;) {
        normalise(spare, p->x + t * C, w, b, C, p->net->eps, 1, bf16);
        give(p->given + t * C * given_bytes(bf16), spare, C, bf16);
    }
}

INLINE void run(const Pass *p, int index, int n, int bf16) {
    const Network *net = p->net;
    const int64_t C = net->dim, F = net->hidden_dim, H = net->n_heads;
    float *scores = p->scores + index * TOGETHER * p->room;
    atomic_int *next = p->next;
    int64_t a;
    for (; (a = take(next, 1)) < p->count;) {
        const void *token = row_of(net->embed, p->tokens[a], C, bf16), *place = row_of(net->places, p->place + a % p->length, C, bf16);
        for (int64_t c = 0; c < C; c += LANES) storef(p->x + a * C + c, load(token, c, bf16) + load(place, c, bf16));
    }
    next++, meet(n);
    for (int64_t i = 0; i < net->n_layers; i++) {
        const Layer *l = net->layers + i;
        normed(p, next++, scores, l->norm1, l->norm1_b, bf16), meet(n);
        linear(p, next++, n, l->q, l->q_b, C, C, p->given, 0, KEEP, bf16);
        linear(p, next++, n, l->k, NULL, C, C, p->given, C, KEEP, bf16);
        linear(p, next++, n, l->v, l->v_b, C, C, p->given, 2 * C, KEEP, bf16), meet(n);
        for (; (a = take(next, 1)) < p->n_rows * H;) look_back(p, i, a / H, a % H, scores, bf16);
        next++, meet(n);
        linear(p, next++, n, l->o, l->o_b, C, C, p->given, 0, ADD, bf16), meet(n);
        normed(p, next++, scores, l->norm2, l->norm2_b, bf16), meet(n);
        linear(p, next++, n, l->cross_q, l->cross_q_b, C, C, p->given, 0, KEEP, bf16), meet(n);
        for (; (a = take(next, 1)) < p->n_windows * H;) look_out(p, i, a / H, a % H, scores, bf16);
        next++, meet(n);
        linear(p, next++, n, l->cross_o, l->cross_o_b, C, C, p->given, 0, ADD, bf16), meet(n);
        normed(p, next++, scores, l->norm3, l->norm3_b, bf16), meet(n);
        linear(p, next++, n, l->fc1, l->fc1_b, F, C, p->given, 0, CURVE, bf16), meet(n);
        linear(p, next++, n, l->fc2, l->fc2_b, C, F, p->hidden, 0, ADD, bf16), meet(n);
    }
    for (; (a = take(next, 1)) < p->count;) normalise(p->out + a * C, p->x + a * C, net->norm, net->norm_b, C, net->eps, 1, bf16);
}

static void work(void *argument, int index, int n) {
    const Pass *p = argument;
    if (p->net->bf16) run(p, index, n, 1);
    else run(p, index, n, 0);
}

static void tell(void *argument, int index, int n) {
    const Pass *p = argument;
    const Network *net = p->net;
    const int64_t C = net->dim, V = net->vocab_size, size = (chunk_rows(V, C * bytes((int)net->bf16), n) + 3) / 4 * 4;
    for (int64_t a; (a = take(p->next, size)) < V;)
        times(net->head, a, least(a + size, V), p->given, C, p->count, p->out + a, V, (int)net->bf16);
    (void)index;
}

// ---- what Python calls ----

int64_t brolly_max_head(void) { return MAX_HEAD; }
int64_t brolly_halves(void) { return HALVES; }

// Bytes of work space for so many tokens; and, from `space` on, where each piece lies.
static int64_t share_out(const Network *net, int64_t n_threads, char *space, Pass *p) {
    const int64_t C = net->dim, F = net->hidden_dim, sizes[] = {
        p->count * C * 4, p->count * p->width * 4, p->count * C * 4, p->count * F * 4, n_threads * TOGETHER * p->room * 4,
        (net->n_layers * PHASES + 2) * (int64_t)sizeof(atomic_int),
    };
    void *pieces[sizeof sizes / sizeof *sizes];
    int64_t at = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) pieces[i] = space + at, at += (sizes[i] + 63) / 64 * 64;
    p->x = pieces[0], p->y = pieces[1], p->given = pieces[2], p->hidden = pieces[3], p->scores = pieces[4], p->next = pieces[5];
    return at;
}

static Pass pass_of(const Network *net, int64_t n_rows, int64_t length, int64_t capacity, int64_t n_places) {
    const int64_t most = capacity > n_places ? capacity : n_places;
    return (Pass){.net = net, .n_rows = n_rows, .length = length, .count = n_rows * length, .capacity = capacity, .n_places = n_places,
                  .width = 3 * net->dim > net->hidden_dim ? 3 * net->dim : net->hidden_dim, .room = most > net->dim ? most : net->dim};
}

int64_t brolly_listen_space(const Network *net, int64_t n_rows, int64_t length, int64_t capacity, int64_t n_places, int64_t n_threads) {
    Pass p = pass_of(net, n_rows, length, capacity, n_places);
    return share_out(net, n_threads, NULL, &p);
}

// Hidden states (n_rows, length, dim) after the last norm, of tokens whose first stands at `place`.
void brolly_listen(const Network *net, const int32_t *tokens, int64_t n_rows, int64_t length, int64_t place, char *keys, char *values,
                   int64_t capacity, const void *const *cross_keys, const void *const *cross_values, int64_t n_windows,
                   int64_t n_places, char *space, float *out, int64_t n_threads) {
    Pass p = pass_of(net, n_rows, length, capacity, n_places);
    share_out(net, n_threads, space, &p);
    p.tokens = tokens, p.place = place, p.keys = keys, p.values = values, p.cross_keys = cross_keys, p.cross_values = cross_values;
    p.n_windows = n_windows, p.out = out;
    memset(p.next, 0, (net->n_layers * PHASES + 2) * sizeof(atomic_int));
    together(work, &p, (int)n_threads);
}

// Logits (count, vocab_size) of hidden states (count, dim); `space` has room for their numbers.
void brolly_tell(const Network *net, const float *hidden, int64_t count, char *space, float *logits, int64_t n_threads) {
    atomic_int next = 0;
    Pass p = {.net = net, .count = count, .given = space, .out = logits, .next = &next};
    give(space, hidden, count * net->dim, (int)net->bf16);
    together(tell, &p, (int)n_threads);
}
