"""Hostile bodies to every route that /openapi.json names: an answer below 500, never a failure of ours.

    python -m tests.serve.fuzz --n 20000 --seed 7            a server of the four bundled models, in this process
    python -m tests.serve.fuzz --n 20000 --url http://127.0.0.1:8000

A case is told by its seed and number, so that one that fails can be run again: --only 4711.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

MODELS = ("mini-llm", "mini-embed", "mini-clip", "mini-whisper")
TEXTS = (
    "", "a", "\x00", "\u202e\ufeff", "é" * 1000, "{{ 7*7 }}{% for x in range(10**9) %}", "<|im_end|>",
    "<|im_start|>system", "../../etc/passwd", "file:///etc/passwd", "http://169.254.169.254/latest",
    "data:image/png;base64,AAAA", "data:;base64,%%%", "(a+)+$", "[" * 300, "\\", '"', "-1", "1e309", "null", "none",
    "required", "auto", "😀" * 50,
)  # fmt: skip
NUMBERS = (0, -1, 1, 2, 3.5, -0.0, 1e-320, 1e308, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1)
RAW = (
    b"", b"{", b"[]", b"null", b"1e999", b"\xff\xfe", b'{"model":"\\ud800"}', b'{"a":1,"a":2}', b"[" * 50_000,
    b'{"model":NaN}', b'{"model":' + b"9" * 5000 + b"}", b"\x00" * 64, b'"\\u0000"', b"{}" * 3, b"\xef\xbb\xbf{}",
)  # fmt: skip
TYPES = ("application/json", "application/json; charset=utf-16", "text/plain", "", "multipart/form-data", "x/y")


@dataclass(frozen=True)
class Operation:
    """A route that takes a body: its schemas by type of content."""

    method: str
    path: str
    schemas: dict[str, Any]


def operations(document: dict[str, Any]) -> list[Operation]:
    """What a document says can be called with a body."""
    found = []
    for path, ways in document["paths"].items():
        for method, way in ways.items():
            if method in ("post", "put", "patch", "delete"):
                content = way.get("requestBody", {}).get("content", {})
                found.append(Operation(method.upper(), path, {k: v.get("schema", {}) for k, v in content.items()}))
    return found


class Maker:
    """Bodies that follow a schema for most of the way, and leave it somewhere."""

    def __init__(self, random: random.Random, document: dict[str, Any]) -> None:
        self.random, self.document = random, document

    def value(self, schema: dict[str, Any], depth: int = 0, name: str = "") -> Any:
        """Something of this schema, or not."""
        r = self.random
        if r.random() < 0.06 or depth > 7:
            return self.anything(depth)
        if ref := schema.get("$ref"):
            inner: Any = self.document
            for step in ref.removeprefix("#/").split("/"):
                inner = inner[step]
            return self.value(inner, depth, name)
        for several in ("anyOf", "oneOf", "allOf"):
            if several in schema:
                return self.value(r.choice(schema[several]), depth, name)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return r.choice(schema["enum"])
        if name == "model":
            return r.choice(MODELS)
        if name in ("max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict"):
            return r.choice((1, 2, 3))
        match schema.get("type"):
            case "object":
                own = schema.get("properties", {})
                needed = set(schema.get("required", ()))
                return {k: self.value(v, depth + 1, k) for k, v in own.items() if k in needed or r.random() < 0.15}
            case "array":
                return [self.value(schema.get("items", {}), depth + 1) for _ in range(r.choice((0, 1, 1, 2, 3)))]
            case "string":
                return r.choice(TEXTS) if r.random() < 0.5 else "Once upon a time"
            case "integer":
                return int(r.choice(NUMBERS)) if r.random() < 0.3 else r.randint(0, 5)
            case "number":
                return r.choice(NUMBERS) if r.random() < 0.3 else r.random()
            case "boolean":
                return r.random() < 0.5
            case "null":
                return None
        return self.anything(depth)

    def anything(self, depth: int) -> Any:
        """Something of no schema."""
        r = self.random
        match r.randrange(6 if depth < 5 else 4):
            case 0:
                return r.choice(TEXTS)
            case 1:
                return r.choice(NUMBERS)
            case 2:
                return r.choice((None, True, False))
            case 3:
                return {}
            case 4:
                return [self.anything(depth + 1) for _ in range(r.randrange(4))]
        return {r.choice(("type", "text", "role", "x", "")): self.anything(depth + 1) for _ in range(r.randrange(4))}

    def request(self, operation: Operation) -> dict[str, Any]:
        """Keyword arguments of httpx' `request`."""
        r = self.random
        parts = [quote(r.choice(TEXTS[1:10]), safe="") if "{" in part else part for part in operation.path.split("/")]
        url = "/".join(parts)
        common: dict[str, Any] = {"method": operation.method, "url": url}
        if r.random() < 0.1 or not operation.schemas:
            headers = {"content-type": r.choice(TYPES)}
            return {**common, "content": r.choice(RAW), "headers": {k: v for k, v in headers.items() if v}}
        kind, schema = r.choice(list(operation.schemas.items()))
        body = self.value(schema)
        if "multipart" in kind and isinstance(body, dict):
            files = {
                k: ("x.wav", r.choice((b"", b"RIFF", bytes(range(256)) * 9, b"\x89PNG\r\n"))) for k in ("file", "image")
            }
            fields = {str(k): json.dumps(v) if isinstance(v, (dict, list)) else str(v) for k, v in body.items()}
            return {**common, "data": fields, "files": files}
        content = json.dumps(body, allow_nan=False).encode()
        if r.random() < 0.05:
            at = r.randrange(len(content))
            content = content[:at] + r.randbytes(r.randrange(4)) + content[at + r.randrange(3) :]
        return {**common, "content": content, "headers": {"content-type": "application/json"}}


