"""Networks that see: ViT and its kin, pyramids, convolutions; with the head that the config's class has."""

from __future__ import annotations

from brolly.identity.plans.counting import (
    Given,
    Untold,
    attention,
    block,
    conv,
    gated,
    layers,
    linear,
    mlp,
    norm,
    over,
)

Parts = dict[str, int]


def _class(c: Given, *families: str) -> str:
    """What follows the family in the class's name; "Model" where the config names no class."""
    name = c.architecture
    if not name:
        return "Model"
    for family in families:
        if name.startswith(family) and name[len(family) :].startswith(("Model", "For", "Backbone", "Vision")):
            return name[len(family) :]
    raise Untold(name)


def _classifier(c: Given, head: str, dim: int, pooler: int = 0) -> int:
    if head == "ForImageClassification":
        return linear(dim, c.n_labels)
    if head == "Model":
        return pooler
    if head == "Backbone":
        return 0
    raise Untold(head)


def _patches(c: Given, dim: int, bias: bool = True) -> int:
    height, width = c.pair("patch_size")
    return conv(c.n("num_channels"), dim, (height, width), bias)


def _vit_layer(dim: int, hidden: int, qkv_bias: bool) -> int:
    return block(dim, hidden) - (0 if qkv_bias else 3 * dim)


def vit(c: Given) -> Parts:
    head = _class(c, "ViT")
    dim = c.n("hidden_size")
    embedding = _patches(c, dim) + (c.patches() + 2) * dim  # a class token, and a position for it
    encoder = c.n("num_hidden_layers") * _vit_layer(dim, c.n("intermediate_size"), c.on("qkv_bias", True))
    pooler = linear(dim, c.n("pooler_output_size", default=dim))
    return {"embedding": embedding, "encoder": encoder + norm(dim), "head": _classifier(c, head, dim, pooler)}


def deit(c: Given) -> Parts:
    head = _class(c, "DeiT")
    dim = c.n("hidden_size")
    embedding = _patches(c, dim) + (c.patches() + 4) * dim
    encoder = c.n("num_hidden_layers") * _vit_layer(dim, c.n("intermediate_size"), c.on("qkv_bias", True))
    if head == "ForImageClassificationWithTeacher":
        extra = 2 * linear(dim, c.n_labels)
    else:
        extra = _classifier(c, head, dim, linear(dim, c.n("pooler_output_size", default=dim)))
    return {"embedding": embedding, "encoder": encoder + norm(dim), "head": extra}


def vit_mae(c: Given) -> Parts:
    """The positions are fixed sinusoids that the checkpoint holds."""
    head = _class(c, "ViTMAE")
    dim, n = c.n("hidden_size"), c.patches()
    embedding = _patches(c, dim) + (n + 2) * dim
    encoder = c.n("num_hidden_layers") * _vit_layer(dim, c.n("intermediate_size"), c.on("qkv_bias", True)) + norm(dim)
    parts = {"embedding": embedding, "encoder": encoder}
    if head == "ForPreTraining":
        inner, patch = c.n("decoder_hidden_size"), c.n("patch_size")
        layer = _vit_layer(inner, c.n("decoder_intermediate_size"), c.on("qkv_bias", True))
        parts["decoder"] = linear(dim, inner) + inner + (n + 1) * inner + c.n("decoder_num_hidden_layers") * layer
        parts["decoder"] += norm(inner) + linear(inner, patch * patch * c.n("num_channels"))
    elif head != "Model":
        raise Untold(head)
    return parts


def videomae(c: Given) -> Parts:
    """The positions are worked out, not kept."""
    head = _class(c, "VideoMAE")
    dim, tube, patch = c.n("hidden_size"), c.n("tubelet_size"), c.n("patch_size")

    def layer(width: int, hidden: int) -> int:
        return block(width, hidden) - (width if c.on("qkv_bias", True) else 3 * width)  # keys have no bias

    mean = c.on("use_mean_pooling", True)
    parts = {
        "embedding": conv(c.n("num_channels"), dim, (tube, patch, patch)),
        "encoder": c.n("num_hidden_layers") * layer(dim, c.n("intermediate_size")),
    }
    if head == "ForVideoClassification":
        parts["head"] = norm(dim) + linear(dim, c.n_labels)  # a norm ends the encoder or, for the mean, follows it
    elif head == "ForPreTraining":
        inner = c.n("decoder_hidden_size")
        pixels = c.n("num_channels") * tube * patch * patch
        parts["encoder"] += 0 if mean else norm(dim)
        parts["decoder"] = c.n("decoder_num_hidden_layers") * layer(inner, c.n("decoder_intermediate_size"))
        parts["decoder"] += linear(dim, inner, False) + inner + norm(inner) + linear(inner, pixels)
    elif head == "Model":
        parts["encoder"] += 0 if mean else norm(dim)
    else:
        raise Untold(head)
    return parts


