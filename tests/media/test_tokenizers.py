"""Every kind of tokenizer file against its publisher's own reader, or against llama.cpp's published cases."""

from __future__ import annotations

import base64
import json
import random
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from brolly.card import Header
from brolly.errors import TemplateError, TokenizerError
from brolly.media.text import Tokenizer, load_tokenizer
from brolly.media.text.gguf import from_gguf
from brolly.media.text.patterns import LLAMA3, PATTERNS

TEXT = (
    "Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once or "
    "twice she'd peeped into the book her sister was reading, but it had no pictures or conversations in it.\n"
    '"And what is the use of a book," thought Alice, "without pictures?"\n\n  So she was considering (as well as '
    "she could, for the hot day made her feel very sleepy), 12345 daisy-chains.\n\thot – größer, naïve, 漢字, नमस्ते.\n"
)
_LETTERS = "abc de  fgh\n\r\t'.,éß①ｆ漢 字🦙'LL's123 ABCd▁"


def samples(seed: int = 0, count: int = 300) -> list[str]:
    """Real text, and random mixtures of what tokenizers trip over."""
    draw = random.Random(seed)
    mixed = ["".join(draw.choice(_LETTERS) for _ in range(draw.randrange(1, 40))) for _ in range(count)]
    return [TEXT, *TEXT.splitlines(True), "", " ", "  ", "\n", "a  ", "  a", " a b", *mixed]


def same(mine: Tokenizer, theirs: Any, **options: Any) -> None:
    """`theirs` maps a text to ids; the first text that differs is shown."""
    for text in samples():
        assert mine.encode(text, **options) == theirs(text), repr(text)


# llama.cpp's cases ---------------------------------------------------------------------------------------------------


def cases(shared: Path, name: str) -> list[tuple[str, list[int]]]:
    folder = shared / "data" / "tokenizers"
    texts = (folder / f"ggml-vocab-{name}.gguf.inp").read_text().split("\n__ggml_vocab_test__\n")
    lines = (folder / f"ggml-vocab-{name}.gguf.out").read_text().splitlines()
    return [(text, [int(i) for i in line.split()]) for text, line in zip(texts, lines, strict=False)]


def gguf_metadata(path: Path) -> dict[str, Any]:
    reader = pytest.importorskip("gguf").GGUFReader(path)
    return {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}


HELD = {
    "gpt-2": "tokenizers/ggml-vocab-gpt-2.gguf",
    "llama-spm": "tokenizers/ggml-vocab-llama-spm.gguf",
    "phi-3": "tokenizers/ggml-vocab-phi-3.gguf",
    "bert-bge": "tokenizers/ggml-vocab-bert-bge.gguf",
    "qwen2": "configs/qwen2.5-vl-7b",
    "deepseek-r1-qwen": "configs/qwen2.5-vl-7b",
}
ABSENT = (
    "chameleon", "command-r", "deepseek-coder", "deepseek-llm", "falcon", "llama-bpe", "mpt", "refact", "roberta-bpe",
    "starcoder",
)  # fmt: skip


@pytest.mark.parametrize("name", HELD)
def test_llama_cpp_cases(shared: Path, name: str) -> None:
    path = shared / "data" / HELD[name]
    tokenizer = from_gguf(gguf_metadata(path), str(path)) if path.suffix == ".gguf" else load_tokenizer(path)
    for text, ids in cases(shared, name):
        assert tokenizer.encode(text, special=False, parse_special=False) == ids, repr(text)


@pytest.mark.parametrize("file", ["tokenizer.model", "tokenizer.json"])
@pytest.mark.parametrize("name", ["llama-spm", "phi-3"])
def test_llama_cpp_cases_by_the_publishers_own_files(shared: Path, file: str, name: str) -> None:
    tokenizer = load_tokenizer(shared / "data" / "configs" / "openvla-7b" / file)
    for text, ids in cases(shared, name):
        assert tokenizer.encode(text, special=False, parse_special=False) == ids, repr(text)


