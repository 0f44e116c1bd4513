"""Encoders' tokenizers from their oldest files, and pairs of texts, against transformers' on the same files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from brolly.errors import TokenizerError
from brolly.media.text import load_tokenizer
from tests.families.text_folders import LETTERS, TEXTS, WORDS, vocabulary, write

T = pytest.importorskip("transformers")

SAMPLES = [*TEXTS, "Été, ÜBER! 東x\ttab\nline", "[MASK] the [SEP]", "x" * 120, "\u00ad\ufffd\x00the"]
PAIRS = [("the dog", "cat"), ("a " * 30, "b"), ("b", "a " * 30), ("a " * 30, "b c " * 20), ("c " * 9, "a " * 9)]
MPNET = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", *WORDS[5:], "<mask>"]


def same(mine, theirs) -> None:
    """Each text's ids, and of pairs what a limit leaves of both."""
    ids = [theirs(text)["input_ids"] for text in SAMPLES]
    assert [mine.encode(text) for text in SAMPLES] == ids == mine.encode_many(SAMPLES)
    for a, b in PAIRS:
        for limit in (12, 13, 20, 512):
            found = theirs(a, b, truncation="longest_first", max_length=limit)
            (ids, types, cut), _ = mine.encode_pairs(a, [b, "the"], limit)
            assert ids == found["input_ids"]
            assert types == found.get("token_type_ids", types)
            assert (cut > 0) == (len(theirs(a, b)["input_ids"]) > limit)


@pytest.mark.parametrize(
    "config", [{}, {"do_lower_case": False}, {"strip_accents": False}, {"tokenize_chinese_chars": False}]
)
def test_bert_from_vocab_txt_alone(tmp_path: Path, config: dict) -> None:
    write(vocabulary(tmp_path) / "tokenizer_config.json", config)
    same(load_tokenizer(tmp_path), T.BertTokenizer.from_pretrained(tmp_path))


def test_mpnet_from_vocab_txt_alone(tmp_path: Path) -> None:
    mine = load_tokenizer(vocabulary(tmp_path, MPNET))
    same(mine, T.MPNetTokenizer.from_pretrained(tmp_path))


def test_roberta_from_its_pair_of_files(tmp_path: Path) -> None:
    from tokenizers.pre_tokenizers import ByteLevel

    pieces = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet()), "th", "the", "Ġthe", "<mask>"]
    write(tmp_path / "vocab.json", {piece: i for i, piece in enumerate(pieces)})
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt h\nth e\nĠ the\n")
    write(tmp_path / "config.json", {"model_type": "roberta"})
    theirs = T.RobertaTokenizer.from_pretrained(tmp_path)
    mine = load_tokenizer(tmp_path)
    texts = ["the dog", "", "é <mask> the", "a\n the"]
    assert [mine.encode(text) for text in texts] == [theirs(text)["input_ids"] for text in texts]
    for a, b in PAIRS:
        found = theirs(a, b, truncation="longest_first", max_length=20)["input_ids"]
        assert mine.encode_pairs(a, [b], 20)[0][0] == found


@pytest.mark.parametrize("kind", ["XLMRoberta", "Camembert"])
def test_fairseqs_ids_over_sentencepiece(tmp_path: Path, kind: str) -> None:
    library = pytest.importorskip("sentencepiece")
    (tmp_path / "in.txt").write_text("the dog and the cat\n" * 20 + f"{LETTERS}\n" * 5)
    camembert = {"unk_id": 0, "bos_id": 1, "eos_id": 2}
    library.SentencePieceTrainer.train(
        input=str(tmp_path / "in.txt"), model_prefix=str(tmp_path / "sentencepiece.bpe"), vocab_size=60,
        model_type="unigram", hard_vocab_limit=False, minloglevel=2, num_threads=1, **camembert,
    )  # fmt: skip
    write(tmp_path / "tokenizer_config.json", {"tokenizer_class": f"{kind}Tokenizer"})
    spm = library.SentencePieceProcessor(str(tmp_path / "sentencepiece.bpe.model"))
    mine = load_tokenizer(tmp_path)
    shift = 1 if kind == "XLMRoberta" else 4
    start, end = (mine.token_id(text) for text in ("<s>", "</s>"))
    assert (start, end) == ((0, 2) if kind == "XLMRoberta" else (5, 6))
    assert mine.token_id("<mask>") == mine.vocab_size - 1 and mine.token_id("<pad>") == 1
    for text in ("the dog", "and the cat", "abc xyz"):
        ids = [i + shift for i in spm.encode(text)]
        assert mine.encode(text) == [start, *ids, end] == mine.encode_many([text])[0]
        pair = mine.encode_pairs(text, ["dog"], 512)[0][0]
        assert pair == [start, *ids, end, end, *(i + shift for i in spm.encode("dog")), end]


def test_a_vocabulary_without_lines_is_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("")
    with pytest.raises(TokenizerError, match="vocabulary of a piece a line"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TokenizerError, match="not UTF-8"):
        load_tokenizer(tmp_path)


def test_one_text_of_many_that_no_tokenizer_can_read_is_told(tmp_path: Path) -> None:
    mine = load_tokenizer(vocabulary(tmp_path))
    with pytest.raises(TokenizerError, match="lone surrogate"):
        mine.encode_many(["the", "\ud800"])
    with pytest.raises(TokenizerError, match="lone surrogate"):
        mine.encode_pairs("the", ["\ud800"], 10)
    assert json.dumps(mine.encode_many([])) == "[]" and mine.encode_pairs("the", [], 10) == []


@pytest.mark.parametrize("config", [{"do_lower_case": False}, {"strip_accents": False}, {}])
@pytest.mark.parametrize("stored", [True, False])
def test_the_settings_beside_a_bert_tokenizer_json_win_as_in_transformers(
    tmp_path: Path, config: dict, stored: bool
) -> None:
    T.BertTokenizer.from_pretrained(vocabulary(tmp_path)).save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").unlink()
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    write(tmp_path / "tokenizer.json", saved | {"normalizer": saved["normalizer"] | {"lowercase": stored}})
    write(tmp_path / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", **config})
    same(load_tokenizer(tmp_path), T.AutoTokenizer.from_pretrained(tmp_path))
