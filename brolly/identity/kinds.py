"""What a model is: its kind, family and flavours, whether it is an LLM, of which field, made from what; and why."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from brolly.card import Evidence
from brolly.errors import BrollyError
from brolly.identity.answers import FLAVOURS, Kind
from brolly.identity.lineages import broad_data, field_of, is_publishers, of_name, own, refine, spelt
from brolly.identity.relations import is_adapter, relation_of
from brolly.identity.roles import Role, Told, part, role, whole, word, words
from brolly.identity.signals import told

if TYPE_CHECKING:
    from brolly.identity.answers import Known
    from brolly.identity.subject import Subject

# the Hub's task → role, where no file tells one
PIPELINES = {
    "text-generation": "llm", "image-text-to-text": "lmm", "text2text-generation": "seq2seq",
    "fill-mask": "text-encoder",
    "sentence-similarity": "embedder",
    "text-classification": "classifier", "token-classification": "classifier",
    "question-answering": "classifier", "zero-shot-classification": "classifier", "translation": "translation",
    "summarization": "seq2seq", "text-to-image": "image", "image-to-image": "image-edit", "text-to-video": "video",
    "image-to-video": "video-from-image", "video-to-video": "video-edit", "text-ranking": "reranker",
    "unconditional-image-generation": "image-uncond", "automatic-speech-recognition": "asr", "text-to-speech": "tts",
    "text-to-audio": "audio", "audio-classification": "audio-classifier",
    "voice-activity-detection": "speech-classifier",
    "image-classification": "vision-classifier", "object-detection": "detector", "image-segmentation": "segmenter",
    "depth-estimation": "depth", "mask-generation": "sam", "image-feature-extraction": "vision",
    "zero-shot-image-classification": "vlm-embedding", "zero-shot-object-detection": "open-detector",
    "visual-question-answering": "lmm", "document-question-answering": "lmm", "image-to-text": "lmm-caption",
    "video-text-to-text": "lmm-video", "audio-text-to-text": "lmm-audio", "any-to-any": "lmm-omni", "robotics": "robot",
    "time-series-forecasting": "time-series", "tabular-classification": "tabular", "tabular-regression": "tabular",
    "text-to-3d": "shape", "image-to-3d": "shape-from-image", "keypoint-detection": "keypoints",
    "video-classification": "video-classifier", "visual-document-retrieval": "multimodal-embedder",
}  # fmt: skip
# a task that an architecture of another kind may serve: it then says more than the architecture does
TELLING = ("text-to-speech", "time-series-forecasting", "robotics", "text-ranking", "visual-document-retrieval")
THINKING = ("enable_thinking", "<think>", "<thinking>", "<|thinking|>", "<seed:think>", "[THINK]")
ALONE = ("tokenizer", "optimizer", "projector", "audio-projector", "draft", "vae", "video-vae", "controlnet")
# architectures on which other lineages were built, so that the table of known models may name another family
SHARED = ("Llama", "Mistral", "Qwen2", "GPT-2", "GPT-NeoX", "BERT", "RoBERTa", "XLM-RoBERTa", "T5", "BART", "OPT",
          "ViT", "DeepSeek-V3", "DeepSeek-V2/V3", "Command R", "Phi-3", "Gemma", "wav2vec 2.0")  # fmt: skip
FIELDS = {
    "protein": "proteins", "robotics": "robotics", "dna": "genomics", "cells": "genomics", "molecule": "chemistry",
    "molecule-property": "chemistry", "weather": "weather and climate", "earth": "Earth observation",
    "dna-generator": "genomics", "llm-code": "programming", "seq2seq-code": "programming",
}  # fmt: skip


def kind_of(subject: Subject, known: Known | None) -> Kind:
    """What the files tell; then what the table of known models adds. Nothing is guessed: None where neither tells."""
    if subject.header.format == "table" and known:
        return of_row(known)
    names = own_names(subject)
    named = known is not None and (known.matched in ("id", "name") or is_named(known, names))
    found = told(subject)
    relation, bases, why = relation_of(subject, found, known, named)
    if found is None and (task := word(subject.front_matter, "pipeline_tag")) in PIPELINES:
        found = Told("", PIPELINES[task], "README.md", "pipeline_tag", task, "the card's own word")
    if relation == "adapter" and (found is None or not found.role):
        found = _by_base(subject, bases) or found
    family, does = (found.family, found.role) if found else ("", "")
    evidence = [Evidence("kind", found.file, found.key, found.value[:200], found.rule)] if found else []
    family, does, part_of_name = refine(family, does, [*names, *bases])
    if part_of_name:
        evidence.append(Evidence("family", "", "name", part_of_name, "a lineage of its own on a shared architecture"))
    does, more = _by_card(subject, does, names)
    evidence += more
    what = role(does) if does else None
    if does not in ("tokenizer", "optimizer"):
        akin = known if known and (named or what is None or known.kind == what.kind) else None
        family, more = _family(subject, family, bool(part_of_name), akin)
        evidence += more
    if known and (what is None or (named and does not in ALONE and relation != "adapter")):
        does_too = what.flavours if what and what.kind == known.kind else ()  # the table leaves out what a class tells
        told_both = tuple(dict.fromkeys((*does_too, *known.flavours)))
        what = Role(known.kind or "", known.modalities_in, known.modalities_out, told_both)
        evidence.append(Evidence("kind", "", "known model", known.name, "the table of known models"))
        does = does if what.kind == (role(does).kind if does else None) else ""
    name = _name(subject, known, named)
    flavours, more = flavours_of(subject, what, does, names, known, named)
    evidence += more
    scope, scope_why, more = scope_of(subject, what, does, flavours, [*names, *bases], known, named)
    kind = what.kind if what else None
    return Kind(
        family=family or None,
        name=name,
        kind=kind,
        is_llm=None if kind is None else kind == "llm",
        sentence=sentence_of(family or name or "this", what, does, flavours, relation, bases),
        flavours=flavours,
        modalities_in=what.inputs if what else (),
        modalities_out=what.outputs if what else (),
        scope=scope,
        scope_why=scope_why,
        relation=relation,
        base_model=bases,
        why=(*evidence, *more, *why),
    )


def of_row(known: Known) -> Kind:
    """The table's answer to a name: no files seen."""
    what = Role(known.kind or "", known.modalities_in, known.modalities_out, known.flavours)
    relation = "base" if "base" in known.flavours else None
    return Kind(
        family=known.family,
        name=known.name,
        kind=known.kind,
        is_llm=None if known.kind is None else known.kind == "llm",
        sentence=sentence_of(known.name, what, "", known.flavours, None, ())
        if known.kind
        else f"It depends: there are models of several kinds called {known.name}.",
        flavours=known.flavours,
        modalities_in=known.modalities_in,
        modalities_out=known.modalities_out,
        scope=known.scope,
        scope_why="as the table of known models has it" if known.scope else "the table does not tell",
        relation=relation,
        base_model=(),
        why=(Evidence("kind", "", "known model", known.name, "the table of known models; no files seen"),),
    )


