"""Every tensor of published encoders: texts, pictures, sounds, proteins; and of models that join some to a decoder."""

from __future__ import annotations

from collections.abc import Callable

from tests.identity.real.decoders import Config, Tensors, decoder, gated, linear, norm


def dense(name: str, out: int, into: int, dtype: str = "F32") -> Tensors:
    return linear(name, out, into, True, dtype)


def ln(name: str, width: int, dtype: str = "F32") -> Tensors:
    return norm(name, width, True, dtype)


def table(name: str, rows: int, width: int, dtype: str = "F32") -> Tensors:
    return {f"{name}.weight": (dtype, (rows, width))}


def bert_layers(at: str, c: Config) -> Tensors:
    d, hidden = c["hidden_size"], c["intermediate_size"]
    out: Tensors = {}
    for i in range(c["num_hidden_layers"]):
        layer = f"{at}.layer.{i}"
        for part in ("query", "key", "value"):
            out |= dense(f"{layer}.attention.self.{part}", d, d)
        out |= dense(f"{layer}.attention.output.dense", d, d) | ln(f"{layer}.attention.output.LayerNorm", d)
        out |= dense(f"{layer}.intermediate.dense", hidden, d) | dense(f"{layer}.output.dense", d, hidden)
        out |= ln(f"{layer}.output.LayerNorm", d)
    return out


def bert(c: Config, at: str = "", pooler: bool = True) -> Tensors:
    """BERT and RoBERTa without a head."""
    d = c["hidden_size"]
    out = table(f"{at}embeddings.word_embeddings", c["vocab_size"], d)
    out |= table(f"{at}embeddings.position_embeddings", c["max_position_embeddings"], d)
    out |= table(f"{at}embeddings.token_type_embeddings", c["type_vocab_size"], d) | ln(f"{at}embeddings.LayerNorm", d)
    out |= {f"{at}embeddings.position_ids": ("I64", (1, c["max_position_embeddings"]))}
    out |= bert_layers(f"{at}encoder", c)
    return out | (dense(f"{at}pooler.dense", d, d) if pooler else {})


def bert_pretraining(c: Config) -> Tensors:
    """bert-base-uncased: both heads of pre-training, the output layer tied and not stored; gamma and beta for norms."""
    d = c["hidden_size"]
    out = bert(c, "bert.") | {"cls.predictions.bias": ("F32", (c["vocab_size"],))}
    out |= dense("cls.predictions.transform.dense", d, d) | ln("cls.predictions.transform.LayerNorm", d)
    out |= dense("cls.seq_relationship", 2, d)
    del out["bert.embeddings.position_ids"]
    renamed = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    return {next((n.replace(a, b) for a, b in renamed.items() if n.endswith(a)), n): row for n, row in out.items()}


def roberta_masked(c: Config) -> Tensors:
    d = c["hidden_size"]
    out = bert(c, "roberta.", pooler=False) | {"lm_head.bias": ("F32", (c["vocab_size"],))}
    return out | dense("lm_head.dense", d, d) | ln("lm_head.layer_norm", d)


def roberta_reranker(c: Config) -> Tensors:
    d = c["hidden_size"]
    out = bert(c, "roberta.", pooler=False)
    return out | dense("classifier.dense", d, d) | dense("classifier.out_proj", 1, d)


