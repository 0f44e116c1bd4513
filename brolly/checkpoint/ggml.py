"""ggml's files before GGUF: LLaMA (ggml, ggmf, ggjt 1 to 3), its LoRA (ggla), whisper.cpp, GPT-2, -J, -NeoX, MPT.

None of them names its architecture: each known order of numbers is tried, and the one is taken by which the vocabulary
and the tensors end where the file does.
"""

from __future__ import annotations

import struct
from math import prod
from typing import Any, BinaryIO, NamedTuple

from brolly.card import Header, TensorInfo
from brolly.checkpoint.bounded import MAX_TENSORS, opened, shape_of, shown
from brolly.checkpoint.gguf import TYPES
from brolly.errors import CheckpointError
from brolly.place import Where

MAGICS = {b"lmgg": "ggml", b"fmgg": "ggmf", b"tjgg": "ggjt", b"algg": "ggla"}
MAX_VOCABULARY = 2**19
MAX_WORD = 4096  # bytes
MAX_NAME = 1024
ALIGNMENT = 32  # of data in ggjt and ggla
VERSIONED = 1000  # ftype = 1000 · version of the quantised blocks + type of most tensors
WINDOW = 2**16  # bytes read at a time
# Blocks as they were until quantisation version 2 (ggjt 3, May 2023) halved the width of scales.
OLD_TYPES = {
    **{i: TYPES[i] for i in (0, 1)}, 2: ("Q4_0", 32, 20), 3: ("Q4_1", 32, 24), 4: ("Q4_2", 16, 10),
    5: ("Q4_3", 16, 12), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 36),
}  # fmt: skip


class Layout(NamedTuple):
    """How a model's file begins: `fields` are 32-bit whole numbers, those with a dot before them fractions."""

    variant: str
    fields: tuple[str, ...]
    counted: bool = False  # the vocabulary says its length again
    scored: bool = False  # a number follows each word
    filters: bool = False  # mel filters come before the vocabulary