@pytest.mark.parametrize("name", ABSENT)
def test_llama_cpp_cases_without_their_vocabulary(shared: Path, name: str) -> None:
    """What can be seen without a vocabulary: a piece of text is one token or more."""
    tokenizers = pytest.importorskip("tokenizers")
    cuts = [tokenizers.pre_tokenizers.Split(tokenizers.Regex(p), "isolated") for p in PATTERNS[name]]
    cutter = tokenizers.pre_tokenizers.Sequence(cuts)
    for text, ids in cases(shared, name):
        pieces = [piece for piece, _ in cutter.pre_tokenize_str(text)]
        assert "".join(pieces) == text
        assert len(pieces) <= len(ids) <= len(text.encode())
    pytest.skip(f"the cuts fit; the ids of {name} wait for its vocabulary, which is not in the shared data")


# SentencePiece -------------------------------------------------------------------------------------------------------

_KINDS = [
    # kind, normalisation, prefix, squeeze, bytes, symbols of the user
    ("bpe", "identity", True, False, True, []),
    ("bpe", "nmt_nfkc", True, True, False, ["<x>"]),
    ("bpe", "identity", False, False, True, ["<x>", "▁▁"]),
    ("unigram", "nmt_nfkc", True, True, False, []),
    ("unigram", "identity", False, True, True, []),
    ("unigram", "nmt_nfkc_cf", True, False, True, ["<x>"]),
    ("char", "nmt_nfkc", True, True, True, []),
]


@pytest.mark.parametrize(("kind", "normal", "prefix", "squeeze", "fallback", "symbols"), _KINDS)
def test_sentencepiece_models_split_as_sentencepiece_does(
    tmp_path: Path, kind: str, normal: str, prefix: bool, squeeze: bool, fallback: bool, symbols: list[str]
) -> None:
    library = pytest.importorskip("sentencepiece")
    (tmp_path / "in.txt").write_text(TEXT * 3 + "<x> ab<x>\n")
    library.SentencePieceTrainer.train(
        input=str(tmp_path / "in.txt"), model_prefix=str(tmp_path / "tokenizer"), vocab_size=420, model_type=kind,
        normalization_rule_name=normal, add_dummy_prefix=prefix, remove_extra_whitespaces=squeeze,
        byte_fallback=fallback, user_defined_symbols=symbols, hard_vocab_limit=False, minloglevel=2, num_threads=1,
    )  # fmt: skip
    theirs = library.SentencePieceProcessor(str(tmp_path / "tokenizer.model"))
    mine = load_tokenizer(tmp_path)
    assert (mine.vocab_size, mine.bos_id, mine.eos_id) == (len(theirs), theirs.bos_id(), theirs.eos_id())
    # `tokenizers` maps a carriage return and its line feed as one; where spaces are squeezed that makes no difference
    bare = normal != "identity" and not squeeze
    for text in samples():
        text = text.replace("\r\n", "\n") if bare else text
        assert mine.encode(text, special=False, parse_special=False) == theirs.encode(text), repr(text)
    for text in samples(seed=1):
        ids = theirs.encode(text)
        if theirs.unk_id() not in ids and "▁" not in text:
            assert mine.decode(ids) == theirs.decode(ids), repr(text)


def test_llama_model_equals_sentencepiece(shared: Path) -> None:
    library = pytest.importorskip("sentencepiece")
    path = shared / "data" / "configs" / "openvla-7b" / "tokenizer.model"
    theirs = library.SentencePieceProcessor(str(path))
    mine = load_tokenizer(path)
    same(mine, theirs.encode, special=False, parse_special=False)
    book = (shared / "data" / "text" / "alice.txt").read_text()[:50_000]
    assert mine.encode(book) == [1, *theirs.encode(book)]
    assert mine.token_id("<PAD>") == 32000 and mine.vocab_size == 32001


