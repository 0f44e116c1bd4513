"""How many parameters a model has, in all and for one token: from its tensors, else its config, else the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from brolly.card import Evidence, TensorInfo
from brolly.identity import packed
from brolly.identity.anatomy import EXPERTS, OTHER_NAMES, VISITED, Anatomy, anatomy_of, text_config
from brolly.identity.answers import Kind, Known, Parameters

if TYPE_CHECKING:
    from brolly.identity.aside import Aside
    from brolly.identity.subject import Subject

# formats whose readers mark nothing: see aside.py
PLAIN = frozenset("safetensors gguf config tokenizer meta llama2c ggml table diffusers".split())  # noqa: SIM905
# the article's classes, by what one token activates
CLASSES = ((0.75e9, "micro"), (10e9, "small"), (40e9, "medium"), (100e9, "large"), (float("inf"), "frontier"))
HEADS = frozenset("lm_head output embed_out head output_layer linear_head".split())  # noqa: SIM905
JUDGES = frozenset("score classifier v_head value_head reward_head".split())  # noqa: SIM905
NO_DIGITS = str.maketrans("", "", "0123456789")
TABLES = frozenset(
    """wte token_embd tok_embeddings word_embeddings embed_tokens embed_in shared emb embedding embeddings embed
    tokens_embed word_embedding tok_embedding token_embedding""".split()  # noqa: SIM905
)
POSITIONS = (
    "wpe",
    "embed_positions",
    "position_embeddings",
    "position_embd",
    "positions_embed",
    "positional_embedding",
)
SEEN = ("vision", "visual", "vit", "image", "img", "vpm", "siglip")
HEARD = ("audio", "speech", "apm", "wav")
JOINED = (
    "projector",
    "projection",
    "connector",
    "mm_proj",
    "multi_modal",
    "aligner",
    "resampler",
    "mlp1",
    "merger",
    "modality_proj",
)
WORDS = {
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float": "F32",
    "half": "F16",
    "float8_e4m3fn": "FP8_E4M3",
}
# of the names that anatomy.py knows beside its rows, those of a text network alone
TEXT_ALONE = frozenset("kimi_k2 Yi RefinedWebModel RefinedWeb internlm GPT2 xgen hunyuan minimax_text_01".split())  # noqa: SIM905


def size_class(activated: int | None) -> str | None:
    """micro below 0.75 B activated, small below 10 B, medium below 40 B, large below 100 B, frontier from there."""
    return None if not activated else next(name for limit, name in CLASSES if activated < limit)


NO_NUMBERS = Parameters(None, None, None, False, None, {}, None, {}, None, None)


def from_known(known: Known) -> Parameters:
    """What the table of known models says."""
    said = known.sources.get("parameters") or {}
    source = ", ".join(str(said[k]) for k in ("url", "date") if isinstance(said, Mapping) and k in said)
    activated = known.activated or (None if "moe" in known.flavours else known.parameters)
    why = (
        (Evidence("parameters.total", "", "", f"{known.parameters:,}", f"the table of known models ({source})"),)
        if known.parameters
        else ()
    )
    return Parameters(
        known.parameters, activated, None, False, "table" if known.parameters else None, {}, None, {}, None,
        size_class(activated), why,
    )  # fmt: skip


def anatomy_for(subject: Subject) -> Anatomy | None:
    """The decoder's anatomy, worked out once for a subject."""
    found = subject.__dict__.get("_anatomy", False)
    if found is False:
        header = subject.header
        gguf = header.metadata if "general.architecture" in header.metadata else None
        found = None if adapter(subject) else anatomy_of(header.config, header.tensors, gguf)
        subject.__dict__["_anatomy"] = found
    return found


def adapter(subject: Subject) -> bool:
    """Whether the files are an adapter (LoRA and its kin), whose base is elsewhere."""
    config = subject.header.config
    names = subject.header.tensors
    if "peft_type" in config or (
        subject.has("adapter_config.json") and not any("embed_tokens" in n for n in list(names)[:4])
    ):
        return True
    few = list(names)[:64]
    return bool(few) and all("lora" in n or "alpha" in n or "hada_" in n or "lokr_" in n for n in few)


