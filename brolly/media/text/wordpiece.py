"""WordPiece (Schuster and Nakajima 2012), as BERT has it: vocab.txt's lines, or a GGUF's tokens, to a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brolly.errors import TokenizerError
from brolly.media.text.files import MAX_CONFIG, MAX_ID, read_text

BERT = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
MPNET = {"unk_token": "[UNK]", "sep_token": "</s>", "pad_token": "<pad>", "cls_token": "<s>", "mask_token": "<mask>"}
RULES = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")


def read_vocabulary(path: Path) -> dict[str, int]:
    """A piece a line, numbered from 0."""
    lines = read_text(path, MAX_CONFIG).split("\n")
    pieces = [line.removesuffix("\r") for line in (lines[:-1] if not lines[-1] else lines)]
    if not 0 < len(pieces) < MAX_ID:
        raise TokenizerError(f"{path} has {len(pieces):,} lines; expected a vocabulary of a piece a line.")
    return {piece: i for i, piece in enumerate(pieces)}


def normalizer(config: Mapping[str, Any]) -> Any:
    """What BERT's texts pass through first: small letters, unless `config` says otherwise."""
    from tokenizers import normalizers

    lower, accents, chinese = (config.get(key) for key in RULES)
    return normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=chinese is not False,
        strip_accents=accents if isinstance(accents, bool) else None,
        lowercase=lower is not False,
    )


def build(ids: Mapping[str, int], special: Mapping[str, str], config: Mapping[str, Any], *, two_seps: bool) -> Any:
    """A tokenizers.Tokenizer. `config` may turn off the small letters and the cutting of Chinese, and keep accents;
    MPNet puts two separators between the texts of a pair."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
    from tokenizers import Tokenizer as Backend

    backend = Backend(models.WordPiece(dict(ids), unk_token=special.get("unk_token", "[UNK]")))
    backend.normalizer = normalizer(config)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    known = [text for text in dict.fromkeys(special.values()) if text in ids]
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in known])
    start, end = (special.get(role, "") for role in ("cls_token", "sep_token"))
    if start in ids and end in ids:
        between = f"{end}:0 {end}:0" if two_seps else f"{end}:0"
        backend.post_processor = processors.TemplateProcessing(
            single=f"{start}:0 $A:0 {end}:0",
            pair=f"{start}:0 $A:0 {between} $B:1 {end}:1",
            special_tokens=[(text, ids[text]) for text in (start, end)],
        )
    return backend
