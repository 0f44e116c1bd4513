// Llama's and GPT-2's diagram (a pre-norm decoder) in single calls: one token (here), a block of tokens (prompt.h).
//
// Weights stay where torch has them, row-major (out, in), float32 or bfloat16; activations and sums are float32.
// The reference is brolly/models run by torch; tests/kernels compares the two.

#define _GNU_SOURCE
#include "vectors.h"

#include "team.h"

#include "network.h"
#include "rows.h"

enum { MAX_HEAD = 1024 };

// ---- pieces of the step ----

// One row after another: each core reads one long run of memory, which is what the prefetchers follow best.
INLINE float product(const void *row, const float *x, int64_t n, int bf16) {
    floats a = {0}, b = a, c = a, d = a;
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        const char *later = (const char *)row_of(row, i, 1, bf16) + AHEAD;
        for (int j = 0; j < 4 * LANES * (bf16 ? 2 : 4); j += 64) __builtin_prefetch(later + j);
        a += load(row, i, bf16) * loadf(x + i);
        b += load(row, i + LANES, bf16) * loadf(x + i + LANES);
        c += load(row, i + 2 * LANES, bf16) * loadf(x + i + 2 * LANES);
        d += load(row, i + 3 * LANES, bf16) * loadf(x + i + 3 * LANES);
    }
    for (; i + LANES <= n; i += LANES) a += load(row, i, bf16) * loadf(x + i);
    float sum = total((a + b) + (c + d));
    for (; i < n; i++) sum += one(row, i, bf16) * x[i];
    return sum;
}

static __attribute__((noinline)) float dot_bf16(const void *row, const float *x, int64_t n) { return product(row, x, n, 1); }
static __attribute__((noinline)) float dot_f32(const void *row, const float *x, int64_t n) { return product(row, x, n, 0); }
INLINE float dot(const void *row, const float *x, int64_t n, int bf16) {
    return bf16 ? dot_bf16(row, x, n) : dot_f32(row, x, n);
}

// Turns (x[d], x[d + half]) by the position's angle.
INLINE void rotate(float *x, const float *cosine, const float *sine, int64_t half) {
    for (int64_t d = 0; d < half; d++) {
        float a = x[d], b = x[d + half];
        x[d] = a * cosine[d] - b * sine[d];
        x[d + half] = b * cosine[d] + a * sine[d];
    }
}

INLINE float gelu(float x) { return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x))); }

// ---- the step ----

typedef struct {
    const Network *net;
    int64_t token, position, capacity;
    char *keys, *values;  // (n_layers, n_kv_heads, capacity, head_dim): one sequence's part of a dense cache
    int64_t layer_stride;  // elements from one layer's keys to the next one's
    float *x, *normed, *q, *k, *v, *mixed, *hidden, *scores, *cosine, *sine, *logits;
    atomic_int *next;  // a counter a phase: threads take chunks of rows as they come free
} Step;

// Logits of one state x (dim): the last norm and the head. `normed` is this thread's work space.
INLINE void foretell(const Network *net, const float *x, float *normed, float *logits, atomic_int *next, int n, int bf16) {
    const int64_t C = net->dim, size = chunk_rows(net->vocab_size, C * (bf16 ? 2 : 4), n);
    normalise(normed, x, net->norm, net->norm_b, C, net->eps, net->layer_norm, bf16);
    for (int64_t a; (a = take(next, size)) < net->vocab_size;)
        for (int64_t r = a; r < least(a + size, net->vocab_size); r++)
            logits[r] = dot(row_of(net->head, r, C, bf16), normed, C, bf16);
}

