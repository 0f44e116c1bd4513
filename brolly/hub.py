"""A name, a URL or a path to files on this disk, in the ecosystem's cache; huggingface_hub does the moving.

Cache and endpoint follow HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE, read when they are needed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from brolly.errors import CheckpointError, DiskFull, Gated, HubError, NotFound, Offline, OptionError

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
_NAME = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")


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


def cache_folder() -> Path:
    """Where the ecosystem keeps repositories."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")).expanduser()


def offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def resolve(reference: str | Path) -> Path:
    """The folder or file of a path, a bundled mini's name, a hub name or a URL, downloaded if it must be."""
    text = str(reference)
    local = Path(text).expanduser()
    if local.exists():
        return local
    if looks_local(text):
        raise NotFound(f"{text} does not exist; expected a folder or a file, or a hub name like org/name.")
    if (MINIS / text).is_dir() and text in minis():
        return MINIS / text
    return pull(text)


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
    steps = (ref.file or "").split("/")
    if not _NAME.fullmatch(ref.repo) or ".." in ref.repo or ".." in steps or ref.revision.startswith("-"):
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
    cached_path = _in_cache(target)
    if offline():
        if cached_path:
            return cached_path
        raise Offline(f"{reference} is not in the cache ({cache_folder()}), and HF_HUB_OFFLINE is set; {_known()}")
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    api = HfApi(endpoint=endpoint(), token=os.environ.get("HF_TOKEN") or get_token() or False)
    (disable_progress_bars if quiet else enable_progress_bars)()
    with _told_apart(reference, target.repo):
        try:
            info = api.model_info(target.repo, revision=target.revision, files_metadata=True, timeout=20)
        except Exception as error:
            if cached_path and _unreachable(error):
                return cached_path
            raise
        sizes = {s.rfilename: s.size or 0 for s in info.siblings or [] if _safe(s.rfilename)}
        hashes = {s.rfilename: s.lfs.sha256 for s in info.siblings or [] if s.lfs}
        wanted = [target.file] if target.file in sizes else needed(list(sizes))
        if target.file and target.file not in sizes:
            raise NotFound(f"{target.repo} has no file {target.file!r}; it has {', '.join(sorted(sizes)[:6])} …")
        commit = info.sha or target.revision
        folder = cache_folder() / f"models--{target.repo.replace('/', '--')}"
        missing = [n for n in wanted if not (folder / "snapshots" / commit / n).exists()]
        _room(sum(sizes[n] for n in missing), reference)
        root = Path(
            api.snapshot_download(
                target.repo, revision=commit, allow_patterns=[_literal(n) for n in wanted], cache_dir=cache_folder(),
                max_workers=4,
            )
        )  # fmt: skip
        _verify(root, missing, sizes, hashes)
        if target.revision != commit:
            _atomic(folder / "refs" / target.revision, commit)
        _atomic(folder / "brolly" / commit, "\n".join(wanted))
    return root / target.file if target.file else root


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


