"""Every tensor of published diffusion models' parts, from their configs; and Llama and DeepSeek in GGUF's names."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

from tests.identity.hollow import gguf_header
from tests.identity.real.decoders import Config, Tensors, linear, norm
from tests.identity.real.towers import clip_text, clip_vision, dense, ln


def conv(name: str, out: int, into: int, kernel: int = 3) -> Tensors:
    return {f"{name}.weight": ("F32", (out, into, kernel, kernel)), f"{name}.bias": ("F32", (out,))}


def resnet(at: str, out: int, into: int, time: int = 0) -> Tensors:
    found = ln(f"{at}.norm1", into) | conv(f"{at}.conv1", out, into)
    found |= dense(f"{at}.time_emb_proj", out, time) if time else {}
    found |= ln(f"{at}.norm2", out) | conv(f"{at}.conv2", out, out)
    return found | (conv(f"{at}.conv_shortcut", out, into, 1) if out != into else {})


def crossed(at: str, d: int, text: int, depth: int, flat: bool) -> Tensors:
    """A spatial transformer: its projections are 1 × 1 convolutions, or linear layers (`flat`)."""
    side = dense if flat else (lambda name, out, into: conv(name, out, into, 1))
    found = ln(f"{at}.norm", d) | side(f"{at}.proj_in", d, d) | side(f"{at}.proj_out", d, d)
    for k in range(depth):
        block = f"{at}.transformer_blocks.{k}"
        for name, into in (("attn1", d), ("attn2", text)):
            found |= linear(f"{block}.{name}.to_q", d, d, dtype="F32") | dense(f"{block}.{name}.to_out.0", d, d)
            for part in ("to_k", "to_v"):
                found |= linear(f"{block}.{name}.{part}", d, into, dtype="F32")
        for name in ("norm1", "norm2", "norm3"):
            found |= ln(f"{block}.{name}", d)
        found |= dense(f"{block}.ff.net.0.proj", 8 * d, d) | dense(f"{block}.ff.net.2", d, 4 * d)
    return found


def unet(c: Config) -> Tensors:
    """UNet2DConditionModel of Stable Diffusion 1.5 and SDXL."""
    widths, per, text = c["block_out_channels"], c["layers_per_block"], c["cross_attention_dim"]
    depths = c.get("transformer_layers_per_block", 1)
    depths = [depths] * len(widths) if isinstance(depths, int) else depths
    time, flat = 4 * widths[0], bool(c.get("use_linear_projection"))
    out = conv("conv_in", widths[0], c["in_channels"])
    out |= dense("time_embedding.linear_1", time, widths[0]) | dense("time_embedding.linear_2", time, time)
    if c.get("addition_embed_type") == "text_time":
        out |= dense("add_embedding.linear_1", time, c["projection_class_embeddings_input_dim"])
        out |= dense("add_embedding.linear_2", time, time)
    skips, into = [widths[0]], widths[0]
    for i, (kind, width) in enumerate(zip(c["down_block_types"], widths, strict=True)):
        for j in range(per):
            out |= resnet(f"down_blocks.{i}.resnets.{j}", width, into, time)
            if kind.startswith("CrossAttn"):
                out |= crossed(f"down_blocks.{i}.attentions.{j}", width, text, depths[i], flat)
            into = width
            skips.append(width)
        if i < len(widths) - 1:
            out |= conv(f"down_blocks.{i}.downsamplers.0.conv", width, width)
            skips.append(width)
    for j in (0, 1):
        out |= resnet(f"mid_block.resnets.{j}", into, into, time)
    out |= crossed("mid_block.attentions.0", into, text, depths[-1], flat)
    for i, (kind, width) in enumerate(zip(c["up_block_types"], reversed(widths), strict=True)):
        for j in range(per + 1):
            out |= resnet(f"up_blocks.{i}.resnets.{j}", width, into + skips.pop(), time)
            if kind.startswith("CrossAttn"):
                out |= crossed(f"up_blocks.{i}.attentions.{j}", width, text, depths[len(widths) - 1 - i], flat)
            into = width
        if i < len(widths) - 1:
            out |= conv(f"up_blocks.{i}.upsamplers.0.conv", width, width)
    return out | ln("conv_norm_out", widths[0]) | conv("conv_out", c["out_channels"], widths[0])


def vae(c: Config) -> Tensors:
    """AutoencoderKL of Stable Diffusion."""
    widths, latent, last = c["block_out_channels"], c["latent_channels"], c["block_out_channels"][-1]
    out: Tensors = {}
    for side, order, per in (("encoder", widths, 2), ("decoder", widths[::-1], 3)):
        step = "down" if side == "encoder" else "up"
        into = order[0]
        out |= conv(f"{side}.conv_in", order[0], 3 if side == "encoder" else latent)
        for i, width in enumerate(order):
            for j in range(per):
                out |= resnet(f"{side}.{step}_blocks.{i}.resnets.{j}", width, into)
                into = width
            if i < len(order) - 1:
                out |= conv(f"{side}.{step}_blocks.{i}.{step}samplers.0.conv", width, width)
        at = f"{side}.mid_block"
        out |= resnet(f"{at}.resnets.0", last, last) | resnet(f"{at}.resnets.1", last, last)
        out |= ln(f"{at}.attentions.0.group_norm", last)
        for part in ("to_q", "to_k", "to_v", "to_out.0"):
            out |= dense(f"{at}.attentions.0.{part}", last, last)
        out |= ln(f"{side}.conv_norm_out", order[-1])
        out |= conv(f"{side}.conv_out", 2 * latent if side == "encoder" else 3, order[-1])
    return out | conv("quant_conv", 2 * latent, 2 * latent, 1) | conv("post_quant_conv", latent, latent, 1)


def clip_text_alone(c: Config) -> Tensors:
    return clip_text("text_model", c)


def clip_text_projected(c: Config) -> Tensors:
    d = c["hidden_size"]
    return clip_text("text_model", c) | linear("text_projection", c["projection_dim"], d, dtype="F32")


def safety_checker(c: Config) -> Tensors:
    v = c["vision_config"]
    out: Tensors = {"concept_embeds": ("F32", (17, 768)), "special_care_embeds": ("F32", (3, 768))}
    out |= {"concept_embeds_weights": ("F32", (17,)), "special_care_embeds_weights": ("F32", (3,))}
    out |= linear("visual_projection", 768, v["hidden_size"], dtype="F32")
    return out | clip_vision("vision_model.vision_model", v)


# ---- GGUF

KINDS = {"F32": (0, 1, 4), "Q4_K": (12, 256, 144), "Q6_K": (14, 256, 210)}  # number, numbers a block, bytes a block


def gguf(path: Path, pairs: dict[str, Any], tensors: Tensors) -> Path:
    """A GGUF file of these tensors, its numbers a hole."""
    rows = {name: (shape, KINDS[kind][0]) for name, (kind, shape) in tensors.items()}
    sizes = {name: prod(shape) // KINDS[kind][1] * KINDS[kind][2] for name, (kind, shape) in tensors.items()}
    head, size = gguf_header(pairs, rows, sizes)
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(size)
    return path


def deepseek_gguf(c: Config) -> Tensors:
    """DeepSeek-V3 and R1 as llama.cpp converts them, without the layer of multi-token prediction."""
    d, heads, n = c["hidden_size"], c["num_attention_heads"], c["n_routed_experts"]
    rope, rank, hidden = c["qk_rope_head_dim"], c["kv_lora_rank"], c["moe_intermediate_size"]
    q = "Q4_K"
    out: Tensors = {"token_embd.weight": (q, (c["vocab_size"], d)), "output.weight": ("Q6_K", (c["vocab_size"], d))}
    out |= norm("output_norm", d, dtype="F32")
    for i in range(c["num_hidden_layers"]):
        at = f"blk.{i}"
        out |= norm(f"{at}.attn_norm", d, dtype="F32") | norm(f"{at}.ffn_norm", d, dtype="F32")
        out |= norm(f"{at}.attn_q_a_norm", c["q_lora_rank"], dtype="F32")
        out |= norm(f"{at}.attn_kv_a_norm", rank, dtype="F32")
        out |= linear(f"{at}.attn_q_a", c["q_lora_rank"], d, dtype=q)
        out |= linear(f"{at}.attn_q_b", heads * (c["qk_nope_head_dim"] + rope), c["q_lora_rank"], dtype=q)
        out |= linear(f"{at}.attn_kv_a_mqa", rank + rope, d, dtype=q)
        out |= linear(f"{at}.attn_kv_b", heads * (c["qk_nope_head_dim"] + c["v_head_dim"]), rank, dtype=q)
        out |= linear(f"{at}.attn_output", d, heads * c["v_head_dim"], dtype=q)
        if i < c["first_k_dense_replace"]:
            shapes = {"gate": (c["intermediate_size"], d), "up": (c["intermediate_size"], d),
                      "down": (d, c["intermediate_size"])}  # fmt: skip
            out |= {f"{at}.ffn_{part}.weight": (q, shape) for part, shape in shapes.items()}
            continue
        out |= {f"{at}.ffn_gate_inp.weight": ("F32", (n, d)), f"{at}.exp_probs_b.bias": ("F32", (n,))}
        for part, shape in (("gate", (hidden, d)), ("up", (hidden, d)), ("down", (d, hidden))):
            out |= {f"{at}.ffn_{part}_exps.weight": (q, (n, *shape)), f"{at}.ffn_{part}_shexp.weight": (q, shape)}
    return out


LAYOUTS: dict[str, Callable[[Config], Tensors]] = {
    "clip_text": clip_text_alone, "clip_text_projected": clip_text_projected, "safety_checker": safety_checker,
    "unet": unet, "vae": vae,
}  # fmt: skip
