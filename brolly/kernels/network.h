// A Llama's or GPT-2's weights, where they lie: what decoder.c and batch.c compute with. weights.py mirrors the structs.

#pragma once

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
