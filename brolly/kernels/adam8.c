// A step of AdamW whose moments are in 8 bits. See train/tuning/optimizers.py, by_torch.

#include "vectors.h"
#include "team.h"

typedef struct {
    const float *levels, *middles;  // 256 each; the last middle is infinite
    const uint8_t *codes;           // by a number's first 16 bits: its code, or one less
} Table;

typedef struct {
    void *p;
    const void *grad;
    uint8_t *mean, *square;
    float *mean_most, *square_most;
    int64_t rows, columns, block;
    float rate, kept, eps, beta1, beta2;
    int p_bf16, grad_bf16;
    Table tables[2];
} Step;

INLINE float value(const void *from, int64_t i, int bf16) {
    if (!bf16) return ((const float *)from)[i];
    const uint32_t bits = (uint32_t)((const uint16_t *)from)[i] << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

INLINE uint8_t code(float x, const Table *t) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    const uint8_t found = t->codes[bits >> 16];
    return (uint8_t)(found + (x > t->middles[found]));
}

static void some(void *argument, int index, int n_threads) {
    const Step *s = argument;
    const int64_t per_row = (s->columns + s->block - 1) / s->block, blocks = s->rows * per_row;
    const int64_t first = blocks * index / n_threads, last = blocks * (index + 1) / n_threads;
    float m[256], v[256];
    for (int64_t b = first; b < last; b++) {
        const int64_t row = b / per_row, column = b % per_row * s->block, n = least(s->block, s->columns - column);
        const int64_t start = row * s->columns + column;
        uint8_t *mean = s->mean + start, *square = s->square + start;
        const float by_m = s->mean_most[b], by_v = s->square_most[b];
        for (int64_t i = 0; i < n; i++) m[i] = s->tables[0].levels[mean[i]] * by_m;
        for (int64_t i = 0; i < n; i++) v[i] = s->tables[1].levels[square[i]] * by_v;
        float most_m = 0, most_v = 0;
        for (int64_t i = 0; i < n; i++) {
            const float g = value(s->grad, start + i, s->grad_bf16);
            m[i] = m[i] * s->beta1 + g * (1 - s->beta1);
            v[i] = v[i] * s->beta2 + g * g * (1 - s->beta2);
            most_m = fabsf(m[i]) > most_m ? fabsf(m[i]) : most_m;
            most_v = v[i] > most_v ? v[i] : most_v;
            const float x = value(s->p, start + i, s->p_bf16) * s->kept - s->rate * m[i] / (sqrtf(v[i]) + s->eps);
            if (s->p_bf16) ((uint16_t *)s->p)[start + i] = to_bf16(x);
            else ((float *)s->p)[start + i] = x;
        }
        const float m_by = 1 / (most_m > 1e-38f ? most_m : 1e-38f), v_by = 1 / (most_v > 1e-38f ? most_v : 1e-38f);
        for (int64_t i = 0; i < n; i++) {
            mean[i] = code(m[i] * m_by, &s->tables[0]);
            const uint8_t found = code(v[i] * v_by, &s->tables[1]);
            square[i] = found == 0 && v[i] > 0 ? 1 : found;
        }
        s->mean_most[b] = most_m, s->square_most[b] = most_v;
    }
}

// how: rate (which holds what both moments are faded by), kept, eps, beta1, beta2. Blocks hold at most 256 numbers.
void brolly_adam8(void *const *tensors, const float *how, const void *const *tables, int64_t rows, int64_t columns, int64_t block, int64_t p_bf16, int64_t grad_bf16, int64_t n_threads) {
    Step s = {tensors[0], tensors[1], tensors[2], tensors[3], tensors[4], tensors[5], rows, columns, block,
              how[0], how[1], how[2], how[3], how[4], (int)p_bf16, (int)grad_bf16,
              {{tables[0], tables[1], tables[2]}, {tables[3], tables[4], tables[5]}}};
    together(some, &s, rows * columns < 1 << 15 ? 1 : (int)n_threads);
}