def beit(c: Given) -> Parts:
    head = _class(c, "Beit", "Data2VecVision")
    dim, n = c.n("hidden_size"), c.n("num_hidden_layers")
    embedding = _patches(c, dim) + dim + (dim if c.on("use_mask_token", False) else 0)
    embedding += (c.patches() + 1) * dim if c.on("use_absolute_position_embeddings", False) else 0
    side = c.n("image_size") // over(c.n("patch_size"))
    table = ((2 * side - 1) ** 2 + 3) * c.n("num_attention_heads")
    layer = block(dim, c.n("intermediate_size")) - dim + (2 * dim if c.real("layer_scale_init_value") > 0 else 0)
    encoder = n * layer + (table if c.on("use_shared_relative_position_bias", False) else 0)
    encoder += n * table if c.on("use_relative_position_bias", False) else 0
    if head == "ForMaskedImageModeling":
        extra = norm(dim) + linear(dim, c.n("vocab_size"))
    elif head == "ForImageClassification":
        extra = norm(dim) + linear(dim, c.n_labels)
    elif head == "Model":  # Data2Vec's has no pooler, whose norm it would be
        bare = c.config.get("model_type") == "data2vec-vision" and c.on("use_mean_pooling", True)
        extra = 0 if bare else norm(dim)
    else:
        raise Untold(head)
    return {"embedding": embedding, "encoder": encoder, "head": extra}


def dinov2(c: Given) -> Parts:
    head = _class(c, "Dinov2WithRegisters", "Dinov2")
    dim, n = c.n("hidden_size"), c.n("num_hidden_layers")
    registers = c.n("num_register_tokens", default=0)
    mask = dim if c.on("use_mask_token", True) else 0
    embedding = _patches(c, dim) + (c.patches() + 2 + registers) * dim + mask
    hidden = int(dim * c.real("mlp_ratio"))
    if c.on("use_swiglu_ffn", False):
        hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
        forward = linear(dim, 2 * hidden) + linear(hidden, dim)
    else:
        forward = mlp(dim, hidden)
    layer = attention(dim) + forward + 2 * norm(dim) + 2 * dim - (0 if c.on("qkv_bias", True) else 3 * dim)
    extra = linear(2 * dim, c.n_labels) if head == "ForImageClassification" else _classifier(c, head, dim)
    return {"embedding": embedding, "encoder": n * layer + norm(dim), "head": extra}


def dinov3_vit(c: Given) -> Parts:
    head = _class(c, "DINOv3ViT")
    dim, hidden = c.n("hidden_size"), c.n("intermediate_size")
    embedding = _patches(c, dim) + (2 + c.n("num_register_tokens", default=0)) * dim
    biases = sum(c.on(f"{name}_bias") for name in ("query", "key", "value", "proj")) * dim
    bias = c.on("mlp_bias", True)
    forward = gated(dim, hidden, bias) if c.on("use_gated_mlp", False) else mlp(dim, hidden, bias=bias)
    layer = attention(dim, bias=False) + biases + forward + 2 * norm(dim) + 2 * dim
    encoder = c.n("num_hidden_layers") * layer + norm(dim)
    return {"embedding": embedding, "encoder": encoder, "head": _classifier(c, head, dim)}


def swin(c: Given) -> Parts:
    return _swin(c, ("Swin", "DonutSwin", "MaskFormerSwin"), second=False)


def swinv2(c: Given) -> Parts:
    return _swin(c, ("Swinv2",), second=True)


