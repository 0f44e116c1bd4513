"""A name, a URL or a path to files on this disk, in the ecosystem's cache and over huggingface_hub's connections.

Cache and endpoint follow HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE, read when they are needed.
A file gets its name in the cache only when it is whole and has the size and the hash that the hub says.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import Path
from threading import Event, get_ident
from typing import Any
from urllib.parse import unquote, urlsplit

from brolly.errors import BrollyError, DiskFull, Gated, HubError, NotFound, Offline, OptionError

MINIS = Path(__file__).parent / "minis"
WEIGHTS = (".safetensors", ".gguf", ".pt", ".pth", ".bin")
SMALL = (
    "*.json", "*.jinja", "*.model", "*.tiktoken", "merges.txt", "vocab.txt", "tokenizer.model.v*",
    "LICENSE*", "README.md", "USE_POLICY*", "NOTICE*", "additional_chat_templates/*.jinja",
)  # fmt: skip
NEEDLESS = (
    "onnx/*",
    "openvino/*",
    "*.onnx",
    "*.msgpack",
    "*.h5",
    "*.ot",
    "*.mlmodel",
    "runs/*",
    "original/*",
    "metal/*",
)
PAUSE = 0.2  # seconds; three times as long after each try that brought nothing
_NAME = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Reference:
    """A repository on the hub, a revision, and perhaps one file of it."""

    repo: str
    revision: str = "main"
    file: str | None = None


@dataclass(frozen=True)
class CachedModel:
    """A model on this disk: bundled, or one revision of a repository in the cache."""

    name: str
    revision: str
    n_bytes: int
    path: Path
    complete: bool
    bundled: bool = False


@dataclass(frozen=True)
class _File:
    """A file of a repository: its size, and its SHA-256 (64 digits) or Git's SHA-1 (40), where the hub says them."""

    name: str
    n_bytes: int | None
    digest: str


@dataclass(frozen=True)
class _Record:
    """What brolly knows of one revision in the cache: the files asked for, and those that it found to be right."""

    wanted: list[str] = field(default_factory=list)
    verified: list[str] = field(default_factory=list)
    whole: bool = False


def cache_folder() -> Path:
    """Where the ecosystem keeps repositories."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")).expanduser()


def offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def resolve(reference: str | Path, *, quiet: bool = True) -> Path:
    """The folder or file of a path, a bundled mini's name, a hub name or a URL, downloaded if it must be."""
    text = str(reference)
    local = Path(text).expanduser()
    if local.exists():
        return local
    if looks_local(text):
        raise NotFound(f"{text} does not exist; expected a folder or a file, or a hub name like org/name.")
    if (MINIS / text).is_dir() and text in minis():
        return MINIS / text
    return pull(text, quiet=quiet)


def minis() -> list[str]:
    """The models that come with brolly."""
    return sorted(p.parent.name for p in MINIS.glob("*/config.json"))


def looks_local(text: str) -> bool:
    """Whether a reference can only mean a path."""
    return text.startswith(("/", "./", "../", "~", ".\\")) or (text.endswith((*WEIGHTS, ".txt")) and "://" not in text)


def parse(text: str) -> Reference | str:
    """A hub name in any of its spellings, or the URL of a file elsewhere. Raises OptionError."""
    site = re.escape(urlsplit(endpoint()).netloc)
    if found := re.fullmatch(rf"https?://(?:{site}|huggingface\.co|hf\.co)/(.+)", text):
        parts = [unquote(p) for p in found[1].split("?")[0].strip("/").split("/")]
        verb = parts[2] if len(parts) > 2 else ""
        if verb in ("resolve", "blob", "tree", "raw") and len(parts) > 3:
            file = "/".join(parts[4:]) or None
            return _checked(Reference("/".join(parts[:2]), parts[3], file), text)
        return _checked(Reference("/".join(parts[:2])), text)
    if text.startswith(("http://", "https://")):
        return text
    body, _, revision = text.removeprefix("hf://").partition("@")
    tail = revision.split("/", 1)[1] if text.startswith("hf://") and "/" in revision else ""
    parts = body.split("/")
    file = "/".join(parts[2:]) or tail or None
    return _checked(Reference("/".join(parts[:2]), revision.split("/")[0] if tail else revision or "main", file), text)


