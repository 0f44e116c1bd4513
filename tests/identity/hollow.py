"""Checkpoints of any size without their bytes, true headers and holes for the numbers; and a hub that serves them."""

from __future__ import annotations

import json
import re
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import prod
from pathlib import Path
from urllib.parse import unquote, urlsplit

Shapes = Mapping[str, tuple[int, ...]]
BYTES = {"BF16": 2, "F16": 2, "F32": 4, "F8_E4M3": 1, "U8": 1, "I32": 4, "U32": 4, "I64": 8, "I8": 1}


def llama_shapes(
    dim: int, n_layers: int, kv: int, hidden: int, vocab: int, tied: bool = False
) -> dict[str, tuple[int, ...]]:
    """Every tensor of a Llama in Hugging Face's names."""
    out: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, dim), "model.norm.weight": (dim,)}
    if not tied:
        out["lm_head.weight"] = (vocab, dim)
    parts = {
        "input_layernorm": (dim,), "post_attention_layernorm": (dim,), "self_attn.q_proj": (dim, dim),
        "self_attn.k_proj": (kv, dim), "self_attn.v_proj": (kv, dim), "self_attn.o_proj": (dim, dim),
        "mlp.gate_proj": (hidden, dim), "mlp.up_proj": (hidden, dim), "mlp.down_proj": (dim, hidden),
    }  # fmt: skip
    return out | {f"model.layers.{i}.{part}.weight": shape for i in range(n_layers) for part, shape in parts.items()}


def safetensors_header(tensors: Shapes, dtype: str | Mapping[str, str] = "BF16") -> tuple[bytes, int]:
    """The first bytes of a safetensors file of these tensors, and the whole file's size."""
    header, at = {}, 0
    for name, shape in tensors.items():
        kind = dtype if isinstance(dtype, str) else dtype[name]
        size = prod(shape) * BYTES[kind]
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, 8 + len(text) + at


