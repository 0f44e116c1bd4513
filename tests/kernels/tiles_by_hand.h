// AMX's tiles in plain C, included before a kernel's text: it computes here what it would on a processor that has them.

#define _GNU_SOURCE
#include <immintrin.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static __thread struct {
    uint16_t row_bytes[8];
    uint8_t rows[8], data[8][16][64];
} tiles;

static inline void configure(const void *shape) {
    const uint8_t *bytes = shape;
    memset(&tiles, 0, sizeof tiles);
    memcpy(tiles.row_bytes, bytes + 16, 16);
    memcpy(tiles.rows, bytes + 48, 8);
}

static inline void multiply_tiles(int c, int a, int b) {
    for (int m = 0; m < tiles.rows[c]; m++) {
        __m512 sum = _mm512_loadu_ps(tiles.data[c][m]);
        for (int k = 0; k < tiles.row_bytes[a] / 4; k++) {
            int32_t pair;
            memcpy(&pair, &tiles.data[a][m][4 * k], 4);
            sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)_mm512_loadu_si512(tiles.data[b][k]));
        }
        _mm512_storeu_ps(tiles.data[c][m], sum);
    }
}

static inline void load_tile(int t, const void *from, int64_t stride) {
    for (int r = 0; r < tiles.rows[t]; r++) memcpy(tiles.data[t][r], (const char *)from + r * stride, tiles.row_bytes[t]);
}

static inline void store_tile(int t, void *to, int64_t stride) {
    for (int r = 0; r < tiles.rows[t]; r++) memcpy((char *)to + r * stride, tiles.data[t][r], tiles.row_bytes[t]);
}

#undef _tile_loadconfig
#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#undef _tile_release
#define _tile_loadconfig(shape) configure(shape)
#define _tile_loadd(t, from, stride) load_tile(t, from, stride)
#define _tile_stored(t, to, stride) store_tile(t, to, stride)
#define _tile_zero(t) memset(tiles.data[t], 0, 1024)
#define _tile_dpbf16ps(c, a, b) multiply_tiles(c, a, b)
#define _tile_release() memset(&tiles, 0, sizeof tiles)
#define syscall(...) 0  // the system lends them
#ifndef __AMX_BF16__
#define __AMX_BF16__ 1
#endif