def _swin(c: Given, families: tuple[str, ...], second: bool) -> Parts:
    head = _class(c, *families)
    dim, window = c.n("embed_dim"), c.n("window_size")
    depths = c.ns("depths")
    heads = c.ns("num_heads", len(depths))
    embedding = _patches(c, dim) + norm(dim)
    embedding += c.patches() * dim if c.on("use_absolute_embeddings", False) else 0
    encoder = 0
    for i, (depth, n_heads) in enumerate(zip(depths, heads, strict=True)):
        width = dim * 2**i
        hidden = int(c.real("mlp_ratio") * width)
        qkv = c.on("qkv_bias", True)
        layer = block(width, hidden) - (0 if qkv else 3 * width)
        if second:  # positions by a small network; logits scaled by head; keys have no bias
            layer += linear(2, 512) + linear(512, n_heads, False) + n_heads - (width if qkv else 0)
        else:
            layer += (2 * window - 1) ** 2 * n_heads
        encoder += depth * layer
        if i < len(depths) - 1:
            encoder += linear(4 * width, 2 * width, False) + norm(2 * width if second else 4 * width)
    last = dim * 2 ** (len(depths) - 1)
    final = 0 if c.config.get("model_type") == "donut-swin" and head == "Model" else norm(last)
    return {"embedding": embedding, "encoder": encoder + final, "head": _classifier(c, head, last)}


def convnext(c: Given) -> Parts:
    return _convnext(c, "ConvNext", second=False)


def convnextv2(c: Given) -> Parts:
    return _convnext(c, "ConvNextV2", second=True)


def _convnext(c: Given, family: str, second: bool) -> Parts:
    head = _class(c, family)
    depths, dims = c.ns("depths"), c.ns("hidden_sizes")
    if len(depths) != len(dims) or not dims:
        raise Untold("depths")
    embedding = _patches(c, dims[0]) + norm(dims[0])
    encoder = 0
    for i, (depth, dim) in enumerate(zip(depths, dims, strict=True)):
        layer = conv(dim, dim, 7, groups=dim) + norm(dim) + mlp(dim, 4 * dim)
        if second:
            layer += 8 * dim  # global response norm
        elif c.real("layer_scale_init_value") > 0:
            layer += dim
        encoder += depth * layer + (norm(dims[i - 1]) + conv(dims[i - 1], dim, 2) if i else 0)
    return {"embedding": embedding, "encoder": encoder + norm(dims[-1]), "head": _classifier(c, head, dims[-1])}


def resnet(c: Given) -> Parts:
    head = _class(c, "ResNet")
    depths, dims = c.ns("depths"), c.ns("hidden_sizes")
    kind, first = c.word("layer_type"), c.n("embedding_size")
    if len(depths) != len(dims) or kind not in ("basic", "bottleneck"):
        raise Untold("depths")

    def unit(n_in: int, n_out: int, kernel: int) -> int:
        return conv(n_in, n_out, kernel, False) + norm(n_out)

    encoder, n_in = 0, first
    for i, (depth, dim) in enumerate(zip(depths, dims, strict=True)):
        strided = i > 0 or c.on("downsample_in_first_stage", False)
        for j in layers(depth):
            if kind == "basic":
                encoder += unit(n_in, dim, 3) + unit(dim, dim, 3)
            else:
                inner = dim // 4
                encoder += unit(n_in, inner, 1) + unit(inner, inner, 3) + unit(inner, dim, 1)
            if n_in != dim or (j == 0 and strided):
                encoder += unit(n_in, dim, 1)
            n_in = dim
    embedding = unit(c.n("num_channels"), first, 7)
    return {"embedding": embedding, "encoder": encoder, "head": _classifier(c, head, dims[-1])}


def segformer(c: Given) -> Parts:
    head = _class(c, "Segformer")
    n = c.n("num_encoder_blocks")
    depths, dims, kernels = c.ns("depths", n), c.ns("hidden_sizes", n), c.ns("patch_sizes", n)
    ratios, reductions = c.get("mlp_ratios"), c.ns("sr_ratios", n)
    if not isinstance(ratios, list) or len(ratios) != n:
        raise Untold("mlp_ratios")
    encoder, n_in = 0, c.n("num_channels")
    for depth, dim, kernel, ratio, reduction in zip(depths, dims, kernels, ratios, reductions, strict=True):
        hidden = int(dim * ratio)
        layer = block(dim, hidden) + conv(hidden, hidden, 3, groups=hidden)
        layer += conv(dim, dim, reduction) + norm(dim) if reduction > 1 else 0
        encoder += conv(n_in, dim, kernel) + norm(dim) + depth * layer + norm(dim)
        n_in = dim
    if head == "ForSemanticSegmentation":
        inner = c.n("decoder_hidden_size")
        extra = sum(linear(dim, inner) for dim in dims) + conv(inner * n, inner, 1, False) + norm(inner)
        extra += conv(inner, c.n_labels, 1)
    elif head == "ForImageClassification":
        extra = linear(dims[-1], c.n_labels)
    else:
        extra = _classifier(c, head, dims[-1])
    return {"encoder": encoder, "head": extra}