// Softmax(q K / sqrt D) V for one query head; `p` holds the scores, `k` and `v` the newest token's own.
INLINE void attend(float *out, const float *q, const char *keys, const char *values, const float *k, const float *v, float *p,
                   int64_t first, int64_t position, int64_t D, int bf16) {
    int64_t n = position - first + 1, i;
    float scale = 1.0f / sqrtf((float)D);
    for (i = 0; i < n - 1; i++) p[i] = dot(row_of(keys, first + i, D, bf16), q, D, bf16) * scale;
    p[n - 1] = dot(k, q, D, 0) * scale;
    float top = p[0];
    for (i = 1; i < n; i++) top = p[i] > top ? p[i] : top;
    floats sums = {0};
    for (i = 0; i + LANES <= n; i += LANES) {
        floats e = exps(loadf(p + i) - top);
        storef(p + i, e);
        sums += e;
    }
    float sum = total(sums);
    for (; i < n; i++) sum += p[i] = expf(p[i] - top);
    float share = 1.0f / sum;
    int64_t d = 0;
    for (; d + 4 * LANES <= D; d += 4 * LANES) {
        floats a[4];
        for (int j = 0; j < 4; j++) a[j] = loadf(v + d + j * LANES) * p[n - 1];
        for (i = 0; i < n - 1; i++) {
            const void *row = row_of(values, first + i, D, bf16);
            for (int j = 0; j < 4; j++) a[j] += load(row, d + j * LANES, bf16) * p[i];
        }
        for (int j = 0; j < 4; j++) storef(out + d + j * LANES, a[j] * share);
    }
    for (; d + LANES <= D; d += LANES) {
        floats a = loadf(v + d) * p[n - 1];
        for (i = 0; i < n - 1; i++) a += load(row_of(values, first + i, D, bf16), d, bf16) * p[i];
        storef(out + d, a * share);
    }
    for (; d < D; d++) {
        float a = v[d] * p[n - 1];
        for (i = 0; i < n - 1; i++) a += one(row_of(values, first + i, D, bf16), d, bf16) * p[i];
        out[d] = a * share;
    }
}

// Stores one head's new key or value in the cache, and rounds it in place to what the cache will give back.
INLINE void keep(char *place, float *x, int64_t D, int bf16) {
    if (!bf16) {
        memcpy(place, x, D * 4);
        return;
    }
    for (int64_t d = 0; d < D; d++) {
        uint16_t rounded = to_bf16(x[d]);
        memcpy(place + 2 * d, &rounded, 2);
        x[d] = one(&rounded, 0, 1);
    }
}

INLINE void attention(const Step *s, const Layer *l, int64_t index, int64_t unit, int64_t share, float *scores, int bf16) {
    const Network *net = s->net;
    const int64_t D = net->head_dim, n_rep = net->n_heads / net->n_kv_heads, split = n_rep / share;
    const int64_t kv = unit / split, part = unit % split, bytes = bf16 ? 2 : 4;
    const int64_t place = (index * s->layer_stride + kv * s->capacity * D) * bytes;
    float k[MAX_HEAD], v[MAX_HEAD], q[MAX_HEAD];
    char spare[4 * MAX_HEAD];
    memcpy(k, s->k + kv * D, D * 4);
    memcpy(v, s->v + kv * D, D * 4);
    if (l->k_norm) normalise(k, k, l->k_norm, NULL, D, net->eps, 0, bf16);
    if (net->inv_freq) rotate(k, s->cosine, s->sine, D / 2);
    // Where several threads share a key head, all need the rounded key and one writes it.
    keep(part ? spare : s->keys + place + s->position * D * bytes, k, D, bf16);
    keep(part ? spare : s->values + place + s->position * D * bytes, v, D, bf16);
    int64_t first = l->window && s->position + 1 > l->window ? s->position + 1 - l->window : 0;
    for (int64_t h = kv * n_rep + part * share; h < kv * n_rep + (part + 1) * share; h++) {
        memcpy(q, s->q + h * D, D * 4);
        if (l->q_norm) normalise(q, q, l->q_norm, NULL, D, net->eps, 0, bf16);
        if (net->inv_freq) rotate(q, s->cosine, s->sine, D / 2);
        attend(s->mixed + h * D, q, s->keys + place, s->values + place, k, v, scores, first, s->position, D, bf16);
    }
}

