// One token through a pre-norm decoder (Llama's or GPT-2's diagram) in a single call, on a team of threads.
//
// Weights stay where torch has them, row-major (out, in), float32 or bfloat16; activations and sums are float32.
// The reference is brolly/models run by torch; tests/kernels compares the two. brolly/kernels/decode.py mirrors the structs.
// Vectors are GCC's and clang's own, so that one text serves AVX-512, AVX2, NEON and machines with none.

#define _GNU_SOURCE
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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
#define INLINE static inline __attribute__((always_inline))

enum { MAX_THREADS = 256, MAX_HEAD = 1024, CHUNK_BYTES = 65536 };

typedef struct {
    const void *q, *k, *v, *o, *gate, *up, *down;  // matrices; no gate: up alone through GELU
    const void *norm1, *norm1_b, *norm2, *norm2_b, *q_norm, *k_norm;  // NULL where the network has none
    const void *q_b, *k_b, *v_b, *o_b, *gate_b, *up_b, *down_b;
    int64_t window;  // 0: all that came before
} Layer;

typedef struct {
    int64_t bf16, layer_norm, vocab_size, dim, n_layers, n_heads, n_kv_heads, head_dim, hidden_dim;
    float eps, rope_scale;
    const void *embed, *places, *head, *norm, *norm_b;  // places: learned positions (context, dim) or NULL
    const float *inv_freq;                              // (head_dim / 2), NULL without rotary positions
    const Layer *layers;
} Network;

// ---- numbers ----

INLINE float one(const void *p, int64_t i, int bf16) {
    if (!bf16) return ((const float *)p)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)p)[i] << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

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

// ---- a team of threads: spins for a moment between tokens, then sleeps ----

typedef void (*Work)(void *argument, int index, int n);

static struct {
    pthread_mutex_t busy, door;
    pthread_cond_t bell;
    pthread_t threads[MAX_THREADS];
    pid_t owner;
    int n;  // with the caller
    _Atomic uint64_t round;
    atomic_int done, arrived, phase, stop;
    Work work;
    void *argument;
} team = {.busy = PTHREAD_MUTEX_INITIALIZER, .door = PTHREAD_MUTEX_INITIALIZER, .bell = PTHREAD_COND_INITIALIZER};

INLINE void rest(int turn) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
    if (turn > 2000) sched_yield();  // more threads than free cores: let the others arrive
}

static void meet(int n) {
    int phase = atomic_load(&team.phase);
    if (atomic_fetch_add(&team.arrived, 1) + 1 == n) {
        atomic_store(&team.arrived, 0);
        atomic_fetch_add(&team.phase, 1);
    } else {
        for (int turn = 0; atomic_load(&team.phase) == phase; turn++) rest(turn);
    }
}

static void *member(void *index) {
    uint64_t seen = 0;
    for (;;) {
        for (int turn = 0; turn < 5000 && atomic_load(&team.round) == seen; turn++) rest(0);
        if (atomic_load(&team.round) == seen) {
            pthread_mutex_lock(&team.door);
            while (atomic_load(&team.round) == seen) pthread_cond_wait(&team.bell, &team.door);
            pthread_mutex_unlock(&team.door);
        }
        seen++;
        if (atomic_load(&team.stop)) return NULL;
        team.work(team.argument, (int)(intptr_t)index, team.n);
        atomic_fetch_add(&team.done, 1);
    }
}

static void ring(void) {
    atomic_store(&team.done, 0);
    pthread_mutex_lock(&team.door);
    atomic_fetch_add(&team.round, 1);
    pthread_cond_broadcast(&team.bell);
    pthread_mutex_unlock(&team.door);
}

// A fork leaves the threads behind and may leave a lock held: begin anew.
static void enlist(int n) {
    if (team.owner == getpid() && team.n == n) return;
    if (team.owner == getpid() && team.n > 1) {
        atomic_store(&team.stop, 1);
        ring();
        for (int i = 1; i < team.n; i++) pthread_join(team.threads[i], NULL);
    }
    pthread_mutex_init(&team.door, NULL);
    pthread_cond_init(&team.bell, NULL);
    atomic_store(&team.round, 0);
    atomic_store(&team.stop, 0);
    atomic_store(&team.arrived, 0);
    team.owner = getpid();
    team.n = 1;
    for (int i = 1; i < n; i++, team.n++)
        if (pthread_create(&team.threads[i], NULL, member, (void *)(intptr_t)i)) break;
}

