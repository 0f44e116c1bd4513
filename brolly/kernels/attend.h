// Attention of batch.c, over pages: of many lanes at a time, and of the few that a running answer has.

#pragma once

// One key head for some query lanes of one row, KEYS at a time with a running maximum (Milakov 2018, Dao 2022). The groups
// of keys begin at the same positions for all, and what a lane may not see adds nothing: so each is as if it were alone.
static void attend(const Pass *p, const Layer *l, int64_t layer, const Item *item, int64_t kv) {
    const Network *net = p->net;
    const int64_t D = net->head_dim, H = net->n_heads, R = H / net->n_kv_heads, head = whole(D, DEPTH);
    const Row *row = p->rows + item->row;
    const int blocks = (item->lanes + TILE - 1) / TILE;
    bf16 queries[BLOCKS][MAX_HEAD][TILE] __attribute__((aligned(64))), shares[BLOCKS][KEYS][TILE] __attribute__((aligned(64)));
    float scores[BLOCKS][KEYS][TILE] __attribute__((aligned(64))), mixed[BLOCKS][MAX_HEAD][TILE] __attribute__((aligned(64)));
    int32_t at[BLOCKS * TILE] __attribute__((aligned(64)));  // each lane's token of the row
    __m512i high[BLOCKS], low[BLOCKS];
    floats top[BLOCKS], sum[BLOCKS];
    for (int i = 0; i < blocks * TILE; i++) at[i] = (int32_t)((item->lane + least(i, item->lanes - 1)) / R);
    for (int g = 0; g < blocks; g++) {
        for (int64_t d = 0; d < D; d += UNIT) {
            __m512i rows[TILE];
            for (int64_t i = 0; i < TILE; i++) {
                const int64_t lane = item->lane + least(g * TILE + i, item->lanes - 1), h = kv * R + lane % R;
                rows[i] = _mm512_maskz_loadu_epi32(D - d < UNIT ? 0xff : 0xffff, p->queries + ((item->token + lane / R) * H + h) * D + d);
            }
            turn(rows);
            for (int64_t i = 0; i < TILE && d + 2 * i < head; i++) _mm512_store_si512(queries[g][d + 2 * i], rows[i]);
        }
        high[g] = _mm512_add_epi32(_mm512_load_si512(at + g * TILE), _mm512_set1_epi32((int)row->start + 1));
        low[g] = _mm512_sub_epi32(high[g], _mm512_set1_epi32(l->window ? (int)least(l->window, 1 << 30) : 1 << 30));
        top[g] = (floats){0} - 1e30f, sum[g] = (floats){0};
    }
    const int64_t window = l->window ? l->window : INT32_MAX, newest = row->start + at[item->lanes - 1];
    const int64_t first = most(0, row->start + at[0] + 1 - window) / PAGE * PAGE;  // the oldest key in sight
    const int64_t common = most(0, newest + 1 - window), until = row->start + at[0] + 1;  // all lanes see what is between
    int begun = 0;
    for (int64_t s = first / KEYS * KEYS, from = first; s <= newest; s += KEYS, from = s) {
        const int64_t n = least(KEYS, whole(newest + 1 - s, PAGE));
        for (int64_t k = from; k < s + n; k += PAGE)
            grid(keys_of(p, layer, kv, row->pages[k / PAGE]), D, queries[0][0], MAX_HEAD * TILE, PAGE, D, item->lanes, scores[0][k - s],
                 KEYS * TILE, 0);
        for (int g = 0; g < blocks; g++) {
            floats peak = top[g];
            for (int64_t k = from; k < s + n; k += PAGE) {
                const int all = k >= common && k + PAGE <= until;
                peak = seen(scores[g] + k - s, k, PAGE, low[g], high[g], all, peak);
            }
            const floats fade = power(top[g] - peak);
            floats parts[TILE] = {0};
            for (int64_t j = from - s; j < n; j += TILE)
#pragma GCC unroll 8
                for (int i = 0; i < TILE; i += 2) {
                    const floats a = power(loadf(scores[g][j + i]) - peak), z = power(loadf(scores[g][j + i + 1]) - peak);
                    parts[i] += a, parts[i + 1] += z;
                    _mm512_store_si512(shares[g][j + i], paired(a, z));
                }
            for (int half = TILE / 2; half; half /= 2)
                for (int i = 0; i < half; i++) parts[i] += parts[i + half];
            sum[g] = sum[g] * fade + parts[0], top[g] = peak;
            for (int64_t d = 0; begun && d < D; d++) storef(mixed[g][d], loadf(mixed[g][d]) * fade);
        }
        for (int64_t k = from; k < s + n; k += PAGE, begun = 1)
            grid(values_of(p, layer, kv, row->pages[k / PAGE]), PAGE, shares[0][k - s], KEYS * TILE, D, PAGE, item->lanes, mixed[0][0],
                 MAX_HEAD * TILE, begun);
    }
    for (int g = 0; g < blocks; g++) {
        const floats share = 1.0f / sum[g];
        for (int64_t d = 0; d < D; d += 2) {
            int32_t pairs[TILE] __attribute__((aligned(64)));
            _mm512_store_si512(pairs, paired(loadf(mixed[g][d]) * share, loadf(mixed[g][d + 1]) * share));
            for (int64_t i = 0; i < least(TILE, item->lanes - g * TILE); i++) {
                const int64_t token = item->token + at[g * TILE + i], h = kv * R + (item->lane + g * TILE + i) % R;
                memcpy(p->mixed + token / TILE * block_size(H * D) + (h * D + d) * TILE + token % TILE * 2, pairs + i, 4);
            }
        }
    }
}

