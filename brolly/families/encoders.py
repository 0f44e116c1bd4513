"""What encoders of text share: names within BERT's blocks, sentence-transformers' modules, heads, sizes by shape."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from typing import Any

from brolly.card import Header, Rename
from brolly.configs import DenseConfig, HeadConfig, LateConfig, PoolConfig, Rope, StackConfig, TextEncoderConfig
from brolly.errors import CheckpointError
from brolly.families import towers
from brolly.families.towers import Shapes

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
LEGACY = {
    "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max", "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}  # fmt: skip
DENSE_ACTS = {"Tanh": "tanh", "Identity": "identity", "GELU": "gelu", "ReLU": "relu", "SiLU": "silu",
              "Sigmoid": "sigmoid"}  # fmt: skip
PARAMETER = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}  # the second two are TensorFlow's


def norm(pattern: str, to: str) -> tuple[Rename, ...]:
    """A norm's weight and bias under either of their names."""
    return tuple(Rename(rf"{pattern}\.{old}", f"{to}.{new}") for old, new in PARAMETER.items())


def embeddings(at: str) -> tuple[Rename, ...]:
    """BERT's three tables below `at`, and their norm."""
    return (
        Rename(rf"{at}embeddings\.position_ids", None),
        Rename(rf"{at}embeddings\.token_type_ids", None),
        Rename(rf"{at}embeddings\.word_embeddings\.weight", "embeddings.word.weight"),
        Rename(rf"{at}embeddings\.position_embeddings\.weight", "embeddings.position.weight"),
        Rename(rf"{at}embeddings\.token_type_embeddings\.weight", "embeddings.token_type.weight"),
        *norm(rf"{at}embeddings\.LayerNorm", "embeddings.norm"),
    )


def blocks(at: str) -> tuple[Rename, ...]:
    """BERT's blocks below `at`."""
    here, there = rf"{at}encoder\.layer\.(\d+)\.", r"encoder.layers.\1."
    parts = {"attention.self.query": "q", "attention.self.key": "k", "attention.self.value": "v",
             "attention.output.dense": "out"}  # fmt: skip
    return (
        *(Rename(here + re.escape(old) + r"\.(weight|bias)", rf"{there}self_attn.{p}_proj.\2")
          for old, p in parts.items()),
        *norm(rf"{here}attention\.output\.LayerNorm", f"{there}layer_norm1"),
        Rename(rf"{here}intermediate\.dense\.(weight|bias)", rf"{there}mlp.fc1.\2"),
        Rename(rf"{here}output\.dense\.(weight|bias)", rf"{there}mlp.fc2.\2"),
        *norm(rf"{here}output\.LayerNorm", f"{there}layer_norm2"),
    )  # fmt: skip


TWO_LAYER_HEAD = (
    Rename(r"classifier\.dense\.(weight|bias)", r"head.dense.\1"),
    Rename(r"classifier\.out_proj\.(weight|bias)", r"head.out.\1"),
)


def rotary_names(header: Header, at: str) -> tuple[Rename, ...]:
    """transformers' names of encoders with rotary positions (Nomic's, GTE's) below `at`, and BERT's classifier."""
    here, there = rf"{at}layers\.(\d+)\.", r"encoder.layers.\1."
    judges = "classifier.weight" in header.tensors
    return (
        *behind(header),
        Rename(rf"{here}self_attn\.([qkv])_proj\.(weight|bias)", rf"{there}self_attn.\2_proj.\3"),
        Rename(rf"{here}self_attn\.o_proj\.(weight|bias)", rf"{there}self_attn.out_proj.\2"),
        Rename(rf"{here}mlp\.gate_proj\.(weight|bias)", rf"{there}mlp.gate.\2"),
        Rename(rf"{here}mlp\.up_proj\.(weight|bias)", rf"{there}mlp.fc1.\2"),
        Rename(rf"{here}mlp\.down_proj\.(weight|bias)", rf"{there}mlp.fc2.\2"),
        Rename(rf"{here}post_attention_layernorm\.(weight|bias)", rf"{there}layer_norm1.\2"),
        Rename(rf"{here}post_mlp_layernorm\.(weight|bias)", rf"{there}layer_norm2.\2"),
        Rename(rf"{at}pooler\.dense\.(weight|bias)", r"head.dense.\1" if judges else None),
        Rename(r"classifier\.(weight|bias)", r"head.out.\1"),
    )