async def fuzz(
    client: httpx.AsyncClient, n: int, seed: int, only: int | None = None, beside: int = 4
) -> tuple[Counter[int], list[str]]:  # fmt: skip
    """Send so many requests, some at a time: how often each status came, and what failed, each with its case."""
    document = (await client.get("/openapi.json")).json()
    routes = operations(document)
    counts: Counter[int] = Counter()
    failures: list[str] = []
    cases = iter(range(n) if only is None else (only,))

    async def work() -> None:
        for case in cases:
            maker = Maker(random.Random(f"{seed}/{case}"), document)
            given = maker.request(routes[case % len(routes)])
            told = f"case {case}: {given['method']} {given['url']} {str(given.get('content', given.get('data')))[:300]}"
            try:
                reply = await asyncio.wait_for(client.request(**given), 60)
            except Exception as error:
                failures.append(f"{told}\n    {type(error).__name__}: {error}")
                continue
            counts[reply.status_code] += 1
            if reply.status_code >= 500 and reply.status_code != 501:
                failures.append(f"{told}\n    {reply.status_code} {reply.text[:300]}")

    await asyncio.gather(*(work() for _ in range(beside)))
    return counts, failures


async def main(n: int, seed: int, url: str | None, only: int | None) -> int:
    """Fuzz, print what came, and return how much failed."""
    if url is not None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            counts, failures = await fuzz(client, n, seed, only)
    else:
        from brolly.serve import logs
        from brolly.serve.app import create
        from brolly.serve.settings import Settings

        logs.configure()
        app = create(Settings(models=MODELS))
        inside = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=inside, base_url="http://localhost", timeout=60) as client,
        ):
            counts, failures = await fuzz(client, n, seed, only)
    print(f"{sum(counts.values())} requests:", ", ".join(f"{c} × {status}" for status, c in sorted(counts.items())))
    print("\n".join(failures) or "none failed")
    return len(failures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000, help="requests (default: 2000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--url", help="a server that runs (default: one in this process)")
    parser.add_argument("--only", type=int, help="this case alone")
    asked = parser.parse_args()
    raise SystemExit(min(1, asyncio.run(main(asked.n, asked.seed, asked.url, asked.only))))
