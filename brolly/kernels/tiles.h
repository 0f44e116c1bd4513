// Products W Xᵀ of bfloat16, with channels in rows and 16 tokens in lanes: by AMX tiles, or by AVX-512's dot products.
//
// W lies row-major as in the checkpoint. X has two channels side by side per lane, (blocks, channels / 2, 16, 2), the
// order in which both instructions multiply; sums are float32, (blocks, channels, 16).

#pragma once
#include <immintrin.h>
#include <sys/syscall.h>

enum { TILE = 16, PANEL_BYTES = 262144 };
typedef uint16_t bf16;

// Two rows of 16 lanes, rounded and side by side.
INLINE __m512i paired(floats even, floats odd) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20,
                                           4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh((__m512)odd, (__m512)even));
}

// Rows of a matrix, a multiple of `unit`, that stay in a core's own memory while the tokens pass; enough for all threads.
INLINE int64_t panel_rows(int64_t rows, int64_t depth, int64_t unit, int n) {
    int64_t size = PANEL_BYTES / (2 * depth), fair = rows / (4 * n);
    size = (size < fair ? size : fair) / unit * unit;
    return size < unit ? unit : size;
}

#ifdef __AMX_BF16__
enum { BLOCKS = 2, ROWS = TILE, DEPTH = 32, STEP = 32 };  // of a product: blocks of tokens, rows, channels, rows that are both

// Linux lends the tile registers to those who ask (XFEATURE_XTILEDATA).
static int tiles_allowed(void) {
    static atomic_int known = -1;
    if (known < 0) known = !syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18);
    return known;
}

static void tiles_begin(void) {
    struct { uint8_t palette, start_row, spare[14]; uint16_t row_bytes[16]; uint8_t rows[16]; } shape = {.palette = 1};
    for (int i = 0; i < 8; i++) shape.row_bytes[i] = 64, shape.rows[i] = TILE;
    _tile_loadconfig(&shape);
}

static void tiles_end(void) { _tile_release(); }

// What was stored before must be in memory when a tile is loaded: the intrinsics alone do not say so.
INLINE void settle(void) { __asm__ volatile("" ::: "memory"); }

INLINE void step(const bf16 *a0, const bf16 *a1, int64_t stride, const bf16 *b0, const bf16 *b1) {
    _tile_loadd(4, a0, stride);
    _tile_loadd(6, b0, 64);
    _tile_dpbf16ps(0, 4, 6);
    if (a1) {
        _tile_loadd(5, a1, stride);
        _tile_dpbf16ps(1, 5, 6);
    }
    if (b1) {
        _tile_loadd(7, b1, 64);
        _tile_dpbf16ps(2, 4, 7);
        if (a1) _tile_dpbf16ps(3, 5, 7);
    }
}

// c (blocks, rows, 16) = or += W (rows, depth) times X for up to BLOCKS blocks of tokens, of which `lanes` are asked for;
// `stride` is W's, x_block and c_block a block's, in elements. Depth is even. To add takes whole tiles of rows; elsewhere
// the last tile may overlap the one before.
static void grid(const bf16 *w, int64_t stride, const bf16 *x, int64_t x_block, int64_t rows, int64_t depth, int64_t lanes, float *c,
                 int64_t c_block, int add) {
    const int64_t whole = depth / DEPTH * DEPTH;
    const bf16 *x1 = lanes > TILE ? x + x_block : NULL;
    bf16 rest[2 * TILE][DEPTH] __attribute__((aligned(64)));
    for (int64_t r = 0; r < rows; r += 2 * TILE) {
        const int64_t r0 = least(r, rows - TILE), r1 = least(r + TILE, rows - TILE), wide = rows - r > TILE;
        const bf16 *w0 = w + r0 * stride, *w1 = wide ? w + r1 * stride : NULL;
        float *c0 = c + r0 * TILE, *c1 = c + r1 * TILE;
        settle();
        if (add) {
            _tile_loadd(0, c0, 64);
            if (w1) _tile_loadd(1, c1, 64);
            if (x1) _tile_loadd(2, c0 + c_block, 64);
            if (w1 && x1) _tile_loadd(3, c1 + c_block, 64);
        } else {
            _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
        }
        for (int64_t k = 0; k < whole; k += DEPTH)
            step(w0 + k, w1 ? w1 + k : NULL, stride * 2, x + k * TILE, x1 ? x1 + k * TILE : NULL);
        if (whole < depth) {  // the end of the rows, with zeros behind it: what follows in memory is not W's
            memset(rest, 0, sizeof rest);
            for (int i = 0; i < TILE; i++) {
                memcpy(rest[i], w0 + i * stride + whole, (depth - whole) * 2);
                if (w1) memcpy(rest[TILE + i], w1 + i * stride + whole, (depth - whole) * 2);
            }
            settle();
            step(rest[0], w1 ? rest[TILE] : NULL, 64, x + whole * TILE, x1 ? x1 + whole * TILE : NULL);
        }
        _tile_stored(0, c0, 64);
        if (w1) _tile_stored(1, c1, 64);
        if (x1) _tile_stored(2, c0 + c_block, 64);
        if (w1 && x1) _tile_stored(3, c1 + c_block, 64);
        settle();
    }
}
#else
enum { BLOCKS = 3, ROWS = 8, DEPTH = 2, STEP = 8 };

