"""Whisper's tokens from every source of them, against openai-whisper's own."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from brolly.card import Header
from brolly.errors import CheckpointError, OptionError, TokenizerError
from brolly.media.audio.languages import LANGUAGES, language_code
from brolly.media.audio.whisper_tokens import LOST, Ranked, WhisperTokens, load_whisper_tokens, shipped

CONFIGS = Path(__file__).parents[4] / "shared" / "data" / "configs" / "whisper-base"
MARKS = ("eot", "sot", "translate", "transcribe", "sot_lm", "sot_prev", "no_speech", "no_timestamps", "timestamp_begin")
TEXTS = (
    "Hello, world! It's 12:30 -- 'twas (so).", "  two  spaces\n\nand lines ", "Grüße aus München",
    "東京は日本の首都です。", "안녕하세요 🎉👩‍👩‍👧 ♪♪♪", "नमस्ते दुनिया", "مرحبا بالعالم",
    "<|endoftext|> said I, <|en|>", "", " ", "a" * 50, "I'D don't",
)  # fmt: skip


def header(path: Path, form: str = "torch") -> Header:
    return Header(path, form, {}, files=(path,))


def beside_weights(folder: Path, kind: str) -> tuple[WhisperTokens, Any]:
    """Ours and openai-whisper's."""
    whisper = pytest.importorskip("whisper")
    n_vocab = {"english": 51864, "large-v3": 51866}.get(kind, 51865)
    theirs = whisper.tokenizer.get_tokenizer(n_vocab != 51864, num_languages=n_vocab - 51765 - (n_vocab != 51864))
    where, said = header(folder / "model.pt"), {}
    if kind == "a tiktoken beside it":
        whole = (Path(whisper.__file__).parent / "assets" / "multilingual.tiktoken").read_bytes()
        (folder / "multilingual.tiktoken").write_bytes(whole)
    if kind.startswith("Hugging Face's"):
        if not CONFIGS.is_dir():
            pytest.skip("whisper-base's own files are not here")
        names = ["vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"]
        for name in names if "pair" in kind else ["tokenizer.json", "generation_config.json"]:
            (folder / name).symlink_to(CONFIGS / name)
        said = json.loads((folder / "generation_config.json").read_text()) if "pair" not in kind else {}
    return load_whisper_tokens(where, n_vocab, said), theirs


KINDS = ("multilingual", "english", "large-v3", "a tiktoken beside it", "Hugging Face's tokenizer.json",
         "Hugging Face's pair of files")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_mean_what_openai_s_mean(tmp_path: Path, kind: str) -> None:
    ours, theirs = beside_weights(tmp_path, kind)
    assert {mark: getattr(ours, mark) for mark in MARKS} == {mark: getattr(theirs, mark) for mark in MARKS}
    assert ours.languages == dict(zip(theirs.all_language_codes, theirs.all_language_tokens, strict=True))
    assert ours.multilingual == (kind != "english")
    assert ours.sot_sequence() == theirs.sot_sequence
    assert ours.non_speech == theirs.non_speech_tokens
    control = {getattr(theirs, mark) for mark in MARKS[1:7]}
    assert set(ours.suppressed) == {*theirs.non_speech_tokens, *control}
    assert ours.suppressed_first == (*theirs.encode(" "), theirs.eot)


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_texts_and_words_are_openai_s(tmp_path: Path, kind: str) -> None:
    ours, theirs = beside_weights(tmp_path, kind)
    draw = random.Random(0)
    rows = [theirs.encoding.encode(text, disallowed_special=()) for text in TEXTS]
    assert [ours.encode(text) for text in TEXTS] == rows
    for row in [*rows, *([draw.randrange(theirs.eot) for _ in range(9)] for _ in range(100))]:
        ids = [theirs.timestamp_begin, *row, theirs.timestamp_begin + 54, theirs.eot]
        assert ours.decode(ids) == theirs.decode(ids)
        assert ours.decode_with_timestamps(ids) == theirs.decode_with_timestamps(ids)
        for theirs.language in ("en", "ja"):
            try:
                words, groups = theirs.split_to_word_tokens([*row, theirs.eot])
            except IndexError:  # its own fault, of half a character at the end
                continue
            assert ours.words([*row, theirs.eot], theirs.language) == list(zip(words, groups, strict=True))
        theirs.language = "en"


def _is_text(word: bytes) -> bool:
    try:
        word.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_whisper_cpp_s_file_brings_its_vocabulary(tmp_path: Path) -> None:
    T = pytest.importorskip("transformers")
    from tests.families.speech_layouts import write_ggml

    small = dict(
        d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1, decoder_attention_heads=1,
        encoder_ffn_dim=32, decoder_ffn_dim=32, max_source_positions=2, max_target_positions=2,
    )  # fmt: skip
    reference = T.WhisperForConditionalGeneration(T.WhisperConfig(vocab_size=51865, **small))
    words = shipped("multilingual")
    words[1000] = b" zyx"
    path = tmp_path / "ggml-tiny.bin"
    write_ggml(path, reference, words)
    tokens = load_whisper_tokens(header(path, "ggml"), 51865)
    assert tokens.decode([1000]) == " zyx" and tokens.encode(" Hello") == [2425]
    assert (tokens.sot, tokens.timestamp_begin) == (50258, 50364)
    broken = [word if _is_text(word) else LOST * len(word) for word in shipped("multilingual")]
    assert broken != shipped("multilingual")
    write_ggml(path, reference, broken)  # as the published files have it
    tokens = load_whisper_tokens(header(path, "ggml"), 51865)
    assert tokens.decode(tokens.encode("日本の首都です 👩‍👩‍👧")) == "日本の首都です 👩‍👩‍👧"
    whole = path.read_bytes()
    for cut in (60, 64_400, 70_000):
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError):
            load_whisper_tokens(header(path, "ggml"), 51865)


def test_what_generation_config_says_wins() -> None:
    said = {
        "suppress_tokens": [5, 6, 10**9, "7"], "begin_suppress_tokens": [8], "lang_to_id": {"<|de|>": 50261, "x": -1},
        "is_multilingual": True,
    }  # fmt: skip
    tokens = WhisperTokens(Ranked(shipped("multilingual"), 51865, "here"), 51865, said)
    assert tokens.suppressed == (5, 6, 50258, 50358, 50359, 50360, 50361, 50362)
    assert tokens.suppressed_first == (8,)
    assert tokens.languages == {"de": 50261}
    assert tokens.sot_sequence("german", translate=True) == (50258, 50261, 50358)
    with pytest.raises(OptionError, match="french"):
        tokens.language_token("fr")


def test_vocabularies_of_other_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="200 tokens"):
        load_whisper_tokens(header(tmp_path / "tiny.pt"), 200)
    (tmp_path / "multilingual.tiktoken").write_bytes(b"IQ== 0\nIg== 2\n")
    with pytest.raises(TokenizerError, match="ranks"):
        load_whisper_tokens(header(tmp_path / "tiny.pt"), 51865)


@pytest.mark.parametrize("text", ["\ud800", "a\udfff b"])
def test_half_a_character_is_no_text(text: str) -> None:
    with pytest.raises(TokenizerError, match="surrogate"):
        WhisperTokens(Ranked(shipped("english"), 51864, "here"), 51864).encode(text)


def test_languages_go_by_code_and_by_name() -> None:
    assert len(LANGUAGES) == 100 and list(LANGUAGES)[-1] == "yue"
    assert [language_code(name) for name in ("de", " German", "haitian creole", "Mandarin")] == ["de", "de", "ht", "zh"]
    with pytest.raises(OptionError, match="klingon"):
        language_code("klingon")
