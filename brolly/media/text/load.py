"""Find a checkpoint's tokenizer and build it, whatever its publisher wrote it in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brolly.card import Header
from brolly.errors import TokenizerError
from brolly.media.text.files import MAX_TOKENIZER, read_bytes, read_object, read_text
from brolly.media.text.template import ChatTemplate
from brolly.media.text.tokenizer import Tokenizer, guarded

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def load_tokenizer(where: Header | Path | str) -> Tokenizer:
    """The tokenizer of a checkpoint: a header, its folder, or a tokenizer's own file."""
    if isinstance(where, Header):
        path = where.folder
    else:
        path = Path(where)
    if path.is_file():
        return _from_json(path, path.parent)
    if (path / "tokenizer.json").is_file():
        return _from_json(path / "tokenizer.json", path)
    raise TokenizerError(f"{path} holds no tokenizer; expected tokenizer.json, tokenizer.model or vocab.json there.")


def _from_json(path: Path, folder: Path) -> Tokenizer:
    from tokenizers import Tokenizer as Backend

    data = read_bytes(path)
    with guarded(str(path)):
        backend = Backend.from_buffer(data)
    config = settings(folder)
    special = special_tokens(config)
    add_special(backend, config, special, str(path))
    _put_around(backend, config, special, str(path))
    return Tokenizer(backend, source=str(path), special_tokens=special, template=template_of(folder, config, special))


def settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, with what only special_tokens_map.json says."""
    found: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            found |= {k: v for k, v in read_object(folder / name).items() if v is not None or k not in found}
    return found


def special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """Role ("bos_token") to text; published files give a string or an object with `content`."""
    found = {}
    for role in ROLES:
        value = config.get(role)
        if isinstance(value, dict):
            value = value.get("content")
        if isinstance(value, str) and value:
            found[role] = value
    return found


def add_special(backend: Any, config: dict[str, Any], special: dict[str, str], source: str) -> None:
    """Add the tokens that only tokenizer_config.json names, at the ids that it gives them."""
    from tokenizers import AddedToken

    with guarded(source):
        table = config.get("added_tokens_decoder")
        rows = sorted(((int(i), row) for i, row in table.items()), key=lambda r: r[0]) if isinstance(table, dict) else []
        known = backend.get_added_tokens_decoder()
        for token_id, row in rows:
            text = row.get("content") if isinstance(row, dict) else None
            if not isinstance(text, str) or not text or token_id in known:
                continue
            # `tokenizers` gives the next free id: only a row that names that one, or an existing token, can be kept
            held = backend.token_to_id(text)
            if held == token_id or (held is None and token_id == backend.get_vocab_size(with_added_tokens=True)):
                flags = {k: bool(row[k]) for k in ("single_word", "lstrip", "rstrip", "normalized") if k in row}
                token = AddedToken(text, special=bool(row.get("special")), **flags)
                (backend.add_special_tokens if token.special else backend.add_tokens)([token])
        known_texts = {t.content for t in backend.get_added_tokens_decoder().values()}
        for text in special.values():
            if text not in known_texts:
                backend.add_special_tokens([AddedToken(text, special=True, normalized=False)])


def _put_around(backend: Any, config: dict[str, Any], special: dict[str, str], source: str) -> None:
    """add_bos_token and add_eos_token, where they are said, replace the file's own post-processor."""
    said = [k for k in ("add_bos_token", "add_eos_token") if isinstance(config.get(k), bool)]
    # Whisper's prefix of language and task is in its post-processor, and its config says add_bos_token all the same
    if not said or str(config.get("tokenizer_class", "")).startswith("Whisper"):
        return
    from tokenizers.processors import TemplateProcessing

    names = {k: special.get(f"{k}_token") for k in ("bos", "eos") if config.get(f"add_{k}_token") is True}
    parts = [(k, text, backend.token_to_id(text)) for k, text in names.items() if text]
    before = [{"SpecialToken": {"id": text, "type_id": 0}} for k, text, _ in parts if k == "bos"]
    after = [{"SpecialToken": {"id": text, "type_id": 0}} for k, text, _ in parts if k == "eos"]
    single = [*before, {"Sequence": {"id": "A", "type_id": 0}}, *after]
    with guarded(source):
        backend.post_processor = TemplateProcessing(
            single=[_word(p) for p in single], pair=None, special_tokens=[(text, i) for _, text, i in dict.fromkeys(parts)]
        )


def _word(part: dict[str, Any]) -> str:
    return f"{part['SpecialToken']['id']}:0" if "SpecialToken" in part else "$A:0"


def template_of(folder: Path, config: dict[str, Any], special: dict[str, str]) -> ChatTemplate | None:
    """The chat template: chat_template.jinja, chat_template.json or tokenizer_config.json, in transformers' order."""
    named: dict[str, str] = {}
    found = config.get("chat_template")
    if isinstance(found, str):
        named["default"] = found
    elif isinstance(found, list):
        rows = [r for r in found if isinstance(r, dict)]
        named |= {r["name"]: r["template"] for r in rows if isinstance(r.get("name"), str) and isinstance(r.get("template"), str)}
    if (folder / "chat_template.json").is_file():
        other = read_object(folder / "chat_template.json").get("chat_template")
        if isinstance(other, str):
            named["default"] = other
    if (folder / "chat_template.jinja").is_file():
        named["default"] = read_text(folder / "chat_template.jinja")
    extra = folder / "additional_chat_templates"
    if extra.is_dir():
        named |= {p.stem: read_text(p) for p in sorted(extra.glob("*.jinja"))[:64]}
    if not named:
        return None
    return ChatTemplate(named.get("default", ""), special, named=named)
