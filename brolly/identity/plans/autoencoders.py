"""Autoencoders of films and of high compression, by diffusers' configs."""

from __future__ import annotations

from itertools import pairwise

from brolly.identity.plans.counting import Given, Untold, conv, norm

Parts = dict[str, int]
CUBE = (3, 3, 3)


def _resnet(n_in: int, n_out: int) -> int:
    """With norms that only scale."""
    total = n_in + conv(n_in, n_out, CUBE) + n_out + conv(n_out, n_out, CUBE)
    return total + (conv(n_in, n_out, 1) if n_in != n_out else 0)


def wan(c: Given) -> Parts:
    """Wan 2.1's, which Qwen-Image has too."""
    base, z, depth = c.n("base_dim"), c.n("z_dim"), c.n("num_res_blocks")
    mult, deep = c.ns("dim_mult"), c.get("temperal_downsample")
    if c.on("is_residual", False) or c.get("attn_scales") or c.get("patch_size") or not mult or base % 2:
        raise Untold("is_residual")
    if not isinstance(deep, (list, tuple)) or len(deep) != len(mult) - 1:
        raise Untold("temperal_downsample")
    last = base * mult[-1]
    middle = 2 * _resnet(last, last) + last + conv(last, 3 * last, 1) + conv(last, last, 1)
    encoder = conv(c.n("in_channels", "input_channels", default=3), base, CUBE) + middle
    for i, (n_in, n_out) in enumerate(pairwise([base, *(base * m for m in mult)])):
        encoder += _resnet(n_in, n_out) + (depth - 1) * _resnet(n_out, n_out)
        if i < len(deep):
            encoder += conv(n_out, n_out, 3) + (conv(n_out, n_out, (3, 1, 1)) if deep[i] else 0)
    encoder += last + conv(last, 2 * z, CUBE) + conv(2 * z, 2 * z, 1)
    first = c.n("decoder_base_dim", default=base)
    last = first * mult[-1]
    decoder = conv(z, z, 1) + conv(z, last, CUBE) + 2 * _resnet(last, last) + last
    decoder += conv(last, 3 * last, 1) + conv(last, last, 1)
    widths = [first * m for m in reversed(mult)]
    n_in = last
    for i, n_out in enumerate(widths):
        decoder += _resnet(n_in, n_out) + depth * _resnet(n_out, n_out)
        if i < len(deep):
            decoder += conv(n_out, n_out // 2, 3)
            decoder += conv(n_out, 2 * n_out, (3, 1, 1)) if deep[len(deep) - 1 - i] else 0
        n_in = n_out // 2
    decoder += widths[-1] + conv(widths[-1], c.n("out_channels", default=3), CUBE)
    return {"encoder": encoder, "decoder": decoder}


def cogvideox(c: Given) -> Parts:
    """CogVideoX's; the norms of its decoder are steered by the latents."""
    dims, depth, z = c.ns("block_out_channels"), c.n("layers_per_block"), c.n("latent_channels")
    if not dims or c.on("use_quant_conv", False) or c.on("use_post_quant_conv", False):
        raise Untold("block_out_channels")

    def unit(n_in: int, n_out: int, steered: bool) -> int:
        total = norm(n_in) + norm(n_out) + conv(n_in, n_out, CUBE) + conv(n_out, n_out, CUBE)
        total += 2 * (conv(z, n_in, 1) + conv(z, n_out, 1)) if steered else 0
        return total + (conv(n_in, n_out, 1) if n_in != n_out else 0)

    def levels(order: list[int], n: int, steered: bool) -> int:
        total, before = 0, order[0]
        for i, dim in enumerate(order):
            total += unit(before, dim, steered) + (n - 1) * unit(dim, dim, steered)
            total += conv(dim, dim, 3) if i < len(order) - 1 else 0
            before = dim
        return total

    last = dims[-1]
    encoder = conv(c.n("in_channels"), dims[0], CUBE) + levels(dims, depth, False) + 2 * unit(last, last, False)
    encoder += norm(last) + conv(last, 2 * z, CUBE)
    decoder = conv(z, last, CUBE) + 2 * unit(last, last, True) + levels(list(reversed(dims)), depth + 1, True)
    decoder += norm(dims[0]) + 2 * conv(z, dims[0], 1) + conv(dims[0], c.n("out_channels"), CUBE)
    return {"encoder": encoder, "decoder": decoder}


def deep_compression(c: Given) -> Parts:
    """DC-AE, which Sana has: deep levels look at the whole picture by linear attention."""
    head, z = c.n("attention_head_dim"), c.n("latent_channels")
    if not head:
        raise Untold("attention_head_dim")

    def block(kind: str, dim: int, scales: list[int]) -> int:
        if kind == "ResBlock":
            return conv(dim, dim, 3) + conv(dim, dim, 3, False) + norm(dim)
        if kind != "EfficientViTBlock" or dim % head:
            raise Untold("encoder_block_types")
        total = 3 * dim * dim + (1 + len(scales)) * dim * dim + norm(dim)
        total += sum(3 * dim * scale * scale + 3 * dim * head for scale in scales)
        total += conv(dim, 8 * dim, 1) + conv(8 * dim, 8 * dim, 3, groups=8 * dim) + conv(4 * dim, dim, 1, False)
        return total + norm(dim)

    def levels(side: str, between: int) -> tuple[int, list[int]]:
        """`between`: how many numbers the 2x2 pixels of a level's convolution are split into."""
        dims, kinds = c.ns(f"{side}_block_out_channels"), c.get(f"{side}_block_types")
        depths = c.ns(f"{side}_layers_per_block", len(dims))
        kinds = [kinds] * len(dims) if isinstance(kinds, str) else kinds
        scales = c.get(f"{side}_qkv_multiscales")
        if not dims or not all(depths) or not len(kinds) == len(scales) == len(dims):
            raise Untold(f"{side}_layers_per_block")
        total = sum(n * block(k, d, s) for n, k, d, s in zip(depths, kinds, dims, scales, strict=True))
        for fine, coarse in pairwise(dims):
            if side == "encoder":
                total += conv(fine, coarse // between, 3)
            else:
                total += conv(coarse, fine * between, 3)
        return total, dims

    encoder, dims = levels("encoder", 4 if c.word("downsample_block_type") == "pixel_unshuffle" else 1)
    encoder += conv(c.n("in_channels"), dims[0], 3) + conv(dims[-1], z, 3)
    decoder, dims = levels("decoder", 4 if c.word("upsample_block_type") == "pixel_shuffle" else 1)
    decoder += conv(z, dims[-1], 3) + norm(dims[0]) + conv(dims[0], c.n("in_channels"), 3)
    return {"encoder": encoder, "decoder": decoder}
