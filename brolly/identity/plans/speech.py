"""Voices and codecs of later years: VITS, SpeechT5, Mimi."""

from __future__ import annotations

from brolly.identity.plans.counting import Given, Untold, attention, block, conv1d, linear, mlp, norm, over

Parts = dict[str, int]


def mimi(c: Given) -> Parts:
    """Convolutions about a small transformer; the codebooks are running averages, which are no parameters."""
    if c.architecture not in ("", "MimiModel") or c.on("use_conv_shortcut", False):
        raise Untold(c.architecture)
    filters, dim, ratios = c.n("num_filters"), c.n("hidden_size"), c.ns("upsampling_ratios")
    k, last, small, inner = c.n("kernel_size"), c.n("last_kernel_size"), c.n("compress"), c.n("residual_kernel_size")
    channels, residual = c.n("audio_channels"), c.n("num_residual_layers")
    widest = filters * 2 ** len(ratios)
    encoder = conv1d(channels, filters, k) + conv1d(widest, dim, last)
    decoder = conv1d(dim, widest, k) + conv1d(filters, channels, last)
    for i, ratio in enumerate(reversed(ratios)):
        width = filters * 2**i
        bottle = width // over(small)
        rest = residual * (conv1d(width, bottle, inner) + conv1d(bottle, width, 1))
        encoder += rest + conv1d(width, 2 * width, 2 * ratio)
        decoder += rest + conv1d(2 * width, width, 2 * ratio)
    inner = c.n("num_attention_heads") * c.n("head_dim", default=dim // over(c.n("num_attention_heads")))
    kv = c.n("num_key_value_heads") * (inner // over(c.n("num_attention_heads")))
    layer = 2 * dim * inner + 2 * dim * kv + mlp(dim, c.n("intermediate_size"), bias=False) + 2 * norm(dim) + 2 * dim
    stack = c.n("num_hidden_layers") * layer
    hop = 1
    for ratio in ratios:
        hop *= ratio
    rate, frames = c.n("sampling_rate") / over(hop), c.real("frame_rate", "_frame_rate", default=12.5)
    if rate != frames:
        step = 2 * int(rate / frames)
        encoder += conv1d(dim, dim, step, False)
        decoder += conv1d(dim, dim, step, False, c.n("upsample_groups"))
    books = c.n("vector_quantization_hidden_dimension", default=c.n("codebook_dim"))
    return {"encoder": encoder + stack, "decoder": decoder + stack, "quantizer": 4 * books * dim}


def _wavenet(dim: int, kernel: int, depth: int, speaker: int) -> int:
    """Convolutions with normed weights; the last of them has no residual."""
    if not depth:
        raise Untold("depth")
    total = depth * (conv1d(dim, 2 * dim, kernel) + 2 * dim)
    total += (depth - 1) * (conv1d(dim, 2 * dim, 1) + 2 * dim) + conv1d(dim, dim, 1) + dim
    return total + (conv1d(speaker, 2 * dim * depth, 1) + 2 * dim * depth if speaker else 0)


def vits(c: Given) -> Parts:
    """VITS, as MMS has it for a thousand languages: text, a flow, a duration, a decoder of waves."""
    if c.architecture not in ("", "VitsModel"):
        raise Untold(c.architecture)
    dim, flow, kernel = c.n("hidden_size"), c.n("flow_size"), c.n("ffn_kernel_size")
    speakers = c.n("num_speakers", default=1)
    speaker = c.n("speaker_embedding_size", default=0) if speakers > 1 else 0
    head = dim // over(c.n("num_attention_heads"))
    window = c.n("window_size", default=0)
    layer = attention(dim, bias=c.on("use_bias", True)) + 2 * norm(dim)
    layer += 2 * (2 * window + 1) * head if window else 0
    layer += conv1d(dim, c.n("ffn_dim"), kernel) + conv1d(c.n("ffn_dim"), dim, kernel)
    text = c.n("vocab_size") * dim + c.n("num_hidden_layers") * layer + conv1d(dim, 2 * flow, 1)

    half, wave = flow // 2, c.n("wavenet_kernel_size")
    one = conv1d(half, dim, 1) + _wavenet(dim, wave, c.n("prior_encoder_num_wavenet_layers"), speaker)
    flows = c.n("prior_encoder_num_flows") * (one + conv1d(dim, half, 1))
    posterior = conv1d(c.n("spectrogram_bins"), dim, 1) + conv1d(dim, 2 * flow, 1)
    posterior += _wavenet(dim, wave, c.n("posterior_encoder_num_wavenet_layers"), speaker)
    parts = {"text_encoder": text, "flow": flows, "posterior": posterior, "decoder": _hifigan(c, flow, speaker)}
    parts["duration"] = _duration(c, dim, speaker)
    if speaker:
        parts["speakers"] = speakers * speaker
    return parts


def _hifigan(c: Given, n_in: int, speaker: int) -> int:
    wide, rates = c.n("upsample_initial_channel"), c.ns("upsample_rates")
    kernels, dilations = c.ns("resblock_kernel_sizes"), c.get("resblock_dilation_sizes")
    ups = c.ns("upsample_kernel_sizes", len(rates))
    if not isinstance(dilations, list) or len(dilations) != len(kernels):
        raise Untold("resblock_dilation_sizes")
    total = conv1d(n_in, wide, 7) + (conv1d(speaker, wide, 1) if speaker else 0)
    for up in ups:
        total += conv1d(wide, wide // 2, up)
        wide //= 2
        total += sum(2 * len(d) * conv1d(wide, wide, k) for k, d in zip(kernels, dilations, strict=True))
    return total + conv1d(wide, 1, 7, False)


def _duration(c: Given, dim: int, speaker: int) -> int:
    """A flow of splines by default; two convolutions otherwise."""
    k = c.n("duration_predictor_kernel_size")
    more = conv1d(speaker, dim, 1) if speaker else 0
    if not c.on("use_stochastic_duration_prediction", True):
        hidden = c.n("duration_predictor_filter_channels")
        return conv1d(dim, hidden, k) + conv1d(hidden, hidden, k) + 2 * norm(hidden) + conv1d(hidden, 1, 1) + more
    if c.n("depth_separable_channels") != 2:
        raise Untold("depth_separable_channels")
    separable = c.n("depth_separable_num_layers") * (
        conv1d(dim, dim, k, groups=dim) + conv1d(dim, dim, 1) + 2 * norm(dim)
    )
    spline = conv1d(1, dim, 1) + separable + conv1d(dim, 3 * c.n("duration_predictor_flow_bins") - 1, 1)
    flows = c.n("duration_predictor_num_flows")
    total = conv1d(dim, dim, 1) * 2 + separable + conv1d(1, dim, 1) + conv1d(dim, dim, 1) + separable
    return total + 2 * (flows * spline + 4) + more


def speecht5(c: Given) -> Parts:
    """SpeechT5 as a reader of texts; it needs a vocoder beside it."""
    if c.architecture != "SpeechT5ForTextToSpeech":
        raise Untold(c.architecture)
    dim, mel, units = c.n("hidden_size"), c.n("num_mel_bins"), c.n("speech_decoder_prenet_units")
    head = dim // over(c.n("encoder_attention_heads"))
    encoder = norm(dim) + c.n("encoder_layers") * block(dim, c.n("encoder_ffn_dim"))
    encoder += 2 * c.n("encoder_max_relative_position") * head + 1
    prenets = c.n("speech_decoder_prenet_layers")
    if not prenets:
        raise Untold("speech_decoder_prenet_layers")
    decoder = linear(mel, units) + (prenets - 1) * linear(units, units) + linear(units, dim) + 1
    decoder += linear(c.n("speaker_embedding_dim") + dim, dim)
    decoder += c.n("decoder_layers") * (block(dim, c.n("decoder_ffn_dim")) + attention(dim) + norm(dim))
    frames, depth = c.n("reduction_factor"), c.n("speech_decoder_postnet_layers")
    wide, kernel = c.n("speech_decoder_postnet_units"), c.n("speech_decoder_postnet_kernel")
    if depth < 2:
        raise Untold("speech_decoder_postnet_layers")
    head = linear(dim, mel * frames) + linear(dim, frames)
    head += (
        conv1d(mel, wide, kernel, False) + norm(wide) + (depth - 2) * (conv1d(wide, wide, kernel, False) + norm(wide))
    )
    head += conv1d(wide, mel, kernel, False) + norm(mel)
    return {"embedding": c.n("vocab_size") * dim, "encoder": encoder, "decoder": decoder, "head": head}


def dac(c: Given) -> Parts:
    """Descript's codec: convolutions with snakes between them; each codebook looks things up in eight dimensions."""
    if c.architecture not in ("", "DacModel"):
        raise Untold(c.architecture)
    down, up = c.ns("downsampling_ratios"), c.ns("upsampling_ratios")
    first, high = c.n("encoder_hidden_size"), c.n("decoder_hidden_size")
    last, book = first * 2 ** len(down), c.n("codebook_dim")

    def rest(width: int) -> int:
        return 3 * (2 * width + conv1d(width, width, 7) + conv1d(width, width, 1))

    encoder = conv1d(1, first, 7) + last + conv1d(last, last, 3)
    for i, ratio in enumerate(down):
        width = first * 2**i
        encoder += rest(width) + width + conv1d(width, 2 * width, 2 * ratio)
    decoder = conv1d(last, high, 7)
    for i, ratio in enumerate(up):
        width = high // 2**i
        decoder += width + conv1d(width, width // 2, 2 * ratio) + rest(width // 2)
    width = high // 2 ** len(up)
    decoder += width + conv1d(width, 1, 7)
    one = conv1d(last, book, 1) + conv1d(book, last, 1) + c.n("codebook_size") * book
    return {"encoder": encoder, "decoder": decoder, "quantizer": c.n("n_codebooks") * one}