def _by_base(subject: Subject, bases: tuple[str, ...]) -> Told | None:
    """What an adapter does whose own tensors do not tell: what its card is tagged with, or what its base does."""
    family, does = of_name(bases[0]) if bases else ("", "")
    if does:
        return Told(family, does, "README.md", "base_model", bases[0], "what the adapter changes")
    tags = [t.lower() for t in words(subject.front_matter, "tags")]
    if task := next((t for t in tags if t in PIPELINES), ""):
        return Told(family, PIPELINES[task], "README.md", "tags", task, "the card's own word")
    return None


def own_names(subject: Subject) -> list[str]:
    """What the model is called: by the user or the hub, by GGUF's keys, by its card, by its folder."""
    metadata = subject.header.metadata
    found = [subject.name or "", word(metadata, "general.name"), word(metadata, "general.basename")]
    found += [word(subject.front_matter, "model_name")]
    place = re.sub(r"\.(gguf|safetensors|bin|pth?|onnx)$", "", subject.where.name)
    if re.search(r"-\d+(-\d+)?[bm]-", spelt(place)):  # a folder's or a file's name that states a size is a model's
        found.append(place)
    return list(dict.fromkeys(n for n in found if n))


def is_named(known: Known, names: list[str]) -> bool:
    """Whether one of these is the row's own name, its repository or an alias."""
    theirs = {spelt(n) for n in (known.name, *known.ids, *known.aliases)} | {own(n) for n in known.ids}
    return any(spelt(n) in theirs or own(n) in theirs for n in names)


