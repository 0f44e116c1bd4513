"""U-Nets that remove noise, and the autoencoders beside them, by diffusers' configs."""

from __future__ import annotations

from itertools import pairwise

from brolly.identity.plans.counting import Given, Untold, attention, conv, layers, linear, mlp, norm

Parts = dict[str, int]
DOWN = ("DownBlock2D", "CrossAttnDownBlock2D", "ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D")
UP = ("UpBlock2D", "CrossAttnUpBlock2D", "ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D")


def resnet(n_in: int, n_out: int, time: int = 0) -> int:
    """Two convolutions with norms; `time`: width of the projection that brings the time step in, 0 for none."""
    total = norm(n_in) + conv(n_in, n_out, 3) + norm(n_out) + conv(n_out, n_out, 3)
    total += linear(time, n_out) if time else 0
    return total + (conv(n_in, n_out, 1) if n_in != n_out else 0)


def look(dim: int) -> int:
    """A picture's attention to itself."""
    return norm(dim) + attention(dim)


def steps(n_in: int, hidden: int) -> int:
    """The network that reads the time step."""
    return mlp(n_in, hidden, hidden)


def transformer(dim: int, context: int, depth: int, only_context: bool = False) -> int:
    """Layers that look at the picture, then at the text; projections before and behind."""
    heart = attention(dim, context=context if only_context else dim, bias=False) + dim
    layer = heart + attention(dim, context=context, bias=False) + dim + 3 * norm(dim)
    layer += linear(dim, 8 * dim) + linear(4 * dim, dim)
    return norm(dim) + 2 * linear(dim, dim) + depth * layer


class _Blocks:
    """What one level of a U-Net is made of."""

    def __init__(self, c: Given) -> None:
        self.c = c
        self.dims = c.ns("block_out_channels")
        n = len(self.dims)
        if not n or c.on("dual_cross_attention", False) or (c.get("attention_type") or "default") != "default":
            raise Untold("block_out_channels")
        first = self.dims[0]
        self.time = c.n("time_embedding_dim", default=4 * first)
        wide = 2 if c.on("class_embeddings_concat", False) else 1
        shift = c.word("resnet_time_scale_shift", "default")
        if shift not in ("default", "scale_shift"):
            raise Untold("resnet_time_scale_shift")
        self.temb, self.shift = wide * self.time, shift == "scale_shift"
        self.contexts = c.ns("cross_attention_dim", n)
        self.depths = self._depths(n)
        self.per_block = c.ns("layers_per_block", n)
        only = c.config.get("only_cross_attention", False)
        self.only = [only] * n if isinstance(only, bool) else list(only) if isinstance(only, list) else []
        if len(self.only) != n:
            raise Untold("only_cross_attention")

    def _depths(self, n: int) -> list[list[int]]:
        given = self.c.get("transformer_layers_per_block")
        if isinstance(given, int):
            given = [given] * n
        if not isinstance(given, list) or len(given) != n:
            raise Untold("transformer_layers_per_block")
        if not all(type(x) is int and 0 <= x <= 1024 for x in given):
            raise Untold("transformer_layers_per_block")
        return [[x] for x in given]

    def resnet(self, n_in: int, n_out: int) -> int:
        """`scale_shift`: the time step both scales and shifts."""
        return resnet(n_in, n_out, self.temb) + (linear(self.temb, n_out) if self.shift else 0)

    def attend(self, kind: str, dim: int, level: int) -> int:
        """What a block's name says stands behind each of its convolutions."""
        context = self.contexts[level]
        if kind.startswith("SimpleCrossAttn") or kind == "UNetMidBlock2DSimpleCrossAttn":
            own = linear(dim, dim) * (2 if self.only[level] else 4)
            crossed = self.c.get("cross_attention_norm")
            if crossed not in (None, "layer_norm", "group_norm"):
                raise Untold("cross_attention_norm")
            return norm(dim) + own + 2 * linear(context, dim) + (norm(context) if crossed else 0)
        if "CrossAttn" in kind:
            return transformer(dim, context, self.depths[level][0], bool(self.only[level]))
        return 0

    def down(self) -> tuple[int, list[int]]:
        """All levels on the way down, and the widths that the way up gets from them."""
        names = self.c.words("down_block_types")
        if len(names) != len(self.dims):
            raise Untold("down_block_types")
        total, before, skips = 0, self.dims[0], [self.dims[0]]
        for i, (name, dim) in enumerate(zip(names, self.dims, strict=True)):
            if name not in (
                "DownBlock2D",
                "CrossAttnDownBlock2D",
                "ResnetDownsampleBlock2D",
                "SimpleCrossAttnDownBlock2D",
            ):
                raise Untold(name)
            for j in layers(self.per_block[i]):
                total += self.resnet(before if j == 0 else dim, dim) + self.attend(name, dim, i)
                skips.append(dim)
            if i < len(names) - 1:
                total += self.resnet(dim, dim) if name[:6] in ("Resnet", "Simple") else conv(dim, dim, 3)
                skips.append(dim)
            before = dim
        return total, skips

    def middle(self) -> int:
        name = self.c.config.get("mid_block_type", "UNetMidBlock2DCrossAttn")
        if name is None:
            return 0
        if name not in ("UNetMidBlock2DCrossAttn", "UNetMidBlock2DSimpleCrossAttn", "UNetMidBlock2D"):
            raise Untold("mid_block_type")
        dim, last = self.dims[-1], len(self.dims) - 1
        only = self.c.get("mid_block_only_cross_attention")
        if only and "Simple" not in name:
            raise Untold("mid_block_only_cross_attention")
        was, self.only[last] = self.only[last], bool(only)
        attend = self.attend(name, dim, last) if name != "UNetMidBlock2D" else 0
        self.only[last] = was
        return (2 if name != "UNetMidBlock2D" else 1) * self.resnet(dim, dim) + attend

    def up(self, skips: list[int]) -> int:
        names = self.c.words("up_block_types")
        if len(names) != len(self.dims):
            raise Untold("up_block_types")
        total, before = 0, self.dims[-1]
        for i, (name, dim) in enumerate(zip(names, reversed(self.dims), strict=True)):
            if name not in UP:
                raise Untold(name)
            level = len(names) - 1 - i
            for _ in layers(self.per_block[level] + 1):
                total += self.resnet(before + skips.pop(), dim) + self.attend(name, dim, level)
                before = dim
            if i < len(names) - 1:
                total += self.resnet(dim, dim) if name[:6] in ("Resnet", "Simple") else conv(dim, dim, 3)
        return total