#ifndef __AMX_BF16__
// The same for a few lanes, with keys and then channels in the processor's lanes: what is read is read in long runs.
static void attend_few(const Pass *p, const Layer *l, int64_t layer, const Item *item, int64_t kv) {
    const Network *net = p->net;
    const int64_t D = net->head_dim, H = net->n_heads, R = H / net->n_kv_heads, lanes = item->lanes;
    const Row *row = p->rows + item->row;
    bf16 queries[MOST_LANES][MAX_HEAD] __attribute__((aligned(64))), shares[MOST_LANES][KEYS] __attribute__((aligned(64)));
    float scores[KEYS / TILE][MOST_LANES][TILE] __attribute__((aligned(64)));
    float mixed[MAX_HEAD / TILE][MOST_LANES][TILE] __attribute__((aligned(64)));
    float top[MOST_LANES], sum[MOST_LANES];
    int64_t position[MOST_LANES];
    memset(queries, 0, sizeof queries), memset(shares, 0, sizeof shares), memset(mixed, 0, sizeof mixed);
    for (int t = 0; t < lanes; t++) {
        const int64_t at = (item->lane + t) / R, h = kv * R + (item->lane + t) % R;
        memcpy(queries[t], p->queries + ((item->token + at) * H + h) * D, D * 2);
        position[t] = row->start + at, top[t] = -1e30f, sum[t] = 0;
    }
    const int64_t window = l->window ? l->window : INT32_MAX, newest = position[lanes - 1];
    const int64_t first = most(0, position[0] + 1 - window) / PAGE * PAGE;
    const __m512i count = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int64_t s = first / KEYS * KEYS, from = first; s <= newest; s += KEYS, from = s) {
        const int64_t end = s + least(KEYS, whole(newest + 1 - s, PAGE)), n = (end - from) / TILE;
        for (int64_t j = 0; j < n; j++) {
            const int64_t k = from + j * TILE, in = k % PAGE * D;
            const bf16 *ahead = keys_of(p, layer, kv, row->pages[least(k + PAGE, end - 1) / PAGE]) + in;
            for (int64_t i = 0; from == first && i < TILE * D; i += 32) __builtin_prefetch(ahead + i, 0, 2);
            memset(scores[j], 0, sizeof scores[j]);
            slim_rows(keys_of(p, layer, kv, row->pages[k / PAGE]) + in, D, queries[0], MAX_HEAD, lanes,
                      values_of(p, layer, kv, row->pages[k / PAGE]) + in, scores[j][0]);
            const __m512i key = _mm512_add_epi32(_mm512_set1_epi32((int)k), count);
            for (int t = 0; t < lanes; t++) {
                const __mmask16 hidden = _mm512_cmpgt_epi32_mask(key, _mm512_set1_epi32((int)position[t])) |
                                         _mm512_cmple_epi32_mask(key, _mm512_set1_epi32((int)most(position[t] - window, -1)));
                _mm512_mask_store_ps(scores[j][t], hidden, _mm512_set1_ps(-1e30f));
            }
        }
        for (int t = 0; t < lanes; t++) {
            __m512 peaks = _mm512_set1_ps(top[t]);
            for (int64_t j = 0; j < n; j++) peaks = _mm512_max_ps(peaks, _mm512_load_ps(scores[j][t]));
            const float peak = _mm512_reduce_max_ps(peaks);
            const floats fade = power((floats){0} + (top[t] - peak));
            floats parts = {0};
            for (int64_t j = 0; j < n; j++) {
                const floats share = power(loadf(scores[j][t]) - peak);
                parts += share;
                _mm256_store_si256((__m256i *)(shares[t] + j * TILE), (__m256i)_mm512_cvtneps_pbh((__m512)share));
            }
            sum[t] = sum[t] * fade[0] + _mm512_reduce_add_ps((__m512)parts), top[t] = peak;
            for (int64_t d = 0; from > first && d < D / TILE; d++) storef(mixed[d][t], loadf(mixed[d][t]) * fade);
        }
        for (int64_t d = 0; d < D / TILE; d++)
            for (int64_t k = from; k < end; k += PAGE)  // and the next KEYS come nearer
                slim_rows(values_of(p, layer, kv, row->pages[k / PAGE]) + d * TILE * PAGE, PAGE, shares[0] + k - from, KEYS, lanes,
                          keys_of(p, layer, kv, row->pages[least(k + KEYS, newest) / PAGE]) + d * TILE * PAGE, mixed[d][0]);
    }
    for (int t = 0; t < lanes; t++) {
        const int64_t token = item->token + (item->lane + t) / R, h = kv * R + (item->lane + t) % R;
        bf16 *out = p->mixed + token / TILE * block_size(H * D) + h * D * TILE + token % TILE * 2;
        const floats share = (floats){0} + 1.0f / sum[t];
        for (int64_t d = 0; d < D; d += TILE) {
            bf16 found[TILE] __attribute__((aligned(32)));
            _mm256_store_si256((__m256i *)found, (__m256i)_mm512_cvtneps_pbh((__m512)(loadf(mixed[d / TILE][t]) * share)));
            for (int i = 0; i < TILE; i += 2) memcpy(out + (d + i) * TILE, found + i, 4);
        }
    }
}
#endif

INLINE void look(const Pass *p, const Layer *l, int64_t layer, const Item *item, int64_t kv) {
#ifndef __AMX_BF16__
    if (item->lanes <= MOST_LANES) {
        attend_few(p, l, layer, item, kv);
        return;
    }
#endif
    attend(p, l, layer, item, kv);
}
