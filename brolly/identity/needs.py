"""What it takes to run a model here: disk, memory, the cache of a context, FLOP, memory for training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from brolly.card import Evidence
from brolly.errors import BrollyError
from brolly.identity import machine
from brolly.identity.anatomy import Anatomy, text_config
from brolly.identity.answers import Needs, Parameters
from brolly.identity.sizes import adapter, anatomy_for
from brolly.identity.subject import size_of

if TYPE_CHECKING:
    from brolly.identity.subject import Subject

RANK = 16  # of the LoRA whose memory is told
ADAMW = 16  # bytes a trained number: 2 of weight, 2 of gradient, 4 of the float32 copy, 8 of both moments
FOUR_BIT = 4.25  # bits: a 16-bit scale for every 64 numbers
MEMORY = {"F32": 32, "BF16": 16, "8-bit": 8, "4-bit": FOUR_BIT}
LONGEST = 2**31  # tokens; what says more says no limit


def needs_of(subject: Subject, parameters: Parameters) -> Needs:
    """The needs, each with how it is known. Never raises for what files say."""
    why: list[Evidence] = []
    anatomy = anatomy_for(subject)
    disk = disk_of(subject)
    stored = subject.header.n_bytes or None
    lost = any(f.finding == "missing-shards" for f in subject.faults)
    total = parameters.total
    if lost and total:
        stored, disk = promised(subject), None
    memory: dict[str, int] = {}
    if stored:
        memory["as stored"] = stored
        why.append(
            Evidence("needs.memory.as stored", "", "", f"{stored:,} bytes", "all tensors, scales and indices included")
        )
    if total:
        memory |= {word: int(total * bits / 8) for word, bits in MEMORY.items()}
        why.append(
            Evidence("needs.memory.4-bit", "", "", f"{FOUR_BIT} bits a number", "a 16-bit scale for every 64 numbers")
        )
    context = context_of(subject, anatomy, why)
    per_token, full = cache_of(subject, anatomy, context, why)
    flop = flop_of(subject, anatomy, parameters, context, why)
    training = {} if adapter(subject) else training_of(anatomy, parameters, stored, why)
    free = machine.memory()
    wanted = stored or memory.get(precision_word(parameters))
    fits = wanted <= free.free if wanted and free else None
    if free:
        why.append(
            Evidence(
                "needs.machine_memory", free.source, "", f"{free.free:,} bytes", "free now; the weights alone must fit"
            )
        )
    speed = tokens_a_second(anatomy, parameters, wanted, fits, why)
    return Needs(
        disk, memory, context, per_token, full, flop, training, fits, free.free if free else None,
        speed[0], speed[1], tuple(why),
    )  # fmt: skip


def precision_word(parameters: Parameters) -> str:
    """The row of `memory` that comes next to how the numbers would be stored."""
    word = parameters.precision or "BF16"
    if word in ("F32", "F64"):
        return "F32"
    if word in ("INT8", "FP8_E4M3", "FP8_E5M2", "Q8_0"):
        return "8-bit"
    return "BF16" if word in ("BF16", "F16") else "4-bit"


def disk_of(subject: Subject) -> int | None:
    """Bytes of the weight files."""
    try:
        return sum(size_of(file) for file in subject.header.files) or None
    except (BrollyError, OSError):
        return None


def promised(subject: Subject) -> int | None:
    """Bytes of all tensors, as the index of an incomplete checkpoint says."""
    for name in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        said = subject.json(name).get("metadata")
        if isinstance(said, Mapping) and type(size := said.get("total_size")) is int and 0 < size < 2**50:
            return size
    return None


def context_of(subject: Subject, anatomy: Anatomy | None, why: list[Evidence]) -> int | None:
    """The longest context in tokens; YaRN's stretched one where the config has it; None where there is no limit."""
    header = subject.header
    if isinstance(name := header.metadata.get("general.architecture"), str):
        said = header.metadata
        rope = f"{name}.rope.scaling"
        scaling = {
            "rope_type": said.get(f"{rope}.type"),
            "factor": said.get(f"{rope}.factor"),
            "original_max_position_embeddings": said.get(f"{rope}.original_context_length"),
        }
        return stretched(said.get(f"{name}.context_length"), scaling, f"{name}.context_length", header.path.name, why)
    config = text_config(header.config)
    if anatomy is not None:
        base = anatomy.context
    else:
        from brolly.identity.plans import context_of as planned

        parts = header.config.get("components")
        inner = parts.get("text_encoder") if isinstance(parts, Mapping) else None
        base = planned(inner) if isinstance(inner, Mapping) else planned(header.config)
        if base is None and causal(header.config):
            value = config.get("max_position_embeddings") or config.get("max_seq_len")
            base = value if type(value) is int else None
    if base is None and anatomy is not None and any(layer.cached for layer in anatomy.layers):
        limit = subject.json("tokenizer_config.json").get("model_max_length")
        if type(limit) is int and 0 < limit < LONGEST:
            text = "the tokenizer's limit"
            why.append(Evidence("context_length", "tokenizer_config.json", "model_max_length", f"{limit:,}", text))
            return limit
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    return stretched(
        base, scaling if isinstance(scaling, Mapping) else {}, "max_position_embeddings", "config.json", why
    )


