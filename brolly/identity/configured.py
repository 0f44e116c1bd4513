"""Configurations that make their reader run code: of the repository, of Python's library, of a program in a layer."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import Any

from brolly.card import Finding
from brolly.checkpoint.bounded import MAX_JSON, opened, parse_json, shown
from brolly.errors import BrollyError, CheckpointError
from brolly.identity.subject import Subject
from brolly.place import is_folder

MAX_NODES = 50_000  # of a configuration
MAX_FILES = 60  # configurations that are looked into
MAX_TEXT = 2**20  # bytes of a YAML file
CODED = ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json",
         "generation_config.json", "feature_extractor_config.json", "image_processor_config.json",
         "video_preprocessor_config.json", "adapter_config.json", "modules.json", "router_config.json")  # fmt: skip
MODULES = ("sentence_transformers.", "pylate.", "torch.")
LIBRARIES = re.compile(
    r"(?:diffusers|transformers|peft|onnxruntime|optimum|k_diffusion|sentence_transformers|timm|open_clip)(?:\..*)?"
)
# What Hydra's, SpeechBrain's and Python's own YAML call when it is loaded.
CALLED = re.compile(
    r"""(?:["']?\b_target_["']?\s{0,9}:\s{0,9}["']?|!!python/(?:object/(?:apply|new)|object|name|module):"""
    r"""|!(?:apply|new|name|module):)([A-Za-z_][\w.]{0,199})"""
)
GADGETS = {"get_file", "load_model", "load_weights", "enable_unsafe_deserialization", "load_img", "load_data"}
PROGRAMS = {"TorchModuleWrapper", "TFSMLayer"}  # layers that are a pickle, or another program's path
LOOKUPS = {"StringLookup", "IntegerLookup", "IndexLookup", "TextVectorization"}


def findings(subject: Subject, end: float) -> Iterator[Finding]:
    """What the model's configurations make their reader run."""
    files = [n for n in subject.files if n.rpartition("/")[2] in CODED and n.count("/") < 3]
    names = dict.fromkeys([n for n in CODED if subject.has(n)] + files)
    for name in list(names)[:MAX_FILES]:
        try:
            found = _value(subject, name)
        except CheckpointError as error:
            if not subject.faults or name != "config.json":
                yield Finding("unreadable", "warning", name, f"{error} It was not looked at.")
            continue
        except BrollyError:
            continue
        yield from _named(found, name)
        if monotonic() > end:
            return
    yield from _pipeline(subject)
    for name, size in subject.files.items():
        if name.endswith((".yaml", ".yml")) and size <= MAX_TEXT and name.count("/") < 3:
            yield from targets(subject.text(name), name)


def _value(subject: Subject, name: str) -> Any:
    if name == "config.json" and subject.header.config:
        return subject.header.config
    with opened(subject.folder / name) as (file, size):
        if size > MAX_JSON:
            raise CheckpointError(f"{name} has {size:,} bytes, more than any real one.")
        return parse_json(file.read(MAX_JSON), name)


def _named(found: Any, name: str) -> Iterator[Finding]:
    leaf = name.rpartition("/")[2]
    said = []
    if leaf == "modules.json":
        kinds = [row.get("type") for row in found if isinstance(row, dict)] if isinstance(found, list) else []
        said = [shown(k) for k in kinds if isinstance(k, str) and not k.startswith(MODULES)][:1]
    elif isinstance(found, Mapping):
        said = list(_code(found)) or list(_imported(found))[:1]
        yield from called(found, name)
    for what in said:
        yield Finding("remote-code", "warning", name, f"{shown(name)[1:-1]} makes loading run {what}; read it first.")


def _code(config: Mapping[str, Any]) -> Iterator[str]:
    """The classes of the repository that transformers, diffusers and PEFT import."""
    classes: list[Any] = []
    for key in ("auto_map", "custom_pipelines", "auto_mapping"):
        value = config.get(key)
        if not isinstance(value, Mapping):
            continue
        if key == "auto_mapping":
            library = value.get("parent_library")
            odd = isinstance(library, str) and (library.startswith(("transformers_modules", "diffusers_modules")))
            if isinstance(library, str) and (odd or in_python(library) and library != "__main__"):
                yield shown(library)
            continue
        for inside in list(value.values())[:1000]:
            inside = inside.get("impl") if isinstance(inside, Mapping) else inside
            classes += inside if isinstance(inside, list) else [inside]
    named = sorted({c.partition("--")[2] or c for c in classes if isinstance(c, str)})
    if named:
        elsewhere = sorted({c.partition("--")[0] for c in classes if isinstance(c, str) and "--" in c})
        yield ", ".join(map(shown, named[:4])) + (f" from {shown(elsewhere[0])}" if elsewhere else "")
    elif config.get("trust_remote_code") is True:
        yield "code (it sets trust_remote_code)"