INLINE void run(const Step *s, int index, int n, int bf16) {
    const Network *net = s->net;
    const int64_t C = net->dim, F = net->hidden_dim, D = net->head_dim, width = bf16 ? 2 : 4;
    const int64_t q_rows = net->n_heads * D, kv_rows = net->n_kv_heads * D, n_rep = net->n_heads / net->n_kv_heads;
    const int64_t qkv_rows = q_rows + 2 * kv_rows;
    int64_t share = n_rep;  // query heads a unit of attention: all that share a key head, or fewer to feed every thread
    while (share > 1 && (n_rep % share || net->n_heads / share < n)) share--;
    float *normed = s->normed + index * C, *scores = s->scores + index * s->capacity;
    atomic_int *next = s->next;
    int64_t r, a, size;
    for (int64_t i = 0; i < net->n_layers; i++) {
        const Layer *l = net->layers + i;
        normalise(normed, s->x, l->norm1, l->norm1_b, C, net->eps, net->layer_norm, bf16);
        size = chunk_rows(qkv_rows, C * width, n);
        for (; (a = take(next, size)) < qkv_rows;)
            for (r = a; r < least(a + size, qkv_rows); r++) {
                int64_t k = r - q_rows, v = k - kv_rows;
                if (k < 0) s->q[r] = dot(row_of(l->q, r, C, bf16), normed, C, bf16) + bias(l->q_b, r, bf16);
                else if (v < 0) s->k[k] = dot(row_of(l->k, k, C, bf16), normed, C, bf16) + bias(l->k_b, k, bf16);
                else s->v[v] = dot(row_of(l->v, v, C, bf16), normed, C, bf16) + bias(l->v_b, v, bf16);
            }
        next++, meet(n);
        for (; (a = take(next, 1)) < net->n_heads / share;) attention(s, l, i, a, share, scores, bf16);
        next++, meet(n);
        size = chunk_rows(C, q_rows * width, n);
        for (; (a = take(next, size)) < C;)
            for (r = a; r < least(a + size, C); r++)
                s->x[r] += dot(row_of(l->o, r, q_rows, bf16), s->mixed, q_rows, bf16) + bias(l->o_b, r, bf16);
        next++, meet(n);
        normalise(normed, s->x, l->norm2, l->norm2_b, C, net->eps, net->layer_norm, bf16);
        size = chunk_rows(F, (l->gate ? 2 : 1) * C * width, n);
        for (; (a = take(next, size)) < F;) {
            int64_t end = least(a + size, F);
            for (r = a; r < end; r++) s->hidden[r] = dot(row_of(l->up, r, C, bf16), normed, C, bf16) + bias(l->up_b, r, bf16);
            for (r = a; !l->gate && r < end; r++) s->hidden[r] = gelu(s->hidden[r]);
            for (r = a; l->gate && r < end; r += LANES) {
                float gates[LANES] = {0};
                int64_t m = least(LANES, end - r);
                for (int64_t j = 0; j < m; j++)
                    gates[j] = dot(row_of(l->gate, r + j, C, bf16), normed, C, bf16) + bias(l->gate_b, r + j, bf16);
                floats g = loadf(gates);
                storef(gates, g / (1.0f + exps(-g)));  // SiLU
                for (int64_t j = 0; j < m; j++) s->hidden[r + j] *= gates[j];
            }
        }
        next++, meet(n);
        size = chunk_rows(C, F * width, n);
        for (; (a = take(next, size)) < C;)
            for (r = a; r < least(a + size, C); r++)
                s->x[r] += dot(row_of(l->down, r, F, bf16), s->hidden, F, bf16) + bias(l->down_b, r, bf16);
        next++, meet(n);
    }
    foretell(net, s->x, normed, s->logits, next, n, bf16);
}

static void work(void *argument, int index, int n) {
    const Step *s = argument;
    if (s->net->bf16) run(s, index, n, 1);
    else run(s, index, n, 0);
}

// ---- what Python calls ----

static int64_t room(const Network *net) {
    return net->dim + 2 * (net->n_heads + net->n_kv_heads) * net->head_dim + net->hidden_dim + net->head_dim;
}