_LLAMA = ("n_vocab", "n_embd", "n_mult", "n_head", "n_layer", "n_rot", "ftype")
_WHISPER = (
    "n_vocab", "n_audio_ctx", "n_audio_state", "n_audio_head", "n_audio_layer", "n_text_ctx", "n_text_state",
    "n_text_head", "n_text_layer", "n_mels", "ftype",
)  # fmt: skip
LAYOUTS = (
    Layout("whisper", _WHISPER, counted=True, filters=True),
    Layout("llama", _LLAMA),
    Layout("gpt2", ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer", "ftype"), counted=True),
    Layout("gptj", ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer", "n_rot", "ftype"), counted=True),
    Layout("gptneox", ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer", "n_rot", "par_res", "ftype")),
    Layout(
        "mpt", ("d_model", "max_seq_len", "n_heads", "n_layers", "n_vocab", ".alibi_bias_max", ".clip_qkv", "ftype")
    ),
)
SCORED = Layout("llama", _LLAMA, scored=True)  # of ggmf and ggjt
FALCON = ("n_vocab", "n_embd", "n_head", "n_head_kv", "n_layer", "n_falcon_type", "ftype")


class _Other(Exception):
    """The file is not laid out so; the message says why."""


def read_ggml(path: Where) -> Header:
    """The tensors, the numbers that shape the network (config), and what kind it is (metadata). Raises CheckpointError.

    The metadata: "variant" (llama, falcon, whisper, gpt2, gptj, gptneox, mpt, lora), "container" (ggml, ggmf, ggjt,
    ggla), "version" (the container's), "vocabulary" (how many words it holds).
    """
    with opened(path) as (file, size):
        container = MAGICS.get(file.read(4))
        if container is None:
            raise CheckpointError(f"{path} does not begin as a ggml file does; download it again.")
        if container == "ggla":
            return _lora(_Walk(file, size, path, 4))
        layouts: tuple[Layout, ...] = LAYOUTS
        version = 0
        if container != "ggml":
            version = int.from_bytes(file.read(4), "little")
            layouts = (SCORED,)
            if version not in ((1,) if container == "ggmf" else (1, 2, 3)):
                raise CheckpointError(f"{path} is {container} of version {version}; expected 1 to 3.")
        furthest, reason = -1, ""
        for layout in layouts:
            walk = _Walk(file, size, path, 4 if container == "ggml" else 8)
            try:
                return _model(walk, layout, container, version)
            except _Other as why:
                if walk.at > furthest:
                    furthest, reason = walk.at, f"as {layout.variant}, {why}"
        raise CheckpointError(
            f"{path} is a {container} file of no model that is known here ({reason}); "
            "it is incomplete, or of another kind: download it again, or convert it to GGUF."
        )


def _model(walk: _Walk, layout: Layout, container: str, version: int) -> Header:
    raw = walk.take(4 * len(layout.fields))
    numbers = struct.unpack("<" + "".join("f" if f[0] == "." else "i" for f in layout.fields), raw)
    config: dict[str, Any] = {f.lstrip("."): n for f, n in zip(layout.fields, numbers, strict=True)}
    _plausible(config)
    quantisation, config["ftype"] = divmod(config["ftype"], VERSIONED)
    if layout.filters:
        n_mel, n_fft = walk.number(), walk.number()
        if not 0 < n_mel <= 1024 or not 0 < n_fft <= 8192:
            raise _Other(f"it claims {n_mel} mel filters of {n_fft}")
        walk.skip(4 * n_mel * n_fft)
    count = walk.number() if layout.counted else config["n_vocab"]
    walk.words(count, 4 if layout.scored else 0)
    if container == "ggjt":
        quantisation = version - 1
    tensors = walk.tensors(TYPES if quantisation >= 2 else OLD_TYPES, ALIGNMENT if container == "ggjt" else 1)
    width = config.get("n_embd") or config.get("n_text_state") or config["d_model"]
    tables = {t.shape for t in tensors.values() if len(t.shape) == 2 and config["n_vocab"] in t.shape}
    if not any(width in (n, 2 * n, 4 * n, 8 * n) for shape in tables for n in shape):  # of LLaMA's parts, each a slice
        raise _Other(f"no tensor has a row of {width} for each of {config['n_vocab']} words")
    variant = layout.variant
    if variant == "llama" and "transformer.word_embeddings.weight" in tensors:
        variant, config = "falcon", dict(zip(FALCON, config.values(), strict=True))
    metadata = {"variant": variant, "container": container, "version": version, "vocabulary": count}
    return Header(walk.path, "ggml", tensors, config, metadata, (walk.path,))


def read_words(path: Where) -> list[bytes]:
    """The vocabulary of a whisper.cpp file, which `read_ggml` passes over. Raises CheckpointError."""
    with opened(path) as (file, size):
        walk = _Walk(file, size, path, 4 + 4 * len(_WHISPER))
        try:
            n_mel, n_fft = walk.number(), walk.number()
            walk.skip(4 * n_mel * n_fft)
            count = walk.number()
            if not 0 <= count <= MAX_VOCABULARY:
                raise _Other(f"its vocabulary would have {count} words")
            words = []
            for _ in range(count):
                length = walk.number()
                if not 0 <= length <= MAX_WORD:
                    raise _Other(f"a word would have {length:,} bytes")
                words.append(walk.take(length))
            return words
        except _Other as why:
            raise CheckpointError(f"{path}: its vocabulary cannot be read ({why}); download it again.") from None


def _plausible(config: dict[str, Any]) -> None:
    """Numbers that some network could have."""
    for key, value in config.items():
        most = 2**20 if "ctx" in key or "seq" in key or "vocab" in key else 9999 if key == "ftype" else 2**16
        if isinstance(value, int) and not (0 if key in ("ftype", "par_res", "n_rot") else 1) <= value <= most:
            raise _Other(f"{key} would be {value}")
        if isinstance(value, float) and not 0 <= value < 1e6:
            raise _Other(f"{key} would be {value:g}")
    if not 1 < config["n_vocab"] <= MAX_VOCABULARY:
        raise _Other(f"n_vocab would be {config['n_vocab']}")


def _lora(walk: _Walk) -> Header:
    try:
        version, rank, alpha = walk.number(), walk.number(), walk.number()
        if version != 1 or not 0 < rank <= 65_536:
            raise _Other(f"its version is {version} and its rank {rank}")
        tensors = walk.tensors(TYPES, ALIGNMENT)
    except _Other as why:
        raise CheckpointError(f"{walk.path} is a ggla adapter that cannot be read ({why}); convert it again.") from None
    metadata = {"variant": "lora", "container": "ggla", "version": version, "vocabulary": 0}
    return Header(walk.path, "ggml", tensors, {"r": rank, "lora_alpha": alpha}, metadata, (walk.path,))


class _Walk:
    """Where we are in the file; what does not fit it ends the trial."""

    def __init__(self, file: BinaryIO, size: int, path: Where, at: int) -> None:
        self.file, self.size, self.path, self.at = file, size, path, at
        self.window, self.start = b"", 0

    def take(self, n: int) -> bytes:
        end = self.at + n
        if end > self.size:
            raise _Other("it ends too early")
        if self.at < self.start or end > self.start + len(self.window):
            self.file.seek(self.at)
            self.window, self.start = self.file.read(max(n, WINDOW)), self.at
        found = self.window[self.at - self.start : end - self.start]
        if len(found) < n:
            raise _Other("it ends too early")
        self.at = end
        return found

    def number(self) -> int:
        return int.from_bytes(self.take(4), "little", signed=True)

    def skip(self, n: int) -> None:
        if self.at + n > self.size:
            raise _Other("it ends too early")
        self.at += n

    def words(self, count: int, beside: int) -> None:
        """Pass over a vocabulary; `beside` bytes follow each word."""
        if not 0 <= count <= MAX_VOCABULARY:
            raise _Other(f"its vocabulary would have {count} words")
        unpack = struct.Struct("<I").unpack_from
        left = count
        while left:
            self.take(4)
            raw, at = self.window, self.at - 4 - self.start
            last = len(raw) - 4
            while left and at <= last:
                n = unpack(raw, at)[0]
                if n > MAX_WORD:
                    raise _Other(f"a word would have {n:,} bytes")
                at += 4 + n + beside
                left -= 1
            self.at = self.start + at
        if self.at > self.size:
            raise _Other("it ends within its vocabulary")

    def tensors(self, types: dict[int, tuple[str, int, int]], alignment: int) -> dict[str, TensorInfo]:
        """All tensors, which fill the rest of the file."""
        found: dict[str, TensorInfo] = {}
        while self.at < self.size:
            n_dims, length, kind = struct.unpack("<3i", self.take(12))
            if not 0 < n_dims <= 4 or not 0 < length <= MAX_NAME or kind not in types:
                raise _Other(f"tensor {len(found) + 1} would have {n_dims} dimensions and type {kind}")
            dims = struct.unpack(f"<{n_dims}i", self.take(4 * n_dims))
            name = self.take(length).decode("utf-8", "replace")
            if min(dims) < 0 or name in found or len(found) >= MAX_TENSORS:
                raise _Other(f"the tensor {shown(name)[:40]} occurs twice or has no size")
            shape = shape_of(dims[::-1], f"{self.path}: tensor {shown(name)}")
            dtype, block, block_bytes = types[kind]
            if shape[-1] % block:
                raise _Other(f"the rows of {shown(name)[:40]} do not divide into {dtype} blocks")
            self.at = -(-self.at // alignment) * alignment
            nbytes = prod(shape) // block * block_bytes
            found[name] = TensorInfo(name, dtype, shape, self.path, self.at, nbytes)
            self.skip(nbytes)
        if not found:
            raise _Other("it holds no tensors")
        return found
