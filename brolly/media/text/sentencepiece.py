"""SentencePiece models (Kudo & Richardson 2018): the protobuf of tokenizer.model, read by hand, and what it builds."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from brolly.errors import TokenizerError
from brolly.media.text.merges import MAX_TOKENS, merges_of

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_UNIGRAM, _BPE, _WORD, _CHAR = 1, 2, 3, 4


class Piece(NamedTuple):
    """One row of the vocabulary; `kind` is one of the constants above."""

    text: str
    score: float
    kind: int = NORMAL


@dataclass(frozen=True)
class Vocabulary:
    """Pieces and the rules around them, from a .model file, a GGUF or llama2.c's tokenizer.bin.

    `charsmap` is SentencePiece's compiled normalisation; `squeeze` trims and collapses spaces; `prefix` puts a ▁ before
    the text; `roles` maps "bos_token" and its like to ids.
    """

    pieces: Sequence[Piece]
    unigram: bool = False
    byte_fallback: bool = True
    charsmap: bytes = b""
    prefix: bool = True
    squeeze: bool = False
    escape: bool = True
    roles: Mapping[str, int] = field(default_factory=dict)


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise ValueError("it ends inside a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number at byte {at} is longer than ten bytes")


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, Any]]:
    """(field number, value) of one message; a length-delimited value is its (start, end)."""
    while at < end:
        tag, at = _varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at, end)
            yield number, value
            continue
        size = {1: 8, 5: 4}.get(wire)
        if wire == 2:
            size, at = _varint(data, at, end)
        if size is None or not number:
            raise ValueError(f"byte {at} begins no field")
        if size > end - at:
            raise ValueError(f"a field at byte {at} has {size:,} bytes, and {end - at:,} are left")
        if wire == 2:
            yield number, (at, at + size)
        elif wire == 5:
            yield number, struct.unpack_from("<f", data, at)[0]
        else:
            yield number, None
        at += size


def _piece(data: bytes, at: int, end: int) -> Piece:
    # the layout that SentencePiece writes: text, score, and the kind where it is not NORMAL
    if end - at > 6 and data[at] == 0x0A and (n := data[at + 1]) < 0x80:
        after = at + 2 + n
        if after + 5 <= end and data[after] == 0x15:
            if after + 5 == end:
                return Piece(data[at + 2 : after].decode(), struct.unpack_from("<f", data, after + 1)[0])
            if after + 7 == end and data[after + 5] == 0x18:
                score = struct.unpack_from("<f", data, after + 1)[0]
                return Piece(data[at + 2 : after].decode(), score, data[after + 6])
    text, score, kind = "", 0.0, NORMAL
    for number, value in _fields(data, at, end):
        if number == 1:
            text = data[slice(*value)].decode()
        elif number == 2:
            score = float(value)
        elif number == 3:
            kind = int(value)
    return Piece(text, score, kind)


def read_model(data: bytes, source: str) -> Vocabulary:
    """A SentencePiece model's bytes; whatever is wrong with them is a TokenizerError that names `source`."""
    pieces: list[Piece] = []
    trainer: dict[int, Any] = {}
    rules: dict[int, Any] = {}
    try:
        for number, value in _fields(data, 0, len(data)):
            if number == 1:
                pieces.append(_piece(data, *value))
                if len(pieces) > MAX_TOKENS:
                    raise ValueError(f"it has more than {MAX_TOKENS:,} pieces")
            elif number == 2:
                trainer = dict(_fields(data, *value))
            elif number == 3:
                rules = dict(_fields(data, *value))
        charsmap = data[slice(*rules[2])] if 2 in rules else b""
        names = ("unk_token", "bos_token", "eos_token", "pad_token")
        # protobuf's int32: -1 is written as a ten-byte number
        told = {name: trainer.get(40 + i, (0, 1, 2, -1)[i]) for i, name in enumerate(names)}
        roles = {name: i for name, i in told.items() if isinstance(i, int) and 0 <= i < len(pieces)}
        model = int(trainer.get(3, _UNIGRAM))
        suffix, fallback = bool(trainer.get(24, 0)), bool(trainer.get(35, 0))
        flags = [bool(rules.get(i, 1)) for i in (3, 4, 5)]
    except (ValueError, TypeError, struct.error) as error:
        raise TokenizerError(f"{source} is no SentencePiece model that can be read: {error}.") from error
    if not pieces:
        raise TokenizerError(f"{source} is no SentencePiece model: it has no pieces.")
    if model not in (_UNIGRAM, _BPE, _CHAR) or suffix:
        what = "spaces after words" if suffix else f"model type {model}"
        raise TokenizerError(f"{source} is a SentencePiece model with {what}; brolly reads BPE, unigram and char ones.")
    kinds = {p.kind for p in pieces}
    for name in ("bos_token", "eos_token", "pad_token"):
        if name in roles and pieces[roles[name]].kind not in (CONTROL, USER_DEFINED, UNKNOWN):
            roles.pop(name)
    return Vocabulary(
        pieces,
        unigram=model == _UNIGRAM,
        byte_fallback=fallback or BYTE in kinds,
        charsmap=charsmap,
        prefix=flags[0],
        squeeze=flags[1],
        escape=flags[2],
        roles=roles,
    )