def test_prefix_space_follows_a_control_token_and_not_a_users_symbol(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(sentencepiece_file(tmp_path / "tokenizer.model"))
    text = tokenizer.token_text
    assert [text(i) for i in tokenizer.encode("ab</s>ab")] == ["<s>", " ab", "</s>", " ab"]
    assert [text(i) for i in tokenizer.encode("ab</s>", parse_special=False)] == ["<s>", " ab", "<", "/", "s", ">"]
    assert tokenizer.decode(tokenizer.encode("ab </s>ab")) == "ab  ab"


def sentencepiece_file(path: Path) -> Path:
    """A tiny Llama-like model, written by hand."""
    rows: list[tuple[str, float, int]] = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    rows += [(f"<0x{i:02X}>", 0.0, 6) for i in range(256)]
    rows += [(t, -float(i), 1) for i, t in enumerate(["▁a", "▁ab", "ab", "▁", "a", "b", "<", "/", "s", ">", "é"])]
    data = b""
    for text, score, kind in rows:
        raw = text.encode()
        piece = b"\n" + bytes([len(raw)]) + raw + b"\x15" + struct.pack("<f", score)
        piece += b"" if kind == 1 else b"\x18" + bytes([kind])
        data += b"\n" + bytes([len(piece)]) + piece
    trainer = b"\x18\x02" + b"\x98\x02\x01"  # BPE, byte fallback
    normal = b"\x20\x00"  # keep spaces
    path.write_bytes(data + b"\x12" + bytes([len(trainer)]) + trainer + b"\x1a" + bytes([len(normal)]) + normal)
    return path


def test_llama2c_tokenizer(shared: Path) -> None:
    folder = shared / "data" / "stories260k"
    header = Header(folder / "stories260K.bin", "llama2c", {}, {"vocab_size": 512})
    tokenizer = load_tokenizer(header)
    ids = tokenizer.encode("Once upon a time")
    assert ids == [1, 403, 407, 261, 378]
    assert tokenizer.decode(tokenizer.encode("Once, é 漢\n🦙")) == "Once, é 漢\n🦙"
    with pytest.raises(TokenizerError, match="has 600 pieces"):
        load_tokenizer(Header(folder / "stories260K.bin", "llama2c", {}, {"vocab_size": 600}))


# byte-level pairs ----------------------------------------------------------------------------------------------------


def ranks(n: int) -> dict[bytes, int]:
    """Single bytes, then pairs of earlier tokens that occur in TEXT, made by plain byte-pair training."""
    found = [bytes([i]) for i in range(256)]
    words = [[bytes([b]) for b in word.encode()] for word in TEXT.replace(" ", "\n ").splitlines()]
    while len(found) < n:
        counts: dict[bytes, int] = {}
        for word in words:
            for pair in zip(word, word[1:], strict=False):
                counts[b"".join(pair)] = counts.get(b"".join(pair), 0) + 1
        best = max(counts, key=lambda t: (counts[t], t))
        found.append(best)
        for word in words:
            i = 0
            while i < len(word) - 1:
                if word[i] + word[i + 1] == best:
                    word[i : i + 2] = [best]
                i += 1
    return {token: i for i, token in enumerate(dict.fromkeys(found))}


def test_tiktoken_file(tmp_path: Path) -> None:
    library = pytest.importorskip("tiktoken")
    table = ranks(400)
    lines = b"".join(base64.b64encode(t) + b" %d\n" % i for t, i in table.items())
    (tmp_path / "tokenizer.model").write_bytes(lines)
    theirs = library.Encoding("x", pat_str=LLAMA3, mergeable_ranks=table, special_tokens={})
    mine = load_tokenizer(tmp_path)
    same(mine, theirs.encode)
    assert all(mine.decode(theirs.encode(text)) == text for text in samples())


def test_llama3_control_tokens_follow_its_128000_ranks() -> None:
    from brolly.media.text.bytelevel import known_table

    table = known_table(128000)
    texts = {i: t.text for i, t in table.added.items()}
    assert (min(texts), max(texts), len(texts)) == (128000, 128255, 256)
    assert texts[128006] == "<|start_header_id|>" and texts[128009] == "<|eot_id|>"
    assert texts[128002] == "<|reserved_special_token_0|>" and texts[128255] == "<|reserved_special_token_247|>"
    assert table.add_bos and table.roles == {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}


def test_tekken_json(tmp_path: Path) -> None:
    library = pytest.importorskip("tiktoken")
    table = ranks(380)
    pattern = PATTERNS["tekken"][0]
    rows = [{"rank": i, "token_bytes": base64.b64encode(t).decode(), "token_str": None} for t, i in table.items()]
    config = {"pattern": pattern, "default_num_special_tokens": 30, "default_vocab_size": 30 + 370}
    (tmp_path / "tekken.json").write_text(json.dumps({"config": config, "vocab": rows}))
    first = {t: i for t, i in table.items() if i < 370}
    theirs = library.Encoding("x", pat_str=pattern, mergeable_ranks=first, special_tokens={})
    mine = load_tokenizer(tmp_path)
    same(mine, lambda text: [1, *(i + 30 for i in theirs.encode(text))])
    assert mine.vocab_size == 400 and mine.encode("[INST]") == [1, 3] and mine.token_text(29) == "<SPECIAL_29>"


def test_mistrals_own_tekken_files(tmp_path: Path) -> None:
    tekken = pytest.importorskip("mistral_common.tokens.tokenizers.tekken")
    path = Path(pytest.importorskip("mistral_common").__file__).parent / "data" / "tekken_240911.json"
    if not path.is_file():
        pytest.skip("this version of mistral_common carries no tekken file")
    shutil.copy(path, tmp_path / "tekken.json")
    theirs = tekken.Tekkenizer.from_file(path)
    same(load_tokenizer(tmp_path), lambda t: theirs.encode(t, bos=True, eos=False), parse_special=False)


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("sd-v1-5/tokenizer", "CLIPTokenizer"), ("qwen2.5-vl-7b", "Qwen2Tokenizer"), ("whisper-base", "WhisperTokenizer")],
)
def test_published_folders_equal_transformers(shared: Path, folder: str, kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    path = shared / "data" / "configs" / folder
    theirs = getattr(transformers, kind).from_pretrained(str(path))
    mine = load_tokenizer(path)
    same(mine, theirs.encode)
    assert (mine.vocab_size, mine.bos_id, mine.eos_id) == (len(theirs), theirs.bos_token_id, theirs.eos_token_id)
    for text in samples(seed=2):
        want = theirs.decode(theirs.encode(text), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert mine.decode(mine.encode(text)).strip() == want.strip(), repr(text)


def test_gpt2_pair_of_files(shared: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(shared / "data" / "configs" / "whisper-base" / name, tmp_path / name)
    theirs = transformers.GPT2Tokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    same(load_tokenizer(tmp_path), theirs.encode)


# tokenizer.json and what stands beside it ----------------------------------------------------------------------------


def json_folder(folder: Path, config: dict[str, Any] | None = None, **files: Any) -> Path:
    """A byte-level tokenizer.json with a bos in its post-processor, and files beside it."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers
    from tokenizers.processors import TemplateProcessing

    from brolly.media.text.spelling import alphabet

    ids = {c: i for i, c in enumerate(alphabet().values())}
    backend = Backend(models.BPE(ids, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "</s>"])
    backend.post_processor = TemplateProcessing(single="<s> $A", pair=None, special_tokens=[("<s>", 256)])
    folder.mkdir(exist_ok=True)
    backend.enable_padding(length=64)
    backend.enable_truncation(4)
    backend.save(str(folder / "tokenizer.json"))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    for name, value in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(path.suffix or ".json").write_text(value if isinstance(value, str) else json.dumps(value))
    return folder


def test_padding_and_truncation_of_a_file_are_ignored(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(json_folder(tmp_path))
    assert len(tokenizer.encode("hello there")) == 12


@pytest.mark.parametrize("config", [{}, {"add_bos_token": False}, {"add_bos_token": True, "add_eos_token": True}])
def test_tokenizer_json_says_itself_what_goes_around_a_text_as_in_transformers(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    bos = {"__type": "AddedToken", "content": "<s>"}
    config |= {"bos_token": bos, "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    tokenizer = load_tokenizer(json_folder(tmp_path, config))
    assert tokenizer.encode("a") == [256, 64]
    assert (tokenizer.bos_id, tokenizer.eos_id) == (256, 257)
    transformers = pytest.importorskip("transformers")
    assert transformers.AutoTokenizer.from_pretrained(str(tmp_path)).encode("a", padding=False) == [256, 64]


@pytest.mark.parametrize(
    ("config", "ids"),
    [({}, [1, 259]), ({"add_bos_token": False}, [259]), ({"add_bos_token": False, "add_eos_token": True}, [259, 2])],
)
def test_add_bos_and_eos_are_asked_where_the_file_is_silent(
    tmp_path: Path, config: dict[str, Any], ids: list[int]
) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert load_tokenizer(sentencepiece_file(tmp_path / "tokenizer.model").parent).encode("a") == ids


def test_tokens_that_only_the_config_names_are_added(tmp_path: Path) -> None:
    table = {"258": {"content": "<call>", "special": False}, "259": {"content": "<|end|>", "special": True}}
    folder = json_folder(tmp_path, {"eos_token": "<|end|>", "pad_token": "<pad>", "added_tokens_decoder": table})
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode("a<call><|end|>", special=False)[1:] == [258, 259]
    assert tokenizer.eos_id == 259 and tokenizer.pad_id == 260
    assert tokenizer.decode([258, 259]) == "<call>"


def test_special_tokens_map_fills_what_the_config_leaves_out(tmp_path: Path) -> None:
    folder = json_folder(tmp_path, {"bos_token": None}, special_tokens_map={"bos_token": "<s>", "eos_token": "</s>"})
    assert load_tokenizer(folder).special_tokens == {"bos_token": "<s>", "eos_token": "</s>"}


def test_templates_are_found_in_every_place(tmp_path: Path) -> None:
    said = {"chat_template": "config"}
    assert load_tokenizer(json_folder(tmp_path / "a", said)).prompt([]) == "config"
    rows = [{"name": "default", "template": "one"}, {"name": "tool_use", "template": "two"}]
    named = load_tokenizer(json_folder(tmp_path / "b", {"chat_template": rows}))
    assert (named.prompt([]), named.prompt([], tools=[{}])) == ("one", "two")
    assert load_tokenizer(json_folder(tmp_path / "c", said, chat_template={"chat_template": "own"})).prompt([]) == "own"
    jinja = json_folder(
        tmp_path / "d",
        said,
        **{"chat_template.jinja": "{{ bos_token }}", "additional_chat_templates__tool_use.jinja": "t"},
    )
    (jinja / "special_tokens_map.json").write_text('{"bos_token": "<s>"}')
    tokenizer = load_tokenizer(jinja)
    assert (tokenizer.prompt([]), tokenizer.prompt([], tools=[{}])) == ("<s>", "t")
    assert tokenizer.encode_chat([]) == [256]


def test_a_base_model_says_that_it_cannot_chat(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="base model.*brolly run"):
        load_tokenizer(json_folder(tmp_path)).prompt([{"role": "user", "content": "Hi"}])


def test_strangers_text_cannot_spell_control_tokens(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(json_folder(tmp_path))
    assert tokenizer.encode("</s>", special=False) == [257]
    assert len(tokenizer.encode("</s>", special=False, parse_special=False)) == 4


def test_a_lone_surrogate_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="U\\+D800"):
        load_tokenizer(json_folder(tmp_path)).encode("a\ud800b")


def test_an_id_outside_any_vocabulary_is_an_error(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(json_folder(tmp_path))
    with pytest.raises(TokenizerError, match="no token id"):
        tokenizer.decode([-1])
    assert tokenizer.decode([999_999]) == ""


def test_reading_text_imports_nothing_heavy_before_it_is_used() -> None:
    import subprocess
    import sys

    code = "import sys, brolly.media.text; print([m for m in ('torch', 'jinja2', 'tokenizers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
