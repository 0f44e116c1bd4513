// Weights in 4 bits to numbers, each byte's two levels times the magnitude of their run, and back. See layers/quantized.py.

#include "vectors.h"
#include "team.h"

typedef struct {
    const uint8_t *codes;
    const float *magnitudes, *levels;
    void *out;
    int64_t n, run;
    int bf16;
} Unpacking;

INLINE void put(const Unpacking *u, int64_t i, float value) {
    if (u->bf16) ((uint16_t *)u->out)[i] = to_bf16(value);
    else ((float *)u->out)[i] = value;
}

static void unpack_runs(void *argument, int index, int n_threads) {
    const Unpacking *u = argument;
    const int64_t runs = (u->n + u->run - 1) / u->run, first = runs * index / n_threads, last = runs * (index + 1) / n_threads;
    for (int64_t r = first; r < last; r++) {
        const float m = u->magnitudes[r];
        int64_t i = r * u->run;
        const int64_t end = least(i + u->run, u->n);
#if LANES == 16 && !defined(__clang__)
        floats table = loadf(u->levels) * m;
        for (; i + 32 <= end; i += 32) {  // 16 bytes: the high halves, the low halves, then each beside its own
            uint8_t byte __attribute__((vector_size(16)));
            memcpy(&byte, u->codes + i / 2, 16);
            const ints both = __builtin_convertvector(byte, ints);
            const floats high = __builtin_shuffle(table, both >> 4), low = __builtin_shuffle(table, both & 15);
            const ints front = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
            floats pair[2] = {__builtin_shuffle(high, low, front), __builtin_shuffle(high, low, front + 8)};
            if (!u->bf16) memcpy((float *)u->out + i, pair, sizeof pair);
            else
                for (int k = 0; k < 2; k++) {
                    const words bits = (words)pair[k];
                    const halves rounded = __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, halves);
                    memcpy((uint16_t *)u->out + i + 16 * k, &rounded, sizeof rounded);
                }
        }
#endif
        for (; i < end; i += 2) {
            put(u, i, u->levels[u->codes[i / 2] >> 4] * m);
            put(u, i + 1, u->levels[u->codes[i / 2] & 15] * m);
        }
    }
}

// out (n) = level of each code times the magnitude of its run; n and the run are even, magnitudes finite.
void brolly_nf4(const uint8_t *codes, const float *magnitudes, const float *levels, void *out, int64_t n, int64_t run, int64_t bf16, int64_t n_threads) {
    Unpacking u = {codes, magnitudes, levels, out, n, run, (int)bf16};
    together(unpack_runs, &u, n < 1 << 16 ? 1 : (int)n_threads);
}

typedef struct {
    const float *numbers, *middles;
    float *magnitudes;
    uint8_t *codes;
    int64_t n, run;
} Packing;

static void pack_runs(void *argument, int index, int n_threads) {
    const Packing *p = argument;
    const int64_t runs = (p->n + p->run - 1) / p->run, first = runs * index / n_threads, last = runs * (index + 1) / n_threads;
    for (int64_t r = first; r < last; r++) {
        const int64_t start = r * p->run, n = least(p->run, p->n - start);
        const float *x = p->numbers + start;
        float most = 0;
        for (int64_t i = 0; i < n; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
        p->magnitudes[r] = most;
        const float by = 1 / (most > 1e-38f ? most : 1e-38f);
        for (int64_t i = 0; i < n; i += 2) {
            int high = 0, low = 0;
            const float a = x[i] * by, b = x[i + 1] * by;
            for (int k = 0; k < 15; k++) high += a > p->middles[k], low += b > p->middles[k];
            p->codes[(start + i) / 2] = (uint8_t)(high << 4 | low);
        }
    }
}

// codes (n / 2) and magnitudes of numbers (n): of each the count of the 15 middles between levels that it is above.
void brolly_nf4_pack(const float *numbers, const float *middles, float *magnitudes, uint8_t *codes, int64_t n, int64_t run, int64_t n_threads) {
    Packing p = {numbers, middles, magnitudes, codes, n, run};
    together(pack_runs, &p, n < 1 << 16 ? 1 : (int)n_threads);
}
