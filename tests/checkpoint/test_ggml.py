"""ggml's files of 2022 and 2023, written here by hand, and what is made of damaged ones."""

from __future__ import annotations

import random
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from brolly.checkpoint.ggml import read_ggml
from brolly.errors import BrollyError, CheckpointError
from tests.checkpoint.test_fuzz import mutated

WORDS = [b"", b"a", *(b"word %d" % i for i in range(48))]
LLAMA = {"n_vocab": 50, "n_embd": 64, "n_mult": 256, "n_head": 4, "n_layer": 2, "n_rot": 16, "ftype": 1}
WHISPER = {
    "n_vocab": 50, "n_audio_ctx": 1500, "n_audio_state": 64, "n_audio_head": 4, "n_audio_layer": 2, "n_text_ctx": 448,
    "n_text_state": 64, "n_text_head": 4, "n_text_layer": 2, "n_mels": 80, "ftype": 1,
}  # fmt: skip
GPT2 = {"n_vocab": 50, "n_ctx": 1024, "n_embd": 64, "n_head": 4, "n_layer": 2, "ftype": 1}
GPTJ = {"n_vocab": 50, "n_ctx": 2048, "n_embd": 64, "n_head": 4, "n_layer": 2, "n_rot": 16, "ftype": 1}
NEOX = {**{k: v for k, v in GPTJ.items() if k != "ftype"}, "par_res": 1, "ftype": 1}
MPT = {
    "d_model": 64, "max_seq_len": 2048, "n_heads": 4, "n_layers": 2, "n_vocab": 50, "alibi_bias_max": 8.0,
    "clip_qkv": 0.0, "ftype": 1,
}  # fmt: skip
SIZES = {0: (1, 4), 1: (1, 2), 2: (32, 18), 12: (256, 144)}
OLD = {**SIZES, 2: (32, 20), 4: (16, 10)}


def numbers(values: dict[str, Any]) -> bytes:
    return b"".join(struct.pack("<f" if isinstance(v, float) else "<i", v) for v in values.values())


def words(scored: bool = False) -> bytes:
    return b"".join(struct.pack("<I", len(w)) + w + (b"\0\0\x80?" if scored else b"") for w in WORDS)


