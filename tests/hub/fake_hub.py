"""A hub on 127.0.0.1 that behaves as huggingface.co does towards huggingface_hub, and misbehaves on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LFS = (".safetensors", ".gguf", ".bin", ".pt", ".onnx", ".h5", ".msgpack", ".png")


@dataclass
class Repository:
    """Files by name, under one commit; `refs` are the names of that commit."""

    files: dict[str, bytes]
    commit: str = "a" * 40
    refs: tuple[str, ...] = ("main",)
    gated: bool = False
    private: bool = False


@dataclass
class Request:
    """What was asked of the hub, and how many bytes of body it sent back."""

    method: str
    path: str
    headers: dict[str, str]
    sent: int = 0


@dataclass
class FakeHub:
    """Repositories, faults to show, and a log of what was asked."""

    url: str = ""
    repos: dict[str, Repository] = field(default_factory=dict)
    plain: dict[str, bytes] = field(default_factory=dict)  # files outside of any repository, by path
    drops: dict[str, list[int]] = field(default_factory=dict)  # file → bytes after which each next answer breaks off
    corrupt: set[str] = field(default_factory=set)  # files whose middle byte is wrong
    short: set[str] = field(default_factory=set)  # files of which the hub sends, and announces, only the first half
    statuses: dict[str, list[int]] = field(default_factory=dict)  # path's start → answers to give first
    etags: dict[str, str] = field(default_factory=dict)  # file → an ETag other than its hash
    sizes: dict[str, int] = field(default_factory=dict)  # file → a size other than its own
    digests: dict[str, str] = field(default_factory=dict)  # file → a SHA-256 other than its own
    cdn: str = ""  # another host to which LFS files are redirected
    ignores_range: bool = False
    shifts_range: bool = False  # answers every range from the first byte, and says so
    tagless: bool = False  # files outside of repositories have no ETag
    lengthless: bool = False  # no Content-Length: the end of the connection ends the file
    pause: float = 0.0  # seconds between two pieces of 16 KiB
    token: str = "hf_right"  # may open every repository
    stranger: str = "hf_stranger"  # a valid account that has agreed to nothing
    log: list[Request] = field(default_factory=list)

    def asked(self, part: str = "", method: str = "GET") -> list[Request]:
        """Requests so far, of one method, whose path has this part."""
        return [r for r in self.log if r.method == method and part in r.path]

    def fetched(self) -> set[str]:
        """Names of files whose bytes were sent."""
        return {r.path.partition("/resolve/")[2].partition("/")[2] for r in self.asked("/resolve/")}

    def sent(self, part: str = "") -> int:
        return sum(r.sent for r in self.asked(part))

    def counts(self) -> Counter[str]:
        return Counter(r.path for r in self.asked())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def serve(hub: FakeHub) -> Iterator[FakeHub]:
    """Serve a hub on a free port of 127.0.0.1 for as long as the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            request = Request(self.command, path, {k.lower(): v for k, v in self.headers.items()})
            hub.log.append(request)
            for start, codes in hub.statuses.items():
                if path.startswith(start) and codes:
                    return self.refuse(codes.pop(0))
            if path in hub.plain:
                headers = {} if hub.tagless else {"ETag": f'"{sha256(hub.plain[path])}"'}
                return self.send_file(request, path, hub.plain[path], headers)
            if path.startswith("/api/models/"):
                name, verb, revision = re.split("/(revision|tree)/", path.removeprefix("/api/models/") + "/revision/")[
                    :3
                ]
                repo = self.find(name, revision.removesuffix("/revision/"))
                answer = list_tree if verb == "tree" else describe
                return self.send_json(answer(hub, name, repo)) if repo else None
            name, _, rest = path.strip("/").partition("/resolve/")
            revision, _, file = rest.partition("/")
            repo = self.find(name, revision, opening=True)
            if repo is None:
                return None
            if file not in repo.files:
                return self.refuse(404, "EntryNotFound")
            data, digest = repo.files[file], sha256 if file.endswith(LFS) else git_sha1
            headers = {"ETag": f'"{hub.etags.get(file, digest(data))}"', "X-Repo-Commit": repo.commit}
            if file.endswith(LFS):
                headers |= {"X-Linked-Size": str(len(data)), "X-Linked-Etag": headers["ETag"]}
                if hub.cdn:
                    return self.reply(302, headers | {"Location": f"{hub.cdn}/{sha256(data)}"})
            return self.send_file(request, file, data, headers)

        def find(self, name: str, revision: str, opening: bool = False) -> Repository | None:
            repo, token = hub.repos.get(name), self.headers.get("Authorization", "").removeprefix("Bearer ")
            allowed = token == hub.token
            if token not in ("", hub.token, hub.stranger):
                self.refuse(401, message="Invalid credentials in Authorization header")
            elif repo is None or repo.private and not allowed:
                self.refuse(404 if token else 401, "RepoNotFound")
            elif revision and revision not in (repo.commit, *repo.refs):
                self.refuse(404, "RevisionNotFound")
            elif opening and repo.gated and not allowed:
                self.refuse(403 if token else 401, "GatedRepo", f"Access to model {name} is restricted.")
            else:
                return repo
            return None

        def refuse(self, status: int, code: str = "", message: str = "") -> None:
            self.reply(status, {"X-Error-Code": code, "X-Error-Message": message} if code or message else {})

        def reply(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
            self.send_response(status)
            for key, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def send_json(self, value: Any) -> None:
            self.reply(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

        def send_file(self, request: Request, name: str, data: bytes, headers: dict[str, str]) -> None:
            tag, total = headers.get("ETag"), len(data)
            if name in hub.corrupt:
                data = data[: total // 2] + bytes([data[total // 2] ^ 1]) + data[total // 2 + 1 :]
            if name in hub.short:
                data = data[: total // 2]
            ranged = request.headers.get("range", "").removeprefix("bytes=").removesuffix("-")
            if hub.ignores_range or request.headers.get("if-range", tag) != tag:
                ranged = ""
            if ranged and int(ranged) >= len(data):
                return self.reply(416, {"Content-Range": f"bytes */{len(data)}"})
            ranged = "0" if ranged and hub.shifts_range else ranged
            body = data[int(ranged or 0) :]
            self.send_response(206 if ranged else 200)
            if ranged:
                headers = headers | {"Content-Range": f"bytes {ranged}-{len(data) - 1}/{len(data)}"}
            length = {"Connection": "close"} if hub.lengthless else {"Content-Length": str(len(body))}
            for key, value in (headers | length).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "HEAD":
                return None
            stop = hub.drops[name].pop(0) if hub.drops.get(name) else len(body)
            for start in range(0, min(stop, len(body)), 2**14):
                piece = body[start : min(start + 2**14, stop)]
                request.sent += len(piece)
                try:
                    self.wfile.write(piece)
                except OSError:  # the reader is gone
                    break
                time.sleep(hub.pause)
            if stop < len(body):
                self.close_connection = True
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    server.handle_error = lambda request, address: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def describe(hub: FakeHub, name: str, repo: Repository) -> dict[str, Any]:
    """The answer of /api/models/…?blobs=true."""
    siblings = []
    for file, data in repo.files.items():
        size = hub.sizes.get(file, len(data))
        sibling: dict[str, Any] = {"rfilename": file, "size": size, "blobId": hub.digests.get(file, git_sha1(data))}
        if file.endswith(LFS):
            sibling["lfs"] = {"sha256": hub.digests.get(file, sha256(data)), "size": size, "pointerSize": 130}
        siblings.append(sibling)
    return {"_id": "0" * 24, "id": name, "modelId": name, "sha": repo.commit, "siblings": siblings, "tags": []} | {
        "gated": "manual" if repo.gated else False,
        "private": repo.private,
        "downloads": 0,
    }


def list_tree(hub: FakeHub, name: str, repo: Repository) -> list[dict[str, Any]]:
    """The answer of /api/models/…/tree/…, which brolly does not ask and huggingface_hub does."""
    return [
        {"type": "file", "path": file, "size": len(data), "oid": git_sha1(data)}
        | ({"lfs": {"oid": sha256(data), "size": len(data), "pointerSize": 130}} if file.endswith(LFS) else {})
        for file, data in repo.files.items()
    ]