static void after_fork(void) { pthread_mutex_init(&team.busy, NULL); }

__attribute__((constructor)) static void prepare(void) { pthread_atfork(NULL, NULL, after_fork); }

static void together(Work work, void *argument, int n) {
    pthread_mutex_lock(&team.busy);
    enlist(n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : n);
    team.work = work;
    team.argument = argument;
    if (team.n > 1) ring();
    work(argument, 0, team.n);
    for (int turn = 0; team.n > 1 && atomic_load(&team.done) < team.n - 1; turn++) rest(turn);
    pthread_mutex_unlock(&team.busy);
}

// ---- pieces of the step ----

// One row after another: each core reads one long run of memory, which is what the prefetchers follow best.
INLINE float product(const void *row, const float *x, int64_t n, int bf16) {
    floats a = {0}, b = a, c = a, d = a;
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
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

INLINE const void *row_of(const void *matrix, int64_t row, int64_t n, int bf16) {
    return (const char *)matrix + row * n * (bf16 ? 2 : 4);
}

INLINE float bias(const void *b, int64_t i, int bf16) { return b ? one(b, i, bf16) : 0.0f; }

// RMSNorm (Zhang and Sennrich 2019), or LayerNorm where `centred`.
INLINE void normalise(float *out, const float *x, const void *w, const void *b, int64_t n, float eps, int centred, int bf16) {
    floats sums = {0};
    float mean = 0, square = 0;
    int64_t i = 0;
    if (centred) {
        for (; i + LANES <= n; i += LANES) sums += loadf(x + i);
        mean = total(sums);
        for (; i < n; i++) mean += x[i];
        mean /= (float)n;
    }
    sums -= sums;
    for (i = 0; i + LANES <= n; i += LANES) {
        floats d = loadf(x + i) - mean;
        sums += d * d;
    }
    square = total(sums);
    for (; i < n; i++) square += (x[i] - mean) * (x[i] - mean);
    float scale = 1.0f / sqrtf(square / (float)n + eps);
    for (i = 0; i + LANES <= n; i += LANES) {
        floats y = (loadf(x + i) - mean) * scale * load(w, i, bf16);
        storef(out + i, b ? y + load(b, i, bf16) : y);
    }
    for (; i < n; i++) out[i] = (x[i] - mean) * scale * one(w, i, bf16) + bias(b, i, bf16);
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

INLINE int64_t take(atomic_int *next, int64_t size) { return (int64_t)atomic_fetch_add(next, 1) * size; }

INLINE int64_t chunk_rows(int64_t rows, int64_t row_bytes, int n) {
    int64_t size = CHUNK_BYTES / row_bytes, fair = (rows + 4 * n - 1) / (4 * n);  // at least four chunks each
    size = size < fair ? size : fair;
    return size < 1 ? 1 : size;
}

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

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
    normalise(normed, s->x, net->norm, net->norm_b, C, net->eps, net->layer_norm, bf16);
    size = chunk_rows(net->vocab_size, C * width, n);
    for (; (a = take(next, size)) < net->vocab_size;)
        for (r = a; r < least(a + size, net->vocab_size); r++) s->logits[r] = dot(row_of(net->head, r, C, bf16), normed, C, bf16);
}

static void work(void *argument, int index, int n) {
    const Step *s = argument;
    if (s->net->bf16) run(s, index, n, 1);
    else run(s, index, n, 0);
}

static int64_t room(const Network *net) {
    return net->dim + 2 * (net->n_heads + net->n_kv_heads) * net->head_dim + net->hidden_dim + net->head_dim;
}

// Floats of work space that a step needs, and so is passed by the caller: nothing is allocated per token.
int64_t brolly_decode_space(const Network *net, int64_t capacity, int64_t n_threads) {
    return room(net) + n_threads * (net->dim + capacity) + 5 * net->n_layers + 1 + 16;
}

int64_t brolly_decode_lanes(void) { return LANES; }
int64_t brolly_decode_max_head(void) { return MAX_HEAD; }

// Logits (vocab_size) of the token after `token`, which stands at `position` < capacity.
void brolly_decode(const Network *net, int64_t token, int64_t position, void *keys, void *values, int64_t capacity,
                   int64_t layer_stride, float *space, float *logits, int64_t n_threads) {
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
