"""What is unsafe about a model's files: code that loading would run, paths that lead out, files that are two at once.

Nothing is executed, imported or unpickled; a clean model of any format has no finding.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import Any

from brolly.card import Finding
from brolly.checkpoint.archives import TarStore, ZipStore
from brolly.checkpoint.bounded import opened, shown
from brolly.errors import BrollyError, CheckpointError, UnsafeCheckpoint
from brolly.identity.subject import Subject, is_folder
from brolly.place import Place, Where

MAX_SECONDS = 2.0  # for all files of a model
MAX_REMOTE = 40  # files beyond HTTP that are looked into
MAX_TOKENIZER = 128 * 2**20  # bytes; the largest published one has 34 MB
MAX_NODES = 50_000  # of a configuration
PROGRAMS = (
    ".exe",
    ".dll",
    ".so",
    ".dylib",
    ".bat",
    ".cmd",
    ".ps1",
    ".scr",
    ".vbs",
    ".msi",
    ".com",
    ".lnk",
    ".jar",
    ".sys",
)
SCRIPTS = (".sh", ".bash", ".zsh", ".py", ".pl", ".rb", ".js", ".fish", "")
CODED = ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json",
         "generation_config.json", "feature_extractor_config.json", "image_processor_config.json",
         "video_preprocessor_config.json", "adapter_config.json")  # fmt: skip
TF_FILE_OPS = {"ReadFile": "warning", "MatchingFiles": "warning", "WholeFileReader": "warning",
               "WholeFileReaderV2": "warning", "WriteFile": "danger", "DeleteFile": "danger"}  # fmt: skip
PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc", "PythonOp", "PyOp", "PyCustomOpDef"}
LIBRARIES = re.compile(
    r"(?:diffusers|transformers|peft|onnxruntime|optimum|k_diffusion|sentence_transformers|timm|open_clip)(?:\..*)?"
)


def findings_of(subject: Subject) -> list[Finding]:
    """Everything that is wrong with the model's files, each finding once; none where nothing is."""
    found = [*_faults(subject), *_archive(subject), *_code(subject), *_graph(subject), *_links(subject)]
    files = any(subject.has(name) for name in ("tokenizer_config.json", "chat_template.json", "processor_config.json"))
    keys = any(str(key).startswith("tokenizer.chat_template") for key in subject.header.metadata)
    if files or keys or any(name.endswith((".jinja", ".jinja2", ".j2")) for name in subject.files):
        from brolly.identity.prompts import findings

        found += findings(subject)
    found += _files(subject)
    return list(dict.fromkeys(found))


def _faults(subject: Subject) -> Iterator[Finding]:
    """The errors that reading went on after; those without an id are told by what follows here."""
    for fault in subject.faults:
        if fault.finding:
            severity = "danger" if isinstance(fault, UnsafeCheckpoint) else "warning"
            file = fault.file or ("" if is_folder(subject.header.path) else subject.header.path.name)
            yield Finding(fault.finding, severity, file, str(fault))


def _archive(subject: Subject) -> Iterator[Finding]:
    place = subject.header.path
    if isinstance(place, Place) and isinstance(place.store, (ZipStore, TarStore)):
        yield from place.store.problems


def is_far(place: Where) -> bool:
    """Whether each look at a file costs a request: it lies neither on this disk nor in an archive on it."""
    if not isinstance(place, Place):
        return False
    return is_far(place.store.path) if isinstance(place.store, (ZipStore, TarStore)) else True


def _code(subject: Subject) -> Iterator[Finding]:
    """Configurations that make their reader run code of the repository."""
    for name in CODED:
        config: Mapping[str, Any] = subject.header.config if name == "config.json" else {}
        config = config or (subject.json(name) if subject.has(name) else {})
        for said in _named_code(config):
            yield Finding(
                "remote-code",
                "warning",
                name,
                f"{name} makes loading run {said}; read that code first.",
            )
    if subject.has("modules.json"):
        text = subject.text("modules.json")
        for kind in re.findall(r'"type"\s*:\s*"([^"]{1,200})"', text):
            if not kind.startswith(("sentence_transformers.", "pylate.")):
                said = f"modules.json makes loading import {shown(kind)}; read that code first."
                yield Finding("remote-code", "warning", "modules.json", said)
                break
    yield from _pipeline(subject)