def scheme_for(subject: Subject) -> packed.Scheme:
    header = subject.header
    found = packed.scheme_of(header.config)
    if not found.method and header.format in ("safetensors", "torch", "config"):
        found = packed.scheme_of({}, {n: subject.json(n) for n in packed.SETTINGS if subject.has(n)})
    return found


def parameters_of(subject: Subject, kind: Kind | None = None) -> Parameters:
    """Total and activated parameters, how they are stored, and how each is known. Never raises for what files say."""
    header = subject.header
    scheme, anatomy = scheme_for(subject), anatomy_for(subject)
    marked = None
    if header.format not in PLAIN:
        from brolly.identity.aside import aside_of

        marked = aside_of(header)
    tally = Tally(header.tensors, scheme, header.config, anatomy, header.format, header.metadata, marked)
    lost = [f for f in subject.faults if f.finding == "missing-shards" or (f.file and not f.file.endswith(".json"))]
    planned = None if adapter(subject) else plan_for(subject, anatomy)
    sum_planned = sum(planned.values()) if planned else None
    sure = bool(planned and (anatomy is None or anatomy.exact) and "Classification" not in architecture(header.config))
    if tally.unsure and sure and planned and sum_planned:
        return from_config(subject, scheme, anatomy, planned, tally, False)
    short = bool(subject.faults and sum_planned and tally.total < sum_planned)
    if tally.total and not lost and not short and not scheme.opaque:
        return from_tensors(subject, tally, scheme, anatomy, planned, kind)
    if planned and sum_planned:
        return from_config(subject, scheme, anatomy, planned, tally, bool(lost or short))
    if tally.total:
        found = from_tensors(subject, tally, scheme, anatomy, None, kind)
        why = (
            "some files are missing: these are the numbers of the rest"
            if lost
            else "the packing does not tell how many"
        )
        said = Evidence("parameters.exact", scheme.file or str(header.path), scheme.key, scheme.method or "false", why)
        return replaced(found, exact=False, why=(*found.why, said))
    precision = stated(header.config)
    text = packed.described(scheme, {precision: 1} if precision else {}, header.metadata, header.format)
    return Parameters(None, None, None, False, None, {}, precision, {}, text, None)


def replaced(parameters: Parameters, **changes: Any) -> Parameters:
    return parameters._replace(**changes)


def plan_for(subject: Subject, anatomy: Anatomy | None) -> dict[str, int] | None:
    """Numbers by part from the config alone; None where it does not tell them all."""
    config = subject.header.config
    if not config:
        return None
    if anatomy and anatomy.parts and alone(config):
        return with_head(config, anatomy.parts)
    try:
        from brolly.identity.plans import plan
    except ImportError:
        return None
    found = plan(config, subject)
    if not found:
        return None
    if anatomy and anatomy.parts and found.get("language") == anatomy.total:
        return {**anatomy.parts, **{k: v for k, v in found.items() if k != "language"}}
    return dict(found)


def alone(config: Mapping[str, Any]) -> bool:
    """Whether a config is of a text network and nothing beside it."""
    kind = config.get("model_type")
    if text_config(config) is not config or (str(kind) in OTHER_NAMES and kind not in TEXT_ALONE):
        return False
    beside = ("vision_config", "audio_config", "visual", "vision_tower", "mm_vision_tower", "img_processor")
    return not any(config.get(key) for key in beside)


def architecture(config: Mapping[str, Any]) -> str:
    said = config.get("architectures")
    return said[0] if isinstance(said, list) and said and isinstance(said[0], str) else ""


def with_head(config: Mapping[str, Any], parts: Mapping[str, int]) -> dict[str, int]:
    """The parts of the class that was saved: a bare model and a classifier have no language-model head."""
    name = architecture(config)
    headless = name.endswith(("Model", "Classification")) and not name.endswith("LMHeadModel") and "GLM" not in name
    return {k: v for k, v in parts.items() if not (headless and k == "lm_head")}


