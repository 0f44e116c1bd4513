"""Find a checkpoint's tokenizer and build it, whatever its publisher wrote it in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from brolly.card import Header
from brolly.errors import TokenizerError
from brolly.media.text import bytelevel, sentencepiece, wordpiece
from brolly.media.text.bytelevel import Added
from brolly.media.text.clean import cleaning
from brolly.media.text.files import check_ids, read_bytes, read_object, read_text
from brolly.media.text.gguf import from_gguf, from_vocabulary
from brolly.media.text.sentencepiece import CONTROL, Piece
from brolly.media.text.template import ChatTemplate
from brolly.media.text.tokenizer import Tokenizer, guarded

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
WORDPIECE = ("bert", "distilbert", "mpnet")
FAIRSEQ = ("xlmroberta", "camembert")  # whose ids are not SentencePiece's own
_MAX_GAP = 1 << 16  # ids between the vocabulary and an added token
_MODELS = ("tokenizer.model", "tokenizer.model.v*", "spiece.model", "sentencepiece*.model", "spm.model")


def load_tokenizer(where: Header | Path | str) -> Tokenizer:
    """The tokenizer of a checkpoint: its header, its folder, or a tokenizer's own file."""
    tokenizer = _found(where)
    if isinstance(where, Header):
        tokenizer.clean = cleaning(where)
    return tokenizer


def _found(where: Header | Path | str) -> Tokenizer:
    header = where if isinstance(where, Header) else None
    path: Path = header.path if header else Path(where)  # type: ignore[assignment, arg-type]
    if header is None and path.is_file() and path.suffix == ".gguf":
        from brolly.checkpoint import read_header

        header = read_header(path)
    if header and "tokenizer.ggml.model" in header.metadata:
        return from_gguf(header.metadata, str(path))
    if header is None and path.is_file():
        return _from_file(path)
    folder = header.folder if header else path
    for name, read in (("tokenizer.json", _from_json), ("tekken.json", _from_tekken)):
        if (folder / name).is_file():
            return read(folder / name)
    # Meta keeps tokenizer.model one folder above the first Llama's shards
    for place in (folder, *([folder.parent] if header and header.format == "meta" else [])):
        for pattern in (*_MODELS, "*.tiktoken"):
            for found in sorted(place.glob(pattern)):
                if found.is_file():
                    return _from_model(found)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return _from_pair(folder)
    if (folder / "vocab.txt").is_file():
        return _from_lines(folder / "vocab.txt")
    for found in sorted(folder.glob("bpe_simple_vocab*.txt.gz")):
        return _from_simple(found)
    tables = [p for pattern in ("tok*.bin",) for p in sorted(folder.glob(pattern)) if p.is_file()]
    if header and tables:
        return _from_llama2c(tables, header)
    raise TokenizerError(
        f"{folder} holds no tokenizer; expected tokenizer.json, tokenizer.model, tekken.json, a .tiktoken file, "
        "vocab.json and merges.txt, vocab.txt, or CLIP's bpe_simple_vocab_16e6.txt.gz beside the weights."
    )


def _from_simple(path: Path) -> Tokenizer:
    with guarded(str(path)):
        backend = bytelevel.read_simple_vocabulary(path)
    start, end = bytelevel.SIMPLE_ENDS
    special = {"bos_token": start, "eos_token": end, "pad_token": end}
    return _finish(backend, path, {}, special, add_bos=True, add_eos=True)


def _from_file(path: Path) -> Tokenizer:
    if path.name.endswith(".txt.gz"):
        return _from_simple(path)
    if path.name == "tekken.json":
        return _from_tekken(path)
    if path.suffix == ".json":
        return _from_json(path)
    if path.suffix == ".bin":
        return _from_llama2c([path], None)
    if path.suffix == ".txt":
        return _from_lines(path)
    return _from_model(path)