def _name(subject: Subject, known: Known | None, named: bool) -> str | None:
    if known and named:
        return known.name
    metadata = subject.header.metadata
    stated = word(metadata, "general.name") or word(subject.front_matter, "model_name")
    return stated or (subject.name or "").rpartition("/")[2] or None  # a shape is no name


def _family(subject: Subject, family: str, by_name: bool, known: Known | None) -> tuple[str, list[Evidence]]:
    """What brolly runs it as, or a lineage that the table or its own name tells (Yi runs as a Llama)."""
    runs, why = _runs_as(subject), []
    if runs and (not family or stem(runs) == stem(family) or (family == "Llama" and not by_name)):
        why.append(Evidence("family", "", "brolly's family", runs, "what brolly runs it as"))
        family = runs
    shared = family in SHARED and not by_name and "-distill-" not in own(known.name if known else "")
    if known and known.family and (not family or (shared and stem(known.family) != stem(family))):
        why.append(Evidence("family", "", "known model", known.name, "its shape or its name is in the table"))
        family = known.family
    return family, why


def says(text: str, *parts: str) -> bool:
    """Whether one of these words stands in a name as `own` spells it."""
    return any(f"-{part}-" in text for part in parts)


def stem(family: str) -> str:
    """A family's name without its version: "Qwen2.5-VL" → "qwen"."""
    matched = re.match(r"[a-zA-Zπ]+", family.replace("-", ""))
    return matched[0].lower() if matched else family.lower()


def _runs_as(subject: Subject) -> str:
    from brolly.families import LOADABLE, families

    if subject.header.format not in LOADABLE:
        return ""
    try:
        matches = [f for f in families() if f.match(subject.header)]
    except (BrollyError, TypeError, ValueError, KeyError, AttributeError, IndexError):
        return ""
    matches = [f for f in matches if not any(other.narrows is f for other in matches)]
    return matches[0].name if len(matches) == 1 else ""


def _by_card(subject: Subject, does: str, names: list[str]) -> tuple[str, list[Evidence]]:
    """The card's task and the name's own words, where the architecture leaves open what it is for."""
    if does in ALONE:
        return does, []
    front = subject.front_matter
    task, tags = word(front, "pipeline_tag"), {t.lower() for t in words(front, "tags")}
    text = "".join(own(n) for n in names)
    kind = role(does).kind if does else ""
    open_kinds = ("llm", "text-encoder", "other", "")
    if kind in open_kinds and (
        task == "text-ranking"
        or says("".join(spelt(n) for n in names), "reranker", "rerank", "cross-encoder")
        or tags & {"reranker", "cross-encoder"}
    ):
        value = task if task == "text-ranking" else "reranker"
        return "reranker", [Evidence("kind", "README.md" if task else "", "pipeline_tag" if task else "name", value,
                                     "orders texts by how well they answer")]  # fmt: skip
    if kind in ("llm", "lmm", "text-encoder") and does not in ("embedder", "classifier", "reranker"):
        asked = task in ("feature-extraction", "sentence-similarity") and bool(tags & {"sentence-transformers", "mteb"})
        if asked or says(text, "embed", "embeds", "embedding", "embeddings", "embedder", "colbert", "colbertv2"):
            key, value = ("pipeline_tag", task) if asked else ("name", "embedding")
            why = Evidence("kind", "README.md" if asked else "", key, value, "made for embeddings, whatever the class")
            return "multimodal-embedder" if kind == "lmm" else "embedder", [why]
    if task in TELLING and kind in ("llm", "lmm") and role(PIPELINES[task]).kind != kind:
        return PIPELINES[task], [Evidence("kind", "README.md", "pipeline_tag", task, "the card says what it is for")]
    if does in ("classifier", "llm-classifier") and says(text, "reward", "rm", "prm"):
        return "reward", [Evidence("kind", "", "name", "reward", "scores answers")]
    return does, []


