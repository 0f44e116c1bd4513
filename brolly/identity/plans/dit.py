"""Transformers that remove noise from pictures and films, by diffusers' configs."""

from __future__ import annotations

from math import prod

from brolly.identity.plans.counting import Given, Untold, attention, conv, gated, linear, mlp, norm
from brolly.identity.plans.diffusion import steps

Parts = dict[str, int]
TIME = 256  # width of the sinusoids that tell the time step


def _width(c: Given) -> tuple[int, int]:
    """Width of the network, and of one head."""
    head = c.n("attention_head_dim")
    return c.n("num_attention_heads") * head, head


def flux(c: Given) -> Parts:
    dim, head = _width(c)
    pooled, patches = c.n("pooled_projection_dim"), c.n("in_channels")
    out = c.n("out_channels", default=patches)
    double = 2 * (linear(dim, 6 * dim) + attention(dim) + 2 * head + mlp(dim, 4 * dim))
    single = linear(dim, 3 * dim) + linear(dim, 4 * dim) + linear(5 * dim, dim) + 3 * linear(dim, dim) + 2 * head
    total = steps(TIME, dim) + steps(pooled, dim) + (steps(TIME, dim) if c.on("guidance_embeds", False) else 0)
    total += linear(c.n("joint_attention_dim"), dim) + linear(patches, dim)
    total += c.n("num_layers") * double + c.n("num_single_layers") * single
    return {"transformer": total + linear(dim, 2 * dim) + linear(dim, c.n("patch_size") ** 2 * out)}


def sd3(c: Given) -> Parts:
    """The table of positions is worked out. The last layer forgets the text; some layers look twice at the picture."""
    dim, head = _width(c)
    n, patch, context = c.n("num_layers"), c.n("patch_size"), c.n("caption_projection_dim")
    dual = [i for i in c.ns("dual_attention_layers") if i < n]
    if context != dim or c.get("qk_norm") not in (None, "rms_norm"):
        raise Untold("qk_norm")
    norms = 2 * head if c.get("qk_norm") else 0
    layer = 2 * (linear(dim, 6 * dim) + attention(dim) + norms + mlp(dim, 4 * dim))
    total = conv(c.n("in_channels"), dim, patch) + steps(TIME, dim) + steps(c.n("pooled_projection_dim"), dim)
    total += linear(c.n("joint_attention_dim"), dim) + n * layer
    total += len(dual) * (linear(dim, 3 * dim) + attention(dim) + norms)
    total -= linear(dim, dim) + mlp(dim, 4 * dim) + linear(dim, 6 * dim) - linear(dim, 2 * dim)
    return {"transformer": total + linear(dim, 2 * dim) + linear(dim, patch * patch * c.n("out_channels"))}


def pixart(c: Given) -> Parts:
    dim, _ = _width(c)
    patch, bias = c.n("patch_size"), c.on("attention_bias", True)
    cross = c.n("cross_attention_dim")
    if c.word("norm_type", "ada_norm_single") != "ada_norm_single" or c.on("norm_elementwise_affine", False):
        raise Untold("norm_type")
    heart = attention(dim, bias=bias) + (0 if bias else dim)
    layer = heart + attention(dim, context=cross, bias=bias) + (0 if bias else dim) + mlp(dim, 4 * dim) + 6 * dim
    total = 2 * dim + conv(c.n("in_channels"), dim, patch) + c.n("num_layers") * layer
    caption = c.n("caption_channels", default=0)
    total += mlp(caption, dim, dim) if caption else 0
    more = c.config.get("use_additional_conditions")
    more = c.n("sample_size") == 128 if more is None else bool(more)
    third = dim // 3
    total += steps(TIME, dim) + linear(dim, 6 * dim) + (2 * steps(TIME, third) if more else 0)
    return {"transformer": total + linear(dim, patch * patch * c.n("out_channels", default=c.n("in_channels")))}


def dit(c: Given) -> Parts:
    """Peebles' DiT: each layer reads the time step and the class for itself."""
    dim, _ = _width(c)
    patch, channels = c.n("patch_size"), c.n("in_channels")
    if c.word("norm_type", "ada_norm_zero") != "ada_norm_zero" or not c.on("attention_bias", True):
        raise Untold("norm_type")
    layer = steps(TIME, dim) + (c.n("num_embeds_ada_norm") + 1) * dim + linear(dim, 6 * dim)
    layer += attention(dim) + mlp(dim, 4 * dim)
    total = conv(channels, dim, patch) + c.n("num_layers") * layer + linear(dim, 2 * dim)
    return {"transformer": total + linear(dim, patch * patch * c.n("out_channels", default=channels))}