def modules(header: Header) -> list[Mapping[str, Any]]:
    """The steps behind the transformer that the folder lists, each with its `type`'s last word and its settings."""
    said = header.config.get("sentence_transformers")
    steps = said.get("modules") if isinstance(said, dict) else None
    return [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []


def behind(header: Header) -> tuple[Rename, ...]:
    """The layers behind the network, each in its folder; those that a head leaves no use for are left out."""
    places = [re.escape(f"{step['path']}/" * bool(step["path"])) for step in modules(header) if step["type"] == "Dense"]
    return tuple(Rename(rf"{place}linear\.(weight|bias)", rf"pool.dense.{i}.\1") for i, place in enumerate(places))


def pool(header: Header, usual: str = "mean") -> PoolConfig:
    """What the folder's modules say; a folder without them pools as is `usual`, and normalises."""
    steps = modules(header)
    if not steps:
        return PoolConfig((usual,))
    modes: tuple[str, ...] = ()
    dense: list[DenseConfig] = []
    kinds = [step.get("type") for step in steps]
    late = "Pooling" not in kinds and ("Dense" in kinds or "MultiVectorMask" in kinds)
    normalize = "Normalize" in kinds or (late and "MultiVectorMask" not in kinds)  # PyLate's code does, unsaid
    for step in steps:
        match step.get("type"):
            case "Pooling":
                modes = pooling_modes(header, step)
            case "Dense":
                dense.append(dense_layer(header, step))
            case "Dropout" | "Normalize" | "MultiVectorMask":
                pass
            case other:
                raise CheckpointError(
                    f"{header.path}: its modules.json lists a {other!r:.60}; expected Pooling, Dense or Normalize."
                )
    if not modes and not late:
        raise CheckpointError(f"{header.path}: its modules.json pools nowhere; expected a Pooling in it.")
    return PoolConfig(modes, tuple(dense), normalize, late_interaction(header, steps) if late else None)


def fitting(header: Header, pool: PoolConfig, dim: int) -> PoolConfig:
    """The pool, where each of its layers takes as many numbers as come to it. Raises CheckpointError."""
    width = dim * max(len(pool.modes), 1)
    for layer in pool.dense:
        if layer.in_dim != width:
            raise CheckpointError(f"{header.path}: a dense layer takes {layer.in_dim} numbers, and {width} come to it.")
        width = layer.out_dim
    return pool


def late_interaction(header: Header, steps: list[Mapping[str, Any]]) -> LateConfig:
    """ColBERT's settings, as sentence-transformers writes them, or PyLate, which has a flat key for each."""
    said = header.config["sentence_transformers"]
    mask = next((step for step in steps if step.get("type") == "MultiVectorMask"), None)
    words = (mask or {"skiplist_words": said.get("skiplist_words", list(string.punctuation))}).get("skiplist_words")
    grow = said.get("query_expansion")
    if grow is None and mask is None and said.get("do_query_expansion") is not False:
        usual = {"strategy": "fixed", "length": said.get("query_length") or 32}
        grow = {**usual, "attend": said.get("attend_to_expansion_tokens") is True}
    grow = grow if isinstance(grow, Mapping) else {}
    sizes = [said.get("query_length"), said.get("document_length"), grow.get("length", 0)]
    good = all(n is None or (type(n) is int and 0 <= n <= 2**16) for n in sizes)
    if not good or sizes[2] is None or not isinstance(words, (list, type(None))):
        raise CheckpointError(f"{header.path}: late interaction over {sizes!r:.80} tokens; expected whole numbers.")
    query, document, expand = sizes
    ceiling = expand if grow.get("strategy") == "fixed" else max(query, expand) if query else None
    token = grow.get("token")
    return LateConfig(
        ceiling or query, document, expand, token if isinstance(token, str) else None, grow.get("attend") is True,
        tuple(word for word in (words or [])[:4096] if isinstance(word, str)),
    )  # fmt: skip


def pooling_modes(header: Header, step: Mapping[str, Any]) -> tuple[str, ...]:
    """In the order in which they stand side by side. Raises CheckpointError where prompts are to be left out."""
    about = header.config.get("sentence_transformers")
    if (
        step.get("include_prompt") is False
        and isinstance(about, Mapping)
        and any((about.get("prompts") or {}).values())
    ):
        raise CheckpointError(f"{header.path} pools without the tokens of its prompts, which brolly cannot do yet.")
    said = step.get("pooling_mode")
    found = [said] if isinstance(said, str) else said if isinstance(said, list) else None
    if found is None:
        found = [mode for key, mode in LEGACY.items() if step.get(key)] or ["mean"]
    if not found or any(mode not in MODES or found.count(mode) > 1 for mode in found[: len(MODES) + 1]):
        raise CheckpointError(f"{header.path} pools by {found!r:.80}; expected some of {', '.join(MODES)}.")
    return tuple(found)


def dense_layer(header: Header, step: Mapping[str, Any]) -> DenseConfig:
    said = step.get("activation_function", "torch.nn.modules.activation.Tanh")
    act = DENSE_ACTS.get(str(said).rpartition(".")[2])
    sizes = step.get("in_features"), step.get("out_features")
    if act is None or step.get("use_residual") or not all(type(n) is int and 0 < n < 2**20 for n in sizes):
        raise CheckpointError(
            f"{header.path}: a dense layer of {sizes!r:.60} with {said!r:.60}; expected sizes, no residual and one of "
            f"{', '.join(DENSE_ACTS)}."
        )
    return DenseConfig(*sizes, bias=step.get("bias", True) is True, act=act)  # type: ignore[arg-type]


def context(header: Header, longest: int) -> int:
    """Most tokens of a text: max_seq_length where the folder says less than the network's own."""
    said = header.config.get("sentence_transformers")
    most = said.get("max_seq_length") if isinstance(said, dict) else None
    return min(most, longest) if type(most) is int and most > 0 else longest


def head(header: Header, found: Shapes, **more: Any) -> HeadConfig | None:
    """The classifier, where there is one."""
    if "head.out.weight" not in found:
        return None
    if (n_labels := found["head.out.weight"][0]) != 1:
        return classifier(header, n_labels, **more)
    said = header.config.get("sentence_transformers")
    act = said.get("activation_fn") if isinstance(said, dict) else None
    act = act or header.config.get("sbert_ce_default_activation_function") or "Sigmoid"
    kind = str(act).rpartition(".")[2]
    if kind not in ("Sigmoid", "Identity"):
        raise CheckpointError(f"{header.path}: scores pass through {act!r:.80}; expected Sigmoid or Identity.")
    labels = towers.labels_of(header, n_labels)
    return HeadConfig(labels, sigmoid=kind == "Sigmoid", **more)


def classifier(header: Header, n_labels: int, **more: Any) -> HeadConfig:
    """A head of several labels: of a text one is true, or each by itself."""
    kinds = header.config.get("architectures")
    if isinstance(kinds, list) and any(isinstance(kind, str) and "Token" in kind for kind in kinds):
        raise CheckpointError(
            f"{header.path} tells {n_labels} labels of each token apart; of classifiers, those of whole texts run."
        )
    problem = header.config.get("problem_type")
    if problem not in (None, "single_label_classification", "multi_label_classification"):
        raise CheckpointError(
            f"{header.path}: problem_type is {problem!r:.60} with {n_labels} outputs; expected a classification."
        )
    return HeadConfig(towers.labels_of(header, n_labels), sigmoid=problem == "multi_label_classification", **more)


def stack(header: Header, found: Shapes, n_heads: int, act: Any, norm_eps: float, **more: Any) -> StackConfig:
    """The blocks, whose heads and activation are not in the shapes."""
    first = "encoder.layers.0."
    (dim,), (hidden_dim, _) = found[f"{first}layer_norm2.weight"], found[f"{first}mlp.fc1.weight"]
    if not isinstance(act, str) or act not in towers.ACTS:
        raise CheckpointError(
            f"{header.path}: its activation is {act!r:.60}; expected one of {', '.join(towers.ACTS)}."
        )
    if dim % n_heads:
        raise CheckpointError(f"{header.path}: {dim} channels do not divide among {n_heads} heads.")
    n_layers = sum(re.fullmatch(r"encoder\.layers\.\d+\.layer_norm2\.weight", name) is not None for name in found)
    q, k, v, o = (f"{first}self_attn.{p}_proj.bias" in found for p in ("q", "k", "v", "out"))
    down, up = (f"{first}mlp.{part}.bias" in found for part in ("fc2", "fc1"))
    return StackConfig(
        dim, n_layers, n_heads, hidden_dim, norm_eps, towers.ACTS[act],
        gated=f"{first}mlp.gate.weight" in found, q_bias=q, k_bias=k, v_bias=v, o_bias=o, mlp_bias=down, up_bias=up,
        norm_bias=f"{first}layer_norm2.bias" in found, first_norm=f"{first}layer_norm1.weight" in found,
    )._replace(**more)  # fmt: skip


def encoder(header: Header, found: Shapes, blocks: StackConfig, **more: Any) -> TextEncoderConfig:
    """An encoder of these embeddings and blocks, with what its folder says comes behind, or its head."""
    first, longest = more.get("first_position", 0), more.pop("longest", None)
    positions = found.get("embeddings.position.weight", (0,))[0]
    longest = positions - first if positions else longest or header.whole("max_position_embeddings", high=2**30)
    if longest < 1:
        raise CheckpointError(f"{header.path}: {positions} positions from {first} on leave none for a text.")
    return TextEncoderConfig(
        blocks,
        vocab_size=found["embeddings.word.weight"][0],
        context=context(header, longest),
        n_positions=positions,
        n_types=found.get("embeddings.token_type.weight", (0,))[0],
        **({"pool": fitting(header, pool(header), blocks.dim)} | more),
    )


def rotary(header: Header, found: Shapes, act: str, theta: float) -> TextEncoderConfig:
    """An encoder of transformers' that has BERT's shape and one rotary embedding, of `theta` where it says none."""
    blocks = stack(
        header, found, header.whole("num_attention_heads"), header.config.get("hidden_act", act),
        float(header.number("layer_norm_eps", 1e-12, high=1)), post_norm=True,
    )  # fmt: skip
    at = "rope_parameters." if "rope_parameters" in header.config else ""
    if header.config.get("rope_parameters", {}).get("rope_type", "default") != "default":
        raise CheckpointError(f"{header.path}: its rotary embedding is stretched; expected the default kind.")
    turns = Rope(float(header.number(f"{at}rope_theta", theta, low=1e-3, high=1e15)))
    blocks = blocks._replace(ropes=(turns,) * blocks.n_layers)
    return encoder(header, found, blocks, head=head(header, found))


def is_hugging_face(header: Header, kinds: tuple[str, ...], tensor: str) -> bool:
    """By config.json's model_type, and by a tensor that such an encoder cannot lack."""
    known = header.config.get("model_type") in kinds
    return known and any(name.endswith(tensor) for name in header.tensors)