def flavours_of(
    subject: Subject, what: Role | None, does: str, names: list[str], known: Known | None, named: bool
) -> tuple[tuple[str, ...], list[Evidence]]:
    """Base or instruct, reasoning, code, experts, guard; and what the role says."""
    if what is None:
        return (), []
    found, why = list(what.flavours), []
    text = "".join(own(n) for n in names)

    def add(flavour: str, file: str, key: str, value: str, rule: str) -> None:
        if flavour not in found:
            found.append(flavour)
            why.append(Evidence("flavours", file, key, value[:200], f"{flavour}: {rule}"))

    if key := _experts(subject):
        add("moe", *key, "several experts, of which a router picks some")
    if what.kind in ("llm", "lmm") and does not in ALONE:
        _talks(subject, text, does, known if named else None, add)
        if says(text, "guard", "shieldgemma", "wildguard", "guardian", "nemoguard", "qwen3guard"):
            add("guard", "", "name", text.strip("-")[:80], "judges texts of others")
        if says(text, "ocr"):
            add("ocr", "", "name", "ocr", "reads text in images")
        if field_of(names, words(subject.front_matter, "datasets")) and "code" not in found:
            field, told_by = field_of(names, words(subject.front_matter, "datasets")) or ("", "")
            if field == "programming":
                add("code", "", "name or data sets", told_by, "made for programs")
        tags = {t.lower() for t in words(subject.front_matter, "tags")}
        if "code" in tags and "nlp" not in tags and "code" in text:
            add("code", "README.md", "tags", "code", "made for programs")
    if known and known.kind == what.kind:
        for flavour in known.flavours:
            if not named and flavour in ("base", "instruct", "reasoning"):
                continue  # what was made from it has the same shape
            contradicts = {"base": "instruct", "instruct": "base"}.get(flavour)
            if contradicts in found:
                found.remove(contradicts)
            add(flavour, "", "known model", known.name, "the table of known models")
    return tuple(sorted(set(found), key=FLAVOURS.index)), why


def _experts(subject: Subject) -> tuple[str, str, str] | None:
    """Where more than one expert is stated: file, key, value."""
    config, metadata = subject.header.config, subject.header.metadata
    keys = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "num_experts_per_tok")
    for at in ("", "text_config", "llm_config", "language_config", "ffn_config", "thinker_config"):
        inner = part(config, at) if at else config
        for key in keys:
            n = whole(inner, key)
            if n is not None and n > 1:
                return "config.json", f"{at}.{key}".strip("."), str(n)
    if part(config, "moe"):
        return "params.json", "moe", "present"
    n = whole(metadata, f"{word(metadata, 'general.architecture')}.expert_count")
    return (subject.where.name, "expert_count", str(n)) if n and n > 1 else None


def _talks(subject: Subject, text: str, does: str, known: Known | None, add) -> None:  # type: ignore[no-untyped-def]
    """Base, instruct, reasoning: the name says, else the chat template, where its turns end the text."""
    template, file = _template(subject)
    sized = does.startswith("seq2seq") or does in ("lmm-caption", "vision-language-task", "ocr")  # t5-base is a size
    if says(text, "base", "pt", "pretrain", "pretrained") and not sized:
        add("base", "", "name", "base", "the name says so")
        return
    if says(text, "instruct", "chat", "it", "sft", "dpo", "rlhf", "assistant"):
        add("instruct", "", "name", "instruct or chat", "the name says so")
    elif template and (known is None or "base" not in known.flavours):
        end = word(subject.json("tokenizer_config.json"), "eos_token") if "<|im_end|>" in template else ""
        if end != "<|endoftext|>":  # Qwen ships the template with base models, too; their texts end otherwise
            add("instruct", file, "chat_template", "present", "it knows how to talk in turns")
    if says(text, "thinking", "reasoning", "reasoner", "r1", "qwq"):
        add("reasoning", "", "name", "thinking", "the name says so")
    elif any(t in template for t in THINKING) and "-instruct-2" not in text:  # Qwen3's Instruct-2507 does not
        add("reasoning", file, "chat_template", "<think>", "it thinks before it answers, or can")