def _named_code(config: Mapping[str, Any]) -> Iterator[str]:
    classes: list[Any] = []
    for key in ("auto_map", "custom_pipelines", "auto_mapping"):
        value = config.get(key)
        if not isinstance(value, Mapping):
            continue
        if key == "auto_mapping":
            library = value.get("parent_library")
            if isinstance(library, str) and library.startswith(("transformers_modules", "diffusers_modules")):
                yield shown(library)
            continue
        for inside in list(value.values())[:20]:
            inside = inside.get("impl") if isinstance(inside, Mapping) else inside
            classes += inside if isinstance(inside, list) else [inside]
    named = sorted({c.partition("--")[2] or c for c in classes if isinstance(c, str)})
    if named:
        elsewhere = sorted({c.partition("--")[0] for c in classes if isinstance(c, str) and "--" in c})
        yield ", ".join(map(shown, named[:4])) + (f" from {shown(elsewhere[0])}" if elsewhere else "")
    elif config.get("trust_remote_code") is True:
        yield "code (it sets trust_remote_code)"


def _pipeline(subject: Subject) -> Iterator[Finding]:
    """Components of a diffusers pipeline whose class is not diffusers' or transformers' own."""
    index = subject.json("model_index.json") if subject.has("model_index.json") else {}
    for part, value in list(index.items())[:100]:
        if part == "_class_name" and isinstance(value, list):
            said = (
                f"model_index.json makes loading run a pipeline of its own, {shown(value[:1])}: read that code first."
            )
            yield Finding("remote-code", "warning", "model_index.json", said)
        if not isinstance(value, list) or len(value) != 2 or not all(isinstance(v, str) for v in value):
            continue
        library, name = value
        own = f"{library}.py" in subject.files or f"{part}/{library}.py" in subject.files
        if own or ("." in library and not LIBRARIES.fullmatch(library)) or _in_python(library):
            said = f"model_index.json makes loading import {shown(library + '.' + name)}; read that code first."
            yield Finding("remote-code", "warning", "model_index.json", said)


def _in_python(library: str) -> bool:
    import sys

    return library.partition(".")[0] in sys.stdlib_module_names


def _graph(subject: Subject) -> Iterator[Finding]:
    """Operators and layers of a stored program that do more than compute."""
    header, metadata = subject.header, subject.header.metadata
    file = "" if is_folder(header.path) else header.path.name
    layers = metadata.get("lambda_layers")
    names = [str(n) for n in layers[:5]] if isinstance(layers, (list, tuple)) else []
    if header.format.startswith("keras"):
        names += [n for n in _lambdas(header.config) if n not in names]
        if isinstance(metadata.get("model_config"), Mapping):
            names += [n for n in _lambdas(metadata["model_config"]) if n not in names]
    if names:
        said = f"It has Lambda layers ({', '.join(map(shown, names[:5]))}), which are Python code; do not load it."
        yield Finding("keras-lambda", "danger", file, said)
    ops = metadata.get("ops")
    for op in ops if isinstance(ops, (Mapping, list, tuple)) else ():
        leaf = re.split(r"[.:/]", str(op))[-1]
        if leaf in PYTHON_OPS:
            finding = "tf-python-op" if "Func" in leaf else "onnx-python-op"
            yield Finding(finding, "danger", file, f"Its graph calls Python ({leaf}); do not run it.")
        elif leaf in TF_FILE_OPS and not header.format.startswith("onnx"):
            said = f"Its graph reaches for files when it runs ({leaf}); look at what it opens before you run it."
            yield Finding("tf-file-op", TF_FILE_OPS[leaf], file, said)
    external = metadata.get("external")
    for row in external if isinstance(external, (list, tuple)) else ():
        location = str(row[-1] if isinstance(row, (list, tuple)) and row else row)
        parts = location.replace("\\", "/").split("/")
        if location.startswith(("/", "\\", "~")) or ".." in parts or re.match(r"[A-Za-z]:|\w+://", location):
            said = f"A tensor's data is {shown(location)}, outside of the model; loading would read it: do not load it."
            yield Finding("external-path", "danger", file, said)
            break