def sana(c: Given) -> Parts:
    dim, head = _width(c)
    cross = c.n("num_cross_attention_heads") * c.n("cross_attention_head_dim")
    context, patch, channels = c.n("cross_attention_dim"), c.n("patch_size"), c.n("in_channels")
    hidden, bias = int(c.real("mlp_ratio") * dim), c.on("attention_bias", False)
    if c.get("qk_norm") not in (None, "rms_norm_across_heads") or c.on("norm_elementwise_affine", False):
        raise Untold("qk_norm")
    layer = attention(dim, bias=bias) + (0 if bias else dim) + attention(dim, cross, context) + 6 * dim
    layer += 2 * (dim + cross) if c.get("qk_norm") else 0
    layer += conv(dim, 2 * hidden, 1) + conv(2 * hidden, 2 * hidden, 3, groups=2 * hidden) + conv(hidden, dim, 1, False)
    total = 2 * dim + conv(channels, dim, patch) + steps(TIME, dim) + linear(dim, 6 * dim)
    total += steps(TIME, dim) if c.on("guidance_embeds", False) else 0
    total += mlp(c.n("caption_channels"), dim, dim) + dim + c.n("num_layers") * layer
    return {"transformer": total + linear(dim, patch * patch * c.n("out_channels", default=channels))}


def qwen_image(c: Given) -> Parts:
    dim, head = _width(c)
    context, patch = c.n("joint_attention_dim"), c.n("patch_size")
    layer = 2 * (linear(dim, 6 * dim) + attention(dim) + 2 * head + mlp(dim, 4 * dim))
    if c.on("use_additional_t_cond", False) or c.on("guidance_embeds", False):
        raise Untold("guidance_embeds")
    total = steps(TIME, dim) + context + linear(c.n("in_channels"), dim) + linear(context, dim)
    total += c.n("num_layers") * layer + linear(dim, 2 * dim)
    return {"transformer": total + linear(dim, patch * patch * c.n("out_channels"))}