def _template(subject: Subject) -> tuple[str, str]:
    """The chat template's text, of bounded length, and its file."""
    stated = subject.header.metadata.get("tokenizer.chat_template")
    if isinstance(stated, str):
        return stated[: 2**18], subject.where.name
    if subject.header.format in ("gguf", "table"):
        return "", ""
    if subject.has("chat_template.jinja"):
        return subject.text("chat_template.jinja", 2**18), "chat_template.jinja"
    for name in ("tokenizer_config.json", "chat_template.json"):
        value = subject.json(name).get("chat_template")
        if isinstance(value, list):  # several, each with its name
            value = "\n".join(word_of(v, "template") for v in value[:8])
        if isinstance(value, str) and value:
            return value[: 2**18], name
    return "", ""


def word_of(value: object, key: str) -> str:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


def scope_of(
    subject: Subject,
    what: Role | None,
    does: str,
    flavours: tuple[str, ...],
    names: list[str],
    known: Known | None,
    named: bool,
) -> tuple[str | None, str, list[Evidence]]:
    """Foundation, domain or not told, and why. Weights cannot tell; the table, the card, the name and the kind can."""

    def verdict(scope: str, why: str, file: str, key: str, value: str) -> tuple[str, str, list[Evidence]]:
        return scope, why, [Evidence("scope", file, key, value[:200], why)]

    if what is None:
        return None, "the files do not tell what it does", []
    if does in ("tokenizer", "optimizer"):
        return None, "not a model", []
    if known and named and known.scope:
        return verdict(known.scope, "as the table of known models has it", "", "known model", known.name)
    front = subject.front_matter
    datasets, tags = words(front, "datasets"), words(front, "tags")
    field = field_of(names, [*datasets, *tags])
    if "code" in what.flavours or (field and field[0] == "programming"):
        return None, "a model for programs: broad over code, narrow beside general models; no table or card tells", []
    if field:
        why = f"made for {field[0]}: its name, tags, data or base say {field[1]!r}"
        return verdict("domain", why, "README.md" if front else "", "name, tags, datasets", field[1])
    if inherent := FIELDS.get(does) or FIELDS.get(what.kind):
        why = f"trained on data of one field, {inherent}; broad within it, so a domain foundation model"
        return verdict("domain", why, "", "kind", what.kind)
    if what.kind == "scientific":
        return verdict("domain", "trained on data of one science", "", "kind", what.kind)
    if one := next((f for f in ("classifier", "reranker", "reward", "guard", "translation") if f in flavours), ""):
        return None, f"neither, as far as the files tell: made for one task ({one})", []
    for name in (n for n in names if "/" in n):
        if who := is_publishers(name):
            why = f"{name} is its publisher's general model, and nothing names a narrower field"
            return verdict("foundation", why, "", "name", who)
    if broad := broad_data(datasets):
        return verdict("foundation", f"trained on broad data ({broad}), says the card", "README.md", "datasets", broad)
    if known and known.scope and not is_adapter(subject):
        why = f"it has the shape of {known.name}, and nothing names a narrower field"
        return verdict(known.scope, why, "", "known model", known.name)
    return None, "not told: weights cannot tell, and no card or known name does", []