def _imported(config: Mapping[str, Any]) -> Iterator[str]:
    """What sentence-transformers imports by a dotted name: a dense layer's activation, a router's modules."""
    function = config.get("activation_function") if "in_features" in config else None
    types = config.get("types")
    for value in (function, *(types.values() if isinstance(types, Mapping) and "structure" in config else ())):
        if isinstance(value, str) and "." in value and not value.startswith(MODULES):
            yield shown(value)


def called(config: Any, name: str) -> Iterator[Finding]:
    """What Hydra would call, where that runs code."""
    for target in _targets(config):
        yield _called(target, name)
        return


def _targets(config: Any) -> Iterator[str]:
    todo, seen = [config], 0
    while todo and seen < MAX_NODES:
        value = todo.pop()
        seen += 1
        if isinstance(value, Mapping):
            target = value.get("_target_")
            if isinstance(target, str) and is_dangerous(target):
                yield target
            todo += [v for v in value.values() if isinstance(v, (Mapping, list))]
        elif isinstance(value, list):
            todo += [v for v in value if isinstance(v, (Mapping, list))]


def targets(text: str, name: str) -> Iterator[Finding]:
    """What a YAML file makes its reader call, where that runs code."""
    for matched in CALLED.finditer(text):
        if is_dangerous(matched[1]):
            yield _called(matched[1], name)
            return


def _called(target: str, name: str) -> Finding:
    said = f"{shown(name)[1:-1]} makes loading call {shown(target)}, which runs code; do not load it."
    return Finding("remote-code", "danger", name, said)


def is_dangerous(dotted: str) -> bool:
    """Whether a dotted name is one that pickles must not import."""
    from brolly.checkpoint.pickles import Name
    from brolly.identity.pickled import listed_as_dangerous

    module, _, leaf = dotted.rpartition(".")
    return bool(module) and listed_as_dangerous(Name(module, leaf))


def _pipeline(subject: Subject) -> Iterator[Finding]:
    """Components of a diffusers pipeline whose class is not diffusers' or transformers' own."""
    name = "model_index.json"
    index = subject.json(name) if subject.has(name) else {}
    for part, value in index.items():
        if part == "_class_name" and isinstance(value, list):
            said = f"{name} makes loading run a pipeline of its own, {shown(value[:1])}: read that code first."
            yield Finding("remote-code", "warning", name, said)
        if not isinstance(value, list) or len(value) != 2 or not all(isinstance(v, str) for v in value):
            continue
        if ".." in part.replace("\\", "/").split("/") or part.startswith(("/", "\\")):
            said = f"{name} has a part {shown(part)}, which lies outside of the model; do not load it."
            yield Finding("external-path", "danger", name, said)
        library, kind = value
        own = f"{library}.py" in subject.files or f"{part}/{library}.py" in subject.files
        if own or ("." in library and not LIBRARIES.fullmatch(library)) or in_python(library):
            said = f"{name} makes loading import {shown(library + '.' + kind)}; read that code first."
            yield Finding("remote-code", "warning", name, said)
            return


def in_python(library: str) -> bool:
    return library.partition(".")[0] in sys.stdlib_module_names


def lambdas(config: Any) -> tuple[list[str], list[str]]:
    """Of a Keras configuration: layers and functions that run code, and files that it reads."""
    found: list[str] = []
    paths: list[str] = []
    todo, seen = [config], 0
    while todo and seen < MAX_NODES:
        value = todo.pop()
        seen += 1
        if isinstance(value, Mapping):
            kind, inside = str(value.get("class_name")), value.get("config")
            module = str(value.get("module") or "")
            leaf = kind.rpartition(">")[2]
            if leaf in ("Lambda", "__lambda__"):
                named = inside.get("name") if isinstance(inside, Mapping) else None
                found.append(str(named or value.get("name") or "lambda"))
            elif kind == "function":
                name = str(inside)
                bad = module.partition(".")[0] not in ("keras", "builtins", "") or name in GADGETS
                if bad or is_dangerous(f"builtins.{name}"):
                    found.append(f"{module}.{name}")
            elif leaf in PROGRAMS | GADGETS or in_python(module) and module != "builtins":
                found.append(f"{module}.{leaf}")
            elif leaf in LOOKUPS and isinstance(inside, Mapping) and isinstance(inside.get("vocabulary"), str):
                paths.append(inside["vocabulary"])
            todo += list(value.values())
        elif isinstance(value, (list, tuple)):
            todo += value
    return found, paths


OTHERS = (".keras", ".h5", ".hdf5", ".onnx", ".gguf", "saved_model.pb", ".nemo")


def beside(subject: Subject, end: float) -> Iterator[tuple[str, Subject]]:
    """Each file of another format beside the weights that are told: a graph or a template may hide there."""
    if not is_folder(subject.where):
        return
    from brolly.checkpoint import read_header

    known = {str(f) for f in (subject.header.path, *subject.header.files)}
    for name in subject.files:
        path = subject.folder / name
        if not name.endswith(OTHERS) or str(path) in known or monotonic() > end:
            continue
        try:
            where = path.parent if name.endswith("saved_model.pb") else path
            yield name, Subject(where, read_header(where), [], None)
        except BrollyError:
            continue