def _lambdas(config: Any) -> list[str]:
    """The names of Lambda layers, and of functions that a Keras configuration imports by name."""
    found: list[str] = []
    todo, seen = [config], 0
    while todo and seen < MAX_NODES:
        value = todo.pop()
        seen += 1
        if isinstance(value, Mapping):
            kind, inside = value.get("class_name"), value.get("config")
            if kind == "Lambda" or kind == "__lambda__":
                named = inside.get("name") if isinstance(inside, Mapping) else None
                found.append(str(named or value.get("name") or "lambda"))
            elif kind == "function" and str(value.get("module") or "").partition(".")[0] not in (
                "keras",
                "builtins",
                "",
            ):
                found.append(f"{value.get('module')}.{inside}")
            todo += list(value.values())
        elif isinstance(value, (list, tuple)):
            todo += value
    return found


def _links(subject: Subject) -> Iterator[Finding]:
    """Links of a folder to what lies outside of it; a hub's cache links to the blobs beside its snapshots."""
    folder = subject.where
    if isinstance(folder, Place) or not is_folder(folder):
        return
    root = os.path.realpath(folder)
    allowed = [root + os.sep]
    if os.path.basename(os.path.dirname(root)) == "snapshots":
        allowed.append(os.path.join(os.path.dirname(os.path.dirname(root)), "blobs") + os.sep)
    try:
        top = [e.name for e in os.scandir(folder) if e.is_symlink()]
    except OSError:
        top = []
    for name in dict.fromkeys((*subject.files, *top)):
        path = os.path.join(folder, name)
        if os.path.islink(path) and not (os.path.realpath(path) + os.sep).startswith(tuple(allowed)):
            said = (
                f"{shown(name)} is a link to {shown(os.path.realpath(path))}, outside of the model; put a file there."
            )
            yield Finding("symlink-out", "warning", name, said)


def _files(subject: Subject) -> Iterator[Finding]:
    """Each file by its first bytes, and for pickles all through; those with a telling name first."""
    from brolly.identity.pickled import SUFFIXES

    far = is_far(subject.where)
    end = monotonic() + MAX_SECONDS
    folder = subject.folder
    telling = [n for n in subject.files if n.lower().endswith(SUFFIXES)]
    others = [] if far else [n for n in subject.files if not n.lower().endswith(SUFFIXES)]
    late: list[str] = []
    for name in (*(telling[:MAX_REMOTE] if far else telling), *others):
        size = subject.files[name]
        if name.endswith(PROGRAMS):
            said = f"{shown(name)} is a program or a library, which no model needs; do not run it."
            yield Finding("executable", "warning", name, said)
        if name.rpartition("/")[2] == "tokenizer.json" and size > MAX_TOKENIZER:
            said = f"{name} has {size:,} bytes, more than any real tokenizer; loading it may exhaust the memory."
            yield Finding("tokenizer-size", "warning", name, said)
        if monotonic() > end:
            late.append(name)
            continue
        try:
            with opened(folder / name) as (file, _):
                yield from _one(file, size, name, far, end)
        except CheckpointError as error:
            yield Finding("unreadable", "warning", name, f"{error} It was not looked at.")
        except BrollyError:
            continue
    if late:
        said = (
            f"Time ran out before {len(late)} files ({shown(late[0])} …) were looked at; identify them by themselves."
        )
        yield Finding("unscanned", "warning", late[0], said)


