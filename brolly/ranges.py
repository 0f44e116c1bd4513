"""Files behind HTTP, of which only the bytes that are asked for are fetched: a repository on the hub, or one URL."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from threading import Lock
from time import monotonic
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit

from brolly import hub
from brolly.errors import HubError, NotFound, Offline
from brolly.place import Place, Seekable

WHOLE = 2**18  # bytes: a file as small as this is fetched at once
FIRST = 2**16  # bytes of a first range where nothing is known of the header's length
ENTRY = 100  # bytes that a tensor takes in a safetensors header beside its name
BUDGET = 2**26  # bytes; no header of a real repository comes near it
SHARD = re.compile(r".*-\d{5}-of-\d{5}\.(safetensors|gguf)")
AT_ONCE = 16
SECONDS = 120  # for one request
MAX_SAID = 2**16  # bytes of an error that are read


def remote(target: hub.Reference | str) -> tuple[Place, str | None]:
    """The place of a hub repository (or a file of it) or of a URL, and the repository's name. Raises HubError."""
    if hub.offline():
        raise Offline(f"{target if isinstance(target, str) else target.repo} is not here, and HF_HUB_OFFLINE is set.")
    if isinstance(target, str):
        return _url(target), None
    from huggingface_hub import HfApi, get_token, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    api = HfApi(endpoint=hub.endpoint(), token=get_token() or False)
    with hub.told_apart(target.repo, target):
        info = api.model_info(target.repo, revision=target.revision, files_metadata=True, timeout=20)
    sizes = {}
    for sibling in info.siblings or []:
        size = sibling.lfs.size if sibling.lfs else sibling.size
        if hub.safe(sibling.rfilename) and isinstance(size, int) and size >= 0:
            sizes[sibling.rfilename] = size
    if target.file and target.file not in sizes:
        raise NotFound(f"{target.repo} has no file {target.file!r}; it has {', '.join(sorted(sizes)[:6])} …")
    commit = info.sha or target.revision
    headers = build_hf_headers(token=api.token)
    addresses = {n: hf_hub_url(target.repo, n, revision=commit, endpoint=hub.endpoint()) for n in sizes}
    return Place(Ranged(target.repo, sizes, addresses, headers, target), target.file or ""), target.repo


def _url(url: str) -> Place:
    """One file anywhere; its length is that of the answer to a first range."""
    name = unquote(urlsplit(url).path.rpartition("/")[2]) or "model"
    store = Ranged(url.rpartition("/")[0], {name: 0}, {name: url}, {}, None)
    piece = store.fetch(name, 0, FIRST)
    if store.total is None:
        raise HubError(f"{url} does not say how long it is; download it by hand and give its path.")
    store.sizes = {name: store.total}
    store.keep(name, 0, piece)
    return Place(store, name)


