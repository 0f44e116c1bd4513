"""CLIP's and SigLIP's texts to ids, against transformers and open_clip."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from brolly.card import Header
from brolly.errors import TokenizerError
from brolly.media.text import load_tokenizer
from brolly.media.text.bytelevel import SIMPLE_ENDS
from tests.media.test_tokenizers import TEXT, samples

CAPTIONS = [
    "a photo of a cat", "A Photo, of two DOGS!", "  it's   3 o'clock\n\tat   Zürich's  café ", "日本語のテキスト",
    "snow_flake's (x)-ray: 50% <b>bold</b>", "e\u0301clair ÉCLAIR", "👍🏽 ok", "can't we've I'm they'll",
]  # fmt: skip
SIMPLE = Path(__file__).parents[2] / ".venv/references/open_clip/bpe_simple_vocab_16e6.txt.gz"


def pair(folder: Path) -> Path:
    """A small vocabulary of CLIP's kind, as its two files: letters, letters that end a word, and some merges."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e</w>"), ("a", "t</w>"), ("o", "f</w>"), ("c", "at</w>"), ("i", "n")]
    pieces = [*letters, *(x + "</w>" for x in letters), *map("".join, merges), *SIMPLE_ENDS]
    (folder / "vocab.json").write_text(json.dumps({p: i for i, p in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    return folder


@pytest.mark.parametrize("configured", [True, False])
def test_clip_s_pair_of_files_equals_transformers(tmp_path: Path, configured: bool) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.CLIPTokenizer.from_pretrained(str(pair(tmp_path)))
    if configured:
        theirs.save_pretrained(tmp_path / "saved")
        shutil.copy(tmp_path / "saved" / "tokenizer_config.json", tmp_path)
    mine = load_tokenizer(tmp_path)
    for text in [*CAPTIONS, *samples()]:
        assert mine.encode(text) == theirs.encode(text), repr(text)
    assert (mine.bos_id, mine.eos_id) == (theirs.bos_token_id, theirs.eos_token_id)


def test_openai_s_list_of_merges_is_a_whole_tokenizer(tmp_path: Path) -> None:
    if not SIMPLE.is_file():
        pytest.skip(f"OpenAI's list is not in {SIMPLE}")
    shutil.copy(SIMPLE, tmp_path)
    mine = load_tokenizer(tmp_path)
    assert mine.vocab_size == 49408 and (mine.bos_id, mine.eos_id) == (49406, 49407)
    assert mine.encode("a photo of a cat") == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert mine.decode(mine.encode("a photo of a cat")) == "a photo of a cat"


def test_a_list_of_merges_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "bpe_simple_vocab_16e6.txt.gz"
    for content, message in ((b"x" * (20 << 20), "unpacks to more than"), (b"#v\na b\nlonely\n", "no pair")):
        path.write_bytes(gzip.compress(content))
        with pytest.raises(TokenizerError, match=message):
            load_tokenizer(tmp_path)
    path.write_bytes(b"\x1f\x8b no gzip")
    with pytest.raises(TokenizerError, match="not a tokenizer that can be read"):
        load_tokenizer(tmp_path)


def pieces(folder: Path) -> Path:
    """A small unigram model with T5's ids, as SigLIP's is."""
    library = pytest.importorskip("sentencepiece")
    (folder / "in.txt").write_text(TEXT * 3 + "\n".join(CAPTIONS).lower() + "\n")
    library.SentencePieceTrainer.train(
        input=str(folder / "in.txt"), model_prefix=str(folder / "spiece"), vocab_size=420, model_type="unigram",
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2, num_threads=1,
    )  # fmt: skip
    return folder


def test_siglip_s_texts_equal_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.SiglipTokenizer.from_pretrained(str(pieces(tmp_path)))
    theirs.save_pretrained(tmp_path)
    mine = load_tokenizer(Header(tmp_path, "safetensors", {}, {"model_type": "siglip"}))
    for text in [*CAPTIONS, *samples()]:
        if "▁" not in text and text.strip():
            assert mine.encode(text) == theirs.encode(text), repr(text)
    assert mine.pad_id == theirs.pad_token_id


def test_siglip_2_reads_small_letters(tmp_path: Path) -> None:
    pieces(tmp_path)
    for config in ({"model_type": "siglip2"}, {"model_type": "siglip", "text_config": {"vocab_size": 256000}}):
        mine = load_tokenizer(Header(tmp_path, "safetensors", {}, config))
        assert mine.encode("A Cat, It's") == mine.encode("a cat, it's") != mine.encode("a cat its")


def test_open_clip_s_siglip_cleans_as_its_config_says(tmp_path: Path) -> None:
    config = {"model_cfg": {"text_cfg": {"tokenizer_kwargs": {"clean": "canonicalize"}}}}
    mine = load_tokenizer(Header(pieces(tmp_path), "safetensors", {}, config))
    assert mine.encode("A snow_flake &amp; Cat's!") == mine.encode("a snow flake cats")