def yolos(c: Given) -> Parts:
    head = _class(c, "Yolos")
    dim, n, tokens = c.n("hidden_size"), c.n("num_hidden_layers"), c.n("num_detection_tokens")
    rows = c.patches() + tokens + 1
    embedding = _patches(c, dim) + (1 + tokens) * dim + rows * dim
    if c.on("use_mid_position_embeddings", True):
        embedding += (n - 1) * rows * dim
    encoder = n * _vit_layer(dim, c.n("intermediate_size"), c.on("qkv_bias", True)) + norm(dim)
    if head == "ForObjectDetection":
        boxes = 2 * linear(dim, dim) + linear(dim, 4)
        extra = 2 * linear(dim, dim) + linear(dim, c.n_labels + 1) + boxes
    elif head == "Model":
        extra = linear(dim, dim)
    else:
        raise Untold(head)
    return {"embedding": embedding, "encoder": encoder, "head": extra}


def sam(c: Given, vision: Given, prompt: Given, mask: Given) -> Parts:
    """Segment Anything: an image encoder that looks in windows, prompts, a two-way decoder."""
    if c.architecture not in ("", "SamModel"):
        raise Untold(c.architecture)
    dim, n, patch, out = (vision.n(k) for k in ("hidden_size", "num_hidden_layers", "patch_size", "output_channels"))
    side = vision.n("image_size") // over(patch)
    head_dim = dim // over(vision.n("num_attention_heads"))
    hidden = vision.n("mlp_dim", default=int(dim * vision.real("mlp_ratio")))
    layer = _vit_layer(dim, hidden, vision.on("qkv_bias", True))
    encoder = conv(vision.n("num_channels"), dim, patch) + n * layer
    encoder += side * side * dim if vision.on("use_abs_pos", True) else 0
    if vision.on("use_rel_pos", True):
        everywhere = [i for i in vision.ns("global_attn_indexes") if i < n]
        window = vision.n("window_size")
        encoder += (len(everywhere) * (2 * side - 1) + (n - len(everywhere)) * (2 * window - 1)) * 2 * head_dim
    encoder += conv(dim, out, 1, False) + norm(out) + conv(out, out, 3, False) + norm(out)

    width, masks = prompt.n("hidden_size"), prompt.n("mask_input_channels")
    small = masks // 4
    prompts = (prompt.n("num_point_embeddings") + 2) * width  # and "not a point", "no mask"
    prompts += 2 * vision.n("num_pos_feats")
    prompts += conv(1, small, 2) + conv(small, masks, 2) + conv(masks, width, 1) + norm(small) + norm(masks)

    d, down = mask.n("hidden_size"), mask.n("attention_downsample_rate")
    cross = attention(d, d // over(down))
    depth = mask.n("num_hidden_layers")
    n_masks = mask.n("num_multimask_outputs") + 1
    layer = attention(d) + 2 * cross + mlp(d, mask.n("mlp_dim")) + 4 * norm(d)
    decoder = depth * layer + cross + norm(d) + (n_masks + 1) * d
    decoder += conv(d, d // 4, 2) + conv(d // 4, d // 8, 2) + norm(d // 4)
    decoder += n_masks * (2 * linear(d, d) + linear(d, d // 8))
    inner = mask.n("iou_head_hidden_dim")
    between = mask.n("iou_head_depth") - 2
    if between < 0:
        raise Untold("iou_head_depth")
    decoder += linear(d, inner) + between * linear(inner, inner) + linear(inner, n_masks)
    return {"vision": encoder, "prompt": prompts, "decoder": decoder}