def _conditions(c: Given, first: int, time: int) -> int:
    """Everything but the picture and the text that a U-Net is told."""
    if c.word("time_embedding_type", "positional") != "positional" or c.get("timestep_post_act"):
        raise Untold("time_embedding_type")
    total = steps(first, time) + linear(c.n("time_cond_proj_dim", default=0), first, False)
    kind, given = c.get("class_embed_type"), c.n("projection_class_embeddings_input_dim", default=0)
    if kind is None:
        total += c.n("num_class_embeds", default=0) * time
    elif kind in ("timestep", "projection", "simple_projection"):
        total += {"timestep": steps(first, time), "projection": steps(given, time)}.get(kind, linear(given, time))
    elif kind != "identity":
        raise Untold("class_embed_type")
    hidden, context = c.n("encoder_hid_dim", default=0), c.get("cross_attention_dim")
    kind = c.get("encoder_hid_dim_type") or ("text_proj" if hidden else None)
    context = context if type(context) is int else 0
    if kind is not None and not (hidden and context):
        raise Untold("encoder_hid_dim")
    if kind == "text_proj":
        total += linear(hidden, context)
    elif kind == "image_proj":
        total += linear(hidden, 32 * context) + norm(context)
    elif kind is not None:
        raise Untold("encoder_hid_dim_type")
    kind = c.get("addition_embed_type")
    if kind == "text_time":
        total += steps(given, time)
    elif kind == "image":
        total += linear(hidden, time) + norm(time)
    elif kind == "text":
        width = hidden or context
        total += norm(width) + width + 3 * linear(width, width) + linear(width, time) + norm(time)
    elif kind is not None:
        raise Untold("addition_embed_type")
    return total


def unet(c: Given) -> Parts:
    blocks = _Blocks(c)
    first = blocks.dims[0]
    down, skips = blocks.down()
    total = conv(c.n("in_channels"), first, c.n("conv_in_kernel", default=3)) + _conditions(c, first, blocks.time)
    total += down + blocks.middle() + blocks.up(skips)
    total += norm(first) if c.config.get("norm_num_groups", 32) is not None else 0
    return {"unet": total + conv(first, c.n("out_channels"), c.n("conv_out_kernel", default=3))}


def controlnet(c: Given) -> Parts:
    """The way down of a U-Net, the picture that guides it, and a 1x1 convolution for each of its outputs."""
    blocks = _Blocks(c)
    first = blocks.dims[0]
    down, skips = blocks.down()
    widths = [c.n("conditioning_channels", default=3), *c.ns("conditioning_embedding_out_channels")]
    guide = conv(widths[0], widths[1], 3) + conv(widths[-1], first, 3)
    guide += sum(conv(a, a, 3) + conv(a, b, 3) for a, b in pairwise(widths[1:]))
    total = conv(c.n("in_channels"), first, 3) + _conditions(c, first, blocks.time) + down + blocks.middle()
    total += sum(conv(dim, dim, 1) for dim in skips) + conv(blocks.dims[-1], blocks.dims[-1], 1)
    return {"controlnet": total + guide}


