"""How a model came from another: adapter, quantisation, merge, fine-tune, draft; from files, then from the card."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from brolly.card import Evidence
from brolly.identity.roles import one_line, part, whole, word, words

if TYPE_CHECKING:
    from brolly.identity.answers import Known
    from brolly.identity.roles import Told
    from brolly.identity.subject import Subject

MAX_BASES = 16
NAME = re.compile(r"(?=.*\w)[\w.@+ ()~-]+(/[\w.@+ ()~-]+)*")  # what is left of broken YAML is none
PLAIN = ("F64", "F32", "F16", "BF16")
# published in few bits by those who trained it: (method, part of the model type), so that the bits tell no copy
NATIVE = (("mxfp4", "gpt_oss"), ("fp8", "deepseek"), ("fp8", "kimi"), ("fp8", "minimax"), ("fp8", "longcat"),
          ("fp8", "glm"), ("compressed-tensors", "kimi"), ("fp8", "mimo"), ("bitnet", ""),
          ("fp8", "bailing"))  # fmt: skip
NATIVE_BLOCKS = {"gpt-oss": ("MXFP4",), "bitnet": ("TQ1_0", "TQ2_0")}


def relation_of(
    subject: Subject, told: Told | None, known: Known | None, named: bool
) -> tuple[str | None, tuple[str, ...], tuple[Evidence, ...]]:
    """The relation, the models that it was made from, and why. `named`: the known row has this model's own name."""
    card = _card_bases(subject)
    for find in (_draft, _adapter, _merge_file, _quantized, _card):
        found = find(subject, told, card)
        if found is not None:
            relation, bases, evidence = found
            why = [evidence]
            if relation != "merge" or not bases:
                bases = bases or card
            if bases:
                source = "README.md" if bases == card else evidence.file
                why.append(
                    Evidence("base_model", source, "base_model", ", ".join(bases)[:200], "what it was made from")
                )
            return relation, bases[:MAX_BASES], tuple(why)
    if known and named and not card and ("base" in known.flavours or known.kind not in ("llm", "lmm")):
        rule = f"{known.name} is made from no other model, as far as the table knows"
        return "base", (), (Evidence("relation", "", "known model", known.name, rule),)
    origin = word(subject.header.config, "_name_or_path")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", origin) and origin != subject.name:
        rule = "where it was last loaded from; that alone tells no relation"
        return None, (), (Evidence("relation", "config.json", "_name_or_path", origin, rule),)
    return None, (), ()


Found = tuple[str, tuple[str, ...], Evidence]


def _card_bases(subject: Subject) -> tuple[str, ...]:
    """`base_model` of the model card, or of GGUF's keys."""
    stated = [clean(n) for n in words(subject.front_matter, "base_model")]
    bases = tuple(dict.fromkeys(n for n in stated if NAME.fullmatch(n) and n != subject.name))
    return bases[:MAX_BASES]


def clean(name: str) -> str:
    """A base model's name without the hub's address."""
    name = re.sub(r"^https?://(www\.)?(huggingface\.co|hf\.co)/", "", one_line(name))
    return name.strip().strip("/")