def build(vocabulary: Vocabulary, source: str) -> Any:
    """A tokenizers.Tokenizer that splits as SentencePiece does; the ▁ before the text is Tokenizer's `prefix`."""
    from tokenizers import AddedToken, Regex, models, normalizers
    from tokenizers import Tokenizer as Backend

    pieces = vocabulary.pieces
    ids: dict[str, int] = {}
    for i, piece in enumerate(pieces):
        if piece.text in ids or not piece.text:
            raise TokenizerError(f"{source} gives id {i} the piece {piece.text!r}, which is empty or given twice.")
        ids[piece.text] = i
    unknown = next((i for i, p in enumerate(pieces) if p.kind == UNKNOWN), vocabulary.roles.get("unk_token"))
    if vocabulary.unigram:
        usable = [p.score for p in pieces if p.kind == NORMAL]
        # a control piece must not win over the words that spell it
        worst = min(usable, default=0.0)
        rows = [(p.text, p.score if p.kind in (NORMAL, USER_DEFINED) else worst) for p in pieces]
        model: Any = models.Unigram(rows, unknown, vocabulary.byte_fallback)
    else:
        made = ((p.text, -p.score) for p in pieces if p.kind in (NORMAL, USER_DEFINED))
        name = pieces[unknown].text if unknown is not None else None
        model = models.BPE(
            ids, merges_of(made, ids, source), unk_token=name, fuse_unk=True, byte_fallback=vocabulary.byte_fallback
        )
    backend = Backend(model)
    steps: list[Any] = [normalizers.Precompiled(vocabulary.charsmap)] if vocabulary.charsmap else []
    if vocabulary.squeeze:
        # a ▁ in the text counts as a space; the first one may be the prefix
        ends = r"(?<=\A▁) +|(?<!\A)[ ▁]+\z" if vocabulary.prefix else r"\A +|[ ▁]+\z"
        steps += [normalizers.Replace(Regex(ends), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if vocabulary.escape:
        steps.append(normalizers.Replace(" ", "▁"))
    if steps:
        backend.normalizer = normalizers.Sequence(steps)
    backend.add_special_tokens(
        [AddedToken(p.text, special=True, normalized=False) for p in pieces if p.kind in (CONTROL, UNKNOWN)]
    )
    # SentencePiece finds these in the normalised text
    backend.add_tokens([AddedToken(p.text, special=False, normalized=True) for p in pieces if p.kind == USER_DEFINED])
    return backend


FAIRSEQ = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>",
           "cls_token": "<s>", "mask_token": "<mask>"}  # fmt: skip


def as_fairseq(vocabulary: Vocabulary, camembert: bool) -> Vocabulary:
    """XLM-R's and CamemBERT's ids: fairseq put its own special pieces before SentencePiece's, and a mask behind."""
    if camembert:
        head = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>"]
        first = [
            *(Piece(t, 0.0, UNKNOWN if t == "<unk>" else CONTROL) for t in head),
            Piece("<unk>NOTUSED", 0.0, UNUSED),
        ]
        pieces = [*first, *vocabulary.pieces[1:], Piece("<mask>", 0.0, CONTROL)]
    else:
        first = [Piece(t, 0.0, UNKNOWN if t == "<unk>" else CONTROL) for t in ("<s>", "<pad>", "</s>", "<unk>")]
        pieces = [*first, *vocabulary.pieces[3:], Piece("<mask>", 0.0, CONTROL)]
    at = {piece.text: i for i, piece in enumerate(pieces)}
    return replace(vocabulary, pieces=pieces, roles={role: at[text] for role, text in FAIRSEQ.items()})


def looks_like_model(data: bytes) -> bool:
    """Whether the bytes begin as a SentencePiece model does: a piece with its text first."""
    return re.match(rb"\n[\x02-\xff][\x00-\x03]?\n", data, re.DOTALL) is not None


def read_llama2c(data: bytes, source: str) -> Vocabulary:
    """llama2.c's tokenizer.bin: the longest piece's length, then (score, length, bytes) for each."""
    pieces: list[Piece] = []
    at = 4
    while at < len(data):
        if at + 8 > len(data) or len(pieces) >= MAX_TOKENS:
            raise TokenizerError(f"{source} is no llama2.c tokenizer: it ends inside piece {len(pieces)}.")
        score, size = struct.unpack_from("<fi", data, at)
        text = data[at + 8 : at + 8 + size]
        if not 0 < size <= 1 << 12 or len(text) != size or score != score:
            raise TokenizerError(f"{source} is no llama2.c tokenizer: piece {len(pieces)} claims {size:,} bytes.")
        at += 8 + size
        try:
            pieces.append(Piece(text.decode(), score))
        except UnicodeDecodeError as error:
            raise TokenizerError(f"{source} is no llama2.c tokenizer: piece {len(pieces)} is not UTF-8.") from error
    if len(pieces) < 259:
        raise TokenizerError(f"{source} is no llama2.c tokenizer: it has {len(pieces)} pieces, not even every byte.")
    return Vocabulary(_llama2c_kinds(pieces), roles={"unk_token": 0, "bos_token": 1, "eos_token": 2})


def _llama2c_kinds(pieces: Iterable[Piece]) -> list[Piece]:
    # llama2.c writes spaces for ▁ and a line's end around the control pieces
    found = []
    for i, (text, score, _) in enumerate(pieces):
        if i < 3:
            found.append(Piece(text.strip("\n"), score, UNKNOWN if i == 0 else CONTROL))
        elif re.fullmatch(r"<0x[0-9A-F]{2}>", text):
            found.append(Piece(text, score, BYTE))
        else:
            found.append(Piece(text.replace(" ", "▁"), score))
    return found