def stretched(base: Any, scaling: Mapping[str, Any], key: str, file: str, why: list[Evidence]) -> int | None:
    """YaRN stretches the context it was trained with by its factor; other scalings are in the stated length already."""
    if type(base) is not int or not 0 < base < LONGEST:
        return None
    inner = scaling.get("full_attention")
    scaling = inner if isinstance(inner, Mapping) else scaling
    factor, original = scaling.get("factor"), scaling.get("original_max_position_embeddings")
    kind = scaling.get("rope_type") or scaling.get("type")
    if kind == "yarn" and isinstance(factor, (int, float)) and 1 < factor <= 1024:
        long = int(factor * (original if type(original) is int and 0 < original <= base else base))
        if base < long < LONGEST:
            why.append(
                Evidence("context_length", file, "rope_scaling", f"yarn, {factor:g}", f"stretches {base:,} to {long:,}")
            )
            return long
    why.append(Evidence("context_length", file, key, f"{base:,}", "as stated"))
    return base


def causal(config: Mapping[str, Any]) -> bool:
    said = config.get("architectures")
    return isinstance(said, list) and any(
        isinstance(a, str) and a.endswith(("ForCausalLM", "LMHeadModel")) for a in said
    )


def cache_of(
    subject: Subject, anatomy: Anatomy | None, context: int | None, why: list[Evidence]
) -> tuple[int | None, int | None]:
    """Bytes that a token's keys and values take at 16 bits, and those of a full context; None without attention."""
    if anatomy is None:
        return cached_by_shapes(subject, why), None
    per_token = anatomy.cache(1)
    if not per_token:
        if anatomy.state:
            why.append(
                Evidence(
                    "kv_bytes_per_token",
                    "config.json",
                    "",
                    "none",
                    f"a state of {anatomy.state:,} numbers, however long",
                )
            )
        return None, None
    attending = [layer for layer in anatomy.layers if layer.cached]
    windowed = [layer for layer in attending if layer.window]
    one = attending[0]
    how = (
        "a compressed vector and a rotary key for all heads"
        if anatomy.mla
        else f"{one.n_kv_heads} key-value heads of {one.k_dim}"
    )
    text = f"{len(attending)} of {len(anatomy.layers)} layers keep keys and values: {how}"
    text += f"; {len(windowed)} of them of a window of {windowed[0].window:,} tokens" if windowed else ""
    text += f"; beside them a state of {anatomy.state:,} numbers, however long" if anatomy.state else ""
    why.append(Evidence("kv_bytes_per_token", "config.json", "", f"{per_token:,} bytes", text))
    return per_token, anatomy.cache(context) if context else None


