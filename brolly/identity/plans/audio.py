"""Networks that hear and speak: Whisper, wav2vec 2.0 and its kin, codecs, Bark, MusicGen."""

from __future__ import annotations

from brolly.identity.plans.counting import Given, Untold, attention, block, conv, conv1d, linear, mlp, norm, over

Parts = dict[str, int]


def whisper_encoder(c: Given) -> int:
    dim = c.n("d_model")
    layer = block(dim, c.n("encoder_ffn_dim")) - dim  # keys have no bias
    convolutions = conv1d(c.n("num_mel_bins"), dim, 3) + conv1d(dim, dim, 3)
    return convolutions + c.n("max_source_positions") * dim + c.n("encoder_layers") * layer + norm(dim)


def whisper(c: Given) -> Parts:
    """The head is the words' own vectors, always; the encoder's positions are sinusoids that the checkpoint holds."""
    name = c.architecture
    if name not in ("", "WhisperForConditionalGeneration", "WhisperModel"):
        raise Untold(name)
    dim = c.n("d_model")
    layer = block(dim, c.n("decoder_ffn_dim")) + attention(dim) + norm(dim) - 2 * dim
    decoder = c.n("max_target_positions") * dim + c.n("decoder_layers") * layer + norm(dim)
    return {"embedding": c.n("vocab_size") * dim, "encoder": whisper_encoder(c), "decoder": decoder}


def _feature_extractor(c: Given) -> int:
    """Seven convolutions from the wave to 50 vectors a second."""
    dims, kernels = c.ns("conv_dim"), c.ns("conv_kernel")
    if len(dims) != len(kernels) or not dims:
        raise Untold("conv_dim")
    bias, kind, n_in, total = c.on("conv_bias", False), c.word("feat_extract_norm"), 1, 0
    if kind not in ("group", "layer"):
        raise Untold("feat_extract_norm")
    for i, (dim, kernel) in enumerate(zip(dims, kernels, strict=True)):
        total += conv1d(n_in, dim, kernel, bias) + (norm(dim) if kind == "layer" or i == 0 else 0)
        n_in = dim
    return total


def _speech_encoder(c: Given) -> Parts:
    dim, n = c.n("hidden_size"), c.n("num_hidden_layers")
    last, kernel = c.ns("conv_dim")[-1], c.n("num_conv_pos_embeddings")
    features = _feature_extractor(c) + linear(last, dim)
    features += norm(last) if c.on("feat_proj_layer_norm", True) else 0
    if c.real("mask_time_prob", default=0.0) > 0 or c.real("mask_feature_prob", default=0.0) > 0:
        features += dim
    if c.on("conv_pos_batch_norm", False) or c.on("add_adapter", False):
        raise Untold("conv_pos_batch_norm or add_adapter")
    positions = conv1d(dim, dim, kernel, groups=c.n("num_conv_pos_embedding_groups")) + kernel  # and a norm of weights
    layer = block(dim, c.n("intermediate_size"))
    adapter = c.n("adapter_attn_dim", default=0)
    if adapter:
        if not c.on("do_stable_layer_norm", False):
            raise Untold("adapter_attn_dim")
        layer += norm(dim) + mlp(dim, adapter)
    return {"features": features, "encoder": positions + n * layer + norm(dim)}


