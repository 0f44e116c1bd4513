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
from brolly.identity.subject import MAX_FILES, Subject
from brolly.place import Place, Where, is_folder

MAX_SECONDS = 2.0  # for all files of a model
MAX_REMOTE = 40  # files beyond HTTP that are looked into
MAX_TOKENIZER = 128 * 2**20  # bytes; the largest published one has 34 MB
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
TF_FILE_OPS = {"ReadFile": "warning", "MatchingFiles": "warning", "WholeFileReader": "warning",
               "WholeFileReaderV2": "warning", "WriteFile": "danger", "DeleteFile": "danger"}  # fmt: skip
PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc", "PythonOp", "PyOp", "PyCustomOpDef"}


def findings_of(subject: Subject) -> list[Finding]:
    """Everything that is wrong with the model's files, each finding once; none where nothing is."""
    from brolly.identity.configured import beside, findings

    end = monotonic() + MAX_SECONDS
    found = [*_faults(subject), *_archive(subject), *findings(subject, end), *_graph(subject), *_links(subject)]
    found += _templates(subject)
    if not is_far(subject.where):
        for name, other in beside(subject, end):
            found += [finding._replace(file=name) for finding in (*_graph(other), *_templates(other, alone=True))]
    found += _files(subject)
    return list(dict.fromkeys(found))


def _templates(subject: Subject, alone: bool = False) -> list[Finding]:
    """What is wrong with chat templates: of the folder, or `alone` of the file's own keys."""
    keys = any(str(key).startswith("tokenizer.chat_template") for key in subject.header.metadata)
    names = ("tokenizer_config.json", "chat_template.json", "processor_config.json")
    files = not alone and (
        any(subject.has(name) for name in names)
        or any(name.endswith((*names, ".jinja", ".jinja2", ".j2")) for name in subject.files)
    )
    if not files and not keys:
        return []
    from brolly.identity.prompts import findings

    return findings(subject, alone)


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


def _graph(subject: Subject) -> Iterator[Finding]:
    """Operators and layers of a stored program that do more than compute."""
    header, metadata = subject.header, subject.header.metadata
    file = "" if is_folder(header.path) else header.path.name
    layers = metadata.get("lambda_layers")
    names = [str(n) for n in layers[:5]] if isinstance(layers, (list, tuple)) else []
    if header.format.startswith("keras"):
        from brolly.identity.configured import lambdas

        for config in (header.config, metadata.get("model_config")):
            ran, read = lambdas(config)
            names += [n for n in ran if n not in names]
            for path in read[:1]:
                said = f"A layer reads its vocabulary from {shown(path)} when it is loaded; look at what that is."
                yield Finding("external-path", "warning", file, said)
    if names:
        said = f"It has Lambda layers or functions that run code ({', '.join(map(shown, names[:5]))}); do not load it."
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
    held = metadata.get("attributes")
    told = held.get("/") if isinstance(held, Mapping) else None
    for key in ("external_links", "external_files"):  # of HDF5
        if inside := told.get(key) if isinstance(told, Mapping) and header.format.startswith(("hdf5", "keras")) else ():
            first = shown(str(next(iter(inside)) if isinstance(inside, (Mapping, list, tuple)) else inside))
            said = f"What {first} holds lies in another file, which loading would read: do not load it."
            yield Finding("external-path", "danger", file, said)
    if header.format == "nemo":
        from brolly.identity.configured import called

        yield from called(header.config, file)
    external = metadata.get("external")
    for row in external if isinstance(external, (list, tuple)) else ():
        location = str(row[-1] if isinstance(row, (list, tuple)) and row else row)
        parts = location.replace("\\", "/").split("/")
        if location.startswith(("/", "\\", "~")) or ".." in parts or re.match(r"[A-Za-z]:|\w+://", location):
            said = f"A tensor's data is {shown(location)}, outside of the model; loading would read it: do not load it."
            yield Finding("external-path", "danger", file, said)
            break


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
    if far and len(telling) > MAX_REMOTE:
        said = f"Of {len(telling)} files that may hold pickles, {MAX_REMOTE} were looked into; pull it and identify it."
        yield Finding("unscanned", "info", telling[MAX_REMOTE], said)
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
    if len(subject.files) >= MAX_FILES:
        said = f"It holds {MAX_FILES:,} files or more, and not all were looked at; no real model does."
        yield Finding("unscanned", "warning", "", said)
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
    told = Told(seconds=min(ONE, max(0.05, end - monotonic())), name=name)
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