def cached_by_shapes(subject: Subject, why: list[Evidence]) -> int | None:
    """Where the type is not known: the rows of key and value projections, if the names are a decoder's usual ones."""
    if not causal(subject.header.config):
        return None
    rows = 0
    for name, info in subject.header.tensors.items():
        if name.endswith((".self_attn.k_proj.weight", ".self_attn.v_proj.weight")) and info.dtype in (
            "BF16",
            "F16",
            "F32",
        ):
            rows += info.shape[0] if len(info.shape) == 2 else 0
        elif "kv_a_proj" in name or "linear_attn" in name or "mamba" in name:
            return None
    if not rows:
        return None
    why.append(
        Evidence("kv_bytes_per_token", "", "k_proj, v_proj", f"{rows:,} rows", "shapes alone; windows are not known")
    )
    return 2 * rows


def flop_of(
    subject: Subject, anatomy: Anatomy | None, parameters: Parameters, context: int | None, why: list[Evidence]
) -> float | None:
    """FLOP of one token's forward pass: two for each number it meets, without the products of attention."""
    touched = parameters.activated_without_embeddings
    if not touched or adapter(subject) or not (anatomy or causal(subject.header.config)):
        return None
    flop = 2.0 * (touched + (anatomy.reused if anatomy else 0))
    why.append(
        Evidence(
            "needs.flop_per_token",
            "",
            "",
            f"2 · {touched:,}",
            "a product and a sum for each number; attention comes on top",
        )
    )
    if anatomy and context and (more := anatomy.attention_flop(context)):
        why.append(
            Evidence(
                "needs.flop_per_token", "", "", f"{more:.2e} FLOP", f"attention's share on top at {context:,} tokens"
            )
        )
    return flop


def training_of(
    anatomy: Anatomy | None, parameters: Parameters, stored: int | None, why: list[Evidence]
) -> dict[str, int]:
    """Bytes to train with AdamW in mixed precision without activations; LoRA on linear layers outside of experts."""
    total = parameters.total
    if not total:
        return {}
    found = {}
    if anatomy and (width := adapted(anatomy)):
        base = stored if stored and parameters.quantization else total * 2
        found["lora"] = base + RANK * width * ADAMW
        text = f"the base and {ADAMW} bytes for each trained number; activations come on top"
        why.append(Evidence("needs.training_memory.lora", "", "", f"rank {RANK}, {RANK * width:,} numbers", text))
    found["full"] = total * ADAMW
    text = "AdamW, mixed precision: weight, gradient, float32 copy, two moments; activations come on top"
    why.append(Evidence("needs.training_memory.full", "", "", f"{ADAMW} bytes a number", text))
    return found


def adapted(anatomy: Anatomy) -> int:
    """Rows and columns of all linear layers outside of experts: a LoRA of rank r trains r times as many numbers."""
    d, n = anatomy.dim, 0
    for x in anatomy.layers:
        if x.cached:
            n += 2 * (d + x.n_heads * x.k_dim) + d + x.n_kv_heads * x.k_dim + d + x.n_kv_heads * x.v_dim
        if x.mlp == "dense":
            n += 3 * (d + x.hidden)
    return n


def tokens_a_second(
    anatomy: Anatomy | None, parameters: Parameters, stored: int | None, fits: bool | None, why: list[Evidence]
) -> tuple[float | None, float | None]:
    """Tokens a second if memory were the only limit, and the bandwidth that it is reckoned with; both estimates."""
    if not (fits and stored and anatomy and parameters.total and parameters.activated_without_embeddings):
        return None, None
    speed = machine.bandwidth()
    if not speed:
        return None, None
    read = stored * parameters.activated_without_embeddings / parameters.total
    text = f"an estimate: one core's reading of {machine.LOOKED >> 20} MiB; several cores, or a GPU, move more"
    why.append(Evidence("needs.tokens_per_second", "", "", f"{speed:.2e} bytes/s", text))
    cards = machine.gpus()
    if cards:
        why.append(
            Evidence(
                "needs.tokens_per_second", "/proc/driver/nvidia", "", ", ".join(cards)[:100], "a GPU, not reckoned with"
            )
        )
    return speed / read, speed