def _checked(ref: Reference, text: str) -> Reference:
    right = all(safe(part) for part in (ref.repo, ref.revision, ref.file or ""))
    if not right or not _NAME.fullmatch(ref.repo) or ".." in ref.repo or ref.revision.startswith("-"):
        raise OptionError(
            f"{text[:200]!r} is neither a path here nor a hub name; expected org/name or org/name@revision."
        )
    return ref


def pull(reference: str, *, quiet: bool = True) -> Path:
    """Download what is needed of a repository or a URL, or find it in the cache. Raises HubError."""
    target = parse(reference)
    if isinstance(target, str):
        return _pull_url(target, quiet)
    if target.repo in minis():
        return MINIS / target.repo
    found = in_cache(target)
    if offline():
        if found:
            return found
        raise Offline(f"{reference} is not in the cache ({cache_folder()}), and HF_HUB_OFFLINE is set; {_known()}")
    folder = _folder(target.repo)
    if found and _COMMIT.fullmatch(target.revision) and _record(folder, target.revision):
        return found  # a commit never changes
    from huggingface_hub import HfApi, get_token

    api = HfApi(endpoint=endpoint(), token=get_token() or False)
    with told_apart(reference, target):
        try:
            info = api.model_info(target.repo, revision=target.revision, files_metadata=True, timeout=20)
        except Exception as error:
            if found and (_unreachable(error) or _status(error) in (401, 403)):
                return found
            raise
        commit = info.sha or ""
        if not _COMMIT.fullmatch(commit):
            raise HubError(f"{endpoint()} names no commit for {reference}; check HF_ENDPOINT.")
        files = {s.rfilename: _described(s) for s in info.siblings or [] if safe(s.rfilename)}
        if target.file and target.file not in files:
            raise NotFound(f"{target.repo} has no file {target.file!r}; it has {', '.join(sorted(files)[:6])} …")
        wanted = [target.file] if target.file else needed(list(files))
        if not wanted:
            raise NotFound(f"{target.repo} has no file that brolly reads; expected {', '.join(WEIGHTS)}.")
        root = folder / "snapshots" / commit
        _fetch_files(api, target.repo, root, [files[name] for name in wanted], not target.file, quiet)
        if target.revision != commit:
            _atomic(folder / "refs" / target.revision, commit)
    return root / target.file if target.file else root


