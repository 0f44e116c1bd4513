"""Autoencoders of films, by diffusers' configs: convolutions over time, height and width."""

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
