"""Text encoders: BERT and its descendants, with the head that the config's class has."""

from __future__ import annotations

from brolly.identity.plans.counting import Given, Untold, attention, block, conv1d, gated, linear, mlp, norm

Parts = dict[str, int]


def head_of(c: Given, *families: str) -> str:
    """What follows the family in the class's name: "Model", "ForMaskedLM" …; "Model" where there is no class."""
    name = c.architecture
    if not name:
        return "Model"
    for family in sorted(families, key=len, reverse=True):
        if name.startswith(family):
            return name[len(family) :]
    raise Untold(name)  # a class of somebody's own, whatever its model_type says


def _heads(c: Given, head: str, dim: int, pooler: int, masked: int, *, deep: bool = False) -> int:
    """A head's parameters. `pooler`: of the base model; `deep`: classification by two layers in place of the pooler."""
    if head == "Model":
        return pooler
    if head in ("ForMaskedLM", "LMHeadModel", "ForCausalLM"):
        return masked
    if head == "ForSequenceClassification":
        return (linear(dim, dim) if deep else pooler) + linear(dim, c.n_labels)
    if head in ("ForTokenClassification", "ForQuestionAnswering"):
        return linear(dim, c.n_labels)  # of a question: start and end, two labels unless the config says otherwise
    if head == "ForMultipleChoice":
        return pooler + linear(dim, 1)
    raise Untold(head)


def _language_head(c: Given, dim: int, embedding: int, vocab: int) -> int:
    """Dense layer, norm, and the words' own vectors as output, with a bias of its own."""
    return linear(dim, embedding) + norm(embedding) + vocab + (0 if c.tied else vocab * embedding)


def _stack(c: Given, layer: int) -> int:
    return c.n("num_hidden_layers") * layer


def _bert_layer(c: Given) -> int:
    if c.word("position_embedding_type", "absolute") != "absolute":
        raise Untold("position_embedding_type")
    dim = c.n("hidden_size")
    crossed = c.on("add_cross_attention", False)
    return block(dim, c.n("intermediate_size")) + crossed * (attention(dim) + norm(dim))


def bert(c: Given) -> Parts:
    head = head_of(c, "Bert", "BigBird", "Ernie")
    dim, vocab = c.n("hidden_size"), c.n("vocab_size")
    pooler = linear(dim, dim)
    masked = _language_head(c, dim, dim, vocab)
    if head in ("ForPreTraining", "ForNextSentencePrediction"):
        extra = pooler + linear(dim, 2) + (masked if head == "ForPreTraining" else 0)
    else:
        extra = _heads(c, head, dim, pooler, masked)
    rows = vocab + c.n("max_position_embeddings") + c.n("type_vocab_size")
    rows += c.n("task_type_vocab_size") if c.on("use_task_id", False) else 0
    return {"embedding": rows * dim + norm(dim), "encoder": _stack(c, _bert_layer(c)), "head": extra}


def big_bird(c: Given) -> Parts:
    if not c.on("use_bias", True):
        raise Untold("use_bias")
    head = head_of(c, "BigBird")
    if head in ("ForSequenceClassification", "ForQuestionAnswering"):
        raise Untold(head)  # heads of their own
    dim = c.n("hidden_size")
    spare = linear(dim, dim) if head in ("ForMaskedLM", "ForTokenClassification") else 0  # a pooler that goes unused
    return {**(parts := bert(c)), "head": parts["head"] + spare}


def roberta(c: Given) -> Parts:
    head = head_of(c, "Roberta", "XLMRoberta", "XLMRobertaXL", "Camembert", "Data2VecText")
    dim, vocab = c.n("hidden_size"), c.n("vocab_size")
    rows = vocab + c.n("max_position_embeddings") + c.n("type_vocab_size")
    extra = _heads(c, head, dim, linear(dim, dim), _language_head(c, dim, dim, vocab), deep=True)
    return {"embedding": rows * dim + norm(dim), "encoder": _stack(c, _bert_layer(c)), "head": extra}


def longformer(c: Given) -> Parts:
    head = head_of(c, "Longformer")
    dim, vocab = c.n("hidden_size"), c.n("vocab_size")
    rows = vocab + c.n("max_position_embeddings") + c.n("type_vocab_size")
    layer = block(dim, c.n("intermediate_size")) + 3 * linear(dim, dim)  # query, key, value of global attention
    extra = _heads(c, head, dim, linear(dim, dim), _language_head(c, dim, dim, vocab), deep=True)
    return {"embedding": rows * dim + norm(dim), "encoder": _stack(c, layer), "head": extra}


