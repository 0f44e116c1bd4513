"""Shapes of known models: the numbers of a config that tell one lineage from its kin, in whatever spelling it came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from brolly.identity.tables import table

if TYPE_CHECKING:
    from brolly.identity.subject import Subject

TYPES = ("model_type", "_class_name")
SPELLINGS = {
    "hidden_size": ("hidden_size", "n_embd", "d_model", "dim", "n_embed"),
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "num_key_value_heads": ("num_key_value_heads", "n_kv_heads", "num_kv_heads", "multi_query_group_num"),
    "intermediate_size": ("intermediate_size", "ffn_dim", "d_ff", "n_inner", "hidden_dim", "ffn_hidden_size"),
    "vocab_size": ("vocab_size", "padded_vocab_size"),
    "max_position_embeddings": ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"),
    "num_experts": ("num_experts", "n_routed_experts", "num_local_experts"),
    "num_mel_bins": ("num_mel_bins", "n_mels"),
}
ONE = {spelling: name for name, spellings in SPELLINGS.items() for spelling in spellings}
INNER = ("text_config", "llm_config", "language_config", "thinker_config", "decoder")
SOFT = ("max_position_embeddings", "rope_theta")  # where a file is silent, it does not speak against a row
WHISPER = {"n_audio_state": "hidden_size", "n_audio_layer": "encoder_layers", "n_text_layer": "decoder_layers",
           "n_vocab": "vocab_size", "n_mels": "num_mel_bins"}  # fmt: skip

# GGUF's architecture → model types that llama.cpp writes as it, where the name differs
ARCHITECTURES = {
    "llama": ("llama", "mistral", "mixtral", "internlm3", "ministral"), "qwen2": ("qwen2",), "qwen2moe": ("qwen2_moe",),
    "qwen3moe": ("qwen3_moe",), "qwen2vl": ("qwen2_vl", "qwen2_5_vl"), "qwen3vl": ("qwen3_vl",),
    "qwen3vlmoe": ("qwen3_vl_moe",), "qwen3next": ("qwen3_next",), "qwen35": ("qwen3_5",),
    "qwen35moe": ("qwen3_5_moe",),
    "gemma3": ("gemma3", "gemma3_text"), "gemma-embedding": ("gemma3_text",), "gpt-oss": ("gpt_oss",),
    "gptneox": ("gpt_neox",), "starcoder": ("gpt_bigcode",), "deepseek2": ("deepseek_v2", "deepseek_v3", "kimi_k2"),
    "command-r": ("cohere",), "cohere2": ("cohere2",), "phi2": ("phi",), "glm4moe": ("glm4_moe",),
    "minimax-m2": ("minimax_m2",), "grok": ("grok-1",), "nemotron_h_moe": ("nemotron_h",),
    "mistral3": ("mistral3", "ministral3"), "ernie4_5-moe": ("ernie4_5_moe",), "nomic-bert": ("nomic_bert",),
    "modern-bert": ("modernbert",), "jina-bert-v2": ("jina_bert",), "glm-dsa": ("glm_moe_dsa",),
    "mimo2": ("mimo_v2_flash",), "bert": ("bert", "roberta", "xlm-roberta"),
}  # fmt: skip
GGUF = {
    "hidden_size": "embedding_length", "num_hidden_layers": "block_count", "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count", "num_key_value_heads": "attention.head_count_kv",
    "max_position_embeddings": "context_length", "rope_theta": "rope.freq_base", "num_experts": "expert_count",
    "moe_intermediate_size": "expert_feed_forward_length", "vocab_size": "vocab_size",
}  # fmt: skip


class Told(NamedTuple):
    """The shape that files tell. `types` is empty where they name none; `says` are the keys that this form can say."""

    types: frozenset[str]
    config: Mapping[str, Any]
    says: frozenset[str] | None = None  # None: a whole config, which is silent on nothing that a row asks

    def number(self, name: str) -> Any:
        """The value at a key, in any spelling, flat or within the language model's own part."""
        if "." in name:
            outer, _, inner = name.partition(".")
            part = self.config.get(outer)
            return part.get(inner) if isinstance(part, Mapping) else None
        for part in (self.config, *(self.config.get(inner) for inner in INNER)):
            if not isinstance(part, Mapping):
                continue
            for spelling in SPELLINGS.get(ONE.get(name, ""), (name,)):
                if part.get(spelling) is not None:
                    return part[spelling]
            rope = part.get("rope_parameters")
            if name == "rope_theta" and isinstance(rope, Mapping) and "rope_theta" in rope:
                return rope["rope_theta"]
            if name == "num_key_value_heads" and part.get("num_attention_heads") is not None:
                return part["num_attention_heads"]
        return None