def _fetch_files(api: Any, repo: str, root: Path, files: Sequence[_File], whole: bool, quiet: bool) -> None:
    """Bring files into a snapshot, at most four at a time; the record says before and after which of them are right."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, tqdm

    folder, commit = root.parent.parent, root.name
    names = [f.name for f in files]
    old = _record(folder, commit) or _Record()
    missing = [f for f in files if f.name not in old.verified or not (root / f.name).exists()]
    wanted = names if whole else sorted({*old.wanted, *names})
    verified = {name for name in old.verified if name not in {f.name for f in missing}}
    absent = [f for f in missing if not (root / f.name).exists()]
    _room(sum((f.n_bytes or 0) - _have(_part(folder, f)) for f in absent), repo)
    _write_record(folder, commit, _Record(wanted, sorted(verified), whole or old.whole))
    headers, stop = build_hf_headers(token=api.token), Event()
    bar = tqdm(
        total=sum(f.n_bytes or 0 for f in absent), initial=sum(_have(_part(folder, f)) for f in absent),
        unit="B", unit_scale=True, desc=repo, disable=quiet or not absent,
    )  # fmt: skip
    with bar, ThreadPoolExecutor(4) as pool:
        urls = [hf_hub_url(repo, f.name, revision=commit, endpoint=endpoint()) for f in missing]
        jobs = [pool.submit(_bring, url, headers, root, f, bar, stop) for url, f in zip(urls, missing, strict=True)]
        try:
            for job in as_completed(jobs):
                job.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    verified |= {f.name for f in missing}
    _write_record(folder, commit, _Record(wanted, sorted(verified), whole or old.whole))


def _bring(url: str, headers: dict[str, str], root: Path, file: _File, bar: Any, stop: Event) -> None:
    """One file into the cache: what is there is checked, what is missing is fetched, only the right one is named."""
    from huggingface_hub.utils import WeakFileLock

    folder, pointer = root.parent.parent, root / file.name
    part = _part(folder, file)
    blob = part.with_suffix("")
    lock = cache_folder() / ".locks" / folder.name / f"{blob.name}.lock"
    for place in (lock, blob):
        place.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        for place in (pointer, blob):
            if place.exists() and _fault(place, file):
                place.unlink()
        if pointer.exists():
            return
        pointer.unlink(missing_ok=True)  # a link to what is gone
        if not blob.exists():
            _stream(url, part, headers, file.n_bytes, bar, stop)
            if fault := _fault(part, file):
                part.unlink()
                raise HubError(f"{file.name} {fault}; it was deleted. Pull it again.")
            os.replace(part, blob)
        pointer.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.symlink(os.path.relpath(blob, pointer.parent), pointer)
        except OSError:  # a file system without links
            os.replace(blob, pointer)


def _stream(
    url: str, part: Path, headers: dict[str, str], n_bytes: int | None, bar: Any, stop: Event, tag: Path | None = None
) -> None:
    """Append a URL's bytes to a part, going on by Range where it broke off, as long as that moves forward.

    `tag` keeps the version that the part is of, for a URL whose content may change.
    """
    from huggingface_hub.utils import get_session, hf_raise_for_status

    idle = 0
    part.touch()
    while (have := _have(part)) != n_bytes:
        version = tag.read_text() if tag and tag.is_file() else ""
        asked = {"Accept-Encoding": "identity"}
        if have and (version or not tag):
            asked |= {"Range": f"bytes={have}-"} | ({"If-Range": version} if version else {})
        try:
            with get_session().stream("GET", url, headers=headers | asked, timeout=30) as answer:
                if answer.status_code == 416 and have:
                    part.write_bytes(b"")
                    continue
                if answer.is_error:
                    answer.read()
                hf_raise_for_status(answer)
                resumed = answer.status_code == 206
                if resumed and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                    raise HubError(f"{url} sent another range than asked; try again, or download it by hand.")
                if n_bytes is None:
                    if not any(name in answer.headers for name in ("Content-Length", "Transfer-Encoding")):
                        raise HubError(f"{url} does not say how long it is; download it by hand and give its path.")
                    bar.total = int(answer.headers.get("Content-Length") or 0) + have * resumed
                    _room(bar.total - have * resumed, url)
                if not resumed:  # before the tag changes, or a kill here would mix two versions
                    part.write_bytes(b"")
                    bar.update(-have)
                if tag and not resumed:
                    etag = answer.headers.get("ETag", "W/")
                    _atomic(tag, answer.headers.get("Last-Modified", "") if etag.startswith("W/") else etag)
                with part.open("ab") as file:
                    for chunk in answer.iter_bytes():
                        if stop.is_set():
                            raise HubError(f"{url} was not fetched to its end, because another file failed.")
                        file.write(chunk)
                        bar.update(len(chunk))
                        if n_bytes is not None and file.tell() > n_bytes:
                            return
            return
        except Exception as error:
            idle = 0 if _have(part) > have else idle + 1
            if not _unreachable(error) or idle == 3:
                raise
            stop.wait(PAUSE * 3**idle if idle else 0)


def needed(files: Sequence[str]) -> list[str]:
    """The files worth fetching: settings, tokenizer, licence, and the weights in one format."""
    usable = [f for f in files if not any(fnmatch(f, pattern) for pattern in NEEDLESS)]
    small = [f for f in usable if any(fnmatch(f, pattern) for pattern in SMALL)]
    top = [f for f in usable if "/" not in f and f.endswith(WEIGHTS)]
    groups: list[list[str]] = [
        [f for f in top if f.endswith(".safetensors") and not f.startswith("consolidated") and ".fp" not in f],
        [f for f in top if f.startswith("consolidated") and f.endswith(".safetensors")],
        [f for f in top if f.startswith("pytorch_model") and f.endswith(".bin")],
        [f for f in top if f.startswith("consolidated")],
        sorted((f for f in top if f.endswith(".gguf")), key=_plainness)[:1],
        [f for f in top if f.endswith((".pt", ".pth", ".bin")) and f != "training_args.bin"],
    ]
    weights = next((group for group in groups if group), [])
    if len(weights) > 1 and "model.safetensors" in weights:
        weights = ["model.safetensors"]
    return sorted({*small, *weights})


def _plainness(name: str) -> tuple[int, str]:
    """Unquantised GGUF files first: quantised blocks are not run yet."""
    marks = ("bf16", "f16", "f32", "q8_0")
    return next((i for i, mark in enumerate(marks) if mark in name.lower()), len(marks)), name


def safe(name: str) -> bool:
    return not name.startswith(("/", "\\")) and ".." not in name.split("/") and "\\" not in name and "\0" not in name


def _described(sibling: Any) -> _File:
    """What the hub says about a file; digests that are not hexadecimal are not believed."""
    digest = (sibling.lfs.sha256 if sibling.lfs else sibling.blob_id) or ""
    n_bytes = sibling.lfs.size if sibling.lfs else sibling.size
    return _File(sibling.rfilename, n_bytes, digest if _COMMIT.fullmatch(digest) else "")


def _fault(path: Path, file: _File) -> str:
    """What is wrong with a file of this description, or nothing."""
    if file.n_bytes is not None and _have(path) != file.n_bytes:
        return f"has {_have(path)} bytes; the hub says {file.n_bytes}"
    if file.digest and _digest(path, git=len(file.digest) == 40) != file.digest:
        return "does not have the hash that the hub says"
    return ""


def _digest(path: Path, git: bool) -> str:
    """SHA-256, or Git's SHA-1 of a blob: of its length and its bytes."""
    with path.open("rb") as file:
        if not git:
            return hashlib.file_digest(file, "sha256").hexdigest()
        sha = hashlib.sha1(b"blob %d\0" % _have(path), usedforsecurity=False)
        return hashlib.file_digest(file, lambda: sha).hexdigest()