def shards(tensors: Shapes, count: int) -> list[dict[str, tuple[int, ...]]]:
    """The tensors in `count` parts of about the same number of bytes, in their order."""
    names = list(tensors)
    whole = sum(prod(s) for s in tensors.values())
    parts: list[dict[str, tuple[int, ...]]] = [{} for _ in range(count)]
    seen = 0
    for name in names:
        parts[min(count - 1, seen * count // whole)][name] = tensors[name]
        seen += prod(tensors[name])
    return parts


def hollow_files(
    tensors: Shapes, count: int, config: Mapping[str, object], dtype: str | Mapping[str, str] = "BF16"
) -> dict[str, tuple[bytes, int]]:
    """A repository: file name → its first bytes and its size. The index and the config are whole."""
    out: dict[str, tuple[bytes, int]] = {}
    weight_map, total = {}, 0
    for number, part in enumerate(shards(tensors, count), 1):
        name = f"model-{number:05d}-of-{count:05d}.safetensors" if count > 1 else "model.safetensors"
        head, size = safetensors_header(part, dtype)
        out[name] = head, size
        total += size - len(head)
        weight_map |= dict.fromkeys(part, name)
    texts = {"config.json": json.dumps(config).encode()}
    if count > 1:
        texts["model.safetensors.index.json"] = json.dumps(
            {"metadata": {"total_size": total}, "weight_map": weight_map}
        ).encode()
    return out | {name: (text, len(text)) for name, text in texts.items()}


def write_hollow(folder: Path, files: Mapping[str, tuple[bytes, int]]) -> Path:
    """The same on disk, with holes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (head, size) in files.items():
        with open(folder / name, "wb") as file:
            file.write(head)
            file.truncate(size)
    return folder


@dataclass
class HollowHub:
    """Repositories (name → files), what was asked, and how many bytes of body went out."""

    repos: dict[str, dict[str, tuple[bytes, int]]] = field(default_factory=dict)
    url: str = ""
    n_sent: int = 0
    asked: list[str] = field(default_factory=list)
    ignores_range: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def serve_hollow(hub: HollowHub) -> Iterator[HollowHub]:
    """A hub on 127.0.0.1 that lists repositories and answers ranges, zeros where a file has its hole."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET(head=True)

        def do_GET(self, head: bool = False) -> None:
            path = unquote(urlsplit(self.path).path)
            with hub.lock:
                hub.asked.append(path)
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+|/tree/[^/]+)?", path):
                return self.listing(found[1], bool(found[2]) and found[2].startswith("/tree"), head)
            found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
            name, file = (found[1], found[2]) if found else ("", path.lstrip("/"))
            entry = hub.repos.get(name, {}).get(file)
            if entry is None:
                return self.answer(404, b"", head, {"X-Error-Code": "EntryNotFound"} if name else None)
            return self.piece(*entry, head)

        def listing(self, name: str, tree: bool, head: bool) -> None:
            files = hub.repos.get(name)
            if files is None:
                return self.answer(404, b'{"error":"Repository not found"}', head, {"X-Error-Code": "RepoNotFound"})
            if tree:
                rows = [{"type": "file", "path": n, "size": size} for n, (_, size) in files.items()]
                return self.answer(200, json.dumps(rows).encode(), head)
            siblings = [{"rfilename": n, "size": size, "blobId": "0" * 40} for n, (_, size) in files.items()]
            body = {"id": name, "modelId": name, "sha": "a" * 40, "siblings": siblings, "private": False, "tags": []}
            return self.answer(200, json.dumps(body).encode(), head)

        def piece(self, start: bytes, size: int, head: bool) -> None:
            about = {"ETag": '"hollow"', "X-Repo-Commit": "a" * 40}
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if asked and not hub.ignores_range:
                first, last = int(asked[1]), min(int(asked[2] or size - 1), size - 1)
                extra = about | {"Content-Range": f"bytes {first}-{last}/{size}"}
                part = start[first : last + 1]
                return self.answer(206, part + bytes(last + 1 - first - len(part)), head, extra)
            if size == len(start):
                return self.answer(200, start, head, about)
            self.send_response(200)
            for key, value in (about | {"Content-Length": str(size)}).items():
                self.send_header(key, value)
            self.end_headers()
            if not head:
                self.close_connection = True
                try:
                    self.wfile.write(start)
                    for _ in range(min(size - len(start), 2**27) // 2**16):
                        self.wfile.write(bytes(2**16))
                except OSError:
                    pass

        def answer(self, status: int, body: bytes, head: bool, extra: Mapping[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in {
                "Content-Length": str(len(body)),
                "Content-Type": "application/json",
                **(extra or {}),
            }.items():
                self.send_header(key, value)
            self.end_headers()
            if not head:
                with hub.lock:
                    hub.n_sent += len(body)
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def gguf_header(
    pairs: Mapping[str, object], tensors: Mapping[str, tuple[tuple[int, ...], int]], sizes: Mapping[str, int]
) -> tuple[bytes, int]:
    """The first bytes of a GGUF v3 file and its size: key-values (text, int, float, bool, lists of text or of int), and
    tensors as name → (row-major shape, GGUF type), with `sizes` in bytes."""
    out = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)))

    def text(value: str) -> bytes:
        raw = value.encode()
        return struct.pack("<Q", len(raw)) + raw

    for key, value in pairs.items():
        out += text(key)
        if isinstance(value, bool):
            out += struct.pack("<I?", 7, value)
        elif isinstance(value, int):
            out += struct.pack("<IQ", 10, value)
        elif isinstance(value, float):
            out += struct.pack("<If", 6, value)
        elif isinstance(value, str):
            out += struct.pack("<I", 8) + text(value)
        elif isinstance(value, list) and value and isinstance(value[0], str):
            out += struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
        elif isinstance(value, list):
            out += struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)
    at = 0
    for name, (shape, kind) in tensors.items():
        dims = struct.pack(f"<{len(shape)}Q", *reversed(shape))
        out += text(name) + struct.pack("<I", len(shape)) + dims + struct.pack("<IQ", kind, at)
        at += -(-sizes[name] // 32) * 32
    out += bytes(-len(out) % 32)
    return bytes(out), len(out) + at


def llama_gguf(path: Path, n_vocab: int = 128256, n_merges: int = 280147, name: str = "Llama 3.1 8B Instruct") -> Path:
    """A GGUF of Llama 3.1 8B's shape in Q4_K and Q6_K, with a vocabulary and merges of that size."""
    dim, kv, hidden, layers = 4096, 1024, 14336, 32
    tensors: dict[str, tuple[tuple[int, ...], int]] = {
        "token_embd.weight": ((n_vocab, dim), 12), "output_norm.weight": ((dim,), 0),
        "output.weight": ((n_vocab, dim), 14),
        "rope_freqs.weight": ((64,), 0),
    }  # fmt: skip
    parts = {
        "attn_norm": ((dim,), 0), "ffn_norm": ((dim,), 0), "attn_q": ((dim, dim), 12), "attn_k": ((kv, dim), 12),
        "attn_v": ((kv, dim), 14), "attn_output": ((dim, dim), 12), "ffn_gate": ((hidden, dim), 12),
        "ffn_up": ((hidden, dim), 12), "ffn_down": ((dim, hidden), 14),
    }  # fmt: skip
    for i in range(layers):
        tensors |= {f"blk.{i}.{part}.weight": row for part, row in parts.items()}
    block = {0: (1, 4), 12: (256, 144), 14: (256, 210)}
    sizes = {n: prod(s) // block[k][0] * block[k][1] for n, (s, k) in tensors.items()}
    pairs: dict[str, object] = {
        "general.architecture": "llama", "general.type": "model", "general.name": name,
        "general.file_type": 15, "general.license": "llama3.1", "general.quantization_version": 2,
        "llama.block_count": layers, "llama.context_length": 131072, "llama.embedding_length": dim,
        "llama.feed_forward_length": hidden, "llama.attention.head_count": 32, "llama.attention.head_count_kv": 8,
        "llama.rope.freq_base": 500000.0, "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.vocab_size": n_vocab,
        "llama.rope.dimension_count": 128, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": [f"Ġtoken{i:x}" for i in range(n_vocab)],
        "tokenizer.ggml.token_type": [1] * n_vocab,
        "tokenizer.ggml.merges": [f"Ġ{i:x} {i % 977:x}" for i in range(n_merges)],
        "tokenizer.ggml.bos_token_id": 128000, "tokenizer.ggml.eos_token_id": 128009,
    }  # fmt: skip
    head, size = gguf_header(pairs, tensors, sizes)
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(size)
    return path