NOTHING = Told(frozenset(), {})


def told(subject: Subject) -> Told:
    """The shape that a model's files tell, of whichever format."""
    header = subject.header
    config = header.config
    if header.format == "gguf":
        return _gguf(header.metadata, header.tensors)
    if not config.get("model_type") and subject.has("model_index.json"):
        config = subject.json("transformer/config.json") or subject.json("unet/config.json")
    kind = next((config[k] for k in TYPES if isinstance(config.get(k), str)), "")
    if kind:
        return Told(frozenset([kind]), config)
    dims = config.get("dims") if isinstance(config.get("dims"), Mapping) else config
    if isinstance(dims, Mapping) and "n_audio_state" in dims:
        return Told(frozenset(["whisper"]), {new: dims.get(old) for old, new in WHISPER.items()})
    if header.format == "meta" or {"dim", "n_layers", "n_heads"} <= set(config):
        return _meta(config, header.tensors)
    return NOTHING


def _meta(config: Mapping[str, Any], tensors: Mapping[str, Any]) -> Told:
    """Meta's and Mistral's params.json, which name no type and may leave the vocabulary to the tensors."""
    numbers: dict[str, Any] = {k: v for k, v in config.items() if isinstance(v, (int, float))}
    embedding = tensors.get("tok_embeddings.weight")
    if embedding is not None and len(embedding.shape) == 2:
        numbers["vocab_size"] = max(embedding.shape[0], numbers.get("vocab_size", 0))  # a rank may hold a part of it
    if numbers.get("vocab_size", 0) < 1:
        numbers.pop("vocab_size", None)
    moe = config.get("moe")
    numbers["num_experts"] = moe.get("num_experts") if isinstance(moe, Mapping) else 0
    numbers.setdefault("n_kv_heads", numbers.get("n_heads"))
    says = frozenset(ONE.get(k, k) for k in numbers) - {"max_position_embeddings"}
    return Told(frozenset(["llama", "mistral", "mixtral"]), numbers, says)


def _gguf(metadata: Mapping[str, Any], tensors: Mapping[str, Any]) -> Told:
    name = metadata.get("general.architecture")
    if not isinstance(name, str):
        return NOTHING
    numbers = {k: metadata.get(f"{name}.{gguf}") for k, gguf in GGUF.items()}
    numbers = {k: v for k, v in numbers.items() if isinstance(v, (int, float))}
    embedding = tensors.get("token_embd.weight")
    if embedding is not None and len(embedding.shape) == 2:
        numbers["vocab_size"] = embedding.shape[0]
    if "num_experts" not in numbers:
        numbers["num_experts"] = 0
    if name in ("deepseek2", "nemotron_h_moe"):
        numbers.pop("num_key_value_heads", None)  # llama.cpp's own reading of latent attention
    elif "num_attention_heads" in numbers:
        numbers.setdefault("num_key_value_heads", numbers["num_attention_heads"])
    return Told(frozenset(ARCHITECTURES.get(name, (name.replace("-", "_"),))), numbers, frozenset(numbers))


def matching(here: Told) -> list[int]:
    """Rows whose every number this shape has; without those that another row among them tells more exactly."""
    found = []
    for kind in here.types:
        for number, shape in table("models_shapes.json").get(kind, ()):
            if _has(here, shape):
                found.append((number, shape))
    keys = [(n, {k: v for k, v in shape.items() if k not in SOFT}) for n, shape in found]
    return sorted(n for n, own in keys if not any(own.items() < other.items() for _, other in keys))


def _has(here: Told, shape: Mapping[str, Any]) -> bool:
    hits = 0
    for name, value in shape.items():
        mine = here.number(name)
        if mine is None:
            if name in SOFT or (
                here.says is not None and ONE.get(name, name) not in here.says and name != "vocab_size"
            ):
                continue
            return False
        if isinstance(mine, (Mapping, list)) or mine != value:
            return False
        hits += 1
    return hits >= min(2, len(shape))


def contradicts(shape: Mapping[str, Any], here: Told) -> bool:
    """Whether a row's shape cannot be this one: another type, width or depth."""
    if not shape or not here.types:
        return False
    kind = next((shape[k] for k in TYPES if k in shape), None)
    if kind is not None and kind not in here.types:
        return True
    for name, value in shape.items():
        mine = here.number(name) if ONE.get(name) in ("hidden_size", "num_hidden_layers") else None
        if mine is not None and mine != value:
            return True
    return False


__all__ = ["Told", "contradicts", "matching", "told"]