def distilbert(c: Given) -> Parts:
    head = head_of(c, "DistilBert")
    dim, vocab = c.n("dim"), c.n("vocab_size")
    masked = _language_head(c, dim, dim, vocab)
    if head == "ForMultipleChoice":
        extra = linear(dim, dim) + linear(dim, 1)
    else:
        extra = _heads(c, head, dim, 0, masked, deep=True)
    rows = vocab + c.n("max_position_embeddings")
    stack = c.n("n_layers") * block(dim, c.n("hidden_dim"))
    return {"embedding": rows * dim + norm(dim), "encoder": stack, "head": extra}


def albert(c: Given) -> Parts:
    head = head_of(c, "Albert")
    dim, inner, vocab = c.n("hidden_size"), c.n("embedding_size"), c.n("vocab_size")
    rows = vocab + c.n("max_position_embeddings") + c.n("type_vocab_size")
    pooler = linear(dim, dim)
    masked = _language_head(c, dim, inner, vocab)
    if head == "ForPreTraining":
        extra = pooler + masked + linear(dim, c.n_labels)
    else:
        extra = _heads(c, head, dim, pooler, masked)
    stack = c.n("num_hidden_groups") * c.n("inner_group_num") * block(dim, c.n("intermediate_size"))
    return {"embedding": rows * inner + norm(inner), "encoder": linear(inner, dim) + stack, "head": extra}


def electra(c: Given) -> Parts:
    head = head_of(c, "Electra")
    dim, inner, vocab = c.n("hidden_size"), c.n("embedding_size"), c.n("vocab_size")
    rows = vocab + c.n("max_position_embeddings") + c.n("type_vocab_size")
    if head == "ForPreTraining" or head == "ForMultipleChoice":
        extra = linear(dim, dim) + linear(dim, 1)
    else:
        extra = _heads(c, head, dim, 0, _language_head(c, dim, inner, vocab), deep=True)
    projection = linear(inner, dim) if inner != dim else 0
    return {
        "embedding": rows * inner + norm(inner),
        "encoder": projection + _stack(c, _bert_layer(c)),
        "head": extra,
    }


def mpnet(c: Given) -> Parts:
    head = head_of(c, "MPNet")
    dim, vocab = c.n("hidden_size"), c.n("vocab_size")
    rows = vocab + c.n("max_position_embeddings")
    relative = c.n("relative_attention_num_buckets") * c.n("num_attention_heads")
    extra = _heads(c, head, dim, linear(dim, dim), _language_head(c, dim, dim, vocab), deep=True)
    stack = _stack(c, block(dim, c.n("intermediate_size"))) + relative
    return {"embedding": rows * dim + norm(dim), "encoder": stack, "head": extra}


def deberta_v2(c: Given) -> Parts:
    head = head_of(c, "DebertaV2")
    dim, vocab = c.n("hidden_size"), c.n("vocab_size")
    inner = c.n("embedding_size", default=dim)
    rows = vocab + c.n("type_vocab_size")
    rows += c.n("max_position_embeddings") if c.on("position_biased_input", True) else 0
    embedding = rows * inner + norm(dim) + (linear(inner, dim, False) if inner != dim else 0)
    layer = block(dim, c.n("intermediate_size"))
    relative = 0
    if c.on("relative_attention", False):
        buckets = c.get("position_buckets")
        reach = c.get("max_relative_positions")
        reach = reach if type(reach) is int and reach > 0 else c.n("max_position_embeddings")
        relative = 2 * (buckets if type(buckets) is int and buckets > 0 else reach) * dim
        relative += norm(dim) if "layer_norm" in str(c.get("norm_rel_ebd") or "none") else 0
        if not c.on("share_att_key", False):
            kinds = c.get("pos_att_type") or ()
            kinds = kinds.split("|") if isinstance(kinds, str) else kinds
            layer += sum(linear(dim, dim) for kind in ("c2p", "p2c") if kind in kinds)
    kernel = c.n("conv_kernel_size", default=0)
    if kernel:
        relative += conv1d(dim, dim, kernel, groups=c.n("conv_groups", default=1)) + norm(dim)
    pooler = c.n("pooler_hidden_size", default=dim)
    if head == "ForSequenceClassification":
        extra = linear(pooler, pooler) + linear(pooler, c.n_labels)
    elif head == "ForMaskedLM" and c.on("legacy", True):
        extra = linear(dim, inner) + norm(inner) + vocab + (0 if c.tied else vocab * inner)
    elif head in ("Model", "ForTokenClassification", "ForQuestionAnswering"):
        extra = _heads(c, head, dim, 0, 0)
    else:
        raise Untold(head)
    return {"embedding": embedding, "encoder": _stack(c, layer) + relative, "head": extra}


