"""Byte-level byte-pair vocabularies (Radford et al. 2019): vocab.json + merges.txt, tiktoken's ranks, tekken.json."""

from __future__ import annotations

import base64
import binascii
import gzip
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from brolly.errors import TokenizerError
from brolly.media.text.files import MAX_CONFIG, check_ids, read_bytes, read_object
from brolly.media.text.merges import MAX_TOKENS, merges_of
from brolly.media.text.patterns import CLIP, GPT2, LLAMA3, O200K, QWEN2
from brolly.media.text.spelling import spelled

SIMPLE_MERGES = 49152 - 256 - 2  # lines of OpenAI's file that CLIP uses
SIMPLE_ENDS = ("<|startoftext|>", "<|endoftext|>")


class Added(NamedTuple):
    """A token beside the vocabulary, spelled as it is; `control` ones are left out of decoded text."""

    text: str
    control: bool = True


class Ranks(NamedTuple):
    """What a table of ranks does not say: how text is cut, and the control tokens after the last rank."""

    pattern: str
    added: Mapping[int, Added]
    roles: Mapping[str, str]
    nfc: bool = False
    add_bos: bool = False


def build(
    ids: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    patterns: Iterable[str],
    added: Mapping[int, Added],
    *,
    whole_first: bool = False,
    nfc: bool = False,
) -> Any:
    """A tokenizers.Tokenizer that cuts by `patterns`, then merges bytes; `ids` spells bytes in GPT-2's alphabet."""
    from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    vocabulary = {**ids, **{token.text: i for i, token in added.items()}}
    backend = Backend(models.BPE(vocabulary, list(merges), ignore_merges=whole_first))
    if nfc:
        backend.normalizer = normalizers.NFC()
    steps: list[Any] = [pre_tokenizers.Split(Regex(p), behavior="isolated") for p in patterns]
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    rows = [AddedToken(t.text, special=t.control, normalized=False) for _, t in sorted(added.items())]
    backend.add_special_tokens([r for r in rows if r.special])
    backend.add_tokens([r for r in rows if not r.special])
    return backend


def from_ranks(
    ranks: Mapping[bytes, int], offset: int, pattern: str, added: Mapping[int, Added], nfc: bool, source: str
) -> Any:
    """A tokenizers.Tokenizer of tiktoken's kind: rank + offset is the id, and the lowest rank merges first."""
    ids = {spelled(token): rank + offset for token, rank in ranks.items()}
    missing = [b for b in range(256) if spelled(bytes([b])) not in ids]
    if missing:
        raise TokenizerError(f"{source} has no token for byte {missing[0]:#04x}; a table of ranks holds all 256 bytes.")
    return build(ids, merges_of(ids.items(), ids, source), (pattern,), added, whole_first=True, nfc=nfc)


def looks_like_ranks(data: bytes) -> bool:
    """Whether the bytes begin as tiktoken's do: base64, a space, a number."""
    first, _, rank = data[:256].partition(b"\n")[0].strip().partition(b" ")
    try:
        return rank.isdigit() and bool(base64.b64decode(first, validate=True))
    except binascii.Error:
        return False


def read_ranks(data: bytes, source: str) -> dict[bytes, int]:
    """tiktoken's lines, each a token in base64 and its rank."""
    ranks: dict[bytes, int] = {}
    decode = binascii.a2b_base64
    for number, line in enumerate(data.splitlines(), 1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[decode(token)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise TokenizerError(
                f"{source}, line {number}, is no token in base64 and its rank: {line[:40]!r}."
            ) from error
    _check(ranks, source)
    return ranks


def _check(ranks: Mapping[bytes, int], source: str) -> None:
    if not 256 <= len(ranks) <= MAX_TOKENS or b"" in ranks:
        raise TokenizerError(f"{source} has {len(ranks):,} tokens; expected 256 to {MAX_TOKENS:,} of them, none empty.")
    if len(set(ranks.values())) != len(ranks) or min(ranks.values()) < 0 or max(ranks.values()) >= 2 * MAX_TOKENS:
        raise TokenizerError(f"{source} gives one rank twice, or a rank out of its range.")


def _numbered(first: int, texts: Iterable[str]) -> dict[int, Added]:
    return {first + i: Added(text) for i, text in enumerate(texts)}


def _llama3(first: int) -> Ranks:
    named = {
        0: "<|begin_of_text|>", 1: "<|end_of_text|>", 4: "<|finetune_right_pad_id|>", 6: "<|start_header_id|>",
        7: "<|end_header_id|>", 8: "<|eom_id|>", 9: "<|eot_id|>", 10: "<|python_tag|>",
    }  # fmt: skip
    free = iter(range(256))
    texts = [named[i] if i in named else f"<|reserved_special_token_{next(free)}|>" for i in range(256)]
    roles = {"bos_token": texts[0], "eos_token": texts[1]}
    return Ranks(LLAMA3, _numbered(first, texts), roles, add_bos=True)


def _qwen(first: int) -> Ranks:
    texts = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205))]
    return Ranks(QWEN2, _numbered(first, texts), {"eos_token": texts[0], "pad_token": texts[0]}, nfc=True)


def _ended(pattern: str, first: int, text: str = "<|endoftext|>") -> Ranks:
    return Ranks(pattern, {first: Added(text)}, {"bos_token": text, "eos_token": text})