class Tally:
    """One pass over the tensors: numbers by part and by precision, and what was left out."""

    def __init__(
        self,
        tensors: Mapping[str, TensorInfo],
        scheme: packed.Scheme,
        config: Mapping[str, Any],
        anatomy: Anatomy | None,
        form: str,
        metadata: Mapping[str, Any],
        marked: Aside | None = None,
    ) -> None:
        self.parts: dict[str, int] = {}
        self.words: dict[str, int] = {}
        self.mtp = self.beside = self.doubled = self.training = 0
        self.unsure = ""
        self.has_head = False
        tied = bool(anatomy and anatomy.tied) or text_config(config).get("tie_word_embeddings") is True
        unnamed = "onnx::" if tied and form == "onnx" else ""  # how exporters call a weight that they turned over
        table_n = 0
        ahead = heads_ahead(config, metadata)
        shared = form in ("torch", "torchscript", "legacy")
        places: set[tuple[Any, ...]] = set()
        known: dict[str, str] = {}  # a name without its numbers → its part
        parts, words = self.parts, self.words
        table: TensorInfo | None = None
        for info, n, word, sure in packed.count(tensors, scheme, marked.counted if marked else None):
            if marked and info.name in marked.training:
                self.training += info.n_elements
                continue
            if not n:
                self.beside += 1
                continue
            name = info.name
            if not sure:
                self.unsure = self.unsure or name
            if shared:
                place = (info.file, info.offset, info.shape)
                if place in places and info.nbytes:
                    self.doubled += n
                    continue
                places.add(place)
            if ahead and name.startswith(ahead):
                self.mtp += n
                continue
            key = name.translate(NO_DIGITS)
            part = known.get(key)
            if part is None:
                part = known[key] = (
                    name.partition("/")[0] if form == "diffusers" and "/" in name else part_of(name, info)
                )
            if part == "lm_head" and len(info.shape) > 1:
                if tied and table is not None and (table.shape == info.shape or form == "onnx" and n == table_n):
                    self.doubled += n
                    continue
                self.has_head = True
            elif part == "embedding" and len(info.shape) > 1:
                if table is not None and tied and table.shape == info.shape:
                    self.doubled += n
                    continue
                table, table_n = info, n
            elif unnamed and name.startswith(unnamed) and table is not None and info.shape == table.shape[::-1]:
                self.doubled += n
                unnamed = ""
                continue
            parts[part] = parts.get(part, 0) + n
            words[word] = words.get(word, 0) + n
        if tied and self.has_head and table is not None:  # the head came first
            head = next(
                (t for n, t in tensors.items() if t.shape == table.shape and n.rpartition(".")[0].endswith("lm_head")),
                None,
            )
            if head is not None:
                self.doubled += head.n_elements
                self.has_head = False
                parts["lm_head"] -= head.n_elements
                words[head.dtype] = words.get(head.dtype, 0) - head.n_elements
                if not parts["lm_head"]:
                    del parts["lm_head"]

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def heads_ahead(config: Mapping[str, Any], metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """How the names of multi-token-prediction layers begin, which stand after the model's own."""
    own = text_config(config)
    n, extra = own.get("num_hidden_layers"), own.get("num_nextn_predict_layers")
    form = "model.layers.{}."
    if isinstance(name := metadata.get("general.architecture"), str):
        extra, n, form = metadata.get(f"{name}.nextn_predict_layers"), metadata.get(f"{name}.block_count"), "blk.{}."
        n = n - extra if type(n) is int and type(extra) is int else None
    after = range(n, n + extra) if type(n) is int and type(extra) is int and 0 < extra <= 16 else ()
    return ("mtp.", "model.mtp.", "model.mtp_", *(form.format(i) for i in after))


def part_of(name: str, info: TensorInfo) -> str:
    """The component that a tensor belongs to, by its name."""
    if modal := modality(name):
        return modal
    if ".experts." in name or "_exps." in name or (len(info.shape) == 3 and "moe" in name):
        return "experts"
    before, _, _ = name.rpartition(".")
    if name.startswith("lm_head."):
        return "lm_head"
    module = before.rpartition(".")[2] or name
    if "shared_expert" in name or "shexp" in name:
        return "shared experts"
    if module in HEADS:
        return "lm_head"
    if module in JUDGES:
        return "head"
    if "per_layer" in name and ("embed_tokens" in name or "token_embd" in name):
        return "per-layer embedding"
    if module in TABLES and ".layers." not in name and ".h." not in name:
        return "embedding"
    if module in POSITIONS:
        return "positions"
    if "router" in name or module in ("gate", "ffn_gate_inp") or name.endswith("correction_bias"):
        return "router"
    if "norm" in module or module.startswith("ln_") or module.endswith(("_ln", "layernorm")):
        return "norms"
    if "att" in name:
        return "attention"
    if "mlp" in name or "ffn" in name or "feed_forward" in name or ".fc" in name or "dense" in module:
        return "mlp"
    if "mixer" in name or "mamba" in name or "ssm" in name or "conv" in module:
        return "mixer"
    return "other"


def modality(name: str) -> str:
    """vision, audio or projection, where the beginning of a name says so; else empty."""
    first, _, rest = name.partition(".")
    start = f"{first}.{rest.partition('.')[0]}".lower()
    for modal, words in (("projection", JOINED), ("vision", SEEN), ("audio", HEARD)):
        if any(word in start for word in words):
            return modal
    return ""


def experts_share(config: Mapping[str, Any], anatomy: Anatomy | None) -> tuple[int, int] | None:
    """(experts that a token visits, experts); None where the config does not say."""
    if anatomy and anatomy.share_idle != (1, 1):
        return anatomy.share_idle
    own = text_config(config)
    for place in (own, own.get("ffn_config")):
        if isinstance(place, Mapping):
            of = next((place[k] for k in EXPERTS if type(place.get(k)) is int and place[k] > 0), None)
            visited = next((place[k] for k in VISITED if type(place.get(k)) is int and place[k] > 0), None)
            if of and visited and visited <= of:
                return visited, of
    return None


def from_tensors(
    subject: Subject,
    tally: Tally,
    scheme: packed.Scheme,
    anatomy: Anatomy | None,
    planned: Mapping[str, int] | None,
    kind: Kind | None,
) -> Parameters:
    header = subject.header
    total, place = tally.total, str(header.path)
    n_files = len(header.files)
    where = f"{n_files} files" if n_files > 1 else (header.files[0].name if n_files else place)
    why = [Evidence("parameters.total", where, f"{len(header.tensors):,} tensors", f"{total:,}", "shapes, unpacked")]
    if tally.beside:
        why.append(Evidence("parameters.total", where, "", f"{tally.beside:,} tensors left out",
                            "scales, zero points, indices and buffers are no parameters"))  # fmt: skip
    if tally.doubled:
        why.append(Evidence("parameters.total", "config.json", "tie_word_embeddings", f"{tally.doubled:,} counted once",
                            "a head tied to the embedding, or two names of one tensor"))  # fmt: skip
    if tally.training:
        why.append(Evidence("parameters.total", where, "", f"{tally.training:,} numbers left out",
                            "an optimizer's state, counters and averages of weights are no parameters"))  # fmt: skip
    components = {k: v for k, v in sorted(tally.parts.items(), key=lambda p: -p[1])}
    if tally.mtp:
        components["mtp"] = tally.mtp
        why.append(Evidence("parameters.components.mtp", where, "num_nextn_predict_layers", f"{tally.mtp:,}",
                            "multi-token-prediction layers stand in the files and are not in the total"))  # fmt: skip
    sum_planned = sum(planned.values()) if planned else 0
    if planned and sum_planned == total:
        why.append(Evidence("parameters.total", "config.json", "", f"{total:,}", "the config alone gives the same"))
    elif planned and not tally.unsure:
        why.append(Evidence("parameters.total", "config.json", "", f"{sum_planned:,}",
                            "the config alone would give this many; the tensors are believed"))  # fmt: skip
    experts = tally.parts.get("experts", 0)
    activated: int | None = total
    if experts:
        share = experts_share(header.config, anatomy)
        if share:
            planned_idle = anatomy.idle if anatomy and anatomy.parts.get("experts") == experts else None
            idle = planned_idle if planned_idle is not None else experts * (share[1] - share[0]) // share[1]
            activated = total - idle
            why.append(Evidence("parameters.activated", "config.json", "experts", f"{share[0]} of {share[1]}",
                                "all that one token touches, embeddings included"))  # fmt: skip
        else:
            activated = None
    language = anatomy is not None or (kind is not None and kind.kind in ("llm", "lmm"))
    lookups = tally.parts.get("per-layer embedding", 0)
    untied = anatomy is not None and not anatomy.tied and header.format != "gguf"
    if tally.has_head or not language or untied:
        lookups += tally.parts.get("embedding", 0)
    shares = {w: n / total for w, n in sorted(tally.words.items(), key=lambda p: -p[1]) if n > 0}
    if tally.unsure:
        why.append(
            Evidence("parameters.exact", where, tally.unsure, "not sure", "nothing says how this tensor is packed")
        )
    text = packed.described(scheme, tally.words, header.metadata, header.format)
    if text:
        why.append(Evidence("quantization", scheme.file or where, scheme.key or "dtype", scheme.method or text, text))
    return Parameters(
        total, activated, None if activated is None else activated - lookups, not tally.unsure, "tensors", components,
        next(iter(shares), None), shares, text, size_class(activated), tuple(why),
    )  # fmt: skip


def from_config(
    subject: Subject,
    scheme: packed.Scheme,
    anatomy: Anatomy | None,
    planned: Mapping[str, int],
    tally: Tally,
    partial: bool,
) -> Parameters:
    config = subject.header.config
    total = sum(planned.values())
    exact = (anatomy.exact if anatomy else True) and "Classification" not in architecture(config)
    if exact and "model_type" in config:
        from brolly.identity.plans import assumed

        exact = not assumed(config)
    idle = anatomy.idle if anatomy else 0
    if not idle and planned.get("experts"):
        share = experts_share(config, anatomy)
        idle = planned["experts"] * (share[1] - share[0]) // share[1] if share else 0
    activated = total - idle
    apart = "lm_head" in planned or not architecture(config).endswith(("Generation", "LMHeadModel", "ForCausalLM"))
    lookups = anatomy.lookups if anatomy else planned.get("embedding", 0) if apart else 0
    model = anatomy.model_type if anatomy else str(config.get("model_type"))
    why = [
        Evidence(
            "parameters.total", "config.json", "model_type", model, "counted from the config alone, layer by layer"
        )
    ]
    if partial:
        why.append(Evidence("parameters.total", str(subject.header.path), "", f"{tally.total:,} of {total:,} are here",
                            "some files are missing or cut short"))  # fmt: skip
    if not exact:
        why.append(Evidence("parameters.exact", "config.json", "model_type", model,
                            "published files of this type hold tensors that the config does not tell"))  # fmt: skip
    shares = {w: n / tally.total for w, n in sorted(tally.words.items(), key=lambda p: -p[1])} if tally.total else {}
    precision = next(iter(shares), None) or stated(config)
    text = packed.described(scheme, {precision: 1} if precision else {}, subject.header.metadata, subject.header.format)
    return Parameters(
        total, activated, activated - lookups, exact, "config", dict(sorted(planned.items(), key=lambda p: -p[1])),
        precision, shares, text, size_class(activated), tuple(why),
    )  # fmt: skip


def stated(config: Mapping[str, Any]) -> str | None:
    """The precision that a config names."""
    own = text_config(config)
    said = own.get("dtype") or own.get("torch_dtype") or config.get("dtype") or config.get("torch_dtype")
    return WORDS.get(str(said).removeprefix("torch.")) if isinstance(said, str) else None
