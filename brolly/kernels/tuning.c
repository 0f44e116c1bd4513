// What a tuning step does between its matrix products: norms, rotations, gates, attention and losses, forward and backward.
//
// Rows lie as torch has them, float32 or bfloat16 (`half`); sums are float32 and each result is rounded once. Every row is
// computed in one order by one thread, so that a rerun gives the same bits. tuning.py has the same in torch.

#define _GNU_SOURCE
#include "vectors.h"

#include "team.h"

// torch's own threads, where its OpenMP is at hand: a second team would wait for them to fall asleep.
typedef void (*Parallel)(void (*)(void *), void *, unsigned, unsigned);
static Parallel parallel;

typedef struct {
    Work work;
    void *argument;
    int n;
} Share;

static void part(void *argument) {
    const Share *share = argument;
    share->work(share->argument, 0, share->n);
}

static void shared(Work work, void *argument, int n) {
    Share share = {work, argument, n};
    if (n == 1) work(argument, 0, 1);
    else if (parallel) parallel(part, &share, (unsigned)n, 0);
    else together(work, argument, n);
}

INLINE void store(void *p, int64_t i, floats value, int half) {
    if (!half) {
        memcpy((float *)p + i, &value, sizeof value);
        return;
    }
    const words bits = (words)value, odd = (words)(value != value);
    const words rounded = (((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) & ~odd) | (0x7fc0 & odd);
    const halves out = __builtin_convertvector(rounded, halves);
    memcpy((uint16_t *)p + i, &out, sizeof out);
}

enum { ROWS_EACH = 4 };

typedef struct {
    const void *x, *w, *dy, *skip, *cosine, *sine, *up;
    void *y, *dx, *d_gate, *d_up;
    const int64_t *targets;
    float *losses;
    int64_t n, dim, heads, half;
    float eps;
    atomic_int next;
} Rows;

INLINE void each(Rows *job, void (*row)(const Rows *job, int64_t i, int half)) {
    for (int64_t first; (first = take(&job->next, ROWS_EACH)) < job->n;)
        for (int64_t i = first; i < least(first + ROWS_EACH, job->n); i++) {
            if (job->half) row(job, i, 1);
            else row(job, i, 0);
        }
}

// ---- RMSNorm: y = x r w with r = 1 / sqrt(mean x² + eps) ----

INLINE float inverse_size(const Rows *job, const char *x, int half) {
    floats sum = {0};
    for (int64_t c = 0; c < job->dim; c += LANES) sum += load(x, c, half) * load(x, c, half);
    return 1.0f / sqrtf(total(sum) / (float)job->dim + job->eps);
}

INLINE void norm_row(const Rows *job, int64_t i, int half) {
    const int64_t at = i * job->dim * (half ? 2 : 4);
    const char *x = (const char *)job->x + at;
    const float r = inverse_size(job, x, half);
    for (int64_t c = 0; c < job->dim; c += LANES) store((char *)job->y + at, c, load(x, c, half) * r * load(job->w, c, half), half);
}

static void norm(void *job, int index, int n) { each(job, norm_row), (void)index, (void)n; }

// dx = skip + r w dy - x r³ mean(w dy x), and y once more.
INLINE void norm_back_row(const Rows *job, int64_t i, int half) {
    const int64_t at = i * job->dim * (half ? 2 : 4);
    const char *x = (const char *)job->x + at, *dy = (const char *)job->dy + at;
    const float r = inverse_size(job, x, half);
    floats sum = {0};
    for (int64_t c = 0; c < job->dim; c += LANES) sum += load(job->w, c, half) * load(dy, c, half) * load(x, c, half);
    const float along = r * r * r * total(sum) / (float)job->dim;
    for (int64_t c = 0; c < job->dim; c += LANES) {
        const floats v = load(x, c, half), w = load(job->w, c, half);
        floats dx = load(dy, c, half) * w * r - v * along;
        if (job->skip) dx += load((const char *)job->skip + at, c, half);
        store((char *)job->dx + at, c, dx, half);
        if (job->y) store((char *)job->y + at, c, v * r * w, half);
    }
}

static void norm_back(void *job, int index, int n) { each(job, norm_back_row), (void)index, (void)n; }

// ---- rotary positions, in place; backward with the sines' signs turned ----

INLINE void turn_row(const Rows *job, int64_t i, int half) {
    const int64_t D = job->dim, size = half ? 2 : 4;
    const char *cosine = (const char *)job->cosine + i * D / 2 * size, *sine = (const char *)job->sine + i * D / 2 * size;
    for (int64_t h = 0; h < job->heads; h++) {
        char *x = (char *)job->y + (i * job->heads + h) * D * size;
        for (int64_t d = 0; d < D / 2; d += LANES) {
            const floats a = load(x, d, half), z = load(x, d + D / 2, half);
            const floats c = load(cosine, d, half), s = load(sine, d, half) * job->eps;
            store(x, d, a * c - z * s, half);
            store(x, d + D / 2, z * c + a * s, half);
        }
    }
}

static void turns(void *job, int index, int n) { each(job, turn_row), (void)index, (void)n; }

// ---- SwiGLU: y = gate sigmoid(gate) up ----

INLINE void gate_row(const Rows *job, int64_t i, int half) {
    const int64_t at = i * job->dim * (half ? 2 : 4);
    for (int64_t c = 0; c < job->dim; c += LANES) {
        const floats g = load((const char *)job->x + at, c, half), u = load((const char *)job->up + at, c, half);
        const floats s = 1.0f / (1.0f + exps(-g)), y = g * s * u;
        const floats d = job->dy ? load((const char *)job->dy + at, c, half) : g;
        if (job->y) store((char *)job->y + at, c, y, half);
        if (job->dy) {
            store((char *)job->d_gate + at, c, d * u * s * (1.0f + g * (1.0f - s)), half);
            store((char *)job->d_up + at, c, d * g * s, half);
        }
    }
}

static void gates(void *job, int index, int n) { each(job, gate_row), (void)index, (void)n; }

// ---- cross-entropy of a row of logits, which become its gradient: shares, less 1 at the target ----

INLINE floats load_end(const void *x, int64_t i, int64_t n, int half) {
    floats v = {0};
    for (int64_t j = 0; j < LANES; j++) v[j] = i + j < n ? one(x, i + j, half) : -INFINITY;
    return v;
}

INLINE void entropy_row(const Rows *job, int64_t i, int half) {
    const int64_t V = job->dim, most = V / LANES * LANES;
    char *x = (char *)job->y + i * V * (half ? 2 : 4);
    floats peaks = (floats){0} - INFINITY, sums = {0};
    for (int64_t c = 0; c < V; c += LANES) {
        const floats v = c < most ? load(x, c, half) : load_end(x, c, V, half);
        const ints over = v > peaks;
        peaks = (floats)((over & (ints)v) | (~over & (ints)peaks));
    }
    float peak = peaks[0];
    for (int j = 1; j < LANES; j++) peak = peaks[j] > peak ? peaks[j] : peak;
    for (int64_t c = 0; c < most; c += LANES) sums += exps(load(x, c, half) - peak);
    float sum = total(sums);
    for (int64_t c = most; c < V; c++) sum += expf(one(x, c, half) - peak);
    const float target = one(x, job->targets[i], half);
    job->losses[i] = logf(sum) + (peak - target);
    if (!job->heads) return;
    const float share = 1.0f / sum;
    for (int64_t c = 0; c < most; c += LANES) store(x, c, exps(load(x, c, half) - peak) * share, half);
    for (int64_t c = most; c < V; c++) {
        const float p = expf(one(x, c, half) - peak) * share;
        if (half) ((uint16_t *)x)[c] = to_bf16(p);
        else ((float *)x)[c] = p;
    }
    const float p = expf(target - peak) * share - 1.0f;
    if (half) ((uint16_t *)x)[job->targets[i]] = to_bf16(p);
    else ((float *)x)[job->targets[i]] = p;
}

static void entropies(void *job, int index, int n) { each(job, entropy_row), (void)index, (void)n; }

#ifdef __AVX512BF16__
#include "stretches.h"
#else
int64_t brolly_tune_attends(void) { return 0; }
#endif

// ---- what Python calls ----

int64_t brolly_tune_lanes(void) { return LANES; }
void brolly_tune_team(Parallel given) { parallel = given; }

// x, y: (n, dim), w: (dim).
void brolly_tune_norm(const void *x, const void *w, void *y, int64_t n, int64_t dim, float eps, int64_t half, int64_t n_threads) {
    Rows job = {.x = x, .w = w, .y = y, .n = n, .dim = dim, .eps = eps, .half = half};
    shared(norm, &job, (int)n_threads);
}

// dx may be dy or skip; skip and y may be NULL.
void brolly_tune_norm_back(const void *dy, const void *x, const void *w, const void *skip, void *dx, void *y, int64_t n, int64_t dim,
                           float eps, int64_t half, int64_t n_threads) {
    Rows job = {.dy = dy, .x = x, .w = w, .skip = skip, .dx = dx, .y = y, .n = n, .dim = dim, .eps = eps, .half = half};
    shared(norm_back, &job, (int)n_threads);
}

// x: (n, heads, dim), cosine and sine: (n, dim / 2); sign: 1, or -1 to turn back.
void brolly_tune_turn(void *x, const void *cosine, const void *sine, int64_t n, int64_t heads, int64_t dim, float sign, int64_t half,
                      int64_t n_threads) {
    Rows job = {.y = x, .cosine = cosine, .sine = sine, .n = n, .heads = heads, .dim = dim, .eps = sign, .half = half};
    shared(turns, &job, (int)n_threads);
}

// All (n, dim). Forward: dy is NULL. Backward: d_gate, d_up and, unless NULL, y once more; y may be dy.
void brolly_tune_gate(const void *gate, const void *up, const void *dy, void *y, void *d_gate, void *d_up, int64_t n, int64_t dim,
                      int64_t half, int64_t n_threads) {
    Rows job = {.x = gate, .up = up, .dy = dy, .y = y, .d_gate = d_gate, .d_up = d_up, .n = n, .dim = dim, .half = half};
    shared(gates, &job, (int)n_threads);
}

// logits: (n, dim), 0 <= targets < dim; with `gradient` the logits become it.
void brolly_tune_entropy(void *logits, const int64_t *targets, float *losses, int64_t n, int64_t dim, int64_t gradient, int64_t half,
                         int64_t n_threads) {
    Rows job = {.y = logits, .targets = targets, .losses = losses, .n = n, .dim = dim, .heads = gradient, .half = half};
    shared(entropies, &job, (int)n_threads);
}