class Ranged:
    """A store whose files are behind HTTP. `n_fetched` counts the bytes that came."""

    def __init__(
        self,
        title: str,
        sizes: dict[str, int],
        addresses: Mapping[str, str],
        headers: dict[str, str],
        target: hub.Reference | None,
    ) -> None:
        self.title, self.sizes, self.addresses, self.headers, self.target = title, sizes, addresses, headers, target
        self.n_fetched = 0
        self.total: int | None = None  # of the last answer, as its Content-Range says
        self._pieces: dict[str, list[tuple[int, bytes]]] = {}
        self._lock = Lock()

    def open(self, name: str) -> BinaryIO:
        if SHARD.fullmatch(name) and name not in self._pieces:
            self._ahead(name)
        return cast(BinaryIO, io.BufferedReader(_File(self, name), 4096))

    def keep(self, name: str, start: int, piece: bytes) -> None:
        with self._lock:
            self._pieces.setdefault(name, []).append((start, piece))

    def read(self, name: str, start: int, n_bytes: int) -> bytes:
        """Bytes that were fetched before, or that are fetched now with as much more as pays."""
        n_bytes = min(n_bytes, self.sizes[name] - start)
        if n_bytes <= 0:
            return b""
        for begin, piece in self._pieces.get(name, ()):
            if begin <= start < begin + len(piece):
                return piece[start - begin : start - begin + n_bytes]
        size = self.sizes[name]
        if size <= WHOLE:
            start_at, end = 0, size
        else:
            ahead = FIRST if name not in self._pieces else 4096
            start_at, end = start, min(size, start + max(n_bytes, ahead))
        piece = self.fetch(name, start_at, end)
        self.keep(name, start_at, piece)
        return piece[start - start_at : start - start_at + n_bytes]

    def fetch(self, name: str, start: int, end: int) -> bytes:
        """Bytes [start, end) of a file, by one request. Raises HubError."""
        from huggingface_hub.utils import get_session, hf_raise_for_status

        if self.n_fetched > BUDGET:
            raise HubError(f"{self.title}: its headers take over {BUDGET:,} bytes; pull it and identify the folder.")
        asked = {"Accept-Encoding": "identity", "Range": f"bytes={start}-{end - 1}"}
        url = self.addresses[name]
        found, last = bytearray(), monotonic() + SECONDS
        with (
            hub.told_apart(self.title if self.target else url, self.target),
            get_session().stream("GET", url, headers=self.headers | asked, timeout=30) as answer,
        ):
            hf_raise_for_status(_short(answer) if answer.is_error else answer)
            said = answer.headers.get("Content-Range", "")
            matched = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", said)
            skip = start if answer.status_code != 206 else 0  # a server without ranges sends all from the start
            if answer.status_code == 206 and (not matched or int(matched[1]) != start):
                raise HubError(f"{url} sent another range than asked ({said!r:.60}); download it by hand.")
            if skip > BUDGET:
                raise HubError(f"{url} does not answer ranges; pull the file and identify it here.")
            if matched and matched[3] != "*":
                self.total = int(matched[3])
            elif answer.status_code == 200 and answer.headers.get("Content-Length", "").isdigit():
                self.total = int(answer.headers["Content-Length"])
            for chunk in answer.iter_raw():
                found += chunk
                if len(found) >= skip + end - start:
                    break
                if monotonic() > last:
                    raise HubError(f"{url} takes more than {SECONDS} s to answer; try again, or download it by hand.")
        with self._lock:
            self.n_fetched += len(found)
        wanted = bytes(found[skip : skip + end - start])
        if len(wanted) < min(end, self.total or end) - start:
            raise HubError(f"{url} sent {len(wanted):,} of the bytes {start:,} to {end:,}; try again.")
        return wanted

    def _ahead(self, name: str) -> None:
        """The headers of all shards of a series at once, each about as long as the index lets expect."""
        from concurrent.futures import ThreadPoolExecutor

        folder = name.rpartition("/")[0]
        series = [n for n in self.sizes if SHARD.fullmatch(n) and n.rpartition("/")[0] == folder]
        series = [n for n in series if n.rpartition("-of-")[2] == name.rpartition("-of-")[2] and n not in self._pieces]
        guess = self._expected(folder)

        def begin(shard: str) -> None:
            length = min(guess.get(shard.rpartition("/")[2], FIRST), self.sizes[shard])
            self.keep(shard, 0, self.fetch(shard, 0, length))

        with ThreadPoolExecutor(AT_ONCE) as pool:
            for job in [pool.submit(begin, shard) for shard in series]:
                job.result()

    def _expected(self, folder: str) -> dict[str, int]:
        """Shard → the length that its header will have, about, by the names that the index puts in it."""
        stem = f"{folder}/" if folder else ""
        guess: dict[str, int] = {}
        for name in self.sizes:
            if name.startswith(stem) and name.endswith(".safetensors.index.json"):
                try:
                    rows = json.loads(self.read_all(name)).get("weight_map", {})
                except (ValueError, AttributeError):
                    return {}
                for tensor, shard in rows.items() if isinstance(rows, dict) else ():
                    if isinstance(shard, str):
                        guess[shard] = guess.get(shard, 256) + len(tensor) + ENTRY
        return guess

    def read_all(self, name: str) -> bytes:
        with self.open(name) as file:
            return file.read()


def _short(answer: Any) -> Any:
    """An error's answer with the beginning of what it says, however long that is."""
    said, last = b"", monotonic() + 10
    for chunk in answer.iter_raw():
        said += chunk[:MAX_SAID]
        if len(said) >= MAX_SAID or monotonic() > last:
            break
    dropped = ("content-length", "content-encoding", "transfer-encoding")
    headers = [(k, v) for k, v in answer.headers.items() if k.lower() not in dropped]
    return type(answer)(answer.status_code, headers=headers, content=said[:MAX_SAID], request=answer.request)


class _File(Seekable):
    """One file of a store, read where it is asked for."""

    def __init__(self, store: Ranged, name: str) -> None:
        super().__init__(store.sizes[name])
        self.store, self._name = store, name

    def readinto(self, buffer: Any) -> int:
        piece = self.store.read(self._name, self.at, len(buffer))
        buffer[: len(piece)] = piece
        self.at += len(piece)
        return len(piece)