# tiktoken files are told apart by how many ranks they have; what else there is follows from that
_TABLES: dict[int, Callable[[], Ranks]] = {
    128000: lambda: _llama3(128000),
    151643: lambda: _qwen(151643),
    50256: lambda: _ended(GPT2, 50256),
    50257: lambda: _ended(GPT2, 50257),
    100256: lambda: _ended(LLAMA3, 100257),
    199998: lambda: _ended(O200K, 199999),
}


def known_table(n_ranks: int) -> Ranks:
    """What a table with so many ranks is known to need; an unknown one is cut as Llama 3 is, without control tokens."""
    return _TABLES.get(n_ranks, lambda: Ranks(LLAMA3, {}, {}))()


_TEKKEN_CONTROL = [
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]",
    "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
]  # fmt: skip


def read_tekken(path: Path) -> tuple[Any, dict[str, str]]:
    """Mistral's tekken.json: a tokenizers.Tokenizer and its roles. Control tokens come first, ranks after them."""
    found = read_object(path, 40 << 20)
    try:
        config, rows = found["config"], found["vocab"]
        pattern, n_control, size = (config[k] for k in ("pattern", "default_num_special_tokens", "default_vocab_size"))
        if not (isinstance(pattern, str) and 0 <= n_control < size <= MAX_TOKENS):
            raise ValueError("its config has other kinds of values")
        ranks = {binascii.a2b_base64(row["token_bytes"]): int(row["rank"]) for row in rows[: size - n_control]}
        listed = found.get("special_tokens") or []
        named = {int(row["rank"]): str(row["token_str"]) for row in listed} or dict(enumerate(_TEKKEN_CONTROL))
        plain = {int(row["rank"]) for row in listed if row.get("is_control") is False}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise TokenizerError(f"{path} is no tekken.json that can be read: {type(error).__name__}: {error}.") from error
    _check(ranks, str(path))
    added = {i: Added(named.get(i, f"<SPECIAL_{i}>"), i not in plain) for i in range(n_control)}
    texts = {t.text for t in added.values()}
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    backend = from_ranks(ranks, n_control, pattern, added, False, str(path))
    return backend, {role: text for role, text in roles.items() if text in texts}


def read_vocab_merges(vocab: Path, merges: Path, kind: str, added: Mapping[int, Added], prefix_space: bool) -> Any:
    """GPT-2's pair of files; `kind` is the class that tokenizer_config.json names (Qwen2 and CLIP cut otherwise)."""
    from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    check_ids(read_bytes(vocab), vocab)
    read_bytes(merges)
    options: dict[str, Any] = {}
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    clip = kind.startswith("CLIP")
    if clip:
        options = {"end_of_word_suffix": "</w>", "unk_token": "<|endoftext|>", "continuing_subword_prefix": ""}
    backend = Backend(models.BPE.from_file(str(vocab), str(merges), **options))
    if clip:
        _cut_as_clip(backend)
    elif kind.startswith("Qwen2"):
        backend.normalizer = normalizers.NFC()
        cut = pre_tokenizers.Split(Regex(QWEN2), behavior="isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence([cut, to_bytes])
    else:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    for _, token in sorted(added.items()):
        row = AddedToken(token.text, special=token.control, normalized=False)
        (backend.add_special_tokens if token.control else backend.add_tokens)([row])
    return backend


def around_as_roberta(backend: Any) -> Any:
    """<s> before a text, </s> behind it, and two of those between the texts of a pair."""
    from tokenizers import processors

    ids = [(text, backend.token_to_id(text)) for text in ("<s>", "</s>")]
    return processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ids)


def _cut_as_clip(backend: Any) -> None:
    from tokenizers import Regex, normalizers, pre_tokenizers

    blank = normalizers.Replace(Regex(r"\s+"), " ")
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), blank, normalizers.Lowercase()])
    cut = pre_tokenizers.Split(Regex(CLIP), behavior="removed", invert=True)
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([cut, to_bytes])


def read_simple_vocabulary(path: Path) -> Any:
    """OpenAI's bpe_simple_vocab_16e6.txt.gz: CLIP's merges alone, of which the vocabulary follows."""
    from tokenizers import AddedToken, decoders, models
    from tokenizers import Tokenizer as Backend

    with gzip.GzipFile(fileobj=io.BytesIO(read_bytes(path, MAX_CONFIG))) as file:
        data = file.read(MAX_CONFIG + 1)
    if len(data) > MAX_CONFIG:
        raise TokenizerError(f"{path} unpacks to more than {MAX_CONFIG:,} bytes; OpenAI's has 3,000,000.")
    rows = [line.split() for line in data.decode().split("\n")[1 : SIMPLE_MERGES + 1]]
    merges = [(row[0], row[1]) for row in rows if len(row) == 2]
    if len(merges) != len(rows):
        raise TokenizerError(f"{path} has a line that is no pair of pieces; expected OpenAI's list of merges.")
    # GPT-2's alphabet: the bytes that print, then the others; each alone, and each as the end of a word
    letters = [spelled(bytes([b])) for b in sorted(range(256), key=lambda b: (spelled(bytes([b])) != chr(b), b))]
    pieces = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges), *SIMPLE_ENDS]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    backend = Backend(models.BPE(vocabulary, merges, end_of_word_suffix="</w>", unk_token=SIMPLE_ENDS[1]))
    _cut_as_clip(backend)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SIMPLE_ENDS])
    return backend