def _one(file: Any, size: int, name: str, far: bool, end: float) -> Iterator[Finding]:
    from brolly.checkpoint.pickles import MAX_SECONDS as ONE
    from brolly.identity.pickled import Told, look

    head = file.read(min(size, 1024))
    if kind := _program(head, name):
        said = f"{shown(name)} is {kind}, which no model needs; do not run it."
        pretends = not name.lower().endswith((*PROGRAMS, *SCRIPTS[:-1])) and "." in name
        yield Finding("executable", "danger" if pretends else "warning", name, said)
    if not size:
        return
    told = Told(seconds=min(ONE, max(0.05, end - monotonic())))
    look(file, size, name, told, shy=far)
    yield from _twofold(file, size, head, name, told, far)
    if told.danger:
        names, where = _listed(told.danger)
        said = f"Loading {shown(name)} would run code: it imports {names}{where}; do not load it, ask for safetensors."
        if all(n.startswith("it ") for n in told.danger):
            said = f"Loading {shown(name)} may run code: {names}{where}; do not load it, ask for safetensors."
        yield Finding("pickle-code", "danger", name, said)
    if told.unknown:
        names, where = _listed(told.unknown)
        said = f"{shown(name)} imports {names}{where} when loaded, which may run code; load it only if you trust it."
        yield Finding("pickle-unknown-global", "warning", name, said)
    for (finding, severity), sentence in told.others.items():
        yield Finding(finding, severity, name, sentence)


def _listed(names: dict[str, str]) -> tuple[str, str]:
    first = list(names)[:5]
    inside = names[first[0]]
    rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(first) + rest, f" (in {shown(inside)})" if inside else ""


def _program(head: bytes, name: str) -> str:
    """What kind of program a file is, by its first bytes."""
    if head[:4] == b"\x7fELF":
        return "a program for Linux (ELF)"
    if head[:2] == b"MZ":
        at = int.from_bytes(head[60:64], "little")
        if head[at : at + 4] == b"PE\0\0" or head[2:8] == b"qFpD='":
            return "a program for Windows (PE)"
    if (
        head[:4] in (b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\xfe\xed\xfa\xcf")
        or head[:8] == b"\xca\xfe\xba\xbe\0\0\0\x02"
    ):
        return "a program for macOS (Mach-O)"
    suffix = os.path.splitext(name)[1].lower()
    if head[:2] == b"#!" and b"/" in head[:20].partition(b"\n")[0] and suffix not in SCRIPTS:
        return "a script, whatever its name says"
    return ""


def _twofold(file: Any, size: int, head: bytes, name: str, told: Any, far: bool) -> Iterator[Finding]:
    """A file that is something by its beginning and a zip archive by its end, or a zip with more around it."""
    from brolly.checkpoint.archives import is_tar, read_directory
    from brolly.identity.pickled import look

    if far and head[:2] != b"PK" or size < 22 or is_tar(head):
        return  # a tar may well end with a zip
    try:
        directory = read_directory(file, size, name)
    except CheckpointError:
        return
    if not directory.members:
        return
    begins = directory.first
    if head[:2] != b"PK" or begins:
        said = (
            f"{shown(name)} is a zip archive with {begins:,} bytes before it, and so two files in one; do not load it."
        )
        if head[:2] != b"PK" and not begins:
            said = f"{shown(name)} begins as another file and ends as a zip archive: two files in one; do not load it."
        yield Finding("polyglot", "danger", name, said)
        look(file, size, name, told, shy=far, zipped=True)
    elif directory.last < size:
        file.seek(directory.last)
        if file.read(min(size - directory.last, 2**16)).strip(b"\0\r\n \t") or size - directory.last > 2**16:
            said = f"{shown(name)} has {size - directory.last:,} bytes after its zip archive; do not load it."
            yield Finding("polyglot", "warning", name, said)