static int tiles_allowed(void) { return 1; }
static void tiles_begin(void) {}
static void tiles_end(void) {}

// 8 rows of W by some blocks, of which the last may be `half`: a pair of weights is spread over all lanes as it is read.
INLINE void strip(const bf16 *w, int64_t stride, const bf16 *x, int64_t x_block, int64_t depth, const int blocks, const int half,
                  float *c, int64_t c_block, int add) {
    __m512 sum[ROWS][BLOCKS];
    __m256 rest[ROWS];
    const int full = blocks - half;
    const bf16 *x_half = x + full * x_block;
    float *c_half = c + full * c_block;
    for (int i = 0; i < ROWS; i++) {
        for (int g = 0; g < full; g++) sum[i][g] = add ? _mm512_loadu_ps(c + g * c_block + i * TILE) : _mm512_setzero_ps();
        if (half) rest[i] = add ? _mm256_loadu_ps(c_half + i * TILE) : _mm256_setzero_ps();
    }
    for (int64_t k = 0; k < depth; k += DEPTH) {
        __m512bh tokens[BLOCKS];
        __m256bh last;
        for (int i = 0; k % 32 == 0 && i < ROWS; i++) __builtin_prefetch(w + (ROWS + i) * stride + k, 0, 3);  // the next strip's
        for (int g = 0; g < full; g++) tokens[g] = (__m512bh)_mm512_loadu_si512(x + g * x_block + k * TILE);
        if (half) last = (__m256bh)_mm256_loadu_si256((const __m256i *)(x_half + k * TILE));
        for (int i = 0; i < ROWS; i++) {
            int32_t pair;
            memcpy(&pair, w + i * stride + k, 4);
            const __m512i weights = _mm512_set1_epi32(pair);
            for (int g = 0; g < full; g++) sum[i][g] = _mm512_dpbf16_ps(sum[i][g], (__m512bh)weights, tokens[g]);
            if (half) rest[i] = _mm256_dpbf16_ps(rest[i], (__m256bh)_mm512_castsi512_si256(weights), last);
        }
    }
    for (int i = 0; i < ROWS; i++) {
        for (int g = 0; g < full; g++) _mm512_storeu_ps(c + g * c_block + i * TILE, sum[i][g]);
        if (half) _mm512_storeu_ps(c_half + i * TILE, _mm512_zextps256_ps512(rest[i]));
    }
}

// c (blocks, rows, 16) = or += W (rows, depth) times X for up to BLOCKS blocks of tokens, of which `lanes` are asked for;
// `stride` is W's, x_block and c_block a block's, in elements. Rows are a multiple of ROWS, depth of DEPTH.
static void grid(const bf16 *w, int64_t stride, const bf16 *x, int64_t x_block, int64_t rows, int64_t depth, int64_t lanes, float *c,
                 int64_t c_block, int add) {
    for (int64_t r = 0; r < rows; r += ROWS, w += ROWS * stride, c += ROWS * TILE)
        switch ((lanes + TILE / 2 - 1) / (TILE / 2)) {
            case 1: strip(w, stride, x, x_block, depth, 1, 1, c, c_block, add); break;
            case 2: strip(w, stride, x, x_block, depth, 1, 0, c, c_block, add); break;
            case 3: strip(w, stride, x, x_block, depth, 2, 1, c, c_block, add); break;
            case 4: strip(w, stride, x, x_block, depth, 2, 0, c, c_block, add); break;
            case 5: strip(w, stride, x, x_block, depth, 3, 1, c, c_block, add); break;
            default: strip(w, stride, x, x_block, depth, 3, 0, c, c_block, add);
        }
}
#endif
