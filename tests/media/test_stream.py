"""Streaming: the pieces joined equal the whole, no half characters, no lost spaces."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from brolly.media.text import Tokenizer, load_tokenizer
from tests.media.test_tokenizers import TEXT, json_folder, samples, sentencepiece_file


@pytest.fixture(params=["bytes", "sentencepiece", "wordpiece", "word ends"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Tokenizer:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    if request.param == "bytes":
        return load_tokenizer(json_folder(tmp_path))
    if request.param == "sentencepiece":
        return load_tokenizer(sentencepiece_file(tmp_path / "tokenizer.model"))
    if request.param == "wordpiece":
        words = ["[UNK]", "al", "##ice", "was", ".", "don", "'", "t", "##é"]
        backend = Backend(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece()
    else:
        backend = Backend(models.BPE({"a": 0, "a</w>": 1, "b": 2, "b</w>": 3}, [], end_of_word_suffix="</w>"))
        backend.decoder = decoders.BPEDecoder("</w>")
    backend.save(str(tmp_path / "tokenizer.json"))
    return load_tokenizer(tmp_path)


def pieces(tokenizer: Tokenizer, ids: list[int], **options: bool) -> list[str]:
    stream = tokenizer.stream(**options)
    return [*(stream.push(i) for i in ids), stream.finish()]


def test_pieces_joined_equal_the_whole_for_any_ids(tokenizer: Tokenizer) -> None:
    draw = random.Random(0)
    for _ in range(200):
        ids = [draw.randrange(tokenizer.vocab_size) for _ in range(draw.randrange(30))]
        for skip in (True, False):
            parts = pieces(tokenizer, ids, skip_special=skip)
            assert "".join(parts) == tokenizer.decode(ids, skip_special=skip)
            # what is out is out: each prefix of the pieces is a prefix of the text
            assert tokenizer.decode(ids, skip_special=skip).startswith("".join(parts[: len(parts) // 2]))


def test_text_comes_back_and_no_piece_is_half_a_character(tmp_path: Path) -> None:
    for folder in (json_folder(tmp_path / "a"), sentencepiece_file(tmp_path / "tokenizer.model")):
        tokenizer = load_tokenizer(folder)
        for text in samples():
            if "▁" in text:
                continue
            parts = pieces(tokenizer, tokenizer.encode(text))
            assert "".join(parts) == text
            assert not any("\ufffd" in part for part in parts)


def test_a_character_comes_with_its_last_byte(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(json_folder(tmp_path))
    assert pieces(tokenizer, tokenizer.encode("é🦙", special=False)) == ["", "é", "", "", "", "🦙", ""]


def test_a_broken_character_is_marked_and_what_follows_survives(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(json_folder(tmp_path / "a"))
    llama, a = tokenizer.encode("🦙", special=False), tokenizer.encode("a", special=False)
    assert pieces(tokenizer, llama[:3]) == ["", "", "", "\ufffd"]
    assert pieces(tokenizer, llama[:3] + a) == ["", "", "", "\ufffda", ""]
    tokenizer = load_tokenizer(sentencepiece_file(tmp_path / "tokenizer.model"))
    byte = {i: tokenizer.token_id(f"<0x{i:02X}>") or 0 for i in range(256)}
    # SentencePiece marks every stray byte
    assert tokenizer.decode([byte[0xF0], byte[0x9F], byte[0x41]]) == "\ufffd\ufffdA"
    assert tokenizer.decode([byte[0xFF], byte[0xC3], byte[0xA9]]) == "\ufffdé"


def test_a_continuation_keeps_its_space(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(sentencepiece_file(tmp_path / "tokenizer.model"))
    prompt, word = tokenizer.encode("ab"), tokenizer.encode("ab", special=False)
    assert tokenizer.decode(prompt) == "ab"
    assert tokenizer.decode(word, after=prompt) == " ab"
    assert tokenizer.decode(word, after=[tokenizer.bos_id or 0]) == "ab"
    assert tokenizer.decode(prompt + word) == tokenizer.decode(prompt) + tokenizer.decode(word, after=prompt)


def test_a_continuation_may_finish_the_prompts_character(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(json_folder(tmp_path))
    llama = tokenizer.encode("a🦙", special=False)
    assert tokenizer.decode(llama[3:], after=llama[:3]) == "🦙"


def test_a_long_stream_takes_the_same_steps_for_each_id(tmp_path: Path) -> None:
    """The state does not grow: no list of ids, no text so far."""
    tokenizer = load_tokenizer(json_folder(tmp_path))
    stream = tokenizer.stream()
    for token_id in tokenizer.encode(TEXT * 20):
        stream.push(token_id)
    assert not any(isinstance(v, (list, dict)) for v in vars(stream).values())
    assert all(len(v) < 8 for v in vars(stream).values() if isinstance(v, (str, bytes)))


@pytest.mark.parametrize("folder", ["openvla-7b", "qwen2.5-vl-7b", "whisper-base"])
def test_published_vocabularies_stream_what_they_decode(shared: Path, folder: str) -> None:
    tokenizer = load_tokenizer(shared / "data" / "configs" / folder)
    draw = random.Random(0)
    for _ in range(50):
        ids = [draw.randrange(tokenizer.vocab_size) for _ in range(40)]
        assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)
        if folder != "openvla-7b":
            assert tokenizer.decode(ids) == tokenizer.backend.decode(ids)
    for text in samples():
        assert tokenizer.decode(tokenizer.encode(text)) == tokenizer.backend.decode(tokenizer.encode(text))