// Bytes of work space that a step needs, and so is passed by the caller: nothing is allocated per token.
int64_t brolly_step_space(const Network *net, int64_t capacity, int64_t n_threads) {
    return 4 * (room(net) + n_threads * (net->dim + capacity) + 5 * net->n_layers + 1);
}

int64_t brolly_lanes(void) { return LANES; }
int64_t brolly_max_head(void) { return MAX_HEAD; }

// Logits (vocab_size) of the token after `token`, which stands at `position` < capacity.
void brolly_step(const Network *net, int64_t token, int64_t position, void *keys, void *values, int64_t capacity,
                   int64_t layer_stride, void *space, float *logits, int64_t n_threads) {
    const int64_t C = net->dim, D = net->head_dim, q = net->n_heads * D, kv = net->n_kv_heads * D;
    Step s = {.net = net, .token = token, .position = position, .capacity = capacity, .keys = keys, .values = values,
              .layer_stride = layer_stride, .logits = logits};
    float *free = space;
    s.x = free, free += C;
    s.q = free, free += q;
    s.mixed = free, free += q;
    s.k = free, free += kv;
    s.v = free, free += kv;
    s.hidden = free, free += net->hidden_dim;
    s.cosine = free, free += D / 2;
    s.sine = free, free += D - D / 2;
    s.normed = free, free += n_threads * C;
    s.scores = free, free += n_threads * capacity;
    s.next = (atomic_int *)free;
    memset(free, 0, (5 * net->n_layers + 1) * sizeof(atomic_int));
    for (int64_t i = 0; i < C; i++)
        s.x[i] = one(net->embed, token * C + i, (int)net->bf16) + (net->places ? one(net->places, position * C + i, (int)net->bf16) : 0.0f);
    for (int64_t d = 0; net->inv_freq && d < D / 2; d++) {
        float angle = (float)position * net->inv_freq[d];
        s.cosine[d] = cosf(angle) * net->rope_scale;
        s.sine[d] = sinf(angle) * net->rope_scale;
    }
    together(work, &s, (int)n_threads);
}

#ifdef __AMX_BF16__
#include "prompt.h"

int64_t brolly_amx(void) { return tiles_allowed(); }

int64_t brolly_prompt_space(const Network *net, int64_t position, int64_t length, int64_t n_threads) {
    int64_t parts[10];
    return prompt_parts(net, length, (position + length + DEPTH - 1) / DEPTH * DEPTH, n_threads, parts);
}

// The same after `length` tokens, of which the first stands at `position`; capacity is a multiple of 32.
void brolly_prompt(const Network *net, const int32_t *tokens, int64_t length, int64_t position, void *keys, void *values,
                   int64_t capacity, int64_t layer_stride, void *space, float *logits, int64_t n_threads) {
    int64_t parts[10];
    Prompt p = {.net = net, .tokens = tokens, .position = position, .length = length, .blocks = (length + 31) / 32 * 2,
                .capacity = capacity, .layer_stride = layer_stride, .keys = keys, .values = values, .logits = logits,
                .padded = (position + length + DEPTH - 1) / DEPTH * DEPTH};
    prompt_parts(net, length, p.padded, n_threads, parts);
    char *free = (char *)(((uintptr_t)space + 63) / 64 * 64);
    p.x = (float *)free, free += parts[0];
    p.qkv = (float *)free, free += parts[1];
    p.cosine = (float *)free, free += parts[2];
    p.sine = (float *)free, free += parts[3];
    p.normed = (bf16 *)free, free += parts[4];
    p.mixed = (bf16 *)free, free += parts[5];
    p.hidden = (bf16 *)free, free += parts[6];
    p.turned = (bf16 *)free, free += parts[7];
    p.last = (float *)free, free += parts[8];
    p.next = (atomic_int *)free;
    memset(free, 0, parts[9]);
    together(prompt_work, &p, (int)n_threads);
}
#else
int64_t brolly_amx(void) { return 0; }
#endif