def sentence_of(
    name: str, what: Role | None, does: str, flavours: tuple[str, ...], relation: str | None, bases: tuple[str, ...]
) -> str:
    """The answer to "is it an LLM?" in one sentence."""
    if what is None:
        return "Not told: the files do not say what this model does."
    it = name[:1].upper() + name[1:] if name == "this" else name
    if what.kind == "llm":
        if relation == "adapter":
            return f"A part of one: an adapter that changes {bases[0] if bases else 'an LLM'}; it does not run alone."
        if relation == "draft" or does == "draft":
            target = bases[0] if bases else "an LLM"
            return f"A part of one: a draft that guesses ahead for {target}; it does not write alone."
        if does.startswith("seq2seq"):
            return f"Yes: {it} is a language model of encoder and decoder; it reads a text and writes another."
        if does == "llm-part":
            return (
                f"Yes: this is the language model of {it}, alone; images or sounds need the encoder that is not in it."
            )
        special = " specialised in programs" if "code" in flavours else ""
        return f"Yes: {it} is a language model (LLM){special}; it reads text and writes text."
    if what.kind == "lmm":
        also = _and([_many(m) for m in what.inputs if m != "text"]) or "more"
        writes = _and([_many(m) for m in what.outputs if m != "text"])
        made = f"it writes text and makes {writes}" if writes else "it writes text"
        prefix = f"An adapter to {bases[0]}. " if relation == "adapter" and bases else ""
        return f"{prefix}Not an LLM alone: {it} is a large multimodal model (LMM); {made}, and also takes {also}."
    alone = {
        "tokenizer": "No: a tokenizer alone; it cuts text into tokens, and holds no model.",
        "optimizer": "No: the state of an optimizer, from the middle of a training; it holds no model.",
        "projector": "No: the image encoder of a multimodal model, alone; the language model is another file.",
        "audio-projector": "No: the audio encoder of a multimodal model, alone; the language model is another file.",
        "reward": f"No: {it} is a reward model; it scores texts and writes none.",
        "llm-classifier": f"No: {it} is a classifier over a language model's body; it labels texts and writes none.",
        "translation": f"No: {it} is a translation model; it writes text, but only a given text in another language.",
        "vae": f"No: {_an(it, 'autoencoder')} of images; it packs and unpacks pictures for a generator.",
        "video-vae": f"No: {_an(it, 'autoencoder')} of videos; it packs and unpacks them for a generator.",
        "controlnet": "No: a ControlNet; it steers an image generator, and draws nothing alone.",
    }.get(does)
    if alone:
        return alone
    flavour = next((f for f in ("reranker", "embedder", "classifier", "codec", "vocoder") if f in flavours), "")
    says = {
        "reranker": "a reranker; it orders texts by how well they answer, and writes none",
        "embedder": "an embedding model; it turns its input into vectors, and writes no text",
        "classifier": "a classifier; it gives labels, and writes no text",
        "codec": "an audio codec; it packs and unpacks sounds",
        "vocoder": "a vocoder; it turns spectra into sounds",
    }.get(flavour)
    kinds = {
        "image": "an image generator; it draws, and writes no text",
        "video": "a video generator; it writes no text",
        "vision": f"a vision model; it takes {_and([_many(m) for m in what.inputs]) or 'images'} and writes no text"
        if "text" not in what.outputs else "a vision model; it reads the text in images, and no more",
        "vision-language-embedding": "a vision-language embedding model; it compares images and texts, and writes none",
        "text-encoder": "a text encoder; it turns text into vectors, and writes none",
        "speech": "a speech model; it writes down what it hears" if what.outputs == ("text",)
        else "a speech model; it speaks" if "audio" in what.outputs else "a speech model; it writes no text",
        "audio": "an audio model; it works on sounds, and writes no text",
        "music": "a music generator; it writes no text",
        "protein": "a protein model; its letters are amino acids, not words",
        "scientific": "a scientific model; it works on data of its field, not on language",
        "robotics": "a robot policy; what it writes are actions",
        "time-series": "a time-series model; it continues numbers, not text",
        "other": "another kind of model; it writes no text",
    }  # fmt: skip
    if relation == "adapter":
        return f"No: an adapter to {bases[0] if bases else it}, which is {says or kinds[what.kind]}."
    return f"No: {it} is {says or kinds[what.kind]}."


def _an(name: str, noun: str) -> str:
    return f"an {noun}" if name.lower() == "this" else f"{name} is an {noun}"


def _and(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def _many(modality: str) -> str:
    return {"image": "images", "video": "videos", "audio": "sounds", "text": "text"}.get(modality, modality)
