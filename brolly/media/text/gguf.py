"""The vocabulary that a GGUF file carries in its metadata: SentencePiece, byte-level pairs or WordPiece."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brolly.errors import TokenizerError
from brolly.media.text import bytelevel, sentencepiece, wordpiece
from brolly.media.text.bytelevel import Added
from brolly.media.text.merges import MAX_TOKENS
from brolly.media.text.patterns import PATTERNS, WHOLE_FIRST
from brolly.media.text.sentencepiece import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Piece, Vocabulary
from brolly.media.text.spelling import Spelling
from brolly.media.text.spelling import sentencepiece as spell_pieces
from brolly.media.text.template import ChatTemplate
from brolly.media.text.tokenizer import Tokenizer, guarded

_ROLES = {
    "bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding", "sep_token": "seperator",
    "cls_token": "cls", "mask_token": "mask",
}  # fmt: skip


def from_gguf(metadata: Mapping[str, Any], source: str) -> Tokenizer:
    """The tokenizer of a GGUF file's metadata."""
    kind = metadata.get("tokenizer.ggml.model")
    if kind not in ("llama", "gpt2", "bert", "t5"):
        raise TokenizerError(f"{source} has a vocabulary of kind {kind!r}; brolly reads llama, gpt2, bert and t5.")
    tokens = _strings(metadata, "tokenizer.ggml.tokens", source)
    kinds = _numbers(metadata, "tokenizer.ggml.token_type", len(tokens), source, NORMAL)
    roles = {}
    for role, word in _ROLES.items():
        i = metadata.get(f"tokenizer.ggml.{word}_token_id")
        if isinstance(i, int) and 0 <= i < len(tokens):
            roles[role] = i
    tokens = _distinct(tokens)
    special = {role: tokens[i] for role, i in roles.items()}
    text = metadata.get("tokenizer.chat_template")
    named = {
        k.removeprefix("tokenizer.chat_template."): v
        for k, v in metadata.items()
        if k.startswith("tokenizer.chat_template.") and isinstance(v, str)
    }
    template = ChatTemplate(text, special, named=named) if isinstance(text, str) else None
    add_bos, add_eos = (metadata.get(f"tokenizer.ggml.add_{k}_token") for k in ("bos", "eos"))
    shared: dict[str, Any] = {"source": source, "special_tokens": special, "template": template}
    with guarded(source):
        if kind in ("llama", "t5"):
            scores = _numbers(metadata, "tokenizer.ggml.scores", len(tokens), source, 0.0)
            charsmap = metadata.get("tokenizer.ggml.precompiled_charsmap", b"")
            vocabulary = Vocabulary(
                [Piece(*row) for row in zip(tokens, scores, kinds, strict=True)],
                unigram=kind == "t5",
                byte_fallback=BYTE in kinds,
                charsmap=bytes(charsmap),
                prefix=bool(metadata.get("tokenizer.ggml.add_space_prefix", True)),
                squeeze=bool(metadata.get("tokenizer.ggml.remove_extra_whitespaces", kind == "t5")),
                roles=roles,
            )
            return from_vocabulary(
                vocabulary, add_bos=kind == "llama" if add_bos is None else bool(add_bos),
                add_eos=kind == "t5" if add_eos is None else bool(add_eos), **shared,
            )  # fmt: skip
        if kind == "bert":
            return Tokenizer(_wordpiece(tokens, kinds, special), **shared)
        pairs = _pairs(tokens, kinds, metadata, source)
        return Tokenizer(pairs, add_bos=bool(add_bos), add_eos=bool(add_eos), **shared)


def from_vocabulary(vocabulary: Vocabulary, *, source: str, **options: Any) -> Tokenizer:
    """A SentencePiece vocabulary as a Tokenizer."""
    strip = int(vocabulary.prefix or vocabulary.squeeze)
    with guarded(source):
        backend = sentencepiece.build(vocabulary, source)
    return Tokenizer(
        backend,
        source=source,
        prefix="▁" if vocabulary.prefix else "",
        squeeze=vocabulary.squeeze,
        spelling=Spelling(spell_pieces, strip=strip, each_byte=True),
        **options,
    )


def _pairs(tokens: list[str], kinds: list[int], metadata: Mapping[str, Any], source: str) -> Any:
    pre = str(metadata.get("tokenizer.ggml.pre", "default"))
    if pre not in PATTERNS:
        raise TokenizerError(f"{source} cuts text as {pre!r} does (tokenizer.ggml.pre), which brolly does not know.")
    ids = {token: i for i, token in enumerate(tokens)}
    merges = []
    for line in _strings(metadata, "tokenizer.ggml.merges", source, 4 * MAX_TOKENS):
        left, _, right = line[1:].partition(" ")
        pair = (line[:1] + left, right)
        if pair[0] in ids and pair[1] in ids and "".join(pair) in ids:
            merges.append(pair)
    beside = (UNKNOWN, CONTROL, USER_DEFINED)
    added = {i: Added(tokens[i], kind != USER_DEFINED) for i, kind in enumerate(kinds) if kind in beside}
    return bytelevel.build(ids, merges, PATTERNS[pre], added, whole_first=pre in WHOLE_FIRST)


def _wordpiece(tokens: list[str], kinds: list[int], special: Mapping[str, str]) -> Any:
    """BERT's: llama.cpp writes ▁ before a word's first piece, where BERT writes ## before the others."""
    ids = {}
    for i, token in enumerate(tokens):
        plain = token.startswith("▁") or kinds[i] in (CONTROL, UNKNOWN) or (token[:1] == "[" and token[-1:] == "]")
        ids[token.removeprefix("▁") if plain else f"##{token}"] = i
    # newer files call what begins a text bos
    around = {
        role: special[name]
        for name, role in (("bos_token", "cls_token"), ("eos_token", "sep_token"))
        if name in special
    }
    return wordpiece.build(ids, around | dict(special), {}, two_seps=False)


def _strings(metadata: Mapping[str, Any], key: str, source: str, limit: int = MAX_TOKENS) -> list[str]:
    found = metadata.get(key)
    if not isinstance(found, Sequence) or isinstance(found, str) or not 0 < len(found) <= limit:
        raise TokenizerError(f"{source} has no {key} that can be read; expected 1 to {limit:,} strings.")
    texts = [t.decode(errors="replace") if isinstance(t, bytes) else t for t in found]
    if not all(isinstance(t, str) for t in texts):
        raise TokenizerError(f"{source} has other things than strings in {key}.")
    return texts


def _numbers(metadata: Mapping[str, Any], key: str, count: int, source: str, default: Any) -> list[Any]:
    found = metadata.get(key)
    if found is None:
        return [default] * count
    values = list(found)
    if len(values) != count:
        raise TokenizerError(f"{source} has {len(values):,} values in {key} for {count:,} tokens.")
    try:
        return [type(default)(v) for v in values]
    except (ValueError, TypeError, OverflowError) as error:
        raise TokenizerError(f"{source} has other things than numbers in {key}: {error}.") from error


def _distinct(tokens: list[str]) -> list[str]:
    # published files repeat padding rows; each id keeps a spelling of its own
    seen: set[str] = set()
    out = []
    for i, token in enumerate(tokens):
        name = token if token and token not in seen else f"<|unnamed_{i}|>"
        seen.add(name)
        out.append(name)
    return out