def wav2vec2(c: Given) -> Parts:
    """wav2vec 2.0, HuBERT and WavLM, which differ by how a layer sees distances."""
    name = c.architecture
    family = next((f for f in ("Wav2Vec2", "Hubert", "WavLM") if name.startswith(f)), "")
    head = name[len(family) :]
    parts, dim = _speech_encoder(c), c.n("hidden_size")
    if c.config.get("model_type") == "wavlm":
        n_heads = c.n("num_attention_heads")
        gate = n_heads + linear(dim // over(n_heads), 8)
        parts["encoder"] += c.n("num_hidden_layers") * gate + c.n("num_buckets") * n_heads
    if name and not family:
        raise Untold(name)
    if head == "ForCTC":
        parts["head"] = linear(dim, c.n("vocab_size"))
    elif head == "ForPreTraining" and family == "Wav2Vec2":
        codes, groups = c.n("num_codevectors_per_group"), c.n("num_codevector_groups")
        book, out = c.n("codevector_dim"), c.n("proj_codevector_dim")
        parts["head"] = groups * codes * (book // over(groups)) + linear(c.ns("conv_dim")[-1], groups * codes)
        parts["head"] += linear(dim, out) + linear(book, out)
    elif head == "ForSequenceClassification":
        inner = c.n("classifier_proj_size")
        parts["head"] = linear(dim, inner) + linear(inner, c.n_labels)
        parts["head"] += c.n("num_hidden_layers") + 1 if c.on("use_weighted_layer_sum", False) else 0
    elif head not in ("", "Model"):
        raise Untold(name)
    return parts


def spectrogram_transformer(c: Given) -> Parts:
    """AST: a ViT that looks at a spectrogram."""
    name = c.architecture
    dim, patch = c.n("hidden_size"), c.n("patch_size")
    across = (c.n("num_mel_bins") - patch) // over(c.n("frequency_stride")) + 1
    along = (c.n("max_length") - patch) // over(c.n("time_stride")) + 1
    embedding = conv(1, dim, patch) + (across * along + 4) * dim
    layer = block(dim, c.n("intermediate_size")) - (0 if c.on("qkv_bias", True) else 3 * dim)
    parts = {"embedding": embedding, "encoder": c.n("num_hidden_layers") * layer + norm(dim)}
    if name == "ASTForAudioClassification":
        parts["head"] = norm(dim) + linear(dim, c.n_labels)
    elif name not in ("", "ASTModel"):
        raise Untold(name)
    return parts


def encodec(c: Given) -> Parts:
    """Convolutions about an LSTM; the codebooks are running averages, which are no parameters."""
    if c.architecture not in ("", "EncodecModel"):
        raise Untold(c.architecture)
    kind = c.word("norm_type")
    if kind not in ("weight_norm", "time_group_norm"):
        raise Untold("norm_type")
    filters, dim, residual = c.n("num_filters"), c.n("hidden_size"), c.n("num_residual_layers")
    ratios, k, last, small = c.ns("upsampling_ratios"), c.n("kernel_size"), c.n("last_kernel_size"), c.n("compress")
    channels, inner = c.n("audio_channels"), c.n("residual_kernel_size")

    def unit(n_in: int, n_out: int, kernel: int, turned: bool = False) -> int:
        extra = (n_in if turned else n_out) if kind == "weight_norm" else norm(n_out)
        return conv1d(n_in, n_out, kernel) + extra

    def rest(width: int) -> int:
        bottle = width // over(small)
        shortcut = unit(width, width, 1) if c.on("use_conv_shortcut", True) else 0
        return residual * (unit(width, bottle, inner) + unit(bottle, width, 1) + shortcut)

    widest = filters * 2 ** len(ratios)
    recurrent = c.n("num_lstm_layers") * 4 * (2 * widest * widest + 2 * widest)
    encoder = unit(channels, filters, k) + recurrent + unit(widest, dim, last)
    decoder = unit(dim, widest, k) + recurrent + unit(filters, channels, last)
    for i, ratio in enumerate(reversed(ratios)):
        width = filters * 2**i
        encoder += rest(width) + unit(width, 2 * width, 2 * ratio)
        decoder += rest(width) + unit(2 * width, width, 2 * ratio, True)
    return {"encoder": encoder, "decoder": decoder}


def _bark_part(c: Given) -> int:
    """One of Bark's GPTs, its embedding and head apart."""
    dim, bias = c.n("hidden_size"), c.on("bias", False)
    layer = linear(dim, 3 * dim, bias) + linear(dim, dim, bias) + mlp(dim, 4 * dim, bias=bias)
    return c.n("num_layers") * layer


def bark(c: Given, semantic: Given, coarse: Given, fine: Given, codec: Given) -> Parts:
    if c.architecture not in ("", "BarkModel"):
        raise Untold(c.architecture)
    parts = {}
    for name, part in (("semantic", semantic), ("coarse", coarse)):
        dim, bias = part.n("hidden_size"), part.on("bias", False)
        norms = (2 * part.n("num_layers") + 1) * norm(dim, bias)
        rows = part.n("input_vocab_size") + part.n("block_size") + part.n("output_vocab_size")
        parts[name] = rows * dim + _bark_part(part) + norms
    dim, books, given = fine.n("hidden_size"), fine.n("n_codes_total"), fine.n("n_codes_given")
    norms = (2 * fine.n("num_layers") + 1) * norm(dim)
    vocab, out = fine.n("input_vocab_size"), fine.n("output_vocab_size")
    if vocab != out:
        raise Untold("output_vocab_size")
    rows = books * vocab + fine.n("block_size") + (1 if not given else 0) * out  # each head is the next book's vectors
    parts["fine"] = rows * dim + _bark_part(fine) + norms
    parts["codec"] = sum(encodec(codec).values())
    return parts


def musicgen_decoder(c: Given) -> int:
    dim, books, vocab = c.n("hidden_size"), c.n("num_codebooks"), c.n("vocab_size")
    hidden = c.n("ffn_dim")
    layer = 2 * attention(dim, bias=False) + mlp(dim, hidden, bias=False) + 3 * norm(dim)
    return books * (vocab + 1) * dim + c.n("num_hidden_layers") * layer + norm(dim) + books * vocab * dim


def musicgen(c: Given, text: Given, codec: Given, decoder: Given) -> Parts:
    """T5's encoder reads, a decoder writes four streams of codes, EnCodec speaks them."""
    from brolly.identity.plans.seq2seq import t5

    if c.architecture not in ("", "MusicgenForConditionalGeneration"):
        raise Untold(c.architecture)
    if text.config.get("model_type") != "t5" or codec.config.get("model_type") != "encodec":
        raise Untold("text_encoder")
    reader = Given({**text.config, "architectures": ["T5EncoderModel"]}, text.defaults)
    voice = Given({**codec.config, "architectures": ["EncodecModel"]}, codec.defaults)
    dim, read = decoder.n("hidden_size"), text.n("d_model")
    joint = linear(read, dim) if read != dim and decoder.get("cross_attention_hidden_size") is None else 0
    return {
        "text_encoder": sum(t5(reader).values()),
        "codec": sum(encodec(voice).values()),
        "decoder": musicgen_decoder(decoder),
        "projection": joint,
    }