def lumina2(c: Given) -> Parts:
    dim, heads, patch = c.n("hidden_size"), c.n("num_attention_heads"), c.n("patch_size")
    head = dim // max(heads, 1)
    narrow, channels, caption = min(dim, 1024), c.n("in_channels"), c.n("cap_feat_dim")
    multiple, hidden = c.n("multiple_of"), 4 * dim
    hidden = int(c.real("ffn_dim_multiplier") * hidden) if c.get("ffn_dim_multiplier") else hidden
    if not multiple:
        raise Untold("multiple_of")
    hidden = multiple * ((hidden + multiple - 1) // multiple)
    plain = attention_of_groups(dim, heads * head, c.n("num_kv_heads") * head) + 2 * head + gated(dim, hidden) + 4 * dim
    told = plain + linear(narrow, 4 * dim)
    refiners = c.n("num_refiner_layers")
    total = linear(patch * patch * channels, dim) + steps(TIME, narrow) + caption + linear(caption, dim)
    total += (refiners + c.n("num_layers")) * told + refiners * plain + linear(narrow, dim)
    return {"transformer": total + linear(dim, patch * patch * c.n("out_channels", default=channels))}


def attention_of_groups(dim: int, inner: int, kv: int) -> int:
    """Without biases; keys and values of fewer heads."""
    return 2 * linear(dim, inner, False) + 2 * linear(dim, kv, False)


def aura_flow(c: Given) -> Parts:
    """Without biases, but for the patches and the time step."""
    dim, _ = _width(c)
    patch, channels, out = c.n("patch_size"), c.n("in_channels"), c.n("out_channels")
    if c.n("caption_projection_dim") != dim:
        raise Untold("caption_projection_dim")
    hidden = -(-int(2 * 4 * dim / 3) // 256) * 256
    single = 6 * dim * dim + attention(dim, bias=False) + gated(dim, hidden)
    total = 8 * dim + c.n("pos_embed_max_size") * dim + linear(patch * patch * channels, dim)
    total += c.n("joint_attention_dim") * dim + steps(TIME, dim)
    total += (2 * c.n("num_mmdit_layers") + c.n("num_single_dit_layers")) * single
    return {"transformer": total + 2 * dim * dim + dim * patch * patch * out}


def prior(c: Given) -> Parts:
    """From a text's vector to a picture's: DALL-E 2's prior, as Kandinsky has it."""
    dim, _ = _width(c)
    width = c.n("embedding_dim")
    inner, clip = c.n("embedding_proj_dim", default=width), c.n("clip_embed_dim", default=width)
    time = c.n("time_embed_dim", default=dim)
    if c.get("norm_in_type") or c.get("embedding_proj_norm_type"):
        raise Untold("norm_in_type")
    kind, added = c.config.get("encoder_hid_proj_type", "linear"), c.config.get("added_emb_type", "prd")
    total = (c.n("num_embeddings") + c.n("additional_embeddings")) * dim + (dim if added == "prd" else 0) + 2 * clip
    total += linear(dim, time) + linear(time, dim) + linear(width, dim) + linear(inner, dim)
    total += linear(width, dim) if kind == "linear" else 0
    layer = attention(dim) + mlp(dim, 4 * dim) + 2 * norm(dim)
    return {"prior": total + c.n("num_layers") * layer + norm(dim) + linear(dim, clip)}


def cogvideox(c: Given) -> Parts:
    dim, head = _width(c)
    time, text, channels = c.n("time_embed_dim"), c.n("text_embed_dim"), c.n("in_channels")
    patch, deep = c.n("patch_size"), c.n("patch_size_t", default=0)
    bias = c.on("patch_bias", True) or bool(deep)
    again = c.n("ofs_embed_dim", default=0)  # of 1.5, from pictures: a second step to read
    if c.on("use_learned_positional_embeddings", False):
        raise Untold("use_learned_positional_embeddings")
    if not c.on("attention_bias", True):
        raise Untold("attention_bias")
    volume = patch * patch * (deep or 1)
    total = linear(channels * volume, dim, bias) + linear(text, dim) + steps(dim, time) + steps(again, again)
    layer = 2 * (linear(time, 6 * dim) + norm(dim)) + attention(dim) + 2 * norm(head) + mlp(dim, 4 * dim)
    total += c.n("num_layers") * layer + norm(dim) + linear(time, 2 * dim) + norm(dim)
    return {"transformer": total + linear(dim, volume * c.n("out_channels"))}


def wan(c: Given) -> Parts:
    dim, _ = _width(c)
    volume = prod(c.ns("patch_size"))
    seen, more = c.n("image_dim", default=0), c.n("added_kv_proj_dim", default=0)
    if c.get("qk_norm") not in (None, "rms_norm_across_heads") or c.get("pos_embed_seq_len"):
        raise Untold("qk_norm")
    norms = 2 * dim if c.get("qk_norm") else 0
    layer = 6 * dim + 2 * (attention(dim) + norms) + mlp(dim, c.n("ffn_dim"))
    layer += norm(dim) if c.on("cross_attn_norm", False) else 0
    layer += 2 * linear(more, dim) + dim if more else 0
    total = 2 * dim + linear(volume * c.n("in_channels"), dim) + steps(c.n("freq_dim"), dim) + linear(dim, 6 * dim)
    total += steps(c.n("text_dim"), dim) + c.n("num_layers") * layer
    total += norm(seen) + mlp(seen, seen, dim) + norm(dim) if seen else 0
    return {"transformer": total + linear(dim, volume * c.n("out_channels", default=c.n("in_channels")))}


def ltx(c: Given) -> Parts:
    dim, _ = _width(c)
    channels, context = c.n("in_channels"), c.n("cross_attention_dim")
    if not c.on("attention_bias", True) or not c.on("attention_out_bias", True):
        raise Untold("attention_bias")
    if c.word("qk_norm") != "rms_norm_across_heads" or c.on("norm_elementwise_affine", False):
        raise Untold("qk_norm")
    layer = 6 * dim + attention(dim) + attention(dim, context=context) + 4 * dim + mlp(dim, 4 * dim)
    total = 2 * dim + linear(channels, dim) + steps(TIME, dim) + linear(dim, 6 * dim)
    total += mlp(c.n("caption_channels"), dim, dim) + c.n("num_layers") * layer
    return {"transformer": total + linear(dim, c.n("out_channels", default=channels))}


def mochi(c: Given) -> Parts:
    """A wide stream of film beside a narrow one of text, which the last layer forgets."""
    dim, head = _width(c)
    heads, n, patch = c.n("num_attention_heads"), c.n("num_layers"), c.n("patch_size")
    small, text, channels = c.n("pooled_projection_dim"), c.n("text_embed_dim"), c.n("in_channels")
    wide, narrow = int(4 * dim * 2 / 3), int(4 * small * 2 / 3)
    layer = linear(dim, 4 * dim) + attention(dim, bias=False) + dim + gated(dim, wide) + 4 * head
    layer += linear(dim, 4 * small) + 3 * small * dim + linear(dim, small) + gated(small, narrow)
    forgets = linear(dim, 4 * small) - linear(dim, small) + linear(dim, small) + gated(small, narrow)
    total = 3 * heads * (head // 2) + conv(channels, dim, patch) + steps(c.n("time_embed_dim"), dim)
    total += linear(text, 2 * text) + linear(text, text) + linear(text, dim) + linear(text, small)
    total += n * layer - forgets + linear(dim, 2 * dim)
    return {"transformer": total + linear(dim, patch * patch * c.n("out_channels", default=channels))}


def flux2(c: Given) -> Parts:
    """Without biases; what the time step changes is worked out once for all layers."""
    dim, head = _width(c)
    channels, hidden = c.n("in_channels"), int(c.real("mlp_ratio") * dim)
    read = c.n("timestep_guidance_channels")
    double = 2 * (attention(dim, bias=False) + 2 * head + gated(dim, hidden))
    single = dim * (3 * dim + 2 * hidden) + 2 * head + (dim + hidden) * dim
    total = (2 if c.on("guidance_embeds", True) else 1) * (read * dim + dim * dim) + 15 * dim * dim
    total += channels * dim + c.n("joint_attention_dim") * dim
    total += c.n("num_layers") * double + c.n("num_single_layers") * single
    out = c.n("patch_size") ** 2 * c.n("out_channels", default=channels)
    return {"transformer": total + 2 * dim * dim + dim * out}


def z_image(c: Given) -> Parts:
    dim, heads, channels = c.n("dim"), c.n("n_heads"), c.n("in_channels")
    patches, films = c.ns("all_patch_size"), c.ns("all_f_patch_size")
    if c.get("siglip_feat_dim") or len(patches) != len(films):
        raise Untold("siglip_feat_dim")
    head, narrow, caption = dim // max(heads, 1), min(dim, 256), c.n("cap_feat_dim")
    plain = attention_of_groups(dim, dim, c.n("n_kv_heads") * head) + gated(dim, int(dim / 3 * 8)) + 4 * dim
    plain += 2 * head if c.on("qk_norm", True) else 0
    told = plain + linear(narrow, 4 * dim)
    refiners = c.n("n_refiner_layers")
    total = 2 * dim + mlp(TIME, 1024, narrow) + caption + linear(caption, dim)
    for patch, film in zip(patches, films, strict=True):
        pixels = patch * patch * film * channels
        total += linear(pixels, dim) + linear(dim, pixels) + linear(narrow, dim)
    return {"transformer": total + (c.n("n_layers") + refiners) * told + refiners * plain}


def hunyuan_video(c: Given) -> Parts:
    dim, head = _width(c)
    text, hidden = c.n("text_embed_dim"), int(c.real("mlp_ratio") * dim)
    if c.get("image_condition_type") or c.get("qk_norm") != "rms_norm":
        raise Untold("image_condition_type")
    double = 2 * (linear(dim, 6 * dim) + attention(dim) + 2 * head + mlp(dim, hidden))
    single = linear(dim, 3 * dim) + linear(dim, hidden) + linear(dim + hidden, dim) + 3 * linear(dim, dim) + 2 * head
    refiner = 2 * norm(dim) + attention(dim) + mlp(dim, hidden) + linear(dim, 2 * dim)
    volume = c.n("patch_size") ** 2 * c.n("patch_size_t")
    total = linear(volume * c.n("in_channels"), dim) + 2 * steps(TIME, dim) + steps(text, dim) + linear(text, dim)
    total += steps(c.n("pooled_projection_dim"), dim) + (steps(TIME, dim) if c.on("guidance_embeds", False) else 0)
    total += c.n("num_refiner_layers") * refiner + c.n("num_layers") * double + c.n("num_single_layers") * single
    return {"transformer": total + linear(dim, 2 * dim) + linear(dim, volume * c.n("out_channels"))}