def _from_json(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer as Backend

    data = check_ids(read_bytes(path), path)
    with guarded(str(path)):
        backend = Backend.from_buffer(data)
    config = settings(path.parent)
    special = special_tokens(config)
    with guarded(str(path)):
        _add_missing(backend, config, special)
        if type(backend.normalizer).__name__ == "BertNormalizer" and kind_of(path.parent, config).startswith(WORDPIECE):
            backend.normalizer = wordpiece.normalizer(
                config
            )  # transformers asks the config alone, whatever stands here
    # add_bos_token is not asked here: what the file itself puts around a text is what transformers puts
    return _finish(backend, path, config, special)


def _from_tekken(path: Path) -> Tokenizer:
    with guarded(str(path)):
        backend, roles = bytelevel.read_tekken(path)
    config = settings(path.parent)
    return _finish(backend, path, config, roles | special_tokens(config), **(_around(config) or {"add_bos": True}))


def _from_model(path: Path) -> Tokenizer:
    """tokenizer.model is SentencePiece's protobuf or tiktoken's lines: the bytes tell."""
    data = read_bytes(path)
    config = settings(path.parent)
    if bytelevel.looks_like_ranks(data):
        ranks = bytelevel.read_ranks(data, str(path))
        table = bytelevel.known_table(len(ranks))
        added = {**table.added, **{i: a for i, a in listed(path.parent, config).items() if i >= len(ranks)}}
        with guarded(str(path)):
            backend = bytelevel.from_ranks(ranks, 0, table.pattern, added, table.nfc, str(path))
        around = _around(config) or {"add_bos": table.add_bos}
        return _finish(backend, path, config, {**table.roles, **special_tokens(config)}, **around)
    vocabulary = sentencepiece.read_model(data, str(path))
    kind = kind_of(path.parent, config)
    if kind.startswith(FAIRSEQ):
        vocabulary = sentencepiece.as_fairseq(vocabulary, kind.startswith("camembert"))
    pieces = list(vocabulary.pieces)
    extra = listed(path.parent, config)
    for i, token in sorted(extra.items()):
        # published files rename reserved rows, and append others
        if i < len(pieces) and pieces[i].text != token.text:
            pieces[i] = Piece(token.text, pieces[i].score, CONTROL if token.control else sentencepiece.USER_DEFINED)
    special = {role: pieces[i].text for role, i in vocabulary.roles.items()} | special_tokens(config)
    # unsaid, Llama's begin with a bos and T5's end with an eos
    has_bos = "bos_token" in special
    around = (
        ({"add_bos": True, "add_eos": True} if kind.startswith(FAIRSEQ) else None)
        or _around(config)
        or ({"add_eos": not has_bos} if vocabulary.unigram else {"add_bos": has_bos})
    )
    appended = {i: t for i, t in extra.items() if i >= len(pieces)}
    named = {t.text for t in appended.values()} | {p.text for p in pieces}
    end = max([len(pieces) - 1, *appended]) + 1
    appended |= {end + n: Added(t) for n, t in enumerate(t for t in dict.fromkeys(special.values()) if t not in named)}
    if appended:
        if max(appended) >= len(pieces) + _MAX_GAP:
            raise TokenizerError(
                f"{path} has {len(pieces):,} pieces, and a file beside it adds one at {max(appended):,}."
            )
        pieces += [Piece(f"<|unnamed_{i}|>", 0.0, sentencepiece.UNUSED) for i in range(len(pieces), max(appended) + 1)]
        for i, token in appended.items():
            pieces[i] = Piece(token.text, 0.0, CONTROL if token.control else sentencepiece.USER_DEFINED)
    template = template_of(path.parent, config, special)
    tokenizer = from_vocabulary(
        replace(vocabulary, pieces=pieces), source=str(path), special_tokens=special, template=template, **around
    )
    if kind.startswith(FAIRSEQ):
        tokenizer.backend.post_processor = bytelevel.around_as_roberta(tokenizer.backend)
    return tokenizer


def _from_lines(path: Path) -> Tokenizer:
    """BERT's vocab.txt, and MPNet's, whose special tokens are RoBERTa's."""
    ids, config = wordpiece.read_vocabulary(path), settings(path.parent)
    mpnet = "<s>" in ids and "[CLS]" not in ids
    usual = wordpiece.MPNET if mpnet else wordpiece.BERT
    special = {role: text for role, text in (usual | special_tokens(config)).items() if text in ids}
    with guarded(str(path)):
        return _finish(wordpiece.build(ids, special, config, two_seps=mpnet), path, config, special)


def _from_pair(folder: Path) -> Tokenizer:
    config = settings(folder)
    special = special_tokens(config)
    source = str(folder / "vocab.json")
    clip = b'"!</w>"' in read_bytes(folder / "vocab.json")  # words end so in CLIP's alone
    kind = "CLIPTokenizer" if clip else str(config.get("tokenizer_class", ""))
    with guarded(source):
        backend = bytelevel.read_vocab_merges(
            folder / "vocab.json", folder / "merges.txt", kind,
            listed(folder, config), config.get("add_prefix_space") is True,
        )  # fmt: skip
        special = special or _endoftext(backend) | ({"bos_token": bytelevel.SIMPLE_ENDS[0]} if clip else {})
        _add_missing(backend, config, special)
    around = _around(config) or {}
    if clip:
        around = {"add_bos": True, "add_eos": True}
    elif kind_of(folder, config).startswith("roberta"):
        special = sentencepiece.FAIRSEQ | special
        with guarded(source):
            _add_missing(backend, config, special)
            backend.post_processor = bytelevel.around_as_roberta(backend)
    return _finish(backend, folder / "vocab.json", config, special, **around)


def _endoftext(backend: Any) -> dict[str, str]:
    text = "<|endoftext|>"
    return {"bos_token": text, "eos_token": text} if backend.token_to_id(text) is not None else {}


def _from_llama2c(tables: list[Path], header: Header | None) -> Tokenizer:
    """llama2.c keeps no name for its tokenizer: the one with as many pieces as the model has rows is meant."""
    rows = header.config.get("vocab_size") if header else None
    for path in tables:
        vocabulary = sentencepiece.read_llama2c(read_bytes(path), str(path))
        if rows in (None, len(vocabulary.pieces)):
            special = {role: vocabulary.pieces[i].text for role, i in vocabulary.roles.items()}
            return from_vocabulary(vocabulary, source=str(path), special_tokens=special, add_bos=True)
    names = ", ".join(p.name for p in tables)
    raise TokenizerError(f"None of {names} has {rows} pieces, as the model does; put its own one there.")


def _finish(backend: Any, path: Path, config: dict[str, Any], special: dict[str, str], **options: Any) -> Tokenizer:
    template = template_of(path.parent, config, special)
    return Tokenizer(backend, source=str(path), special_tokens=special, template=template, **options)


def settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, with what only special_tokens_map.json says."""
    found: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            found |= {k: v for k, v in read_object(folder / name).items() if v is not None or k not in found}
    return found


def kind_of(folder: Path, config: Mapping[str, Any]) -> str:
    """The tokenizer's class in small letters, or what kind of model it is for, where it does not say."""
    said = config.get("tokenizer_class")
    if not isinstance(said, str) and (folder / "config.json").is_file():
        said = read_object(folder / "config.json").get("model_type")
    return said.lower().replace("-", "") if isinstance(said, str) else ""


def special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Role ("bos_token") to text; published files give a string or an object with `content`."""
    found = {}
    for role in ROLES:
        value = config.get(role)
        if isinstance(value, dict):
            value = value.get("content")
        if isinstance(value, str) and value:
            found[role] = value
    return found


def listed(folder: Path, config: Mapping[str, Any]) -> dict[int, Added]:
    """The tokens beside the vocabulary: added_tokens_decoder, and added_tokens.json in older folders."""
    found: dict[int, Added] = {}
    path = folder / "added_tokens.json"
    if path.is_file():
        control = set(special_tokens(config).values())
        rows = read_object(path).items()
        found = {i: Added(t, t in control) for t, i in rows if isinstance(i, int) and t and 0 <= i < 1 << 20}
    table = config.get("added_tokens_decoder")
    for key, row in table.items() if isinstance(table, dict) else ():
        text = row.get("content") if isinstance(row, dict) else None
        if isinstance(text, str) and text and key.isdecimal() and int(key) < 1 << 20:
            found[int(key)] = Added(text, bool(row.get("special")))
    return found


def _add_missing(backend: Any, config: Mapping[str, Any], special: Mapping[str, str]) -> None:
    """Tokens that only tokenizer_config.json names: `tokenizers` gives the next free id, so only that can be kept."""
    from tokenizers import AddedToken

    known = backend.get_added_tokens_decoder()
    table = config.get("added_tokens_decoder")
    rows = [(int(k), row) for k, row in table.items() if k.isdecimal()] if isinstance(table, dict) else []
    for i, row in sorted(rows, key=lambda r: r[0]):
        text = row.get("content") if isinstance(row, dict) else None
        if not isinstance(text, str) or not text or i in known:
            continue
        held = backend.token_to_id(text)
        if held == i or (held is None and i == backend.get_vocab_size(with_added_tokens=True)):
            flags = {k: bool(row[k]) for k in ("single_word", "lstrip", "rstrip", "normalized") if k in row}
            token = AddedToken(text, special=bool(row.get("special")), **flags)
            (backend.add_special_tokens if token.special else backend.add_tokens)([token])
    texts = {t.content for t in backend.get_added_tokens_decoder().values()}
    missing = [t for t in dict.fromkeys(special.values()) if t not in texts]
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in missing])


def _around(config: Mapping[str, Any]) -> dict[str, bool] | None:
    """add_bos_token and add_eos_token, for files that do not say themselves what goes around a text."""
    said = {k: config[f"{k}_token"] for k in ("add_bos", "add_eos") if isinstance(config.get(f"{k}_token"), bool)}
    return said or None


def template_of(folder: Path, config: Mapping[str, Any], special: Mapping[str, str]) -> ChatTemplate | None:
    """The chat template, in transformers' order: chat_template.jinja, chat_template.json, tokenizer_config.json."""
    named: dict[str, str] = {}
    found = config.get("chat_template")
    if isinstance(found, str):
        named["default"] = found
    for row in found if isinstance(found, list) else ():
        if isinstance(row, dict) and isinstance(row.get("name"), str) and isinstance(row.get("template"), str):
            named[row["name"]] = row["template"]
    if (folder / "chat_template.json").is_file():
        other = read_object(folder / "chat_template.json").get("chat_template")
        if isinstance(other, str):
            named["default"] = other
    if (folder / "chat_template.jinja").is_file():
        named["default"] = read_text(folder / "chat_template.jinja")
    extra = folder / "additional_chat_templates"
    if extra.is_dir():
        named |= {p.stem: read_text(p) for p in sorted(extra.glob("*.jinja"))[:64]}
    return ChatTemplate(named.get("default", ""), special, named=named) if named else None