def _have(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _folder(repo: str) -> Path:
    return cache_folder() / f"models--{repo.replace('/', '--')}"


def _part(folder: Path, file: _File) -> Path:
    """Where a file grows; named as its bytes are, so that any later pull goes on with it."""
    name = file.digest or hashlib.sha256(f"{folder.name}/{file.name}/{file.n_bytes}".encode()).hexdigest()
    return folder / "blobs" / f"{name}.incomplete"


def _record(folder: Path, commit: str) -> _Record | None:
    try:
        return _Record(**json.loads((folder / "brolly" / commit).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _write_record(folder: Path, commit: str, record: _Record) -> None:
    if record != _record(folder, commit):
        _atomic(folder / "brolly" / commit, json.dumps(vars(record)))


def in_cache(ref: Reference) -> Path | None:
    """A revision that an earlier pull finished, or that other tools left with weights in it."""
    folder = _folder(ref.repo)
    named = folder / "refs" / ref.revision
    commit = named.read_text().strip() if named.is_file() else ref.revision
    root = folder / "snapshots" / commit
    if not re.fullmatch(r"[\w.-]+", commit) or not root.is_dir():
        return None
    record = _record(folder, commit)
    if ref.file:
        known = not record or ref.file in record.verified
        return root / ref.file if known and (root / ref.file).is_file() else None
    return root if _complete(folder, root) and (not record or record.whole) else None


def _complete(folder: Path, root: Path) -> bool:
    """Whether a snapshot has all that was asked for; without a record, all that its own index of shards names."""
    if record := _record(folder, root.name):
        return all(name in record.verified and (root / name).exists() for name in record.wanted)
    unfinished = any((folder / "blobs").glob("*.incomplete"))
    shards: set[str] = set()
    for index in root.glob("*.index.json"):
        try:
            shards |= set(json.loads(index.read_text())["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return False
    weights = any(p.suffix in WEIGHTS and p.exists() for p in root.iterdir())
    return weights and not unfinished and all((root / name).exists() for name in shards)


def cached() -> list[CachedModel]:
    """Bundled minis, then every revision in the cache and every file of a URL, without asking the network."""
    found = [
        CachedModel(name, "bundled", _size(MINIS / name), MINIS / name, complete=True, bundled=True) for name in minis()
    ]
    for folder in sorted(cache_folder().glob("models--*")):
        for root in sorted((folder / "snapshots").glob("*")):
            name = folder.name.removeprefix("models--").replace("--", "/", 1)
            found.append(CachedModel(name, root.name[:12], _size(root), root, _complete(folder, root)))
    for source in sorted(_urls().glob("*/url")):
        files = [p for p in source.parent.iterdir() if p.suffix in WEIGHTS]
        n_bytes = sum(_have(p) for p in (files or source.parent.glob("*.part")))
        path = files[0] if files else source.parent
        found.append(CachedModel(source.read_text(), "url", n_bytes, path, complete=bool(files)))
    return found


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def remove(reference: str) -> int:
    """Delete a repository from the cache; the bytes that this freed. Raises NotFound, OptionError."""
    target = parse(reference)
    if isinstance(target, str):
        folder = _url_folder(target)
    elif target.repo in minis():
        raise OptionError(f"{target.repo} comes with brolly and cannot be removed.")
    elif target.file or "@" in reference:
        raise OptionError(f"every revision of a model is removed at once; say `brolly remove {target.repo}`.")
    else:
        folder = _folder(target.repo)
    if not folder.is_dir() or folder.is_symlink():
        raise NotFound(f"{reference} is not in the cache; {_known()}")
    freed = sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    try:
        if (folder / "snapshots").is_dir():  # what is half removed is found by nobody
            os.replace(folder / "snapshots", folder / f"removed.{os.getpid()}")
        shutil.rmtree(folder)
    except OSError as error:
        raise HubError(f"{folder} could not be removed ({error.strerror}); remove it by hand.") from None
    return freed


def _known() -> str:
    names = sorted({m.name for m in cached()})
    return f"here are {', '.join(names[:8])}{' …' if len(names) > 8 else ''}." if names else "nothing is cached yet."


def _room(n_bytes: int, reference: str) -> None:
    place = cache_folder()
    place.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place).free
    if n_bytes > free:
        raise DiskFull(
            f"{reference} needs {n_bytes / 1e9:.2f} GB, and {place} has {free / 1e9:.2f} GB free; make room."
        )


def _atomic(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + f".{os.getpid()}.{get_ident()}.part")
    part.write_text(text)
    os.replace(part, path)


def _urls() -> Path:
    return cache_folder().parent / "brolly" / "urls"


def _url_folder(url: str) -> Path:
    return _urls() / hashlib.sha256(url.encode()).hexdigest()[:24]


def _pull_url(url: str, quiet: bool) -> Path:
    """One file from anywhere, resumed by Range; it gets its name only when it is whole."""
    name = unquote(urlsplit(url).path.rpartition("/")[2])
    if not name.endswith(WEIGHTS) or not re.fullmatch(r"[\w+ -][\w.+ -]*", name):
        raise OptionError(f"{url[:200]} does not name a model file; expected one that ends in {', '.join(WEIGHTS)}.")
    folder = _url_folder(url)
    path, part, tag = folder / name, folder / f"{name}.part", folder / "version"
    if path.is_file():
        return path
    if offline():
        raise Offline(f"{url} is not in the cache, and HF_HUB_OFFLINE is set; {_known()}")
    from huggingface_hub.utils import WeakFileLock, tqdm

    with told_apart(url, None):
        _atomic(folder / "url", url)
        with WeakFileLock(folder / "lock"):
            if not path.is_file():
                with tqdm(initial=_have(part), unit="B", unit_scale=True, desc=name, disable=quiet) as bar:
                    _stream(url, part, {}, None, bar, Event(), tag)
                os.replace(part, path)
    return path


def _unreachable(error: BaseException) -> bool:
    """Whether this is the network's or the server's bad moment, and no answer."""
    words = ("Connect", "Timeout", "OfflineMode", "RemoteProtocol", "ReadError", "ProxyError")
    kinds = {k.__name__ for k in type(error).__mro__}
    status = _status(error)
    return status in (408, 429) or status >= 500 or any(word in kind for word in words for kind in kinds)


def _status(error: BaseException) -> int:
    return getattr(getattr(error, "response", None), "status_code", 0)


@contextmanager
def told_apart(reference: str, target: Reference | None) -> Iterator[None]:
    """Other libraries' exceptions as ours: not found, gated, offline and disk full are four different things."""
    try:
        yield
    except BrollyError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise DiskFull(
                f"{cache_folder()} is full ({error.strerror}); what was fetched is kept, make room and pull again."
            ) from None
        if isinstance(error, OSError) and error.errno and error.filename:
            raise HubError(
                f"{error.filename} cannot be written ({error.strerror}); set HF_HOME to a folder that can."
            ) from None
        raise _translated(error, reference, target) from None


def _translated(error: Any, reference: str, target: Reference | None) -> HubError:
    kinds = {k.__name__ for k in type(error).__mro__}
    status = _status(error)
    site = endpoint() if target else urlsplit(reference).netloc
    if _unreachable(error):
        reason = f"answered {status}" if status else f"could not be reached ({type(error).__name__})"
        return Offline(f"{site} {reason} for {reference}; what was fetched is kept, try again. Without it, {_known()}")
    if target is None:
        if status in (401, 403):
            return Gated(f"{reference} asks for a login ({status}); download it by hand and give its path.")
        if status in (404, 410):
            return NotFound(f"{reference} is not there ({status}); check the address.")
    elif "GatedRepoError" in kinds or status == 403:
        page = f"{site}/{target.repo}"
        return Gated(
            f"{target.repo} is gated: agree to its terms at {page}, then set HF_TOKEN (or run `hf auth login`)."
        )
    elif "RevisionNotFoundError" in kinds:
        return NotFound(f"{target.repo} exists, and has no revision {target.revision!r}; look at {site}/{target.repo}.")
    elif "RepositoryNotFoundError" in kinds or status == 404:
        close = get_close_matches(target.repo, sorted({m.name for m in cached()}), n=1)
        hint = f"did you mean {close[0]}?" if close else "if it is private, set HF_TOKEN."
        return NotFound(f"{target.repo} is not on {site}, and no such path is here; {hint}")
    elif status == 401:
        return Gated(f"{site} refuses the token for {target.repo}; set HF_TOKEN to a valid one, or unset it.")
    words = (str(error).splitlines() or [""])[0][:160]
    return HubError(f"{reference} could not be pulled ({type(error).__name__}: {words}); try again.")