def modernbert(c: Given) -> Parts:
    head = head_of(c, "ModernBert")
    dim, hidden, vocab = c.n("hidden_size"), c.n("intermediate_size"), c.n("vocab_size")
    bias, b, m = c.on("norm_bias", False), c.on("attention_bias", False), c.on("mlp_bias", False)
    n = c.n("num_hidden_layers")
    layer = attention(dim, bias=b) + linear(dim, 2 * hidden, m) + linear(hidden, dim, m)
    stack = n * layer + 2 * n * norm(dim, bias)  # the first layer has no norm, the stack has one at its end
    dense = linear(dim, dim, c.on("classifier_bias", False)) + norm(dim, bias)
    if head == "Model":
        extra = 0
    elif head == "ForMaskedLM":
        extra = dense + c.on("decoder_bias", True) * vocab + (0 if c.tied else vocab * dim)
    elif head in ("ForSequenceClassification", "ForTokenClassification"):
        extra = dense + linear(dim, c.n_labels)
    else:
        raise Untold(head)
    return {"embedding": vocab * dim + norm(dim, bias), "encoder": stack, "head": extra}


def nomic_bert(c: Given) -> Parts:
    """Nomic's own spelling (n_embd …) or transformers'; the published models have no biases."""
    head = head_of(c, "NomicBert")
    dim, vocab = c.n("n_embd", "hidden_size"), c.n("vocab_size")
    if head != "Model" or c.n("num_experts", default=0) or c.get("expert_choice_router"):
        raise Untold(head)
    if any(c.get(name) for name in ("qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias")):
        raise Untold("biases")
    if c.word("activation_function", "swiglu") != "swiglu" or c.word("hidden_act", "silu") != "silu":
        raise Untold("activation_function")
    layer = attention(dim, bias=False) + gated(dim, c.n("n_inner", "intermediate_size")) + 2 * norm(dim)
    return {
        "embedding": (vocab + c.n("type_vocab_size")) * dim + norm(dim),
        "encoder": c.n("n_layer", "num_hidden_layers") * layer,
        "head": 0,
    }


def gte(c: Given) -> Parts:
    """Alibaba's `new`, gte-*-v1.5: 136,776,192 and 434,139,136 parameters are published for base and large."""
    head = head_of(c, "New")
    dim, vocab, hidden = c.n("hidden_size"), c.n("vocab_size"), c.n("intermediate_size")
    if c.word("position_embedding_type", "rope") != "rope":
        raise Untold("position_embedding_type")
    layer = attention(dim) + linear(dim, 2 * hidden, False) + linear(hidden, dim) + 2 * norm(dim)
    if head in ("ForMaskedLM", "ForMultipleChoice"):
        raise Untold(head)
    extra = _heads(c, head, dim, 0, 0, deep=True)
    return {
        "embedding": (vocab + c.n("type_vocab_size")) * dim + norm(dim),
        "encoder": _stack(c, layer),
        "head": extra,
    }


def xlnet(c: Given) -> Parts:
    head = head_of(c, "XLNet")
    dim, vocab = c.n("d_model"), c.n("vocab_size")
    layer = 5 * dim * dim + 3 * dim + 2 * dim + mlp(dim, c.n("d_inner")) + 2 * norm(dim)
    if head == "LMHeadModel":
        extra = vocab + (0 if c.tied else vocab * dim)
    elif head == "Model":
        extra = 0
    elif head == "ForSequenceClassification":
        extra = linear(dim, dim) + linear(dim, c.n_labels)
    else:
        raise Untold(head)
    return {"embedding": (vocab + 1) * dim, "encoder": c.n("n_layer") * layer, "head": extra}


def deberta(c: Given) -> Parts:
    """The first DeBERTa: queries and values have biases, keys have none."""
    head = head_of(c, "Deberta")
    dim, vocab = c.n("hidden_size"), c.n("vocab_size")
    if c.on("talking_head", False) or c.n("embedding_size", default=dim) != dim:
        raise Untold("talking_head")
    rows = (
        vocab + c.n("type_vocab_size") + (c.n("max_position_embeddings") if c.on("position_biased_input", True) else 0)
    )
    layer, relative = block(dim, c.n("intermediate_size")) - dim, 0
    if c.on("relative_attention", False):
        reach = c.get("max_relative_positions")
        relative = 2 * (reach if type(reach) is int and reach > 0 else c.n("max_position_embeddings")) * dim
        kinds = c.get("pos_att_type") or ()
        kinds = kinds.split("|") if isinstance(kinds, str) else kinds
        layer += ("c2p" in kinds) * linear(dim, dim, False) + ("p2c" in kinds) * linear(dim, dim)
    if head == "ForSequenceClassification":
        extra = linear(dim, dim) + linear(dim, c.n_labels)
    elif head == "ForMaskedLM" and c.on("legacy", True):
        extra = _language_head(c, dim, dim, vocab)
    elif head in ("Model", "ForTokenClassification", "ForQuestionAnswering"):
        extra = _heads(c, head, dim, 0, 0)
    else:
        raise Untold(head)
    return {"embedding": rows * dim + norm(dim), "encoder": _stack(c, layer) + relative, "head": extra}