def gguf_bases(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """general.base_model.N.repo_url, or organisation and name."""
    count = whole(metadata, "general.base_model.count") or 0
    found = []
    for i in range(min(count, MAX_BASES)):
        at = f"general.base_model.{i}."
        organisation, name = word(metadata, at + "organization"), word(metadata, at + "name")
        # llama.cpp writes names with blanks for the hyphens of the repository's
        plain = f"{organisation}/{name}".strip("/") if organisation and " " not in organisation else name
        found.append(clean(word(metadata, at + "repo_url")) or plain)
    return tuple(dict.fromkeys(n for n in found if n))


def _draft(subject: Subject, told: Told | None, card: tuple[str, ...]) -> Found | None:
    """Heads that guess ahead for another model: EAGLE, Medusa, speculators."""
    config = subject.header.config
    verifier = word(part(part(config, "speculators_config"), "verifier"), "name_or_path")
    base = verifier or word(config, "base_model_name_or_path")
    bases = (clean(base),) if base else ()
    if "speculators_config" in config or "speculators_model_type" in config:
        return (
            "draft",
            bases,
            _because("draft", "config.json", "speculators_config", verifier or "present", "a speculator"),
        )
    if told and told.role == "draft":
        return "draft", bases, _because("draft", told.file, told.key, told.value, "a draft model's class")
    tensors = subject.header.tensors
    fused = tensors.get("fc.weight") or tensors.get("model.fc.weight")
    joins = fused and len(fused.shape) == 2 and fused.shape[1] in (2 * fused.shape[0], 3 * fused.shape[0])
    if fused and joins and any(n.startswith(("layers.0.", "midlayer.", "model.layers.0.")) for n in tensors):
        rule = "it joins the target's hidden states with a token (EAGLE)"
        return "draft", bases, _because("draft", subject.where.name, "fc.weight", str(list(fused.shape)), rule)
    if "d2t" in tensors and "t2d" in tensors:
        return (
            "draft",
            bases,
            _because("draft", subject.where.name, "d2t", "present", "a draft's smaller vocabulary (EAGLE-3)"),
        )
    return None


def is_adapter(subject: Subject) -> bool:
    """An adapter alone: PEFT's config beside nothing but adapter weights, or tensors that are low-rank factors."""
    from brolly.identity.marks import is_lora

    header = subject.header
    if is_lora(header.tensors):
        return True
    config = subject.json("adapter_config.json")
    peft = "peft_type" in config or "base_model_name_or_path" in config
    return peft and all(f.name.startswith("adapter_") for f in header.files)


def _adapter(subject: Subject, told: Told | None, card: tuple[str, ...]) -> Found | None:
    config = subject.json("adapter_config.json")
    metadata = subject.header.metadata
    if is_adapter(subject):
        base = clean(word(config, "base_model_name_or_path")) or clean(word(metadata, "ss_base_model_version"))
        base = base if "/" in base and not base.startswith(("/", ".")) or not card else ""
        kind = word(config, "peft_type")
        if config:
            evidence = _because("adapter", "adapter_config.json", "peft_type", kind or "present", "PEFT: an adapter")
        else:
            rule = "low-rank factors (LoRA) of another model's layers"
            evidence = _because("adapter", subject.where.name, "tensor names", "lora", rule)
        return "adapter", ((base,) if base else gguf_bases(metadata)), evidence
    ggml = metadata.get("container") == "ggla"
    if ggml or word(metadata, "general.type") == "adapter":
        key = "magic" if ggml else "general.type"
        evidence = _because("adapter", subject.where.name, key, "ggla" if ggml else "adapter", "llama.cpp: an adapter")
        return "adapter", gguf_bases(metadata), evidence
    if told and "textual inversion" in told.rule:
        return "adapter", (), _because("adapter", told.file, told.key, told.value, told.rule)
    return None


def _merge_file(subject: Subject, told: Told | None, card: tuple[str, ...]) -> Found | None:
    """mergekit_config.yml names what was merged; a quantised merge is a quantisation first."""
    if _quantized(subject, told, card):
        return None
    for name in ("mergekit_config.yml", "mergekit_config.yaml"):
        if subject.has(name):
            text = subject.text(name, 2**16)
            found = re.findall(r"(?m)^[\s-]*(?:model|base_model):\s*[\"']?([\w./-]{3,200})", text)
            bases = tuple(dict.fromkeys(clean(n.partition("+")[0]) for n in found))[:MAX_BASES]
            return (
                "merge",
                bases or card,
                _because("merge", name, "models", ", ".join(bases)[:200], "mergekit's recipe"),
            )
    return None


def _quantized(subject: Subject, told: Told | None, card: tuple[str, ...]) -> Found | None:
    header, config = subject.header, subject.header.config
    if header.format in ("gguf", "ggml"):
        return _quantized_gguf(subject, card)
    method, key = "", "quantization_config.quant_method"
    for at, inner in (
        ("", config),
        ("text_config.", part(config, "text_config")),
        ("llm_config.", part(config, "llm_config")),
    ):
        stated = part(inner, "quantization_config") or part(inner, "compression_config")
        if stated:
            method, key = word(stated, "quant_method") or word(stated, "quant_algo") or "stated", f"{at}{key}"
            break
    file = "config.json"
    if not method and (bits := whole(part(config, "quantization"), "bits")):
        method, key = f"MLX, {bits} bits", "quantization.bits"
    if not method:
        for other in ("hf_quant_config.json", "quantize_config.json", "quant_config.json"):
            if subject.has(other) and (said := subject.json(other)):
                method, file, key = (
                    word(part(said, "quantization"), "quant_algo") or word(said, "quant_method"),
                    other,
                    "quant",
                )
                method = method or other.removesuffix("_config.json").removesuffix(".json")
                break
    if not method:
        return None
    if header.tensors and all(t.dtype in PLAIN for t in header.tensors.values()):
        return None  # loaded in few bits for training, stored in full
    kind = word(config, "model_type")
    if any(method == m and p in kind for m, p in NATIVE) and not card:
        return None
    if any(method == m and p in kind for m, p in NATIVE) and not re.search(
        r"quant", word(subject.front_matter, "base_model_relation")
    ):
        return None
    origin = clean(word(config, "_name_or_path"))
    bases = (origin,) if not card and re.fullmatch(r"[\w.-]+/[\w.-]+", origin) and origin != subject.name else ()
    return "quantized", bases, _because("quantized", file, key, method, "its weights were brought to fewer bits")


def _quantized_gguf(subject: Subject, card: tuple[str, ...]) -> Found | None:
    metadata, tensors = subject.header.metadata, subject.header.tensors
    architecture = word(metadata, "general.architecture")
    native = NATIVE_BLOCKS.get(architecture, ())
    sizes: dict[str, int] = {}
    for info in tensors.values():
        sizes[info.dtype] = sizes.get(info.dtype, 0) + info.n_elements
    few = {d: n for d, n in sizes.items() if d not in (*PLAIN, *native, "I8", "I16", "I32", "I64")}
    if not few or sum(few.values()) * 2 < sum(sizes.values()) or any(d in sizes for d in native):
        return None
    most = max(few, key=lambda d: few[d])
    source = clean(word(metadata, "general.source.repo_url")) or clean(
        word(metadata, "general.source.huggingface.repository")
    )
    bases = card or ((source,) if source else gguf_bases(metadata))
    return (
        "quantized",
        bases,
        _because("quantized", subject.where.name, "tensor types", most, "blocks of few bits: a copy for running"),
    )


def _card(subject: Subject, told: Told | None, card: tuple[str, ...]) -> Found | None:
    """What the model card says, and what the Hub infers where it says less."""
    front = subject.front_matter
    tags = {t.lower() for t in words(front, "tags")}
    bases = card or gguf_bases(subject.header.metadata)
    source = "README.md" if card else subject.where.name
    stated = word(front, "base_model_relation").lower()
    if stated in ("adapter", "merge", "quantized", "finetune"):
        return stated, bases, _because(stated, "README.md", "base_model_relation", stated, "as the card says")
    if tags & {"mergekit", "merge"}:
        tag = "mergekit" if "mergekit" in tags else "merge"
        return "merge", bases, _because("merge", "README.md", "tags", tag, "as the card's tags say")
    if len(bases) > 1:
        return (
            "merge",
            bases,
            _because("merge", source, "base_model", f"{len(bases)} models", "made from several models"),
        )
    if bases and subject.header.format != "gguf":
        return (
            "finetune",
            bases,
            _because("finetune", source, "base_model", bases[0], "made from another, and no more is said"),
        )
    if bases and word(subject.header.metadata, "general.finetune"):
        name = word(subject.header.metadata, "general.finetune")
        return "finetune", bases, _because("finetune", source, "general.finetune", name, "GGUF's own word")
    return None


def _because(relation: str, file: str, key: str, value: str, rule: str) -> Evidence:
    return Evidence("relation", file, key, f"{value}"[:200], f"{relation}: {rule}")