def _literal(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def _safe(name: str) -> bool:
    return not name.startswith(("/", "\\")) and ".." not in name.split("/") and "\\" not in name and "\0" not in name


def _verify(root: Path, names: Sequence[str], sizes: dict[str, int], hashes: dict[str, str]) -> None:
    """Size and SHA-256 of what was just fetched; a wrong file is deleted before anyone can read it."""
    for name in names:
        path = root / name
        if sizes[name] and path.stat().st_size != sizes[name]:
            fault = f"has {path.stat().st_size} bytes; the hub says {sizes[name]}"
        elif name in hashes and _sha256(path) != hashes[name]:
            fault = "does not have the hash that the hub says"
        else:
            continue
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise HubError(f"{name} {fault}; it was deleted. Pull it again.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _in_cache(ref: Reference) -> Path | None:
    """A revision that an earlier pull finished, or that other tools left with weights in it."""
    folder = cache_folder() / f"models--{ref.repo.replace('/', '--')}"
    named = folder / "refs" / ref.revision
    commit = named.read_text().strip() if named.is_file() else ref.revision
    root = folder / "snapshots" / commit
    if not re.fullmatch(r"[\w.-]+", commit) or not root.is_dir():
        return None
    if ref.file:
        return root / ref.file if (root / ref.file).is_file() else None
    return root if _complete(folder, root) else None


def _complete(folder: Path, root: Path) -> bool:
    listed = folder / "brolly" / root.name
    if listed.is_file():
        return all((root / name).exists() for name in listed.read_text().splitlines())
    unfinished = any((folder / "blobs").glob("*.incomplete")) if (folder / "blobs").is_dir() else False
    return not unfinished and any(p.suffix in WEIGHTS and p.exists() for p in root.iterdir())


def cached() -> list[CachedModel]:
    """Bundled minis, then every revision in the cache, without asking the network."""
    found = [
        CachedModel(name, "bundled", _size(MINIS / name), MINIS / name, complete=True, bundled=True) for name in minis()
    ]
    for folder in sorted(cache_folder().glob("models--*")):
        for root in sorted((folder / "snapshots").glob("*")):
            name = folder.name.removeprefix("models--").replace("--", "/", 1)
            found.append(CachedModel(name, root.name[:12], _size(root), root, _complete(folder, root)))
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
    else:
        folder = cache_folder() / f"models--{target.repo.replace('/', '--')}"
    if not folder.is_dir() or folder.is_symlink():
        raise NotFound(f"{reference} is not in the cache; {_known()}")
    freed = sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    shutil.rmtree(folder)
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
    part = path.with_name(path.name + f".{os.getpid()}.part")
    part.write_text(text)
    os.replace(part, path)


def _url_folder(url: str) -> Path:
    return cache_folder().parent / "brolly" / "urls" / hashlib.sha256(url.encode()).hexdigest()[:24]


def _pull_url(url: str, quiet: bool) -> Path:
    """One file from anywhere, resumed by Range; it gets its name only when it is whole."""
    name = unquote(urlsplit(url).path.rpartition("/")[2])
    if not name.endswith(WEIGHTS) or not re.fullmatch(r"[\w.+ -]+", name):
        raise OptionError(f"{url[:200]} does not name a model file; expected one that ends in {', '.join(WEIGHTS)}.")
    path = _url_folder(url) / name
    if path.is_file():
        return path
    if offline():
        raise Offline(f"{url} is not in the cache, and HF_HUB_OFFLINE is set; {_known()}")
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(name + ".part")
    for attempt in range(5):
        have = part.stat().st_size if part.exists() else 0
        try:
            with urlopen(Request(url, headers={"Range": f"bytes={have}-"} if have else {}), timeout=30) as answer:
                resumed = answer.status == 206
                rest = int(answer.headers.get("Content-Length") or 0)
                total = rest + (have if resumed else 0)
                _room(rest, url)
                with part.open("ab" if resumed else "wb") as file:
                    shutil.copyfileobj(answer, file, 2**20)
            if part.stat().st_size >= total:
                os.replace(part, path)
                return path
        except HTTPError as error:
            if error.code == 416 and have:
                part.unlink()
                continue
            kind = NotFound if error.code in (404, 410) else Gated if error.code in (401, 403) else HubError
            raise kind(f"{url} answered {error.code} {error.reason}.") from None
        except (URLError, TimeoutError, ConnectionError) as error:
            if attempt == 4:
                raise Offline(f"{url} could not be reached ({getattr(error, 'reason', error)}); try again.") from None
        except OSError as error:
            if error.errno == 28:
                raise DiskFull(f"{path.parent} is full; what was fetched is kept, make room and pull again.") from None
            raise
    raise Offline(f"{url} broke off five times; what was fetched is kept, pull it again to go on.")


def _unreachable(error: BaseException) -> bool:
    words = ("Connect", "Timeout", "OfflineMode", "LocalEntryNotFound", "RemoteProtocol", "ReadError", "ProxyError")
    kinds = {k.__name__ for k in type(error).__mro__}
    return any(word in kind for word in words for kind in kinds)


@contextmanager
def _told_apart(reference: str, repo: str) -> Iterator[None]:
    """huggingface_hub's exceptions as ours: not found, gated, offline and disk full are four different things."""
    try:
        yield
    except (HubError, CheckpointError, OptionError):
        raise
    except OSError as error:
        if error.errno == 28:
            raise DiskFull(f"{cache_folder()} is full; what was fetched is kept, make room and pull again.") from None
        raise _translated(error, reference, repo) from None
    except Exception as error:
        raise _translated(error, reference, repo) from None


def _translated(error: Any, reference: str, repo: str) -> HubError:
    kinds = {k.__name__ for k in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    page = f"{endpoint()}/{repo}"
    if "GatedRepoError" in kinds or status == 403:
        return Gated(f"{repo} is gated: agree to its terms at {page}, then set HF_TOKEN (or run `hf auth login`).")
    if "RevisionNotFoundError" in kinds:
        return NotFound(f"{repo} exists, and has no revision {reference.partition('@')[2]!r}.")
    if "RepositoryNotFoundError" in kinds or status in (401, 404):
        names = sorted({m.name for m in cached()})
        close = get_close_matches(repo, names, n=1)
        hint = f"did you mean {close[0]}?" if close else "if it is private, set HF_TOKEN."
        return NotFound(f"{repo} is not on {endpoint()}, and no such path is here; {hint}")
    if _unreachable(error):
        return Offline(f"{endpoint()} could not be reached for {reference} ({type(error).__name__}); {_known()}")
    return HubError(f"{reference} could not be pulled ({type(error).__name__}: {str(error).splitlines()[0][:160]}).")