def tensors(rows: dict[str, tuple[tuple[int, ...], int]], at: int, old: bool, align: int = 1) -> bytes:
    """Descriptions and data; each tensor's bytes are its place in the list."""
    out = b""
    for i, (name, (shape, kind)) in enumerate(rows.items()):
        block, size = (OLD if old else SIZES)[kind]
        count = 1
        for n in shape:
            count *= n
        out += struct.pack(f"<3i{len(shape)}i", len(shape), len(name), kind, *shape[::-1]) + name.encode()
        out += bytes(-(at + len(out)) % align)
        out += bytes([i]) * (count // block * size)
    return out


ROWS = {
    "tok_embeddings.weight": ((50, 64), 1),
    "norm.weight": ((64,), 0),
    "layers.0.attention.wq.weight": ((64, 64), 2),
}
FILTERS = struct.pack("<2i", 80, 201) + bytes(4 * 80 * 201)
COUNT = struct.pack("<i", 50)
# variant: (what comes before the tensors, alignment of their data, whether blocks are those of before May 2023, config)
FILES: dict[str, tuple[bytes, int, bool, dict[str, Any]]] = {
    "llama": (b"lmgg" + numbers(LLAMA) + words(), 1, True, LLAMA),
    "llama ggmf": (b"fmgg\1\0\0\0" + numbers(LLAMA) + words(True), 1, True, LLAMA),
    "llama ggjt1": (b"tjgg\1\0\0\0" + numbers(LLAMA) + words(True), 32, True, LLAMA),
    "llama ggjt2": (b"tjgg\2\0\0\0" + numbers(LLAMA) + words(True), 32, True, LLAMA),
    "llama ggjt3": (b"tjgg\3\0\0\0" + numbers(LLAMA) + words(True), 32, False, LLAMA),
    "whisper": (b"lmgg" + numbers(WHISPER) + FILTERS + COUNT + words(), 1, True, WHISPER),
    "whisper quantised": (b"lmgg" + numbers({**WHISPER, "ftype": 2002}) + FILTERS + COUNT + words(), 1, False,
                          {**WHISPER, "ftype": 2}),
    "gpt2": (b"lmgg" + numbers(GPT2) + COUNT + words(), 1, True, GPT2),
    "gptj": (b"lmgg" + numbers(GPTJ) + COUNT + words(), 1, True, GPTJ),
    "gptneox": (b"lmgg" + numbers(NEOX) + words(), 1, True, NEOX),
    "mpt": (b"lmgg" + numbers(MPT) + words(), 1, True, MPT),
    "lora": (b"algg" + struct.pack("<3i", 1, 8, 16), 32, False, {"r": 8, "lora_alpha": 16}),
}  # fmt: skip


def write(path: Path, case: str, rows: dict[str, tuple[tuple[int, ...], int]] = ROWS) -> None:
    head, align, old, _ = FILES[case]
    path.write_bytes(head + tensors(rows, len(head), old, align))


@pytest.mark.parametrize("case", FILES)
def test_every_kind_is_told_and_comes_back(tmp_path: Path, case: str) -> None:
    path = tmp_path / "ggml-model.bin"
    write(path, case)
    header = read_ggml(path)
    _, align, old, config = FILES[case]
    assert header.format == "ggml" and header.metadata["variant"] == case.split()[0]
    assert dict(header.config) == config
    raw = path.read_bytes()
    for i, (name, (shape, kind)) in enumerate(ROWS.items()):
        info = header.tensors[name]
        assert (info.shape, info.dtype) == (shape, {0: "F32", 1: "F16", 2: "Q4_0"}[kind])
        assert set(raw[info.offset : info.offset + info.nbytes]) == {i} and info.offset % align == 0
    assert header.tensors["layers.0.attention.wq.weight"].nbytes == 64 * 2 * (20 if old else 18)
    assert header.metadata["vocabulary"] == (0 if case == "lora" else 50)


def test_falcon_is_told_by_its_names(tmp_path: Path) -> None:
    write(tmp_path / "f.bin", "llama ggjt3", {"transformer.word_embeddings.weight": ((50, 64), 1)})
    header = read_ggml(tmp_path / "f.bin")
    assert header.metadata["variant"] == "falcon" and header.config["n_head"] == 256 and header.config["n_head_kv"] == 4


def test_block_types_that_were_given_up_are_read_where_they_lived(tmp_path: Path) -> None:
    write(tmp_path / "m.bin", "llama ggjt1", {**ROWS, "w": ((2, 64), 4)})
    assert read_ggml(tmp_path / "m.bin").tensors["w"].dtype == "Q4_2"
    write(tmp_path / "m.bin", "llama ggjt3", {**ROWS, "w": ((2, 256), 12)})
    assert read_ggml(tmp_path / "m.bin").tensors["w"].nbytes == 288


def test_a_large_vocabulary_is_passed_over_soon(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    text = b"".join(struct.pack("<I", len(w)) + w for w in (b"w%d" % i for i in range(200_000)))
    head = b"lmgg" + numbers({**LLAMA, "n_vocab": 200_000}) + text
    path.write_bytes(head + tensors({"tok_embeddings.weight": ((200_000, 64), 1)}, len(head), True))
    start = time.process_time()
    assert read_ggml(path).metadata["vocabulary"] == 200_000
    assert time.process_time() - start < 0.5


BAD = {
    "nothing": b"",
    "magic only": b"lmgg",
    "noughts": b"lmgg" + bytes(1000),
    "ones": b"lmgg" + b"\xff" * 1000,
    "another version": b"tjgg\x09\0\0\0" + bytes(1000),
    "no tensors": b"lmgg" + numbers(LLAMA) + words(),
    "a vocabulary that is not there": b"lmgg" + numbers({**LLAMA, "n_vocab": 500_000}) + words(),
    "another model": b"lmgg" + struct.pack("<20i", *range(3, 23)) + bytes(1000),
    "tensors of other sizes": b"lmgg" + numbers(LLAMA) + words() + tensors({"w": ((2, 64), 0)}, 0, True),
    "a lora of no rank": b"algg" + struct.pack("<3i", 1, 0, 16),
    "an empty lora": b"algg" + struct.pack("<3i", 1, 8, 16),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused(tmp_path: Path, case: str) -> None:
    path = tmp_path / "bad.bin"
    path.write_bytes(BAD[case])
    with pytest.raises(CheckpointError, match="bad.bin"):
        read_ggml(path)


@pytest.mark.parametrize("case", FILES)
def test_every_truncation_is_refused(tmp_path: Path, case: str) -> None:
    path = tmp_path / "m.bin"
    write(path, case)
    raw = path.read_bytes()
    for n_bytes in [*range(0, 90, 3), *random.Random(0).sample(range(90, len(raw)), 30), len(raw) - 1]:
        path.write_bytes(raw[:n_bytes])
        try:
            found = read_ggml(path)
        except CheckpointError:
            continue
        assert len(found.tensors) < len(ROWS), "a cut between two tensors cannot be told"


@pytest.mark.parametrize("case", ["llama", "llama ggjt3", "whisper", "lora"])
def test_damaged_files(tmp_path: Path, case: str) -> None:
    path = tmp_path / "m.bin"
    write(path, case)
    raw = path.read_bytes()
    refused = 0
    for seed in range(150):
        path.write_bytes(mutated(raw, random.Random(seed)))
        start = time.process_time()
        try:
            read_ggml(path)
        except BrollyError as error:
            refused += 1
            assert path.name in str(error) and str(error).isprintable() and len(str(error)) < 600
        assert time.process_time() - start < 1, f"seed {seed}"
    assert refused > 40
