"""Broken and hostile tokenizer files: a TokenizerError that names the file, or a tokenizer; never anything else."""

from __future__ import annotations

import base64
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brolly.errors import TokenizerError
from brolly.media.text import load_tokenizer
from brolly.media.text.gguf import from_gguf
from tests.media.test_tokenizers import json_folder, ranks, sentencepiece_file


def tekken_file(path: Path) -> Path:
    rows = [{"rank": i, "token_bytes": base64.b64encode(t).decode()} for t, i in ranks(300).items()]
    config = {"pattern": r"\p{L}+|\s+", "default_num_special_tokens": 9, "default_vocab_size": 300}
    path.write_text(json.dumps({"config": config, "vocab": rows}))
    return path


def tiktoken_file(path: Path) -> Path:
    path.write_bytes(b"".join(base64.b64encode(t) + b" %d\n" % i for t, i in ranks(300).items()))
    return path


def llama2c_file(path: Path) -> Path:
    texts = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{i:02X}>" for i in range(256)), " ", "a", "b", "ab"]
    rows = [struct.pack("<fi", -float(i), len(t.encode())) + t.encode() for i, t in enumerate(texts)]
    path.write_bytes(struct.pack("<i", 9) + b"".join(rows))
    return path


FILES: dict[str, Callable[[Path], Path]] = {
    "tokenizer.json": lambda path: json_folder(path.parent) / "tokenizer.json",
    "tokenizer.model": sentencepiece_file,
    "ranks.tiktoken": tiktoken_file,
    "tekken.json": tekken_file,
    "tokenizer.bin": llama2c_file,
}


def try_all(path: Path) -> None:
    """Load, and use it if it loads."""
    try:
        tokenizer = load_tokenizer(path)
        tokenizer.decode(tokenizer.encode("Hello é 12 </s>"))
        tokenizer.decode(tokenizer.encode("a  b", parse_special=False))
        tokenizer.decode(range(0, 400, 7))
    except TokenizerError as error:
        assert path.name in str(error)


@pytest.mark.parametrize("name", FILES)
def test_bits_flipped_and_files_cut(name: str, tmp_path: Path) -> None:
    path = FILES[name](tmp_path / name)
    whole = path.read_bytes()
    try_all(path)
    draw = random.Random(0)
    for round in range(150):
        data = bytearray(whole)
        if round % 3 == 0:
            del data[draw.randrange(len(data)) :]
        elif round % 3 == 1:
            at = draw.randrange(len(data))
            data[at : at + draw.randrange(9)] = draw.randbytes(draw.randrange(9))
        else:
            for _ in range(draw.randrange(1, 20)):
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        try_all(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\0" * 64,
        b"\n\xff\xff\xff\xff\x0f",
        b"\n\x05\n\xff\xff\xff\x7f",
        b"\x0a\x02\x0a\x00" * 1000,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"AA== 99999999999999999999\n",
        b"AA== 0\nAA== 1\n",
    ],
)
@pytest.mark.parametrize("name", FILES)
def test_files_that_lie(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TokenizerError, match=name):
        load_tokenizer(tmp_path / name)


def test_one_endless_token_is_refused(tmp_path: Path) -> None:
    long = b"a" * (1 << 20)
    piece = b"\n" + b"\x80\x80\x40" + long
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x84\x80\x40" + piece + b"\x12\x02\x18\x02")
    with pytest.raises(TokenizerError, match="too long a token"):
        load_tokenizer(tmp_path / "tokenizer.model")


@pytest.mark.parametrize("at", ["model", "added"])
def test_an_id_that_no_vocabulary_has_is_refused(at: str, tmp_path: Path) -> None:
    """`tokenizers` would make a table of 8 GB."""
    path = json_folder(tmp_path) / "tokenizer.json"
    whole = json.loads(path.read_text())
    if at == "model":
        whole["model"]["vocab"]["!"] = 4294967295
    else:
        whole["added_tokens"][0]["id"] = 4294967295
    path.write_text(json.dumps(whole))
    with pytest.raises(TokenizerError, match="4,294,967,295"):
        load_tokenizer(path)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(TokenizerError, match="at most"):
        load_tokenizer(tmp_path)


def test_an_empty_folder_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="holds no tokenizer; expected tokenizer.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("value", [None, 7, "text", [], ["a", 1], {"a": 1}, [None], [["a"]], b"\xff", 10**30])
@pytest.mark.parametrize(
    "key", ["bos_token", "eos_token", "chat_template", "added_tokens_decoder", "tokenizer_class", "add_bos_token"]
)
def test_a_config_of_other_kinds_is_no_crash(key: str, value: Any, tmp_path: Path) -> None:
    value = value.decode("latin-1") if isinstance(value, bytes) else value
    load_tokenizer(json_folder(tmp_path, {key: value})).encode("a")


def gguf(**changes: Any) -> dict[str, Any]:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", "a", "b", "▁a"]
    kinds = [2, 3, 3, *[6] * 256, 1, 1, 1, 1]
    found = {"model": "llama", "tokens": tokens, "token_type": kinds, "scores": [0.0] * len(tokens), "bos_token_id": 1}
    return {f"tokenizer.ggml.{k}": v for k, v in (found | changes).items()}


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "wordlevel"},
        {"model": None},
        {"tokens": None},
        {"tokens": []},
        {"tokens": [1, 2]},
        {"tokens": "abc"},
        {"scores": [1.0]},
        {"token_type": ["x"] * 263},
        {"model": "gpt2"},
        {"model": "gpt2", "merges": ["a"], "pre": "nobody"},
        {"model": "gpt2", "merges": [b"\xff"] * 3, "pre": 5},
        {"model": "t5", "precompiled_charsmap": [300]},
        {"model": "t5", "precompiled_charsmap": [1, 2]},
    ],
)
def test_gguf_vocabularies_that_lie(changes: dict[str, Any]) -> None:
    with pytest.raises(TokenizerError, match="x.gguf"):
        from_gguf(gguf(**changes), "x.gguf").encode("a")


@pytest.mark.parametrize(
    "changes", [{}, {"bos_token_id": 10**9}, {"bos_token_id": "1"}, {"tokens": ["a"] * 263}, {"tokens": [""] * 263}]
)
def test_gguf_vocabularies_that_are_odd_are_read(changes: dict[str, Any]) -> None:
    tokenizer = from_gguf(gguf(**changes), "x.gguf")
    assert tokenizer.vocab_size == 263
    tokenizer.decode(tokenizer.encode("ab"))
