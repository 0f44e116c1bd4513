// Rows of matrices and of tokens, as the steps of decoders read them.

#pragma once

enum { CHUNK_BYTES = 1048576 };

INLINE const void *row_of(const void *matrix, int64_t row, int64_t n, int bf16) {
    return (const char *)matrix + row * n * (bf16 ? 2 : 4);
}

// How many rows a thread takes at once.
INLINE int64_t chunk_rows(int64_t rows, int64_t row_bytes, int n) {
    int64_t size = CHUNK_BYTES / row_bytes, fair = (rows + 4 * n - 1) / (4 * n);  // at least four chunks each
    size = size < fair ? size : fair;
    return size < 1 ? 1 : size;
}

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