def esm2(c: Config) -> Tensors:
    d, hidden, vocab = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    layers, heads = c["num_hidden_layers"], c["num_attention_heads"]
    out = table("esm.embeddings.word_embeddings", vocab, d)
    out |= table("esm.embeddings.position_embeddings", c["max_position_embeddings"], d)
    out |= {"esm.embeddings.position_ids": ("I64", (1, c["max_position_embeddings"]))}
    for i in range(layers):
        at = f"esm.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            out |= dense(f"{at}.attention.self.{part}", d, d)
        out |= {f"{at}.attention.self.rotary_embeddings.inv_freq": ("F32", (d // heads // 2,))}
        out |= ln(f"{at}.attention.LayerNorm", d) | dense(f"{at}.attention.output.dense", d, d)
        out |= dense(f"{at}.intermediate.dense", hidden, d) | dense(f"{at}.output.dense", d, hidden)
        out |= ln(f"{at}.LayerNorm", d)
    out |= ln("esm.encoder.emb_layer_norm_after", d) | dense("esm.contact_head.regression", 1, layers * heads)
    return out | dense("lm_head.dense", d, d) | ln("lm_head.layer_norm", d) | {"lm_head.bias": ("F32", (vocab,))}


def t5(c: Config) -> Tensors:
    d, hidden, inner = c["d_model"], c["d_ff"], c["num_heads"] * c["d_kv"]
    two = c.get("feed_forward_proj") == "gated-gelu"
    out = table("shared", c["vocab_size"], d)
    for side, layers in (("encoder", c["num_layers"]), ("decoder", c.get("num_decoder_layers", c["num_layers"]))):
        for i in range(layers):
            at = f"{side}.block.{i}.layer"
            kinds = ["SelfAttention", "EncDecAttention"][: 1 + (side == "decoder")]
            for n, kind in enumerate(kinds):
                for part, rows, columns in (("q", inner, d), ("k", inner, d), ("v", inner, d), ("o", d, inner)):
                    out |= linear(f"{at}.{n}.{kind}.{part}", rows, columns, dtype="F32")
                out |= norm(f"{at}.{n}.layer_norm", d, dtype="F32")
            if i == 0:
                bias = f"{at}.0.SelfAttention.relative_attention_bias"
                out |= table(bias, c["relative_attention_num_buckets"], c["num_heads"])
            at = f"{at}.{len(kinds)}"
            for name in ("wi_0", "wi_1") if two else ("wi",):
                out |= linear(f"{at}.DenseReluDense.{name}", hidden, d, dtype="F32")
            out |= linear(f"{at}.DenseReluDense.wo", d, hidden, dtype="F32") | norm(f"{at}.layer_norm", d, dtype="F32")
        out |= norm(f"{side}.final_layer_norm", d, dtype="F32")
    return out if c.get("tie_word_embeddings", True) else out | table("lm_head", c["vocab_size"], d)


def bart_attention(at: str, d: int, dtype: str, bare_key: bool = False) -> Tensors:
    out = linear(f"{at}.k_proj", d, d, not bare_key, dtype)
    for part in ("v_proj", "q_proj", "out_proj"):
        out |= dense(f"{at}.{part}", d, d, dtype)
    return out


def whisper(c: Config) -> Tensors:
    d, kind = c["d_model"], "F16"
    out: Tensors = {}
    out |= {"model.encoder.conv1.weight": (kind, (d, c["num_mel_bins"], 3)), "model.encoder.conv1.bias": (kind, (d,))}
    out |= {"model.encoder.conv2.weight": (kind, (d, d, 3)), "model.encoder.conv2.bias": (kind, (d,))}
    out |= table("model.encoder.embed_positions", c["max_source_positions"], d, kind)
    out |= table("model.decoder.embed_tokens", c["vocab_size"], d, kind)
    out |= table("model.decoder.embed_positions", c["max_target_positions"], d, kind)
    for side in ("encoder", "decoder"):
        for i in range(c[f"{side}_layers"]):
            at, hidden = f"model.{side}.layers.{i}", c[f"{side}_ffn_dim"]
            for name in ("self_attn", "encoder_attn")[: 1 + (side == "decoder")]:
                out |= bart_attention(f"{at}.{name}", d, kind, True) | ln(f"{at}.{name}_layer_norm", d, kind)
            out |= dense(f"{at}.fc1", hidden, d, kind) | dense(f"{at}.fc2", d, hidden, kind)
            out |= ln(f"{at}.final_layer_norm", d, kind)
        out |= ln(f"model.{side}.layer_norm", d, kind)
    return out


def wav2vec2(c: Config) -> Tensors:
    """wav2vec2-base-960h: convolutions, a grouped one for positions with its weight in two parts, a CTC head."""
    d, width = c["hidden_size"], c["conv_dim"][0]
    out: Tensors = {"wav2vec2.masked_spec_embed": ("F32", (d,))}
    into = 1
    for i, kernel in enumerate(c["conv_kernel"]):
        out[f"wav2vec2.feature_extractor.conv_layers.{i}.conv.weight"] = "F32", (width, into, kernel)
        into = width
    out |= ln("wav2vec2.feature_extractor.conv_layers.0.layer_norm", width)
    out |= ln("wav2vec2.feature_projection.layer_norm", width)
    out |= dense("wav2vec2.feature_projection.projection", d, width)
    at, kernel = "wav2vec2.encoder.pos_conv_embed.conv", c["num_conv_pos_embeddings"]
    out |= {f"{at}.weight_g": ("F32", (1, 1, kernel)), f"{at}.bias": ("F32", (d,))}
    out |= {f"{at}.weight_v": ("F32", (d, d // c["num_conv_pos_embedding_groups"], kernel))}
    out |= ln("wav2vec2.encoder.layer_norm", d)
    for i in range(c["num_hidden_layers"]):
        at = f"wav2vec2.encoder.layers.{i}"
        out |= bart_attention(f"{at}.attention", d, "F32") | ln(f"{at}.layer_norm", d) | ln(f"{at}.final_layer_norm", d)
        out |= dense(f"{at}.feed_forward.intermediate_dense", c["intermediate_size"], d)
        out |= dense(f"{at}.feed_forward.output_dense", d, c["intermediate_size"])
    return out | dense("lm_head", c["vocab_size"], d)


def vit(c: Config) -> Tensors:
    d, patch = c["hidden_size"], c["patch_size"]
    n = (c["image_size"] // patch) ** 2 + 1
    out: Tensors = {"vit.embeddings.cls_token": ("F32", (1, 1, d))}
    out |= {"vit.embeddings.position_embeddings": ("F32", (1, n, d))}
    at = "vit.embeddings.patch_embeddings.projection"
    out |= {f"{at}.weight": ("F32", (d, 3, patch, patch)), f"{at}.bias": ("F32", (d,))}
    for i in range(c["num_hidden_layers"]):
        layer = f"vit.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            out |= dense(f"{layer}.attention.attention.{part}", d, d)
        out |= dense(f"{layer}.attention.output.dense", d, d)
        out |= dense(f"{layer}.intermediate.dense", c["intermediate_size"], d)
        out |= dense(f"{layer}.output.dense", d, c["intermediate_size"])
        out |= ln(f"{layer}.layernorm_before", d) | ln(f"{layer}.layernorm_after", d)
    return out | ln("vit.layernorm", d) | dense("classifier", len(c["id2label"]), d)


def dinov2(c: Config) -> Tensors:
    d, patch = c["hidden_size"], c["patch_size"]
    n = (c["image_size"] // patch) ** 2 + 1
    out: Tensors = {"embeddings.cls_token": ("F32", (1, 1, d)), "embeddings.mask_token": ("F32", (1, d))}
    out |= {"embeddings.position_embeddings": ("F32", (1, n, d))}
    at = "embeddings.patch_embeddings.projection"
    out |= {f"{at}.weight": ("F32", (d, 3, patch, patch)), f"{at}.bias": ("F32", (d,))}
    for i in range(c["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            out |= dense(f"{layer}.attention.attention.{part}", d, d)
        out |= dense(f"{layer}.attention.output.dense", d, d) | ln(f"{layer}.norm1", d) | ln(f"{layer}.norm2", d)
        out |= dense(f"{layer}.mlp.fc1", d * c["mlp_ratio"], d) | dense(f"{layer}.mlp.fc2", d, d * c["mlp_ratio"])
        out |= {f"{layer}.layer_scale{k}.lambda1": ("F32", (d,)) for k in (1, 2)}
    return out | ln("layernorm", d)


def resnet50(c: Config) -> Tensors:
    """microsoft/resnet-50: convolutions without bias, and batch norms with their running means."""
    out: Tensors = {}

    def conv(at: str, rows: int, into: int, kernel: int) -> None:
        out[f"{at}.convolution.weight"] = "F32", (rows, into, kernel, kernel)
        for part in ("weight", "bias", "running_mean", "running_var"):
            out[f"{at}.normalization.{part}"] = "F32", (rows,)
        out[f"{at}.normalization.num_batches_tracked"] = "I64", ()

    conv("resnet.embedder.embedder", c["embedding_size"], 3, 7)
    into = c["embedding_size"]
    for s, (width, depth) in enumerate(zip(c["hidden_sizes"], c["depths"], strict=True)):
        for i in range(depth):
            at = f"resnet.encoder.stages.{s}.layers.{i}"
            if i == 0:
                conv(f"{at}.shortcut", width, into, 1)
            conv(f"{at}.layer.0", width // 4, into, 1)
            conv(f"{at}.layer.1", width // 4, width // 4, 3)
            conv(f"{at}.layer.2", width, width // 4, 1)
            into = width
    return out | dense("classifier.1", 1000, into)


def clip_layers(at: str, c: Config, dtype: str = "F32") -> Tensors:
    d, out = c["hidden_size"], {}
    for i in range(c["num_hidden_layers"]):
        layer = f"{at}.encoder.layers.{i}"
        out |= bart_attention(f"{layer}.self_attn", d, dtype)
        out |= ln(f"{layer}.layer_norm1", d, dtype) | ln(f"{layer}.layer_norm2", d, dtype)
        out |= dense(f"{layer}.mlp.fc1", c["intermediate_size"], d, dtype)
        out |= dense(f"{layer}.mlp.fc2", d, c["intermediate_size"], dtype)
    return out


def clip_vision(at: str, c: Config, dtype: str = "F32") -> Tensors:
    d, patch = c["hidden_size"], c["patch_size"]
    n = (c["image_size"] // patch) ** 2 + 1
    out: Tensors = {f"{at}.embeddings.class_embedding": (dtype, (d,))}
    out |= {f"{at}.embeddings.patch_embedding.weight": (dtype, (d, 3, patch, patch))}
    out |= table(f"{at}.embeddings.position_embedding", n, d, dtype) | ln(f"{at}.pre_layrnorm", d, dtype)
    return out | clip_layers(at, c, dtype) | ln(f"{at}.post_layernorm", d, dtype)


def clip(c: Config) -> Tensors:
    text, vision, wide = c["text_config"], c["vision_config"], c["projection_dim"]
    out: Tensors = {"logit_scale": ("F32", ()), "text_model.embeddings.position_ids": ("I64", (1, 77))}
    out |= {"vision_model.embeddings.position_ids": ("I64", (1, 257))}
    out |= clip_text("text_model", text) | clip_vision("vision_model", vision)
    out |= linear("visual_projection", wide, vision["hidden_size"], dtype="F32")
    return out | linear("text_projection", wide, text["hidden_size"], dtype="F32")


def clip_text(at: str, c: Config) -> Tensors:
    d = c["hidden_size"]
    out = table(f"{at}.embeddings.token_embedding", c["vocab_size"], d)
    out |= table(f"{at}.embeddings.position_embedding", c["max_position_embeddings"], d)
    return out | clip_layers(at, c) | ln(f"{at}.final_layer_norm", d)


def siglip_vision(at: str, c: Config, head: bool, dtype: str = "F32") -> Tensors:
    d, patch = c["hidden_size"], c["patch_size"]
    out: Tensors = {f"{at}.embeddings.patch_embedding.weight": (dtype, (d, 3, patch, patch))}
    out |= {f"{at}.embeddings.patch_embedding.bias": (dtype, (d,))}
    out |= table(f"{at}.embeddings.position_embedding", (c["image_size"] // patch) ** 2, d, dtype)
    out |= clip_layers(at, c, dtype) | ln(f"{at}.post_layernorm", d, dtype)
    if head:
        out |= {f"{at}.head.probe": (dtype, (1, 1, d)), f"{at}.head.attention.in_proj_bias": (dtype, (3 * d,))}
        out |= {f"{at}.head.attention.in_proj_weight": (dtype, (3 * d, d))}
        out |= dense(f"{at}.head.attention.out_proj", d, d, dtype) | ln(f"{at}.head.layernorm", d, dtype)
        out |= dense(f"{at}.head.mlp.fc1", c["intermediate_size"], d, dtype)
        out |= dense(f"{at}.head.mlp.fc2", d, c["intermediate_size"], dtype)
    return out


def siglip(c: Config) -> Tensors:
    text, d = c["text_config"], c["text_config"]["hidden_size"]
    out: Tensors = {"logit_scale": ("F32", (1,)), "logit_bias": ("F32", (1,))}
    out |= table("text_model.embeddings.token_embedding", text["vocab_size"], d)
    out |= table("text_model.embeddings.position_embedding", text["max_position_embeddings"], d)
    out |= clip_layers("text_model", text) | ln("text_model.final_layer_norm", d) | dense("text_model.head", d, d)
    return out | siglip_vision("vision_model", c["vision_config"], head=True)


def gemma3(c: Config) -> Tensors:
    text, vision = c["text_config"], c["vision_config"]
    out = decoder(text, "language_model.model.")
    out |= siglip_vision("vision_tower.vision_model", vision, head=False, dtype="BF16")
    at, wide = "multi_modal_projector", vision["hidden_size"]
    out |= {f"{at}.mm_input_projection_weight": ("BF16", (wide, text["hidden_size"]))}
    return out | norm(f"{at}.mm_soft_emb_norm", wide)


def llava(c: Config) -> Tensors:
    text, vision = c["text_config"], c["vision_config"]
    out = decoder(text, "language_model.model.", "language_model.lm_head")
    out |= clip_vision("vision_tower.vision_model", vision, "F16")
    d, wide, at = text["hidden_size"], vision["hidden_size"], "multi_modal_projector"
    return out | dense(f"{at}.linear_1", d, wide, "F16") | dense(f"{at}.linear_2", d, d, "F16")


def qwen2_5_vl(c: Config) -> Tensors:
    v, out = c["vision_config"], decoder(c)
    d, hidden, four = v["hidden_size"], v["intermediate_size"], 4 * v["hidden_size"]
    patch = (d, 3, v["temporal_patch_size"], v["patch_size"], v["patch_size"])
    out |= {"visual.patch_embed.proj.weight": ("BF16", patch)}
    for i in range(v["depth"]):
        at = f"visual.blocks.{i}"
        out |= norm(f"{at}.norm1", d) | norm(f"{at}.norm2", d)
        out |= dense(f"{at}.attn.qkv", 3 * d, d, "BF16") | dense(f"{at}.attn.proj", d, d, "BF16")
        out |= dense(f"{at}.mlp.gate_proj", hidden, d, "BF16") | dense(f"{at}.mlp.up_proj", hidden, d, "BF16")
        out |= dense(f"{at}.mlp.down_proj", d, hidden, "BF16")
    out |= norm("visual.merger.ln_q", d) | dense("visual.merger.mlp.0", four, four, "BF16")
    return out | dense("visual.merger.mlp.2", v["out_hidden_size"], four, "BF16")


def llama4(c: Config) -> Tensors:
    """Llama 4 Scout: sixteen experts in one tensor, a shared one; a vision encoder with a pixel shuffle."""
    t, v = c["text_config"], c["vision_config"]
    d, n, hidden = t["hidden_size"], t["num_local_experts"], t["intermediate_size"]
    heads, kv = t["num_attention_heads"] * t["head_dim"], t["num_key_value_heads"] * t["head_dim"]
    at = "language_model.model"
    out = linear(f"{at}.embed_tokens", t["vocab_size"], d) | norm(f"{at}.norm", d)
    for i in range(t["num_hidden_layers"]):
        layer = f"{at}.layers.{i}"
        out |= norm(f"{layer}.input_layernorm", d) | norm(f"{layer}.post_attention_layernorm", d)
        for part, rows, columns in (("q", heads, d), ("k", kv, d), ("v", kv, d), ("o", d, heads)):
            out |= linear(f"{layer}.self_attn.{part}_proj", rows, columns)
        out |= {f"{layer}.feed_forward.experts.gate_up_proj": ("BF16", (n, d, 2 * hidden))}
        out |= {f"{layer}.feed_forward.experts.down_proj": ("BF16", (n, hidden, d))}
        out |= linear(f"{layer}.feed_forward.router", n, d) | gated(f"{layer}.feed_forward.shared_expert", d, hidden)
    out |= linear("language_model.lm_head", t["vocab_size"], d)
    w, patch = v["hidden_size"], v["patch_size"]
    out |= linear("vision_model.patch_embedding.linear", w, 3 * patch * patch)
    out |= {"vision_model.class_embedding": ("BF16", (w,))}
    out |= {"vision_model.positional_embedding_vlm": ("BF16", ((v["image_size"] // patch) ** 2 + 1, w))}
    out |= ln("vision_model.layernorm_pre", w, "BF16") | ln("vision_model.layernorm_post", w, "BF16")
    for i in range(v["num_hidden_layers"]):
        layer = f"vision_model.model.layers.{i}"
        out |= ln(f"{layer}.input_layernorm", w, "BF16") | ln(f"{layer}.post_attention_layernorm", w, "BF16")
        for part in ("q", "k", "v", "o"):
            out |= dense(f"{layer}.self_attn.{part}_proj", w, w, "BF16")
        out |= dense(f"{layer}.mlp.fc1", v["intermediate_size"], w, "BF16")
        out |= dense(f"{layer}.mlp.fc2", w, v["intermediate_size"], "BF16")
    out |= linear("vision_model.vision_adapter.mlp.fc1", v["projector_input_dim"], v["intermediate_size"])
    out |= linear("vision_model.vision_adapter.mlp.fc2", v["projector_output_dim"], v["projector_input_dim"])
    return out | linear("multi_modal_projector.linear_1", d, v["vision_output_dim"])


def kimi_k25(c: Config) -> Tensors:
    """Kimi K2.5: K2's decoder, MoonViT, and a projector."""
    t, v = c["text_config"], c["vision_config"]
    out = decoder(t, "language_model.model.", "language_model.lm_head")
    d, hidden, patch, four = v["vt_hidden_size"], v["vt_intermediate_size"], v["patch_size"], 4 * v["vt_hidden_size"]
    out |= {"vision_tower.patch_embed.proj.weight": ("BF16", (d, 3, patch, patch))}
    out |= {"vision_tower.patch_embed.proj.bias": ("BF16", (d,))}
    grid = (v["init_pos_emb_height"], v["init_pos_emb_width"], d)
    out |= {"vision_tower.patch_embed.pos_emb.weight": ("BF16", grid)}
    for i in range(v["vt_num_hidden_layers"]):
        at = f"vision_tower.encoder.blocks.{i}"
        out |= dense(f"{at}.wqkv", 3 * d, d, "BF16") | dense(f"{at}.wo", d, d, "BF16")
        out |= ln(f"{at}.norm0", d, "BF16") | ln(f"{at}.norm1", d, "BF16")
        out |= dense(f"{at}.mlp.fc0", hidden, d, "BF16") | dense(f"{at}.mlp.fc1", d, hidden, "BF16")
    out |= ln("vision_tower.encoder.final_layernorm", d, "BF16") | ln("mm_projector.pre_norm", d, "BF16")
    out |= dense("mm_projector.proj.0", four, four, "BF16")
    return out | dense("mm_projector.proj.2", t["hidden_size"], four, "BF16")


def timm_vit(at: str, d: int, hidden: int, depth: int, patch: int, tokens: int, scaled: bool) -> Tensors:
    kind = "BF16"
    out: Tensors = {f"{at}.patch_embed.proj.weight": (kind, (d, 3, patch, patch))}
    out |= {f"{at}.patch_embed.proj.bias": (kind, (d,)), f"{at}.pos_embed": (kind, (1, tokens, d))}
    for i in range(depth):
        block = f"{at}.blocks.{i}"
        out |= ln(f"{block}.norm1", d, kind) | ln(f"{block}.norm2", d, kind)
        out |= dense(f"{block}.attn.qkv", 3 * d, d, kind) | dense(f"{block}.attn.proj", d, d, kind)
        out |= dense(f"{block}.mlp.fc1", hidden, d, kind) | dense(f"{block}.mlp.fc2", d, hidden, kind)
        if scaled:
            out |= {f"{block}.ls{k}.scale_factor": (kind, (d,)) for k in (1, 2)}
    return out | ln(f"{at}.norm", d, kind)


def openvla(c: Config) -> Tensors:
    """OpenVLA-7B: DINOv2 and SigLIP side by side, a projector, Llama 2."""
    llama = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
             "intermediate_size": 11008, "vocab_size": c["text_config"]["vocab_size"]}  # fmt: skip
    out = decoder(llama, "language_model.model.", "language_model.lm_head")
    at = "vision_backbone.featurizer"
    out |= timm_vit(at, 1024, 4096, 24, 14, 256, True)
    out |= {f"{at}.cls_token": ("BF16", (1, 1, 1024)), f"{at}.reg_token": ("BF16", (1, 4, 1024))}
    at = "vision_backbone.fused_featurizer"
    out |= timm_vit(at, 1152, 4304, 27, 14, 256, False)
    out |= {f"{at}.attn_pool.latent": ("BF16", (1, 1, 1152))} | ln(f"{at}.attn_pool.norm", 1152, "BF16")
    for name, rows, columns in (
        ("q", 1152, 1152), ("kv", 2304, 1152), ("proj", 1152, 1152), ("mlp.fc1", 4304, 1152), ("mlp.fc2", 1152, 4304),
    ):  # fmt: skip
        out |= dense(f"{at}.attn_pool.{name}", rows, columns, "BF16")
    wide = 1024 + 1152
    out |= dense("projector.fc1", 4 * wide, wide, "BF16") | dense("projector.fc2", 4096, 4 * wide, "BF16")
    return out | dense("projector.fc3", 4096, 4096, "BF16")


LAYOUTS: dict[str, Callable[[Config], Tensors]] = {
    "bert": bert, "bert_pretraining": bert_pretraining, "clip": clip, "dinov2": dinov2, "esm2": esm2, "gemma3": gemma3,
    "kimi_k25": kimi_k25, "llama4": llama4, "llava": llava, "openvla": openvla, "qwen2_5_vl": qwen2_5_vl,
    "resnet50": resnet50, "roberta_masked": roberta_masked, "roberta_reranker": roberta_reranker, "siglip": siglip,
    "t5": t5, "vit": vit, "wav2vec2": wav2vec2, "whisper": whisper,
}  # fmt: skip