def unet2d(c: Given) -> Parts:
    """Without a text: DDPM and its kin."""
    dims, depth = c.ns("block_out_channels"), c.n("layers_per_block")
    first = dims[0] if dims else 0
    time = 4 * first
    if c.word("time_embedding_type") != "positional" or c.word("resnet_time_scale_shift") != "default":
        raise Untold("time_embedding_type")
    if c.get("class_embed_type") or c.word("downsample_type") != "conv" or c.word("upsample_type") != "conv":
        raise Untold("class_embed_type")
    total = conv(c.n("in_channels"), first, 3) + steps(first, time) + c.n("num_class_embeds", default=0) * time
    before, skips = first, [first]
    for i, (name, dim) in enumerate(zip(c.words("down_block_types"), dims, strict=False)):
        if name not in ("DownBlock2D", "AttnDownBlock2D"):
            raise Untold(name)
        for j in layers(depth):
            total += resnet(before if j == 0 else dim, dim, time) + (look(dim) if name.startswith("Attn") else 0)
            skips.append(dim)
        if i < len(dims) - 1:
            total += conv(dim, dim, 3)
            skips.append(dim)
        before = dim
    total += 2 * resnet(before, before, time) + (look(before) if c.on("add_attention", True) else 0)
    for i, (name, dim) in enumerate(zip(c.words("up_block_types"), reversed(dims), strict=False)):
        if name not in ("UpBlock2D", "AttnUpBlock2D"):
            raise Untold(name)
        for _ in layers(depth + 1):
            total += resnet(before + skips.pop(), dim, time) + (look(dim) if name.startswith("Attn") else 0)
            before = dim
        total += conv(dim, dim, 3) if i < len(dims) - 1 else 0
    return {"unet": total + norm(first) + conv(first, c.n("out_channels"), 3)}


def _pyramid(c: Given, kind: str, names: str, depth: int) -> int:
    """The levels of an autoencoder in the order of `names`, with the convolutions between them."""
    dims = c.ns("block_out_channels")
    order = list(reversed(dims)) if kind == "Up" else dims
    total, before = 0, order[0] if order else 0
    found = c.words(names)
    if len(found) != len(dims) or set(found) - {"DownEncoderBlock2D", "UpDecoderBlock2D"} or not dims:
        raise Untold(names)
    for i, dim in enumerate(order):
        total += resnet(before, dim) + (depth - 1) * resnet(dim, dim)
        total += conv(dim, dim, 3) if i < len(order) - 1 else 0
        before = dim
    middle = 2 * resnet(dims[-1], dims[-1]) + (look(dims[-1]) if c.on("mid_block_add_attention", True) else 0)
    return total + middle


def _autoencoder(c: Given, latent: int, out_of_encoder: int) -> tuple[int, int]:
    dims, depth = c.ns("block_out_channels"), c.n("layers_per_block")
    if not dims or not depth or c.word("act_fn") != "silu":
        raise Untold("block_out_channels")
    encoder = conv(c.n("in_channels"), dims[0], 3) + _pyramid(c, "Down", "down_block_types", depth)
    encoder += norm(dims[-1]) + conv(dims[-1], out_of_encoder, 3)
    decoder = conv(latent, dims[-1], 3) + _pyramid(c, "Up", "up_block_types", depth + 1)
    return encoder, decoder + norm(dims[0]) + conv(dims[0], c.n("out_channels"), 3)


def autoencoder_kl(c: Given) -> Parts:
    latent = c.n("latent_channels")
    if c.get("decoder_block_out_channels"):
        raise Untold("decoder_block_out_channels")
    encoder, decoder = _autoencoder(c, latent, 2 * latent)
    encoder += conv(2 * latent, 2 * latent, 1) if c.on("use_quant_conv", True) else 0
    decoder += conv(latent, latent, 1) if c.on("use_post_quant_conv", True) else 0
    return {"encoder": encoder, "decoder": decoder}


def vq_model(c: Given) -> Parts:
    latent = c.n("latent_channels")
    book = c.n("vq_embed_dim", default=latent)
    if c.get("norm_type") not in (None, "group"):
        raise Untold("norm_type")
    encoder, decoder = _autoencoder(c, latent, latent)
    codes = c.n("num_vq_embeddings") * book
    joints = conv(latent, book, 1) + conv(book, latent, 1)
    return {"encoder": encoder, "decoder": decoder, "codebook": codes + joints}


def autoencoder_tiny(c: Given) -> Parts:
    latent = c.n("latent_channels")
    down, up = c.ns("encoder_block_out_channels"), c.ns("decoder_block_out_channels")
    n_down, n_up = c.ns("num_encoder_blocks", len(down)), c.ns("num_decoder_blocks", len(up))
    if len(set(down)) != 1 or len(set(up)) != 1:
        raise Untold("encoder_block_out_channels")
    wide, high = down[0], up[0]
    encoder = conv(c.n("in_channels"), wide, 3) + (len(down) - 1) * conv(wide, wide, 3, False)
    encoder += sum(n_down) * 3 * conv(wide, wide, 3) + conv(wide, latent, 3)
    decoder = conv(latent, high, 3) + sum(n_up) * 3 * conv(high, high, 3)
    decoder += (len(up) - 1) * conv(high, high, 3, False) + conv(high, c.n("out_channels"), 3)
    return {"encoder": encoder, "decoder": decoder}
