"""Encoder-decoders of text: T5 and BART with their descendants."""

from __future__ import annotations

from brolly.identity.plans.counting import Given, Untold, attention, block, linear, norm

Parts = dict[str, int]


def _t5_parts(c: Given) -> tuple[int, int, int, int]:
    """Of an encoder layer, of a decoder layer, of one table of relative positions, of the words."""
    dim, inner, hidden = c.n("d_model"), c.n("num_heads") * c.n("d_kv"), c.n("d_ff")
    gates = 2 if c.word("feed_forward_proj", "relu").startswith("gated") else 1
    heart = attention(dim, inner, bias=False) + norm(dim, False)
    forward = (gates + 1) * dim * hidden + norm(dim, False)
    relative = c.n("relative_attention_num_buckets") * c.n("num_heads")
    return heart + forward, 2 * heart + forward, relative, c.n("vocab_size") * dim


def _t5(c: Given, everywhere: bool) -> Parts:
    """`everywhere`: each layer has its own relative positions, not the first alone."""
    encoder_layer, decoder_layer, relative, words = _t5_parts(c)
    dim, n = c.n("d_model"), c.n("num_layers")
    name = c.architecture
    encoder = n * encoder_layer + relative * (n if everywhere else 1) + norm(dim, False)
    parts = {"embedding": words, "encoder": encoder}
    if name.endswith("EncoderModel"):
        return parts
    m = c.n("num_decoder_layers", default=n)
    parts["decoder"] = m * decoder_layer + relative * (m if everywhere else 1) + norm(dim, False)
    if name.endswith("ForConditionalGeneration") or name.endswith("WithLMHeadModel") or not name:
        parts["head"] = 0 if c.tied else words
    elif not name.endswith("Model"):
        raise Untold(name)
    return parts


def t5(c: Given) -> Parts:
    if not c.architecture.startswith(("T5", "MT5")) and c.architecture:
        raise Untold(c.architecture)
    if c.config.get("model_type") == "mt5":
        _told(c)
    return _t5(c, everywhere=False)


def umt5(c: Given) -> Parts:
    if c.architecture and not c.architecture.startswith("UMT5"):
        raise Untold(c.architecture)
    _told(c)
    return _t5(c, everywhere=True)


def _told(c: Given) -> None:
    """mT5's head is its own, unless said otherwise; versions of transformers do not agree on what silence means."""
    if "tie_word_embeddings" not in c.config and not c.architecture.endswith("EncoderModel"):
        raise Untold("tie_word_embeddings")


def _bart_like(
    c: Given,
    family: str | tuple[str, ...],
    *,
    positions: int | None = 0,
    embedding_norm: bool = False,
    last_norm: bool = False,
    extra_per_encoder_layer: int = 0,
    encoder_positions: int | None = None,
) -> Parts:
    """`positions`: rows that a table of positions has beyond its length, or None where there is no learned table."""
    name = c.architecture
    if name and not name.startswith(family):
        raise Untold(name)
    dim, vocab = c.n("d_model"), c.n("vocab_size")
    m = c.n("decoder_layers")
    cross = attention(dim) + norm(dim)
    tables = encoder_table = 0
    if positions is not None:
        tables = (c.n("max_position_embeddings") + positions) * dim
        encoder_table = tables if encoder_positions is None else encoder_positions * dim
    ends = embedding_norm * norm(dim) + last_norm * norm(dim)
    encoder = c.n("encoder_layers") * (block(dim, c.n("encoder_ffn_dim")) + extra_per_encoder_layer) + ends
    parts = {"embedding": vocab * dim, "encoder": encoder + encoder_table}
    if name.endswith("EncoderModel"):
        return parts
    decoder_layer = block(dim, c.n("decoder_ffn_dim"))
    if name.endswith("ForCausalLM"):
        raise Untold(name)
    parts["decoder"] = m * (decoder_layer + cross) + ends + tables
    if name.endswith("ForSequenceClassification"):
        parts["head"] = linear(dim, dim) + linear(dim, c.n_labels)
    elif name.endswith(("ForConditionalGeneration", "MTModel", "Model")) or not name:
        language = name.endswith(("ForConditionalGeneration", "MTModel")) or not name
        parts["head"] = 0 if c.tied or not language else vocab * dim
    else:
        raise Untold(name)
    return parts


def bart(c: Given) -> Parts:
    return _bart_like(c, ("Bart", "PLBart"), positions=2, embedding_norm=True)


def mbart(c: Given) -> Parts:
    return _bart_like(c, "MBart", positions=2, embedding_norm=True, last_norm=True)


def pegasus(c: Given) -> Parts:
    return _bart_like(c, "Pegasus", last_norm=True)


def blenderbot(c: Given) -> Parts:
    return _bart_like(c, "Blenderbot", last_norm=True)


def marian(c: Given) -> Parts:
    if not c.on("share_encoder_decoder_embeddings", True):
        raise Untold("share_encoder_decoder_embeddings")
    return _bart_like(c, "Marian")


def m2m_100(c: Given) -> Parts:
    """M2M-100 and NLLB; their sinusoids are worked out, not kept."""
    return _bart_like(c, "M2M100", positions=None, last_norm=True)


def led(c: Given) -> Parts:
    dim = c.n("d_model")
    return _bart_like(
        LengthOf(c.config, c.defaults),
        "LED",
        embedding_norm=True,
        extra_per_encoder_layer=4 * linear(dim, dim) - linear(dim, dim),
        encoder_positions=c.n("max_encoder_position_embeddings"),
    )


class LengthOf(Given):
    """LED's config, whose decoder names its length otherwise."""

    def n(self, *names: str, default: int | None = None) -> int:
        if names == ("max_position_embeddings",):
            names = ("max_decoder_position_embeddings",)
        return super().n(*names, default=default)


def prophetnet(c: Given) -> Parts:
    name = c.architecture
    if name and not name.startswith(("ProphetNet", "XLMProphetNet")):
        raise Untold(name)
    dim, vocab, n_heads = c.n("hidden_size"), c.n("vocab_size"), c.n("num_encoder_attention_heads")
    if n_heads != c.n("num_decoder_attention_heads") or (name and not name.endswith("ForConditionalGeneration")):
        raise Untold(name)
    table = c.n("max_position_embeddings") * dim
    buckets = c.n("num_buckets") * n_heads
    encoder = c.n("num_encoder_layers") * block(dim, c.n("encoder_ffn_dim")) + table + norm(dim)
    cross = attention(dim) + norm(dim)
    layer = block(dim, c.n("decoder_ffn_dim")) + cross + linear(dim, buckets)
    decoder = c.n("num_decoder_layers") * layer + table + norm(dim) + c.n("ngram") * dim
    return {"embedding": vocab * dim, "encoder": encoder, "decoder": decoder, "head": 0 if c.tied else vocab * dim}
